"""What the compiled kernels offer (``geometry``), the named tuples they return (``results``), their plain twins
(``reference``), and attention on torch.

``nepa3d.ops.attention`` and ``nepa3d.ops.cuda``, the geometry over batches of shapes on a GPU, are imported on their
own, so that the data side needs no torch.
"""

from nepa3d.ops import reference
from nepa3d.ops.geometry import (
    KdTree,
    TriangleBvh,
    cast_rays,
    clean_mesh,
    closest_point,
    distance_transform,
    instruction_set,
    morton_code,
    morton_order,
    nearest_distance,
    parse_obj,
    parse_off,
    parse_ply,
    parse_stl,
    ray_direction_order,
    sample_surface,
    to_half,
    triangulate_polygons,
    trilinear_sample,
    voxel_first_hit,
    voxelize,
)
from nepa3d.ops.results import (
    CleanMesh,
    ClosestPoints,
    NearestPoints,
    ParsedMesh,
    RayHits,
    RepairedMesh,
    SurfaceSamples,
    VoxelHits,
)

__all__ = [
    "CleanMesh",
    "ClosestPoints",
    "KdTree",
    "NearestPoints",
    "ParsedMesh",
    "RayHits",
    "RepairedMesh",
    "SurfaceSamples",
    "TriangleBvh",
    "VoxelHits",
    "cast_rays",
    "clean_mesh",
    "closest_point",
    "distance_transform",
    "instruction_set",
    "morton_code",
    "morton_order",
    "nearest_distance",
    "parse_obj",
    "parse_off",
    "parse_ply",
    "parse_stl",
    "ray_direction_order",
    "reference",
    "sample_surface",
    "to_half",
    "triangulate_polygons",
    "trilinear_sample",
    "voxel_first_hit",
    "voxelize",
]
