"""Answers into tokens: the two forms, missing rays, the draws, and parity with the recorded sequences."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from nepa3d.samples import schema
from nepa3d.samples.dataset import SampleSettings, evaluation_sample
from nepa3d.samples.schema import TokenType as Type
from nepa3d.samples.tokenizer import draw_rows, evaluation_rng, tokenize
from nepa3d.shapes.views import ShapeAnswers, VoxelSettings

VARIANTS = [
    *(("mesh", qa, eos) for qa in (0, 1) for eos in (0, 1)),
    *(
        (b, qa, 1)
        for b in ("pointcloud", "pointcloud_meshray", "pointcloud_noray", "voxel", "udfgrid")
        for qa in (0, 1)
    ),
]


def answers(*, rays: bool = True) -> ShapeAnswers:
    """Two points and two rays by hand; the second ray misses, but carries a stray t and normal."""
    return ShapeAnswers(
        point_xyz=np.array([[0.5, 0.5, 0.5], [-0.5, -0.5, -0.5]], np.float32),
        point_distance=np.array([0.1, 0.2], np.float32),
        ray_origin=np.array([[0, 0, -2], [0, 0, 2]], np.float32),
        ray_direction=np.array([[0, 0, 1], [0.6, 0.8, 0]], np.float32),
        ray_hit=np.array([1, 0], np.float32),
        ray_t=np.array([1.5, 0], np.float32),
        ray_normal=np.array([[0, 0, -1], [1, 0, 0]], np.float32),
        rays_available=rays,
    )


BOTH = np.array([0, 1])


def test_plain_form_holds_question_and_answer_in_one_token() -> None:
    features, types = tokenize(answers(), BOTH, BOTH, qa=False, eos=True)
    assert types.tolist() == [Type.BOS, Type.POINT, Type.POINT, Type.RAY, Type.RAY, Type.EOS]
    assert features.dtype == np.float32
    assert types.dtype == np.int64
    low = [-0.5, -0.5, -0.5, 0, 0, 0, 0, 0, 0, 0, 0.2, 0, 0, 0, 0]
    hit = [0, 0, -0.5, 0, 0, -2, 0, 0, 1, 1.5, 0, 1, 0, 0, -1]
    miss = [0, 0, 0, 0, 0, 2, 0.6, 0.8, 0, 0, 0, 0, 0, 0, 0]
    np.testing.assert_array_equal(features[[1, 3, 4]], np.array([low, hit, miss], np.float32))
    assert not features[[0, 5]].any()


def test_question_and_answer_form_splits_each_query() -> None:
    features, types = tokenize(answers(), BOTH, BOTH, qa=True, eos=False)
    assert types.tolist() == [Type.BOS, *[Type.Q_POINT, Type.A_POINT] * 2, *[Type.Q_RAY, Type.A_RAY] * 2]
    plain, _ = tokenize(answers(), BOTH, BOTH, qa=False, eos=False)
    np.testing.assert_array_equal(features[1::2] + features[2::2], plain[1:])
    questions, replies = features[1::2], features[2::2]
    assert not questions[:, [schema.POINT_DISTANCE, schema.RAY_T, schema.RAY_HIT]].any()
    assert not questions[2:, schema.XYZ].any()
    assert not replies[:2, schema.XYZ].any()
    assert not replies[:, schema.RAY_DIRECTION].any()


@pytest.mark.parametrize("qa", [False, True])
def test_missing_rays_keep_their_places_blank(qa: bool) -> None:
    forced = tokenize(answers(), BOTH, BOTH, qa=qa, eos=True, rays_missing=True)
    lacking = tokenize(answers(rays=False), BOTH, BOTH, qa=qa, eos=True)
    for features, types in (forced, lacking):
        rays = slice(-5, -1) if qa else slice(-3, -1)
        assert set(types[rays].tolist()) == {Type.MISSING_RAY}
        assert not features[rays].any()
        assert len(types) == schema.sequence_length(2, 2, qa=qa, eos=True)


def test_draws_repeat_rows_only_if_the_pool_is_smaller() -> None:
    rng = np.random.RandomState(0)
    assert sorted(draw_rows(6, 6, rng).tolist()) == list(range(6))
    assert set(draw_rows(2, 40, rng).tolist()) == {0, 1}
    assert draw_rows(0, 0, rng).dtype == np.int64
    with pytest.raises(ValueError, match="empty pool"):
        draw_rows(0, 1, rng)


def test_evaluation_seed_is_a_function_of_path_seed_and_resample() -> None:
    path = "cache/test/a/b.npz"
    seed = (int(hashlib.md5(path.encode()).hexdigest()[:8], 16) + 5 + 2 * 1000003) % 2**32
    expected = np.random.RandomState(seed).choice(600, 32, replace=False)
    np.testing.assert_array_equal(draw_rows(600, 32, evaluation_rng(path, 5, 2)), expected)
    assert (draw_rows(600, 32, evaluation_rng(f"./{path}", 5, 2)) != expected).any()


@pytest.mark.parametrize(("backend", "qa", "eos"), VARIANTS)
def test_sequences_equal_the_recorded_ones(golden: Path, backend: str, qa: int, eos: int) -> None:
    recorded = json.loads(Path("tokens.json").read_text())
    settings = SampleSettings(
        recorded["n_point"], recorded["n_ray"], bool(qa), bool(eos), voxel=VoxelSettings(recorded["voxel_grid"])
    )
    with np.load("tokens.npz") as file:
        expected = file[f"{backend}_qa{qa}_eos{eos}_feat"], file[f"{backend}_qa{qa}_eos{eos}_type"]
    for shape, path in enumerate(recorded["paths"]):
        for resample in range(recorded["mc_eval_k"]):
            features, types = evaluation_sample(path, backend, settings, recorded["eval_seed"], resample)
            np.testing.assert_array_equal(types, expected[1][shape, resample])
            _assert_same_features(backend, features, expected[0][shape, resample])


def _assert_same_features(backend: str, features: NDArray[np.float32], recorded: NDArray[np.float32]) -> None:
    """Bit for bit; but where a voxel was entered, the recorder rounded a little differently."""
    if backend != "voxel":
        np.testing.assert_array_equal(features, recorded)
        return
    walked = np.zeros(features.shape, bool)
    walked[features[:, schema.RAY_HIT] > 0, schema.XYZ] = True
    walked[:, schema.RAY_T] = True
    np.testing.assert_array_equal(np.where(walked, 0, features), np.where(walked, 0, recorded))
    np.testing.assert_allclose(features, recorded, rtol=0, atol=5e-7)
