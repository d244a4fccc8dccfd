"""Files of a folder: which are shapes, and what is read of each."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import trimesh

from nepa3d.inference.shape_files import LEAST_POINTS, drawn_points, pools_for, read_shape, shape_files
from nepa3d.shapes.shape import Shape
from nepa3d.shapes.views import BACKENDS
from tests.data.corpus import make_corpus
from tests.inference.conftest import write_box, write_cloud


def test_files_of_a_folder_and_their_keys(shapes: Path) -> None:
    for name in (".hidden/a.obj", "box/.b.obj", "_meta/index_train.npz", "box/readme.txt"):
        (shapes / name).parent.mkdir(exist_ok=True)
        (shapes / name).write_text("", encoding="utf-8")
    write_box(shapes / "lone.off", 2)
    found = {file.path: file for file in shape_files(shapes)}
    assert list(found) == sorted(found)
    assert {path: file.key for path, file in found.items()} == {
        "ball/mesh.ply": "ball/mesh",
        "ball/scan.ply": "ball/scan",
        "ball/stool.npz": "ball/stool",
        "box/b0.obj": "box/b0",
        "box/b1.obj": "box/b1",
        "box/b2.obj": "box/b2",
        "box/more/deep.stl": "box/more--deep",
        "lone.off": "unsorted/lone",
    }
    one = found["box/more/deep.stl"]
    status = (shapes / one.path).stat()
    assert (one.class_name, one.size, one.mtime_ns) == ("box", status.st_size, status.st_mtime_ns)


def test_the_splits_of_a_cache_are_no_classes(golden: Path, tmp_path: Path) -> None:
    shutil.copytree("cache", tmp_path / "cache")
    (tmp_path / "cache" / "_meta").mkdir(exist_ok=True)  # as preprocessing leaves it
    found = shape_files(tmp_path / "cache")
    assert {file.path.split("/")[0] for file in found} == {"train", "test"}
    assert {file.key for file in found} == {"/".join(Path(file.path).with_suffix("").parts[1:]) for file in found}


def test_clouds_of_every_kind_are_found_and_notes_are_not(tmp_path: Path) -> None:
    """Of a folder of clouds, those that are no PLY were once passed over without a word."""
    points = np.random.default_rng(0).random((50, 3), np.float32)
    (tmp_path / "ball").mkdir()
    np.save(tmp_path / "ball" / "a.npy", points)
    np.savez(tmp_path / "ball" / "b.npz", points=points)
    for name in ("c.xyz", "d.pts", "e.ASC", "authors.txt", "table.csv"):
        np.savetxt(tmp_path / "ball" / name, points)
    found = shape_files(tmp_path)
    assert [file.key for file in found] == [f"ball/{letter}" for letter in "abcde"]
    for file in found:
        assert read_shape(tmp_path / file.path, "mesh", "name", n_point=8, n_ray=0).view == "pointcloud_noray"


def test_files_of_another_layout(tmp_path: Path) -> None:
    root = make_corpus(tmp_path / "corpus", chair=2)
    found = {file.path: file.key for file in shape_files(root, "shapenet")}
    assert found == {f"chair/m0{n}/models/model_normalized.obj": f"chair/m0{n}" for n in (0, 1)}
    with pytest.raises(ValueError, match="layout must be one of folder"):
        shape_files(root, "other")


def test_what_is_no_folder_of_shapes(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"folder: .*none is not a folder"):
        shape_files(tmp_path / "none")
    with pytest.raises(ValueError, match=r"folder: no shape below .* asc, glb, npy, npz, obj, .*, xyz$"):
        shape_files(tmp_path)


@pytest.mark.parametrize("view", BACKENDS)
def test_a_mesh_has_the_answers_of_its_view_and_no_others(view: str, shapes: Path) -> None:
    pools = pools_for(view, 16, 8)
    read = read_shape(shapes / "box" / "b0.obj", view, "a name", n_point=16, n_ray=8)
    whole = Shape.from_mesh(shapes / "box" / "b0.obj", key="a name", settings=pools)
    assert read.view == view and read.shape.name == "a name"
    ours, theirs = read.shape.view(view), whole.view(view)
    np.testing.assert_array_equal(ours.point_distance, theirs.point_distance)
    np.testing.assert_array_equal(ours.ray_t, theirs.ray_t)
    assert len(ours.point_xyz) == LEAST_POINTS
    assert (len(ours.ray_t) > 0) == (view not in ("pointcloud_noray", "udfgrid"))
    assert len(read_shape(shapes / "box" / "b0.obj", view, "a", n_point=16, n_ray=0).shape["ray_o_pool"]) == 0
    assert pools_for(view, 5000, 0).pt_pool == 10_000


def test_a_cloud_is_seen_as_a_cloud(shapes: Path) -> None:
    path = shapes / "ball" / "scan.ply"
    for view, seen in (("mesh", "pointcloud_noray"), ("udfgrid", "pointcloud_noray"), ("voxel", "voxel")):
        read = read_shape(path, view, "name", n_point=16, n_ray=8)
        assert read.view == seen
        assert len(read.shape["pc_xyz"]) == 500
    radius = np.linalg.norm(read.shape["pc_xyz"], axis=1)
    assert radius.max() == pytest.approx(1, abs=1e-6) and radius.min() > 0.8  # a sphere about its mean


def test_a_cloud_is_the_same_in_every_format(shapes: Path, tmp_path: Path) -> None:
    """Arrays by name in an .npz are a cloud, too, unless they are those of a cache."""
    points = np.asarray(trimesh.load(shapes / "ball" / "scan.ply").vertices, np.float64)
    np.save(tmp_path / "scan.npy", points)
    np.savez(tmp_path / "scan.npz", points=points)
    np.savetxt(tmp_path / "scan.xyz", points)
    expected = read_shape(shapes / "ball" / "scan.ply", "mesh", "name", n_point=16, n_ray=0)
    for kind in ("npy", "npz", "xyz"):
        read = read_shape(tmp_path / f"scan.{kind}", "mesh", "name", n_point=16, n_ray=0)
        assert read.view == expected.view
        np.testing.assert_allclose(read.shape["pt_dist_pool"], expected.shape["pt_dist_pool"], atol=1e-5)
        drawn, normals = drawn_points(tmp_path / f"scan.{kind}", 300)
        assert drawn.shape == (300, 3) and not normals.any()


def test_a_cache_is_read_as_it_is(shapes: Path) -> None:
    path = shapes / "ball" / "stool.npz"
    read, cache = read_shape(path, "udfgrid", "name", n_point=16, n_ray=8), Shape.from_cache(path)
    assert read.view == "udfgrid" and read.shape.name == "name"
    np.testing.assert_array_equal(read.shape.view("udfgrid").point_distance, cache.view("udfgrid").point_distance)


def test_faults_name_the_file(tmp_path: Path) -> None:
    for name, content, told in (
        ("a.obj", "v 0 0 0\n", "no_faces"),
        ("b.npz", "junk", "npz"),
        ("c.ply", "ply\n", "unreadable"),
    ):
        (tmp_path / name).write_text(content, encoding="utf-8")
        with pytest.raises(ValueError, match=rf"{name}.*{told}"):
            read_shape(tmp_path / name, "mesh", "hash", n_point=4, n_ray=0)
    same = write_cloud(tmp_path / "d.ply", np.ones((5, 3)))
    with pytest.raises(ValueError, match=r"d\.ply: zero_extent"):
        read_shape(same, "mesh", "hash", n_point=4, n_ray=0)


def test_points_to_draw_lie_on_the_shape(shapes: Path) -> None:
    points, normals = drawn_points(shapes / "box" / "b0.obj", 300)
    box = trimesh.creation.box((1, 2, 1))
    scale = np.linalg.norm(box.vertices, axis=1).max()
    faces = np.isclose(np.abs(points * scale), np.array([0.5, 1, 0.5]), atol=1e-5)
    assert points.shape == (300, 3) and faces.any(1).all()
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-5)
    points, normals = drawn_points(shapes / "ball" / "scan.ply", 300)
    assert points.shape == (300, 3) and not normals.any()
    points, _ = drawn_points(shapes / "ball" / "stool.npz")
    np.testing.assert_array_equal(points, Shape.from_cache(shapes / "ball" / "stool.npz")["pc_xyz"])
