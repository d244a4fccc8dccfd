"""Violations of the Lipschitz bound: by hand, by the plain twin, and zero for two looks at one shape."""

from __future__ import annotations

import numpy as np
import pytest

from nepa3d.probes.lipschitz import least_violations, violation, violations
from nepa3d.shapes.rotation import turn


def test_by_hand() -> None:
    """Points 1 apart whose distances differ by 3 contradict each other by 2; equal ones do not."""
    points, others = np.array([[0.0, 0, 0], [1, 0, 0]]), np.array([[0.0, 0, 0]])
    assert violation(points, np.array([0.0, 3.0]), others, np.array([0.0])) == pytest.approx((0 + 2) / 2)


def look(shape: float, seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    points = np.random.default_rng(seed).uniform(-1, 1, (count, 3)).astype(np.float32)
    return points, np.abs(np.linalg.norm(points, axis=1) - shape).astype(np.float32)


def test_all_pairs_are_as_one_by_one_and_find_the_shape() -> None:
    shapes = [0.1, 0.3, 0.5, 0.7, 0.9]
    queries = [look(shape, number, 33) for number, shape in enumerate(shapes)]
    gallery = [look(shape, 100 + number, 20 + number % 2) for number, shape in enumerate(shapes)]
    found = violations(queries, gallery)
    one_by_one = [[violation(*query, *item) for item in gallery] for query in queries]
    np.testing.assert_allclose(found, one_by_one, atol=1e-7)
    assert found.argmin(1).tolist() == [0, 1, 2, 3, 4]
    assert np.diag(found).max() < 1e-6


def test_the_best_heading_undoes_a_turn_of_its_step() -> None:
    """Shapes off the axis, turned by a third: their answers contradict, but not at three headings."""

    def off_axis(place: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
        points = np.random.default_rng(seed).uniform(-1, 1, (40, 3)).astype(np.float32)
        return points, np.linalg.norm(points - np.float32([0.6, place, 0.3]), axis=1).astype(np.float32)

    queries = [(turn(points, 2 * np.pi / 3), distances) for points, distances in (off_axis(0, 1), off_axis(0.8, 2))]
    gallery = [off_axis(0, 3), off_axis(0.8, 4)]
    assert np.diag(violations(queries, gallery)).min() > 0.01
    found = least_violations(queries, gallery, 3)
    assert np.diag(found).max() < 1e-6 < found[0, 1]
    np.testing.assert_array_equal(least_violations(queries, gallery, 1), violations(queries, gallery))
    assert (found <= violations(queries, gallery)).all()
    with pytest.raises(ValueError, match="headings must be at least 1, got 0"):
        least_violations(queries, gallery, 0)
