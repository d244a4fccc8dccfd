"""What a model makes of a shape that it is told at a few points: distances anywhere, a surface, where it looks.

Letters: C context points, M points, T tokens, R cells a side.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nepa3d.models.attention_maps import attention_maps
from nepa3d.models.distances import distances_at
from nepa3d.models.encoder import Encoder
from nepa3d.samples.completion import SequenceSettings, assemble, cell_centres
from nepa3d.samples.schema import XYZ, TokenType
from nepa3d.samples.tokenizer import draw_rows, evaluation_rng
from nepa3d.shapes.answers import ShapeAnswers, without_rays
from nepa3d.shapes.level_set import level_set
from nepa3d.shapes.shape import Shape

if TYPE_CHECKING:
    import trimesh

CONTEXT_VIEW = "pointcloud_noray"  # what the model is told: distances to the points of a cloud
ASKED_TOGETHER = 1024  # points in one sequence, where they do not see one another
COARSE = 2  # cells of the last grid that one of the first stands for, along each axis
Float = NDArray[np.float32]


@dataclass(frozen=True)
class Completion:
    """A shape as a model sees it that is told ``n_context`` random points of it. ``complete`` makes one."""

    encoder: Encoder
    answers: ShapeAnswers
    rows: NDArray[np.int64]
    """(C,) the points of ``answers`` that the model is told."""
    settings: SequenceSettings

    @property
    def context(self) -> Float:
        """The points (C, 3) that the model is told."""
        return self.answers.point_xyz[self.rows]

    @property
    def context_distance(self) -> Float:
        """The distances (C,) told there."""
        return self.answers.point_distance[self.rows]

    def distance(self, points: Float) -> Float:
        """Predicted distances (M,) at points (M, 3) of [-1, 1]^3."""
        if len(points) == 0:
            return np.empty(0, np.float32)
        queries = np.ascontiguousarray(points, np.float32)
        weights = self.encoder.distance_head()
        predicted, _ = distances_at(queries, self.answers, self.rows, self.encoder.probe, weights, self.settings, 1)
        return predicted

    def field(self, resolution: int) -> Float:
        """Predicted distances (R, R, R) at the centres of the cells of [-1, 1]^3.

        All cells of a grid of half the resolution are asked for, and of the last grid those near the surface; the
        others, none of which the surface ``surface`` shows can lie in if the prediction is smooth, take the value of
        the cell that they are part of.
        """
        if resolution < 2 or resolution % COARSE:
            raise ValueError(f"resolution must be a positive multiple of {COARSE}, got {resolution}")
        side = resolution // COARSE
        coarse = self.distance(cell_centres(side)).reshape(3 * (side,))
        found = coarse.repeat(COARSE, 0).repeat(COARSE, 1).repeat(COARSE, 2)
        near = found < _level(resolution) + 2 * np.sqrt(3) / side  # the diagonal of a coarse cell
        found[near] = self.distance(cell_centres(resolution)[near.ravel()])
        return found

    def surface(self, resolution: int) -> trimesh.Trimesh | None:
        """The mesh on which the predicted distance is a cell's side, by marching cubes; None if it is that nowhere."""
        return level_set(self.field(resolution), _level(resolution))

    def attention(self, point: Float) -> Attention:
        """What a question at ``point`` (3,) of [-1, 1]^3 attends to."""
        place = np.ascontiguousarray(point, np.float32).reshape(1, 3)
        asked = without_rays(place, np.zeros(1, np.float32))
        sample = assemble(self.answers, self.rows, asked, np.zeros(1, np.int64), replace(self.settings, eos=False))
        features, types = sample.features, sample.types.copy()
        question = int(sample.query_tokens[0])
        if self.encoder.probe.model.asks_blind:  # as nepa3d.models.embedding.question_states asks
            features, types = features[: question + 1], types[: question + 1]
            types[question] = TokenType.Q_POINT
        maps = attention_maps(self.encoder.probe.model, features, types)
        weights = np.stack([found.weights[question] for found in maps])
        told = weights[:, 1:question]
        places = features[1:question, XYZ]
        if self.settings.qa:  # a question and its answer stand side by side
            told, places = told.reshape(len(told), -1, 2).sum(2), places[::2]
        return Attention(places, told, 1 - told.sum(1))


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


def most_context(encoder: Encoder) -> int:
    """The most points that the slider offers: as many as the model had point queries in training, twice that where
    sequences may have any length."""
    probe = encoder.probe
    if probe.model.max_len is None:
        return 2 * probe.n_point
    room = (probe.max_len - 1 - int(probe.eos)) // (2 if probe.qa else 1)
    return max(1, min(probe.n_point, room - 1))


def complete(encoder: Encoder, shape: Shape, n_context: int, seed: int = 0) -> Completion:
    """The completion of ``shape`` from ``n_context`` of its point queries, drawn as ``Encoder.complete`` draws them,
    so that it predicts the same distances. ``ValueError`` if the model does not take so many."""
    settings = encoder.sequence(CONTEXT_VIEW, n_context)
    if encoder.probe.model.architecture.answer_keys and encoder.probe.model.max_len is None:
        settings = replace(settings, n_query=ASKED_TOGETHER)  # a prediction does not depend on what else is asked
    answers = shape.view(CONTEXT_VIEW)
    rows = draw_rows(len(answers.point_xyz), settings.n_context, evaluation_rng(shape.name, seed))
    return Completion(encoder, answers, rows, settings)


def _level(resolution: int) -> float:
    """The distance at which a surface is drawn: a cell's side."""
    return 2.0 / resolution
