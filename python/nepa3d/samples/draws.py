"""Which rows of a pool a training sample takes: the plain twin of the compiled ``TrainingDraws``."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SEED_STRIDE = 1_000_003  # between seeds derived from one: of an evaluation's resamples, of a run's attention masks

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
_WORD = 0xFFFFFFFF


def philox(counter: tuple[int, int, int, int], key: tuple[int, int]) -> tuple[int, int, int, int]:
    """Four random 32-bit words: Philox4x32-10 (Salmon et al.: Parallel Random Numbers, 2011)."""
    a, b, c, d = counter
    for n in range(10):
        low, high = _MULTIPLIERS[0] * a, _MULTIPLIERS[1] * c
        first, second = ((key[i] + n * _KEY_STEPS[i]) & _WORD for i in range(2))
        a, b, c, d = (high >> 32) ^ b ^ first, high & _WORD, (low >> 32) ^ d ^ second, low & _WORD
    return a, b, c, d


class TrainingDraws:
    """The draws of one training sample, a function of (seed, epoch, index) on every machine."""

    def __init__(self, seed: int, epoch: int, index: int) -> None:
        self._key = (seed & _WORD, seed >> 32 & _WORD)
        self._place = (index, epoch, 0)
        self._drawn = 0

    def uniform(self) -> float:
        """A number in [0, 1), with 32 bits."""
        return self._next() / 2**32

    def rows(self, pool: int, n: int) -> NDArray[np.int64]:
        """``n`` rows (n,) below ``pool``: without replacement (Floyd's sampling) unless the pool is smaller."""
        if n > pool:
            return np.array([self._up_to(pool - 1) for _ in range(n)], np.int64)
        rows: dict[int, None] = {}  # in the order drawn
        for last in range(pool - n, pool):
            row = self._up_to(last)
            rows[last if row in rows else row] = None
        return np.fromiter(rows, np.int64, n)

    def _next(self) -> int:
        block, word = divmod(self._drawn, 4)
        self._drawn += 1
        return philox((block, *self._place), self._key)[word]

    def _up_to(self, last: int) -> int:
        return self._next() * (last + 1) >> 32
