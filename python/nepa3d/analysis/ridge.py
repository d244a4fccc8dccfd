"""Ridge regression from a stream of batches: memory does not grow with the number of rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class RidgeSums:
    """Normal equations of a ridge regression with a bias column, summed in float64, O(D^2) memory."""

    def __init__(self, width: int) -> None:
        """``width`` is D, the number of features without the bias."""
        self.width = width
        self.rows = 0
        self._gram = np.zeros((width + 1, width + 1))
        self._moment = np.zeros(width + 1)

    def add(self, features: NDArray[np.floating], targets: NDArray[np.floating]) -> None:
        """Add rows: ``features`` (n, D), ``targets`` (n,); both finite, else ``ValueError``."""
        if features.ndim != 2 or features.shape[1] != self.width or targets.shape != features.shape[:1]:
            raise ValueError(
                f"features must have shape (n, {self.width}) and targets (n,), got {features.shape} and {targets.shape}"
            )
        if not (np.isfinite(features).all() and np.isfinite(targets).all()):
            raise ValueError("features and targets of the ridge head must be finite")
        design = _with_bias(features)
        self._gram += design.T @ design
        self._moment += design.T @ np.asarray(targets, np.float64)
        self.rows += len(design)

    def solve(self, penalty: float) -> Array:
        """Weights (D + 1,), bias last: least squared error + ``penalty`` * |weights|^2, bias included."""
        if self.rows == 0:
            raise ValueError("the ridge head has no training rows")
        if not penalty > 0:
            raise ValueError(f"penalty must be positive, got {penalty}")
        weights = np.linalg.solve(self._gram + penalty * np.eye(self.width + 1), self._moment)
        return weights.astype(np.float64)


def predict(weights: Array, features: NDArray[np.floating]) -> Array:
    """Predictions (n,) of ``weights`` (D + 1,) at ``features`` (n, D)."""
    return _with_bias(features) @ weights


@dataclass
class DistanceErrors:
    """Running errors of predicted distances; world units."""

    tau: float
    count: int = 0
    absolute: float = 0.0
    squared: float = 0.0
    intersection: int = 0
    union: int = 0

    def add(self, predicted: NDArray[np.floating], true: NDArray[np.floating]) -> None:
        """Add pairs (n,), (n,)."""
        error = np.asarray(predicted, np.float64) - np.asarray(true, np.float64)
        self.count += error.size
        self.absolute += float(np.abs(error).sum())
        self.squared += float((error**2).sum())
        inside_predicted, inside_true = predicted <= self.tau, true <= self.tau
        self.intersection += int((inside_predicted & inside_true).sum())
        self.union += int((inside_predicted | inside_true).sum())

    def metrics(self) -> dict[str, float | None]:
        """``mae``, ``rmse``, ``iou@tau`` (IoU of the sets {distance <= tau}; None when both are empty)."""
        if self.count == 0:
            raise ValueError("no predicted distance to score")
        return {
            "mae": self.absolute / self.count,
            "rmse": float(np.sqrt(self.squared / self.count)),
            "iou@tau": self.intersection / self.union if self.union else None,
        }


def _with_bias(features: NDArray[np.floating]) -> Array:
    bias = np.ones((len(features), 1))
    return np.hstack([features.astype(np.float64), bias])
