"""One look at each shape: what it is asked and what it answers, from which a model and its controls all take theirs.

A look may be turned about the vertical. Letters: N shapes, T tokens, n points.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath

import numpy as np
from numpy.typing import NDArray

from nepa3d.corpora.splits import class_of
from nepa3d.models.encoder import ShapeLike, as_shape, draw_samples, is_cache, shape_name
from nepa3d.samples.dataset import Sample, SampleSettings, sample_of_answers
from nepa3d.samples.schema import FEATURE_DIM, POINT_DISTANCE, XYZ, TokenType
from nepa3d.shapes.cache import CacheError
from nepa3d.shapes.query_pools import random_stream
from nepa3d.shapes.rotation import turn
from nepa3d.shapes.views import ShapeAnswers, read_answers

Float = NDArray[np.float32]


@dataclass(frozen=True)
class Looks:
    """One draw of each of N shapes. The rows of shapes that could not be read hold another's."""

    features: Float  # (N, T, 15)
    types: NDArray[np.int64]  # (N, T)
    faults: dict[int, str]
    """Why, by row."""

    def points(self) -> list[tuple[Float, Float]]:
        """The points (n, 3) that each shape is asked at and the distances (n,) that it answers."""
        asked = np.isin(self.types, (TokenType.POINT, TokenType.Q_POINT))
        answered = np.isin(self.types, (TokenType.POINT, TokenType.A_POINT))
        return [
            (features[questions][:, XYZ], features[answers][:, POINT_DISTANCE])
            for features, questions, answers in zip(self.features, asked, answered, strict=True)
        ]


@dataclass(frozen=True)
class LookSettings:
    """How all shapes are looked at."""

    view: str
    sample: SampleSettings
    seed: int
    turned: bool = False
    """Each by an angle of its own about the vertical, y."""
    threads: int = 1
    """That read cache files."""


def look(shapes: Sequence[ShapeLike], settings: LookSettings, draw: int = 0) -> Looks:
    """Draw ``draw`` of each shape's questions and its answers, a function of the shape's name and the seed.

    Cache files that cannot be read are listed in ``faults``; ``ValueError`` names another shape that cannot be used, or
    the first of the files if none can be read.
    """
    if settings.turned:
        features, types, faults = _turned_samples(shapes, settings, draw)
    else:
        features, types, faults = draw_samples(
            shapes, settings.view, settings.sample, settings.seed, draw, threads=settings.threads
        )
    unread = dict(faults)
    if len(unread) == len(shapes):
        raise ValueError(f"none of {len(shapes)} shapes could be read; first: {shape_name(shapes[0])}: {unread[0]}")
    if unread:
        good = next(row for row in range(len(shapes)) if row not in unread)
        features[list(unread)], types[list(unread)] = features[good], types[good]
    return Looks(features, types, unread)


def angle_of(name: str, seed: int) -> float:
    """By how much a shape is turned, in radians: a function of the seed and its "class/id", wherever its file lies."""
    key = f"{class_of(name)}/{PurePath(name).stem}"
    return float(random_stream(seed, key, "turn").uniform(0, 2 * np.pi))


def turned(answers: ShapeAnswers, angle: float) -> ShapeAnswers:
    """The answers of the shape turned about y by ``angle`` radians, rays and normals with it.

    Points farther than 1 from the axis are left out, as they would leave the cube, whose corners give the angle away.
    """
    near = (answers.point_xyz[:, [0, 2]] ** 2).sum(1) <= 1
    return replace(
        answers,
        point_xyz=turn(answers.point_xyz[near], angle),
        point_distance=answers.point_distance[near],
        ray_origin=turn(answers.ray_origin, angle),
        ray_direction=turn(answers.ray_direction, angle),
        ray_normal=turn(answers.ray_normal, angle),
    )


def _turned_samples(
    shapes: Sequence[ShapeLike], settings: LookSettings, draw: int
) -> tuple[Float, NDArray[np.int64], list[tuple[int, str]]]:
    length = settings.sample.length
    features, types = (
        np.zeros((len(shapes), length, FEATURE_DIM), np.float32),
        np.zeros((len(shapes), length), np.int64),
    )
    faults = list[tuple[int, str]]()
    for row, shape in enumerate(shapes):
        try:
            features[row], types[row] = _turned_sample(shape, settings, draw)
        except CacheError as error:
            faults.append((row, error.fault))
    return features, types, faults


def _turned_sample(shape: ShapeLike, settings: LookSettings, draw: int) -> Sample:
    name, voxel = shape_name(shape), settings.sample.voxel
    if is_cache(shape):
        answers = read_answers(name, settings.view, voxel)
    else:
        answers = as_shape(shape).view(settings.view, voxel)
    answers = turned(answers, angle_of(name, settings.seed))
    return sample_of_answers(name, answers, settings.sample, settings.seed, draw)
