"""Where a model looks when it is asked for a distance.

Letters: C context points, L layers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from nepa3d.models.attention_maps import attention_maps
from nepa3d.models.distances import PredictedField
from nepa3d.samples.completion import assemble
from nepa3d.samples.schema import XYZ, TokenType
from nepa3d.shapes.answers import without_rays

Float = NDArray[np.float32]


@dataclass(frozen=True)
class Attention:
    """Where a question looks, in each of L layers, mean over the heads."""

    points: Float
    """(C, 3) of the context, in the order of the sequence."""
    weights: Float
    """(L, C), of each layer over the points."""
    elsewhere: Float
    """(L,) what goes to the question itself and to the token before all others."""

    def mean(self) -> Float:
        """The mean (C,) over the layers."""
        return self.weights.mean(0)


def attention(field: PredictedField, point: Float) -> Attention:
    """What a question at ``point`` (3,) of [-1, 1]^3 attends to."""
    model = field.probe.model
    place = np.ascontiguousarray(point, np.float32).reshape(1, 3)
    asked = without_rays(place, np.zeros(1, np.float32))
    sample = assemble(field.answers, field.rows, asked, np.zeros(1, np.int64), replace(field.settings, eos=False))
    features, types = sample.features, sample.types.copy()
    question = int(sample.query_tokens[0])
    if model.asks_blind:  # as nepa3d.models.embedding.question_states asks
        features, types = features[: question + 1], types[: question + 1]
        types[question] = TokenType.Q_POINT
    weights = np.stack([found.weights[question] for found in attention_maps(model, features, types)])
    of_points, points = weights[:, 1:question], features[1:question, XYZ]
    if field.settings.qa:  # a question and its answer stand side by side
        of_points, points = of_points.reshape(len(of_points), -1, 2).sum(2), points[::2]
    return Attention(points, of_points, 1 - of_points.sum(1))
