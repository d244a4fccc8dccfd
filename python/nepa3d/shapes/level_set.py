"""The surface on which a distance field takes a value, as a mesh."""

from __future__ import annotations

import math
from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nepa3d.shapes.cells import all_cells, centres_of

if TYPE_CHECKING:
    import trimesh


COARSEST = 32  # cells a side at least of a grid that is asked whole

Ask = Callable[[NDArray[np.float32]], NDArray[np.float32]]


class AskedField(NamedTuple):
    """A field (G, G, G) over the cells of [-1, 1]^3, and at how many points it was asked for."""

    values: NDArray[np.float32]
    asked: int


def field_near(
    ask: Ask, resolution: int, level: float, slope: float = math.inf, *, coarsest: int | None = None
) -> AskedField:
    """The field that ``ask`` gives at points (M, 3), of which ``level_set`` at ``level`` needs only the cells near that
    surface.

    The grid is refined from one of at least ``coarsest`` cells a side, left out 32, by halving cells, as often as
    ``resolution`` is even: only those whose value lies so close to ``level`` that a field whose slope is at most
    ``slope`` could take it inside or in the cells beside. For such a field the surface is that of the whole grid; the
    other cells hold the value of the coarse cell around them, on the same side of ``level``. An infinite slope asks for
    every cell. (As in Occupancy Networks' multiresolution extraction, Mescheder et al., arXiv 1812.03828.)
    """
    sides, coarsest = [resolution], COARSEST if coarsest is None else coarsest
    while math.isfinite(slope) and sides[0] % 2 == 0 and sides[0] // 2 >= coarsest:
        sides.insert(0, sides[0] // 2)
    cells = all_cells(sides[0])
    values, asked = ask(centres_of(cells, sides[0])).reshape(3 * (sides[0],)), len(cells)
    for side in sides[1:]:
        reach = slope * math.sqrt(3) * (2 / side + 2 / resolution)  # half a coarse cell's diagonal, a fine one's
        parents = np.argwhere(np.abs(values - level) <= reach)
        cells = (2 * parents[:, None] + _CHILDREN).reshape(-1, 3)
        for axis in range(3):
            values = values.repeat(2, axis)
        values[tuple(cells.T)] = ask(centres_of(cells, side))
        asked += len(cells)
    return AskedField(values, asked)


_CHILDREN = all_cells(2)


def level_set(field: NDArray[np.float32], level: float) -> trimesh.Trimesh | None:
    """The mesh on which a field (G, G, G), of the cells of [-1, 1]^3, takes ``level``; None if it does nowhere.

    ``ValueError`` if scikit-image is not installed.
    """
    require_marching_cubes()
    import trimesh
    from skimage.measure import marching_cubes

    if not field.min() < level < field.max():
        return None
    cell_size = 2.0 / len(field)
    vertices, faces, _, _ = marching_cubes(field, level, spacing=3 * (cell_size,))
    return trimesh.Trimesh(vertices + cell_size / 2 - 1.0, faces, process=False)


def require_marching_cubes() -> None:
    """``ValueError`` if scikit-image is not installed, which ``level_set`` needs: for before the field is asked for."""
    if find_spec("skimage") is None:
        raise ValueError("surfaces: scikit-image is not installed: pip install 'nepa3d[surfaces]'")
