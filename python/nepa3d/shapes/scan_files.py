"""Files of point clouds: PLY without faces, arrays of NumPy, text with three or more numbers a line.

Letters: N points.
"""

from __future__ import annotations

import os
import re
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
    colors: NDArray[np.floating] | NDArray[np.uint8] | None  # (N, 3)

    def some(self, rows: NDArray[np.int64]) -> CloudFile:
        """These points (n,) alone."""
        normals = None if self.normals is None else self.normals[rows]
        return CloudFile(self.xyz[rows], normals, None if self.colors is None else self.colors[rows])


def read_cloud(path: str | os.PathLike[str]) -> CloudFile | None:
    """The cloud of a file; None if it is the file of a mesh: a PLY with faces, or of another ending.

    Of a PLY the positions are read; an ``.npz`` holds ``points`` or ``xyz``, and may hold ``normals`` and ``colors``; a
    text has three numbers a line, apart by blanks, commas or semicolons, or six, the last three a normal of length 1 or
    a colour of whole numbers up to 255. Other columns are not read. A first line may be a title, or a count, which must
    be right; one that names the columns must name x, y and z, which are then read wherever they stand. Raises
    ``BadShapeError`` naming the file and the fault, such as commas within numbers; a file without points is one.
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
        return _columns(as_utf8(path.read_bytes()).decode().splitlines())
    except ValueError as error:  # also of bytes that are no text
        raise BadShapeError(path, Reason.UNREADABLE, f"not numbers in columns: {error}") from error


def _columns(lines: list[str]) -> CloudFile:
    """The cloud of a text; ``ValueError`` if it is none, or could be read in more than one way."""
    first = lines[0] if lines else ""
    heading = len(first.split()) == 1 and "," not in first and ";" not in first  # a count, or one word
    heading = heading or any(not _is_number(word) for word in re.split(r"[\s,;]+", first.strip(" \t,;")))
    rows = [line.partition("#")[0].rstrip(" \t,;") for line in lines[heading:]]
    apart = next((mark for mark in ";," if any(mark in row for row in rows)), None)
    in_numbers = re.compile(r"\d,\d" if apart == ";" else r"\d,\d\S*[ \t]+[^\s#]")
    if apart and (bad := next((row for row in rows if in_numbers.search(row)), None)) is not None:
        raise ValueError(f"commas within numbers, expected decimal points: {bad[:60]!r}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of a text without data, which is told below
        table = np.loadtxt(rows, ndmin=2, delimiter=apart)
    if heading and first.strip().isdigit() and int(first) != len(table):
        raise ValueError(f"the first line says {int(first)} points, {len(table)} follow")
    if table.size == 0:
        return CloudFile(np.empty((0, 3)), None, None)
    if table.shape[1] < 3:
        raise ValueError(f"expected 3 numbers a line or more, got {table.shape[1]}")
    names = re.split(f"[{apart}]" if apart else r"\s+", first.strip().lstrip("#/").strip(" ")) if heading else []
    if len(names) != table.shape[1]:  # none, or a title
        return CloudFile(table[:, :3], *_normals_or_colors(table[:, 3:]))
    named = {_plain(name): number for number, name in reversed(list(enumerate(names)))}
    if not {*"xyz"} <= named.keys():
        raise ValueError(f"the columns are {', '.join(map(repr, names))}, expected x, y and z among them")
    xyz = [named[axis] for axis in "xyz"]
    rest = [number for number in range(len(names)) if number not in xyz]
    return CloudFile(table[:, xyz], *_normals_or_colors(table[:, rest]))


def _plain(name: str) -> str:
    """The name of a column without quotes, unit and case: ``"X [m]"`` is x, as is ParaView's ``Points:0``."""
    name = name.strip(" '\"").lower()
    axis = re.fullmatch(r"points?[:_](\d)", name)
    if axis and int(axis[1]) < len("xyz"):
        return "xyz"[int(axis[1])]
    return re.split(r"[\s\[(:]", name, maxsplit=1)[0]


def _normals_or_colors(rest: NDArray[np.float64]) -> tuple[NDArray[np.float64] | None, NDArray[np.uint8] | None]:
    """What three columns behind the points are: normals of length 1, or 0 where they are not known; colours, whole
    numbers from 0 to 255; or neither."""
    if rest.shape[1] != 3 or not np.isfinite(rest).all():
        return None, None
    lengths = np.linalg.norm(rest, axis=1)
    if lengths.any() and np.all((np.abs(lengths - 1) < 0.01) | (lengths == 0)):
        return rest, None
    if np.all((rest == rest.round()) & (rest >= 0) & (rest <= 255)):
        return None, rest.astype(np.uint8)
    return None, None


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
