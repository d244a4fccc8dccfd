"""The distance grid: interpolated distances, no rays."""

from __future__ import annotations

from nepa3d.backends.answers import ShapeAnswers, VoxelSettings, without_rays
from nepa3d.data.cache import ShapeArrays


def udfgrid(cache: ShapeArrays, voxel: VoxelSettings) -> ShapeAnswers:
    """Distances of the field; a cache without one gives ``pt_dist_pool``."""
    key = "pt_dist_udf_pool" if "pt_dist_udf_pool" in cache else "pt_dist_pool"
    return without_rays(cache["pt_xyz_pool"], cache[key])
