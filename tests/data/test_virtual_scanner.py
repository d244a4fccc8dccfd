"""Virtual scans: what a camera sees, and files that go through the real scans' code."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from nepa3d import cli, ops
from nepa3d.corpora.scanner import (
    BACKGROUND,
    ROOM,
    ScanSettings,
    fixed_room,
    random_room,
    room_depth,
    scan,
)
from nepa3d.data import preprocess_scanobjectnn, virtual_scanner
from nepa3d.shapes.mesh import Mesh, load_mesh
from nepa3d.shapes.rotation import turn, turned_back, upright
from tests.data.corpus import make_corpus, write_mesh

CUBE = (
    "".join(f"v {x} {y} {z}\n" for x in (-1, 1) for y in (-1, 1) for z in (-1, 1))
    + "f 1 2 4 3\nf 5 7 8 6\nf 1 5 6 2\nf 3 4 8 7\nf 1 3 7 5\nf 2 6 8 4\n"
)


@pytest.fixture
def cube(tmp_path: Path) -> Mesh:
    return load_mesh(write_mesh(tmp_path, "box/cube", CUBE))


def test_a_scan_without_noise_lies_on_what_faces_the_camera(cube: Mesh) -> None:
    settings = ScanSettings(points=400, background=0, noise=0)
    for seed in range(5):
        points, mask = scan(cube, settings, np.random.default_rng(seed))
        assert points.shape == (400, 3)
        assert not mask.any()
        half = cube.vertices.max()
        radius = np.linalg.norm(points[:, [0, 2]], axis=1)  # the scan is turned about y
        assert np.abs(points[:, 1]).max() <= half + 1e-5
        assert radius.max() <= half * np.sqrt(2) + 1e-5
        sides = {round(float(angle), 3) for angle in _side_angles(points, half)}
        assert 1 <= len(sides) <= 2, "a camera sees one or two of the four walls"


def _side_angles(points: np.ndarray, half: float) -> np.ndarray:
    """Directions, to a degree, in which many points lie on one vertical plane at distance ``half``."""
    angles = np.deg2rad(np.arange(0, 360, 0.5))
    normals = np.stack([np.cos(angles), np.sin(angles)], 1)
    below = points[points[:, 1] < half - 0.01]
    on_plane = (np.abs(below[:, [0, 2]] @ normals.T - half) < 4e-3).mean(0)
    best = angles[on_plane > 0.25]
    groups = np.split(best, np.flatnonzero(np.diff(best) > 0.2) + 1) if len(best) else []
    centres = [group.mean() for group in groups]
    if len(centres) > 1 and centres[0] + 2 * np.pi - centres[-1] < 0.2:
        centres.pop()
    return np.array(centres)


def test_background_noise_and_number_are_as_asked(cube: Mesh) -> None:
    settings = ScanSettings(points=800, background=0.25, noise=0.01, room="fixed")
    points, mask = scan(cube, settings, np.random.default_rng(0))
    assert (mask == BACKGROUND).sum() == 200
    distance = ops.closest_point(cube.vertices, cube.faces, turn(points, 0.0)).distance
    assert np.linalg.norm(points, axis=1).max() < ROOM + 0.1
    floor = points[mask == BACKGROUND][:, 1]
    assert (np.abs(floor - cube.vertices[:, 1].min()) < 0.05).mean() > 0.2
    assert len(distance) == 800


def test_room_behind_the_shape_is_floor_or_wall() -> None:
    camera = np.array([0, 0.5, 2.5], np.float32)
    towards = np.array([[0, -0.5, 0.3], [0, 0.2, -1], [0.3, 0.3, -1], [0, 1, 0], [9, -0.5, -1]], np.float32)
    directions = towards - camera
    depth = room_depth(camera, directions, fixed_room(camera, floor=-0.5))
    np.testing.assert_allclose(depth[:3], [1, 1, 1], atol=1e-5)  # on the floor, and twice on the wall
    assert np.isinf(depth[3:]).all()  # above the wall, and beside the room


def test_a_random_room_holds_the_shape_and_tells_less_of_it(cube: Mesh) -> None:
    """The wall is behind the shape, never in it, at as many places as there are seeds, and not where the camera is."""
    camera = np.array([2.0, 1.0, 1.0], np.float32)
    rooms = [random_room(cube.vertices, camera, np.random.default_rng(seed)) for seed in range(200)]
    assert all((cube.vertices @ room.toward).min() >= room.wall - 1e-6 for room in rooms)
    assert all(room.floor == cube.vertices[:, 1].min() for room in rooms)
    assert all(room.centre @ room.toward - room.wall < room.radius for room in rooms)
    faces_camera = np.array([room.toward @ camera / np.linalg.norm(camera[[0, 2]]) for room in rooms])
    assert faces_camera.min() > 0.7 and faces_camera.std() > 0.05
    assert np.std([room.wall for room in rooms]) > 0.05
    for room in rooms[:20]:
        points, mask = scan(cube, ScanSettings(points=400), np.random.default_rng(round(room.radius * 1e6)))
        assert (mask == BACKGROUND).sum() == 100
        assert np.isfinite(points).all()


@pytest.mark.parametrize(("up", "image"), [("x", 0), ("y", 1), ("z", 2)])
def test_the_vertical_axis_becomes_y(up: str, image: int) -> None:
    np.testing.assert_array_equal(upright(np.eye(3, dtype=np.float32), up)[image], [0, 1, 0])
    assert np.linalg.det(upright(np.eye(3, dtype=np.float32), up)) == pytest.approx(1)
    points = np.random.default_rng(0).random((7, 3))
    np.testing.assert_array_equal(turned_back(upright(points, up), up), points)


FLAGS = ["--points", "128", "--workers", "1", "--test_ratio", "0.25"]


def run(corpus: Path, out: Path, *flags: str) -> int:
    return virtual_scanner.main(["--mesh_root", f"{corpus}", "--out_root", f"{out}", *FLAGS, *flags])


def content(out: Path) -> dict[str, dict[str, np.ndarray]]:
    found = {}
    for path in sorted((out / "h5_files" / "main_split").glob("*.h5")):
        with h5py.File(path) as file:
            found[path.name] = {name: file[name][:] for name in file}
    return found


def test_scans_go_through_the_real_scans_code(tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path / "meshes", chair=4, lamp=4)
    out = tmp_path / "scans"
    assert run(corpus, out, "--scans", "2") == cli.EXIT_OK
    files = content(out)
    assert list(files) == ["test_objectdataset.h5", "training_objectdataset.h5"]
    train, test = files["training_objectdataset.h5"], files["test_objectdataset.h5"]
    assert train["data"].shape == (12, 128, 3)
    assert sorted(test["label"].tolist()) == [0, 0, 1, 1]
    assert not set(train["object"]) & set(test["object"])
    assert json.loads((out / "h5_files" / "main_split" / "classes.json").read_text()) == ["chair", "lamp"]
    command = ["--scan_root", f"{out}/h5_files/main_split", "--out_root", f"{tmp_path}/cache", "--pt_pool", "50"]
    assert preprocess_scanobjectnn.main([*command, "--workers", "1"]) == cli.EXIT_OK
    assert len(list((tmp_path / "cache").glob("*/class_001/*.npz"))) == 8


def test_scans_are_a_function_of_mesh_and_seed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus = make_corpus(tmp_path / "meshes", chair=4)
    assert run(corpus, tmp_path / "a") == cli.EXIT_OK
    assert run(corpus, tmp_path / "b", "--workers", "2", "--chunk_size", "1") == cli.EXIT_OK
    a, b = content(tmp_path / "a"), content(tmp_path / "b")
    for name, arrays in a.items():
        for key, array in arrays.items():
            np.testing.assert_array_equal(array, b[name][key])
    assert run(corpus, tmp_path / "a") == cli.EXIT_OK
    assert "is there already" in capsys.readouterr().out
    assert run(corpus, tmp_path / "a", "--noise", "0.01") == cli.EXIT_USAGE
    assert "holds scans of other settings (noise" in capsys.readouterr().err
    assert run(corpus, tmp_path / "a", "--seed", "1", "--overwrite") == cli.EXIT_OK
    train = "training_objectdataset.h5"
    assert not np.array_equal(content(tmp_path / "a")[train]["data"], a[train]["data"])


def test_meshes_that_fail_are_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus = make_corpus(tmp_path / "meshes", chair=4)
    write_mesh(corpus, "chair/broken", "nothing")
    assert run(corpus, tmp_path / "scans") == cli.EXIT_SOME_FAILED
    assert "chair/broken_00: bad_input" in capsys.readouterr().out
    assert sum(len(arrays["label"]) for arrays in content(tmp_path / "scans").values()) == 4
    write_mesh(tmp_path / "none", "chair/broken", "nothing")
    assert run(tmp_path / "none", tmp_path / "scans2") == cli.EXIT_USAGE
    assert "could be scanned" in capsys.readouterr().err
