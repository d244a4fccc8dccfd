"""Completion against recorded results, its sequences, and the controls."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import trimesh

from nepa3d import cli
from nepa3d.analysis.completion_cpac_udf import Config, complete, main
from nepa3d.cli.flags import build
from nepa3d.ops import reference
from nepa3d.probes.result import Json
from nepa3d.samples.completion import QuerySource, SequenceSettings, completion_sample, mesh_path
from nepa3d.samples.schema import POINT_DISTANCE, XYZ, TokenType
from nepa3d.shapes.mesh import load_mesh
from tests.commands import errors, status_of

RECORDED = json.loads((Path(__file__).parents[1] / "fixtures" / "golden" / "evals.json").read_text())
EVALS = {key: value for key, value in RECORDED.items() if key.startswith("cpac|")}
SHAPE = "unpaired/eval/kitchen/Blend_Swap_CC_0_bread.npz"


def result_of(**more: object) -> Json:
    """The file of a small completion of the recorded shapes."""
    given = {"cache_root": "unpaired", "ckpt": "nepa_v1.pt", "n_context": 16, "n_query": 16, **more}
    return complete(build(Config, given)).to_json()


def flags(*more: str, root: str = "unpaired", ckpt: str = "nepa_v1.pt") -> list[str]:
    return ["--cache_root", root, "--ckpt", ckpt, "--n_context", "16", "--n_query", "16", *more]


def test_heads_that_know_the_answers_or_other_states_are_refused(golden: Path) -> None:
    with pytest.raises(ValueError, match="head_train_split: eval is the split that is evaluated"):
        result_of(split="eval", head_train_split="eval")
    with pytest.raises(ValueError, match="the model's own prediction is read off h, got z_hat"):
        result_of(ckpt="furniture-small", head_train_split="own", representation="z_hat")


@pytest.mark.parametrize("key", EVALS)
def test_recorded_results(key: str, golden: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    assert main([*EVALS[key]["args"], "--out_json", str(out)]) == 0
    result = json.loads(out.read_text())
    for name, expected in EVALS[key]["out"].items():
        assert result[name] == (pytest.approx(expected, abs=1e-4) if isinstance(expected, float) else expected), name
    assert result["failed"] == [] and result["nearest_copy"]["mae"] > 0


@pytest.mark.parametrize("qa", [False, True])
def test_sequence_hides_the_answers_it_asks_for(qa: bool, golden: Path) -> None:
    settings = SequenceSettings("pointcloud_noray", n_context=5, n_query=7, qa=qa, eos=True)
    sample = completion_sample(SHAPE, settings, seed=3)
    assert sample.features.shape == (1 + 12 * (2 if qa else 1) + 1, 15)
    assert (sample.features[sample.query_tokens[0] :, POINT_DISTANCE] == 0).all()
    question = TokenType.Q_POINT if qa else TokenType.POINT
    assert (sample.types[sample.query_tokens] == question).all()
    with np.load(SHAPE) as cache:
        pool, true = cache["pt_xyz_pool"], cache["pt_dist_udf_pool"]
    for xyz, target in zip(sample.features[sample.query_tokens, XYZ], sample.target, strict=True):
        assert true[(pool == xyz).all(1)] == target
    again = completion_sample(SHAPE, settings, seed=3)
    assert (again.features == sample.features).all()


def test_disjoint_queries_never_repeat_the_context(golden: Path) -> None:
    settings = SequenceSettings("udfgrid", 300, 300, qa=False, eos=False, query_source="pool_disjoint")
    sample = completion_sample(SHAPE, settings, seed=0)
    rows = {xyz.tobytes() for xyz in sample.features[1:, XYZ]}
    assert len(rows) == 600
    overlapping = completion_sample(SHAPE, replace(settings, query_source="pool"), seed=0)
    assert len({xyz.tobytes() for xyz in overlapping.features[1:, XYZ]}) < 600


def test_grid_queries_ask_for_cells_of_the_field(golden: Path) -> None:
    settings = SequenceSettings("udfgrid", 4, 20, qa=True, eos=False, query_source="grid")
    sample = completion_sample(SHAPE, settings, seed=0)
    with np.load(SHAPE) as cache:
        grid = cache["udf_grid"].astype(np.float32)
    cell = ((sample.features[sample.query_tokens, XYZ] + 1) / 2 * len(grid)).astype(int)
    assert (grid[tuple(cell.T)] == sample.target).all()


def test_nearest_copy_answers_exactly_where_query_and_context_agree(golden: Path) -> None:
    settings = SequenceSettings("udfgrid", 600, 50, qa=False, eos=True)
    sample = completion_sample(SHAPE, settings, seed=0)  # the context is the whole pool
    assert sample.nearest_copy is not None
    np.testing.assert_array_equal(sample.nearest_copy, sample.target)


def test_controls_change_the_figures_and_are_named(golden: Path) -> None:
    own = result_of()
    results = {
        "absent": result_of(context="absent"),
        "mismatched": result_of(context="mismatched"),
        "grid": result_of(query_source="grid"),
        "mesh": result_of(target="mesh"),
        "z_hat": result_of(representation="z_hat"),
    }
    assert len({own["mae"], *(result["mae"] for result in results.values())}) == 6
    assert results["absent"]["nearest_copy"] is None
    assert results["mismatched"]["context"] == "mismatched"
    assert results["mesh"]["target"] == "mesh_distance_probe"
    assert own["queries_may_repeat_context"] and not results["grid"]["queries_may_repeat_context"]


def test_batches_and_readers_change_no_figure(golden: Path) -> None:
    one, many = result_of(batch=1, num_workers=0), result_of(batch=7, num_workers=3)
    assert one["mae"] == pytest.approx(many["mae"], abs=1e-6)
    assert one["items"]["path"] == many["items"]["path"]


def write_meshes(root: Path) -> trimesh.Trimesh:
    """A mesh for every shape of the unpaired view, the same one."""
    mesh = trimesh.creation.icosphere(1)
    for cache in Path("unpaired").glob("*/*/*.npz"):
        path = mesh_path(f"{cache}", f"{root}")
        path.parent.mkdir(parents=True, exist_ok=True)
        mesh.export(path)
    return mesh


@pytest.mark.parametrize("source", ["grid", "pool", "pool_disjoint"])
def test_exact_distances_are_those_to_the_mesh(source: QuerySource, golden: Path, tmp_path: Path) -> None:
    write_meshes(tmp_path)
    settings = SequenceSettings("pointcloud_noray", 8, 30, qa=True, eos=True, query_source=source, target="mesh")
    settings = replace(settings, mesh_root=f"{tmp_path}")
    sample = completion_sample(SHAPE, settings, seed=2)
    asked = sample.features[sample.query_tokens, XYZ]
    mesh = load_mesh(mesh_path(SHAPE, f"{tmp_path}"))
    expected = reference.closest_point(mesh.vertices, mesh.faces, asked).distance
    np.testing.assert_allclose(sample.target, expected, rtol=1e-5, atol=1e-6)
    cached = completion_sample(SHAPE, replace(settings, mesh_root="", target="udf"), seed=2)
    np.testing.assert_array_equal(cached.features, sample.features)  # the same is asked, whatever the answer


def test_exact_target_on_the_grid_is_named(golden: Path, tmp_path: Path) -> None:
    write_meshes(tmp_path)
    missing = mesh_path(SHAPE, f"{tmp_path}")
    missing.unlink()
    result = result_of(query_source="grid", target="mesh", mesh_root=f"{tmp_path}")
    assert result["target"] == "mesh_distance_exact"
    assert result["mesh_root"] == f"{tmp_path}"
    assert result["mae"] != result_of(query_source="grid")["mae"]
    assert [(failure["path"], f"{missing}" in failure["reason"]) for failure in result["failed"]] == [(SHAPE, True)]


def test_unreadable_shape_is_listed_never_scored_as_zero(golden: Path, tmp_path: Path) -> None:
    root = tmp_path / "cache"
    shutil.copytree("unpaired", root)
    broken = sorted((root / "eval").rglob("*.npz"))[0]
    with np.load(broken) as cache:
        lacking = {key: cache[key] for key in cache if key != "pt_dist_udf_pool"}
    np.savez(broken, **lacking)
    out = tmp_path / "out.json"
    assert main(flags("--out_json", str(out), root=str(root))) == 3
    result = json.loads(out.read_text())
    assert result["n_shapes_head_test"] == 11
    assert [failure["path"] for failure in result["failed"]] == [str(broken)]
    assert "pt_dist_udf_pool" in result["failed"][0]["reason"]


def test_without_a_readable_shape_the_first_is_named(golden: Path, tmp_path: Path) -> None:
    """Of those in question: that of a head is met before."""
    root = tmp_path / "cache"
    shutil.copytree("unpaired", root)
    tests, heads = (sorted((root / split).rglob("*.npz")) for split in ("eval", "train_udf"))
    for path in (*tests, heads[0]):
        path.write_bytes(b"no archive")
    with pytest.raises(ValueError, match=rf"^no shape to complete could be read; first: {tests[0]}: \w+"):
        result_of(cache_root=f"{root}")
    for path in heads[1:]:
        path.write_bytes(b"no archive")
    with pytest.raises(ValueError, match=rf"^no shape to fit the head on could be read; first: {heads[0]}: \w+"):
        result_of(cache_root=f"{root}")


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (flags(ckpt="none.pt"), "none.pt: expected a checkpoint"),
        (flags(root="nowhere"), "nowhere.*no such folder"),
        (flags("--head_train_split", "train_none"), "train_none.*no such folder"),
        (flags("--n_query", "40"), "make 58 tokens, but nepa_v1.pt takes at most 50"),
        (flags("--head_train_split", "none", "--head_train_n", "12"), "12 of 12 shapes"),
        (flags("--head_train_n", "3"), "head_train_n"),
        (flags("--ridge_lambda", "0"), "ridge_lambda"),
        (flags("--query_source", "grid", "--target", "mesh"), "'grid' with target 'mesh' needs mesh_root"),
        (flags("--mesh_root", "cache"), "mesh_root goes with target 'mesh', got target 'udf'"),
        (flags("--mesh_root", "none", "--target", "mesh"), "mesh_root: expected a folder of meshes.*'none'"),
        (flags("--num_workers", "-1"), "num_workers must be at least 0, got -1"),
        (flags("--context_backend", "hologram"), "context_backend.*hologram"),
    ],
)
def test_bad_requests_are_named(argv: list[str], said: str, golden: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of(main, argv) == cli.EXIT_USAGE
    error = errors(capsys)
    assert "Traceback" not in error
    assert re.search(said, error)
