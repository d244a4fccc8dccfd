"""Retrieval without a model: how far the answers of two shapes contradict that they are of one.

Letters: N queries, M gallery items, n and m points.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from nepa3d.execution.checks import require_at_least
from nepa3d.execution.progress_bar import progress_bar
from nepa3d.shapes.rotation import turn

Floats = NDArray[np.floating]

ROUNDING = 1e-5  # of the float32 product that finds violations; pairs within it are looked at, too


def violation(points: Floats, distances: Floats, others: Floats, other_distances: Floats) -> float:
    """Mean of max(0, |d_i - e_j| - |x_i - y_j|) over all pairs of points ``x`` (n, 3) with distances ``d`` (n,) and
    ``y`` (m, 3) with ``e`` (m,).

    It is 0 if both are exact distances to one set, since a distance changes by at most the length of the way.
    """
    apart = np.linalg.norm(points[:, None].astype(np.float64) - others, axis=2)
    excess = np.abs(distances[:, None].astype(np.float64) - other_distances) - apart
    return float(np.maximum(excess, 0).mean())


def violations(
    queries: Sequence[tuple[Floats, Floats]],
    gallery: Sequence[tuple[Floats, Floats]],
    *,
    threads: int = 1,
    progress: bool = False,
) -> NDArray[np.float64]:
    """``violation`` (N, M) of every query and gallery item, each given by its points (n, 3) and distances (n,).

    One matrix product finds the few pairs that violate the bound, |x - y|^2 - (d - e)^2 < 0, and only these are summed
    exactly, in float32; each of the ``threads`` takes one query at a time. Cost: N M n m.
    """
    items = [(_columns(*item), _form(*item)[[0, 1, 2, 3, 5, 4]].copy()) for item in gallery]

    def of_query(query: tuple[Floats, Floats]) -> NDArray[np.float64]:
        found, own = np.empty(len(items)), _columns(*query)
        form = _form(*query).T * np.array([-2, -2, -2, 2, 1, 1], np.float32)
        for place, (other, other_form) in enumerate(items):
            i, j = np.divmod(np.flatnonzero(form @ other_form < ROUNDING), len(other))
            apart = own[i, :3] - other[j, :3]
            excess = np.abs(own[i, 3] - other[j, 3]) - np.sqrt(np.einsum("ij,ij->i", apart, apart))
            found[place] = np.maximum(excess, 0).sum(dtype=np.float64) / (len(own) * len(other))
        return found

    with ThreadPoolExecutor(threads, thread_name_prefix="violations") as pool:
        rows = progress_bar(
            pool.map(of_query, queries), total=len(queries), desc="plain answers", unit="query", disable=not progress
        )
        return np.array([*rows]).reshape(len(queries), len(gallery))


def least_violations(
    queries: Sequence[tuple[Floats, Floats]],
    gallery: Sequence[tuple[Floats, Floats]],
    headings: int,
    *,
    threads: int = 1,
    progress: bool = False,
) -> NDArray[np.float64]:
    """The least ``violations`` (N, M) over a whole turn of each query about y in steps of 2 pi / ``headings``.

    Cost: that of ``violations`` times ``headings``.
    """
    require_at_least(1, headings=headings)
    found = np.full((len(queries), len(gallery)), np.inf)
    for step in progress_bar(range(headings), desc="plain answers, turned", unit="heading", disable=not progress):
        angle = 2 * np.pi * step / headings
        facing = [(turn(np.asarray(points, np.float32), angle), distances) for points, distances in queries]
        found = np.minimum(found, violations(facing, gallery, threads=threads))
    return found


def _columns(points: Floats, distances: Floats) -> NDArray[np.float32]:
    """Points and distances side by side (n, 4)."""
    return np.column_stack([points, distances]).astype(np.float32)


def _form(points: Floats, distances: Floats) -> NDArray[np.float32]:
    """x, d, 1 and |x|^2 - d^2 as rows (6, n)."""
    x, d = points.astype(np.float64), distances.astype(np.float64)
    return np.stack([*x.T, d, np.ones(len(d)), (x**2).sum(1) - d**2]).astype(np.float32)
