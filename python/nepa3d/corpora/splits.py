"""Which shapes belong together: test splits, validation sets, few-shot sets. All exact functions of a seed."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import PurePath

import numpy as np


def class_of(path: str) -> str:
    """A cache file's class: the name of its folder."""
    return PurePath(path).parent.name


def mesh_test_split(keys: Sequence[str], test_ratio: float, split_seed: int) -> list[str]:
    """The test part of shapes "synset/model", sorted.

    Of each synset round(test_ratio * n) models, at least one when n >= 10: those with the smallest
    md5("<synset>/<model>:<split_seed>"), so that adding a model moves few others.
    """
    if not 0 <= test_ratio <= 1:
        raise ValueError(f"test_ratio must lie in [0, 1], got {test_ratio}")

    def rank(key: str) -> tuple[int, str]:
        return _number(key, split_seed), key

    groups: dict[str, list[str]] = {}
    for key in keys:
        groups.setdefault(key.split("/")[0], []).append(key)
    test: list[str] = []
    for group in groups.values():
        count = max(round(test_ratio * len(group)), 1 if len(group) >= 10 else 0)
        test += sorted(group, key=rank)[:count]
    return sorted(test)


def stable_test_split(keys: Sequence[str], test_ratio: float, split_seed: int) -> list[str]:
    """The test part of shapes "class/id", sorted, where each is decided by its own key and the seed alone.

    Those with md5("<class>/<id>:<split_seed>") in the lowest ``test_ratio`` of all values: adding a shape moves no
    other, and a class has that share on average only.
    """
    if not 0 <= test_ratio <= 1:
        raise ValueError(f"test_ratio must lie in [0, 1], got {test_ratio}")
    return sorted(key for key in keys if _number(key, split_seed) < test_ratio * 2**32)


def grouped_test_split(classes: Sequence[str], groups: Sequence[str], test_ratio: float, split_seed: int) -> list[bool]:
    """Whether each of N shapes, of a class and a group (N,), is of the test split; no group is of both.

    Classes are gone through by name, their groups by md5("<group>:<split_seed>"); a group joins the test split where
    that brings its class closer to test_ratio of its shapes. A class of which no group would takes its smallest. What
    an earlier class decided of a group stays. A class of one group is all on one side.
    """
    if not 0 < test_ratio < 1:
        raise ValueError(f"test_ratio must lie between 0 and 1, got {test_ratio}")

    def rank(group: str) -> str:
        return hashlib.md5(f"{group}:{split_seed}".encode(), usedforsecurity=False).hexdigest()

    counts: dict[str, Counter[str]] = {}
    for name, group in zip(classes, groups, strict=True):
        counts.setdefault(name, Counter())[group] += 1
    in_test: dict[str, bool] = {}
    for name in sorted(counts):
        sizes = counts[name]
        wanted = test_ratio * sizes.total() - sum(size for group, size in sizes.items() if in_test.get(group))
        undecided = sorted((group for group in sizes if group not in in_test), key=rank)
        if not undecided:
            continue
        taken = []
        for group in undecided:
            if sizes[group] < 2 * wanted:
                taken.append(group)
                wanted -= sizes[group]
        if not taken and not any(in_test.get(group) for group in sizes):
            taken = [min(undecided, key=lambda group: (sizes[group], rank(group)))]
        in_test.update((group, group in taken) for group in undecided)
    return [in_test[group] for group in groups]


def stratified_validation(paths: Sequence[str], ratio: float, seed: int) -> list[str]:
    """The validation part: int(n * ratio) shapes of each class, at least one if it has two. Sorted."""
    if not 0 <= ratio < 1:
        raise ValueError(f"val_ratio must lie in [0, 1), got {ratio}")

    def count(n: int) -> int:
        return max(int(n * ratio), 1 if n >= 2 and ratio > 0 else 0)

    return _drawn_by_class(paths, count, seed)


def grouped_validation(paths: Sequence[str], objects: Sequence[str], ratio: float, seed: int) -> list[str]:
    """``stratified_validation`` of whole objects: their first paths are drawn, the others go with them. Sorted.

    ``objects`` names the object of each path; where all differ, the result is ``stratified_validation``'s.
    """
    first: dict[str, str] = {}
    for path, name in zip(paths, objects, strict=True):
        first.setdefault(name, path)
    drawn = set(stratified_validation(list(first.values()), ratio, seed))
    return sorted(path for path, name in zip(paths, objects, strict=True) if first[name] in drawn)


def k_shot(paths: Sequence[str], k: int, seed: int) -> list[str]:
    """min(n, k) shapes of each class, sorted."""
    if k < 1:
        raise ValueError(f"fewshot_k must be at least 1, got {k}")
    return _drawn_by_class(paths, lambda n: min(n, k), seed)


def _number(key: str, split_seed: int) -> int:
    """32 bits that follow from a key and the seed."""
    digest = hashlib.md5(f"{key}:{split_seed}".encode("utf-8", "surrogateescape"), usedforsecurity=False).hexdigest()
    return int(digest[:8], 16)


def _drawn_by_class(paths: Sequence[str], count: Callable[[int], int], seed: int) -> list[str]:
    """Classes by first appearance; of each, the first ``count`` after a shuffle; one RandomState through all."""
    rng = np.random.RandomState(seed)
    groups: dict[str, list[str]] = {}
    for path in paths:
        groups.setdefault(class_of(path), []).append(path)
    drawn: list[str] = []
    for group in groups.values():
        shuffled = sorted(group)
        rng.shuffle(shuffled)
        drawn += shuffled[: count(len(shuffled))]
    return sorted(drawn)
