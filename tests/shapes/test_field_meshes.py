"""Small files as people report them: each is read with its true surface, or refused by its true name."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from nepa3d import ops
from nepa3d.shapes.mesh import BadShapeError, as_utf8, load_mesh, read_mesh
from nepa3d.shapes.shape import Shape

FIELD = Path(__file__).parents[1] / "fixtures" / "field"
EXPECTED = json.loads((FIELD / "expected.json").read_text(encoding="utf-8"))
REFUSED = {
    "glb_external.glb": "unsupported: .*'side.bin': only buffers inside the GLB file are read",
    "glb_meshopt.glb": "unsupported: the extension EXT_meshopt_compression is needed",
    "obj_comma_z.obj": "unreadable: line 1: a vertex must have 3 numbers, not '0,25'",
    "obj_face_commas_tight.obj": "unreadable: line 9: a face must have indices of the form .*, not ',3,2'",
    "ply_ascii_pts.ply": "no_faces: 8 vertices and no face",
}
REPAIRED = {"stl_bin_trailing.stl": "17 bytes after the last triangle", "obj_msvc_nan.obj": "2 nonfinite vertices"}
FILES = sorted(path.name for path in FIELD.iterdir() if path.suffix not in (".json", ".md"))
TOLERANCE = {"glb_draco_box.glb": 1e-3}  # it is stored rounded

CORNERS = ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1))
FACES = ((0, 2, 1), (0, 1, 3), (0, 3, 2), (1, 2, 3))
OBJ = "".join(f"v {x} {y} {z}\n" for x, y, z in CORNERS) + "".join(f"f {a + 1} {b + 1} {c + 1}\n" for a, b, c in FACES)


@pytest.mark.parametrize("name", [name for name in FILES if name not in REFUSED])
def test_its_surface_is_the_true_one(name: str) -> None:
    vertices, faces, _ = read_mesh(FIELD / name)
    vertices, faces, _ = ops.clean_mesh(vertices, faces)
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    expected, tolerance = EXPECTED[name], TOLERANCE.get(name, 1e-6)
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1).sum() / 2
    assert (area, len(faces)) == (pytest.approx(expected["area"], rel=tolerance), expected["triangles"])
    np.testing.assert_allclose([vertices.min(0), vertices.max(0)], [expected["low"], expected["high"]], rtol=tolerance)
    assert load_mesh(FIELD / name).repaired == REPAIRED.get(name, "")


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_by_its_true_name(name: str) -> None:
    with pytest.raises(BadShapeError, match=f"{name}: {REFUSED[name]}"):
        load_mesh(FIELD / name)


@pytest.mark.parametrize(
    "content",
    [
        OBJ.encode("utf-16"),
        OBJ.encode("utf-16-le"),
        OBJ.encode("utf-16-be"),
        b"\xfe\xff" + OBJ.encode("utf-16-be"),
        OBJ.encode("utf-32"),
        b"\xef\xbb\xbf" + OBJ.encode(),
        OBJ.replace("\n", "\r").encode(),
        OBJ.replace("\n", "\r\n").encode(),
        OBJ.replace("\n", "\u2028").encode(),
        OBJ.replace(" ", "\u00a0").encode("latin-1"),
        OBJ.replace(" ", "\u3000").encode(),
        b"# St\xfchle\n" + OBJ.encode(),
        OBJ.upper().encode(),
    ],
)
def test_text_in_any_encoding(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.obj"
    path.write_bytes(content)
    vertices, faces, repaired = read_mesh(path)
    assert (vertices.tolist(), faces.tolist(), repaired) == ([*map(list, CORNERS)], [*map(list, FACES)], "")


@pytest.mark.parametrize("name", ["ply_le_mixed.ply", "ply_librealsense.ply"])
def test_ply_behind_a_byte_order_mark(tmp_path: Path, name: str) -> None:
    content = (FIELD / name).read_bytes()
    (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + content)
    assert read_mesh(tmp_path / name).faces.tolist() == read_mesh(FIELD / name).faces.tolist()
    if name == "ply_librealsense.ply":
        (tmp_path / name).write_bytes(content.decode().encode("utf-16"))
        assert read_mesh(tmp_path / name).faces.tolist() == read_mesh(FIELD / name).faces.tolist()


def test_ascii_is_not_copied() -> None:
    content = OBJ.encode()
    assert as_utf8(content) is content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (OBJ.encode("utf-16")[:-1], "utf-16"),
        (OBJ.replace("f 1", "f\u200b1").encode(), "line 5: a blank must follow f"),
        (OBJ.replace("v 1 0 0", "v1 0 0").encode(), "line 2: a blank must follow v, not '1'"),
        (OBJ.replace("v 1 0 0", "v 1 0 0,").encode(), "line 2: a vertex must have 3 numbers, not '0,'"),
        (OBJ.replace("v 1 0 0", "v 1 0 0 ,5").encode(), "line 2: only a weight or a colour may follow .*, not ',5'"),
        (OBJ.replace("v 1 0 0", "v 1 0x1 0").encode(), "line 2: a vertex must have 3 numbers, not '0x1'"),
        (OBJ.replace("v 1 0 0", "v 1 1_0 0").encode(), "line 2: a vertex must have 3 numbers, not '1_0'"),
        (OBJ.replace("v 1 0 0", "v 1 1.5D2 0").encode(), "line 2: a vertex must have 3 numbers, not '1.5D2'"),
        (OBJ.replace("f 1 3 2", "f 1 3 1,000").encode(), "line 5: a face must have indices .*, not ',000'"),
        (OBJ.replace("f 1 3 2", "f 1 3 2.0").encode(), "line 5: a face must have indices .*, not '.0'"),
        (OBJ.replace("f 1 3 2", "surf 0 1 0 1 1 2").encode(), "unsupported: line 5: free-form surfaces"),
    ],
)
def test_what_is_no_number_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "a.obj"
    path.write_bytes(content)
    with pytest.raises(BadShapeError, match=message):
        load_mesh(path)


def test_most_triangles_without_area_are_suspicious(tmp_path: Path) -> None:
    path = tmp_path / "a.obj"
    path.write_text(OBJ + "f 1 1 2\n" * 4)
    assert not load_mesh(path).suspicious
    path.write_text(OBJ + "f 1 1 2\n" * 5)
    mesh = load_mesh(path)
    assert (mesh.suspicious, mesh.repaired) == (True, "5 degenerate faces")
    assert Shape.from_mesh(path).doubt == "most of it could not be used: 5 degenerate faces"
    path.write_text(OBJ + "v nan 0 0\n" * 4)
    assert not load_mesh(path).suspicious
    path.write_text(OBJ + "v nan 0 0\n" * 5)
    assert "5 nonfinite vertices" in Shape.from_mesh(path).doubt
