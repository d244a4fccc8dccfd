"""The evaluation benchmark compares figures before times, and its memory is that of the ridge."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import evaluation
from benchmarks.inputs import make_caches
from nepa3d import cli

TINY = ["--cache_root", "cache", "--shapes", "3", "--document_shapes", "0", "--rounds", "2", "--ridge_shapes", "12"]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = property(lambda config: [evaluation.Size(32, 2, 2, 8, config.shapes)])
    monkeypatch.setattr(evaluation.Config, "sizes", sizes)


def test_rows_and_file(golden: Path, small: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluation.main([*TINY, "--results", f"{tmp_path}"]) == cli.EXIT_OK
    said = capsys.readouterr().out
    assert said.count(evaluation.ENCODER) == 2
    assert "ridge head of 12 shapes x 256 queries x 384 features" in said
    (path,) = tmp_path.iterdir()
    found = json.loads(path.read_text())
    assert found["ridge"]["MiB"] > 0
    rows = found["rows"]
    assert [row["probe"] for row in rows] == 3 * ["retrieval"] + 3 * ["completion"]
    assert [row["way"] for row in rows[:3]] == [evaluation.ENCODER, evaluation.PEER, evaluation.OURS]
    for row in rows:
        assert len(row["seconds"]) == 2 and row["shapes"] == 6
        assert (row["ratio"] == 1.0) == (row["way"] == evaluation.PEER)
    for same in (rows[:3], rows[3:]):
        for name, value in same[0]["figures"].items():
            expected = pytest.approx(3 * [value], rel=evaluation.TOLERANCE[same[0]["probe"]])
            assert [row["figures"][name] for row in same] == expected


def test_other_figures_are_refused(
    golden: Path, small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(evaluation, "retrieve_one_by_one", lambda *_: {"mAP": 0.01, "mean_rank": 2.0})
    assert evaluation.main([*TINY, "--results", f"{tmp_path}"]) == cli.EXIT_USAGE
    assert "retrieval, 32 x 2, 34 tokens: mAP of nepa3d is" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_memory_does_not_grow_with_the_shapes() -> None:
    few, more = (evaluation.ridge_memory(shapes, queries=32, width=64, batch=8) for shapes in (16, 400))
    assert more["MiB"] <= few["MiB"] + 2


def test_procedural_caches_are_made_once(tmp_path: Path) -> None:
    root = make_caches(tmp_path, per_class=2)
    made = {path: path.stat().st_mtime_ns for path in root.rglob("*.npz")}
    assert {path.relative_to(root).parts[0] for path in made} == {"train", "test"}
    assert make_caches(tmp_path, per_class=2) == root
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*.npz")} == made
