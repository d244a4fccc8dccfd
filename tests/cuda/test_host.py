"""What the threads of a GPU do, run on the CPU: the core's answers to the last bit, whatever the tree."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import numpy as np
import pytest
import torch

from nepa3d import ops
from nepa3d.ops import cuda, cuda_grids, cuda_orders, cuda_tensors
from tests.cuda.comparison import (
    compare_grids,
    compare_meshes,
    compare_nearest,
    compare_orders,
    compare_samples,
    require_same_bits,
)
from tests.cuda.meshes import MESHES, joined, parts, points, rays
from tests.ops.test_geometry import cloud, icosphere


def test_nearest_points_have_the_cores_bits() -> None:
    compare_nearest("cpu")


def test_mesh_queries_have_the_cores_bits() -> None:
    compare_meshes("cpu")


def test_surface_samples_have_the_cores_bits() -> None:
    compare_samples("cpu")


def test_orders_have_the_cores_bits() -> None:
    compare_orders("cpu")


def test_grids_have_the_cores_bits() -> None:
    compare_grids("cpu")


@pytest.mark.parametrize("name", ["box", "repeated", "repeated, turned", "sphere", "needles"])
def test_the_cores_answers_do_not_depend_on_its_tree(name: str) -> None:
    """The least of what the core says of each face alone, of equal ones the lowest face."""
    vertices, faces = MESHES[name]
    faces = faces[:: max(1, len(faces) // 60)]
    cast, asked = rays((vertices, faces), 150, 5), points((vertices, faces), 150, 5)
    alone = [ops.TriangleBvh(vertices, face[None]) for face in faces]

    hits = [mesh.cast_rays(*cast) for mesh in alone]
    t = np.array([hit.t for hit in hits])
    first, row = t.argmin(0), np.arange(len(cast.origins))
    found = ops.cast_rays(vertices, faces, *cast)
    require_same_bits(found.t, t.min(0))
    require_same_bits(found.face, np.where(np.isinf(t.min(0)), -1, first))
    require_same_bits(found.barycentric, np.array([hit.barycentric for hit in hits])[first, row])

    answers = [mesh.closest_point(asked) for mesh in alone]
    distance = np.array([answer.distance for answer in answers])
    nearest, row = ops.closest_point(vertices, faces, asked), np.arange(len(asked))
    require_same_bits(nearest.distance, distance.min(0))
    least = distance == distance.min(0)
    assert least[nearest.face, row].all()
    require_same_bits(nearest.point, np.array([answer.point for answer in answers])[nearest.face, row])


def test_shapes_may_be_empty() -> None:
    vertices, faces = icosphere(1)
    no_vertices, no_faces = np.empty((0, 3), np.float32), np.empty((0, 3), np.int64)
    shapes = [no_vertices, vertices, no_vertices]
    batch = cuda.build_meshes(*joined(shapes), *joined([no_faces, faces, no_faces]))
    asked = [cloud(3), cloud(4), cloud(5)]
    distance = parts(batch.closest_point(*joined(asked)).distance, asked)
    assert [np.isinf(part).all() for part in distance] == [True, False, True]
    origins, offsets = joined(asked)
    face = parts(batch.cast_rays(torch.zeros_like(origins), origins, offsets).face, asked)
    assert [(part >= 0).all() for part in face] == [False, True, False]
    lonely = parts(cuda.nearest_distance(*joined(shapes), *joined(asked)).distance, asked)
    assert [np.isinf(part).all() for part in lonely] == [True, False, True]
    in_tree = cuda.nearest_in_tree(*joined(shapes), *joined(asked))
    assert [np.isinf(part).all() for part in parts(in_tree[0], asked)] == [True, False, True]
    assert [(part == 0).all() for part in parts(in_tree[1], asked)] == [True, False, True]
    nothing = cuda.nearest_in_tree(*joined([no_vertices]), *joined([no_vertices]))
    assert [len(values) for values in nothing] == [0, 0]


def test_distances_that_overflow_have_the_index_of_the_core() -> None:
    points, queries = np.float32(1e30) * cloud(1500, 1), np.float32(-1e30) * cloud(70, 2)
    found, expected = cuda.nearest_in_tree(*joined([points]), *joined([queries])), ops.nearest_distance(points, queries)
    require_same_bits(found[0].numpy(), expected.distance)
    require_same_bits(found[1].numpy(), expected.index)


def test_a_tree_looks_at_few_of_the_points() -> None:
    """By the counts of its own: nodes, boxes looked at again, leaves of 16 points, for each 32 queries."""
    points = icosphere(5)[0]
    queries = points[::5][:2000] + np.float32(0.1) * cloud(2000)
    module = cuda_tensors.module_for(torch.device("cpu"))
    arrays = *joined([points]), *joined([queries])
    rows = [cuda_tensors.ragged(module, arrays[i + 1], arrays[i]) for i in (0, 2)]
    distance, index = torch.empty(2000), torch.empty(2000, dtype=torch.int64)
    groups = 2000 // 32 + 1
    visits = torch.zeros(groups, 3, dtype=torch.int64)
    scratch = torch.empty(module.nearest_in_tree_scratch_bytes(len(points), 2000, 1, 0), dtype=torch.uint8)
    places = arrays[0].data_ptr(), rows[0], arrays[2].data_ptr(), rows[1], distance.data_ptr(), index.data_ptr()
    module.nearest_in_tree(*places, visits.data_ptr(), scratch.data_ptr(), len(scratch), 0, 0)
    require_same_bits(index.numpy(), ops.nearest_distance(points, queries).index)
    nodes, looks, leaves = visits.double().mean(0).tolist()
    assert (visits > 0).all() and leaves <= looks
    assert 16 * leaves < 0.1 * len(points) and 32 * nodes < 0.1 * len(points)


def test_small_batches_are_compared_point_by_point(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    for name in ("nearest", "nearest_in_tree"):
        search = getattr(cuda, name)
        monkeypatch.setattr(cuda, name, lambda *given, name=name, search=search: asked.append(name) or search(*given))
    queries = joined([cloud(3), cloud(4)])
    cuda.nearest_distance(*joined([cloud(1500), cloud(547)]), *queries)
    cuda.nearest_distance(*joined([cloud(1500), cloud(548)]), *queries)
    assert asked == ["nearest", "nearest_in_tree"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"points": torch.zeros(5, 2)}, r"points must have shape \(N, 3\), got \(5, 2\)"),
        ({"points": torch.zeros(5, 3).double()}, "points must be float32, got float64"),
        ({"queries": torch.zeros(3)}, r"queries must have shape \(M, 3\), got \(3,\)"),
        ({"point_offsets": torch.tensor([0, 5])}, "point_offsets must be int32, got int64"),
        ({"point_offsets": torch.tensor([0, 4], dtype=torch.int32)}, r"point_offsets must rise from 0 to .* 5, got"),
        ({"query_offsets": torch.tensor([0, 3, 2, 4], dtype=torch.int32)}, "query_offsets must rise"),
        ({"query_offsets": torch.tensor([0, 1, 4], dtype=torch.int32)}, "number of shapes, got 1 and 2"),
        ({"query_offsets": torch.tensor(4, dtype=torch.int32)}, r"query_offsets must have shape \(B \+ 1,\)"),
    ],
)
def test_bad_input_names_the_argument(change: dict[str, torch.Tensor], message: str) -> None:
    offsets = [torch.tensor([0, count], dtype=torch.int32) for count in (5, 4)]
    given = {"points": torch.zeros(5, 3), "queries": torch.zeros(4, 3)}
    given |= {"point_offsets": offsets[0], "query_offsets": offsets[1]}
    with pytest.raises(ValueError, match=message):
        cuda.nearest_distance(**(given | change))


def test_bad_grids_name_the_argument() -> None:
    points, offsets = joined([cloud(3), cloud(2)])
    cells = torch.zeros(2, 4, 4, 4, dtype=torch.uint8)
    with pytest.raises(ValueError, match="grid must be at least 1, got 0"):
        cuda_grids.voxelize(points, offsets, 0)
    with pytest.raises(ValueError, match=r"occupancy must have shape \(B, G0, G1, G2\), none 0, got \(4, 4\)"):
        cuda_grids.distance_transform(cells[0, 0])
    with pytest.raises(ValueError, match="spacing must be positive, one or three numbers, got"):
        cuda_grids.distance_transform(cells, (1.0, 0.0, 1.0))
    with pytest.raises(ValueError, match="grid must be float32, got uint8"):
        cuda_grids.trilinear_sample(cells, points, offsets)
    with pytest.raises(ValueError, match=r"occupancy must have shape \(B, G, G, G\), got \(2, 4, 4, 3\)"):
        cuda_grids.voxel_first_hit(cells[..., :3], points, points, offsets)
    with pytest.raises(ValueError, match="occupancy must have a grid for each of 2 shapes, got 1"):
        cuda_grids.voxel_first_hit(cells[:1], points, points, offsets)


def test_bad_samples_name_the_argument() -> None:
    vertices, faces = icosphere(0)
    meshes = *joined([vertices, vertices]), *joined([faces, faces])
    numbers, offsets = joined([np.full((4, 3), 0.5, np.float32), np.full((2, 3), 0.5, np.float32)])
    for wrong in (numbers + 1, numbers * float("nan")):
        with pytest.raises(ValueError, match=r"uniforms must lie in \[0, 1\]; some do not"):
            cuda.sample_surface(*meshes, wrong, offsets)
    with pytest.raises(
        ValueError, match="face_offsets and sample_offsets must be of the same number of shapes, got 2 and 1"
    ):
        cuda.sample_surface(*meshes, numbers, offsets[[0, 2]])
    with pytest.raises(ValueError, match="faces must index the vertices of their shape"):
        cuda.sample_surface(*meshes[:2], meshes[2] + 1, meshes[3], numbers, offsets)
    flat = joined([vertices, np.zeros_like(vertices)])
    with pytest.raises(ValueError, match="faces must have a positive total area, those of shape 1 have none"):
        cuda.sample_surface(*flat, *meshes[2:], numbers, offsets)


def test_bad_rays_name_the_argument() -> None:
    with pytest.raises(ValueError, match=r"directions must have shape \(R, 3\), got \(5, 2\)"):
        cuda_orders.ray_direction_order(torch.zeros(5, 2), torch.tensor([0, 5], dtype=torch.int32))
    with pytest.raises(ValueError, match=r"offsets must rise from 0 to the number of rows, 5, got \[0, 4\]"):
        cuda_orders.morton_order(torch.zeros(5, 3), torch.tensor([0, 4], dtype=torch.int32))


@pytest.mark.parametrize("index", [-1, 12])
def test_a_face_must_index_vertices_of_its_shape(index: int) -> None:
    vertices, faces = icosphere(0)
    wrong = faces.copy()
    wrong[3, 1] = index
    with pytest.raises(ValueError, match="faces must index the vertices of their shape"):
        cuda.build_meshes(*joined([vertices, vertices]), *joined([wrong, faces]))


@pytest.mark.parametrize(
    "operator",
    [
        *("nearest", "nearest_in_tree", "build_bvh", "first_hits", "closest_points"),
        *("sample_surface", "morton_order", "ray_direction_order"),
        *("voxelize", "distance_transform", "trilinear_sample", "walk_voxels"),
    ],
)
def test_the_operators_keep_pytorchs_rules(operator: str) -> None:
    vertices, vertex_offsets = joined([icosphere(0)[0]] * 2)
    faces, face_offsets = joined([icosphere(0)[1].astype(np.int32)] * 2)
    queries, offsets = joined([cloud(5), cloud(3)])
    meshes = cuda.build_meshes(vertices, vertex_offsets, faces, face_offsets)
    cells = cuda_grids.voxelize(queries, offsets, 4)
    arguments = {
        "nearest": (vertices, vertex_offsets, queries, offsets),
        "nearest_in_tree": (vertices, vertex_offsets, queries, offsets),
        "sample_surface": (vertices, vertex_offsets, faces, face_offsets, queries.abs(), offsets),
        "morton_order": (queries, offsets),
        "ray_direction_order": (queries, offsets),
        "build_bvh": (vertices, vertex_offsets, faces, face_offsets),
        "first_hits": (*meshes, queries, queries, offsets),
        "closest_points": (*meshes, queries, offsets),
        "voxelize": (queries, offsets, 4, 1),
        "distance_transform": (cells, [1.0, 1.0, 1.0]),
        "trilinear_sample": (cells.float(), queries, offsets),
        "walk_voxels": (cells, queries, queries, offsets, 0),
    }[operator]
    checks = ("test_schema", "test_faketensor")
    torch.library.opcheck(getattr(torch.ops.nepa3d, operator).default, arguments, test_utils=checks)


def test_without_the_module_tensors_on_a_gpu_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nepa3d._cuda", None)
    with pytest.raises(ValueError, match=r"built without its CUDA module.*got tensors on cuda:0"):
        cuda_tensors.module_for(torch.device("cuda", 0))
    with pytest.raises(ValueError, match="must be on a CUDA device or the CPU, got meta"):
        cuda_tensors.module_for(torch.device("meta"))


def test_importing_the_package_loads_neither_module() -> None:
    code = (
        "import sys, nepa3d, nepa3d.ops; print([name for name in sys.modules if '_cuda' in name and 'nepa3d' in name])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.skipif(importlib.util.find_spec("nepa3d._cuda") is None, reason="needs the CUDA module: make cuda")
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_both_modules_load_together_and_a_missing_driver_is_named() -> None:
    modules = [importlib.import_module(f"nepa3d.{name}") for name in ("_cuda_host", "_cuda")]
    offsets = torch.tensor([0, 1], dtype=torch.int32)
    for module in modules:
        cuda_tensors.ragged(module, offsets, torch.zeros(1, 3))
    with pytest.raises(RuntimeError, match=r"cudaGetDeviceCount: .*error 35"):
        modules[1].devices()
