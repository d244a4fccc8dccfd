"""The vector kernels give the same bits on every instruction set this machine has."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from nepa3d import _core, ops
from tests.ops.test_geometry import cloud, icosphere, soup


@pytest.fixture
def widest() -> Iterator[str]:
    name = ops.instruction_set()
    yield name
    _core.use_instruction_set(name)


def answers(seed: int) -> list[np.ndarray]:
    queries = cloud(1013, seed)
    points = np.concatenate([cloud(700, seed + 1), cloud(50, seed + 1)])  # with duplicates
    occupancy = (np.random.default_rng(seed).random((17, 33, 29)) < 0.002).astype(np.uint8)
    results = [*ops.nearest_distance(points, queries), *ops.nearest_distance(points[:5], queries[:3])]
    for mesh in (icosphere(2), soup(300, seed)):
        results += ops.cast_rays(*mesh, 2 * queries, cloud(1013, seed + 2))
        results += ops.closest_point(*mesh, queries)
    results.append(ops.distance_transform(occupancy))
    cube = np.pad(occupancy, ((8, 8), (0, 0), (2, 2)))
    results += ops.voxel_first_hit(cube, 2 * queries, cloud(1013, seed + 3))
    results.append(ops.distance_transform(occupancy, (1.0, 0.7, 1.3)))
    results.append(ops.distance_transform(np.pad(occupancy, ((0, 0), (0, 90), (0, 0)))))  # beyond 16-bit squares
    return results


@pytest.mark.parametrize("name", ["baseline", "avx2"])
@pytest.mark.parametrize("seed", range(3))
def test_every_instruction_set_gives_the_same_bits(widest: str, name: str, seed: int) -> None:
    expected = answers(seed)
    try:
        _core.use_instruction_set(name)
    except ValueError:
        pytest.skip(f"this processor has no {name}")
    assert ops.instruction_set() == name
    for result, wanted in zip(answers(seed), expected, strict=True):
        np.testing.assert_array_equal(result, wanted)


def test_an_unknown_instruction_set_is_refused(widest: str) -> None:
    with pytest.raises(ValueError, match="avx9000"):
        _core.use_instruction_set("avx9000")
    assert ops.instruction_set() == widest
