"""The geometry over batches of shapes on a GPU, in one launch for the batch: tensors in, tensors out.

A batch of shapes of different sizes is ragged: the rows of all shapes are joined, and ``offsets`` (B + 1,) says where
each shape's begin; the first is 0, the last the number of rows. Indices of points, vertices and faces are counted from
their shape's first. Letters: B shapes, N points, M queries, R rays, V vertices, F faces, each of the whole batch.

The answers have the bits of ``nepa3d.ops`` on the CPU, shape by shape, and do not depend on what else is in a batch.
Launches go to the current stream of the tensors' device and are not waited for. On CPU tensors the same thread
functions run one after the other: that is for tests, ``nepa3d.ops`` is much faster there.

The functions are operators of PyTorch (``torch.ops.nepa3d``), so that ``torch.compile`` keeps them whole; they have no
gradients. Coordinates must be finite, which is not checked here but by ``nepa3d.ops``, since the CPU would have to wait
for the GPU's answer; with others the answers mean nothing. On a GPU the values of offsets are not checked either.
``RuntimeError`` names the call that CUDA refused. ``nepa3d.ops.cuda_grids`` has the occupancy grids,
``nepa3d.ops.cuda_orders`` the orders of points and rays.
"""

from __future__ import annotations

from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor

from nepa3d.ops import cuda_tensors as tensors
from nepa3d.ops.results import ClosestPoints, NearestPoints, RayHits, SurfaceSamples

_NODE_FLOATS = 16
_TRIANGLE_FLOATS = 12
_TREE_FROM = 1024  # points a shape: with fewer, comparing with all of them takes no more instructions than sorting


class MeshBatch(NamedTuple):
    """The trees over a batch of meshes, built by ``build_meshes``, to cast rays at and to find closest points on."""

    nodes: Tensor  # (F, 16) float32: two boxes and where they lead
    triangles: Tensor  # (F, 12) float32: corners, and the face's index
    roots: Tensor  # (B,) int32

    def cast_rays(self, origins: Tensor, directions: Tensor, offsets: Tensor) -> RayHits:
        """First hits of rays (R, 3), shape by shape (``offsets`` (B + 1,)); see ``nepa3d.ops.cast_rays``."""
        return RayHits(*first_hits(*self, origins, directions, offsets))

    def closest_point(self, queries: Tensor, offsets: Tensor) -> ClosestPoints:
        """Nearest points to queries (M, 3), shape by shape (``offsets`` (B + 1,)); see ``nepa3d.ops.closest_point``."""
        return ClosestPoints(*closest_points(*self, queries, offsets))


def nearest_distance(points: Tensor, point_offsets: Tensor, queries: Tensor, query_offsets: Tensor) -> NearestPoints:
    """Distance (M,) from each query (M, 3) to the nearest of its shape's ``points`` (N, 3), and its index (M,).

    Of equally near points the lowest index; a shape without points is infinitely far. Batches of 1024 points a shape
    and more are searched by a tree built for the call (``nearest_in_tree``), smaller ones point by point (``nearest``).
    """
    search = nearest_in_tree if len(points) >= _TREE_FROM * (len(point_offsets) - 1) else nearest
    return NearestPoints(*search(points, point_offsets, queries, query_offsets))


def build_meshes(vertices: Tensor, vertex_offsets: Tensor, faces: Tensor, face_offsets: Tensor) -> MeshBatch:
    """Builds the trees over meshes of ``vertices`` (V, 3) and ``faces`` (F, 3) of int32 or int64.

    Bounding volume hierarchies along each shape's Morton curve (Apetrei, 2014), of 112 bytes a face. ``ValueError`` if
    a face indexes no vertex of its shape, for which the CPU waits once.
    """
    faces = _checked_faces(vertices, vertex_offsets, faces, face_offsets)
    return MeshBatch(*build_bvh(vertices, vertex_offsets, faces, face_offsets))


def sample_surface(
    vertices: Tensor,
    vertex_offsets: Tensor,
    faces: Tensor,
    face_offsets: Tensor,
    uniforms: Tensor,
    sample_offsets: Tensor,
) -> SurfaceSamples:
    """Area-weighted samples of meshes as ``build_meshes`` takes them, one for each of ``uniforms`` (N, 3) in [0, 1].

    Point (N, 3), unit face normal (N, 3), face (N,); see ``nepa3d.ops.sample_surface``. ``ValueError`` if a face
    indexes no vertex of its shape, a number lies outside, or a shape has no area, for which the CPU waits.
    """
    faces = _checked_faces(vertices, vertex_offsets, faces, face_offsets)
    if not bool(((uniforms >= 0) & (uniforms <= 1)).all()):
        raise ValueError("uniforms must lie in [0, 1]; some do not")
    *samples, total = surface_samples(vertices, vertex_offsets, faces, face_offsets, uniforms, sample_offsets)
    flat = ~(total > 0)
    if bool(flat.any()):
        raise ValueError(f"faces must have a positive total area, those of shape {int(flat.nonzero()[0, 0])} have none")
    return SurfaceSamples(*samples)


def _checked_faces(vertices: Tensor, vertex_offsets: Tensor, faces: Tensor, face_offsets: Tensor) -> Tensor:
    """The faces of a batch as the operators take them."""
    tensors.require_rows(faces, "faces", "F", (torch.int32, torch.int64))
    tensors.require_offsets(face_offsets, "face_offsets", faces)
    tensors.require_offsets(vertex_offsets, "vertex_offsets", vertices)
    tensors.require_same_batch(vertex_offsets=vertex_offsets, face_offsets=face_offsets)
    tensors.require_one_device(vertices=vertices, vertex_offsets=vertex_offsets, faces=faces, face_offsets=face_offsets)
    sizes = vertex_offsets.diff().repeat_interleave(face_offsets.diff(), output_size=len(faces))
    if bool(((faces < 0) | (faces >= sizes[:, None])).any()):
        raise ValueError("faces must index the vertices of their shape, counted from its first; some do not")
    return faces.to(torch.int32)


@torch.library.custom_op("nepa3d::nearest", mutates_args=())
def nearest(points: Tensor, point_offsets: Tensor, queries: Tensor, query_offsets: Tensor) -> tuple[Tensor, Tensor]:
    """The operator behind ``nearest_distance`` that compares every query with every point."""
    points, point_offsets, queries, query_offsets = _checked_clouds(points, point_offsets, queries, query_offsets)
    distance, index = _nearest_like(points, point_offsets, queries, query_offsets)
    module = tensors.module_for(points.device)
    module.nearest(
        points.data_ptr(),
        tensors.ragged(module, point_offsets, points),
        queries.data_ptr(),
        tensors.ragged(module, query_offsets, queries),
        distance.data_ptr(),
        index.data_ptr(),
        *tensors.place(points),
    )
    return distance, index


@nearest.register_fake
def _nearest_like(
    points: Tensor, point_offsets: Tensor, queries: Tensor, query_offsets: Tensor
) -> tuple[Tensor, Tensor]:
    return queries.new_empty(len(queries)), queries.new_empty(len(queries), dtype=torch.int64)


@torch.library.custom_op("nepa3d::nearest_in_tree", mutates_args=())
def nearest_in_tree(
    points: Tensor, point_offsets: Tensor, queries: Tensor, query_offsets: Tensor
) -> tuple[Tensor, Tensor]:
    """The operator behind ``nearest_distance`` that sorts points and queries along curves and builds trees."""
    points, point_offsets, queries, query_offsets = _checked_clouds(points, point_offsets, queries, query_offsets)
    distance, index = _nearest_like(points, point_offsets, queries, query_offsets)
    module, (device, stream) = tensors.module_for(points.device), tensors.place(points)
    scratch_bytes = module.nearest_in_tree_scratch_bytes(len(points), len(queries), len(point_offsets) - 1, device)
    scratch = points.new_empty(scratch_bytes, dtype=torch.uint8)
    module.nearest_in_tree(
        points.data_ptr(),
        tensors.ragged(module, point_offsets, points),
        queries.data_ptr(),
        tensors.ragged(module, query_offsets, queries),
        distance.data_ptr(),
        index.data_ptr(),
        0,
        scratch.data_ptr(),
        scratch_bytes,
        device,
        stream,
    )
    return distance, index


nearest_in_tree.register_fake(_nearest_like)


def _checked_clouds(
    points: Tensor, point_offsets: Tensor, queries: Tensor, query_offsets: Tensor
) -> tuple[Tensor, ...]:
    tensors.require_points(points, "points", "N")
    tensors.require_points(queries, "queries", "M")
    tensors.require_offsets(point_offsets, "point_offsets", points)
    tensors.require_offsets(query_offsets, "query_offsets", queries)
    tensors.require_same_batch(point_offsets=point_offsets, query_offsets=query_offsets)
    tensors.require_one_device(points=points, point_offsets=point_offsets, queries=queries, query_offsets=query_offsets)
    return tensors.contiguous(points, point_offsets, queries, query_offsets)


@torch.library.custom_op("nepa3d::sample_surface", mutates_args=())
def surface_samples(
    vertices: Tensor,
    vertex_offsets: Tensor,
    faces: Tensor,
    face_offsets: Tensor,
    uniforms: Tensor,
    sample_offsets: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The operator behind ``sample_surface``, which must have checked the values; also twice the areas (B,) float64.

    ``faces`` are int32. There are no samples of a shape without area: what is returned for them means nothing.
    """
    tensors.require_points(vertices, "vertices", "V")
    tensors.require_rows(faces, "faces", "F", (torch.int32,))
    tensors.require_points(uniforms, "uniforms", "N")
    tensors.require_offsets(vertex_offsets, "vertex_offsets", vertices)
    tensors.require_offsets(face_offsets, "face_offsets", faces)
    tensors.require_offsets(sample_offsets, "sample_offsets", uniforms)
    tensors.require_same_batch(vertex_offsets=vertex_offsets, face_offsets=face_offsets)
    tensors.require_same_batch(face_offsets=face_offsets, sample_offsets=sample_offsets)
    tensors.require_one_device(vertices=vertices, vertex_offsets=vertex_offsets, faces=faces, face_offsets=face_offsets)
    tensors.require_one_device(vertices=vertices, uniforms=uniforms, sample_offsets=sample_offsets)
    vertices, vertex_offsets, faces, face_offsets = tensors.contiguous(vertices, vertex_offsets, faces, face_offsets)
    uniforms, sample_offsets = tensors.contiguous(uniforms, sample_offsets)
    point, normal, face, total = _surface_samples_like(
        vertices, vertex_offsets, faces, face_offsets, uniforms, sample_offsets
    )
    cumulative = total.new_empty(len(faces))
    last = face_offsets.new_empty(len(total))
    module = tensors.module_for(vertices.device)
    module.sample_surface(
        vertices.data_ptr(),
        tensors.ragged(module, vertex_offsets, vertices),
        faces.data_ptr(),
        tensors.ragged(module, face_offsets, faces),
        uniforms.data_ptr(),
        tensors.ragged(module, sample_offsets, uniforms),
        *(array.data_ptr() for array in (cumulative, last, total, point, normal, face)),
        *tensors.place(vertices),
    )
    return point, normal, face, total


@surface_samples.register_fake
def _surface_samples_like(
    vertices: Tensor,
    vertex_offsets: Tensor,
    faces: Tensor,
    face_offsets: Tensor,
    uniforms: Tensor,
    sample_offsets: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    samples, shapes = len(uniforms), len(face_offsets) - 1
    point, normal = vertices.new_empty((samples, 3)), vertices.new_empty((samples, 3))
    face = vertices.new_empty(samples, dtype=torch.int64)
    return point, normal, face, vertices.new_empty(shapes, dtype=torch.float64)


@torch.library.custom_op("nepa3d::build_bvh", mutates_args=())
def build_bvh(
    vertices: Tensor, vertex_offsets: Tensor, faces: Tensor, face_offsets: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The operator behind ``build_meshes``, which must have checked the indices; ``faces`` are int32."""
    tensors.require_points(vertices, "vertices", "V")
    tensors.require_rows(faces, "faces", "F", (torch.int32,))
    tensors.require_offsets(vertex_offsets, "vertex_offsets", vertices)
    tensors.require_offsets(face_offsets, "face_offsets", faces)
    tensors.require_same_batch(vertex_offsets=vertex_offsets, face_offsets=face_offsets)
    tensors.require_one_device(vertices=vertices, vertex_offsets=vertex_offsets, faces=faces, face_offsets=face_offsets)
    vertices, vertex_offsets, faces, face_offsets = tensors.contiguous(vertices, vertex_offsets, faces, face_offsets)
    nodes, triangles, roots = _build_bvh_like(vertices, vertex_offsets, faces, face_offsets)
    module, (device, stream) = tensors.module_for(vertices.device), tensors.place(vertices)
    scratch_bytes = module.bvh_scratch_bytes(len(faces), len(roots), device)
    scratch = vertices.new_empty(scratch_bytes, dtype=torch.uint8)
    module.build_bvh(
        vertices.data_ptr(),
        tensors.ragged(module, vertex_offsets, vertices),
        faces.data_ptr(),
        tensors.ragged(module, face_offsets, faces),
        _bvh(module, nodes, triangles, roots),
        scratch.data_ptr(),
        scratch_bytes,
        device,
        stream,
    )
    return nodes, triangles, roots


@build_bvh.register_fake
def _build_bvh_like(
    vertices: Tensor, vertex_offsets: Tensor, faces: Tensor, face_offsets: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    nodes = vertices.new_empty((len(faces), _NODE_FLOATS))
    triangles = vertices.new_empty((len(faces), _TRIANGLE_FLOATS))
    return nodes, triangles, vertices.new_empty(len(face_offsets) - 1, dtype=torch.int32)


@torch.library.custom_op("nepa3d::first_hits", mutates_args=())
def first_hits(
    nodes: Tensor, triangles: Tensor, roots: Tensor, origins: Tensor, directions: Tensor, offsets: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The operator behind ``MeshBatch.cast_rays``."""
    tensors.require_points(origins, "origins", "R")
    tensors.require_points(directions, "directions", "R")
    tensors.require_same_length(origins=origins, directions=directions)
    tensors.require_offsets(offsets, "offsets", origins)
    tensors.require_same_batch(meshes=roots.new_empty(len(roots) + 1), offsets=offsets)
    tensors.require_one_device(meshes=nodes, origins=origins, directions=directions, offsets=offsets)
    origins, directions, offsets = tensors.contiguous(origins, directions, offsets)
    t, face, barycentric = _first_hits_like(nodes, triangles, roots, origins, directions, offsets)
    module = tensors.module_for(origins.device)
    module.first_hits(
        _bvh(module, nodes, triangles, roots),
        origins.data_ptr(),
        directions.data_ptr(),
        tensors.ragged(module, offsets, origins),
        t.data_ptr(),
        face.data_ptr(),
        barycentric.data_ptr(),
        *tensors.place(origins),
    )
    return t, face, barycentric


@first_hits.register_fake
def _first_hits_like(
    nodes: Tensor, triangles: Tensor, roots: Tensor, origins: Tensor, directions: Tensor, offsets: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    rays = len(origins)
    return origins.new_empty(rays), origins.new_empty(rays, dtype=torch.int64), origins.new_empty((rays, 3))


@torch.library.custom_op("nepa3d::closest_points", mutates_args=())
def closest_points(
    nodes: Tensor, triangles: Tensor, roots: Tensor, queries: Tensor, offsets: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The operator behind ``MeshBatch.closest_point``."""
    tensors.require_points(queries, "queries", "M")
    tensors.require_offsets(offsets, "offsets", queries)
    tensors.require_same_batch(meshes=roots.new_empty(len(roots) + 1), offsets=offsets)
    tensors.require_one_device(meshes=nodes, queries=queries, offsets=offsets)
    queries, offsets = tensors.contiguous(queries, offsets)
    distance, face, point = _closest_points_like(nodes, triangles, roots, queries, offsets)
    module = tensors.module_for(queries.device)
    module.closest_points(
        _bvh(module, nodes, triangles, roots),
        queries.data_ptr(),
        tensors.ragged(module, offsets, queries),
        distance.data_ptr(),
        face.data_ptr(),
        point.data_ptr(),
        *tensors.place(queries),
    )
    return distance, face, point


@closest_points.register_fake
def _closest_points_like(
    nodes: Tensor, triangles: Tensor, roots: Tensor, queries: Tensor, offsets: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    count = len(queries)
    return queries.new_empty(count), queries.new_empty(count, dtype=torch.int64), queries.new_empty((count, 3))


def _bvh(module: ModuleType, nodes: Tensor, triangles: Tensor, roots: Tensor) -> object:
    return module.Bvh(nodes.data_ptr(), triangles.data_ptr(), roots.data_ptr())
