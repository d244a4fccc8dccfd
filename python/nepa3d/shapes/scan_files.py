"""Files of point clouds: PLY without faces, arrays of NumPy, text with three or more numbers a line.

Letters: N points.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nepa3d.shapes.cache import CacheError, ShapeCache
from nepa3d.shapes.mesh import BadShapeError, Reason, as_utf8, read_mesh

XYZ_KEYS = ("points", "xyz", "pc_xyz")  # of an npz, in order of preference
NORMAL_KEYS = ("normals", "pc_n")
COLOR_KEYS = ("colors", "pc_rgb")
TEXT = (".xyz", ".txt", ".pts", ".csv", ".asc")
SUFFIXES = (".ply", ".npz", ".npy", *TEXT)


class CloudFile(NamedTuple):
    """What a file of a cloud holds."""

    xyz: NDArray[np.floating]  # (N, 3)
    normals: NDArray[np.floating] | None  # (N, 3)
    colors: NDArray[np.floating] | None  # (N, 3)

    def some(self, rows: NDArray[np.int64]) -> CloudFile:
        """These points (n,) alone."""
        normals, colors = (None if array is None else array[rows] for array in (self.normals, self.colors))
        return CloudFile(self.xyz[rows], normals, colors)


def read_cloud(path: str | os.PathLike[str]) -> CloudFile | None:
    """The cloud of a file; None if it is the file of a mesh: a PLY with faces, or of another ending.

    Of a PLY the positions are read; an ``.npz`` holds ``points`` or ``xyz``, and may hold ``normals`` and ``colors``; a
    text has three numbers a line, apart by blanks or commas, or six, the last three a normal. Further columns are not
    read, nor is a first line that is a count or a heading. Raises ``BadShapeError`` naming the file and the fault; a
    file without points is one.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        return None
    if suffix != ".ply" and path.is_file() and path.stat().st_size == 0:
        raise BadShapeError(path, Reason.EMPTY_FILE, "the file has 0 bytes")
    if suffix == ".ply":
        vertices, faces, _ = read_mesh(path)
        if len(faces):
            return None
        found = CloudFile(vertices, None, None)
    elif not path.is_file():
        raise BadShapeError(path, Reason.UNREADABLE, "there is no such file")
    else:
        found = {".npz": _npz, ".npy": _npy}.get(suffix, _text)(path)
    if found.xyz.ndim != 2 or found.xyz.shape[1] != 3 or found.xyz.dtype.kind not in "fiu":
        came = f"{found.xyz.shape} of {found.xyz.dtype}"
        raise BadShapeError(path, Reason.UNREADABLE, f"points must have shape (N, 3), got {came}")
    if len(found.xyz) == 0:
        raise BadShapeError(path, Reason.EMPTY_FILE, "it holds no points")
    for name, array in (("normals", found.normals), ("colors", found.colors)):
        if array is not None and array.shape[:1] != found.xyz.shape[:1]:
            raise BadShapeError(path, Reason.UNREADABLE, f"{len(array)} {name} of {len(found.xyz)} points")
    return found


def _npz(path: Path) -> CloudFile:
    with ShapeCache(path) as arrays:
        keys = [next((key for key in names if key in arrays), None) for names in (XYZ_KEYS, NORMAL_KEYS, COLOR_KEYS)]
        if keys[0] is None:
            raise CacheError(path, f"expected an array of the name {', '.join(XYZ_KEYS)}, got {', '.join(arrays)}")
        xyz, normals, colors = (None if key is None else arrays.stored(key) for key in keys)
    assert xyz is not None
    return CloudFile(xyz, normals, colors)


def _npy(path: Path) -> CloudFile:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise BadShapeError(path, Reason.UNREADABLE, f"not a readable .npy: {error}") from error
    return CloudFile(np.asarray(array), None, None)


def _text(path: Path) -> CloudFile:
    try:
        text = as_utf8(path.read_bytes()).decode()
        lines = text.replace(",", " ").replace(";", " ").splitlines()
        first = lines[0].split() if lines else []
        heading = len(first) == 1 or any(not _is_number(word) for word in first)  # a count, or names of columns
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of a text without data, which is told below
            table = np.loadtxt(lines[heading:], ndmin=2)
    except ValueError as error:  # also of bytes that are no text
        raise BadShapeError(path, Reason.UNREADABLE, f"not numbers in columns: {error}") from error
    if table.size == 0:
        return CloudFile(np.empty((0, 3)), None, None)
    if table.shape[1] < 3:
        raise BadShapeError(path, Reason.UNREADABLE, f"expected 3 numbers a line or more, got {table.shape[1]}")
    return CloudFile(table[:, :3], table[:, 3:6] if table.shape[1] == 6 else None, None)


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
