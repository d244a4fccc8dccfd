"""The benchmark of the geometry over batches, on the CPU: answers are compared first, and what differs has no times."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import gpu_geometry
from benchmarks.gpu_geometry import Case, Config, cloud_cases, find_meshes, is_equal, make_batch, measure, mesh_cases
from benchmarks.gpu_peers import closest_by_warp, first_hits_by_warp, nearest_by_torch
from benchmarks.inputs import write_obj
from nepa3d import cli, ops
from tests.ops.test_geometry import icosphere, soup


@pytest.fixture
def small(tmp_path: Path) -> Config:
    folder = tmp_path / "meshes"
    folder.mkdir()
    for number, (vertices, faces) in enumerate([icosphere(1), soup(70)]):
        write_obj(folder / f"{number}.obj", vertices, faces)
    sizes = {"shapes": 3, "points": 1200, "queries": 90, "rays": 60, "grid": 9, "rounds": 2}
    return Config(meshes=folder, device="cpu", faces=(75,), results=tmp_path / "results", **sizes)


def test_every_operation_is_compared_and_timed(small: Config, capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu_geometry.command(small) == cli.EXIT_OK
    kept = json.loads((small.results / "gpu_geometry-cpu.json").read_text())
    assert kept["device"] == "cpu" and kept["config"]["shapes"] == 3 and kept["commit"]
    assert len(kept["rows"]) == 14
    assert all(row["equal"] and len(row["microseconds"]) == 2 and row["median"] > 0 for row in kept["rows"])
    nearest = kept["rows"][0]
    assert nearest["name"] == "nearest, 1200 points"
    assert isinstance(nearest["peers"]["torch"], float)
    if importlib.util.find_spec("cupy") is None:
        assert nearest["peers"]["cupy"] == "No module named 'cupy'"
    assert "nearest, surface" in capsys.readouterr().out


def test_meshes_are_subdivided_and_take_turns(small: Config) -> None:
    batch = make_batch(small, find_meshes(small), 75)
    assert [len(shape.mesh.faces) for shape in batch] == [80, 280, 80]
    assert [len(shape.reference) for shape in batch] == [1200] * 3


def test_an_answer_with_another_bit_has_no_times(small: Config) -> None:
    batch = make_batch(small, find_meshes(small), 1)
    cases = [*cloud_cases(batch, "cpu", small), *mesh_cases(batch, "cpu", "few faces")]
    assert all(is_equal(case, batch) for case in cases)

    def spoilt(case: Case, place: int) -> Case:
        def run() -> tuple[torch.Tensor, ...]:
            answer = case.run()
            answer[place].view(-1).view(torch.uint8)[-1] ^= 1
            return answer

        return dataclasses.replace(case, run=run)

    for case in cases:
        for place in range(len(case.expected(batch[0]))):
            assert not is_equal(spoilt(case, place), batch), case.name
    row = measure(spoilt(cases[0], 0), batch, small)
    assert (row.equal, row.microseconds, row.median, row.peers) == (False, [], None, {})


def test_torch_answers_the_same_question(small: Config) -> None:
    batch = make_batch(small, find_meshes(small), 1)
    points, queries = (
        gpu_geometry.joined([getattr(shape, field) for shape in batch], "cpu") for field in ("reference", "queries")
    )
    expected = np.concatenate([ops.nearest_distance(shape.reference, shape.queries).distance for shape in batch])
    np.testing.assert_allclose(nearest_by_torch(points, queries)().numpy(), expected, atol=1e-6)


def test_warp_answers_the_same_questions(small: Config) -> None:
    pytest.importorskip("warp", reason="needs warp-lang")
    batch = make_batch(small, find_meshes(small), 75)
    for case, peer in zip(mesh_cases(batch, "cpu", "few")[1:3], (closest_by_warp, first_hits_by_warp), strict=True):
        assert case.peer is not None
        found, ours = peer(*case.peer[1])(), case.run()[0]
        assert gpu_geometry.differing(found, ours) <= 0.02, case.name  # a soup of triangles has many edges
        assert ours.isfinite().any()


def test_a_peer_that_misses_what_is_hit_differs() -> None:
    ours = torch.tensor([1.0, 2.0, torch.inf, torch.inf])
    assert gpu_geometry.differing(ours + 1e-6, ours) == 0
    assert gpu_geometry.differing(torch.tensor([torch.inf, 2.0, torch.inf, 3.0]), ours) == 0.5


def test_requests_that_cannot_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for flags, message in (
        ((), "there is no GPU that torch can use"),
        (("--device", "cpu"), "meshes: expected a folder with OBJ files"),
    ):
        assert gpu_geometry.main(["--meshes", f"{tmp_path}", *flags]) == cli.EXIT_USAGE
        assert message in capsys.readouterr().err
    with pytest.raises(ValueError, match="shapes must be at least 1, got 0"):
        Config(meshes=tmp_path, shapes=0)
    with pytest.raises(ValueError, match="faces must be one or more positive numbers"):
        Config(meshes=tmp_path, faces=(100, 0))
