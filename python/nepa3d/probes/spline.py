"""Completion without a model: a thin-plate spline of the context's distances, kept within the bounds of any distance.

Letters: B shapes, C context points, Q query points.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]

MISSING = "the spline control: SciPy is not installed: pip install 'nepa3d[probes]'"
SMOOTHING = 1e-3
FEWEST = 4  # context points, as the spline includes an affine function of the coordinates
BLOCK = 1 << 20  # pairs of points whose distances are held at a time


def require_scipy() -> None:
    """``ValueError`` that says what to install, or how to do without, if SciPy is not there."""
    if not find_spec("scipy"):
        raise ValueError(f"{MISSING}, or leave it out (--spline 0)")


def splines(
    pool: Executor, contexts: Floats, distances: Floats, queries: Floats, smoothing: float = SMOOTHING
) -> Iterator[NDArray[np.float64] | str]:
    """``spline_distances`` (Q,) of each of B shapes, or why a context has none: contexts (B, C, 3), distances (B, C),
    queries (B, Q, 3).

    The work begins at once, in the threads of ``pool``.
    """

    def one(context: Floats, told: Floats, asked: Floats) -> NDArray[np.float64] | str:
        try:
            return spline_distances(context, told, asked, smoothing)
        except ValueError as error:
            return f"{error}"

    return pool.map(one, contexts, distances, queries)


def spline_distances(
    context: Floats, distances: Floats, queries: Floats, smoothing: float = SMOOTHING
) -> NDArray[np.float64]:
    """Distances (Q,) at ``queries`` (Q, 3) of a smoothing thin-plate spline through ``distances`` (C,) at ``context``
    (C, 3), C at least 4, clipped to ``lipschitz_bounds``.

    The spline is SciPy's ``RBFInterpolator`` (Duchon, 1977; Wahba, Spline Models for Observational Data, 1990).
    Raises ``ValueError`` on fewer points, on points that all lie in one plane, and if SciPy is not installed.
    """
    try:
        from scipy.interpolate import RBFInterpolator
    except ImportError as error:
        raise ValueError(MISSING) from error
    if context.ndim != 2 or context.shape[1] != 3 or len(context) < FEWEST:
        raise ValueError(f"context must have shape (C, 3) with C at least {FEWEST}, got {context.shape}")
    points = np.asarray(context, np.float64)
    try:
        spline = RBFInterpolator(points, distances, kernel="thin_plate_spline", smoothing=smoothing)
    except np.linalg.LinAlgError as error:
        raise ValueError("context must not lie in one plane, or the spline is not unique") from error
    low, high = lipschitz_bounds(points, distances, queries)
    return np.clip(spline(np.asarray(queries, np.float64)), low, high)


def lipschitz_bounds(
    context: Floats, distances: Floats, queries: Floats
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lowest and highest distance (Q,) that ``queries`` (Q, 3) can have, given ``distances`` (C,) at ``context``.

    A distance to a set changes by at most the length of the way: max(0, max_c(d_c - |q - c|)) <= d(q) <=
    min_c(d_c + |q - c|). Where the given distances contradict this, the lower bound is brought down to the upper one.
    """
    from scipy.spatial.distance import cdist

    low, high = np.empty((2, len(queries)))
    step = max(1, BLOCK // len(context))
    for begin in range(0, len(queries), step):
        rows = slice(begin, begin + step)
        apart = cdist(np.asarray(queries[rows], np.float64), np.asarray(context, np.float64))
        high[rows] = (distances + apart).min(1)
        low[rows] = (distances - apart).max(1)
    return np.minimum(np.maximum(low, 0.0), high), high
