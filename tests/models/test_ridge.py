"""The streamed ridge head and the running distance errors."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nepa3d.models import ridge
from nepa3d.models.ridge import RidgeSums, predict
from nepa3d.probes.distance_errors import DistanceErrors, error_metrics


def test_streamed_batches_give_the_closed_form_with_a_penalised_bias() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(57, 6)).astype(np.float32)
    target = rng.normal(size=57).astype(np.float32) + 3
    sums = RidgeSums(6)
    for begin in range(0, 57, 10):
        sums.add(*(torch.from_numpy(x[begin : begin + 10]) for x in (features, target)))
    design = np.concatenate([features.astype(float), np.ones((57, 1))], 1)
    # the penalty as extra rows of an ordinary least-squares problem
    stacked = np.concatenate([design, np.sqrt(5.0) * np.eye(7)])
    expected = np.linalg.lstsq(stacked, np.concatenate([target, np.zeros(7)]), rcond=None)[0]
    np.testing.assert_allclose(sums.solve(5.0), expected, rtol=1e-8)
    np.testing.assert_allclose(predict(expected, torch.from_numpy(features)), design @ expected)


def test_blocks_of_rows_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    features, target = rng.normal(size=(23, 4)).astype(np.float32), rng.normal(size=23)
    weights = []
    for block in (5, 4096):
        monkeypatch.setattr(ridge, "BLOCK", block)
        sums = RidgeSums(4)
        sums.add(torch.from_numpy(features), torch.from_numpy(target))
        assert sums.rows == 23
        weights.append(sums.solve(0.1))
    np.testing.assert_allclose(*weights, rtol=1e-12)


def test_ridge_refuses_what_it_cannot_fit() -> None:
    sums = RidgeSums(2)
    with pytest.raises(ValueError, match="no training rows"):
        sums.solve(1.0)
    with pytest.raises(ValueError, match=r"shape \(n, 2\).*\(4, 3\)"):
        sums.add(torch.ones(4, 3), torch.ones(4))
    with pytest.raises(ValueError, match="finite"):
        sums.add(torch.full((1, 2), torch.inf), torch.ones(1))
    sums.add(torch.ones(3, 2), torch.ones(3))
    with pytest.raises(ValueError, match="penalty"):
        sums.solve(0.0)


def test_errors_by_hand() -> None:
    errors = DistanceErrors(tau=0.1)
    errors.add(np.array([0.0, 0.2]), np.array([0.05, 0.1]))
    errors.add(np.array([0.3]), np.array([0.5]))
    metrics = error_metrics(errors.sums())
    assert metrics["mae"] == pytest.approx((0.05 + 0.1 + 0.2) / 3)
    assert metrics["rmse"] == pytest.approx(np.sqrt((0.0025 + 0.01 + 0.04) / 3))
    assert metrics["iou@tau"] == pytest.approx(1 / 2)


def test_iou_of_two_empty_sets_is_none_not_a_number() -> None:
    errors = DistanceErrors(tau=0.01)
    errors.add(np.array([0.5]), np.array([0.4]))
    assert error_metrics(errors.sums())["iou@tau"] is None
