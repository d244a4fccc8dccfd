"""Distances that a model predicts at any points, from a context of points whose distances are told.

Letters: M points, C context points.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nepa3d.models.embedding import Probe, question_states
from nepa3d.models.ridge import predict
from nepa3d.samples.completion import SequenceSettings, assemble
from nepa3d.samples.ordering import order_points
from nepa3d.shapes.answers import without_rays
from nepa3d.shapes.views import ShapeAnswers


def own_weights(probe: Probe, view: str) -> NDArray[np.float64]:
    """Weights (D + 1,) that read off a question's state the distance that the model itself predicts for ``view``; of a
    model that makes one prediction for all views, that one.

    ``ValueError`` where the model predicts none.
    """
    architecture = probe.model.architecture
    if not architecture.answer_head:
        raise ValueError(f"{probe.ckpt} predicts no distances: its answer_head is 0")
    views = architecture.answer_views
    if views and view not in views:
        raise ValueError(f"{probe.ckpt} predicts no distances of {view}, only of {', '.join(views)}")
    return np.eye(1, probe.model.width + 1, views.index(view) if views else 0)[0]


def distances_at(
    points: NDArray[np.float32],
    context: ShapeAnswers,
    context_rows: NDArray[np.int64],
    probe: Probe,
    weights: NDArray[np.float64],
    settings: SequenceSettings,
    batch: int,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Distances (M,) at ``points`` (M, 3) of [-1, 1]^3: predicted, and copied from the nearest context point.

    The model is asked for ``settings.n_query`` points at a time, each time of a selection that is spread over all of
    them as they are ordered, ``batch`` sequences at once. ``weights`` are the ridge head's.
    """
    predicted, copied = np.empty(len(points), np.float32), np.empty(len(points), np.float32)
    asked = without_rays(points, np.zeros(len(points), np.float32))
    chunks = -(-len(points) // settings.n_query)
    selections = [np.arange(first, len(points), chunks) for first in range(chunks)]
    by_length: dict[int, list[NDArray[np.int64]]] = {}
    for rows in selections:
        by_length.setdefault(len(rows), []).append(rows)
    for alike in by_length.values():
        for begin in range(0, len(alike), batch):
            some = alike[begin : begin + batch]
            samples = [assemble(context, context_rows, asked, rows, settings) for rows in some]
            features, types = np.stack([s.features for s in samples]), np.stack([s.types for s in samples])
            hidden = question_states(probe, features, types, samples[0].query_tokens)
            for rows, sample, states in zip(some, samples, hidden, strict=True):
                in_sequence = order_points(points, rows)
                predicted[in_sequence] = predict(weights, states)
                copied[in_sequence] = sample.nearest_copy
    return predicted, copied
