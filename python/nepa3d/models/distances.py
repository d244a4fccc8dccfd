"""Distances that a model predicts at any points, from a context of points whose distances are told.

Letters: M points, C context points.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from nepa3d.execution.checks import require_at_least
from nepa3d.execution.progress_bar import Progress
from nepa3d.models.embedding import Probe, question_states
from nepa3d.models.interpolation import clipped_spline
from nepa3d.models.ridge import predict
from nepa3d.samples.completion import SequenceSettings, assemble
from nepa3d.samples.ordering import order_points
from nepa3d.shapes.answers import without_rays
from nepa3d.shapes.views import ShapeAnswers

# questions of a sequence where they do not see one another: the context is then worked through less often
TOGETHER = 1024
SPLINE_BLOCK = 8192  # points at which a spline is read at a time


@dataclass(frozen=True)
class PredictedField:
    """Distances that a model predicts of one shape from a context of its points, at any points of [-1, 1]^3 (M, 3)."""

    probe: Probe
    weights: NDArray[np.float64]
    """(D + 1,) of the head that reads distances."""
    answers: ShapeAnswers
    rows: NDArray[np.int64]
    """(C,) of the answers' points: the context."""
    settings: SequenceSettings
    batch: int
    """Sequences a forward pass."""

    def __post_init__(self) -> None:
        require_at_least(1, batch=self.batch)

    @property
    def context(self) -> NDArray[np.float32]:
        """(C, 4) the points of the context and the distances told there."""
        return np.column_stack([self.answers.point_xyz[self.rows], self.answers.point_distance[self.rows]])

    def distances(self, points: NDArray[np.float32], bar: Progress | None = None) -> NDArray[np.float32]:
        """Predicted distances (M,); ``bar`` counts the points."""
        return self._read(points, self.weights, bar)

    def scales(self, points: NDArray[np.float32]) -> NDArray[np.float32]:
        """Scales (M,) of the Laplace distributions that the model predicts around its distances: the mean absolute
        error that it expects. ``ValueError`` where it predicts no distances, or a fitted head reads them."""
        architecture = self.probe.model.architecture
        view, count = own_view(self.probe), self.probe.model.heads
        if not np.array_equal(self.weights, own_weights(self.probe, view)):
            raise ValueError("the scales are those of the model's own distances, but a fitted head reads these")
        row = count + (architecture.answer_views.index(view) if architecture.answer_views else 0)
        head = self.probe.model.answer_head
        weights = torch.cat([head.weight[row], head.bias[row, None]]).detach().double().cpu().numpy()
        return np.exp(self._read(points, weights))

    def spline(self, points: NDArray[np.float32]) -> NDArray[np.float32]:
        """Distances (M,) that the clipped thin-plate spline of the context has, without a model."""
        told = torch.from_numpy(self.context)[None]
        blocks = [
            clipped_spline(told[..., :3], told[..., 3], torch.tensor(block)[None])[0][0]
            for block in np.split(points, range(SPLINE_BLOCK, len(points), SPLINE_BLOCK))
        ]
        found: NDArray[np.float32] = torch.cat(blocks).numpy().astype(np.float32)
        return found

    def _read(
        self, points: NDArray[np.float32], weights: NDArray[np.float64], bar: Progress | None = None
    ) -> NDArray[np.float32]:
        if len(points) == 0:
            return np.empty(0, np.float32)
        return distances_at(points, self.answers, self.rows, self.probe, weights, self.settings, self.batch, bar)[0]


def own_view(probe: Probe) -> str:
    """The view whose distances a model's own prediction is read of: the mesh's, else the first that it has; "" of a
    model that makes one prediction for all."""
    views = probe.model.architecture.answer_views
    return "mesh" if "mesh" in views else "".join(views[:1])


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
    bar: Progress | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Distances (M,) at ``points`` (M, 3) of [-1, 1]^3: predicted, and copied from the nearest context point.

    The model is asked for ``settings.n_query`` points at a time (at least 1024 if it asks each alone), each time of a
    selection that is spread over all of them as they are ordered, ``batch`` sequences at once. ``weights`` are the
    ridge head's; ``bar`` counts the points.
    """
    at_a_time = max(settings.n_query, TOGETHER) if probe.asks_alone else settings.n_query
    predicted, copied = np.empty(len(points), np.float32), np.empty(len(points), np.float32)
    asked = without_rays(points, np.zeros(len(points), np.float32))
    chunks = -(-len(points) // at_a_time)
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
            if bar is not None:
                bar.update(sum(map(len, some)))
    return predicted, copied
