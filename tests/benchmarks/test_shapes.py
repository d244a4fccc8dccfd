"""The whole-shape benchmark on two small meshes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import shapes
from nepa3d import cli

TETRAHEDRON = "v 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\nf 1 3 2\nf 1 2 4\nf 2 3 4\nf 3 1 4\n"


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    for name in ("a", "b"):
        mesh = tmp_path / "corpus" / "solid" / name / "models" / "model_normalized.obj"
        mesh.parent.mkdir(parents=True)
        mesh.write_text(TETRAHEDRON)
    return tmp_path / "corpus"


def test_whole_shapes(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    flags = ["--corpus", f"{corpus}", "--work", f"{tmp_path / 'work'}", "--results", f"{tmp_path / 'results'}"]
    assert shapes.main([*flags, "--workers", "1", "--memory_shapes", "3"]) == cli.EXIT_OK
    (path,) = (tmp_path / "results").glob("*.json")
    found = json.loads(path.read_text())
    (run,) = found["runs"]
    assert (run["workers"], run["shapes"]) == (1, 2)
    assert run["bytes_per_shape"] > 1e6
    assert set(found["stages"]) == {*shapes.STAGES, "other"}
    assert all(seconds > 0 for stage, seconds in found["stages"].items() if stage != "other")
    assert found["stages"]["other"] < sum(found["stages"].values()) / 2
    ((count, size),) = found["memory"]
    assert count == 3
    assert size > 1e6
    assert path.with_suffix(".png").stat().st_size > 1000
    assert set(found["steps"]) == {*shapes.STEPS, "other"}
    assert all(seconds > 0 for step, seconds in found["steps"].items() if step != "other")
    assert found["projected"]["minutes"] == pytest.approx(52_000 / 16 * run["seconds"] / 2 / 60)
    printed = capsys.readouterr().out
    assert "distances" in printed
    assert "52,000 shapes on 16 cores" in printed
    assert not any((tmp_path / "work").iterdir())


def test_wrong_requests(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert shapes.main(["--corpus", f"{tmp_path}", "--work", f"{tmp_path}"]) == cli.EXIT_USAGE
    assert "no */*/models/model_normalized.obj below" in capsys.readouterr().err


def test_what_a_caller_spends_in_a_function() -> None:
    outer, inner, other = ("f.py", 1, "outer"), ("f.py", 2, "inner"), ("f.py", 3, "other")
    calls = {
        outer: (1, 1, 2.0, 7.0, {}),
        inner: (2, 2, 5.0, 6.0, {outer: (1, 1, 4.0, 5.0), other: (1, 1, 1.0, 1.0)}),
    }
    assert shapes.spent(calls, "inner") == 6
    assert shapes.spent(calls, ("inner", "outer")) == 5
    assert shapes.spent(calls, ("outer", "outer")) == 2
