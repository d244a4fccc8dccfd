"""Retrieval figures that stay honest when items tie.

A strict "how many are better" rank gives a gallery whose items are all alike a perfect score. Here the items
tied with the true one share its place: every figure is the expectation over a uniformly random order of the
tied block, so a collapsed gallery scores what a random order would. Without ties the figures are the usual.
Letters: Q queries, N gallery items, D width. ``truth`` (Q,) holds the number of each query's true item; without it,
query i belongs to gallery item i, and Q must be N.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nepa3d.models.vectors import normalize

Array = NDArray[np.float64]

# Unit embeddings closer than this count as one: float32 rounding inside a model moves equal inputs by less,
# while a gallery squeezed into a ball of 1e-3 can still be told apart (cosines in float64 resolve it).
TIE_DISTANCE = 1e-5

COSINES_AT_ONCE = 1 << 25  # of a large gallery fewer queries are ranked at a time

TIE_RULES = {
    "expected": f"expected over a random order of the items within {TIE_DISTANCE:g} of the true one (float64)",
    "strict": "only strictly better items count, so that ties are wins (float32, as first published)",
}


@dataclass(frozen=True)
class Ranks:
    """Where the true item of each query stands: how many items are better, how many others tie with it."""

    better: NDArray[np.int64]  # (Q,)
    tied: NDArray[np.int64]  # (Q,), the true item itself not counted
    n_items: int

    @property
    def expected(self) -> Array:
        """Expected rank (Q,), from 1."""
        return 1.0 + self.better + 0.5 * self.tied


def rank_true_items(
    queries: NDArray[np.floating],
    gallery: NDArray[np.floating],
    truth: NDArray[np.int64] | None = None,
    *,
    chunk: int = 256,
    tie_distance: float = TIE_DISTANCE,
) -> Ranks:
    """Rank the gallery (N, D) by cosine to each of the queries (Q, D), ``chunk`` queries at a time, fewer where the
    gallery has over 131,072 items.

    An item ties with the true one when they are ``tie_distance`` apart or less, or their cosines are equal.
    """
    truth = _check(queries, gallery, chunk, truth)
    chunk = max(1, min(chunk, COSINES_AT_ONCE // len(gallery)))
    queries, gallery = normalize(queries), normalize(gallery)
    n = len(queries)
    better, tied = np.empty(n, np.int64), np.empty(n, np.int64)
    for begin in range(0, n, chunk):
        rows = np.arange(begin, min(begin + chunk, n))
        cosine = queries[rows] @ gallery.T
        own = cosine[np.arange(len(rows)), truth[rows]][:, None]
        apart = 2.0 - 2.0 * (gallery[truth[rows]] @ gallery.T)  # squared distance of unit vectors
        alike = (apart <= tie_distance**2) | (cosine == own)
        alike[np.arange(len(rows)), truth[rows]] = True
        better[rows] = ((cosine > own) & ~alike).sum(1)
        tied[rows] = alike.sum(1) - 1
    return Ranks(better, tied, len(gallery))


def rank_scores(scores: NDArray[np.floating], truth: NDArray[np.int64] | None = None) -> Ranks:
    """Rank the gallery by scores (Q, N), the highest first. Items of exactly the true one's score tie with it."""
    if scores.ndim != 2 or scores.size == 0 or not np.isfinite(scores).all():
        raise ValueError(f"scores must be finite and have shape (Q, N), Q and N at least 1, got {scores.shape}")
    truth = _true_items(len(scores), scores.shape[1], truth)
    own = scores[np.arange(len(scores)), truth][:, None]
    return Ranks((scores > own).sum(1), (scores == own).sum(1) - 1, scores.shape[1])


def rank_by_distance(apart: NDArray[np.floating]) -> Ranks:
    """Rank by distances ``apart`` (N, N) of queries and gallery items, less is better; query i belongs to item i, and
    items exactly as far as that tie with it."""
    if apart.ndim != 2 or apart.shape[0] != apart.shape[1] or not np.isfinite(apart).all():
        raise ValueError(f"apart must be finite and have shape (N, N), got {apart.shape}")
    own = np.diag(apart)[:, None]
    return Ranks((apart < own).sum(1), (apart == own).sum(1) - 1, len(apart))


def rank_strictly(queries: NDArray[np.floating], gallery: NDArray[np.floating], *, chunk: int = 256) -> Ranks:
    """The original rule, kept to reproduce old figures: float32 cosines, only strictly better items count.

    Collapsed embeddings score R@1 = 1 by it, and nearly collapsed ones whatever rounding makes of them.
    """
    _check(queries, gallery, chunk)
    queries = np.asarray(queries, np.float32)
    across = np.ascontiguousarray(np.asarray(gallery, np.float32).T)
    n = len(queries)
    better = np.empty(n, np.int64)
    for begin in range(0, n, chunk):
        rows = np.arange(begin, min(begin + chunk, n))
        cosine = queries[rows] @ across
        better[rows] = (cosine > cosine[np.arange(len(rows)), rows][:, None]).sum(1)
    return Ranks(better, np.zeros(n, np.int64), n)


def best_items(
    queries: NDArray[np.floating], gallery: NDArray[np.floating], count: int, *, chunk: int = 256
) -> NDArray[np.int64]:
    """Numbers (Q, min(count, N)) of each query's most alike gallery items, best first, of equals the first."""
    _check(queries, gallery, chunk, np.zeros(len(queries), np.int64))
    queries, gallery = normalize(queries), normalize(gallery)
    n = len(queries)
    best = np.empty((n, min(count, len(gallery))), np.int64)
    for begin in range(0, n, chunk):
        cosine = queries[begin : begin + chunk] @ gallery.T
        best[begin : begin + chunk] = np.argsort(-cosine, axis=1, kind="stable")[:, :count]
    return best


def plane(vectors: NDArray[np.floating]) -> Array:
    """Rows (Q, D) on their first two principal axes (Q, 2), each axis turned so that its largest entry is positive."""
    vectors = np.asarray(vectors, np.float64)
    vectors = vectors - vectors.mean(0)
    axes = np.linalg.eigh(vectors.T @ vectors)[1][:, :-3:-1]
    axes = axes * np.sign(axes[np.abs(axes).argmax(0), np.arange(axes.shape[1])])
    found = np.zeros((len(vectors), 2))
    found[:, : axes.shape[1]] = vectors @ axes
    return found


def _check(
    queries: NDArray[np.floating], gallery: NDArray[np.floating], chunk: int, truth: NDArray[np.int64] | None = None
) -> NDArray[np.int64]:
    """The number (Q,) of each query's true item."""
    if truth is None and (queries.shape != gallery.shape or queries.ndim != 2 or len(queries) == 0):
        raise ValueError(
            f"queries and gallery must have one shape (N, D), N >= 1, got {queries.shape}, {gallery.shape}"
        )
    if queries.ndim != 2 or gallery.ndim != 2 or queries.shape[1] != gallery.shape[1] or len(queries) == 0:
        raise ValueError(
            f"queries and gallery must have shapes (Q, D) and (N, D), Q >= 1, got {queries.shape}, {gallery.shape}"
        )
    if chunk < 1:
        raise ValueError(f"chunk must be at least 1, got {chunk}")
    for name, vectors in (("queries", queries), ("gallery", gallery)):
        if not np.isfinite(vectors).all():
            raise ValueError(f"{name} must be finite, row {_first_bad_row(vectors)} is not")
    return _true_items(len(queries), len(gallery), truth)


def _true_items(n_queries: int, n_items: int, truth: NDArray[np.int64] | None) -> NDArray[np.int64]:
    if truth is None:
        if n_queries != n_items:
            raise ValueError(f"truth: must be given where {n_queries} queries stand before {n_items} gallery items")
        return np.arange(n_queries)
    if truth.shape != (n_queries,) or not ((truth >= 0) & (truth < n_items)).all():
        raise ValueError(f"truth must hold a number below {n_items} for each of {n_queries} queries, got {truth}")
    return truth


def per_query(ranks: Ranks, ks: Sequence[int] = (1, 5, 10)) -> dict[str, Array]:
    """What the figures are means of, (Q,) each: ``r@k`` for each k, ``mAP`` (1/rank), ``mean_rank``."""
    found = {f"r@{k}": _chance_in_top(ranks, k) for k in ks}
    harmonic = np.concatenate([[0.0], np.cumsum(1.0 / np.arange(1, ranks.n_items + 1))])
    block = ranks.tied + 1
    found["mAP"] = (harmonic[ranks.better + block] - harmonic[ranks.better]) / block
    found["mean_rank"] = ranks.expected
    return found


def retrieval_metrics(ranks: Ranks, ks: Sequence[int] = (1, 5, 10)) -> dict[str, float]:
    """``r@k`` for each k, ``mAP`` (mean 1/rank: one true item a query), ``mean_rank``, ``median_rank``."""
    metrics = {name: float(values.mean()) for name, values in per_query(ranks, ks).items()}
    metrics["median_rank"] = float(np.median(ranks.expected))
    return metrics


def chance_metrics(n_items: int, ks: Sequence[int] = (1, 5, 10)) -> dict[str, float]:
    """What a random order of ``n_items`` scores: R@k = k/N, mAP = H_N/N, ranks (N + 1)/2."""
    if n_items < 1:
        raise ValueError(f"n_items must be at least 1, got {n_items}")
    blank = Ranks(np.zeros(1, np.int64), np.full(1, n_items - 1, np.int64), n_items)
    return retrieval_metrics(blank, ks)


def tied_fraction(ranks: Ranks) -> float:
    """Mean share of the other gallery items that cannot be told from the true one; 1 is full collapse."""
    return float(ranks.tied.mean() / max(1, ranks.n_items - 1))


def spread(vectors: NDArray[np.floating]) -> float:
    """Root mean square distance of unit-length rows (N, D) from their mean: 0 alike, near 1 spread out."""
    vectors = normalize(vectors)
    return float(np.sqrt(((vectors - vectors.mean(0)) ** 2).sum(1).mean()))


def _chance_in_top(ranks: Ranks, k: int) -> Array:
    """Probability that a random order of the tied block puts the true item among the first k: (Q,)."""
    return np.clip((k - ranks.better) / (ranks.tied + 1.0), 0.0, 1.0)


def _first_bad_row(vectors: NDArray[np.floating]) -> int:
    return int(np.flatnonzero(~np.isfinite(vectors).all(1))[0])
