"""Plain data of a checkpoint that is stored as objects of classes: read as plain values, without those classes.

torch's safe reader stops at every class that it does not know. For the classes of plain data it is given the stand-ins
below, by the name in the file: a path becomes a str, a namespace a dict, a NumPy scalar a number, a dtype its name, an
array a list. No object of the file's class is made, so its constructor does not run and none of its attributes is set.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np

_NUMBERS_AND_TEXT = re.compile(r"[biufcSU]\d{0,9}")  # as NumPy spells their dtypes in files


class NotPlainError(ValueError):
    """A file holds an object that has no plain value."""


class _Namespace(dict[str, Any]):
    """The attributes of a namespace."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.update(state)


class _Dtype:
    """A dtype of numbers or text."""

    def __init__(self, code: Any, *_: Any) -> None:
        if not isinstance(code, str) or not _NUMBERS_AND_TEXT.fullmatch(code):
            raise NotPlainError(f"NumPy values of dtype {code!r}")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.dtype = self.dtype.newbyteorder(state[1])


class _Array:
    """An array, of whose constructor the arguments mean nothing before its state is given."""

    def __init__(self, *_: Any) -> None:
        self.items: list[Any] = []

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, kind, fortran, data = state
        array: np.ndarray = np.ndarray(shape, kind.dtype, data, order="F" if fortran else "C")
        self.items = array.tolist() if array.nbytes else []  # a shape like (10**9, 0) takes no data, but a list of it


@dataclass(frozen=True)
class _Type:
    """A class that is itself a value, or makes the values of a ``defaultdict``."""

    name: str

    def __call__(self, *_: Any) -> None:
        raise NotPlainError(f"objects of {self.name!r}")


def _scalar(kind: _Dtype, data: bytes) -> Any:
    item = np.ndarray((), kind.dtype, data).item()
    return float(item) if isinstance(item, np.floating) else item  # of a long double


def _posix_path(*parts: str) -> str:
    return str(PurePosixPath(*parts))


def _windows_path(*parts: str) -> str:
    return str(PureWindowsPath(*parts))


def _empty_bytes() -> bytes:
    return b""


def _empty_dict(*_: Any) -> dict[Any, Any]:
    return {}


def _stand_ins() -> dict[str, Callable[..., Any]]:
    """What is called in place of each class or function that a file names."""
    found: dict[str, Callable[..., Any]] = {
        "argparse.Namespace": _Namespace,
        "types.SimpleNamespace": _Namespace,
        "collections.defaultdict": _empty_dict,
        "builtins.bytes": _empty_bytes,  # others are stored encoded
        "builtins.frozenset": frozenset,
        "torch.torch_version.TorchVersion": str,
        "numpy.dtype": _Dtype,
        "numpy.ndarray": _Array,
    }
    for module in ("pathlib", "pathlib._local"):  # the second in Python 3.13
        found |= {f"{module}.{name}": _posix_path for name in ("PosixPath", "PurePosixPath")}
        found |= {f"{module}.{name}": _windows_path for name in ("WindowsPath", "PureWindowsPath")}
    for module in ("numpy.core.multiarray", "numpy._core.multiarray"):  # of NumPy 1 and 2
        found |= {f"{module}.scalar": _scalar, f"{module}._reconstruct": _Array}
    for kind in (bool, int, float, complex, str, list, tuple, dict):
        found[f"builtins.{kind.__name__}"] = _Type(kind.__name__)
    kinds = {*np.sctypeDict.values()}
    found |= {f"numpy.{kind.__name__}": _Type(kind.__name__) for kind in kinds if np.dtype(kind).kind in "biufcSU"}
    return found


SAFE_GLOBALS: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [  # for torch.serialization.safe_globals
    (stand_in, name) for name, stand_in in _stand_ins().items()
]


def plain(value: Any, known: dict[int, Any] | None = None) -> Any:
    """``value`` with plain values in place of stand-ins, also within dicts, lists and tuples."""
    known = {} if known is None else known  # what is there twice is converted once
    if id(value) not in known:
        known[id(value)] = _converted(value, known)
    return known[id(value)]


def _converted(value: Any, known: dict[int, Any]) -> Any:
    if isinstance(value, dict):
        return {plain(key, known): plain(item, known) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(plain(item, known) for item in value)
    if isinstance(value, _Dtype):
        return value.dtype.name
    if isinstance(value, _Array):
        return value.items
    return value.name if isinstance(value, _Type) else value
