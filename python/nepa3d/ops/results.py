"""What the geometry ops return: named tuples of arrays, which unpack in the order of their fields.

Letters: N points, M queries, R rays, V vertices, F faces.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float32]
Int = NDArray[np.int64]
Positions = NDArray[Any]  # float32, or float64 where points or vertices are wider than float32


class NearestPoints(NamedTuple):
    """Of a cloud, for each query."""

    distance: Float  # (M,)
    index: Int  # type: ignore[assignment]  # (M,) of the point, of equally near ones the lowest; hides tuple.index


class RayHits(NamedTuple):
    """First hits of rays on a mesh."""

    t: Float  # (R,) in lengths of the direction; inf on a miss
    face: Int  # (R,) -1 on a miss
    barycentric: Float  # (R, 3) weights of the face's corners; 0 on a miss


class ClosestPoints(NamedTuple):
    """On a mesh, for each query."""

    distance: Float  # (M,) unsigned
    face: Int  # (M,)
    point: Positions  # (M, 3)


class SurfaceSamples(NamedTuple):
    """Samples of a mesh's surface."""

    point: Positions  # (N, 3)
    normal: Float  # (N, 3) unit, of the face
    face: Int  # (N,)


class VoxelHits(NamedTuple):
    """First occupied cells along rays through a grid."""

    hit: NDArray[np.bool_]  # (R,)
    t: Float  # (R,) where the cell is entered, in lengths of the direction; 0 on a miss


class ParsedMesh(NamedTuple):
    """A mesh as a file has it."""

    vertices: NDArray[np.float64]  # (V, 3)
    faces: Int  # (F, 3)


class RepairedMesh(NamedTuple):
    """A mesh of a file that may be read although something is wrong in it."""

    vertices: NDArray[np.float64]  # (V, 3)
    faces: Int  # (F, 3)
    repaired: str  # what was wrong; empty if nothing was


class CleanMesh(NamedTuple):
    """What of a mesh carries surface."""

    vertices: NDArray[np.float64]  # (V, 3)
    faces: Int  # (F, 3)
    dropped: dict[str, int]  # how many of each kind


class Fitted(NamedTuple):
    """Vertices in the unit sphere, and where they lay: a vertex v lay at ``scale * v + centre``."""

    vertices: Float  # (V, 3)
    centre: NDArray[np.float64]  # (3,)
    scale: float


class PoolDraws(NamedTuple):
    """All randomness of a shape's query pools. Of the P queries, A are uniform, the others lie near the surface."""

    surface: Float  # (N, 3) in [0, 1], see sample_surface
    reference: Float  # (M, 3) in [0, 1], of the samples that distances are measured to; (0, 3): to the triangles
    anywhere: Float  # (A, 3) in [0, 1)
    jitter: Float  # (P - A, 3) normal deviates
    around: Int  # (P - A,) the surface sample each is added to
    origins: Float  # (R, 3)
    directions: Float  # (R, 3)


class QueryPools(NamedTuple):
    """The query pools of a shape and their answers. Parts that were not asked for have no rows."""

    point: Float  # (N, 3) surface samples
    normal: Float  # (N, 3) unit, of their faces
    query: Float  # (P, 3) in [-1, 1]^3
    distance: Float  # (P,) to the reference samples or the triangles
    cloud_distance: Float  # (P,) to the surface samples
    occupancy: NDArray[np.uint8]  # (G, G, G)
    field: NDArray[np.float16]  # (G, G, G) distance to the occupied cells
    field_distance: Float  # (P,) the same in float32, interpolated at the queries
    hit: Float  # (R,) of rays on the mesh: 1 or 0
    t: Float  # (R,) 0 on a miss
    hit_normal: Float  # (R, 3) unit, of the face; 0 on a miss
    cloud_hit: Float  # (R,) of rays in the cells of the surface samples: 1 or 0
    cloud_t: Float  # (R,) 0 on a miss
    cloud_hit_normal: Float  # (R, 3) of the surface sample nearest to the hit; 0 on a miss
