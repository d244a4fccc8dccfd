"""Completion without a model of shapes: gradient boosting of what the context says near a question.

It is told of a question what a model with ``pulled_points`` is told, and nothing else: the clipped spline, the bounds
of any distance, the nearest context points and estimated surface points. It is fitted on the shapes of the ridge head.
Letters: B sequences, Q queries.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nepa3d.models.interpolation import clipped, fit_spline, nearby
from nepa3d.probes.point_answers import point_answers
from nepa3d.samples.completion_loader import CompletionBatch
from nepa3d.samples.schema import XYZ

ROUNDS, RATE, LEAVES, LEAF = (
    200,
    0.1,
    31,
    100,
)  # trees, their learning rate, leaves of each and the fewest samples of one
MOST_SHAPES = 1000  # that it is fitted on; of more, every second, third ...


@dataclass(frozen=True)
class LocalRegression:
    """A fitted regression of the difference from the spline."""

    regressor: Any

    def distances(self, batch: CompletionBatch, representation: str = "") -> NDArray[np.float64]:
        """Distances (B, Q) that it predicts at the queries of a batch; there are no states to be read off."""
        features = local_features(batch)
        found = self.regressor.predict(features.reshape(-1, features.shape[-1]))
        predicted: NDArray[np.float64] = features[..., 0] + found.reshape(features.shape[:2])
        return predicted


def require_sklearn() -> None:
    """``ValueError`` that says what to install, if scikit-learn is not there."""
    if not find_spec("sklearn"):
        raise ValueError("local_regression: scikit-learn is not installed: pip install 'nepa3d[probes]'")


def local_features(batch: CompletionBatch) -> NDArray[np.float64]:
    """What is known near the queries of a batch (B, Q, 16): the spline and the bounds (3), what is nearby (10, see
    ``nepa3d.models.interpolation.nearby``), the coordinates (3)."""
    end = batch.query_tokens[0]
    points, distances = point_answers(batch.features[:, :end], batch.types[:, :end])
    x, d, q = (torch.from_numpy(np.asarray(a, np.float64)) for a in (points, distances, _queries(batch)))
    spline = fit_spline(x, d)
    known = torch.stack(clipped(spline, d, q), -1)
    return torch.cat([known, nearby(spline, d, q).double(), q], -1).numpy()


def fit_local_regression(batches: Iterable[CompletionBatch], seed: int) -> LocalRegression:
    """The regression of the distances of all queries of ``batches`` by the mean absolute error
    (``sklearn.ensemble.HistGradientBoostingRegressor``), in one thread: its sums depend on their number.

    ``ValueError`` where there are no batches.
    """
    from sklearn.ensemble import HistGradientBoostingRegressor
    from threadpoolctl import threadpool_limits

    told, differences = [], []
    for batch in batches:
        features = local_features(batch)
        told.append(features.reshape(-1, features.shape[-1]))
        differences.append((batch.target - features[..., 0]).ravel())
    if not told:
        raise ValueError("local_regression: no shape to fit it on could be read")
    regressor = HistGradientBoostingRegressor(
        loss="absolute_error",
        max_iter=ROUNDS,
        learning_rate=RATE,
        max_leaf_nodes=LEAVES,
        min_samples_leaf=LEAF,
        early_stopping=False,
        random_state=seed,
    )
    with threadpool_limits(1, "openmp"):
        return LocalRegression(regressor.fit(np.concatenate(told), np.concatenate(differences)))


def _queries(batch: CompletionBatch) -> NDArray[np.float32]:
    return batch.features[:, batch.query_tokens, XYZ]
