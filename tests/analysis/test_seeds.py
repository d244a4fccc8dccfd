"""A shape that cannot be read under one evaluation seed is left out under all, and the rest keep their places."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nepa3d.analysis import completion_cpac_udf as cpac
from nepa3d.analysis import retrieval_ucpr as ucpr
from nepa3d.cli.flags import build
from nepa3d.models.embedding import shapes_of
from nepa3d.probes.completion import TEST_SEED_OFFSET
from nepa3d.samples.completion import SequenceSettings
from nepa3d.samples.completion_loader import completion_batch
from nepa3d.samples.dataset import SampleSettings
from nepa3d.samples.loader import Request, evaluation_samples


@pytest.fixture
def unpaired(golden: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A copy of the unpaired view as working directory; the shapes of its split eval."""
    shutil.copytree(golden / "unpaired", tmp_path / "unpaired")
    for ckpt in golden.glob("*.pt"):
        shutil.copy(ckpt, tmp_path)
    monkeypatch.chdir(tmp_path)
    return shapes_of("unpaired", "eval")


def damage(path: str, key: str, fails: Callable[[int], bool]) -> None:
    """Put a NaN where seed 0 draws it and seed 1 does not."""
    with np.load(path) as file:
        arrays = dict(file)
    for row in range(len(arrays[key])):
        damaged = arrays[key].copy()
        damaged[row] = np.nan
        np.savez(path, **{**arrays, key: damaged})
        if fails(0) and not fails(1):
            return
    raise AssertionError("every row is drawn by both seeds or by none")


def test_completion(unpaired: list[str]) -> None:
    sizes = {"n_context": 16, "n_query": 16, "n_seeds": 2}
    config = build(cpac.Config, {"cache_root": "unpaired", "ckpt": "nepa_v1.pt", **sizes})
    settings = SequenceSettings("pointcloud_noray", 16, 16, qa=False, eos=True)
    whole = cpac.complete(config).items
    damage(
        unpaired[2],
        "pt_dist_udf_pool",
        lambda seed: bool(completion_batch([unpaired[2]], settings, seed + TEST_SEED_OFFSET)[1]),
    )
    result = cpac.complete(config).to_json()
    others = [path for path in unpaired if path != unpaired[2]]
    assert [failure["path"] for failure in result["failed"]] == [unpaired[2]]
    assert result["items"]["path"] == others
    assert result["n_shapes_head_test"] == len(result["items"]["mae"]) == len(others)
    expected = dict(zip(whole["path"], whole["mae"], strict=True))
    assert result["items"]["mae"] == pytest.approx([expected[path] for path in others], rel=1e-6)


def test_retrieval(unpaired: list[str]) -> None:
    views = {"query_backend": "udfgrid", "gallery_backend": "mesh", "eval_seed_gallery": 50, "n_seeds": 2}
    config = build(ucpr.Config, {"cache_root": "unpaired", "ckpt": "nepa_v1.pt", **views})
    settings = SampleSettings(32, 16, qa=False, eos=True)
    damage(
        unpaired[2],
        "pt_dist_udf_pool",
        lambda seed: bool(evaluation_samples([Request(unpaired[2], "udfgrid", settings)], seed)[2]),
    )
    result = ucpr.retrieve(config).to_json()
    assert [failure["path"] for failure in result["failed"]] == [unpaired[2]]
    assert result["items"]["path"] == [path for path in unpaired if path != unpaired[2]]
    assert len(result["items"]["mAP"]) == len(unpaired) - 1
