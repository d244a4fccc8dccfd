"""How far rays walked through voxels agree with rays cast at the mesh, by the side of the grid.

Letters: R rays of all shapes together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nepa3d.shapes.answers import ShapeAnswers, VoxelSettings
from nepa3d.shapes.views import read_answers

GRIDS = (16, 32, 64, 128)


@dataclass(frozen=True)
class RayAgreement:
    """The voxel view's rays beside the mesh's; a distance is None where no ray hits in both."""

    grid: int
    rays: int
    hit_agreement: float  # part of the rays on which both hit or both miss
    false_hits: float  # part of the mesh's misses
    missed_hits: float  # part of the mesh's hits
    t_error: float | None  # median |t - t of the mesh| where both hit, world units
    t_error_95: float | None  # its 95th percentile
    normal_cosine: float | None  # mean |cosine| of the normals there


def ray_agreement(paths: Sequence[str], grids: Sequence[int] = GRIDS, *, dilate: int = 1) -> list[RayAgreement]:
    """One row a grid, over the stored rays of all ``paths``. ``CacheError`` names a shape that lacks any."""
    if not paths:
        raise ValueError("paths must name at least one shape, got none")
    mesh = [read_answers(path, "mesh") for path in paths]
    rows = []
    for grid in grids:
        settings = VoxelSettings(grid, dilate)
        rows.append(_compare(grid, mesh, [read_answers(path, "voxel", settings) for path in paths]))
    return rows


def _compare(grid: int, mesh: Sequence[ShapeAnswers], voxel: Sequence[ShapeAnswers]) -> RayAgreement:
    true, walked = (np.concatenate([shape.ray_hit for shape in view]) > 0.5 for view in (mesh, voxel))
    t_error = np.abs(np.concatenate([a.ray_t - b.ray_t for a, b in zip(mesh, voxel, strict=True)]))
    cosine = np.abs(np.concatenate([(a.ray_normal * b.ray_normal).sum(1) for a, b in zip(mesh, voxel, strict=True)]))
    both = true & walked
    return RayAgreement(
        grid=grid,
        rays=len(true),
        hit_agreement=float((true == walked).mean()),
        false_hits=float(walked[~true].mean()) if (~true).any() else 0.0,
        missed_hits=float((~walked[true]).mean()) if true.any() else 0.0,
        t_error=float(np.median(t_error[both])) if both.any() else None,
        t_error_95=float(np.quantile(t_error[both], 0.95)) if both.any() else None,
        normal_cosine=float(cosine[both].mean()) if both.any() else None,
    )
