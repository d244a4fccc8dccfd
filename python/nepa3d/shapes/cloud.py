"""The point cloud's answers that are computed: distances to its points."""

from __future__ import annotations

from nepa3d import ops
from nepa3d.shapes.answers import Float
from nepa3d.shapes.cache import ShapeArrays


def cloud_distances(cache: ShapeArrays) -> Float:
    """Distances (P,) of the point queries to the cloud."""
    return ops.nearest_distance(cache["pc_xyz"], cache["pt_xyz_pool"]).distance
