"""Orders of the points and rays of batches of shapes on a GPU, see ``nepa3d.ops.cuda``.

Letters: B shapes, N points, R rays, each of the whole batch.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nepa3d.ops import cuda_tensors as tensors


@torch.library.custom_op("nepa3d::morton_order", mutates_args=())
def morton_order(xyz: Tensor, offsets: Tensor) -> Tensor:
    """Indices (N,) that sort each shape's points (N, 3) by Morton code; see ``nepa3d.ops.morton_order``.

    A shape's indices stand where its points do, and are counted from its first.
    """
    return _sorted_by("morton_order", xyz, "xyz", "N", offsets)


@torch.library.custom_op("nepa3d::ray_direction_order", mutates_args=())
def ray_direction_order(directions: Tensor, offsets: Tensor) -> Tensor:
    """Indices (R,) that sort each shape's unit directions (R, 3); see ``nepa3d.ops.ray_direction_order``.

    A shape's indices stand where its rays do, and are counted from its first.
    """
    return _sorted_by("ray_direction_order", directions, "directions", "R", offsets)


@morton_order.register_fake
@ray_direction_order.register_fake
def _order_like(rows: Tensor, offsets: Tensor) -> Tensor:
    return rows.new_empty(len(rows), dtype=torch.int64)


def _sorted_by(order: str, rows: Tensor, name: str, letter: str, offsets: Tensor) -> Tensor:
    tensors.require_points(rows, name, letter)
    tensors.require_offsets(offsets, "offsets", rows)
    tensors.require_one_device(**{name: rows, "offsets": offsets})
    rows, offsets = tensors.contiguous(rows, offsets)
    found = _order_like(rows, offsets)
    module, (device, stream) = tensors.module_for(rows.device), tensors.place(rows)
    scratch_bytes = module.ordering_scratch_bytes(len(rows), len(offsets) - 1, device)
    scratch = rows.new_empty(scratch_bytes, dtype=torch.uint8)
    launch = getattr(module, order)
    launch(
        rows.data_ptr(),
        tensors.ragged(module, offsets, rows),
        found.data_ptr(),
        scratch.data_ptr(),
        scratch_bytes,
        device,
        stream,
    )
    return found
