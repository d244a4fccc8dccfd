"""Occupancy grids over batches of shapes on a GPU, see ``nepa3d.ops.cuda``.

Letters: B shapes, N points, M queries, R rays, each of the whole batch; G grid side. The grids of all shapes have one
shape.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nepa3d.ops import cuda_tensors as tensors
from nepa3d.ops.results import VoxelHits


@torch.library.custom_op("nepa3d::voxelize", mutates_args=())
def voxelize(points: Tensor, offsets: Tensor, grid: int, dilate: int = 0) -> Tensor:
    """Occupancy (B, G, G, G) uint8 by ``points`` (N, 3); see ``nepa3d.ops.voxelize``."""
    tensors.require_points(points, "points", "N")
    tensors.require_offsets(offsets, "offsets", points)
    tensors.require_one_device(points=points, offsets=offsets)
    _require_at_least(grid, 1, "grid")
    _require_at_least(dilate, 0, "dilate")
    points, offsets = tensors.contiguous(points, offsets)
    occupancy = _voxelize_like(points, offsets, grid).zero_()
    _require_cells(occupancy, "occupancy")
    module, place = tensors.module_for(points.device), tensors.place(points)
    module.voxelize(points.data_ptr(), tensors.ragged(module, offsets, points), grid, occupancy.data_ptr(), *place)
    for _ in range(dilate):
        grown = torch.empty_like(occupancy)
        module.dilate(occupancy.data_ptr(), grown.data_ptr(), grid, occupancy.numel(), *place)
        occupancy = grown
    return occupancy


@voxelize.register_fake
def _voxelize_like(points: Tensor, offsets: Tensor, grid: int, dilate: int = 0) -> Tensor:
    return points.new_empty((len(offsets) - 1, grid, grid, grid), dtype=torch.uint8)


def distance_transform(occupancy: Tensor, spacing: float | tuple[float, float, float] = 1.0) -> Tensor:
    """Distance (B, G0, G1, G2) in grids of ``occupancy`` (B, G0, G1, G2); see ``nepa3d.ops.distance_transform``."""
    along = [float(spacing)] * 3 if isinstance(spacing, (int, float)) else [float(step) for step in spacing]
    return transform(occupancy, along)


@torch.library.custom_op("nepa3d::distance_transform", mutates_args=())
def transform(occupancy: Tensor, spacing: list[float]) -> Tensor:
    """The operator behind ``distance_transform``."""
    _require_grids(occupancy, "occupancy", torch.uint8)
    if len(spacing) != 3 or not all(step > 0 and math.isfinite(step) for step in spacing):
        raise ValueError(f"spacing must be positive, one or three numbers, got {spacing}")
    occupancy = occupancy.contiguous()
    distance = _transform_like(occupancy, spacing)
    module = tensors.module_for(occupancy.device)
    grids, *shape = occupancy.shape
    batch = module.Transforms(occupancy.data_ptr(), grids, shape, spacing, distance.data_ptr())
    scratch = occupancy.new_empty(batch.scratch_bytes())
    module.distance_transform(batch, scratch.data_ptr(), len(scratch), *tensors.place(occupancy))
    return distance


@transform.register_fake
def _transform_like(occupancy: Tensor, spacing: list[float]) -> Tensor:
    return occupancy.new_empty(occupancy.shape, dtype=torch.float32)


@torch.library.custom_op("nepa3d::trilinear_sample", mutates_args=())
def trilinear_sample(grid: Tensor, xyz: Tensor, offsets: Tensor) -> Tensor:
    """Values (M,) between those of ``grid`` (B, G, G, G) at points (M, 3); see ``nepa3d.ops.trilinear_sample``."""
    _require_cubes(grid, "grid", torch.float32)
    tensors.require_points(xyz, "xyz", "M")
    tensors.require_offsets(offsets, "offsets", xyz)
    _require_a_grid_each(grid, "grid", offsets)
    tensors.require_one_device(grid=grid, xyz=xyz, offsets=offsets)
    grid, xyz, offsets = tensors.contiguous(grid, xyz, offsets)
    found = _trilinear_like(grid, xyz, offsets)
    module = tensors.module_for(xyz.device)
    rows = tensors.ragged(module, offsets, xyz)
    place = tensors.place(xyz)
    module.trilinear_sample(grid.data_ptr(), grid.shape[1], xyz.data_ptr(), rows, found.data_ptr(), *place)
    return found


@trilinear_sample.register_fake
def _trilinear_like(grid: Tensor, xyz: Tensor, offsets: Tensor) -> Tensor:
    return xyz.new_empty(len(xyz))


def voxel_first_hit(
    occupancy: Tensor, origins: Tensor, directions: Tensor, offsets: Tensor, max_steps: int = 0
) -> VoxelHits:
    """First occupied cells along rays (R, 3) through ``occupancy`` (B, G, G, G); see ``nepa3d.ops.voxel_first_hit``."""
    return VoxelHits(*walk_voxels(occupancy, origins, directions, offsets, max_steps))


@torch.library.custom_op("nepa3d::walk_voxels", mutates_args=())
def walk_voxels(
    occupancy: Tensor, origins: Tensor, directions: Tensor, offsets: Tensor, max_steps: int
) -> tuple[Tensor, Tensor]:
    """The operator behind ``voxel_first_hit``."""
    _require_cubes(occupancy, "occupancy", torch.uint8)
    tensors.require_points(origins, "origins", "R")
    tensors.require_points(directions, "directions", "R")
    tensors.require_same_length(origins=origins, directions=directions)
    tensors.require_offsets(offsets, "offsets", origins)
    _require_a_grid_each(occupancy, "occupancy", offsets)
    tensors.require_one_device(occupancy=occupancy, origins=origins, directions=directions, offsets=offsets)
    _require_at_least(max_steps, 0, "max_steps")
    occupancy, origins, directions, offsets = tensors.contiguous(occupancy, origins, directions, offsets)
    hit, t = _walk_like(occupancy, origins, directions, offsets, max_steps)
    module, side = tensors.module_for(origins.device), occupancy.shape[1]
    module.walk_voxels(
        occupancy.data_ptr(),
        side,
        origins.data_ptr(),
        directions.data_ptr(),
        tensors.ragged(module, offsets, origins),
        max_steps or 3 * side,
        hit.data_ptr(),
        t.data_ptr(),
        *tensors.place(origins),
    )
    return hit, t


@walk_voxels.register_fake
def _walk_like(
    occupancy: Tensor, origins: Tensor, directions: Tensor, offsets: Tensor, max_steps: int
) -> tuple[Tensor, Tensor]:
    return origins.new_empty(len(origins), dtype=torch.bool), origins.new_empty(len(origins))


def _require_at_least(value: int, least: int, name: str) -> None:
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")


def _require_cells(grids: Tensor, name: str) -> None:
    if grids.numel() > tensors.MOST_ROWS:
        raise ValueError(f"{name} must have at most {tensors.MOST_ROWS} cells, got {grids.numel()}")


def _require_grids(grids: Tensor, name: str, dtype: torch.dtype, sizes: str = "(B, G0, G1, G2)") -> None:
    if grids.ndim != 4 or 0 in grids.shape:
        raise ValueError(f"{name} must have shape {sizes}, none 0, got {tuple(grids.shape)}")
    if grids.dtype != dtype:
        raise ValueError(f"{name} must be {dtype}, got {grids.dtype}".replace("torch.", ""))
    _require_cells(grids, name)


def _require_cubes(grids: Tensor, name: str, dtype: torch.dtype) -> None:
    _require_grids(grids, name, dtype, "(B, G, G, G)")
    if len({*grids.shape[1:]}) != 1:
        raise ValueError(f"{name} must have shape (B, G, G, G), got {tuple(grids.shape)}")


def _require_a_grid_each(grids: Tensor, name: str, offsets: Tensor) -> None:
    if len(grids) != len(offsets) - 1:
        raise ValueError(f"{name} must have a grid for each of {len(offsets) - 1} shapes, got {len(grids)}")
