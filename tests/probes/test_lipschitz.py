"""Violations of the Lipschitz bound: by hand, by the plain twin, and zero for two looks at one shape."""

from __future__ import annotations

import numpy as np
import pytest

from nepa3d.probes.lipschitz import violation, violations


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
