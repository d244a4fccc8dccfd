"""The point queries of token sequences: where distances were asked, and the answers.

Letters: N shapes, B samples, T tokens, P points of a sample.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nepa3d.samples.schema import POINT_DISTANCE, XYZ, TokenType

Float = NDArray[np.float32]


@dataclass(frozen=True)
class PointAnswers:
    """Positions (N, P, 3) at which N shapes were asked, and their distances (N, P)."""

    points: Float
    distances: Float

    def rows(self, rows: NDArray[np.int64] | list[int]) -> PointAnswers:
        """Those of some of the shapes."""
        return PointAnswers(self.points[rows], self.distances[rows])


def point_answers(features: Float, types: NDArray[np.int64]) -> tuple[Float, Float]:
    """Positions (B, P, 3) and answered distances (B, P) of the point queries of samples (B, T, 15) with types (B, T),
    which must have as many each."""
    asked = np.isin(types, (TokenType.POINT, TokenType.Q_POINT))
    answered = np.isin(types, (TokenType.POINT, TokenType.A_POINT))
    samples = len(types)
    count = int(asked.sum()) // max(1, samples)
    points = features[asked][:, XYZ].reshape(samples, count, 3)
    return points, features[answered][:, POINT_DISTANCE].reshape(samples, count)
