"""Batches of shapes beside the core, shape by shape, for the CPU twins and for a GPU alike: equal to the last bit."""

from __future__ import annotations

import numpy as np

from nepa3d import ops
from nepa3d.ops import cuda, cuda_grids, cuda_orders
from tests.cuda.meshes import MESHES, Mesh, joined, parts, points, rays
from tests.ops.test_geometry import cloud


def require_same_bits(found: np.ndarray, expected: np.ndarray) -> None:
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)
    assert found.tobytes() == expected.tobytes()  # signs of zeros, too


def compare_nearest(device: str) -> None:
    """Point by point and by a tree: clouds with ties, in one place, on a line, of one point and of none."""
    clouds = [cloud(300), cloud(1, 1), np.tile(cloud(20, 2), (30, 1)), np.round(4 * cloud(2000, 3)), cloud(257, 4)]
    clouds += [np.zeros((700, 3), np.float32), cloud(17_000, 10) * np.float32([1, 0, 0]), cloud(16, 11)]
    queries = [cloud(10, 5), cloud(1500, 6), np.round(4 * cloud(700, 7)) / 2, np.round(4 * cloud(900, 8)), cloud(0, 9)]
    queries += [cloud(40, 12), np.round(100 * cloud(300, 13)) / 100, 1000 * cloud(33, 14)]
    for search in (cuda.nearest, cuda.nearest_in_tree):
        found = search(*joined(clouds, device), *joined(queries, device))
        for values, field in zip(found, ("distance", "index"), strict=True):
            for part, points_of_shape, asked in zip(parts(values, queries), clouds, queries, strict=True):
                require_same_bits(part, getattr(ops.nearest_distance(points_of_shape, asked), field))


def compare_samples(device: str, meshes: list[Mesh] | None = None, count: int = 500) -> None:
    """Surface samples, those of the ends of [0, 1] among them, of meshes with an area."""
    meshes = [mesh for name, mesh in MESHES.items() if name != "in one place"] if meshes is None else meshes
    ends = np.array(np.meshgrid(*[[0, 0.5, np.nextafter(1, 0, dtype=np.float32), 1]] * 3), np.float32).reshape(3, -1).T
    drawn = [np.random.default_rng(seed).random((count, 3), np.float32) for seed in range(len(meshes))]
    uniforms = [np.concatenate([ends, each]) for each in drawn]
    vertices, faces = (joined([mesh[i] for mesh in meshes], device) for i in range(2))
    found = [parts(values, uniforms) for values in cuda.sample_surface(*vertices, *faces, *joined(uniforms, device))]
    for *samples, mesh, numbers in zip(*found, meshes, uniforms, strict=True):
        for part, expected in zip(samples, ops.sample_surface(*mesh, numbers), strict=True):
            require_same_bits(part, expected)


def compare_orders(device: str, count: int = 1000) -> None:
    """Morton order and ray order, with ties, zeros of both signs, poles, and points outside the cube."""
    clouds = [1.5 * cloud(count, 1), cloud(0, 2), np.round(4 * cloud(count, 3)) / 4, cloud(1, 4), cloud(count // 3, 5)]
    order = cuda_orders.morton_order(*joined(clouds, device))
    for found, points_of_shape in zip(parts(order, clouds), clouds, strict=True):
        require_same_bits(found, ops.morton_order(points_of_shape))

    directions = [cloud(count, seed) for seed in range(3)]
    directions = [each / np.linalg.norm(each, axis=1, keepdims=True) for each in directions]
    steps = np.array([-1, -0.5, -0.0, 0, 0.5, 1], np.float32)
    lattice = np.stack(np.meshgrid(steps, steps, steps), -1).reshape(-1, 3)
    directions += [np.tile(lattice, (2, 1)), cloud(0, 6), np.round(3 * cloud(count, 7)) / 3]
    order = cuda_orders.ray_direction_order(*joined(directions, device))
    for found, rays_of_shape in zip(parts(order, directions), directions, strict=True):
        require_same_bits(found, ops.ray_direction_order(rays_of_shape))


def compare_meshes(device: str, meshes: list[Mesh] | None = None, count: int = 400) -> None:
    """First hits and closest points."""
    meshes = [*MESHES.values()] if meshes is None else meshes
    vertices, vertex_offsets = joined([mesh[0] for mesh in meshes], device)
    faces, face_offsets = joined([mesh[1] for mesh in meshes], device)
    batch = cuda.build_meshes(vertices, vertex_offsets, faces, face_offsets)

    cast = [rays(mesh, count, seed) for seed, mesh in enumerate(meshes)]
    origins, offsets = joined([each.origins for each in cast], device)
    directions, _ = joined([each.directions for each in cast], device)
    hits = [parts(values, [each.origins for each in cast]) for values in batch.cast_rays(origins, directions, offsets)]
    for *found, mesh, each in zip(*hits, meshes, cast, strict=True):
        for part, expected in zip(found, ops.cast_rays(*mesh, *each), strict=True):
            require_same_bits(part, expected)

    asked = [points(mesh, count, seed) for seed, mesh in enumerate(meshes)]
    nearest = [parts(values, asked) for values in batch.closest_point(*joined(asked, device))]
    for *found, mesh, each in zip(*nearest, meshes, asked, strict=True):
        for part, expected in zip(found, ops.closest_point(*mesh, each), strict=True):
            require_same_bits(part, expected)


def compare_grids(device: str, side: int = 17) -> None:
    """Filling, dilation, distances, interpolation and ray walks in grids of several shapes, one of them empty."""
    clouds = [cloud(60, 1), np.round(4 * cloud(9, 2)) / 4, cloud(0, 3), np.float32([[-1, 1, 3], [-5, 0, 0]])]
    occupied = cuda_grids.voxelize(*joined(clouds, device), side, 1)
    for grid, points_of_shape in zip(occupied.cpu().numpy(), clouds, strict=True):
        require_same_bits(grid, ops.voxelize(points_of_shape, side, 1))

    cells = occupied.cpu().numpy()
    for spacing in (2 / side, (1.0, 0.7, 1.3)):
        distance = cuda_grids.distance_transform(occupied, spacing)
        for found, grid in zip(distance.cpu().numpy(), cells, strict=True):
            require_same_bits(found, ops.distance_transform(grid, spacing))
    slabs = occupied[:, :5, :9]
    for found, grid in zip(cuda_grids.distance_transform(slabs).cpu().numpy(), cells[:, :5, :9], strict=True):
        require_same_bits(found, ops.distance_transform(grid))

    asked = [1.2 * cloud(50 + i, 5 + i) for i in range(4)]
    field = distance.nan_to_num(posinf=2)
    values = parts(cuda_grids.trilinear_sample(field, *joined(asked, device)), asked)
    for found, grid, places in zip(values, field.cpu().numpy(), asked, strict=True):
        require_same_bits(found, ops.trilinear_sample(grid, places))

    origins = [np.concatenate([2 * cloud(80, i), np.round(4 * cloud(80, i)) / 4]) for i in range(4)]
    directions = [np.concatenate([cloud(80, 9 + i), np.round(2 * cloud(80, 9 + i))]) for i in range(4)]
    for max_steps in (0, 5):
        hits = cuda_grids.voxel_first_hit(
            occupied, joined(origins, device)[0], joined(directions, device)[0], joined(origins, device)[1], max_steps
        )
        walks = zip(parts(hits.hit, origins), parts(hits.t, origins), cells, origins, directions, strict=True)
        for hit, t, grid, origin, direction in walks:
            expected = ops.voxel_first_hit(grid, origin, direction, max_steps)
            require_same_bits(hit, expected.hit)
            require_same_bits(t, expected.t)
