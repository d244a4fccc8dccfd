"""Split, validation and few-shot lists against the recorded ones, and their counts."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from nepa3d.corpora.splits import (
    class_of,
    grouped_test_split,
    grouped_validation,
    k_shot,
    mesh_test_split,
    stratified_validation,
)


@pytest.fixture
def lists(golden: Path) -> dict:
    return json.loads(Path("lists.json").read_text())


def test_test_splits_equal_the_recorded_ones(lists: dict) -> None:
    def keys(paths: list[str]) -> list[str]:
        return ["/".join(path.split("/")[-4:-2]) for path in paths]

    for name, expected in lists["mesh_test_split"].items():
        ratio, seed = name.split("_")
        assert mesh_test_split(keys(lists["mesh_paths"]), float(ratio), int(seed)) == keys(expected)
        assert mesh_test_split(keys(lists["mesh_paths"])[::-1], float(ratio), int(seed)) == keys(expected)


def test_validation_sets_equal_the_recorded_ones(lists: dict) -> None:
    for name, expected in lists["train_val"].items():
        ratio, seed = name.split("_")
        assert stratified_validation(lists["names"], float(ratio), int(seed)) == expected


def test_few_shot_sets_equal_the_recorded_ones(lists: dict) -> None:
    for name, expected in lists["kshot"].items():
        k, seed = name.split("_")
        assert k_shot(lists["names"], int(k), int(seed)) == expected


def _meshes(n: int) -> list[str]:
    return [f"synset/{i:03d}" for i in range(n)]


@pytest.mark.parametrize(
    ("n", "ratio", "expected"), [(4, 0.1, 0), (9, 0.01, 0), (10, 0.01, 1), (25, 0.1, 2), (35, 0.1, 4)]
)
def test_test_counts_round_half_to_even_and_large_synsets_give_one(n: int, ratio: float, expected: int) -> None:
    assert len(mesh_test_split(_meshes(n), ratio, 0)) == expected


def test_adding_a_model_moves_few_others() -> None:
    before, after = (set(mesh_test_split(_meshes(n), 0.2, 0)) for n in (100, 101))
    assert len(before ^ after) <= 1


@pytest.mark.parametrize(("n", "expected"), [(1, 0), (2, 1), (19, 1), (20, 2)])
def test_validation_counts(n: int, expected: int) -> None:
    assert len(stratified_validation([f"c/{i}.npz" for i in range(n)], 0.1, 0)) == expected


@pytest.mark.parametrize("seed", range(5))
def test_an_object_is_validation_with_all_its_files_or_none(seed: int) -> None:
    objects = {f"{name}/{i}_{scan}.npz": f"{name}{i}" for name in "ab" for i in range(20) for scan in range(i % 4 + 1)}
    paths = sorted(objects)
    names = [objects[path] for path in paths]
    validation = grouped_validation(paths, names, 0.2, seed)
    rest = set(paths) - set(validation)
    assert not {objects[path] for path in validation} & {objects[path] for path in rest}
    assert Counter(class_of(path) for path in {objects[p]: p for p in validation}.values()) == {"a": 4, "b": 4}
    assert grouped_validation(paths, paths, 0.2, seed) == stratified_validation(paths, 0.2, seed)


def test_few_shot_counts_and_the_class_of_a_path() -> None:
    paths = [f"root/{name}/{i}.npz" for name, n in (("b", 3), ("a", 9)) for i in range(n)]
    assert Counter(map(class_of, k_shot(paths, 5, 0))) == {"b": 3, "a": 5}


def test_order_within_a_class_does_not_matter_but_that_of_the_classes_does(lists: dict) -> None:
    names = lists["names"]
    swapped = [name for label in dict.fromkeys(map(class_of, names)) for name in names[::-1] if class_of(name) == label]
    assert swapped != names
    assert k_shot(swapped, 5, 1) == k_shot(names, 5, 1)
    assert k_shot(names[::-1], 5, 1) != k_shot(names, 5, 1)


def test_arguments_out_of_range_are_named() -> None:
    with pytest.raises(ValueError, match="fewshot_k"):
        k_shot([], 0, 0)
    with pytest.raises(ValueError, match="val_ratio"):
        stratified_validation([], 1.0, 0)
    with pytest.raises(ValueError, match="test_ratio"):
        mesh_test_split([], 1.5, 0)


def test_no_group_is_in_both_splits() -> None:
    rng = np.random.default_rng(0)
    groups = [f"g{number}" for number in rng.integers(0, 60, 800)]
    classes = [f"c{number}" for number in rng.integers(0, 5, 800)]  # groups are shared by classes
    test = grouped_test_split(classes, groups, 0.2, 0)
    sides = {group: {side for side, other in zip(test, groups, strict=True) if other == group} for group in groups}
    assert all(len(of_group) == 1 for of_group in sides.values())
    assert 0.1 < np.mean(test) < 0.3
    order = rng.permutation(800)
    again = grouped_test_split([classes[k] for k in order], [groups[k] for k in order], 0.2, 0)
    assert again == [test[k] for k in order]
    assert test != grouped_test_split(classes, groups, 0.2, 1)


def test_groups_of_a_class_come_close_to_the_ratio() -> None:
    def count(sizes: list[int]) -> int:
        groups = [f"g{k}" for k, size in enumerate(sizes) for _ in range(size)]
        return sum(grouped_test_split(["c"] * len(groups), groups, 0.2, 0))

    assert count([1] * 50) == 10
    assert count([90, 10]) == 10  # the large one would lead away from 20
    assert count([60, 50]) == 50  # each would lead away from 22: the smallest
    assert count([100, 100]) == 100
    with pytest.raises(ValueError, match="test_ratio must lie between 0 and 1, got 0"):
        grouped_test_split([], [], 0, 0)
