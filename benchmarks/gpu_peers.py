"""Other libraries' ways on a GPU, for ``gpu_geometry``: each takes the arrays of a batch and gives what is timed.

What is timed returns the distances of all shapes. Bringing the arrays into a library's form is not timed.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Ragged = tuple[Tensor, Tensor]
Run = Callable[[], Tensor]


def shapes_of(*batches: Ragged) -> list[tuple[Tensor, ...]]:
    """The arrays of each shape."""
    split = [rows.split(offsets.diff().tolist()) for rows, offsets in batches]
    return list(zip(*split, strict=True))


def nearest_by_torch(points: Ragged, queries: Ragged) -> Run:
    shapes = shapes_of(points, queries)
    exact = "donot_use_mm_for_euclid_dist"  # the other way loses half of the digits
    return lambda: torch.cat([torch.cdist(asked, cloud, compute_mode=exact).min(1).values for cloud, asked in shapes])


def nearest_by_cupy(points: Ragged, queries: Ragged) -> Run:
    """A tree for each shape, built and asked."""
    import cupy
    from cupyx.scipy.spatial import KDTree

    shapes = [tuple(map(cupy.asarray, shape)) for shape in shapes_of(points, queries)]

    def run() -> Tensor:
        found = [KDTree(cloud).query(asked)[0] for cloud, asked in shapes]
        return torch.as_tensor(cupy.concatenate(found), device=queries[0].device).float()

    return run


def closest_by_warp(vertices: Ragged, faces: Ragged, queries: Ragged) -> Run:
    from benchmarks.gpu_warp import Meshes

    return Meshes(shapes_of(vertices, faces)).closest(queries[1].diff(), queries[0])


def first_hits_by_warp(vertices: Ragged, faces: Ragged, origins: Ragged, directions: Ragged) -> Run:
    from benchmarks.gpu_warp import Meshes

    return Meshes(shapes_of(vertices, faces)).first_hits(origins[1].diff(), origins[0], directions[0])


PEERS: dict[str, dict[str, Callable[..., Run]]] = {
    "nearest": {"torch": nearest_by_torch, "cupy": nearest_by_cupy},
    "closest points": {"warp": closest_by_warp},
    "first hits": {"warp": first_hits_by_warp},
}
