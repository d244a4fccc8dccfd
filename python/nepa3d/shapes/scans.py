"""From a point cloud to the arrays of a cache file."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nepa3d import ops
from nepa3d.shapes.mesh import BadShapeError, Reason
from nepa3d.shapes.placement import Placement
from nepa3d.shapes.query_pools import PoolSettings, point_queries, random_stream


def normalize_scan(points: NDArray[np.floating], name: str) -> NDArray[np.float32]:
    """A cloud (N, 3) centred on its mean and divided by its largest norm. ``BadShapeError`` with ``name``."""
    return placement_of_scan(points, name).normalized(points)


def placement_of_scan(points: NDArray[np.floating], name: str) -> Placement:
    """The mean of a cloud (N, 3) and its largest distance from there. ``BadShapeError`` with ``name`` on points that
    are not finite, all in one place, or so far apart that the distance is not finite."""
    if not np.isfinite(points).all():
        bad = int((~np.isfinite(points)).any(1).sum())
        raise BadShapeError(name, Reason.NONFINITE_VERTICES, f"{bad} points")
    with np.errstate(over="ignore", invalid="ignore"):
        centre = points.mean(0, dtype=np.float64)
        radius = np.sqrt(((points.astype(np.float64) - centre) ** 2).sum(1).max())
    if not np.isfinite(radius):
        raise BadShapeError(name, Reason.TOO_LARGE, f"the extent of xyz overflows, it reaches {np.abs(points).max():g}")
    if not radius > np.abs(points).max() * np.finfo(np.float32).eps:
        raise BadShapeError(name, Reason.ZERO_EXTENT, "all points are in one place")
    return Placement(centre, float(radius))


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
