"""Mesh files to triangles in the unit sphere."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from nepa3d.shapes.mesh import BadShapeError, Reason, load_mesh, normalize, read_mesh

TETRAHEDRON = "v 0 0 0\nv 2 0 0\nv 0 4 0\nv 0 0 8\nf 1 3 2\nf 1 2 4\nf 1 4 3\nf 2 3 4\n"


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_normalized_to_the_unit_sphere(tmp_path: Path) -> None:
    mesh = load_mesh(write(tmp_path / "a.obj", TETRAHEDRON))
    low, high = mesh.vertices.min(0), mesh.vertices.max(0)
    np.testing.assert_allclose(low, -high, atol=1e-7)
    assert np.linalg.norm(mesh.vertices, axis=1).max() == pytest.approx(1, abs=1e-6)
    assert mesh.vertices.dtype == np.float32
    np.testing.assert_allclose(mesh.face_normals(np.arange(3)), [[0, 0, -1], [0, -1, 0], [-1, 0, 0]], atol=1e-6)


@pytest.mark.parametrize("scale", [1e-300, 1e-30, 1e-6, 1e6, 1e30, 1e300])
def test_normalize_at_any_scale(scale: float) -> None:
    vertices = np.array([[0, 0, 0], [1, 0, 0], [0, 2, 0], [0, 0, 3.0]])
    np.testing.assert_allclose(normalize(vertices * scale), normalize(vertices), atol=1e-6)


@pytest.mark.parametrize("suffix", [".ply", ".stl", ".glb"])
def test_other_formats_by_trimesh(tmp_path: Path, suffix: str) -> None:
    trimesh = pytest.importorskip("trimesh")
    box = trimesh.creation.box()
    box.export(tmp_path / f"box{suffix}")
    vertices, faces, _ = read_mesh(tmp_path / f"box{suffix}")
    assert len(faces) == 12
    np.testing.assert_allclose(vertices.min(0), [-0.5] * 3)
    np.testing.assert_allclose(vertices.max(0), [0.5] * 3)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.obj", "", Reason.EMPTY_FILE),
        ("a.off", "", Reason.EMPTY_FILE),
        ("a.obj", "# nothing\n", Reason.NO_FACES),
        ("a.obj", "v 0 0 0\nv 1 0 0\nv 0 1 0\n", Reason.NO_FACES),
        ("a.obj", "v 0 0 0\nf 1 2 3\n", Reason.INDEX_OUT_OF_RANGE),
        ("a.obj", "v 0 0 0\nv 1 0 0\nv 2 0 0\nf 1 2 3\n", Reason.ALL_DEGENERATE),
        ("a.obj", "v nan 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n", Reason.NONFINITE_VERTICES),
        ("a.off", "OFF\n9 9 9\n", Reason.UNREADABLE),
        ("a.stl", b"solid garbage", Reason.NO_FACES),
        ("a.ply", b"ply\nformat ascii 1.0\nelement vertex 3\n", Reason.UNREADABLE),
        ("a.xyzzy", "v", Reason.UNSUPPORTED),
    ],
)
def test_bad_files_are_named_with_a_reason(tmp_path: Path, name: str, content: str | bytes, reason: Reason) -> None:
    path = write(tmp_path / name, content)
    with pytest.raises(BadShapeError) as caught:
        load_mesh(path)
    assert caught.value.reason is reason
    assert str(caught.value).startswith(f"{path}: {reason.value}: ")


def test_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(BadShapeError, match="there is no such file"):
        load_mesh(tmp_path / "missing.obj")
    (tmp_path / "folder.obj").mkdir()
    os.mkfifo(tmp_path / "fifo.obj")
    for name in ("folder.obj", "fifo.obj"):
        with pytest.raises(BadShapeError, match="not a regular file"):
            load_mesh(tmp_path / name)


def test_the_error_crosses_processes() -> None:
    error = pickle.loads(pickle.dumps(BadShapeError("a.obj", Reason.NO_FACES, "3 vertices")))
    assert (error.path, error.reason, error.detail) == ("a.obj", Reason.NO_FACES, "3 vertices")
