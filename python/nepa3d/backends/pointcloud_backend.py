"""The point cloud: distances to its points, rays in its voxels, in the mesh, or none."""

from __future__ import annotations

from nepa3d import ops
from nepa3d.backends.answers import Float, ShapeAnswers, VoxelSettings, with_stored_rays, without_rays
from nepa3d.data.cache import ShapeArrays, needs_distances


def pointcloud(cache: ShapeArrays, voxel: VoxelSettings) -> ShapeAnswers:
    """Rays from the voxelised cloud; older caches without them give the mesh's."""
    suffix = "pc_pool" if "ray_hit_pc_pool" in cache else "pool"
    return with_stored_rays(cache, cloud_distance(cache), suffix)


def pointcloud_meshray(cache: ShapeArrays, voxel: VoxelSettings) -> ShapeAnswers:
    """Distances of the cloud, rays of the mesh."""
    return with_stored_rays(cache, cloud_distance(cache), "pool")


def pointcloud_noray(cache: ShapeArrays, voxel: VoxelSettings) -> ShapeAnswers:
    """Distances of the cloud, no rays."""
    return without_rays(cache["pt_xyz_pool"], cloud_distance(cache))


def cloud_distance(cache: ShapeArrays) -> Float:
    """Distances (P,) to the cloud: stored, recomputed where marked invalid.

    A cache from before they were stored gives ``pt_dist_pool``, which of a mesh's cache is the mesh's distance: run
    the migration (``nepa3d.data.migrate_add_pt_dist_pc_pool``) so that the cloud's view does not know the mesh.
    """
    if "pt_dist_pc_pool" in cache:
        stored = cache["pt_dist_pc_pool"]
        if not needs_distances(stored):
            return stored
    elif "pt_dist_pool" in cache:
        return cache["pt_dist_pool"]
    return ops.nearest_distance(cache["pc_xyz"], cache["pt_xyz_pool"])[0]
