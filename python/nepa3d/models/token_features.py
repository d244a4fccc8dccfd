"""What the model is told of a token: its 15 columns expanded, and where it lies in space.

Letters: B batch, T tokens, F features.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from nepa3d.samples.schema import (
    POINT_DISTANCE,
    RAY_DIRECTION,
    RAY_HIT,
    RAY_NORMAL,
    RAY_ORIGIN,
    RAY_T,
    XYZ,
    TokenType,
)

OCTAVES = 6
DISTANCE_FEATURES = 8
FOURIER_DIM = 3 * 3 * 2 * OCTAVES + 2 * DISTANCE_FEATURES + 1 + 3

QUESTIONS = (TokenType.Q_POINT, TokenType.Q_RAY)
ANSWERS = (TokenType.POINT, TokenType.RAY, TokenType.A_POINT, TokenType.A_RAY)
POINT_ANSWERS = (TokenType.POINT, TokenType.A_POINT)
_RAY_ANSWERS = (TokenType.RAY, TokenType.A_RAY)


class Places(NamedTuple):
    """Where tokens lie in space, and what distance to the surface was answered there."""

    points: Tensor  # (B, T, 4) coordinates, the fourth 1 where a token has a place; else all four are 0
    distance: Tensor  # (B, T), 0 where none was answered


def is_any(types: Tensor, wanted: tuple[TokenType, ...]) -> Tensor:
    """Which of the types (B, T) are one of ``wanted``."""
    found = types == wanted[0]
    for kind in wanted[1:]:  # not torch.isin, which has no ONNX form
        found = found | (types == kind)
    return found


def bind(features: Tensor, types: Tensor) -> Tensor:
    """Features (B, T, 15) in which an answer of a Q/A sequence holds its question's columns, too.

    A question's columns are 0 in the answer that follows it; the answer's own, in the question.
    """
    answers = is_any(types, (TokenType.A_POINT, TokenType.A_RAY))
    before = torch.nn.functional.pad(features[:, :-1], (0, 0, 1, 0))
    return features + before * answers[..., None]


def places(features: Tensor, types: Tensor) -> Places:
    """Places of bound features (B, T, 15): those of point questions and of their answers; of an answered ray, the
    position of its hit, where the distance is 0."""
    hit = is_any(types, _RAY_ANSWERS) & (features[..., RAY_HIT] > 0.5)
    placed = is_any(types, (TokenType.Q_POINT, *POINT_ANSWERS)) | hit
    weight = placed[..., None].to(torch.float32)
    points = torch.cat([features[..., XYZ].float() * weight, weight], -1)
    return Places(points, features[..., POINT_DISTANCE].float() * is_any(types, POINT_ANSWERS))


def fourier(coordinates: Tensor) -> Tensor:
    """sin and cos of (pi / 2) 2^k x for k = 0..5 of each of the coordinates (..., n): (..., 12 n).

    (Fourier features: Tancik et al., arXiv 2006.10739; NeRF: Mildenhall et al., arXiv 2003.08934.)
    """
    rates = (math.pi / 2) * 2.0 ** torch.arange(OCTAVES, device=coordinates.device)
    angles = coordinates.float()[..., None] * rates
    return torch.cat([angles.sin(), angles.cos()], -1).flatten(-2)


def distance_features(distance: Tensor) -> Tensor:
    """Eight functions of distances (...) that resolve small ones: (..., 8)."""
    d = distance.float()
    wide = torch.log1p(d / 0.05) / 2
    near = [(-d / scale).exp() for scale in (0.01, 0.03, 0.1)]
    return torch.stack([wide, *near, d * d, (2 * wide).sin(), (4 * wide).sin(), (4 * wide).cos()], -1)


def expand(features: Tensor, types: Tensor) -> Tensor:
    """Features (B, T, 15) as (B, T, 128): coordinates as ``fourier``, distances and ray lengths as
    ``distance_features``, hits and normals as they are. What a token does not have is 0."""
    point = is_any(types, (TokenType.Q_POINT, *POINT_ANSWERS))
    ray = is_any(types, (TokenType.Q_RAY, *_RAY_ANSWERS))
    answered_ray = is_any(types, _RAY_ANSWERS)
    hit = answered_ray & (features[..., RAY_HIT] > 0.5)
    parts = (
        (fourier(features[..., XYZ]), point | hit),
        (fourier(features[..., RAY_ORIGIN]), ray),
        (fourier(features[..., RAY_DIRECTION]), ray),
        (distance_features(features[..., POINT_DISTANCE]), is_any(types, POINT_ANSWERS)),
        (distance_features(features[..., RAY_T]), hit),
        (features[..., RAY_HIT, None].float(), answered_ray),
        (features[..., RAY_NORMAL].float(), hit),
    )
    return torch.cat([part * there[..., None] for part, there in parts], -1)
