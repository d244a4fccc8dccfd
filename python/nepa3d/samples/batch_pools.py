"""``query_pools.build_pools`` for several shapes at a time, answered by ``nepa3d.ops.cuda``: the same bytes.

Random numbers are drawn on the CPU, where their streams are defined; what follows from them is computed on the device.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from nepa3d.ops import cuda, cuda_grids
from nepa3d.ops.cuda_tensors import module_for
from nepa3d.shapes.mesh import Mesh
from nepa3d.shapes.query_pools import Arrays, PoolSettings, camera_rays, point_queries, random_stream

Ragged = tuple[Tensor, Tensor]  # the rows of all shapes, and where each shape's begin
Tensors = dict[str, Tensor]


def require_gpu() -> None:
    """``ValueError`` if there is no GPU that torch can use, or this build has no operations for it."""
    if not torch.cuda.is_available():
        raise ValueError("device: there is no GPU that torch can use (nepa3d doctor says what is there), got cuda")
    module_for(torch.device("cuda"))


def build_pools_of_batch(
    meshes: Sequence[Mesh], settings: PoolSettings, seed: int, keys: Sequence[str], device: torch.device | str
) -> list[Arrays]:
    """Every array of the cache file of each of the shapes ``keys``, in the order of ``meshes``; see ``build_pools``.

    All shapes are on the device at the same time, with all that is computed of them. ``ValueError`` if there is not one
    key for each mesh, or this build has no operations for ``device``.
    """
    if len(meshes) != len(keys):
        raise ValueError(f"keys must be as many as meshes, {len(meshes)}, got {len(keys)}")
    module_for(torch.device(device))
    if not meshes:
        return []
    batch = _Batch(meshes, seed, keys, torch.device(device))
    surface, normals = batch.surface(settings.pc_points, "surface")
    clouds = np.split(surface[0].cpu().numpy(), len(meshes))
    queries = batch.joined(
        [
            point_queries(cloud, settings, random_stream(seed, key, "points"))
            for cloud, key in zip(clouds, keys, strict=True)
        ]
    )
    trees = cuda.MeshBatch(*cuda.build_bvh(*batch.vertices, *batch.faces))
    if settings.pt_dist_mode == "mesh":
        distance = torch.as_tensor(trees.closest_point(*queries).distance)
    else:
        distance, _ = _nearest(batch.surface(settings.dist_ref_points, "reference")[0], queries)
    found: Tensors = {
        "pc_xyz": surface[0],
        "pc_n": normals,
        "pt_xyz_pool": queries[0],
        "pt_dist_pool": distance,
        "pt_dist_pc_pool": _nearest(surface, queries)[0],
    }
    found |= _distance_field(surface, queries, settings)
    cast = [camera_rays(settings, random_stream(seed, key, "rays")) for key in keys]
    origins, directions = (batch.joined([each[i] for each in cast]) for i in range(2))
    found |= {"ray_o_pool": origins[0], "ray_d_pool": directions[0]}
    found |= _mesh_ray_answers(batch, trees, origins, directions)
    if not settings.no_pc_rays:
        found |= _cloud_ray_answers(surface, normals, origins, directions, settings)
    return _shape_by_shape(found, len(meshes))


def _nearest(points: Ragged, queries: Ragged) -> tuple[Tensor, Tensor]:
    """Distances and indices."""
    distance, index = map(torch.as_tensor, cuda.nearest_distance(*points, *queries))
    return distance, index


def _shape_by_shape(found: Tensors, shapes: int) -> list[Arrays]:
    """All shapes have as many rows; a grid is one."""
    split = {name: np.split(values.cpu().numpy(), shapes) for name, values in found.items()}
    for name in ("udf_grid", "occ_grid"):
        split[name] = [grid[0] for grid in split[name]]
    return [{name: parts[number] for name, parts in split.items()} for number in range(shapes)]


class _Batch:
    """Meshes on the device, and the random numbers of their shapes."""

    def __init__(self, meshes: Sequence[Mesh], seed: int, keys: Sequence[str], device: torch.device) -> None:
        self.seed, self.keys, self.device = seed, keys, device
        self.vertices = self.joined([mesh.vertices for mesh in meshes])
        self.faces = self.joined([mesh.faces.astype(np.int32) for mesh in meshes])

    def joined(self, rows: Sequence[np.ndarray]) -> Ragged:
        offsets = torch.tensor([0, *itertools.accumulate(map(len, rows))], dtype=torch.int32)
        return torch.from_numpy(np.concatenate(rows)).to(self.device), offsets.to(self.device)

    def surface(self, count: int, purpose: str) -> tuple[Ragged, Tensor]:
        """``count`` samples of each shape, and their normals."""
        drawn = [random_stream(self.seed, key, purpose).random((count, 3), np.float32) for key in self.keys]
        uniforms = self.joined(drawn)
        point, normal, _ = cuda.sample_surface(*self.vertices, *self.faces, *uniforms)
        return (torch.as_tensor(point), uniforms[1]), torch.as_tensor(normal)


def _distance_field(surface: Ragged, queries: Ragged, settings: PoolSettings) -> Tensors:
    """``query_pools.distance_field`` of a batch."""
    rows, shapes = surface[0], len(surface[1]) - 1
    sizes = {
        "df_grid": torch.full((shapes,), settings.df_grid, dtype=torch.int32),
        "df_dilate": torch.full((shapes,), settings.df_dilate, dtype=torch.int32),
    }
    if settings.no_udf:
        nothing = rows.new_zeros((shapes, 1, 1, 1))
        return {"udf_grid": nothing.half(), "occ_grid": nothing.to(torch.uint8), **sizes}
    occupancy = cuda_grids.voxelize(*surface, settings.df_grid, settings.df_dilate)
    distance = cuda_grids.distance_transform(occupancy, 2 / settings.df_grid)
    at_queries = cuda_grids.trilinear_sample(distance, *queries)
    return {"udf_grid": distance.half(), "occ_grid": occupancy, **sizes, "pt_dist_udf_pool": at_queries}


def _mesh_ray_answers(batch: _Batch, trees: cuda.MeshBatch, origins: Ragged, directions: Ragged) -> Tensors:
    """``query_pools.mesh_ray_answers`` of a batch."""
    t, face, _ = map(torch.as_tensor, trees.cast_rays(origins[0], *directions))
    hit = face >= 0
    normal = _face_normals(batch, face.clamp(min=0), origins[1])
    return {
        "ray_hit_pool": hit.float(),
        "ray_t_pool": torch.where(hit, t, torch.zeros_like(t)),
        "ray_n_pool": torch.where(hit[:, None], normal, torch.zeros_like(normal)),
    }


def _face_normals(batch: _Batch, of: Tensor, offsets: Tensor) -> Tensor:
    """``Mesh.face_normals`` of faces counted from their shapes' first, in its order of operations, one by one: where
    they were fused, the last bits would differ."""
    (vertices, vertex_offsets), (faces, face_offsets) = batch.vertices, batch.faces
    rows = offsets.diff()

    def first(starts: Tensor) -> Tensor:
        return starts[:-1].long().repeat_interleave(rows, output_size=len(of))

    corners = faces[first(face_offsets) + of].long() + first(vertex_offsets)[:, None]
    a, b, c = (vertices[corners[:, k]].double() for k in range(3))
    (ux, uy, uz), (vx, vy, vz) = (b - a).unbind(1), (c - a).unbind(1)
    x, y, z = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
    length = (x * x + y * y + z * z).sqrt()[:, None]
    normal = torch.stack([x, y, z], 1)
    return torch.where(length > 0, normal / length, torch.zeros_like(normal)).float()


def _cloud_ray_answers(
    surface: Ragged, normals: Tensor, origins: Ragged, directions: Ragged, settings: PoolSettings
) -> Tensors:
    """``query_pools.cloud_ray_answers`` of a batch."""
    occupancy = cuda_grids.voxelize(*surface, settings.pc_grid, settings.pc_dilate)
    walked = cuda_grids.voxel_first_hit(occupancy, origins[0], *directions, settings.pc_max_steps)
    hit, t = map(torch.as_tensor, walked)
    along = t[:, None] * directions[0]
    _, nearest = _nearest(surface, (origins[0] + along, origins[1]))
    clouds = surface[1][:-1].long().repeat_interleave(origins[1].diff(), output_size=len(hit))
    normal = normals[clouds + nearest]
    return {
        "ray_hit_pc_pool": hit.float(),
        "ray_t_pc_pool": t,
        "ray_n_pc_pool": torch.where(hit[:, None], normal, torch.zeros_like(normal)),
    }
