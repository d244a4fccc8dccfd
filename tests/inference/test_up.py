"""Shapes whose vertical is not y are turned before a model is told of them, and results are turned back."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import trimesh

import nepa3d
from nepa3d import cli
from nepa3d.inference import build_index, complete, embed, search
from nepa3d.inference.embedder import Embedder, IndexSettings
from nepa3d.inference.explore.subject import form
from nepa3d.inference.index import ShapeIndex
from nepa3d.inference.shape_files import drawn_points, read_shape
from nepa3d.inference.shapes_picture import Named, draw_shapes
from nepa3d.inference.table import ShapeTable
from nepa3d.models.encoder import load
from nepa3d.shapes.shape import Shape
from tests.commands import errors, status_of
from tests.conftest import GOLDEN
from tests.inference.small import checkpoint

AXES = {"y": [0, 1, 2], "z": [2, 0, 1], "x": [1, 2, 0]}  # which axis of the upright body is the file's first, and so on


@pytest.fixture
def bodies(tmp_path: Path) -> Path:
    """A cone on its base, standing on each of the axes, as mesh and as cloud, and a model."""
    cone = trimesh.creation.cone(1.0, 2.0, sections=24)  # along z
    standing = cone.vertices[:, [1, 2, 0]]
    for up, axes in AXES.items():
        (tmp_path / up).mkdir()
        turned = trimesh.Trimesh(standing[:, axes], cone.faces, process=False)
        turned.export(tmp_path / up / "cone.ply")
        np.save(tmp_path / up / "scan.npy", np.asarray(turned.sample(600, seed=3), np.float32) * 7 + 100)
    checkpoint(tmp_path / "small.pt", wrong=0.3)
    return tmp_path


@pytest.mark.parametrize("up", ["x", "z"])
def test_a_turned_shape_is_the_upright_one(up: str, bodies: Path) -> None:
    for make, name in ((Shape.from_mesh, "cone.ply"), (Shape.from_scan, "scan.npy"), (Shape.from_file, "scan.npy")):
        upright, turned = make(bodies / "y" / name, key="one"), make(bodies / up / name, key="one", up=up)  # type: ignore
        for key in upright:
            if key != "ray_hit_pool":
                np.testing.assert_allclose(turned[key], upright[key], atol=2e-5, err_msg=f"{name} {key}")
        assert turned.placement is not None
        points = np.random.default_rng(0).random((5, 3)).astype(np.float32)
        np.testing.assert_allclose(turned.placement.normalized(turned.placement.restored(points)), points, atol=1e-5)
        file = trimesh.load(bodies / up / name).vertices if name.endswith("ply") else np.load(bodies / up / name)
        placed = turned.to_trimesh(placed=True).vertices
        low, high = file.min(0), file.max(0)
        assert (placed >= low - 0.01 * (high - low)).all() and (placed <= high + 0.01 * (high - low)).all()
        untold = make(bodies / up / name, key="one")
        assert np.abs(untold["pc_xyz"] - upright["pc_xyz"]).max() > 0.2
    for name in ("cone.ply", "scan.npy"):
        read = [read_shape(bodies / axis / name, "mesh", "a", n_point=8, n_ray=0, up=axis) for axis in ("y", up)]  # type: ignore
        np.testing.assert_allclose(read[1].shape["pt_dist_pc_pool"], read[0].shape["pt_dist_pc_pool"], atol=2e-5)
        forms = [form(bodies / axis / name, axis).vertices for axis in ("y", up)]  # type: ignore
        np.testing.assert_allclose(forms[1], forms[0], atol=1e-5)
    normals = [drawn_points(bodies / axis / "cone.ply", up=axis)[1] for axis in ("y", up)]  # type: ignore
    assert (normals[0][:, 1] < -0.99).mean() == pytest.approx((normals[1][:, 1] < -0.99).mean(), abs=0.05)


def test_an_index_of_shapes_that_stand_on_z(bodies: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("lancedb", reason="needs nepa3d[search]")
    cache = GOLDEN / "cache" / "train" / "kitchen" / "Blend_Swap_CC_0_stool.npz"
    (bodies / "z" / "cached.npz").write_bytes(cache.read_bytes())
    made = [f"{bodies / 'z'}", "--out", f"{tmp_path / 'z.lance'}", "--ckpt", f"{bodies / 'small.pt'}"]
    assert build_index.main([*made, "--up", "z"]) == cli.EXIT_SOME_FAILED
    assert "is a cache, which is not turned: up must be y, got z" in capsys.readouterr().out
    assert build_index.main([*made, "--up", "y"]) == cli.EXIT_USAGE
    assert "up z -> y" in capsys.readouterr().err
    assert build_index.main(made) == cli.EXIT_SOME_FAILED  # as it was made
    index = ShapeIndex.open(tmp_path / "z.lance")
    assert index.settings.up == "z" and len(index) == 2
    own = index.search(bodies / "z" / "cone.ply")[0]
    assert own.path == "cone.ply" and own.similarity == pytest.approx(1, abs=1e-5)
    embedder = Embedder(load(bodies / "small.pt"), IndexSettings())
    wanted = embedder.vectors([read_shape(bodies / "y" / "cone.ply", "mesh", "name", n_point=48, n_ray=0)])[0]
    found = embedder.vectors([read_shape(bodies / "z" / "cone.ply", "mesh", "name", n_point=48, n_ray=0, up="z")])[0]
    np.testing.assert_allclose(found, wanted, atol=1e-4)
    out, picture = tmp_path / "found.json", tmp_path / "found.png"
    query = [f"{tmp_path / 'z.lance'}", f"{bodies / 'x' / 'cone.ply'}", "--out_json", f"{out}"]
    assert search.main([*query, "--up", "x", "--picture", f"{picture}"]) == cli.EXIT_OK
    near = json.loads(out.read_text())["neighbours"][0]
    assert search.main(query) == cli.EXIT_OK  # taken to stand on z, as the index
    far = {found["path"]: found["similarity"] for found in json.loads(out.read_text())["neighbours"]}
    assert near["path"] == "cone.ply" and near["similarity"] > far["cone.ply"] and picture.exists()


@pytest.mark.parametrize("up", ["x", "z"])
def test_a_picture_shows_it_upright(up: str, bodies: Path) -> None:
    image = pytest.importorskip("matplotlib.image")
    seen = {}
    for name, axis, told in (("upright", "y", "y"), ("turned", up, up), ("untold", up, "y")):
        file = bodies / f"{name}.png"
        draw_shapes(file, [Named(bodies / axis / "cone.ply", "cone", "cone", up=told)])  # type: ignore[arg-type]
        seen[name] = image.imread(file)
    apart = {name: np.abs(seen[name] - seen["upright"]).mean() for name in ("turned", "untold")}
    assert apart["turned"] < 0.1 * apart["untold"]


def test_an_index_of_a_former_version_stands_on_y(bodies: Path, tmp_path: Path) -> None:
    pytest.importorskip("lancedb", reason="needs nepa3d[search]")
    about = asdict(IndexSettings()) | {"layout": "folder", "width": 16, "format": 1, "model": "x"}
    del about["up"]
    ShapeTable.create(tmp_path / "old.lance", 16, about, {"folder": f"{bodies}", "ckpt": ""})
    assert ShapeIndex.open(tmp_path / "old.lance").settings == IndexSettings()


def test_a_completed_scan_stands_where_it_stood(bodies: Path, tmp_path: Path) -> None:
    pytest.importorskip("skimage")
    few = ["--ckpt", f"{checkpoint(tmp_path / 'spline.pt')}", "--resolution", "16"]  # which predicts the spline
    surfaces = {}
    for up in AXES:
        out, told = tmp_path / f"{up}.ply", tmp_path / f"{up}.json"
        flags = ["--out", f"{out}", "--up", up, "--out_json", f"{told}", "--picture", f"{tmp_path / f'{up}.png'}"]
        assert complete.main([f"{bodies / up / 'scan.npy'}", *flags, *few]) == cli.EXIT_OK
        surfaces[up] = trimesh.load(out)
        said = json.loads(told.read_text())
        np.testing.assert_allclose(said["centre"], np.load(bodies / up / "scan.npy").mean(0), rtol=1e-4)
    for up, axes in AXES.items():
        np.testing.assert_allclose(surfaces[up].vertices, surfaces["y"].vertices[:, axes], atol=0.02)
        np.testing.assert_array_equal(surfaces[up].faces, surfaces["y"].faces)


def test_a_folder_is_embedded_as_it_stands(bodies: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    vectors = []
    for up in AXES:
        out = tmp_path / f"{up}.npz"
        command = [f"{bodies / up}", "--out", f"{out}", "--ckpt", f"{bodies / 'small.pt'}", "--up", up]
        assert embed.main(command) == cli.EXIT_OK
        with np.load(out) as found:
            vectors.append(found["vectors"])
            assert json.loads(found["settings"][0])["up"] == up
    np.testing.assert_allclose(vectors, [vectors[0]] * 3, atol=1e-4)
    wrong = ["cache", "--split", "test", "--out", f"{tmp_path / 'o.npz'}", "--up", "z"]
    assert status_of(embed.main, wrong) == cli.EXIT_USAGE
    assert "up must be y for the files of a cache" in errors(capsys)
    with pytest.raises(ValueError, match="up must be one of x, y, z"):
        nepa3d.Shape.from_mesh(bodies / "y" / "cone.ply", up="w")  # type: ignore[arg-type]
