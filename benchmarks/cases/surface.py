"""Area-weighted random points of a mesh with their normals, random numbers included."""

from __future__ import annotations

from functools import partial

import numpy as np

from benchmarks.agreement import same_distribution
from benchmarks.harness import Contender, Row, case
from benchmarks.inputs import Inputs
from nepa3d import ops
from nepa3d.shapes.mesh import Mesh


@case("surface sampling", per_mesh=True)
def surface_sampling(inputs: Inputs, threads: int) -> Row:
    mesh, count = inputs.mesh, len(inputs.surface)

    def run() -> tuple:
        uniforms = np.random.default_rng(0).random((count, 3), np.float32)
        return ops.sample_surface(mesh.vertices, mesh.faces, uniforms)

    bvh = ops.TriangleBvh(mesh.vertices, mesh.faces)
    return Row(
        size={"faces": len(mesh.faces), "points": count},
        ours=Contender(run, lambda samples: samples.point),
        peers={"trimesh": partial(trimesh_sample, mesh, count), "open3d": partial(open3d_sample, mesh, count)},
        compare=same_distribution(lambda points: bvh.closest_point(points).distance),
    )


def trimesh_sample(mesh: Mesh, count: int) -> Contender:
    import trimesh

    vertices = mesh.vertices.astype(np.float64)

    def run() -> tuple:
        surface = trimesh.Trimesh(vertices, mesh.faces, process=False)
        points, face = trimesh.sample.sample_surface(surface, count, seed=0)
        return points, surface.face_normals[face], face

    return Contender(run, lambda samples: samples[0])


def open3d_sample(mesh: Mesh, count: int) -> Contender:
    import open3d.core
    import open3d.t
    import open3d.utility

    open3d.utility.set_verbosity_level(open3d.utility.VerbosityLevel.Error)  # it warns of missing vertex normals
    vertices, faces = open3d.core.Tensor.from_numpy(mesh.vertices), open3d.core.Tensor.from_numpy(mesh.faces)

    def run() -> object:
        surface = open3d.t.geometry.TriangleMesh(vertices, faces)
        return surface.sample_points_uniformly(count, use_triangle_normal=True)

    return Contender(run, lambda cloud: cloud.point.positions.numpy())
