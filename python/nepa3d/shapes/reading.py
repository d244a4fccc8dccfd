"""What readers of mesh files share: the kinds of their errors, and parts that become one mesh."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray


class UnsupportedError(ValueError):
    """The file is sound as far as it was read, and holds what is not read."""


class TooLargeError(ValueError):
    """The file holds or declares more than is wanted."""


class OutOfRangeError(ValueError):
    """An index names a vertex or joint that is not there."""


def merged(
    parts: Iterable[tuple[NDArray[np.float64], NDArray[np.int64]]],
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """One mesh, vertices (V, 3) and faces (F, 3), of parts that each count their own vertices from 0."""
    vertices, triangles, count = [], [], 0
    for points, faces in parts:
        vertices.append(points)
        triangles.append(faces + count if count else faces)
        count += len(points)
    if not vertices:
        return np.zeros((0, 3)), np.zeros((0, 3), np.int64)
    return (vertices[0], triangles[0]) if len(vertices) == 1 else (np.concatenate(vertices), np.concatenate(triangles))
