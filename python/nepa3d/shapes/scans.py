"""From a point cloud to the arrays of a cache file."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nepa3d import ops
from nepa3d.shapes.mesh import BadShapeError, Reason
from nepa3d.shapes.query_pools import PoolSettings, point_queries, random_stream


def normalize_scan(points: NDArray[np.floating], name: str) -> NDArray[np.float32]:
    """A cloud (N, 3) centred on its mean and divided by its largest norm. ``BadShapeError`` with ``name``."""
    if not np.isfinite(points).all():
        raise BadShapeError(name, Reason.NONFINITE_VERTICES, f"{int((~np.isfinite(points)).any(1).sum())} points")
    centred = points.astype(np.float64) - points.mean(0, dtype=np.float64)
    radius = np.sqrt((centred**2).sum(1).max())
    if not radius > np.abs(points).max() * np.finfo(np.float32).eps:
        raise BadShapeError(name, Reason.ZERO_EXTENT, "all points are in one place")
    return (centred / radius).astype(np.float32)


def scan_pools(points: NDArray[np.float32], settings: PoolSettings, seed: int, key: str) -> dict[str, NDArray]:
    """Every array of the cache file of a cloud (N, 3) in the unit ball; without normals, rays and distance field."""
    queries = point_queries(points, settings, random_stream(seed, key, "points"))
    distance = ops.nearest_distance(points, queries).distance
    vectors, scalars = np.zeros((settings.ray_pool, 3), np.float32), np.zeros(settings.ray_pool, np.float32)
    return {
        "pc_xyz": points,
        "pc_n": np.zeros_like(points),
        "pt_xyz_pool": queries,
        "pt_dist_pool": distance,
        "pt_dist_pc_pool": distance,
        "ray_o_pool": vectors,
        "ray_d_pool": vectors,
        "ray_hit_pool": scalars,
        "ray_t_pool": scalars,
        "ray_n_pool": vectors,
    }
