"""Changes of samples that make a model robust: answers are off, the shape is turned or scaled, or stands in a room.

Each sample's are a function of the seeds and of its place in the batch. Letters: B samples, T tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nepa3d.corpora.scanner import GAP
from nepa3d.models.token_features import POINT_ANSWERS, is_any
from nepa3d.samples.schema import POINT_DISTANCE, RAY_DIRECTION, RAY_NORMAL, RAY_ORIGIN, RAY_T, XYZ, TokenType
from nepa3d.shapes.rotation import turn

OFTEN = 0.8  # of the samples whose answers are off
NEAREST = 0.25  # share of a sample's points, those with the least distances, that tell how far its shape reaches
_STREAM = 7_001  # apart from other draws of the same seeds


@dataclass(frozen=True, kw_only=True)
class AugmentFlags:
    """Augmentation of the samples of answer, align and query."""

    answer_shift: float = 0.0
    """Maximum absolute offset added to all context distances of a sample; applied with probability 0.8. Views of one
    shape differ by such an offset; the distances to be predicted are not shifted."""
    answer_noise: float = 0.0
    """Maximum standard deviation of simulated Gaussian noise in the surface points to which the context's distances are
    measured; applied with probability 0.8."""
    turn: float = 0.0
    """Probability that a sample is turned about the vertical (y) by a random angle."""
    scale_min: float = 1.0
    """Minimum scale factor of a sample; the maximum is 1."""
    clutter: float = 0.0
    """Probability of adding a floor and a wall to a sample's shape, as in scans. All distances, including those to be
    predicted, are then to the nearest of the three. Requires samples without rays."""

    def __post_init__(self) -> None:
        for name in ("answer_shift", "answer_noise"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in [0, 1], got {getattr(self, name)}")
        for name in ("turn", "clutter"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in [0, 1], got {getattr(self, name)}")
        if not 0 < self.scale_min <= 1:
            raise ValueError(f"scale_min must lie in (0, 1], got {self.scale_min}")


def placed(features: Tensor, flags: AugmentFlags, seeds: Sequence[int], first: int) -> Tensor:
    """Features (B, T, 15) turned and scaled about the origin, answers and all; ``first`` is the first one's number."""
    if not flags.turn and flags.scale_min == 1:
        return features
    turned = features.clone()
    for row, sample in enumerate(turned):
        rng = np.random.default_rng([*seeds, first + row, _STREAM])
        angle = rng.uniform(0, 2 * np.pi) if rng.random() < flags.turn else 0.0
        scale = float(rng.uniform(flags.scale_min, 1))
        for columns, factor in ((XYZ, scale), (RAY_ORIGIN, scale), (RAY_DIRECTION, 1.0), (RAY_NORMAL, 1.0)):
            sample[:, columns] = torch.from_numpy(turn(sample[:, columns].numpy(), angle)) * factor
        sample[:, [POINT_DISTANCE, RAY_T]] *= scale
    return turned


def cluttered(features: Tensor, types: Tensor, flags: AugmentFlags, seeds: Sequence[int], first: int) -> Tensor:
    """Features (B, T, 15) of shapes of radius 1, in sequences of types (B, T) or (T,) that differ at most in rays, some
    with a floor and a wall; ``first`` is the first one's number.

    The planes stand as those of ``nepa3d.corpora.scanner.random_room``: the floor at the shape's lowest point, the wall
    at any heading and up to ``GAP`` behind it; how far the shape reaches is estimated by ``reach``.
    ``ValueError`` where there are answered rays, whose hits would be others.
    """
    if not flags.clutter:
        return features
    if is_any(types, (TokenType.RAY, TokenType.A_RAY)).any():
        raise ValueError(f"clutter must be 0 where samples have rays (n_ray 0 has none), got {flags.clutter}")
    points = types[0] if types.ndim == 2 else types
    asked = is_any(points, (TokenType.POINT, TokenType.Q_POINT)).nonzero()[:, 0]
    answers = is_any(points, POINT_ANSWERS).nonzero()[:, 0]
    found = features.clone()
    for row, sample in enumerate(found):
        rng = np.random.default_rng([*seeds, first + row, _STREAM + 2])
        heading, gap = rng.uniform(0, 2 * np.pi), rng.uniform(0, GAP)
        if rng.random() >= flags.clutter:
            continue
        places, distance = sample[asked, XYZ], sample[answers, POINT_DISTANCE]
        for toward, behind in (([0.0, 1.0, 0.0], 0.0), ([math.cos(heading), 0.0, math.sin(heading)], gap)):
            along = places @ torch.tensor(toward)
            plane = reach(along, sample[answers, POINT_DISTANCE]) - behind
            distance = torch.minimum(distance, (along - plane).abs())
        sample[answers, POINT_DISTANCE] = distance
    return found


def reach(along: Tensor, distance: Tensor) -> Tensor:
    """How low a shape in the unit ball reaches along an axis, estimated of n points' places (n,) along it and distances
    (n,) to the shape.

    What the points next to the shape are nearest to is no lower than these less their distances. Nor is the estimate
    above what any of the points is nearest to, or below the ball.
    """
    near = distance.topk(max(1, round(NEAREST * len(distance))), largest=False).indices
    lowest = torch.minimum((along[near] - distance[near]).min(), (along + distance).min())
    return lowest.clamp(min=-1)


def unsettled(features: Tensor, types: Tensor, flags: AugmentFlags, seeds: Sequence[int], first: int) -> Tensor:
    """Features (B, T, 15) of sequences of types (T,) with answered distances off; ``first`` is the first one's number.

    A distance d to points that are off by a Gaussian of standard deviation s is about sqrt(d^2 - s^2 ln U), U uniform.
    """
    if not flags.answer_shift and not flags.answer_noise:
        return features
    answers = is_any(types, POINT_ANSWERS).nonzero()[:, 0]
    off = features.clone()
    for row, sample in enumerate(off):
        rng = np.random.default_rng([*seeds, first + row, _STREAM + 1])
        uniform = torch.from_numpy(rng.uniform(1e-6, 1, len(answers))).float()
        deviation = rng.uniform(0, flags.answer_noise) * (rng.random() < OFTEN)
        shift = rng.uniform(-flags.answer_shift, flags.answer_shift) * (rng.random() < OFTEN)
        distance = (sample[answers, POINT_DISTANCE] ** 2 - deviation**2 * uniform.log()).sqrt()
        sample[answers, POINT_DISTANCE] = (distance + shift).clamp(min=0)
    return off
