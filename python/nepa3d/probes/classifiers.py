"""Classifiers of frozen features, each with one setting that a validation set chooses.

Letters: N training vectors, Q vectors to classify, D width.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nepa3d.models.vectors import normalize
from nepa3d.probes.ranking import TIE_DISTANCE

Array = NDArray[np.float64]
Labels = NDArray[np.int64]

SETTINGS: dict[str, tuple[float, ...]] = {  # neighbours, and inverse penalties; of equally good ones the first is taken
    "knn": (1, 5, 10, 20),
    "logistic": (0.001, 0.01, 0.1, 1, 10, 100),
    "svm": (0.0001, 0.001, 0.01, 0.1, 1, 10),
}
MAX_STEPS = 1000  # of a linear classifier's solver; some ten are enough for Newton's method
BLOCK = 256  # vectors compared with the training set at a time
MISSING = "probe-cls: scikit-learn is not installed: pip install 'nepa3d[probes]'"


@dataclass(frozen=True)
class Examples:
    """Vectors (N, D) and their labels (N,)."""

    vectors: Array
    labels: Labels

    def __post_init__(self) -> None:
        if self.vectors.ndim != 2 or self.labels.shape != self.vectors.shape[:1]:
            raise ValueError(
                f"vectors and labels must have shapes (N, D) and (N,), got {self.vectors.shape} and {self.labels.shape}"
            )

    def joined(self, other: Examples) -> Examples:
        """Both as one."""
        return Examples(np.concatenate([self.vectors, other.vectors]), np.concatenate([self.labels, other.labels]))


@dataclass(frozen=True)
class Tried:
    """A setting as validation judged it."""

    setting: float
    accuracy: float
    converged: bool


@dataclass(frozen=True)
class Answer:
    """Predicted labels (Q,), the setting behind them, and all that were tried."""

    predictions: Labels
    setting: float
    converged: bool
    tried: tuple[Tried, ...]


def answer(kind: str, fit: Examples, validation: Examples, train: Examples, queries: Array) -> Answer:
    """Classify ``queries`` (Q, D) after ``train``, with the setting that does best on ``validation`` after ``fit``.

    Numbers of neighbours that ``fit`` does not have are left out.
    """
    tried = []
    for setting in _settings(kind, len(fit.labels)):
        predictions, converged = classify(kind, fit, validation.vectors, setting)
        tried.append(Tried(setting, float((predictions == validation.labels).mean()), converged))
    best = max(tried, key=lambda found: found.accuracy).setting
    predictions, converged = classify(kind, train, queries, best)
    return Answer(predictions, best, converged, tuple(tried))


def classify(kind: str, train: Examples, queries: Array, setting: float) -> tuple[Labels, bool]:
    """Labels (Q,) of ``queries`` by one classifier of ``SETTINGS``, and whether its solver converged."""
    if kind == "knn":
        return nearest_neighbours(train, queries, int(setting)), True
    return linear(kind, train, queries, setting)


def nearest_neighbours(train: Examples, queries: Array, k: int) -> Labels:
    """The commonest label (Q,) among the ``k`` most alike by cosine, of equally common ones the more alike.

    Items as far away as the k-th, within ``TIE_DISTANCE``, share the places that are left: the order of the training
    set does not matter, and where all vectors are alike the commonest label wins.
    """
    if not 1 <= k <= len(train.labels):
        raise ValueError(f"k must lie in 1..{len(train.labels)}, the number of training vectors, got {k}")
    known, asked = normalize(train.vectors), normalize(queries)
    of_label = np.eye(train.labels.max() + 1)[train.labels]
    found = np.empty(len(asked), np.int64)
    for begin in range(0, len(asked), BLOCK):
        cosine = asked[begin : begin + BLOCK] @ known.T
        distance = np.sqrt(np.maximum(2 - 2 * cosine, 0))
        last = np.partition(distance, k - 1, axis=1)[:, k - 1 : k]
        tied = np.abs(distance - last) <= TIE_DISTANCE
        nearer = (distance < last) & ~tied
        share = nearer + tied * (k - nearer.sum(1, keepdims=True)) / tied.sum(1, keepdims=True)
        votes, alike = share @ of_label, np.round((share * cosine) @ of_label, 6)
        leading = votes >= votes.max(1, keepdims=True) - 1e-9
        found[begin : begin + BLOCK] = np.where(leading, alike, -np.inf).argmax(1)
    return found


def linear(kind: str, train: Examples, queries: Array, setting: float) -> tuple[Labels, bool]:
    """Labels (Q,) by multinomial logistic regression or a linear SVM (one against the rest) on standardised vectors.

    ``setting`` is scikit-learn's C. The second value says whether the solver converged. ``ValueError`` if scikit-learn
    is not installed.
    """
    try:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression
        from sklearn.svm import LinearSVC
        from threadpoolctl import threadpool_limits
    except ImportError as error:
        raise ValueError(MISSING) from error
    if kind == "logistic":
        model = LogisticRegression(C=setting, solver="newton-cg", max_iter=MAX_STEPS)
    else:
        model = LinearSVC(C=setting, dual=False, max_iter=MAX_STEPS)
    known, asked = standardized(train.vectors, queries)
    with warnings.catch_warnings(record=True) as said, threadpool_limits(1):  # the same bits on any number of cores
        warnings.simplefilter("always", ConvergenceWarning)
        model.fit(known, train.labels)
        predictions: Labels = model.predict(asked)
    return predictions, not any(issubclass(warning.category, ConvergenceWarning) for warning in said)


def standardized(train: Array, queries: Array) -> tuple[Array, Array]:
    """Both (., D) less the mean of ``train`` and by its standard deviation, axis by axis.

    An axis that varies by less than rounding does (``TIE_DISTANCE`` of a vector's length) is 0: the rounding of a
    collapsed model is no feature.
    """
    mean, deviation = train.mean(0), train.std(0)
    noise = TIE_DISTANCE * np.sqrt((train**2).sum(1).mean() / train.shape[1])
    scale = np.where(deviation > noise, 1 / np.maximum(deviation, np.finfo(np.float64).tiny), 0)
    return (train - mean) * scale, (queries - mean) * scale


def _settings(kind: str, count: int) -> Sequence[float]:
    if kind not in SETTINGS:
        raise ValueError(f"kind must be one of {', '.join(SETTINGS)}, got {kind!r}")
    return [setting for setting in SETTINGS[kind] if kind != "knn" or setting <= count]
