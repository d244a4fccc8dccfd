"""Retrieval without a model: how far the answers of two shapes contradict that they are of one.

Letters: N queries, M gallery items, n and m points.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nepa3d.corpora.scanner import turn
from nepa3d.execution.progress_bar import progress_bar

Floats = NDArray[np.floating]


def violation(points: Floats, distances: Floats, others: Floats, other_distances: Floats) -> float:
    """Mean of max(0, |d_i - e_j| - |x_i - y_j|) over all pairs of points ``x`` (n, 3) with distances ``d`` (n,) and
    ``y`` (m, 3) with ``e`` (m,).

    It is 0 if both are exact distances to one set, since a distance changes by at most the length of the way.
    """
    apart = np.linalg.norm(points[:, None].astype(np.float64) - others, axis=2)
    excess = np.abs(distances[:, None].astype(np.float64) - other_distances) - apart
    return float(np.maximum(excess, 0).mean())


def violations(
    queries: Sequence[tuple[Floats, Floats]], gallery: Sequence[tuple[Floats, Floats]], *, progress: bool = False
) -> NDArray[np.float64]:
    """``violation`` (N, M) of every query and gallery item, each given by its points (n, 3) and distances (n,).

    Computed in float32, pair by pair, so that what a pair needs stays in the processor's cache. Cost: N M n m.
    """
    found = np.empty((len(queries), len(gallery)))
    items = [(points.astype(np.float32), distances.astype(np.float32)) for points, distances in gallery]
    for row, (points, distances) in enumerate(
        progress_bar(queries, desc="plain answers", unit="query", disable=not progress)
    ):
        own, told = points.astype(np.float32), distances.astype(np.float32)[:, None]
        for place, (others, other_distances) in enumerate(items):
            apart = _apart(own, others)
            excess = np.subtract(told, other_distances)
            np.abs(excess, out=excess)
            excess -= apart
            found[row, place] = np.maximum(excess, 0, out=excess).mean(dtype=np.float64)
    return found


def least_violations(
    queries: Sequence[tuple[Floats, Floats]],
    gallery: Sequence[tuple[Floats, Floats]],
    headings: int,
    *,
    progress: bool = False,
) -> NDArray[np.float64]:
    """The least ``violations`` (N, M) over a whole turn of each query about y in steps of 2 pi / ``headings``.

    Cost: that of ``violations`` times ``headings``.
    """
    if headings < 1:
        raise ValueError(f"headings must be at least 1, got {headings}")
    found = np.full((len(queries), len(gallery)), np.inf)
    for angle in np.arange(headings) * (2 * np.pi / headings):
        facing = [(turn(np.asarray(points, np.float32), angle), distances) for points, distances in queries]
        found = np.minimum(found, violations(facing, gallery, progress=progress))
    return found


def _apart(points: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.float32]:
    """Distances (n, m), by differences: the quicker product form loses near points to rounding."""
    squared = np.subtract(points[:, :1], others[:, 0])
    squared *= squared
    for axis in (1, 2):
        along = np.subtract(points[:, axis : axis + 1], others[:, axis])
        along *= along
        squared += along
    found: NDArray[np.float32] = np.sqrt(squared, out=squared)
    return found
