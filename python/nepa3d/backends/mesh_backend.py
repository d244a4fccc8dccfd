"""The mesh as teacher: distances to its surface, rays against its triangles."""

from __future__ import annotations

from nepa3d.backends.answers import ShapeAnswers, VoxelSettings, with_stored_rays
from nepa3d.data.cache import ShapeArrays


def mesh(cache: ShapeArrays, voxel: VoxelSettings) -> ShapeAnswers:
    """Distances and rays of the mesh."""
    return with_stored_rays(cache, cache["pt_dist_pool"], "pool")
