"""Uniform questions: told from the others exactly, drawn for every view and probe, refused where they cannot be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import nepa3d
from nepa3d.corpora.procedural import procedural_shape
from nepa3d.probes import completion, retrieval, surfaces
from nepa3d.probes.completion import CompletionSettings
from nepa3d.probes.distance_head import Plan, Reading
from nepa3d.probes.embedding import EmbeddingSettings
from nepa3d.probes.result import Result
from nepa3d.probes.retrieval import RetrievalSettings
from nepa3d.report.compare import compare
from nepa3d.samples.completion import QuerySource, SequenceSettings, completion_sample
from nepa3d.samples.completion_loader import completion_batch
from nepa3d.samples.dataset import SampleSettings, evaluation_sample, training_sample
from nepa3d.samples.loader import Request, evaluation_samples, training_batch
from nepa3d.samples.questions import asked_of, uniform_part
from nepa3d.samples.schema import XYZ, TokenType
from nepa3d.shapes.cache import CacheError
from nepa3d.shapes.query_pools import PoolSettings, point_queries
from nepa3d.shapes.views import BACKENDS

POOLS = PoolSettings(pt_pool=400, ray_pool=40, pc_points=256, df_grid=16, pt_surface_ratio=0.3)
UNIFORM = 280  # of the pool, which begins with them


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder, paths = tmp_path_factory.mktemp("shapes"), []
    for number, family in enumerate(("chair", "table", "lamp")):
        mesh = tuple(procedural_shape(family, number, 0))
        path = folder / f"{family}.npz"
        nepa3d.Shape.from_mesh(mesh, key=family, settings=POOLS).save(path)
        paths.append(f"{path}")
    return paths


@pytest.mark.parametrize("ratio", [0.0, 0.3, 0.5])
def test_the_uniform_part_is_told_exactly(ratio: float) -> None:
    """By digits: no distance is looked at. Of 40 pools at most a few have a near point that passes by accident."""
    settings = PoolSettings(pt_pool=1000, pt_surface_ratio=ratio)
    surface = np.random.default_rng(0).uniform(-0.4, 0.4, (500, 3)).astype(np.float32)
    found = [uniform_part(point_queries(surface, settings, np.random.default_rng(seed))) for seed in range(40)]
    true = round(1000 * (1 - ratio))
    assert min(found) == true and max(found) <= true + 1 and np.mean(found) < true + 0.2


def test_what_cannot_be_told_is_nothing() -> None:
    rng = np.random.default_rng(0)
    assert uniform_part(rng.uniform(-1, 1, (500, 3)).astype(np.float32)) == 0  # of 53 random bits
    ours = (rng.random((500, 3), np.float32) * 2 - 1).astype(np.float32)
    assert uniform_part(ours) == 500
    assert uniform_part(ours.astype(np.float16).astype(np.float32)) == 0
    assert uniform_part(np.round(ours * 32) / np.float32(32)) == 0
    assert uniform_part(ours[:20]) == 0
    everything_near = point_queries(ours, PoolSettings(pt_pool=500, pt_surface_ratio=1.0), rng)
    assert uniform_part(everything_near) == 0


@pytest.mark.parametrize("view", BACKENDS)
def test_samples_of_every_view_are_drawn_from_it(view: str, shapes: list[str]) -> None:
    settings = SampleSettings(64, 8, qa=True, eos=True, questions="uniform")
    features, types, faults = evaluation_samples([Request(path, view, settings) for path in shapes], 5, threads=2)
    assert faults == []
    for path, own, kinds in zip(shapes, features, types, strict=True):
        np.testing.assert_array_equal(own, evaluation_sample(path, view, settings, 5)[0])
        with np.load(path) as cache:
            known = {point.tobytes() for point in cache["pt_xyz_pool"][:UNIFORM]}
        asked = own[kinds == TokenType.Q_POINT][:, XYZ]
        assert {point.tobytes() for point in asked} <= known
    usual, _, _ = evaluation_samples([Request(shapes[0], view, replace(settings, questions="pool"))], 5)
    assert (usual[0] != features[0]).any()


@pytest.mark.parametrize("view", ["mesh", "voxel"])
def test_training_samples_are_drawn_from_it_as_often_as_asked(view: str, shapes: list[str]) -> None:
    half = SampleSettings(48, 4, qa=False, eos=True, uniform_prob=0.5)
    known = {}
    for path in shapes:
        with np.load(path) as cache:
            known[path] = {point.tobytes() for point in cache["pt_xyz_pool"][:UNIFORM]}
    paths = [shapes[index % 3] for index in range(60)]
    features, types = training_batch([Request(path, view, half) for path in paths], 7, 1, range(60), threads=2)
    uniform = []
    for index, path in enumerate(paths):
        np.testing.assert_array_equal(features[index], training_sample(path, view, half, 7, 1, index)[0])
        asked = {point.tobytes() for point in features[index][types[index] == TokenType.POINT][:, XYZ]}
        uniform.append(asked <= known[path])
    assert 20 <= sum(uniform) <= 40
    requests = [Request(path, view, replace(half, uniform_prob=0.0, questions="uniform")) for path in shapes]
    always, _ = training_batch(requests, 7, 1, range(3))
    for path, sample in zip(shapes, always, strict=True):
        assert {point.tobytes() for point in sample[1:49, XYZ]} <= known[path]
    never, _ = training_batch([Request(shapes[0], view, replace(half, uniform_prob=0.0))], 7, 1, [0])
    np.testing.assert_array_equal(
        never[0], training_sample(shapes[0], view, replace(half, uniform_prob=0.0), 7, 1, 0)[0]
    )


@pytest.mark.parametrize("source", ["pool", "pool_disjoint", "grid"])
def test_completions_are_drawn_from_it(source: QuerySource, shapes: list[str]) -> None:
    settings = SequenceSettings("mesh", 100, 150, qa=False, eos=True, query_source=source, questions="uniform")
    batch, faults = completion_batch([*shapes, "none.npz"], settings, 3, threads=2)
    assert batch.paths == shapes and faults == {"none.npz": "there is no such file"}
    with np.load(shapes[1]) as cache:
        known = {point.tobytes() for point in cache["pt_xyz_pool"][:UNIFORM]}
    sample = completion_sample(shapes[1], settings, 3)
    np.testing.assert_array_equal(batch.features[1], sample.features)
    np.testing.assert_array_equal(batch.target[1], sample.target)
    context, queries = np.split(sample.features[1:-1, XYZ], [100])
    assert {point.tobytes() for point in context} <= known
    assert ({point.tobytes() for point in queries} <= known) == (source != "grid")
    if source == "pool_disjoint":
        assert len({point.tobytes() for point in sample.features[1:-1, XYZ]}) == 250
    nothing, faults = completion_batch(["none.npz"], settings, 3)
    assert len(nothing) == 0 and len(faults) == 1


def test_probes_say_it_and_results_of_other_questions_are_not_compared(golden: Path, shapes: list[str]) -> None:
    encoder = nepa3d.load("nepa_qa.pt", device="cpu")
    uniform = RetrievalSettings(embedding=EmbeddingSettings(questions="uniform"), spline=False)
    found, usual = (retrieval.run(encoder, shapes, settings) for settings in (uniform, RetrievalSettings(spline=False)))
    assert found.to_json()["questions"] == "uniform" and usual.to_json()["questions"] == "pool"
    assert found.items["map"] != usual.items["map"]
    _refused(found, usual)
    assert retrieval.RETRIEVAL.table is not None
    rows = retrieval.RETRIEVAL.table([("ucpr_a", found)]).rows
    assert "questions uniform" in rows[0][-1] and "questions uniform" in rows[1][-1]

    sequence = SequenceSettings("mesh", 6, 6, qa=True, eos=encoder.probe.eos, questions="uniform")
    settings = CompletionSettings(spline=False, reading=Reading(progress=False))
    results = [
        completion.complete(encoder.probe, Plan(shapes, shapes, one, one, 3), settings)
        for one in (sequence, replace(sequence, questions="pool"))
    ]
    assert [result.settings["questions"] for result in results] == ["uniform", "pool"]
    assert results[0].controls["nearest_copy"] != results[1].controls["nearest_copy"]
    _refused(*results)


def test_surfaces_have_a_context_of_it(shapes: list[str]) -> None:
    sequence = SequenceSettings("mesh", 100, 8, qa=True, eos=False, query_source="grid", questions="uniform")
    settings = surfaces.SurfaceSettings(resolution=4, spline=False)
    completed = surfaces.fields_of(shapes[0], {}, sequence, settings)
    with np.load(shapes[0]) as cache:
        known = {point.tobytes() for point in cache["pt_xyz_pool"][:UNIFORM]}
    assert {point.tobytes() for point in completed.context[:, :3]} <= known
    usual = surfaces.fields_of(shapes[0], {}, replace(sequence, questions="pool"), settings)
    assert not {point.tobytes() for point in usual.context[:, :3]} <= known


def _refused(first: Result, second: Result) -> None:
    with pytest.raises(ValueError, match="different protocols: questions uniform and pool"):
        compare(first, second)
    old = replace(second, settings={name: value for name, value in second.settings.items() if name != "questions"})
    assert compare(old, second)
    with pytest.raises(ValueError, match="different protocols: questions uniform and pool"):
        compare(first, old)


def test_a_pool_of_another_program_is_refused(golden: Path) -> None:
    path = f"{min(Path('unpaired/eval').rglob('*.npz'))}"
    with pytest.raises(CacheError, match=r"\.npz: questions 'uniform': pt_xyz_pool does not begin with at least 64"):
        asked_of(nepa3d.Shape.from_cache(path).view("mesh"), "uniform", path)
    settings = SampleSettings(8, 0, qa=True, eos=True, questions="uniform")
    _, _, faults = evaluation_samples([Request(path, "mesh", settings)], 0)
    assert faults[0][0] == 0 and "questions 'uniform'" in faults[0][1]
