"""Lists of shapes, and samples as functions of their arguments."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nepa3d.samples.dataset import Sample, SampleSettings, evaluation_sample, training_sample
from nepa3d.samples.schema import TokenType
from nepa3d.shapes.cache import CacheError

SHAPE = "cache/test/kitchen/Blend_Swap_CC_0_bread.npz"
SETTINGS = SampleSettings(n_point=8, n_ray=4, qa=False, eos=True)


def same(a: Sample, b: Sample) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def rays_missing(sample: Sample) -> bool:
    return TokenType.MISSING_RAY in sample[1]


def test_training_sample_is_a_function_of_its_arguments(golden: Path) -> None:
    first = training_sample(SHAPE, "mesh", SETTINGS, 1, 2, 3)
    np.random.seed(99)
    assert same(first, training_sample(SHAPE, "mesh", SETTINGS, 1, 2, 3))
    assert same(first, training_sample(str(Path(SHAPE).resolve()), "mesh", SETTINGS, 1, 2, 3))
    for other in ((0, 2, 3), (1, 0, 3), (1, 2, 0), (1, 3, 2)):
        assert not same(first, training_sample(SHAPE, "mesh", SETTINGS, *other))
    assert first[0].shape == (SETTINGS.length, 15)


def test_views_of_one_training_sample_ask_the_same_queries(golden: Path) -> None:
    mesh, cloud = (training_sample(SHAPE, view, SETTINGS, 0, 0, 0) for view in ("mesh", "pointcloud"))
    np.testing.assert_array_equal(mesh[0][1:9, :3], cloud[0][1:9, :3])
    np.testing.assert_array_equal(mesh[0][9:13, 3:9], cloud[0][9:13, 3:9])
    assert (mesh[0][1:9, 10] != cloud[0][1:9, 10]).any()


def test_rays_are_dropped_for_whole_samples_at_the_rate_asked(golden: Path) -> None:
    settings = replace(SETTINGS, drop_ray_prob=0.3)
    samples = [training_sample(SHAPE, "mesh", settings, 0, 0, index) for index in range(200)]
    kinds = [set(types[9:13].tolist()) for _, types in samples]
    assert all(kind in ({TokenType.RAY}, {TokenType.MISSING_RAY}) for kind in kinds)
    assert 40 <= kinds.count({TokenType.MISSING_RAY}) <= 80
    kept = next(i for i, sample in enumerate(samples) if not rays_missing(sample))
    assert same(samples[kept], training_sample(SHAPE, "mesh", SETTINGS, 0, 0, kept))


def test_evaluation_keeps_its_rays_unless_they_are_forced_out(golden: Path) -> None:
    dropping = replace(SETTINGS, drop_ray_prob=1.0)
    assert not rays_missing(evaluation_sample(SHAPE, "mesh", dropping, 0))
    assert rays_missing(training_sample(SHAPE, "mesh", dropping, 0, 0, 0))
    forced = replace(SETTINGS, force_missing_ray=True)
    assert rays_missing(evaluation_sample(SHAPE, "mesh", forced, 0))
    assert rays_missing(training_sample(SHAPE, "mesh", forced, 0, 0, 0))


def test_a_view_without_rays_draws_the_points_of_one_with(golden: Path) -> None:
    mesh, field = (evaluation_sample(SHAPE, view, SETTINGS, 3, 1) for view in ("mesh", "udfgrid"))
    np.testing.assert_array_equal(mesh[0][1:9, :3], field[0][1:9, :3])
    assert rays_missing(field)
    assert len(field[1]) == len(mesh[1])


def test_pool_smaller_than_the_sample_repeats_queries(golden: Path) -> None:
    features, _ = evaluation_sample(SHAPE, "mesh", replace(SETTINGS, n_point=900), 0)
    assert len(np.unique(features[1:901, :3], axis=0)) < 600


def test_unusable_pools_name_the_file_and_the_fault(tmp_path: Path, golden: Path) -> None:
    with np.load(SHAPE) as file:
        arrays = dict(file)
    path = str(tmp_path / "x.npz")
    rays = {key: array[:0] for key, array in arrays.items() if key.startswith("ray_")}
    np.savez(path, **{**arrays, **rays})
    with pytest.raises(CacheError, match=r"x\.npz: n_ray is 4, but the pool is empty"):
        evaluation_sample(path, "mesh", SETTINGS, 0)
    assert evaluation_sample(path, "mesh", replace(SETTINGS, n_ray=0), 0)[0].shape == (10, 15)
    np.savez(path, **{**arrays, "pt_dist_pool": np.full_like(arrays["pt_dist_pool"], np.nan)})
    with pytest.raises(CacheError, match=r"x\.npz: .*not finite"):
        training_sample(path, "mesh", SETTINGS, 0, 0, 0)


@pytest.mark.parametrize("change", [{"n_point": -1}, {"n_ray": -1}, {"drop_ray_prob": 1.5}, {"uniform_prob": -0.5}])
def test_settings_out_of_range_are_named(change: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(change))):
        replace(SETTINGS, **change)
