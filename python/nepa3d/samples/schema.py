"""The token layout: 15 feature columns and the type ids."""

from __future__ import annotations

from enum import IntEnum

FEATURE_DIM = 15

XYZ = slice(0, 3)  # point query, or hit position of a ray
RAY_ORIGIN = slice(3, 6)
RAY_DIRECTION = slice(6, 9)
RAY_T = 9
POINT_DISTANCE = 10
RAY_HIT = 11
RAY_NORMAL = slice(12, 15)


class TokenType(IntEnum):
    """Type ids of the tokens; the first five are the plain (v1) vocabulary, all nine the Q/A one."""

    BOS = 0
    POINT = 1
    RAY = 2
    MISSING_RAY = 3
    EOS = 4
    Q_POINT = 5
    A_POINT = 6
    Q_RAY = 7
    A_RAY = 8


N_TYPES_PLAIN = 5
N_TYPES_QA = 9


def sequence_length(n_point: int, n_ray: int, *, qa: bool, eos: bool) -> int:
    """Number of tokens T of one sample."""
    return 1 + (n_point + n_ray) * (2 if qa else 1) + int(eos)
