"""Ridge regression from a stream of batches, where they lie: memory does not grow with the number of rows."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.float64]

BLOCK = 4096  # rows whose float64 copy is made at a time


class RidgeSums:
    """Normal equations of a ridge regression with a bias column, summed in float64, O(D^2) memory."""

    def __init__(self, width: int, device: torch.device | str = "cpu") -> None:
        """``width`` is D, the number of features without the bias; sums are made on ``device``."""
        self.width = width
        self.rows = 0
        self._gram = torch.zeros(width + 1, width + 1, dtype=torch.float64, device=device)
        self._moment = torch.zeros(width + 1, dtype=torch.float64, device=device)

    def add(self, features: Tensor, targets: Tensor) -> None:
        """Add rows: ``features`` (n, D), ``targets`` (n,); both finite, else ``ValueError``."""
        if features.ndim != 2 or features.shape[1] != self.width or targets.shape != features.shape[:1]:
            raise ValueError(
                f"features must have shape (n, {self.width}) and targets (n,), "
                f"got {tuple(features.shape)} and {tuple(targets.shape)}"
            )
        if not (torch.isfinite(features).all() and torch.isfinite(targets).all()):
            raise ValueError("features and targets of the ridge head must be finite")
        for some, wanted in zip(features.split(BLOCK), targets.split(BLOCK), strict=True):
            design = torch.nn.functional.pad(some.to(self._gram), (0, 1), value=1.0)
            self._gram += design.T @ design
            self._moment += design.T @ wanted.to(self._moment)
        self.rows += len(features)

    def solve(self, penalty: float) -> Array:
        """Weights (D + 1,), bias last: least squared error + ``penalty`` * |weights|^2, bias included."""
        if self.rows == 0:
            raise ValueError("the ridge head has no training rows")
        if not penalty > 0:
            raise ValueError(f"penalty must be positive, got {penalty}")
        weights: Array = np.linalg.solve(
            self._gram.cpu().numpy() + penalty * np.eye(self.width + 1), self._moment.cpu().numpy()
        )
        return weights


def predict(weights: Array, features: Tensor) -> Array:
    """Predictions (...) of ``weights`` (D + 1,) at ``features`` (..., D), in float64."""
    factors = torch.from_numpy(weights).to(features.device)
    found: Array = (features.double() @ factors[:-1] + factors[-1]).cpu().numpy()
    return found
