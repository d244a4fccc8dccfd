"""The spline control: exact where a spline is, within the bounds of a distance everywhere."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nepa3d.probes.spline import lipschitz_bounds, spline_distances

pytest.importorskip("scipy")


def sphere(points: np.ndarray) -> np.ndarray:
    return np.abs(np.linalg.norm(points, axis=1) - 0.5)


def test_an_affine_field_is_found_exactly() -> None:
    """Far from a plane the distance to it is affine, which a thin-plate spline reproduces without error."""
    rng = np.random.default_rng(0)
    context, queries = rng.uniform(-0.5, 0.5, (32, 3)), rng.uniform(-0.5, 0.5, (20, 3))
    normal = np.array([2.0, -1.0, 2.0]) / 3
    found = spline_distances(context, context @ normal + 2, queries)
    np.testing.assert_allclose(found, queries @ normal + 2, atol=1e-9)


def test_two_points_bound_a_third() -> None:
    """Worked by hand: 1 and 3 at x = 0 and 3; at x = 1 at least max(0, 3 - 2) and at most 1 + 1."""
    context, distances = np.array([[0.0, 0, 0], [3, 0, 0]]), np.array([1.0, 3.0])
    low, high = lipschitz_bounds(context, distances, np.array([[1.0, 0, 0], [0, 0, 0], [1.5, 0, 0]]))
    assert low.tolist() == [1.0, 1.0, 1.5]
    assert high.tolist() == [2.0, 1.0, 2.5]


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.integers(4, 40))
def test_the_field_stays_within_the_bounds(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    context, queries = rng.uniform(-1, 1, (count, 3)), rng.uniform(-1, 1, (30, 3))
    low, high = lipschitz_bounds(context, sphere(context), queries)
    found = spline_distances(context, sphere(context), queries)
    assert (low <= found).all() and (found <= high).all()
    assert (low - 1e-12 <= sphere(queries)).all() and (sphere(queries) <= high + 1e-12).all()


def test_it_is_better_than_the_nearest_copy() -> None:
    rng = np.random.default_rng(1)
    context, queries = rng.uniform(-1, 1, (64, 3)), rng.uniform(-1, 1, (256, 3))
    nearest = np.linalg.norm(queries[:, None] - context, axis=2).argmin(1)
    copied = np.abs(sphere(context)[nearest] - sphere(queries)).mean()
    splined = np.abs(spline_distances(context, sphere(context), queries) - sphere(queries)).mean()
    assert splined < 0.6 * copied


def test_repeated_points_are_no_fault_and_too_few_are() -> None:
    rng = np.random.default_rng(2)
    context = rng.uniform(-1, 1, (8, 3))
    twice = np.concatenate([context, context])
    assert np.isfinite(spline_distances(twice, sphere(twice), context)).all()
    with pytest.raises(ValueError, match=r"at least 4, got \(3, 3\)"):
        spline_distances(context[:3], sphere(context[:3]), context)
    flat = context * [1, 1, 0]
    with pytest.raises(ValueError, match="one plane"):
        spline_distances(flat, sphere(flat), context)
