"""The cache files of a split, for corpora of any size: names in one block of bytes, and an index that finds them again.

The list of a large split is kept in ``<cache_root>/_meta/index_<split>.npz`` and mapped from there, so that a million
shapes neither take long to find nor a Python object each. It is used only while every folder of the split has the
modification time it had when it was read; where it cannot be written, the folders are read every time.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import overload

import numpy as np
from numpy.typing import NDArray

from nepa3d.execution.files import map_npz, write_npz
from nepa3d.shapes.packed import INDEX, pack_of, shard_name

INDEX_FROM = 20_000  # shapes; fewer are found at once
SETTLED_NS = 2_000_000_000  # a folder that changed this shortly before it was read may have changed again since

Names = NDArray[np.uint8]
Numbers = NDArray[np.int64]


class ShapeList(Sequence[str]):
    """Paths ``<folder>/<class>/<id>.npz``, sorted. ``folder`` stays as spelt: evaluation draws depend on it."""

    def __init__(self, folder: str, names: Names, ends: Numbers) -> None:
        self._prefix = os.path.join(folder, "")  # noqa: PTH118 - a Path would respell it
        self._names, self._ends = names, ends

    @classmethod
    def of(cls, folder: str, names: Sequence[str]) -> ShapeList:
        """The list of ``names`` ("class/id.npz"), which must be sorted."""
        encoded = [os.fsencode(name) for name in names]
        ends = np.cumsum([len(name) for name in encoded], dtype=np.int64)
        return cls(folder, np.frombuffer(b"".join(encoded), np.uint8), ends)

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        i = range(len(self))[index]
        begin = int(self._ends[i - 1]) if i else 0
        return self._prefix + os.fsdecode(self._names[begin : self._ends[i]].tobytes())

    def __iter__(self) -> Iterator[str]:
        return (self[i] for i in range(len(self)))


def open_shapes(cache_root: str | os.PathLike[str], split: str) -> ShapeList:
    """The cache files ``<cache_root>/<split>/<class>/<id>.npz``, in folders or packed. ``ValueError`` if there are
    none, or the split is both."""
    folder = os.path.join(cache_root, split)  # noqa: PTH118 - a Path would respell it
    if not Path(folder).is_dir():
        raise ValueError(f"{folder}: there is no such folder of caches")
    pack = pack_of(folder)
    if pack:
        if classes := _classes(folder):
            raise ValueError(
                f"{folder}: holds {INDEX} and the folder {classes[0]}, expected shards or folders, not both"
            )
        return ShapeList(folder, pack.names, pack.ends)
    index = Path(cache_root) / "_meta" / f"index_{split.strip(os.sep).replace(os.sep, '_')}.npz"
    shapes = _from_index(index, folder) if index.is_file() else None
    if shapes is None:
        shapes = _from_folders(index, folder)
    if not shapes:
        half = f", but shards without {INDEX}: pack it again" if Path(folder, shard_name(0)).exists() else ""
        raise ValueError(f"{folder}: holds no <class>/<id>.npz{half}")
    return shapes


def list_shapes(cache_root: str | os.PathLike[str], split: str) -> list[str]:
    """``open_shapes`` as a plain list."""
    return list(open_shapes(cache_root, split))


def _from_index(index: Path, folder: str) -> ShapeList | None:
    """What the index says, unless a folder is not as it was when it was made, or the index is damaged."""
    try:
        kept = {key: array.view(np.ndarray) for key, array in map_npz(index).items()}  # a memmap is slow to index
        classes = bytes(kept["classes"]).decode("utf-8", "surrogateescape").split("\0")
        names, ends, times, made = kept["names"], kept["ends"], kept["times"], int(kept["made"][0])
    except (ValueError, KeyError):
        return None
    now = _times(folder, [name for name in classes if name])
    if now is None or not np.array_equal(now, times) or now.max() > made - SETTLED_NS:
        return None
    return ShapeList(folder, names, ends)


def _from_folders(index: Path, folder: str) -> ShapeList:
    made = time.time_ns()
    classes = _classes(folder)
    times = _times(folder, classes)
    names = [
        f"{name}{os.sep}{file.name}"
        for name in classes
        for file in os.scandir(f"{folder}{os.sep}{name}")
        if file.name.endswith(".npz") and not file.name.startswith(".")
    ]
    names.sort()
    shapes = ShapeList.of(folder, names)
    writable = os.access(index.parent if index.parent.exists() else index.parent.parent, os.W_OK)
    if len(shapes) >= INDEX_FROM and writable and times is not None:
        arrays: dict[str, NDArray] = {
            "classes": np.frombuffer(os.fsencode("\0".join(classes)), np.uint8),
            "names": shapes._names,
            "ends": shapes._ends,
            "times": times,
            "made": np.array([made]),
        }
        write_npz(index, arrays)
    return shapes


def _classes(folder: str) -> list[str]:
    return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))


def _times(folder: str, classes: Sequence[str]) -> Numbers | None:
    """When the folder and those of its classes last changed, in ns; ``None`` if one of them is gone."""
    try:
        return np.array([os.stat(f"{folder}{os.sep}{name}").st_mtime_ns for name in ("", *classes)])  # noqa: PTH116
    except FileNotFoundError:
        return None
