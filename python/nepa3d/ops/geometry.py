"""The compiled geometry ops. Letters: N points, M queries, R rays, V vertices, F faces, G grid side.

Arrays are converted to the dtypes named here and never modified; results are fresh arrays. Every op raises
``ValueError`` naming the argument when a shape is wrong or a coordinate is not finite, releases the GIL, and gives
the same answer for any number of ``threads`` and on any processor (AVX-512, AVX2 or plain code is chosen at run time;
``instruction_set()`` tells which). Distances are compared by their float32 squares:
coordinates far beyond 1e18 or all below 1e-18 in size over- or underflow. ``nepa3d.ops.reference`` holds the plain
twin of each.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nepa3d import _core

Float = NDArray[np.float32]
Int = NDArray[np.int64]

KdTree = _core.KdTree
TriangleBvh = _core.TriangleBvh
instruction_set = _core.instruction_set


def nearest_distance(points: ArrayLike, queries: ArrayLike, *, threads: int = 1) -> tuple[Float, Int]:
    """Distance (M,) from each query (M, 3) to the nearest of ``points`` (N, 3), and its index (M,).

    Exact, by a kd-tree built for the call (``KdTree`` keeps one). Of equally near points the lowest index.
    """
    return _core.KdTree(np.asarray(points)).query(np.asarray(queries), threads=threads)


def cast_rays(
    vertices: ArrayLike, faces: ArrayLike, origins: ArrayLike, directions: ArrayLike, *, threads: int = 1
) -> tuple[Float, Int, Float]:
    """First hits of rays (R, 3) on a mesh: t (R,), face (R,), barycentric weights (R, 3).

    t counts in lengths of the direction, inf on a miss; face is -1 on a miss. Both sides of a face are hit.
    Watertight between faces that share an edge. Builds a BVH for the call (``TriangleBvh`` keeps one).
    """
    bvh = _core.TriangleBvh(np.asarray(vertices), np.asarray(faces), threads=threads)
    return bvh.cast_rays(np.asarray(origins), np.asarray(directions), threads=threads)


def closest_point(
    vertices: ArrayLike, faces: ArrayLike, queries: ArrayLike, *, threads: int = 1
) -> tuple[Float, Int, Float]:
    """Nearest point of a mesh to each query (M, 3): distance (M,), face (M,), point (M, 3).

    Exact and unsigned. Builds a BVH for the call (``TriangleBvh`` keeps one).
    """
    bvh = _core.TriangleBvh(np.asarray(vertices), np.asarray(faces), threads=threads)
    return bvh.closest_point(np.asarray(queries), threads=threads)


def sample_surface(vertices: ArrayLike, faces: ArrayLike, uniforms: ArrayLike) -> tuple[Float, Float, Int]:
    """Area-weighted surface samples: points (N, 3), unit face normals (N, 3), faces (N,).

    ``uniforms`` (N, 3) in [0, 1) are all the randomness there is: one number picks the face, two the place in it
    (square-root parametrisation: Osada et al., 2002).
    """
    return _core.sample_surface(np.asarray(vertices), np.asarray(faces), np.asarray(uniforms))


def voxelize(points: ArrayLike, grid: int, dilate: int = 0) -> NDArray[np.uint8]:
    """Occupancy (G, G, G) of the cells of [-1, 1]^3 holding a point, grown by ``dilate`` rounds of 6-neighbours."""
    return _core.voxelize(np.asarray(points), grid, dilate)


def distance_transform(
    occupancy: ArrayLike, spacing: float | tuple[float, float, float] = 1.0, *, threads: int = 1
) -> Float:
    """Distance (G0, G1, G2) from each cell centre to the nearest occupied cell's, in the unit of ``spacing``.

    Exact, in time linear in the cells (Felzenszwalb and Huttenlocher, 2012). inf where nothing is occupied.
    """
    along = (spacing, spacing, spacing) if isinstance(spacing, (int, float)) else spacing
    return _core.distance_transform(np.asarray(occupancy), along, threads=threads)


def to_half(values: ArrayLike) -> NDArray[np.float16]:
    """float32 values of any shape as float16: rounded to the nearest, ties to even (IEEE 754)."""
    return _core.to_half(np.asarray(values))


def trilinear_sample(grid: ArrayLike, xyz: ArrayLike) -> Float:
    """Interpolates cell-centred values (G, G, G) of [-1, 1]^3 at points (M, 3); outside, the border's are continued."""
    return _core.trilinear_sample(np.asarray(grid), np.asarray(xyz))


def voxel_first_hit(
    occupancy: ArrayLike, origins: ArrayLike, directions: ArrayLike, max_steps: int = 0, *, threads: int = 1
) -> tuple[NDArray[np.bool_], Float]:
    """First occupied cell along rays (R, 3) through [-1, 1]^3: hit (R,), and t (R,) where that cell is entered.

    Amanatides and Woo's walk (1987) over at most ``max_steps`` cells, 0 meaning 3 G. t is 0 on a miss.
    """
    return _core.voxel_first_hit(
        np.asarray(occupancy), np.asarray(origins), np.asarray(directions), max_steps, threads=threads
    )


def morton_code(xyz: ArrayLike) -> NDArray[np.uint32]:
    """Morton code (N,) of points (N, 3) of [-1, 1]^3 with 10 bits an axis, x lowest (Morton, 1966)."""
    return _core.morton_code(np.asarray(xyz))


def morton_order(xyz: ArrayLike) -> Int:
    """Indices (N,) that sort points (N, 3) by Morton code; equal codes keep their order."""
    return _core.morton_order(np.asarray(xyz))


def ray_direction_order(directions: ArrayLike) -> Int:
    """Indices (R,) that sort unit directions (R, 3) by azimuth atan2(y, x), then by polar angle acos(z)."""
    return _core.ray_direction_order(np.asarray(directions))


def clean_mesh(vertices: ArrayLike, faces: ArrayLike) -> tuple[NDArray[np.float64], Int, dict[str, int]]:
    """Vertices (V, 3) float64 and faces (F, 3) of a mesh that carry surface, and how many of each kind were dropped.

    Dropped are faces with a non-finite corner, without area, or on the same three vertices as an earlier one, and
    vertices no kept face uses. Order is kept.
    """
    return _core.clean_mesh(np.asarray(vertices), np.asarray(faces))


def triangulate_polygons(vertices: ArrayLike, corners: ArrayLike, sizes: ArrayLike) -> Int:
    """Triangles (F, 3) of P polygons, each of ``sizes`` (P,) many of the ``corners`` (C,), which index ``vertices``.

    A polygon of n corners gives n - 2 triangles with its winding. It is seen along its Newell normal. The fan around
    its first corner is taken if none of its triangles is turned over, as in every convex polygon; else, of four
    corners, the fan around the second; else ears are clipped (Meisters, 1975). Where edges cross, so that no ear is
    left, the first corner that is not reflex is cut. A polygon without area, or with a corner that is not finite, keeps
    its fan.
    """
    return _core.triangulate_polygons(np.asarray(vertices), np.asarray(corners), np.asarray(sizes))


def parse_obj(text: bytes) -> tuple[NDArray[np.float64], Int]:
    """Vertices (V, 3) float64 and triangles (F, 3) of Wavefront OBJ text; materials are ignored.

    Raises ``ValueError`` naming the line and what stood there on a malformed vertex or face, and on an index that names
    no vertex.
    """
    return _core.parse_obj(text)


def parse_off(text: bytes) -> tuple[NDArray[np.float64], Int]:
    """Vertices (V, 3) float64 and triangles (F, 3) of OFF text, with or without the prefixes ST, C, N and 4.

    Raises ``ValueError`` naming the line and what stood there.
    """
    return _core.parse_off(text)


def parse_ply(content: bytes) -> tuple[NDArray[np.float64], Int, str]:
    """Vertices (V, 3) float64 and triangles (F, 3) of PLY text or binary, and what was wrong in it but could be read.

    Faces and triangle strips are read. Raises ``ValueError`` naming the line or byte and the fault.
    """
    return _core.parse_ply(content)


def parse_stl(content: bytes) -> tuple[NDArray[np.float64], Int, str]:
    """Vertices (3 F, 3) float64 and triangles (F, 3) of STL text or binary, and what was wrong but could be read.

    Raises ``ValueError`` naming the line and the fault.
    """
    return _core.parse_stl(content)
