"""Ops that return several arrays name them; the plain twins return the same types."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from nepa3d import ops
from nepa3d.ops import reference

VERTICES = np.float32([[0, 0, 0], [1, 0, 0], [0, 1, 0]])
FACES = np.array([[0, 1, 2]])
QUERIES = np.float32([[0.2, 0.2, 1], [5, 0, 0]])
DOWN = np.float32([[0, 0, -1], [0, 0, -1]])
OFF = b"OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n"
PLY = (
    b"ply\nformat ascii 1.0\nelement vertex 3\nproperty float x\nproperty float y\nproperty float z\n"
    b"element face 1\nproperty list uchar int vertex_indices\nend_header\n0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n"
)
STL = b"solid\nfacet normal 0 0 1\nouter loop\nvertex 0 0 0\nvertex 1 0 0\nvertex 0 1 0\nendloop\nendfacet\nendsolid\n"

Call = Callable[[ModuleType], Any]

WITH_TWIN: dict[str, tuple[type, Call]] = {
    "nearest_distance": (ops.NearestPoints, lambda side: side.nearest_distance(VERTICES, QUERIES)),
    "cast_rays": (ops.RayHits, lambda side: side.cast_rays(VERTICES, FACES, QUERIES, DOWN)),
    "closest_point": (ops.ClosestPoints, lambda side: side.closest_point(VERTICES, FACES, QUERIES)),
    "sample_surface": (
        ops.SurfaceSamples,
        lambda side: side.sample_surface(VERTICES, FACES, np.full((2, 3), 0.25, np.float32)),
    ),
    "voxel_first_hit": (
        ops.VoxelHits,
        lambda side: side.voxel_first_hit(np.ones((2, 2, 2), np.uint8), QUERIES, DOWN),
    ),
}
ALONE: dict[str, tuple[type, Call]] = {
    "KdTree.query": (ops.NearestPoints, lambda side: side.KdTree(VERTICES).query(QUERIES)),
    "TriangleBvh.cast_rays": (ops.RayHits, lambda side: side.TriangleBvh(VERTICES, FACES).cast_rays(QUERIES, DOWN)),
    "TriangleBvh.closest_point": (
        ops.ClosestPoints,
        lambda side: side.TriangleBvh(VERTICES, FACES).closest_point(QUERIES),
    ),
    "parse_obj": (ops.ParsedMesh, lambda side: side.parse_obj(b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")),
    "parse_off": (ops.ParsedMesh, lambda side: side.parse_off(OFF)),
    "parse_ply": (ops.RepairedMesh, lambda side: side.parse_ply(PLY)),
    "parse_stl": (ops.RepairedMesh, lambda side: side.parse_stl(STL)),
    "clean_mesh": (ops.CleanMesh, lambda side: side.clean_mesh(VERTICES, FACES)),
}


@pytest.mark.parametrize(("kind", "call"), [*WITH_TWIN.values(), *ALONE.values()], ids=[*WITH_TWIN, *ALONE])
def test_results_are_named_and_unpack_in_the_order_of_their_fields(kind: type, call: Call) -> None:
    found = call(ops)
    assert type(found) is kind
    assert list(found._asdict()) == list(kind.__annotations__)
    assert all(getattr(found, name) is part for name, part in zip(found._fields, found, strict=True))


@pytest.mark.parametrize(("kind", "call"), WITH_TWIN.values(), ids=list(WITH_TWIN))
def test_twins_return_the_same_types_field_by_field(kind: type, call: Call) -> None:
    found, expected = call(ops), call(reference)
    assert type(expected) is kind
    for name in expected._fields:
        assert getattr(found, name).dtype == getattr(expected, name).dtype
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=0, atol=1e-6, err_msg=name)


def test_names_say_which_array_is_which() -> None:
    hits = ops.cast_rays(VERTICES, FACES, QUERIES, DOWN)
    np.testing.assert_array_equal(hits.t, [1, np.inf])
    np.testing.assert_array_equal(hits.face, [0, -1])
    np.testing.assert_allclose(hits.barycentric, [[0.6, 0.2, 0.2], [0, 0, 0]], atol=1e-6)
    nearest = ops.nearest_distance(VERTICES, QUERIES)
    np.testing.assert_array_equal(nearest.index, [0, 1])
    np.testing.assert_array_equal(nearest.distance[1:], [4])
    closest = ops.closest_point(VERTICES, FACES, QUERIES)
    np.testing.assert_allclose(closest.point, [[0.2, 0.2, 0], [1, 0, 0]], atol=1e-6)
    samples = ops.sample_surface(VERTICES, FACES, np.full((1, 3), 0.25))
    assert samples.point.shape == (1, 3)
    np.testing.assert_array_equal(samples.normal, [[0, 0, 1]])
    voxels = ops.voxel_first_hit(np.ones((2, 2, 2), np.uint8), np.float32([[0.5, 0.5, 3]]), DOWN[:1])
    np.testing.assert_array_equal(voxels.hit, [True])
    np.testing.assert_array_equal(voxels.t, [2])
    assert ops.parse_stl(STL.replace(b"endsolid\n", b"")).repaired != ""
    clean = ops.clean_mesh(VERTICES, [[0, 1, 2], [0, 0, 1]])
    assert clean.dropped["degenerate_faces"] == 1
    np.testing.assert_array_equal(clean.faces, [[0, 1, 2]])
