"""Retrieval without a model: how far the answers of two shapes contradict that they are of one.

Letters: N queries, M gallery items, n and m points.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

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

    Items of as many points are compared with a query at once. Cost: N M n m.
    """
    found = np.empty((len(queries), len(gallery)))
    by_size: dict[int, list[int]] = {}
    for place, (points, _) in enumerate(gallery):
        by_size.setdefault(len(points), []).append(place)
    stacked = [
        (places, np.stack([gallery[place][0] for place in places]), np.stack([gallery[place][1] for place in places]))
        for places in by_size.values()
    ]
    for row, (points, distances) in enumerate(
        progress_bar(queries, desc="plain answers", unit="query", disable=not progress)
    ):
        own = points.astype(np.float64)
        for places, others, other_distances in stacked:
            products = own @ others.transpose(0, 2, 1)
            squared = (own**2).sum(1)[:, None] + (others.astype(np.float64) ** 2).sum(2)[:, None] - 2 * products
            apart = np.sqrt(np.maximum(squared, 0))
            excess = np.abs(distances[:, None] - other_distances[:, None]) - apart
            found[row, places] = np.maximum(excess, 0).mean((1, 2))
    return found
