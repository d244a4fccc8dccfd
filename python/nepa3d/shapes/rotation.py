"""Rotation about the vertical."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def turn(points: NDArray[np.floating], angle: float) -> NDArray[np.float32]:
    """Points or vectors (N, 3) turned about y by ``angle`` radians."""
    c, s = np.cos(angle), np.sin(angle)
    return (points @ np.array([[c, 0, -s], [0, 1, 0], [s, 0, c]])).astype(np.float32)
