"""What a classifier's predictions are worth: accuracies, the confusion matrix, and alarms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

COLLAPSED = 0.95  # of all predictions in one class


@dataclass(frozen=True)
class Scores:
    """Figures of predictions (n,) against labels (n,)."""

    accuracy: float
    balanced_accuracy: float
    """Mean of the classes' recalls, of those that are there."""
    majority: float
    """Accuracy of always saying the commonest label."""
    majority_share: float
    """Share of the predictions that are of one class, the class predicted most often: 1 in a collapse."""
    chance: float
    """Accuracy of guessing among all classes."""
    collapsed_to: str
    """The class that nearly all predictions are, or nothing."""
    confusion: NDArray[np.int64]
    """(C, C): rows are labels, columns predictions."""

    def alarm(self) -> str:
        """What makes the accuracy mean little, or nothing."""
        if self.collapsed_to:
            return f"nearly all predictions are {self.collapsed_to}: the accuracy is that class's share"
        if self.accuracy <= self.majority:
            return f"no better than always saying the commonest class ({self.majority:.4f})"
        return ""


def score(predictions: NDArray[np.int64], labels: NDArray[np.int64], classes: Sequence[str]) -> Scores:
    """The figures of a set with at least one shape."""
    count = len(classes)
    confusion = np.bincount(labels * count + predictions, minlength=count * count).reshape(count, count)
    per_class = confusion.sum(1)
    there = per_class > 0
    recall = np.diag(confusion)[there] / per_class[there]
    said = confusion.sum(0)
    top = int(said.argmax())
    collapsed = count > 1 and said[top] >= COLLAPSED * len(labels) and per_class[top] < COLLAPSED * len(labels)
    return Scores(
        accuracy=float(np.diag(confusion).sum() / len(labels)),
        balanced_accuracy=float(recall.mean()),
        majority=float(per_class.max() / len(labels)),
        majority_share=float(said[top] / len(labels)),
        chance=1 / count,
        collapsed_to=classes[top] if collapsed else "",
        confusion=confusion,
    )


def draw_confusion(scores: Scores, classes: Sequence[str], path: Path) -> None:
    """The confusion matrix as a PNG: shares of each label's shapes."""
    from matplotlib.figure import Figure

    from nepa3d.execution.files import atomic_open

    share = scores.confusion / np.maximum(scores.confusion.sum(1, keepdims=True), 1)
    side = 2.5 + 0.32 * len(classes)
    figure = Figure(figsize=(side + 0.8, side), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(classes)), classes, rotation=90)
    axes.set_yticks(range(len(classes)), classes)
    axes.set_xlabel("predicted")
    axes.set_ylabel("label")
    axes.set_title(f"accuracy {scores.accuracy:.3f}, balanced {scores.balanced_accuracy:.3f}")
    for label, row in enumerate(scores.confusion):
        for predicted, number in enumerate(row):
            if number:
                colour = "white" if share[label, predicted] > 0.6 else "black"
                axes.text(predicted, label, str(number), ha="center", va="center", fontsize=7, color=colour)
    figure.colorbar(image, label="share of the label's shapes", shrink=0.8)
    with atomic_open(path) as file:
        figure.savefig(file, format="png", dpi=110)
