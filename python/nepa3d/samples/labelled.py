"""Shapes with class labels: training, validation and test sets, and their batches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nepa3d.corpora.objects import objects_of
from nepa3d.corpora.shape_list import list_shapes
from nepa3d.corpora.splits import class_of, grouped_validation, k_shot
from nepa3d.samples.dataset import SampleSettings
from nepa3d.samples.loader import Request, evaluation_batch, prefetch, training_batch

GroupBy = Literal["object", "file"]


@dataclass(frozen=True)
class Sets:
    """Paths of the three sets, and the names of the classes by label."""

    train: list[str]
    validation: list[str]
    test: list[str]
    classes: list[str]

    def labels(self, paths: Sequence[str]) -> NDArray[np.int64]:
        """The label (n,) of each path: the place of its folder's name among the classes."""
        known = {name: label for label, name in enumerate(self.classes)}
        return np.array([known[class_of(path)] for path in paths], np.int64)


def split_sets(
    cache_root: str, val_ratio: float, val_seed: int, fewshot_k: int, fewshot_seed: int, group_by: GroupBy = "file"
) -> Sets:
    """Test is the cache's own. Of its train split a stratified part is validation; of the rest K shots a class, or all.

    By ``object`` all files of an object are validation, or none. ``ValueError`` if a class of the test set has no
    training shape.
    """
    every, test = list_shapes(cache_root, "train"), list_shapes(cache_root, "test")
    objects = objects_of(cache_root, "train", every) if group_by == "object" else every
    validation = grouped_validation(every, objects, val_ratio, val_seed)
    held_out = set(validation)
    train = [path for path in every if path not in held_out]
    if fewshot_k > 0:
        train = k_shot(train, fewshot_k, fewshot_seed)
    classes = sorted({class_of(path) for path in train})
    unknown = sorted({class_of(path) for path in test} - set(classes))
    if unknown:
        raise ValueError(f"{cache_root}: test has classes that train has not: {', '.join(unknown)}")
    return Sets(train, validation, test, classes)


@dataclass(frozen=True, kw_only=True)
class SplitFlags:
    """Training and validation shapes, chosen from the train split."""

    val_ratio: float = 0.1
    """Share of each class of the train split that is used for validation."""
    val_seed: int = 0
    """Seed of the choice of the validation set."""
    group_by: GroupBy = "file"
    """Split off files, or whole objects, so that no object has scans in both training and validation."""
    fewshot_k: int = 0
    """Training shapes per class (fewer if a class has fewer); 0: all."""
    fewshot_seed: int = 0
    """Seed of the choice of these shapes."""

    def __post_init__(self) -> None:
        if self.fewshot_k < 0:
            raise ValueError(f"fewshot_k must be at least 0, got {self.fewshot_k}")
        if not 0 <= self.val_ratio < 1:
            raise ValueError(f"val_ratio must lie in [0, 1), got {self.val_ratio}")

    def sets(self, cache_root: str) -> Sets:
        """The three sets of a cache."""
        shots = (self.fewshot_k, self.fewshot_seed)
        return split_sets(cache_root, self.val_ratio, self.val_seed, *shots, self.group_by)


def short_classes(train: Sequence[str], fewshot_k: int) -> dict[str, int]:
    """Classes of the training set with less than ``fewshot_k`` shapes, and how many they have."""
    counts = Counter(map(class_of, train))
    return {name: counts[name] for name in sorted(counts) if counts[name] < fewshot_k}


def shortage(fewshot_k: int, short: Mapping[str, int]) -> str:
    """What ``short_classes`` found, in a line."""
    told = ", ".join(f"{name} {count}" for name, count in short.items())
    return f"fewshot_k {fewshot_k} is more than these classes have training shapes, all of which are used: {told}"


@dataclass(frozen=True)
class SequenceReader:
    """How the shapes of a set are read as sequences."""

    backend: str
    settings: SampleSettings
    batch: int
    threads: int

    def requests(self, paths: Sequence[str]) -> list[Request]:
        """A request a path."""
        return [Request(path, self.backend, self.settings) for path in paths]


def training_batches(
    sets: Sets, reader: SequenceReader, seed: int, epoch: int, *, drop_ray_prob: float
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Features (B, T, 15), types (B, T) and labels (B,) of the training set in an order of (seed, epoch)."""
    order = np.random.default_rng([seed, epoch]).permutation(len(sets.train))
    reader = replace(reader, settings=replace(reader.settings, drop_ray_prob=drop_ray_prob))
    requests, labels = reader.requests(sets.train), sets.labels(sets.train)

    def read(begin: int) -> tuple[Tensor, Tensor, Tensor]:
        rows = order[begin : begin + reader.batch]
        places = range(begin, begin + len(rows))
        chosen = [requests[row] for row in rows]
        features, types = training_batch(chosen, seed, epoch, places, threads=max(1, reader.threads))
        return torch.from_numpy(features), torch.from_numpy(types), torch.from_numpy(labels[rows])

    starts = range(0, len(order), reader.batch)
    return prefetch(read, starts) if reader.threads else map(read, starts)


def evaluation_batches(
    paths: Sequence[str], reader: SequenceReader, eval_seed: int, resamples: int
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """For each resample of each run of paths: the place of the first path, features (B, T, 15) and types (B, T)."""
    requests = reader.requests(paths)
    parts = [(begin, resample) for begin in range(0, len(paths), reader.batch) for resample in range(resamples)]

    def read(number: int) -> tuple[int, Tensor, Tensor]:
        begin, resample = parts[number]
        chosen = requests[begin : begin + reader.batch]
        features, types = evaluation_batch(chosen, eval_seed, resample, threads=max(1, reader.threads))
        return begin, torch.from_numpy(features), torch.from_numpy(types)

    numbers = range(len(parts))
    return prefetch(read, numbers) if reader.threads else map(read, numbers)
