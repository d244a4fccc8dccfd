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
