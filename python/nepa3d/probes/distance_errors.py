"""Errors of predicted distances, summed shape by shape, and the figures of completion made of these sums."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class DistanceErrors:
    """Errors of predicted distances, world units: five sums a shape."""

    SUMS = ("count", "absolute", "squared", "intersection", "union")

    def __init__(self, tau: float) -> None:
        """``tau``: a point counts as surface when its distance is at most this."""
        self.tau = tau
        self._rows: list[tuple[float, ...]] = []

    def add(self, predicted: NDArray[np.floating], true: NDArray[np.floating]) -> None:
        """Add the pairs (n,), (n,) of one shape."""
        error = np.asarray(predicted, np.float64) - np.asarray(true, np.float64)
        near, truly = predicted <= self.tau, true <= self.tau
        sums = (error.size, np.abs(error).sum(), (error**2).sum(), (near & truly).sum(), (near | truly).sum())
        self._rows.append(tuple(float(value) for value in sums))

    def sums(self) -> Array:
        """(shapes, 5), columns as ``SUMS``."""
        return np.array(self._rows, np.float64).reshape(-1, len(self.SUMS))


def error_metrics(sums: Array) -> dict[str, float | None]:
    """``mae``, ``rmse``, ``iou@tau`` (IoU of the sets {distance <= tau}; None when both are empty) of (shapes, 5)."""
    if len(sums) == 0 or not sums[:, 0].any():
        raise ValueError("no predicted distance to score")
    mean = sums.mean(0)[None]
    return {
        name: None if np.isnan(value := float(figure(mean)[0])) else value for name, figure in ERROR_FIGURES.items()
    }


def _ratio(top: Array, bottom: Array) -> Array:
    return np.divide(top, bottom, out=np.full_like(top, np.nan), where=bottom > 0)


# of mean sums (m, 5), (m,) each
ERROR_FIGURES: dict[str, Callable[[Array], Array]] = {
    "mae": lambda sums: _ratio(sums[:, 1], sums[:, 0]),
    "rmse": lambda sums: np.sqrt(_ratio(sums[:, 2], sums[:, 0])),
    "iou@tau": lambda sums: _ratio(sums[:, 3], sums[:, 4]),
}
