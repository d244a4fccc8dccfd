"""What every view of a shape gives: the same queries, with the answers the view may know.

Letters: P point queries, R rays.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float32]


@dataclass(frozen=True)
class VoxelSettings:
    """The grid of the ``voxel`` view."""

    grid: int = 64
    dilate: int = 1
    max_steps: int = 0  # cells a ray visits at most; 0: three times the grid's side

    def __post_init__(self) -> None:
        for name, least in (("grid", 1), ("dilate", 0), ("max_steps", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"voxel_{name} must be at least {least}, got {getattr(self, name)}")
        if self.grid > 2048:
            raise ValueError(f"voxel_grid must be at most 2048, got {self.grid}")


@dataclass(frozen=True)
class ShapeAnswers:
    """Queries of a shape and a view's answers to them, all float32."""

    point_xyz: Float  # (P, 3)
    point_distance: Float  # (P,)
    ray_origin: Float  # (R, 3); the ray arrays are empty where rays are not available
    ray_direction: Float  # (R, 3), unit
    ray_hit: Float  # (R,) 0 or 1
    ray_t: Float  # (R,) 0 on a miss
    ray_normal: Float  # (R, 3) 0 on a miss
    rays_available: bool


def without_rays(point_xyz: Float, point_distance: Float) -> ShapeAnswers:
    """Answers of a view that has no rays."""
    vectors, scalars = np.empty((0, 3), np.float32), np.empty(0, np.float32)
    return ShapeAnswers(point_xyz, point_distance, vectors, vectors, scalars, scalars, vectors, False)


def with_stored_rays(cache: Mapping[str, NDArray], point_distance: Float, suffix: str) -> ShapeAnswers:
    """Answers with the ray answers stored under ``ray_*_<suffix>``."""
    return ShapeAnswers(
        cache["pt_xyz_pool"],
        point_distance,
        cache["ray_o_pool"],
        cache["ray_d_pool"],
        cache[f"ray_hit_{suffix}"],
        cache[f"ray_t_{suffix}"],
        cache[f"ray_n_{suffix}"],
        True,
    )
