"""Accuracies on a test set whose shapes may be scans of the same objects: intervals resample objects.

Letters: n test shapes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from nepa3d.probes.classifiers import Answer
from nepa3d.probes.intervals import Array, interval, unanimous_interval
from nepa3d.probes.result import Interval, Json
from nepa3d.probes.scores import score

Labels = NDArray[np.int64]
FIGURES = ("accuracy", "balanced_accuracy")


@dataclass(frozen=True)
class HeldOut:
    """The test set: labels and objects (n,) of its paths, and the classes' names."""

    paths: list[str]
    labels: Labels
    objects: Labels
    classes: list[str]

    def figures(self, answers: Sequence[Answer]) -> Json:
        """Accuracies over all seeds and each, their intervals over objects, and the settings that gave them."""
        labels = np.tile(self.labels, len(answers))
        every = score(np.concatenate([found.predictions for found in answers]), labels, self.classes)
        by_seed = []
        for found in answers:
            scores = score(found.predictions, self.labels, self.classes)
            chosen = {"setting": found.setting, "converged": found.converged, "tried": [asdict(t) for t in found.tried]}
            by_seed.append({**{name: getattr(scores, name) for name in FIGURES}, **chosen})
        return {
            **{name: getattr(every, name) for name in FIGURES},
            "interval": self.intervals(self.right(answers)),
            "deviation": {name: float(np.std([seed[name] for seed in by_seed])) for name in FIGURES},
            "by_seed": by_seed,
            "collapsed_to": every.collapsed_to,
            "majority_share": every.majority_share,
        }

    def right(self, answers: Sequence[Answer]) -> Array:
        """The part of the seeds (n,) in which each test shape's label was found."""
        return np.mean([found.predictions == self.labels for found in answers], axis=0)

    def always(self, label: int) -> tuple[Json, Array]:
        """What always saying one class scores, and where it is right (n,)."""
        said = np.full(len(self.labels), label)
        scores = score(said, self.labels, self.classes)
        right = (said == self.labels).astype(np.float64)
        return {"class": self.classes[label], **{figure: getattr(scores, figure) for figure in FIGURES}}, right

    def intervals(self, right: Array) -> dict[str, Interval]:
        """Intervals of both accuracies over resamples of test objects; where all shapes are right, or all wrong, the
        exact ones of as many trials as there are objects."""
        exact = unanimous_interval(right, len(np.unique(self.objects)))
        if exact:
            return dict.fromkeys(FIGURES, exact)
        count = len(self.classes)
        place = self.objects * count + self.labels
        size = (self.objects.max() + 1) * count
        sums = [np.bincount(place, values, size) for values in (right, np.ones_like(right))]
        rows = np.concatenate([found.reshape(-1, count) for found in sums], axis=1)

        def accuracy(means: Array) -> Array:
            hits, shapes = np.split(means, 2, axis=1)
            return np.asarray(hits.sum(1) / shapes.sum(1))

        def balanced(means: Array) -> Array:
            hits, shapes = np.split(means, 2, axis=1)
            recall = np.divide(hits, shapes, out=np.zeros_like(hits), where=shapes > 0)
            return np.asarray(recall.sum(1) / (shapes > 0).sum(1))

        return {name: interval(rows, figure) for name, figure in zip(FIGURES, (accuracy, balanced), strict=True)}

    def difference(self, more: Array) -> Json:
        """By how much a part (n,) of being right is above another: the mean of ``more``, with an interval."""
        sums = [np.bincount(self.objects, values) for values in (more, np.ones_like(more))]
        low, high = interval(np.stack(sums, axis=1), lambda means: means[:, 0] / means[:, 1])
        return {"difference": float(more.mean()), "low": low, "high": high}
