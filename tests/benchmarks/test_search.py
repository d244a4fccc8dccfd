"""The search benchmark on a small table."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("lancedb", reason="needs nepa3d[search]")

from benchmarks import search
from nepa3d import cli


def test_searches_of_small_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(search, "GROUPS", 10)
    flags = ["--sizes", "1000", "--width", "8", "--queries", "3", "--probes", "1", "1000"]
    flags += ["--work", f"{tmp_path / 'work'}", "--results", f"{tmp_path}"]
    assert search.main(flags) == cli.EXIT_OK
    (path,) = tmp_path.glob("search-*.json")
    lines = json.loads(path.read_text(encoding="utf-8"))["lines"]
    ways = ["NumPy, in memory", "exact", "approximate, 1 cells", "approximate, 1000 cells"]
    assert [(line["vectors"], line["way"]) for line in lines] == [(kind, way) for kind in search.KINDS for way in ways]
    assert all(line["recall"] == 1 for line in lines if line["way"] != ways[2])  # every cell is looked into
    assert all(0 <= line["recall"] <= 1 for line in lines)
    assert "recall@10" in capsys.readouterr().out
    assert not any((tmp_path / "work").iterdir())


def test_vectors_are_units_and_those_of_a_group_are_near() -> None:
    rng = np.random.default_rng(0)
    random, grouped = search.random_vectors(500, 64, rng), search.grouped_vectors(5000, 64, rng)
    for vectors in (random, grouped):
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    near = [float((vectors @ vectors[0])[search.exact(vectors, vectors[0])[1]]) for vectors in (random, grouped)]
    assert near[0] < 0.6 < near[1]


def test_the_exact_rows_are_the_largest_cosines() -> None:
    vectors = np.eye(20, dtype=np.float32)
    query = np.arange(20, dtype=np.float32)
    assert search.exact(vectors, query) == list(range(19, 9, -1))


def test_wrong_requests_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        search.main(["--sizes", "10"])
    assert "sizes must be at least 1000" in " ".join(capsys.readouterr().err.split())
