"""Answers that a cache holds, as a row of the table of views asks for them: the plain twin of csrc/pool_view.cpp."""

from __future__ import annotations

from nepa3d.shapes.answers import Float, ShapeAnswers, with_stored_rays, without_rays
from nepa3d.shapes.cache import ShapeArrays, needs_distances
from nepa3d.shapes.cloud import cloud_distances
from nepa3d.shapes.view_table import ViewRow


def stored_answers(cache: ShapeArrays, row: ViewRow) -> ShapeAnswers:
    """The answers of a view without voxels."""
    distance = _distances(cache, row)
    if not row.rays:
        return without_rays(cache["pt_xyz_pool"], distance)
    suffix = next((suffix for suffix in row.rays if f"ray_hit_{suffix}" in cache), row.rays[-1])
    return with_stored_rays(cache, distance, suffix)


def _distances(cache: ShapeArrays, row: ViewRow) -> Float:
    for stored in row.distances:
        if stored.key in cache:
            distance = cache[stored.key]
            return cloud_distances(cache) if stored.recompute_invalid and needs_distances(distance) else distance
    return cloud_distances(cache) if row.cloud_distances else cache[row.distances[-1].key]  # which is missing
