"""The table of views: a row is all that a new view of stored answers needs, in both languages."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from nepa3d import _core
from nepa3d.samples.completion import SequenceSettings, completion_sample
from nepa3d.samples.completion_loader import completion_batch
from nepa3d.samples.dataset import SampleSettings, evaluation_sample, training_sample
from nepa3d.samples.loader import Request, evaluation_batch, training_batch
from nepa3d.shapes.cache import CacheError
from nepa3d.shapes.view_table import StoredDistances
from nepa3d.shapes.views import VIEWS, ViewRow, read_answers, view_row

SHAPE = "cache/test/kitchen/Blend_Swap_CC_0_bread.npz"
SETTINGS = SampleSettings(n_point=24, n_ray=10, qa=True, eos=True)

NOISY = StoredDistances("pt_dist_noisy_pool")
TOYS = {
    "stored": ViewRow("stored", distances=(NOISY,), rays=("noisy_pool",)),
    "second choice": ViewRow("second choice", (StoredDistances("pt_dist_no_pool"), NOISY), rays=("no", "noisy_pool")),
    "no rays": ViewRow("no rays", distances=(NOISY,)),
    "recomputed": ViewRow("recomputed", (replace(NOISY, recompute_invalid=True),), rays=("noisy_pool",)),
    "computed": ViewRow("computed", (StoredDistances("pt_dist_no_pool"),), cloud_distances=True, rays=("noisy_pool",)),
}


@pytest.fixture
def noisy(golden: Path, tmp_path: Path) -> tuple[str, dict[str, NDArray]]:
    """A shape whose cache also holds answers that no present view gives, in other dtypes; and its arrays."""
    with np.load(SHAPE) as file:
        arrays = dict(file)
    rng = np.random.default_rng(0)
    rays = len(arrays["ray_t_pool"])
    arrays["pt_dist_noisy_pool"] = rng.random(len(arrays["pt_xyz_pool"]))
    arrays["ray_hit_noisy_pool"] = rng.integers(0, 2, rays)
    arrays["ray_t_noisy_pool"] = rng.random(rays).astype(np.float16)
    arrays["ray_n_noisy_pool"] = rng.normal(size=(rays, 3)).astype(np.float32)
    path = tmp_path / "noisy.npz"
    np.savez(path, **arrays)
    return str(path), arrays


def add(row: ViewRow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(VIEWS, row.name, row)


def require_same_samples(path: str, backend: str) -> None:
    for qa in (False, True):
        settings = replace(SETTINGS, qa=qa)
        asked = [Request(path, backend, settings)]
        for batch, sample in (
            (training_batch(asked, 3, 2, [1]), training_sample(path, backend, settings, 3, 2, 1)),
            (evaluation_batch(asked, 5, 2), evaluation_sample(path, backend, settings, 5, 2)),
        ):
            for found, wanted in zip(batch, sample, strict=True):
                np.testing.assert_array_equal(found[0], wanted)


@pytest.mark.parametrize("row", TOYS.values(), ids=list(TOYS))
def test_a_row_is_a_view_in_both_languages(
    noisy: tuple[str, dict[str, NDArray]], monkeypatch: pytest.MonkeyPatch, row: ViewRow
) -> None:
    path, arrays = noisy
    add(row, monkeypatch)
    require_same_samples(path, row.name)
    answers = read_answers(path, row.name)
    if not row.cloud_distances:
        np.testing.assert_array_equal(answers.point_distance, arrays["pt_dist_noisy_pool"].astype(np.float32))
    assert answers.rays_available == bool(row.rays)
    if row.rays:
        np.testing.assert_array_equal(answers.ray_hit, arrays["ray_hit_noisy_pool"])
        np.testing.assert_array_equal(answers.ray_normal, arrays["ray_n_noisy_pool"])


@pytest.mark.parametrize("context", ["own", "absent"])
def test_a_row_is_a_view_for_completion(
    noisy: tuple[str, dict[str, NDArray]], monkeypatch: pytest.MonkeyPatch, context: Any
) -> None:
    path, _ = noisy
    add(TOYS["stored"], monkeypatch)
    settings = SequenceSettings("stored", 16, 16, qa=True, eos=True, context=context)
    wanted = completion_sample(path, settings, 0)
    batch, failed = completion_batch([path], settings, 0)
    assert not failed
    np.testing.assert_array_equal(batch.features[0], wanted.features)
    np.testing.assert_array_equal(batch.target[0], wanted.target)


def test_invalid_distances_are_recomputed_where_the_row_says_so(
    noisy: tuple[str, dict[str, NDArray]], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, arrays = noisy
    arrays["pt_dist_noisy_pool"][7] = -1
    np.savez(path, **arrays)
    add(TOYS["recomputed"], monkeypatch)
    require_same_samples(path, "recomputed")
    np.testing.assert_allclose(
        read_answers(path, "recomputed").point_distance, arrays["pt_dist_pc_pool"], rtol=0, atol=1e-5
    )
    add(TOYS["stored"], monkeypatch)
    assert read_answers(path, "stored").point_distance[7] == -1


def test_a_changed_row_changes_the_samples(
    noisy: tuple[str, dict[str, NDArray]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing keeps the row that a name had before."""
    path, _ = noisy
    for row in (TOYS["stored"], TOYS["computed"], TOYS["no rays"]):
        add(replace(row, name="toy"), monkeypatch)
        require_same_samples(path, "toy")


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        (ViewRow("toy", (StoredDistances("pt_dist_no_pool"),), rays=("noisy_pool",)), "pt_dist_no_pool is missing"),
        (ViewRow("toy", (NOISY,), rays=("no", "nothing")), "ray_hit_nothing is missing"),
    ],
)
def test_answers_that_are_not_stored_are_missing_and_no_others_are_given(
    noisy: tuple[str, dict[str, NDArray]], monkeypatch: pytest.MonkeyPatch, row: ViewRow, fault: str
) -> None:
    path, _ = noisy
    add(row, monkeypatch)
    for read in (
        lambda: read_answers(path, "toy"),
        lambda: training_batch([Request(path, "toy", SETTINGS)], 0, 0, [0]),
    ):
        with pytest.raises(CacheError, match=fault):
            read()


def test_arrays_of_further_views_are_checked(
    noisy: tuple[str, dict[str, NDArray]], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, arrays = noisy
    np.savez(path, **{**arrays, "pt_dist_noisy_pool": np.zeros(3, np.float32)})
    add(TOYS["stored"], monkeypatch)
    for read in (
        lambda: read_answers(path, "stored"),
        lambda: training_batch([Request(path, "stored", SETTINGS)], 0, 0, [0]),
    ):
        with pytest.raises(CacheError, match=r"noisy_pool has P = 3|has P = 600"):
            read()


@pytest.mark.parametrize(
    ("parts", "fault"),
    [
        ({}, "view toy must have distances"),
        ({"rays": ("pool",)}, "view toy must have distances"),
        ({"voxels": True, "rays": ("pool",)}, "not both"),
        ({"voxels": True, "cloud_distances": True}, "not both"),
        ({"distances": (StoredDistances("pc_xyz"),)}, "begin with pt_dist_"),
        ({"distances": (NOISY,), "rays": ("",)}, "ray suffixes that are not empty"),
        ({"name": "", "distances": (NOISY,)}, "a view must have a name"),
    ],
)
def test_rows_that_do_not_say_what_the_view_gives_are_refused(parts: dict[str, Any], fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        ViewRow(**{"name": "toy", **parts})


def test_the_compiled_loader_takes_rows_and_no_names(golden: Path) -> None:
    with pytest.raises(TypeError):
        _core.SampleSettings(
            "mesh",  # type: ignore[arg-type]
            4,
            4,
            qa=False,
            eos=True,
            drop_ray_prob=0.0,
            force_missing_ray=False,
            voxel=(4, 1, 0),
        )
    with pytest.raises(ValueError, match=r"backend must be one of mesh, .*got 'cloud'"):
        view_row("cloud")
    with pytest.raises(ValueError, match=r"backend must be one of mesh, .*got 'cloud'"):
        training_batch([Request(SHAPE, "cloud", SETTINGS)], 0, 0, [0])
