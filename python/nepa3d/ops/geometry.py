"""The compiled geometry ops. Letters: N points, M queries, R rays, V vertices, F faces, G grid side.

Arrays are converted to the dtypes named here and never modified; results are fresh arrays. Every op raises
``ValueError`` naming the argument when a shape is wrong or a coordinate is not finite, releases the GIL, and gives
the same answer for any number of ``threads`` and on any processor (AVX-512, AVX2 or plain code is chosen at run time;
``instruction_set()`` tells which). Distances are compared by their float32 squares:
coordinates far beyond 1e18 or all below 1e-18 in size over- or underflow. Several arrays are returned as a named tuple
(``nepa3d.ops.results``). ``nepa3d.ops.reference`` holds the plain twin of each op.

The kernels compute in float32. Where points or vertices come in a wider dtype (float64, 32- or 64-bit integers), the
ops on clouds and meshes count all coordinates from an origin near them before rounding: at 500 km from zero (UTM), say,
distances are as exact as for the same shape around zero, and positions are returned as float64. Points or vertices in
float32 are taken as they are, whatever the dtype of queries and rays: at that distance such coordinates are 3 cm apart,
and what was lost when they were rounded cannot be recovered. Ops on [-1, 1]^3 round all coordinates to float32, which
moves them by 6e-8 at most.

``nearest_distance``, ``cast_rays`` and ``closest_point`` also take float32 tensors on a GPU and then return tensors
with the same bits there, where nepa3d was built with its CUDA module; ``nepa3d.ops.cuda`` has them for batches of
shapes.
"""

from __future__ import annotations

import operator

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nepa3d import _core
from nepa3d.ops.results import (
    CleanMesh,
    ClosestPoints,
    Fitted,
    Float,
    Int,
    NearestPoints,
    ParsedMesh,
    PoolDraws,
    Positions,
    QueryPools,
    RayHits,
    RepairedMesh,
    SurfaceSamples,
    VoxelHits,
)

instruction_set = _core.instruction_set


class _Origin:
    """Where the coordinates of a kernel are counted from: zero, or a place near points of a wider dtype than float32.

    It is zero, too, along axes on which such points lie about as near to zero as to each other, and a multiple of a
    power of two, so that subtracting it is exact.
    """

    def __init__(self, points: np.ndarray) -> None:
        self.place: NDArray[np.float64] | None = None
        if points.dtype.kind not in "iuf" or np.result_type(points, np.float32) == np.float32:
            return
        self.place = np.zeros(3)
        if points.ndim != 2 or points.shape[1] != 3 or len(points) == 0:
            return  # the kernel says what is wrong
        low, high = points.min(0).astype(np.float64), points.max(0).astype(np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            extent = (high - low).max()
        if np.isfinite(extent):
            centre = low / 2 + high / 2
            step = np.maximum(np.ldexp(1.0, np.frexp(extent)[1] - 2), np.spacing(np.abs(centre)))
            self.place = np.where(np.abs(centre) > extent, np.round(centre / step) * step, 0.0)

    def local(self, points: ArrayLike) -> np.ndarray:
        """``points`` (N, 3) as the kernel takes them."""
        points = np.asarray(points)
        if self.place is None or points.ndim != 2 or points.shape[1] != 3 or points.dtype.kind not in "iuf":
            return points
        return points - self.place

    def world(self, points: Float) -> Positions:
        """Points (N, 3) of the kernel as they are returned."""
        return points if self.place is None else points + self.place


class KdTree:
    """The nearest of ``points`` (N, 3)."""

    def __init__(self, points: ArrayLike) -> None:
        self._origin = _Origin(np.asarray(points))
        self._tree = _core.KdTree(self._origin.local(points))

    def __len__(self) -> int:
        return len(self._tree)

    def query(self, queries: ArrayLike, *, threads: int = 1) -> NearestPoints:
        """Distance (M,) and index (M,), see ``nearest_distance``."""
        return NearestPoints(*self._tree.query(self._origin.local(queries), threads=threads))


class TriangleBvh:
    """A mesh of ``vertices`` (V, 3) and ``faces`` (F, 3) to cast rays at and to find closest points on."""

    def __init__(self, vertices: ArrayLike, faces: ArrayLike, *, threads: int = 1) -> None:
        self._origin = _Origin(np.asarray(vertices))
        self._bvh = _core.TriangleBvh(self._origin.local(vertices), np.asarray(faces), threads=threads)

    def __len__(self) -> int:
        return len(self._bvh)

    @property
    def nbytes(self) -> int:
        """Bytes of memory that the tree takes."""
        return self._bvh.nbytes

    def cast_rays(self, origins: ArrayLike, directions: ArrayLike, *, threads: int = 1) -> RayHits:
        """t (R,), face (R,) and barycentric weights (R, 3), see ``cast_rays``."""
        return RayHits(*self._bvh.cast_rays(self._origin.local(origins), np.asarray(directions), threads=threads))

    def closest_point(self, queries: ArrayLike, *, threads: int = 1) -> ClosestPoints:
        """Distance (M,), face (M,) and point (M, 3), see ``closest_point``."""
        distance, face, point = self._bvh.closest_point(self._origin.local(queries), threads=threads)
        return ClosestPoints(distance, face, self._origin.world(point))

    def query_pools(
        self,
        vertices: Float,
        faces: Int,
        draws: PoolDraws,
        *,
        sigma: float,
        field: tuple[int, int] | None,
        cloud: tuple[int, int] | None,
        max_steps: int = 0,
        threads: int = 1,
    ) -> QueryPools:
        """The query pools of this tree's mesh in [-1, 1]^3, given by float32 vertices (V, 3) and faces (F, 3).

        ``sigma`` is the standard deviation of the queries near the surface; ``field`` and ``cloud`` are the side and
        the rounds of dilation of the grids of the distance field and of the rays in the cloud, None for none. Bit for
        bit what ``sample_surface``, ``nearest_distance``, ``closest_point``, ``voxelize``, ``distance_transform``,
        ``trilinear_sample``, ``cast_rays`` and ``voxel_first_hit`` give one after the other.
        """
        return QueryPools(
            *_core.query_pools(
                self._bvh,
                vertices,
                faces,
                **draws._asdict(),
                sigma=sigma,
                field=field,
                cloud=cloud,
                max_steps=max_steps,
                threads=threads,
            )
        )


def _on_gpu(*arrays: object) -> bool:
    """True if one of them is a CUDA tensor; torch is not imported to find out."""
    return any(getattr(array, "is_cuda", False) for array in arrays)


def nearest_distance(points: ArrayLike, queries: ArrayLike, *, threads: int = 1) -> NearestPoints:
    """Distance (M,) from each query (M, 3) to the nearest of ``points`` (N, 3), and its index (M,).

    Exact, by a kd-tree built for the call (``KdTree`` keeps one). Of equally near points the lowest index. Points wider
    than float32 are counted from an origin near them.
    """
    if _on_gpu(points, queries):
        from nepa3d.ops import cuda_shape

        return cuda_shape.nearest_distance(points, queries)
    return KdTree(points).query(queries, threads=threads)


def cast_rays(
    vertices: ArrayLike, faces: ArrayLike, origins: ArrayLike, directions: ArrayLike, *, threads: int = 1
) -> RayHits:
    """First hits of rays (R, 3) on a mesh: t (R,), face (R,), barycentric weights (R, 3).

    t counts in lengths of the direction, inf on a miss; face is -1 on a miss. Both sides of a face are hit.
    Watertight between faces that share an edge. Builds a BVH for the call (``TriangleBvh`` keeps one). With vertices
    wider than float32, they and the rays' origins are counted from an origin near the mesh.
    """
    if _on_gpu(vertices, faces, origins, directions):
        from nepa3d.ops import cuda_shape

        return cuda_shape.cast_rays(vertices, faces, origins, directions)
    return TriangleBvh(vertices, faces, threads=threads).cast_rays(origins, directions, threads=threads)


def closest_point(vertices: ArrayLike, faces: ArrayLike, queries: ArrayLike, *, threads: int = 1) -> ClosestPoints:
    """Nearest point of a mesh to each query (M, 3): distance (M,), face (M,), point (M, 3).

    Exact and unsigned. Builds a BVH for the call (``TriangleBvh`` keeps one). With vertices wider than float32, all
    coordinates are counted from an origin near the mesh, and points are float64.
    """
    if _on_gpu(vertices, faces, queries):
        from nepa3d.ops import cuda_shape

        return cuda_shape.closest_point(vertices, faces, queries)
    return TriangleBvh(vertices, faces, threads=threads).closest_point(queries, threads=threads)


def sample_surface(vertices: ArrayLike, faces: ArrayLike, uniforms: ArrayLike) -> SurfaceSamples:
    """Area-weighted surface samples: point (N, 3), unit face normal (N, 3), face (N,).

    ``uniforms`` (N, 3) in [0, 1] are all the randomness there is: one number picks the face, two the place in it
    (square-root parametrisation: Osada et al., 2002). With vertices wider than float32 they are counted from an origin
    near the mesh, and points are float64.
    """
    origin = _Origin(np.asarray(vertices))
    points, normals, face = _core.sample_surface(origin.local(vertices), np.asarray(faces), np.asarray(uniforms))
    return SurfaceSamples(origin.world(points), normals, face)


def voxelize(points: ArrayLike, grid: int, dilate: int = 0) -> NDArray[np.uint8]:
    """Occupancy (G, G, G) of the cells of [-1, 1]^3 holding a point, grown by ``dilate`` rounds of 6-neighbours.

    Coordinates are rounded to float32; points beyond the cube count for the cells at its border.
    """
    return _core.voxelize(np.asarray(points), _whole(grid, "grid"), _whole(dilate, "dilate"))


def distance_transform(
    occupancy: ArrayLike, spacing: float | tuple[float, float, float] = 1.0, *, threads: int = 1
) -> Float:
    """Distance (G0, G1, G2) from each cell centre to the nearest occupied cell's, in the unit of ``spacing``.

    Cells that are not 0 are occupied. Exact, one axis after the other (Saito and Toriwaki, 1994). The time grows with
    the cells times the distances in them. inf everywhere if nothing is occupied.
    """
    steps = np.asarray(spacing)
    if steps.shape not in ((), (3,)) or steps.dtype.kind not in "fiu":
        raise ValueError(f"spacing must be a number or three, got {spacing!r}")
    along = tuple(np.broadcast_to(steps, 3).tolist())
    return _core.distance_transform(_occupied(occupancy), along, threads=threads)


def to_half(values: ArrayLike) -> NDArray[np.float16]:
    """float32 values of any shape as float16: rounded to the nearest, ties to even (IEEE 754)."""
    return _core.to_half(np.asarray(values))


def trilinear_sample(grid: ArrayLike, xyz: ArrayLike) -> Float:
    """Interpolates cell-centred values (G, G, G) of [-1, 1]^3 at points (M, 3); outside, the border's are continued."""
    return _core.trilinear_sample(np.asarray(grid), np.asarray(xyz))


def voxel_first_hit(
    occupancy: ArrayLike, origins: ArrayLike, directions: ArrayLike, max_steps: int = 0, *, threads: int = 1
) -> VoxelHits:
    """First occupied cell along rays (R, 3) through [-1, 1]^3: hit (R,), and t (R,) where that cell is entered.

    Cells that are not 0 are occupied. Amanatides and Woo's walk (1987) over at most ``max_steps`` cells, 0 meaning 3 G.
    t is 0 on a miss.
    """
    steps = _whole(max_steps, "max_steps")
    found = _core.voxel_first_hit(
        _occupied(occupancy), np.asarray(origins), np.asarray(directions), steps, threads=threads
    )
    return VoxelHits(*found)


def _occupied(occupancy: ArrayLike) -> np.ndarray:
    """The cells as the kernels take them: what is not 0 would be cast to 0 if it were 0.5, or 256."""
    cells = np.asarray(occupancy)
    if cells.dtype.kind not in "biuf":
        raise ValueError(f"occupancy must be truth values or numbers, got {cells.dtype}")
    return cells if cells.dtype in (np.bool_, np.uint8) else cells != 0


def _whole(value: object, argument: str) -> int:
    """A whole number of any type of Python or NumPy; ``ValueError`` on anything else."""
    try:
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError as error:
        raise ValueError(f"{argument} must be a whole number, got {value!r}") from error


def morton_code(xyz: ArrayLike) -> NDArray[np.uint32]:
    """Morton code (N,) of points (N, 3) of [-1, 1]^3 with 10 bits an axis, x lowest (Morton, 1966)."""
    return _core.morton_code(np.asarray(xyz))


def morton_order(xyz: ArrayLike) -> Int:
    """Indices (N,) that sort points (N, 3) by Morton code; equal codes keep their order."""
    return _core.morton_order(np.asarray(xyz))


def ray_direction_order(directions: ArrayLike) -> Int:
    """Indices (R,) that sort unit directions (R, 3) by azimuth atan2(y, x), then by polar angle acos(z)."""
    return _core.ray_direction_order(np.asarray(directions))


def clean_mesh(vertices: ArrayLike, faces: ArrayLike) -> CleanMesh:
    """Vertices (V, 3) float64 and faces (F, 3) of a mesh that carry surface, and how many of each kind were dropped.

    Dropped are faces with a non-finite corner, without area, or on the same three vertices as an earlier one, and
    vertices no kept face uses. Order is kept.
    """
    return CleanMesh(*_core.clean_mesh(np.asarray(vertices), np.asarray(faces)))


def fit_unit_sphere(vertices: ArrayLike) -> Fitted:
    """Vertices (V, 3) centred on their bounding box and divided by the largest norm, so that they fit the unit sphere.

    They must be finite and not all in one place.
    """
    return Fitted(*_core.fit_unit_sphere(np.asarray(vertices)))


def triangulate_polygons(vertices: ArrayLike, corners: ArrayLike, sizes: ArrayLike) -> Int:
    """Triangles (F, 3) of P polygons, each of ``sizes`` (P,) many of the ``corners`` (C,), which index ``vertices``.

    A polygon of n corners gives n - 2 triangles with its winding. It is seen along its Newell normal. The fan around
    its first corner is taken if none of its triangles is turned over, as in every convex polygon; else, of four
    corners, the fan around the second; else ears are clipped (Meisters, 1975). Where edges cross, so that no ear is
    left, the first corner that is not reflex is cut. A polygon without area, or with a corner that is not finite, keeps
    its fan.
    """
    return _core.triangulate_polygons(np.asarray(vertices), np.asarray(corners), np.asarray(sizes))


def parse_obj(text: bytes) -> ParsedMesh:
    """Vertices (V, 3) float64 and triangles (F, 3) of Wavefront OBJ text; materials are ignored.

    Raises ``ValueError`` naming the line and what stood there on a malformed vertex or face, and on an index that names
    no vertex.
    """
    return ParsedMesh(*_core.parse_obj(text))


def parse_off(text: bytes) -> ParsedMesh:
    """Vertices (V, 3) float64 and triangles (F, 3) of OFF text, with or without the prefixes ST, C, N and 4.

    Raises ``ValueError`` naming the line and what stood there.
    """
    return ParsedMesh(*_core.parse_off(text))


def parse_ply(content: bytes) -> RepairedMesh:
    """Vertices (V, 3) float64 and triangles (F, 3) of PLY text or binary, and what was wrong in it but could be read.

    Faces and triangle strips are read. Raises ``ValueError`` naming the line or byte and the fault.
    """
    return RepairedMesh(*_core.parse_ply(content))


def parse_stl(content: bytes) -> RepairedMesh:
    """Vertices (3 F, 3) float64 and triangles (F, 3) of STL text or binary, and what was wrong but could be read.

    Raises ``ValueError`` naming the line and the fault.
    """
    return RepairedMesh(*_core.parse_stl(content))
