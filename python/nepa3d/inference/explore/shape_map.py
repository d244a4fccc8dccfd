"""The shapes of an index as dots of a plane: shapes whose embeddings are alike lie near each other.

Letters: N shapes, D width of an embedding, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nepa3d.execution.checks import require_choice

Projection = Literal["pca", "tsne"]
PERPLEXITY = 30.0  # neighbours that t-SNE keeps near; fewer where there are few shapes
# Tableau's colours for categories, in an order in which neighbours differ
PALETTE = (
    *((78, 121, 167), (242, 142, 43), (225, 87, 89), (118, 183, 178), (89, 161, 79)),
    *((237, 201, 72), (176, 122, 161), (255, 157, 167), (156, 117, 95), (140, 140, 140)),
)


def project(vectors: ArrayLike, projection: Projection = "pca", seed: int = 0) -> NDArray[np.float32]:
    """Places (N, 2) in [-1, 1]^2 of embeddings (N, D): their principal components, or t-SNE, with scikit-learn.

    The places of a projection are a function of the vectors and, for t-SNE, of ``seed``. Fewer than three shapes have
    principal components only. ``ValueError`` if scikit-learn is not installed.
    """
    require_choice("projection", projection, Projection)
    of = np.asarray(vectors, np.float64)
    if of.ndim != 2 or len(of) == 0 or not np.isfinite(of).all():
        raise ValueError(f"vectors must be finite and have shape (N, D) with N at least 1, got {of.shape}")
    try:
        from sklearn.decomposition import PCA
        from sklearn.manifold import TSNE
    except ImportError as error:
        raise ValueError("the map needs scikit-learn: pip install 'nepa3d[explore]'") from error
    if (of == of[0]).all():
        return np.zeros((len(of), 2), np.float32)
    if projection == "tsne" and len(of) > 2:
        perplexity = min(PERPLEXITY, (len(of) - 1) / 3)
        places = TSNE(2, perplexity=perplexity, init="pca", metric="cosine", random_state=seed).fit_transform(of)
    else:
        components = min(2, *of.shape)
        places = np.zeros((len(of), 2))
        places[:, :components] = PCA(components, svd_solver="full").fit_transform(of)
    places = places - (places.min(0) + places.max(0)) / 2
    extent = np.abs(places).max()
    return (places / extent if extent > 0 else places).astype(np.float32)


def class_colors(classes: Sequence[str]) -> dict[str, tuple[int, int, int]]:
    """A colour (red, green, blue) of 0 to 255 for each class, in order of the names; more than ten classes share
    colours, each time around lighter."""
    names = sorted(set(classes))
    found = {}
    for number, name in enumerate(names):
        around, place = divmod(number, len(PALETTE))
        lighter = 1 - 0.6 ** min(around, 3)
        red, green, blue = (round(value + (255 - value) * lighter) for value in PALETTE[place])
        found[name] = (red, green, blue)
    return found
