"""Where a normalised shape lay before it was normalised."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nepa3d.shapes.rotation import Up, turned_back, upright


@dataclass(frozen=True)
class Placement:
    """The frame and units of a shape's input: a point x of the normalised shape lies at ``scale * x + centre``, turned
    back from y to the axis ``up``."""

    centre: NDArray[np.float64]
    """(3,), in the units of the input, which has been turned upright."""
    scale: float
    """The input's units in one unit of the normalised shape."""
    up: Up = "y"
    """Axis of the input that points up, which is y in the normalised shape."""

    def normalized(self, xyz: NDArray[np.floating]) -> NDArray[np.float32]:
        """Points (N, 3) of the input in the coordinates of the normalised shape."""
        return ((upright(xyz, self.up).astype(np.float64) - self.centre) / self.scale).astype(np.float32)

    def restored(self, xyz: NDArray[np.floating]) -> NDArray[np.float64]:
        """Points (N, 3) of the normalised shape in the frame and units of the input."""
        return turned_back(xyz.astype(np.float64) * self.scale + self.centre, self.up)
