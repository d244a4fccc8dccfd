"""Columns of texts and arrays of clouds, and what a PLY tells beside positions."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import nepa3d
from nepa3d.shapes.mesh import BadShapeError
from nepa3d.shapes.scan_files import CloudFile, read_cloud

XYZ = np.array([[0.1, 0.2, 0.3], [1.1, 2.2, 3.3]])
NORMALS = np.array([[0, 0, 1], [0, 0.6, 0.8]])
COLORS = np.array([[10, 20, 30], [0, 0, 1]], np.uint8)
FORMS = ("ascii", "binary_little_endian", "binary_big_endian")
NO_FACES = "element face 0\nproperty list uchar int vertex_indices\n"


def cloud(path: Path, text: str | None = None) -> CloudFile:
    if text is not None:
        path.write_text(text, encoding="utf-8")
    found = read_cloud(path)
    assert found is not None
    return found


@pytest.mark.parametrize(
    "text",
    [
        "x,y,z,intensity,label\n1,2,3,4,chair\n4,5,6,8,\n",
        "x,y,z,label\n1,2,3,a dining chair 3\n4,5,6,a;b\n",
        'label,x,y,z\n"7,8,9,7,b",1,2,3\n"c",4,5,6\n',
        "x,y,z,time\n1,2,3,2024-01-01 12:00:00\n\n4,5,6,2024-01-01 12:00:01\n",
        "id,x,y,z,label\n7,1,2,3,\n9,4,5,6,\n",
        "x\ty\tz\tlabel\n1\t2\t3\tchair\n4\t5\t6\ttable # of wood\n",
    ],
)
def test_columns_that_are_not_named_may_hold_words(tmp_path: Path, text: str) -> None:
    assert cloud(tmp_path / "a.csv", text).xyz.tolist() == [[1, 2, 3], [4, 5, 6]]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("x,y,z,label\n1,2,3,a\n\n1,b,3,a\n", "line 4, column 2 (y): 'b' is no number"),
        ("label,x,y,z\na,1,,3\n", "line 2, column 3 (y): '' is no number"),
        ("x,y,z,label\n1,2,3,a\n1,3,a\n", "line 3 has 3 columns, expected 4"),
        ("1 2 3\n4 5 q\n", "line 2, column 3: 'q' is no number"),
        ("2\n1 2 3\n4 5 q\n", "line 3, column 3: 'q' is no number"),
        ("1 2 3\n4 5\n", "line 2 has 2 columns, expected 3"),
        ("east,north,up,label\n1,2,3,a\n", "the columns are 'east', 'north', 'up', 'label', expected x, y and z"),
        ("x, y, z\n1,2, 3,4, 5,6\n", "commas within numbers, expected decimal points: '1,2, 3,4, 5,6'"),
    ],
)
def test_where_a_text_is_wrong(tmp_path: Path, text: str, fault: str) -> None:
    with pytest.raises(BadShapeError, match=re.escape(fault)):
        cloud(tmp_path / "a.csv", text)


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("title", ["", "4\n", "x y z\n"])
def test_a_first_column_that_counts_the_rows_is_refused(tmp_path: Path, first: int, title: str) -> None:
    rows = [f"{first + i} {i * i} 7 8\n" for i in range(4)]
    with pytest.raises(BadShapeError, match="the first column counts the rows; a header that names all columns, x, y"):
        cloud(tmp_path / "a.xyz", title + "".join(rows))
    assert cloud(tmp_path / "a.xyz", "i x y z\n" + "".join(rows)).xyz[3].tolist() == [9, 7, 8]
    assert cloud(tmp_path / "a.xyz", "x y z i\n" + "".join(rows)).xyz[3].tolist() == [3 + first, 9, 7]


@pytest.mark.parametrize("text", ["0 1 5\n1 5 6\n2 7 8\n3 4 4\n", "0 1 5 1\n1 5 6 1\n2 7 8 1\n", "0 1 5 1\n" * 4])
def test_first_columns_that_are_coordinates(tmp_path: Path, text: str) -> None:
    assert cloud(tmp_path / "a.xyz", text).xyz[0].tolist() == [0, 1, 5]


def ply(form: str, columns: dict[str, tuple[str, NDArray]], extra: str = "") -> bytes:
    """A PLY of vertices alone, its properties in the types of PLY."""
    head = f"ply\nformat {form} 1.0\nelement vertex {len(XYZ)}\n"
    head += "".join(f"property {kind} {name}\n" for name, (kind, _) in columns.items()) + extra + "end_header\n"
    if form == "ascii":
        rows = zip(*(values.tolist() for _, values in columns.values()), strict=True)
        return (head + "".join(" ".join(map(str, row)) + "\n" for row in rows)).encode()
    types = {"double": "f8", "float": "f4", "ushort": "u2", "uchar": "u1"}
    order = "<" if "little" in form else ">"
    body = np.empty(len(XYZ), [(name, order + types[kind]) for name, (kind, _) in columns.items()])
    for name, (_, values) in columns.items():
        body[name] = values
    return head.encode() + body.tobytes()


def columns_of(kind: str, names: str, values: NDArray) -> dict[str, tuple[str, NDArray]]:
    return {name: (kind, values[:, k]) for k, name in enumerate(names.split())}


POSITIONS = columns_of("double", "x y z", XYZ)
RGBA = columns_of("uchar", "red green blue", COLORS) | {"alpha": ("uchar", np.array([255, 255]))}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("extra", ["", NO_FACES])
def test_a_ply_keeps_normals_and_colours(tmp_path: Path, form: str, extra: str) -> None:
    path = tmp_path / "a.ply"
    path.write_bytes(ply(form, columns_of("float", "nx ny nz", NORMALS) | RGBA | POSITIONS, extra))
    found = cloud(path)
    np.testing.assert_array_equal(found.xyz, XYZ)
    assert found.normals is not None and found.colors is not None
    np.testing.assert_allclose(found.normals, NORMALS, atol=1e-7)
    np.testing.assert_array_equal(found.colors, COLORS)
    shape = nepa3d.Shape.from_scan(path)
    np.testing.assert_allclose(shape["pc_n"], NORMALS, atol=1e-7)
    np.testing.assert_allclose(shape["pc_rgb"], COLORS / 255, atol=1e-7)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("columns", "kept"),
    [
        (columns_of("float", "red green blue", COLORS / 255), True),  # from 0 to 1
        (columns_of("float", "red green blue", COLORS * 1.0), True),
        (columns_of("ushort", "red green blue", COLORS.astype(int) * 257), False),  # from 0 to 65535
        (columns_of("float", "nx ny nz", NORMALS * 0), False),
        (columns_of("float", "nx ny nz", NORMALS * 7), False),
        (columns_of("float", "nx ny nz", NORMALS * [[np.nan], [1]]), False),
        (columns_of("float", "nx ny", NORMALS), False),
    ],
)
def test_what_of_a_ply_is_kept(tmp_path: Path, form: str, columns: dict[str, tuple[str, NDArray]], kept: bool) -> None:
    (tmp_path / "a.ply").write_bytes(ply(form, POSITIONS | columns))
    found = cloud(tmp_path / "a.ply")
    assert (found.normals is not None or found.colors is not None) == kept
    shape = nepa3d.Shape.from_scan(tmp_path / "a.ply")
    assert ("pc_rgb" in shape) == kept and not shape["pc_n"].any()


@pytest.mark.parametrize(
    ("form", "old", "new"),
    [
        ("ascii", b"end_header\n", b"end_header\n\n"),
        ("ascii", b"10 20 30", b"10 20 30 "),
        ("binary_little_endian", b"element", b"comment caf\xe9\nelement"),
        ("binary_little_endian", b"element", b"\nelement"),
        ("binary_big_endian", b"element vertex 2", b"element vertex 1"),  # bytes after the last element
    ],
)
def test_a_ply_that_trimesh_cannot_read_keeps_its_points(tmp_path: Path, form: str, old: bytes, new: bytes) -> None:
    path = tmp_path / "a.ply"
    path.write_bytes(ply(form, POSITIONS | RGBA).replace(old, new))
    found = cloud(path)
    np.testing.assert_array_equal(found.xyz, XYZ[: len(found.xyz)])
    assert found.colors is None or found.colors.tolist() == COLORS.tolist()


@pytest.mark.parametrize(
    ("behind", "normals", "colors"), [(NORMALS, True, False), (COLORS, False, True), (XYZ, False, False)]
)
@pytest.mark.parametrize("kind", ["npy", "npz"])
def test_arrays_of_six_columns(tmp_path: Path, kind: str, behind: NDArray, normals: bool, colors: bool) -> None:
    path = tmp_path / f"a.{kind}"
    np.save(path, np.hstack([XYZ, behind])) if kind == "npy" else np.savez(path, points=np.hstack([XYZ, behind]))
    found = cloud(path)
    np.testing.assert_array_equal(found.xyz, XYZ)
    assert ((found.normals is not None), (found.colors is not None)) == (normals, colors)
    for array in (found.normals, found.colors):
        if array is not None:
            np.testing.assert_array_equal(array, behind)


def test_named_normals_go_before_columns(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", points=np.hstack([XYZ, NORMALS]), normals=NORMALS[::-1])
    np.testing.assert_array_equal(cloud(tmp_path / "a.npz").normals, NORMALS[::-1])


@pytest.mark.parametrize("array", [np.zeros((5, 4)), np.zeros((5, 7)), np.zeros(6), np.zeros((5, 3), complex)])
def test_arrays_of_other_columns_are_refused(tmp_path: Path, array: NDArray) -> None:
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(BadShapeError, match=r"points must have shape \(N, 3\) or \(N, 6\), got"):
        cloud(tmp_path / "a.npy")
