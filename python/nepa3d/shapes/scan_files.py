"""Files of point clouds: PLY without faces, arrays of NumPy, text with three or more numbers a line.

Letters: N points.
"""

from __future__ import annotations

import csv
import os
import re
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nepa3d.shapes.cache import CacheError, ShapeCache
from nepa3d.shapes.file_kinds import other_kind
from nepa3d.shapes.mesh import READERS, BadShapeError, Reason, as_utf8, read_mesh

XYZ_KEYS = ("points", "xyz", "pc_xyz")  # of an npz, in order of preference
NORMAL_KEYS = ("normals", "pc_n")
COLOR_KEYS = ("colors", "pc_rgb")
TEXT = (".xyz", ".txt", ".pts", ".csv", ".asc")
SUFFIXES = (".ply", ".npz", ".npy", *TEXT)
_PLY_HEADER = 1 << 14  # bytes in which the header of a PLY with normals or colours ends
LEAST_COUNTED = 4  # rows and columns of a text whose first column may count its rows


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

    Of a PLY the positions are read, and normals and colours by the names nx and red where trimesh can read them; an
    ``.npz`` holds ``points`` or ``xyz``, and may hold ``normals`` and ``colors``; an ``.npy`` holds the points. Arrays
    have three columns, a text has three numbers a line, apart by blanks, commas or semicolons; or six, the last three a
    normal of length 1 or a colour of whole numbers up to 255. Other columns of a text are not read. A first line may be
    a title, or a count, which must be right; one that names the columns must name x, y and z, which are then read
    wherever they stand, and the others may hold words. Raises ``BadShapeError`` naming the file and the fault, such as
    commas within numbers, a first column that counts the rows, an ending that is neither a mesh's nor a cloud's, or
    what a file holds that is of another kind; a file without points is one.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        if suffix.removeprefix(".") not in READERS and path.is_file() and path.stat().st_size:
            known = f"{', '.join(READERS)} of meshes and {', '.join(SUFFIXES).replace('.', '')} of clouds"
            raise BadShapeError(path, Reason.UNSUPPORTED, f"no reader for {suffix or 'no suffix'}, only {known}")
        return None
    if suffix != ".ply" and path.is_file() and path.stat().st_size == 0:
        raise BadShapeError(path, Reason.EMPTY_FILE, "the file has 0 bytes")
    if suffix == ".ply":
        vertices, faces, _ = read_mesh(path)
        if len(faces):
            return None
        found = _ply(path, vertices)
    elif not path.is_file():
        raise BadShapeError(path, Reason.UNREADABLE, "there is no such file")
    else:
        found = {".npz": _npz, ".npy": _npy}.get(suffix, _text)(path)
    if found.xyz.ndim != 2 or found.xyz.shape[1] not in (3, 6) or found.xyz.dtype.kind not in "fiu":
        came = f"{found.xyz.shape} of {found.xyz.dtype}"
        raise BadShapeError(path, Reason.UNREADABLE, f"points must have shape (N, 3) or (N, 6), got {came}")
    if len(found.xyz) == 0:
        raise BadShapeError(path, Reason.EMPTY_FILE, other_kind(path) or "it holds no points")
    if found.xyz.shape[1] == 6:
        normals, colors = _normals_or_colors(found.xyz[:, 3:])
        normals = normals if found.normals is None else found.normals
        found = CloudFile(found.xyz[:, :3], normals, colors if found.colors is None else found.colors)
    for name, array in (("normals", found.normals), ("colors", found.colors)):
        if array is not None and array.shape[:1] != found.xyz.shape[:1]:
            raise BadShapeError(path, Reason.UNREADABLE, f"{len(array)} {name} of {len(found.xyz)} points")
    return found


def _ply(path: Path, xyz: NDArray[np.float64]) -> CloudFile:
    """The cloud of a PLY of these points, with the normals and colours that trimesh reads of the same points."""
    with path.open("rb") as file:
        if not re.search(rb"\b(nx|red)\b", file.read(_PLY_HEADER).partition(b"end_header")[0]):
            return CloudFile(xyz, None, None)
        file.seek(0)
        from trimesh.exchange.ply import load_ply

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = load_ply(file, skip_materials=True)
                same = np.asarray(found["vertices"], np.float64)
        except (ValueError, LookupError, TypeError):  # it reads fewer files than ops.parse_ply
            return CloudFile(xyz, None, None)
    if same.shape != xyz.shape or not np.allclose(same, xyz, rtol=1e-6, atol=0, equal_nan=True):
        return CloudFile(xyz, None, None)
    normals, colors = found.get("vertex_normals"), found.get("vertex_colors")
    if colors is not None:
        colors = colors[:, :3]  # without alpha
        from_0_to_1 = colors.dtype.kind == "f" and ((colors >= 0) & (colors <= 1)).all()
        colors = colors if from_0_to_1 else _colors(colors)
    return CloudFile(xyz, None if normals is None else _normals(normals), colors)


def _npz(path: Path) -> CloudFile:
    try:
        return _arrays(path)
    except CacheError as error:
        if held := other_kind(path, own=b"PK"):
            raise CacheError(path, held) from error
        raise


def _arrays(path: Path) -> CloudFile:
    with ShapeCache(path) as arrays:
        keys = [next((key for key in names if key in arrays), None) for names in (XYZ_KEYS, NORMAL_KEYS, COLOR_KEYS)]
        if keys[0] is None:
            raise CacheError(path, f"expected an array of the name {', '.join(XYZ_KEYS)}, got {', '.join(arrays)}")
        xyz, normals, colors = (None if key is None else arrays.stored(key) for key in keys)
    assert xyz is not None
    return CloudFile(xyz, normals, colors)


def _npy(path: Path) -> CloudFile:
    try:
        array = np.lib.format.open_memmap(path, mode="r")  # np.load would take archives, too
    except (ValueError, EOFError) as error:
        raise BadShapeError(path, Reason.UNREADABLE, other_kind(path) or f"not a readable .npy: {error}") from error
    return CloudFile(np.asarray(array), None, None)


def _text(path: Path) -> CloudFile:
    try:
        return _columns(as_utf8(path.read_bytes()).decode().splitlines())
    except (ValueError, csv.Error) as error:  # also of bytes that are no text
        raise BadShapeError(path, Reason.UNREADABLE, other_kind(path) or f"not numbers in columns: {error}") from error


def _columns(lines: list[str]) -> CloudFile:
    """The cloud of a text; ``ValueError`` if it is none, or could be read in more than one way."""
    first = lines[0] if lines else ""
    heading = len(first.split()) == 1 and "," not in first and ";" not in first  # a count, or one word
    heading = heading or any(not _is_number(word) for word in re.split(r"[\s,;]+", first.strip(" \t,;")))
    rows = [line.partition("#")[0].rstrip(" \t,;") for line in lines[heading:]]
    marks = [mark for mark in ";," if any(mark in row for row in rows)]
    apart = next((mark for mark in marks if heading and _axes(_names(first, mark))), marks[0] if marks else None)
    names = _names(first, apart) if heading else []
    axes = _axes(names)
    in_numbers = re.compile(r"\d,\d" if apart == ";" else r"\d,\d\S*[ \t]+[^\s#]")
    for row in filter(in_numbers.search, rows) if apart else ():
        if not (apart == "," and axes and len(_cells(row, apart)) == len(names)):  # else the blanks are within cells
            raise ValueError(f"commas within numbers, expected decimal points: {row[:60]!r}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of a text without data, which is told below
            table = np.loadtxt(rows, ndmin=2, delimiter=apart)
    except ValueError:
        if axes:
            return CloudFile(_cell_by_cell(lines, heading, apart, names, axes), None, None)
        _refuse_unnamed(names, len(_cells(next(filter(None, rows)), apart)))
        table = _cell_by_cell(lines, heading, apart)
    if heading and first.strip().isdigit() and int(first) != len(table):
        raise ValueError(f"the first line says {int(first)} points, {len(table)} follow")
    if table.size == 0:
        return CloudFile(np.empty((0, 3)), None, None)
    if table.shape[1] < 3:
        raise ValueError(f"expected 3 numbers a line or more, got {table.shape[1]}")
    if apart and axes not in ([], [0, 1, 2]) and len(names) > table.shape[1]:  # the last columns may hold nothing
        return CloudFile(_cell_by_cell(lines, heading, apart, names, axes), None, None)
    if len(names) != table.shape[1]:  # none, or a title
        _refuse_counted(table)
        return CloudFile(table[:, :3], *_normals_or_colors(table[:, 3:]))
    _refuse_unnamed(names, table.shape[1])
    rest = [number for number in range(len(names)) if number not in axes]
    return CloudFile(table[:, axes], *_normals_or_colors(table[:, rest]))


def _names(line: str, apart: str | None) -> list[str]:
    """The words of a line as the names of columns."""
    return re.split(f"[{apart}]" if apart else r"\s+", line.strip().lstrip("#/").strip(" "))


def _axes(names: list[str]) -> list[int]:
    """Which columns are x, y and z; none if the names do not tell."""
    named = {_plain(name): number for number, name in reversed(list(enumerate(names)))}
    return [named[axis] for axis in "xyz"] if {*"xyz"} <= named.keys() else []


def _refuse_unnamed(names: list[str], columns: int) -> None:
    """``ValueError`` on a line of as many names as there are columns, of which some axis has none."""
    if len(names) == columns and not _axes(names):
        raise ValueError(f"the columns are {', '.join(map(repr, names))}, expected x, y and z among them")


def _refuse_counted(table: NDArray[np.float64]) -> None:
    """``ValueError`` on rows and columns (4 or more) without names of which the first column is 0, 1, 2, ... or 1, 2,
    3, ..., which are hardly coordinates."""
    count, columns = table.shape
    if min(count, columns) >= LEAST_COUNTED and any(np.array_equal(table[:, 0] - k, np.arange(count)) for k in (0, 1)):
        raise ValueError(
            "the first column counts the rows; a header that names all columns, x, y and z among them, decides what is "
            "read"
        )


def _cells(row: str, apart: str | None) -> list[str]:
    if apart and '"' in row:
        return next(csv.reader([row], delimiter=apart, skipinitialspace=True))
    return row.split(apart)


def _cell_by_cell(
    lines: list[str], start: int, apart: str | None, names: list[str] | None = None, wanted: list[int] | None = None
) -> NDArray[np.float64]:
    """The columns ``wanted`` of the lines from ``start`` on, else all columns; the others may hold words.

    ``ValueError`` naming the line, counted from 1, and the column that is no number, or a line of more or fewer columns
    than there are names.
    """
    found, width = [], len(names or ())
    for number, line in enumerate(lines[start:], start + 1):
        row = line.partition("#")[0].strip()
        if not row.strip(" \t,;"):
            continue
        cells = _cells(row, apart)
        while len(cells) > width and not cells[-1].strip():
            cells.pop()  # of a mark at the end
        width = width or len(cells)
        if len(cells) != width:
            raise ValueError(f"line {number} has {len(cells)} columns, expected {width}")
        for column in wanted or range(width):
            if not _is_number(cells[column]):
                name = f" ({names[column].strip()})" if names else ""
                raise ValueError(f"line {number}, column {column + 1}{name}: {cells[column][:40]!r} is no number")
        found.append([float(cells[column]) for column in wanted or range(width)])
    return np.array(found)


def _plain(name: str) -> str:
    """The name of a column without quotes, unit and case: ``"X [m]"`` is x, as is ParaView's ``Points:0``."""
    name = name.strip(" '\"").lower()
    axis = re.fullmatch(r"points?[:_](\d)", name)
    if axis and int(axis[1]) < len("xyz"):
        return "xyz"[int(axis[1])]
    return re.split(r"[\s\[(:]", name, maxsplit=1)[0]


def _normals_or_colors(rest: NDArray[np.floating]) -> tuple[NDArray[np.floating] | None, NDArray[np.uint8] | None]:
    """What three columns behind the points are: normals of length 1, or 0 where they are not known; colours, whole
    numbers from 0 to 255; or neither."""
    if rest.shape[1] != 3:
        return None, None
    normals = _normals(rest)
    return normals, _colors(rest) if normals is None else None


def _normals(columns: NDArray[np.floating]) -> NDArray[np.floating] | None:
    """Three columns of normals of length 1, or 0 where they are not known; else None."""
    lengths = np.linalg.norm(np.asarray(columns, np.float64), axis=1)
    return columns if lengths.any() and np.all((np.abs(lengths - 1) < 0.01) | (lengths == 0)) else None


def _colors(columns: NDArray[np.floating] | NDArray[np.integer]) -> NDArray[np.uint8] | None:
    """Three columns of whole numbers from 0 to 255 as colours; else None."""
    whole = np.all((columns == np.round(columns)) & (columns >= 0) & (columns <= 255))
    return columns.astype(np.uint8) if whole else None


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
