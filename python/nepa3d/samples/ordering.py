"""The order in which a sample's queries become a sequence."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nepa3d import ops


def order_points(xyz: NDArray[np.float32], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """``rows`` (n,) of the pool ``xyz`` (P, 3) along the Morton curve."""
    return rows[ops.morton_order(xyz[rows])]


def order_rays(directions: NDArray[np.float32], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """``rows`` (n,) of the pool ``directions`` (R, 3) by azimuth, then polar angle."""
    return rows[ops.ray_direction_order(directions[rows])]
