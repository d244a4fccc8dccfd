"""The cells of a grid over [-1, 1]^3."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray


def all_cells(side: int) -> NDArray[np.int64]:
    """Numbers (side^3, 3) of all cells of a grid of ``side`` cells a side, z fastest."""
    return np.indices((side, side, side)).reshape(3, -1).T


def centres_of(cells: NDArray[np.int64], side: int) -> NDArray[np.float32]:
    """Centres (M, 3) of cells (M, 3) of a grid of ``side`` cells a side."""
    return ((cells + 0.5) * (2.0 / side) - 1.0).astype(np.float32)


@lru_cache(maxsize=2)
def cell_centres(side: int) -> NDArray[np.float32]:
    """Centres (side^3, 3) of all cells, z fastest; not to be modified, as they are kept."""
    centres = np.ascontiguousarray(centres_of(all_cells(side), side))
    centres.setflags(write=False)
    return centres
