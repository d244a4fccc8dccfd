"""Where points are asked: anywhere in a shape's pool, or in the part of it that is uniform in the cube.

Half of a pool lies close to the surface (``nepa3d.shapes.query_pools.point_queries``), so the questions alone show the
shape. Letters: P point queries.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from nepa3d.shapes.answers import ShapeAnswers
from nepa3d.shapes.cache import CacheError

Questions = Literal["pool", "uniform"]

STEPS = 2.0**23  # of the uniform draw in [-1, 1): it is 2 u - 1, u of 24 random bits
FEWEST = 64  # points by which a uniform part is told


def uniform_part(points: NDArray[np.float32]) -> int:
    """How many of the first points of a pool (P, 3) are of the uniform draw in [-1, 1)^3; 0 where that cannot be told.

    A pool begins with these points, whose coordinates are whole multiples of 2^-23; those near the surface, which
    follow, are sums with a Gaussian and have finer digits. No distance is looked at. A near point has such coordinates
    by accident in about one of a hundred cases, and that at the border only makes it counted. Pools that were rounded,
    or drawn by another program, are told by their last digits, which in a uniform draw are even as often as odd.
    """
    steps = points.astype(np.float64) * STEPS
    whole = (steps == np.floor(steps)).all(1)
    count = len(whole) if whole.all() else int(np.argmin(whole))
    odd = (steps[:count] % 2 == 1).mean() if count >= FEWEST else 0.0
    return count if 0.25 < odd < 0.75 else 0


def asked_of(answers: ShapeAnswers, questions: Questions, path: str) -> ShapeAnswers:
    """``answers`` with the point queries that ``questions`` allow; rays stay. ``CacheError`` with ``path`` where the
    pool has no part that is known to be uniform."""
    if questions == "pool":
        return answers
    count = uniform_part(answers.point_xyz)
    if not count:
        raise CacheError(
            path,
            f"questions 'uniform': pt_xyz_pool does not begin with at least {FEWEST} points of this package's uniform "
            "draw; make the cache again with a pt_surface_ratio below 1, or ask in the whole pool",
        )
    return replace(answers, point_xyz=answers.point_xyz[:count], point_distance=answers.point_distance[:count])
