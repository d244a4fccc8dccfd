"""How far a figure can be trusted: bootstrap intervals over the shapes it is a mean of (Efron, 1979)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

RESAMPLES = 2000
BLOCK = 100  # resamples made at a time
LEVEL = 0.95


def resampled_means(values: Array, *, seed: int = 0, resamples: int = RESAMPLES) -> Array:
    """Means (resamples, k) of ``values`` (n, k) over n rows drawn with replacement."""
    if values.ndim != 2 or len(values) == 0:
        raise ValueError(f"values must have shape (n, k), n >= 1, got {values.shape}")
    rng = np.random.default_rng(seed)
    n = len(values)
    blocks = []
    for begin in range(0, resamples, BLOCK):  # a draw of n rows is a count of each
        counts = rng.multinomial(n, np.full(n, 1 / n), size=min(BLOCK, resamples - begin))
        blocks.append(counts @ values / n)
    return np.concatenate(blocks)


def interval(values: Array, figure: Callable[[Array], Array] = lambda means: means[:, 0]) -> tuple[float, float]:
    """The middle 95 % of a figure over resamples; ``figure`` makes (m,) of the means (m, k) of the rows' values."""
    found = figure(resampled_means(values))
    low, high = np.nanquantile(found, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def grouped_interval(values: Array, groups: Sequence[int | str]) -> tuple[float, float]:
    """The middle 95 % of the mean of ``values`` (n,) over resamples of the groups: what is of one is drawn together."""
    return interval(_sums(values, groups), _ratio)


def share_interval(values: Array, groups: Sequence[int | str] | None = None) -> tuple[float, float]:
    """The middle 95 % of the mean of shares ``values`` (n,) of [0, 1], each on its own without ``groups``.

    Where all are 0, or all are 1, every resample is like them: then it is ``unanimous_interval``.
    """
    exact = unanimous_interval(values, len(values) if groups is None else len({*groups}))
    if exact:
        return exact
    return interval(values[:, None]) if groups is None else grouped_interval(values, groups)


def unanimous_interval(values: Array, trials: int) -> tuple[float, float] | None:
    """The exact 95 % interval of a share (Clopper and Pearson, 1934) after so many ``trials``, where all of ``values``
    (n,) are 0, or all are 1; None where they differ."""
    bound = float(((1 - LEVEL) / 2) ** (1 / trials))
    if (values == 0).all():
        return 0.0, 1 - bound
    return (bound, 1.0) if (values == 1).all() else None


def paired_difference(a: Array, b: Array, groups: Sequence[int | str] | None = None) -> dict[str, float]:
    """Mean of b - a (n,), its interval, and the part of the resamples in which it has the other sign or none.

    What is of one group is drawn together; without ``groups`` each value is on its own.
    """
    sums = _sums(b - a, groups)
    means = _ratio(resampled_means(sums))
    low, high = interval(sums, _ratio)
    mean = float((b - a).mean())
    return {"difference": mean, "low": low, "high": high, "other_sign": float((means * np.sign(mean) <= 0).mean())}


def _sums(values: Array, groups: Sequence[int | str] | None) -> Array:
    """The sum and the number of the values of each group, (g, 2)."""
    numbers = np.arange(len(values)) if groups is None else np.unique(groups, return_inverse=True)[1]
    return np.stack([np.bincount(numbers, values), np.bincount(numbers)], axis=1).astype(np.float64)


def _ratio(means: Array) -> Array:
    return np.asarray(means[:, 0] / means[:, 1])


def cell(value: float | tuple[float, float] | None, digits: int = 4) -> str:
    """A figure or an interval as a table shows it."""
    if value is None:
        return "n/a"
    if isinstance(value, tuple):
        return f"{value[0]:.{digits}f} to {value[1]:.{digits}f}"
    return f"{value:.{digits}f}"
