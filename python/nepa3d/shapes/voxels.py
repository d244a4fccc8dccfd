"""The voxels: distances between cells, rays through cells, both made anew from the point cloud."""

from __future__ import annotations

import numpy as np

from nepa3d import ops
from nepa3d.shapes.answers import ShapeAnswers, VoxelSettings
from nepa3d.shapes.cache import CacheError, ShapeArrays
from nepa3d.shapes.query_pools import voxel_ray_answers


def voxel_answers(cache: ShapeArrays, voxel: VoxelSettings) -> ShapeAnswers:
    """Distance of each query's cell to the nearest occupied cell, and walks through the cells."""
    points, xyz = cache["pc_xyz"], cache["pt_xyz_pool"]
    occupancy = ops.voxelize(points, voxel.grid, voxel.dilate)
    distance = ops.distance_transform(occupancy, 2 / voxel.grid)
    if not np.isfinite(xyz).all():
        raise CacheError(cache.path, "pt_xyz_pool is not finite")
    cell = np.floor((xyz + np.float32(1)) / np.float32(2 / voxel.grid)).clip(0, voxel.grid - 1).astype(np.int64)
    origins, directions = cache["ray_o_pool"], cache["ray_d_pool"]
    hit, t, normal = voxel_ray_answers(occupancy, points, cache["pc_n"], origins, directions, voxel.max_steps)
    return ShapeAnswers(xyz, distance[tuple(cell.T)], origins, directions, hit, t, normal, True)
