"""First hits of the cameras' rays on a mesh: build the index, cast, every time.

libigl's tree is not among the peers: it misses hits on small faces (17 of 8000 rays on 772,000 faces).
"""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray

from benchmarks.agreement import same_hits
from benchmarks.harness import Contender, Row, case
from benchmarks.inputs import Float, Inputs, Int
from nepa3d import ops
from nepa3d.shapes.mesh import Mesh


@case("ray casting", per_mesh=True, threaded=True)
def ray_casting(inputs: Inputs, threads: int) -> Row:
    mesh, origins, directions = inputs.mesh, inputs.origins, inputs.directions
    return Row(
        size={"faces": len(mesh.faces), "rays": len(origins)},
        ours=Contender(
            lambda: ops.cast_rays(mesh.vertices, mesh.faces, origins, directions, threads=threads), lambda hits: hits.t
        ),
        peers={
            "open3d": partial(open3d_scene, mesh, origins, directions, threads),
            "trimesh+embreex": partial(trimesh_embree, mesh, origins, directions),
            "point-cloud-utils": partial(pcu_rays, mesh, origins, directions),
        },
        compare=same_hits,
    )


def open3d_scene(mesh: Mesh, origins: Float, directions: Float, threads: int) -> Contender:
    import open3d.core
    import open3d.t

    tensor = open3d.core.Tensor.from_numpy
    vertices, faces = tensor(mesh.vertices), tensor(mesh.faces.astype(np.uint32))
    rays = tensor(np.concatenate([origins, directions], 1))

    def run() -> dict:
        scene = open3d.t.geometry.RaycastingScene(nthreads=threads)
        scene.add_triangles(vertices, faces)
        return scene.cast_rays(rays, nthreads=threads)

    return Contender(run, lambda hits: hits["t_hit"].numpy())


def trimesh_embree(mesh: Mesh, origins: Float, directions: Float) -> Contender:
    """trimesh gives the faces only; t follows from them outside the timing, which favours trimesh."""
    import trimesh
    from trimesh.ray.ray_pyembree import RayMeshIntersector

    vertices = mesh.vertices.astype(np.float64)

    def run() -> Int:
        scene = RayMeshIntersector(trimesh.Trimesh(vertices, mesh.faces, process=False))
        return scene.intersects_first(origins, directions)

    return Contender(run, lambda face: hit_distance(vertices, mesh.faces, face, origins, directions))


def hit_distance(
    vertices: NDArray[np.float64], faces: Int, face: Int, origins: Float, directions: Float
) -> NDArray[np.float64]:
    """Where rays (R, 3) meet the planes of their faces (R,): t (R,), inf where the face is -1."""
    a, b, c = (vertices[faces[face, k]] for k in range(3))
    normal = np.cross(b - a, c - a)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = ((a - origins) * normal).sum(1) / (directions * normal).sum(1)
    return np.where(face >= 0, t, np.inf)


def pcu_rays(mesh: Mesh, origins: Float, directions: Float) -> Contender:
    import point_cloud_utils

    faces = mesh.faces.astype(np.int32)
    return Contender(
        lambda: point_cloud_utils.ray_mesh_intersection(mesh.vertices, faces, origins, directions), lambda hits: hits[2]
    )
