"""Closest point of a mesh to each query, unsigned: build the index, ask, every time."""

from __future__ import annotations

from functools import partial

import numpy as np

from benchmarks.agreement import same_closest
from benchmarks.harness import Contender, Row, case
from benchmarks.inputs import Float, Inputs
from nepa3d import ops
from nepa3d.shapes.mesh import Mesh


@case("closest point", per_mesh=True, threaded=True)
def closest_point(inputs: Inputs, threads: int) -> Row:
    mesh, queries = inputs.mesh, inputs.queries
    return Row(
        size={"faces": len(mesh.faces), "queries": len(queries)},
        ours=Contender(
            lambda: ops.closest_point(mesh.vertices, mesh.faces, queries, threads=threads),
            lambda found: found.distance,
        ),
        peers={
            "open3d": partial(open3d_scene, mesh, queries, threads),
            "libigl": partial(igl_tree, mesh, queries),
            "point-cloud-utils": partial(pcu_closest, mesh, queries),
        },
        compare=same_closest,
    )


def open3d_scene(mesh: Mesh, queries: Float, threads: int) -> Contender:
    import open3d.core
    import open3d.t

    tensor = open3d.core.Tensor.from_numpy
    vertices, faces, wanted = tensor(mesh.vertices), tensor(mesh.faces.astype(np.uint32)), tensor(queries)

    def run() -> dict:
        scene = open3d.t.geometry.RaycastingScene(nthreads=threads)
        scene.add_triangles(vertices, faces)
        return scene.compute_closest_points(wanted, nthreads=threads)

    return Contender(run, lambda found: np.linalg.norm(found["points"].numpy() - queries, axis=1))


def igl_tree(mesh: Mesh, queries: Float) -> Contender:
    import igl

    vertices, faces, wanted = mesh.vertices.astype(np.float64), mesh.faces, queries.astype(np.float64)

    def run() -> tuple:
        tree = igl.AABB()
        tree.init(vertices, faces)
        return tree.squared_distance(vertices, faces, wanted)

    return Contender(run, lambda found: np.sqrt(found[0]))


def pcu_closest(mesh: Mesh, queries: Float) -> Contender:
    import point_cloud_utils

    faces = mesh.faces.astype(np.int32)
    return Contender(
        lambda: point_cloud_utils.closest_points_on_mesh(queries, mesh.vertices, faces), lambda found: found[0]
    )
