"""Surfaces of fields that are known, their scores, and the fields of a completed shape."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import trimesh

from nepa3d import cli, ops
from nepa3d.analysis import surfaces as command
from nepa3d.cli.flags import build
from nepa3d.execution.files import write_npz
from nepa3d.models.embedding import ProbeRequest, open_probe
from nepa3d.probes import surfaces
from nepa3d.probes.completion import TEST_SEED_OFFSET
from nepa3d.probes.distance_head import Headed
from nepa3d.probes.spline import spline_distances
from nepa3d.probes.table import read_result
from nepa3d.samples.tokenizer import draw_rows, evaluation_rng
from nepa3d.shapes.cells import cell_centres
from nepa3d.shapes.level_set import level_set
from nepa3d.shapes.mesh import read_mesh
from nepa3d.shapes.views import read_answers
from tests.commands import errors, status_of

pytest.importorskip("skimage")
pytest.importorskip("scipy")


def sphere(radius: float, side: int = 48) -> surfaces.Field:
    distance = np.linalg.norm(cell_centres(side), axis=1) - radius
    return distance.reshape(3 * (side,)).astype(np.float32)


def test_the_surface_of_a_sphere() -> None:
    mesh = level_set(sphere(0.5), 0.1)
    assert mesh is not None
    np.testing.assert_allclose(np.linalg.norm(mesh.vertices, axis=1), 0.6, atol=2e-3)
    assert mesh.is_watertight
    assert level_set(sphere(0.5), 5.0) is None


def test_scores_of_spheres() -> None:
    true = trimesh.creation.icosphere(4, 0.5)
    points, normals, _ = ops.sample_surface(true.vertices, true.faces, np.random.default_rng(0).random((4000, 3)))
    same = surfaces.score(level_set(sphere(0.5), 0.0), points, normals, 0.05, seed=1)
    assert same is not None
    assert same["chamfer"] < 0.02  # between random samples of one surface
    assert same["f_score"] == pytest.approx(1.0)
    assert same["normal_consistency"] > 0.98
    wider = surfaces.score(level_set(sphere(0.5), 0.2), points, normals, 0.05, seed=1)
    assert wider is not None
    assert wider["chamfer"] == pytest.approx(0.2, abs=0.01)
    assert wider["f_score"] == 0.0
    assert surfaces.score(None, points, normals, 0.05, seed=1) is None


@pytest.mark.parametrize("formats", [("ply",), ("glb",), ("ply", "glb")])
def test_files_of_a_surface(formats: tuple[str, ...], tmp_path: Path) -> None:
    mesh = level_set(sphere(0.5), 0.1)
    assert mesh is not None
    surfaces.write_mesh(tmp_path / "chair" / "nr.1" / "true_field", mesh, formats)
    files = sorted((tmp_path / "chair" / "nr.1").iterdir())
    assert [file.name for file in files] == sorted(f"true_field.{kind}" for kind in formats)
    for file in files:
        vertices, faces, _ = read_mesh(file)
        np.testing.assert_allclose(vertices[faces], mesh.vertices[mesh.faces], atol=1e-6)


@pytest.mark.parametrize("checkpoint", ["mae_v1.pt", "nepa_qa.pt"])
def test_every_cell_has_its_own_distance(golden: Path, checkpoint: str, tmp_path: Path) -> None:
    """Fields are put together from chunks in Morton order; the copy tells whether each distance fell in its place."""
    sizes = {"n_context": 20, "n_query": 12, "resolution": 9}
    config = build(command.Config, {"cache_root": "unpaired", "ckpt": checkpoint, "out_root": tmp_path, **sizes})
    probe, settings = open_probe(ProbeRequest(checkpoint)), config.settings()
    plan = config.plan(probe)
    path = plan.test[0]
    weights = np.random.default_rng(0).normal(size=probe.model.width + 1)
    models = {"model": Headed(probe, weights)}
    completed = surfaces.fields_of(path, models, plan.test_settings, settings)
    answers = read_answers(path, "pointcloud_noray")
    rng = evaluation_rng(path, TEST_SEED_OFFSET)
    rows = draw_rows(len(answers.point_xyz), 20, rng)
    centres = cell_centres(9)
    _, nearest = ops.nearest_distance(answers.point_xyz[rows], centres)
    expected = answers.point_distance[rows][nearest].reshape(9, 9, 9)
    np.testing.assert_allclose(completed.fields["nearest copy"], expected, atol=1e-6)
    assert np.isfinite(completed.fields["model"]).all()
    assert len(np.unique(completed.fields["model"])) > 100
    splined = spline_distances(answers.point_xyz[rows], answers.point_distance[rows], centres).reshape(9, 9, 9)
    np.testing.assert_allclose(completed.fields["spline"], splined, atol=1e-6)
    other = surfaces.fields_of(path, models, plan.test_settings, settings)
    np.testing.assert_array_equal(other.fields["model"], completed.fields["model"])


def test_the_command(golden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--cache_root", "unpaired", "--ckpt", "mae_v1.pt", "--n_context", "16", "--n_query", "16"]
    more = ["--resolution", "12", "--max_shapes", "2", "--out_root", f"{tmp_path}"]
    assert command.main([*flags, *more]) == cli.EXIT_OK
    assert "true field" in capsys.readouterr().out
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert len(scores["shapes"]) == 2
    assert set(scores["mean"]) == set(surfaces.WAYS) - {"untrained"}
    assert scores["mean"]["true field"]["without_surface"] == 0
    meshes = sorted(tmp_path.glob("*/*/true_field.ply"))
    assert len(meshes) == 2
    assert not [*tmp_path.rglob("*.glb")]
    mesh = trimesh.load_mesh(meshes[0])
    assert np.abs(mesh.vertices).max() < 1
    assert (tmp_path / "surfaces.png").stat().st_size > 10_000
    with pytest.raises(SystemExit) as stopped:
        command.main([*flags, *more, "--resolution", "2"])
    assert stopped.value.code == cli.EXIT_USAGE
    assert "resolution must be at least 4, got 2" in capsys.readouterr().err


def test_the_controls_are_in_files_tables_and_doubts(golden: Path, tmp_path: Path) -> None:
    where = {"cache_root": "unpaired", "ckpt": "mae_v1.pt", "out_root": tmp_path, "n_query": 16, "resolution": 12}
    sizes = {"max_shapes": 2, "n_context": 16}
    found = command.complete_surfaces(build(command.Config, where | sizes | {"random_init": True}))
    assert list(found.controls) == ["untrained", "nearest copy", "spline", "true field"]
    assert len([*tmp_path.glob("*/*/spline.ply")]) == 2
    again = read_result(tmp_path / "scores.json")
    assert again is not None and again.controls == found.controls and again.to_json() == found.to_json()
    assert surfaces.SURFACES.report_table is not None
    rows = surfaces.SURFACES.report_table([("scores", again)]).rows
    assert [row[1] for row in rows] == ["model", "untrained", "nearest copy", "spline", "true field"]
    figures = {"chamfer": 0.1, "f_score": 0.5, "normal_consistency": 0.5, "without_surface": 0}
    controls = {"spline": figures | {"f_score": 0.6}, "nearest copy": figures | {"f_score": 0.4}, "true field": figures}
    said = surfaces.SURFACES.doubts(replace(again, figures=figures, controls=controls))
    assert said == ["F-score 0.500 is no better than that of the spline (0.600)"]
    assert surfaces.SURFACES.doubts(replace(again, figures=figures, controls={"true field": figures})) == []
    nothing = replace(again, figures=figures | {"f_score": None})
    assert surfaces.SURFACES.doubts(nothing) == ["the model's field has no surface at that level in any shape"]
    few = command.complete_surfaces(build(command.Config, where | sizes | {"n_context": 3}))
    assert "spline" not in few.controls
    assert "no spline: unpaired/eval/" in surfaces.text(few) and "C at least 4, got (3, 3)" in surfaces.text(few)
    assert read_result(tmp_path / "scores.json") == few


def test_a_shape_that_cannot_be_read_is_listed_and_the_rest_is_completed(
    golden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copies = []
    for shape in sorted(Path("unpaired/eval").glob("*/*.npz"))[:4]:
        copies.append(tmp_path / "eval" / shape.parent.name / shape.name)
        copies[-1].parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(shape, copies[-1])
    shutil.copytree("unpaired/train_udf", tmp_path / "train_udf")
    copies[0].write_bytes(b"half")
    for path, key in ((copies[1], "udf_grid"), (copies[3], "pt_xyz_pool")):
        with np.load(path) as file:
            arrays = dict(file)
        write_npz(path, arrays | {key: np.full_like(arrays[key], np.nan)})
    flags = ["--cache_root", f"{tmp_path}", "--ckpt", "mae_v1.pt", "--n_context", "16", "--n_query", "16"]
    more = ["--resolution", "8", "--max_shapes", "0", "--out_root", f"{tmp_path / 'out'}"]
    assert command.main([*flags, *more]) == cli.EXIT_SOME_FAILED
    told = capsys.readouterr().err
    content = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert [failure["path"] for failure in content["failed"]] == [f"{path}" for path in (*copies[:2], copies[3])]
    assert f"failed: {copies[1]}: the shape has values that are not finite" in told
    assert [shape["path"] for shape in content["shapes"]] == [f"{copies[2]}"]
    copies[2].write_bytes(b"half")
    assert command.main([*flags, *more]) == cli.EXIT_USAGE
    assert f"no shape to complete could be read; first: {copies[0]}: " in capsys.readouterr().err


WRONG = {
    "n_context": ("0", "n_context must be at least 1, got 0"),
    "n_query": ("99", "n_context and n_query make 117 tokens, but mae_v1.pt takes at most 50"),
    "batch": ("-2", "batch must be at least 1, got -2"),
    "ridge_lambda": ("0", "ridge_lambda must be positive, got 0.0"),
    "context_backend": ("scan", "context_backend must be one of "),
    "head_train_backend": ("scan", "head_train_backend must be one of "),
    "head_train_max_shapes": ("-1", "head_train_max_shapes: expected at least 0 (0: all shapes), got -1"),
    "ckpt": ("none.pt", "none.pt: expected a checkpoint, a folder"),
    "out_root": ("mae_v1.pt", "out_root: expected a folder to write to, mae_v1.pt is a file"),
}


@pytest.mark.parametrize("flag", WRONG)
def test_a_wrong_flag_is_named_before_any_work(
    flag: str, golden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """R19: by the name that this command has for it."""
    value, told = WRONG[flag]
    flags = ["--cache_root", "unpaired", "--ckpt", "mae_v1.pt", "--n_context", "16", "--n_query", "16"]
    assert status_of(command.main, [*flags, "--out_root", f"{tmp_path}", f"--{flag}", value]) == cli.EXIT_USAGE
    said = errors(capsys)
    assert told in said and "Traceback" not in said
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(("flag", "value"), [("level", "nan"), ("level", "-1"), ("tau", "0"), ("tau", "inf")])
def test_level_and_tau_are_named_apart(flag: str, value: str) -> None:
    with pytest.raises(ValueError, match=f"^{flag} must be "):
        build(
            command.Config, {"cache_root": "unpaired", "ckpt": "mae_v1.pt", "out_root": Path("out"), flag: float(value)}
        )


def test_too_few_shapes_to_take_some_for_the_head(golden: Path, tmp_path: Path) -> None:
    shapes = sorted(Path("unpaired/eval").glob("*/*.npz"))[:2]
    for shape in shapes:
        copy = tmp_path / "eval" / shape.parent.name / shape.name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(shape, copy)
    where = {"cache_root": f"{tmp_path}", "ckpt": "mae_v1.pt", "out_root": tmp_path / "out"}
    config = build(command.Config, where | {"n_context": 16, "n_query": 16, "head_train_split": "none"})
    with pytest.raises(ValueError, match="head_train_split 'none' takes part of the split 'eval', which has too few"):
        command.complete_surfaces(config)
