"""Rotation about the vertical, and shapes whose vertical is not y."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from nepa3d.execution.checks import require_choice

Up = Literal["x", "y", "z"]
"""Axis of a shape that points up. The shapes that models are trained on stand on y."""


def turn(points: NDArray[np.floating], angle: float) -> NDArray[np.float32]:
    """Points or vectors (N, 3) turned about y by ``angle`` radians."""
    c, s = np.cos(angle), np.sin(angle)
    return (points @ np.array([[c, 0, -s], [0, 1, 0], [s, 0, c]])).astype(np.float32)


def upright(points: NDArray[Any], up: Up) -> NDArray[Any]:
    """Points or vectors (N, 3) of a shape with the axis ``up`` as y, by a cyclic change of axes, which is exact."""
    require_choice("up", up, Up)
    return np.ascontiguousarray(np.roll(points, 1 - "xyz".index(up), axis=1))


def turned_back(points: NDArray[Any], up: Up) -> NDArray[Any]:
    """The inverse of ``upright``."""
    require_choice("up", up, Up)
    return np.ascontiguousarray(np.roll(points, "xyz".index(up) - 1, axis=1))
