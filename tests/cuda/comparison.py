"""Batches of shapes beside the core, shape by shape, for the CPU twins and for a GPU alike: equal to the last bit."""

from __future__ import annotations

import numpy as np

from nepa3d import ops
from nepa3d.ops import cuda
from tests.cuda.meshes import MESHES, Mesh, joined, parts, points, rays
from tests.ops.test_geometry import cloud


def require_same_bits(found: np.ndarray, expected: np.ndarray) -> None:
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)
    assert found.tobytes() == expected.tobytes()  # signs of zeros, too


def compare_nearest(device: str) -> None:
    clouds = [cloud(300), cloud(1, 1), np.tile(cloud(20, 2), (30, 1)), np.round(4 * cloud(2000, 3)), cloud(257, 4)]
    queries = [cloud(10, 5), cloud(1500, 6), np.round(4 * cloud(700, 7)) / 2, np.round(4 * cloud(900, 8)), cloud(0, 9)]
    found = cuda.nearest_distance(*joined(clouds, device), *joined(queries, device))
    for values, field in zip(found, ("distance", "index"), strict=True):
        for part, points_of_shape, asked in zip(parts(values, queries), clouds, queries, strict=True):
            require_same_bits(part, getattr(ops.nearest_distance(points_of_shape, asked), field))


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
