"""Shapes with labels: the sets that classifiers are fitted, chosen and tested on, and the cache they come from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nepa3d.models.encoder import ShapeLike, shape_name
from nepa3d.probes.result import first_failure
from nepa3d.samples.labelled import GroupBy, Sets, split_sets

Labels = NDArray[np.int64]


@dataclass(frozen=True)
class LabelledCache:
    """A cache with the splits train and test, a folder a class, and how train is divided."""

    root: str
    val_ratio: float = 0.1
    """Part of each class of train that chooses the classifiers' settings."""
    val_seed: int = 0
    group_by: GroupBy = "object"
    """Files of one object stay on one side of that division, and are resampled together."""
    fewshot_k: int = 0
    """Training shapes a class; 0: all."""
    fewshot_seed: int = 0
    """Which those are; counted up with the seed of the draws."""

    def sets(self, number: int) -> Sets:
        """Those of the seed of that number."""
        shots = (self.fewshot_k, self.fewshot_seed + number)
        sets = split_sets(self.root, self.val_ratio, self.val_seed, *shots, self.group_by)
        if len(sets.classes) < 2:
            raise ValueError(f"cache_root: expected at least two classes below {self.root}, got {sets.classes[0]}")
        return sets


@dataclass(frozen=True)
class Labelled:
    """Shapes and their labels (N,)."""

    shapes: Sequence[ShapeLike]
    labels: Labels

    @property
    def names(self) -> list[str]:
        """What the shapes are listed as."""
        return [shape_name(shape) for shape in self.shapes]

    def without(self, failed: dict[str, str], name: str) -> Labelled:
        """Those that could be read; ``ValueError`` naming the set if there is none."""
        names = self.names
        rows = [row for row, path in enumerate(names) if path not in failed]
        if not rows:
            first = first_failure(failed, names) if names else ""
            why = f"none of {len(names)} shapes could be read; first: {first}" if names else "it is empty"
            raise ValueError(f"cache_root: expected shapes in the {name} set, {why}")
        return Labelled([self.shapes[row] for row in rows], self.labels[rows])


@dataclass(frozen=True)
class Parts:
    """The three sets, and whether the classifiers are at last fitted to train and validation, or to train alone."""

    train: Labelled
    validation: Labelled
    test: Labelled
    refit: bool = True
