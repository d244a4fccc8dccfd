"""Checkpoints whose values are objects of classes: plain data is read, everything else is named, nothing is run."""

from __future__ import annotations

import argparse
import collections
import enum
import os
import pathlib
import subprocess
import sys
import types
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nepa3d import cli
from nepa3d.models.checkpoint import load_checkpoint


class Colour(enum.Enum):
    RED = 1


class Reduced:
    """Is pickled as a call, and a state if one is given."""

    def __init__(self, function: Any, arguments: tuple[Any, ...], *state: Any) -> None:
        self.reduced = (function, arguments, *state)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.reduced


def save(path: Path, args: Any, **more: Any) -> Path:
    torch.save({"model": {}, "opt": {}, "args": args, "epoch": 1, "step": 1}, path, **more)
    return path


def exchange(path: Path, old: bytes, new: bytes) -> None:
    """Replace bytes of the pickle in a checkpoint."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    assert any(old in content for name, content in members.items() if name.endswith("data.pkl"))
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content.replace(old, new) if name.endswith("data.pkl") else content)


COUNTS: collections.defaultdict[str, list[int]] = collections.defaultdict(list, a=[1])
PLAIN = {
    "path": (Path("/data/cache"), "/data/cache"),
    "relative path": (pathlib.PurePosixPath("a/b"), "a/b"),
    "Windows path": (pathlib.PureWindowsPath("C:\\data\\x"), "C:\\data\\x"),
    "namespace": (argparse.Namespace(a=1, b=argparse.Namespace(c=Path("x"))), {"a": 1, "b": {"c": "x"}}),
    "simple namespace": (types.SimpleNamespace(a=[Path("x")]), {"a": ["x"]}),
    "ordered": (collections.OrderedDict(a=np.float64(0.5)), {"a": 0.5}),
    "default": (COUNTS, {"a": [1]}),
    "counts": (collections.Counter("aab"), {"a": 2, "b": 1}),
    "frozen": (frozenset({1}), frozenset({1})),
    "version": (torch.__version__, str(torch.__version__)),
    "big-endian": (np.dtype(">f4").type(1.5), 1.5),
    "text": (np.str_("é"), "é"),
    "no text": (np.str_(""), ""),
    "bytes": (np.bytes_(b"x"), b"x"),
    "dtype": (np.dtype("float32"), "float32"),
    "scalar type": (np.int64, "int64"),
    "type": (float, "float"),
    "array": (np.arange(6, dtype=">i2").reshape(2, 3), [[0, 1, 2], [3, 4, 5]]),
    "Fortran array": (np.asfortranarray([[1.0, 2.0], [3.0, 4.0]]), [[1.0, 2.0], [3.0, 4.0]]),
    "empty array": (np.zeros((3, 0)), []),
    "tuple": ((np.int32(1), Path("x")), (1, "x")),
}
SCALARS = (
    *("float16", "float32", "float64", "longdouble", "complex128", "bool_"),
    *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
)


@pytest.mark.parametrize("name", PLAIN)
def test_plain_data_is_read_as_plain_values(name: str, tmp_path: Path) -> None:
    """T29: on load, whatever class they were of."""
    value, expected = PLAIN[name]
    found = load_checkpoint(save(tmp_path / "a.pt", {"key": value})).args
    assert found == {"key": expected} and type(found["key"]) is type(expected)


@pytest.mark.parametrize("name", SCALARS)
def test_numpy_scalars_are_read(name: str, tmp_path: Path) -> None:
    found = load_checkpoint(save(tmp_path / "a.pt", {"key": getattr(np, name)(1)})).args["key"]
    assert found == 1 and type(found) in (bool, int, float, complex)


def test_arguments_may_be_a_namespace(tmp_path: Path) -> None:
    args = load_checkpoint(save(tmp_path / "a.pt", argparse.Namespace(heads=np.int64(2), root=Path("x")))).args
    assert args == {"heads": 2, "root": "x"} and type(args) is dict


@pytest.mark.parametrize(
    ("value", "now", "other"),
    [
        (Path("a/b"), b"pathlib\nPosixPath", b"pathlib._local\nPosixPath"),  # Python 3.13
        (Path("a/b"), b"pathlib\nPosixPath", b"pathlib\nPurePosixPath"),
        (np.float64(2), b"numpy._core.multiarray", b"numpy.core.multiarray"),  # NumPy 1
        (np.ones(2), b"numpy._core.multiarray", b"numpy.core.multiarray"),
    ],
)
def test_names_of_other_versions(value: Any, now: bytes, other: bytes, tmp_path: Path) -> None:
    path = save(tmp_path / "a.pt", {"key": value})
    expected = load_checkpoint(path).args
    if np.lib.NumpyVersion(np.__version__) < "2.0.0":
        now = now.replace(b"numpy._core", b"numpy.core")
    exchange(path, now, other)
    assert load_checkpoint(path).args == expected
    exchange(save(path, {"key": Path("a/b")}), b"pathlib\nPosixPath", b"pathlib\nWindowsPath")
    assert load_checkpoint(path).args == {"key": "a\\b"}


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (Colour.RED, f"'{__name__}.Colour'"),
        ([Path("x"), {"deep": Colour.RED}], f"'{__name__}.Colour'"),
        (range(3), "'builtins.range'"),
        (np.array([None]), "NumPy values of dtype 'O8'"),
        (np.datetime64("2020-01-01"), "NumPy values of dtype 'M8'"),
        (np.zeros(1, [("x", "f4")]), "NumPy values of dtype 'V4'"),
        (Reduced(dict, ([],)), "objects of 'dict'"),
    ],
)
def test_other_types_are_named_with_what_to_do(value: Any, named: str, tmp_path: Path) -> None:
    """T30: in one line without escape codes."""
    path = save(tmp_path / "a.pt", {"key": value})
    with pytest.raises(ValueError) as raised:
        load_checkpoint(path)
    told = str(raised.value)
    assert told.startswith(f"{path}: not a readable checkpoint: it holds ") and named in told
    assert f"torch.save(c, '{path}')" in told and told.isprintable()


def test_another_pickle_protocol_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a.pt: not a readable checkpoint: .*pickle_protocol of torch.save$"):
        load_checkpoint(save(tmp_path / "a.pt", {}, pickle_protocol=4))


def test_stand_ins_run_no_code_and_set_no_attribute(tmp_path: Path) -> None:
    """T31: what a file may do with them is to be refused, or to be data."""
    ran = f"{tmp_path / 'ran'}"
    namespace, path, array = argparse.Namespace, pathlib.PosixPath, np.ndarray
    tricks = [
        Reduced(path, (Reduced(os.mkdir, (ran,)),)),
        Reduced(namespace, (), {"a": Reduced(os.mkdir, (ran,))}),
        Reduced(namespace, (), {"__class__": Reduced(os.system, (f"mkdir {ran}",))}),
        Reduced(getattr, (namespace, "__init__")),
        Reduced(path, ("x",), {"_str": "y"}),  # a state for what has become text
        Reduced(path, ("x",), (None, {"_str": "y"})),
        Reduced(namespace, (), (None, {"__dict__": {}})),
        Reduced(array, ((10**9,), "O"), (1, (10**9,), np.dtype("f8"), False, b"")),
        Reduced(array, (), (1, (2,), np.dtype("f8"), False, b"x")),
        Reduced(array, (), 1),
        Reduced(np.dtype, (Path("x"),)),
        Reduced(np.dtype, ("f8,O",)),
        Reduced(float, ("1",), {"name": "x"}),
        Reduced(path, (1,)),
    ]
    for trick in tricks:
        with pytest.raises(ValueError, match=r"a.pt: not a readable checkpoint: "):
            load_checkpoint(save(tmp_path / "a.pt", {"key": trick}))
    attributes = Reduced(namespace, (), {"__class__": 1, "update": 2, "__setstate__": 3})
    found = load_checkpoint(save(tmp_path / "a.pt", {"key": attributes})).args["key"]
    assert type(found) is dict and found == {"__class__": 1, "update": 2, "__setstate__": 3}
    assert not Path(ran).exists()
    stay = [known[1] for known in torch.serialization.get_safe_globals() if isinstance(known, tuple)]
    assert not {"argparse.Namespace", "pathlib.PosixPath"} & {*stay}


def test_values_that_hold_each_other(tmp_path: Path) -> None:
    wide: list[Any] = [Path("x")]
    for _ in range(100):
        wide = [wide, wide]
    assert type(load_checkpoint(save(tmp_path / "a.pt", {"key": wide})).args["key"]) is list
    round_about: list[Any] = []
    round_about.append(round_about)
    with pytest.raises(ValueError, match=r"a.pt: not a readable checkpoint: "):
        load_checkpoint(save(tmp_path / "a.pt", {"key": round_about}))


def test_a_command_reads_or_names_them(golden: Path, tmp_path: Path) -> None:
    content = torch.load("nepa_v1.pt", weights_only=True)
    flags = ["--cache_root", "unpaired", "--query_backend", "pointcloud", "--gallery_backend", "udfgrid"]

    def run(args: Any) -> subprocess.CompletedProcess[str]:
        torch.save({**content, "args": args}, tmp_path / "a.pt")
        command = [sys.executable, "-m", "nepa3d", "ucpr", *flags, "--ckpt", f"{tmp_path / 'a.pt'}"]
        return subprocess.run(command, capture_output=True, text=True, encoding="utf-8")

    read = run(argparse.Namespace(**content["args"] | {"save_dir": Path("runs/a"), "lr": np.float64(1e-4)}))
    assert read.returncode == cli.EXIT_OK, read.stderr
    named = run({**content["args"], "colour": Colour.RED})
    assert named.returncode == cli.EXIT_USAGE
    assert named.stderr.count("\n") == 1 and "\x1b" not in named.stderr and f"{__name__}.Colour" in named.stderr
