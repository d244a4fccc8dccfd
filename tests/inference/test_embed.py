"""A folder becomes one file of vectors; a damaged file costs only itself."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import trimesh

import nepa3d
from nepa3d import cli
from nepa3d.inference import embed as command
from nepa3d.shapes.shape import Shape
from tests.inference.small import checkpoint


@pytest.fixture(scope="module")
def meshes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of two, and a damaged one."""
    root = tmp_path_factory.mktemp("meshes")
    for number, path in enumerate(("box/a.obj", "box/deep/b.ply", "ball/c.off", "ball/d.stl")):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        trimesh.creation.box((1, 1 + number, 2)).export(root / path)
    (root / "ball" / "damaged.obj").write_text("v 1 2 3\nf 1 2 9\n")
    checkpoint(root / "small.pt", wrong=0.1)
    return root


@pytest.mark.parametrize("view", ["mesh", "pointcloud_noray", "udfgrid"])
def test_npz(view: str, meshes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "z.npz"
    flags = [f"{meshes}", "--out", f"{out}", "--ckpt", f"{meshes / 'small.pt'}", "--view", view, "--draws", "2"]
    assert command.main([*flags, "--batch", "2"]) == cli.EXIT_SOME_FAILED
    said = capsys.readouterr()
    assert "failed:" in said.err and "damaged.obj: index_out_of_range" in said.err
    assert f"wrote {out}: 4 vectors of 16 numbers" in said.out
    with np.load(out) as found:
        assert found["ids"].tolist() == ["ball/c", "ball/d", "box/a", "box/deep--b"]
        assert found["classes"].tolist() == ["ball", "ball", "box", "box"]
        assert Path(found["files"][3]).name == "b.ply"
        settings = json.loads(found["settings"][0])
        vectors = found["vectors"]
    assert (settings["view"], settings["draws"], settings["pooling"]) == (view, 2, "eos")
    encoder = nepa3d.load(meshes / "small.pt", device="cpu")
    whole = [Shape.from_mesh(meshes / "box" / "a.obj", key="box/a")]  # all that a cache file would hold
    np.testing.assert_allclose(vectors[2], encoder.embed(whole, view, draws=2)[0], atol=1e-6)


def test_parquet(meshes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    out = tmp_path / "z.parquet"
    flags = [f"{meshes}", "--ckpt", f"{meshes / 'small.pt'}", "--draws", "1"]
    assert command.main([*flags, "--out", f"{out}"]) == cli.EXIT_SOME_FAILED
    assert command.main([*flags, "--out", f"{tmp_path / 'z.npz'}"]) == cli.EXIT_SOME_FAILED
    table = parquet.read_table(out)
    assert table.column_names == ["id", "class", "file", "vector"]
    assert json.loads(table.schema.metadata[b"nepa3d"])["view"] == "mesh"
    with np.load(tmp_path / "z.npz") as found:
        assert table["id"].to_pylist() == found["ids"].tolist()
        np.testing.assert_array_equal(np.array(table["vector"].to_pylist(), np.float32), found["vectors"])
    monkeypatch.setattr(command, "find_spec", lambda name: None)
    capsys.readouterr()
    assert command.main([*flags, "--out", f"{out}"]) == cli.EXIT_USAGE
    assert "pip install 'nepa3d[parquet]'" in capsys.readouterr().err


def test_a_mesh_of_which_most_was_dropped_is_named(
    meshes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its vector is that of what was left."""
    (tmp_path / "in" / "box").mkdir(parents=True)
    content = (meshes / "box" / "a.obj").read_text().splitlines(keepends=True)
    vertices, lost = [line for line in content if line.startswith("v ")], "v nan nan nan\n"
    cut = "".join(content).replace(vertices[0], lost)
    for vertex in vertices[1:5]:
        cut = cut.replace(vertex, lost)
    for name, text in (("whole", "".join(content)), ("cut", cut)):
        (tmp_path / "in" / "box" / f"{name}.obj").write_text(text)
    flags = [f"{tmp_path / 'in'}", "--out", f"{tmp_path / 'z.npz'}", "--ckpt", f"{meshes / 'small.pt'}"]
    assert command.main(flags) == cli.EXIT_OK
    said = capsys.readouterr().err
    assert "suspicious: " in said and "cut.obj: most of it could not be used: " in said
    assert "whole.obj" not in said


def test_a_name_that_is_not_utf_8_costs_only_itself(
    meshes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A Parquet string is UTF-8; an array of NumPy holds any name."""
    parquet = pytest.importorskip("pyarrow.parquet")
    (tmp_path / "in" / "box").mkdir(parents=True)
    for name in (b"a.obj", b"\xff.obj"):
        shutil.copy(meshes / "box" / "a.obj", os.fsencode(tmp_path / "in" / "box") + b"/" + name)
    flags = [f"{tmp_path / 'in'}", "--ckpt", f"{meshes / 'small.pt'}", "--draws", "1"]
    assert command.main([*flags, "--out", f"{tmp_path / 'z.parquet'}"]) == cli.EXIT_SOME_FAILED
    assert "the name is not UTF-8" in capsys.readouterr().err
    assert parquet.read_table(tmp_path / "z.parquet")["id"].to_pylist() == ["box/a"]
    assert command.main([*flags, "--out", f"{tmp_path / 'z.npz'}"]) == cli.EXIT_OK
    with np.load(tmp_path / "z.npz") as found:
        assert found["ids"].tolist() == ["box/a", "box/\udcff"]


def test_a_cache_without_finite_values_costs_only_itself(golden: Path, tmp_path: Path) -> None:
    paths = sorted(Path("unpaired/eval").glob("*/*.npz"))[:3]
    for path in paths:
        kept = tmp_path / "cache" / "eval" / path.parent.name / path.name
        kept.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, kept)
    with np.load(kept) as arrays:
        damaged = {name: arrays[name] for name in arrays.files}
    damaged["pt_dist_pc_pool"] = np.full_like(damaged["pt_dist_pc_pool"], np.inf)
    damaged["pt_dist_pool"] = np.full_like(damaged["pt_dist_pool"], np.nan)
    np.savez(kept, **damaged)
    out = tmp_path / "z.npz"
    flags = [f"{tmp_path / 'cache'}", "--split", "eval", "--out", f"{out}", "--ckpt", "nepa_qa.pt", "--draws", "1"]
    assert command.main(flags) == cli.EXIT_SOME_FAILED
    with np.load(out) as found:
        assert found["ids"].tolist() == [f"{path.parent.name}/{path.stem}" for path in paths[:2]]
        assert found["vectors"].shape[0] == 2


def test_a_split_of_a_cache(golden: Path, tmp_path: Path) -> None:
    out = tmp_path / "z.npz"
    flags = ["unpaired", "--split", "eval", "--out", f"{out}", "--ckpt", "nepa_qa.pt", "--view", "pointcloud_noray"]
    assert command.main([*flags, "--draws", "1"]) == cli.EXIT_OK
    paths = sorted(Path("unpaired/eval").glob("*/*.npz"))
    with np.load(out) as found:
        assert found["files"].tolist() == [f"{path}" for path in paths]
        expected = nepa3d.load("nepa_qa.pt", device="cpu").embed(paths, "pointcloud_noray")
        np.testing.assert_allclose(found["vectors"], expected, atol=1e-6)


def test_refusals(meshes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = ["--ckpt", f"{meshes / 'small.pt'}"]
    (tmp_path / "bad" / "class").mkdir(parents=True)
    shutil.copy(meshes / "ball" / "damaged.obj", tmp_path / "bad" / "class")
    for flags, message in (
        ([f"{tmp_path / 'none'}", "--out", f"{tmp_path / 'z.npz'}"], "is not a folder"),
        ([f"{tmp_path / 'bad'}", "--out", f"{tmp_path / 'z.npz'}"], "none of 1 files could be read"),
    ):
        assert command.main([*flags, *model]) == cli.EXIT_USAGE
        assert message in capsys.readouterr().err
    for flags, message in (
        ([f"{meshes}", "--out", f"{tmp_path / 'z.csv'}"], "out must end in .npz or .parquet, got 'z.csv'"),
        ([f"{meshes}", "--out", f"{tmp_path / 'z.npz'}", "--view", "sdf"], "view must be one of"),
    ):
        with pytest.raises(SystemExit, match="2"):
            command.main([*flags, *model])
        assert message in capsys.readouterr().err
    assert not (tmp_path / "z.npz").exists()
