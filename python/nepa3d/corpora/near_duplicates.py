"""Shapes of one split that another split holds, too, or nearly: a test on them asks what training has shown.

Two shapes are compared by the distances to their surface samples at common points, drawn once in the unit ball. The
mean absolute difference is at most the Hausdorff distance of the two, and 0 where they are one. Shapes of caches are
centred and scaled alike, so that only the heading is tried: quarter turns about the vertical, y, by default.
Letters: N and M shapes, H headings, K points.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nepa3d import ops
from nepa3d.execution.progress_bar import progress_bar
from nepa3d.shapes.cache import read_cache
from nepa3d.shapes.rotation import turn

Float = NDArray[np.float32]
BLOCK = 256  # shapes compared with all others at a time


@dataclass(frozen=True)
class DuplicateSettings:
    """What counts as nearly the same."""

    tolerance: float = 0.02
    """Largest mean difference of distances, where a shape's radius is 1. Two draws of 2048 samples of one surface
    differ by about 0.003."""
    headings: int = 4
    """Headings, equally spaced over a whole turn, at which a shape is compared."""
    points: int = 1024
    """Points at which distances are compared."""

    def __post_init__(self) -> None:
        if not self.tolerance >= 0:
            raise ValueError(f"tolerance must be at least 0, got {self.tolerance}")
        for name in ("headings", "points"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")


@dataclass(frozen=True)
class Twin:
    """The shape of the other split that is most alike; both given by their rows."""

    row: int
    other: int
    difference: float
    degrees: float
    """By which the first is turned about y to be so alike."""


def near_duplicates(
    shapes: Sequence[str | os.PathLike[str]],
    others: Sequence[str | os.PathLike[str]],
    settings: DuplicateSettings | None = None,
    *,
    progress: bool = False,
) -> list[Twin]:
    """Each of N cache files with its most alike of M others, where that is within the tolerance; most alike first.

    Raises ``CacheError`` naming a file that cannot be read, and ``ValueError`` where SciPy is not installed. Cost:
    N M H K.
    """
    try:
        from scipy.spatial.distance import cdist
    except ImportError as error:
        raise ValueError("near-duplicates: SciPy is not installed: pip install 'nepa3d[probes]'") from error
    settings = settings or DuplicateSettings()
    points = ball(settings.points)
    angles = np.arange(settings.headings) * (2 * np.pi / settings.headings)
    there = fields(others, points, [0.0], progress=progress)[:, 0]
    own = fields(shapes, points, angles.tolist(), progress=progress)
    found = []
    for begin in range(0, len(own), BLOCK):
        block = own[begin : begin + BLOCK]
        apart = cdist(block.reshape(-1, settings.points), there, "cityblock") / settings.points
        apart = apart.reshape(len(block), -1)  # headings, then others
        for row, best in enumerate(apart.argmin(1)):
            heading, other = divmod(int(best), len(there))
            if apart[row, best] <= settings.tolerance:
                degrees = float(np.degrees(angles[heading]))
                found.append(Twin(begin + row, other, float(apart[row, best]), degrees))
    return sorted(found, key=lambda twin: twin.difference)


def ball(count: int) -> Float:
    """Points (count, 3), uniform in the unit ball, always the same."""
    rng = np.random.default_rng(0)
    directions = rng.normal(size=(count, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return (directions * rng.uniform(size=(count, 1)) ** (1 / 3)).astype(np.float32)


def fields(
    paths: Sequence[str | os.PathLike[str]], points: Float, angles: Sequence[float], *, progress: bool = False
) -> Float:
    """Distances (N, H, K) from points (K, 3) to the surface samples of each shape, turned by each of H angles."""
    found = np.empty((len(paths), len(angles), len(points)), np.float32)
    for row, path in enumerate(progress_bar(paths, desc="distances", unit="shape", disable=not progress)):
        cloud = read_cache(path, ["pc_xyz"])["pc_xyz"]
        for heading, angle in enumerate(angles):
            found[row, heading] = ops.nearest_distance(turn(cloud, angle), points).distance
    return found
