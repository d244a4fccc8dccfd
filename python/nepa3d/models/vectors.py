"""Vectors as embeddings are compared. Letters: Q rows, D width."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def normalize(vectors: NDArray[np.floating]) -> NDArray[np.float64]:
    """Rows (Q, D) scaled to length 1 in float64; a row of zeros stays zero."""
    vectors = np.asarray(vectors, np.float64)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
