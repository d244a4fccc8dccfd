"""Distances and attention weights as colours.

Letters: S pixels a side, C points.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Axis = Literal["x", "y", "z"]
AXES: tuple[Axis, ...] = ("x", "y", "z")
FARTHEST = 0.8  # distance at which the colours end
STEP = 0.1  # between two lines of equal distance
# matplotlib's viridis, at equal steps
VIRIDIS = np.array(
    [
        *((68, 1, 84), (72, 40, 120), (62, 74, 137), (49, 104, 142), (38, 130, 142)),
        *((31, 158, 137), (53, 183, 121), (110, 206, 88), (181, 222, 43), (253, 231, 37)),
    ],
    np.float64,
)
# from grey to red, for weights
HEAT = np.array([(150, 160, 175), (240, 200, 90), (235, 110, 40), (190, 10, 40)], np.float64)
# quaternions that lay a picture, which has columns along x and rows along y, into the plane across each axis
TURNS: dict[Axis, tuple[float, float, float, float]] = {
    "x": (0.5, 0.5, 0.5, 0.5),
    "y": (0.5, -0.5, -0.5, -0.5),
    "z": (1.0, 0.0, 0.0, 0.0),
}


def plane_points(axis: Axis, at: float, side: int) -> NDArray[np.float32]:
    """Points (S * S, 3) at the centres of the pixels of a picture of [-1, 1]^2 in the plane across ``axis`` at ``at``,
    row by row: columns and rows run along the two other axes in the order x, y, z, x."""
    if axis not in AXES:
        raise ValueError(f"axis must be x, y or z, got {axis!r}")
    number = AXES.index(axis)
    centres = (np.arange(side) + 0.5) * (2.0 / side) - 1.0
    points = np.empty((side, side, 3), np.float32)
    points[..., number] = at
    points[..., (number + 1) % 3] = centres[None, :]
    points[..., (number + 2) % 3] = centres[:, None]
    return points.reshape(-1, 3)


def field_picture(distance: NDArray[np.float32], opacity: int = 235) -> NDArray[np.uint8]:
    """A picture (S, S, 4) of distances (S, S): violet at the surface to yellow at 0.8, with a darker line every 0.1."""
    colors = _along(VIRIDIS, distance / FARTHEST)
    pixel = 2.0 / len(distance)
    off = np.abs(distance / STEP - np.round(distance / STEP)) * STEP
    on_line = (off < 0.6 * pixel) & (np.round(distance / STEP) > 0)
    colors[on_line] *= 0.6
    colors[distance < 1.5 * pixel] = 255.0  # the surface itself
    picture = np.full((*distance.shape, 4), opacity, np.uint8)
    picture[..., :3] = np.round(colors)
    return picture


def enlarge(field: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """A field of (S, S) pixels with ``side`` pixels along each axis, linear between the old ones' centres."""
    old, new = ((np.arange(count) + 0.5) / count for count in (len(field), side))
    rows = np.stack([np.interp(new, old, row) for row in field])
    return np.stack([np.interp(new, old, column) for column in rows.T], 1).astype(np.float32)


def weight_colors(weights: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Colours (C, 3) of weights (C,), grey at 0 to red at the largest; the root of a weight is what is shown, as most
    are small."""
    most = weights.max(initial=0.0)
    shown = np.sqrt(np.clip(weights, 0, None) / most) if most > 0 else np.zeros_like(weights)
    return np.round(_along(HEAT, shown)).astype(np.uint8)


def distance_colors(distance: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Colours (C, 3) of distances (C,), as in ``field_picture``."""
    return np.round(_along(VIRIDIS, distance / FARTHEST)).astype(np.uint8)


def _along(colors: NDArray[np.float64], value: NDArray[np.float32]) -> NDArray[np.float64]:
    """Colours (..., 3) at ``value`` (...) in [0, 1] along a scale (K, 3); beyond its ends those of the ends."""
    at = np.clip(value, 0, 1) * (len(colors) - 1)
    stops = np.arange(len(colors))
    return np.stack([np.interp(at, stops, channel) for channel in colors.T], -1)
