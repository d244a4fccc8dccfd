"""The geometry on a GPU beside the core; ``pytest -m gpu`` on a machine that has one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nepa3d import ops
from tests.cuda.comparison import (
    compare_grids,
    compare_meshes,
    compare_nearest,
    compare_orders,
    compare_samples,
    require_same_bits,
)
from tests.cuda.meshes import MESHES, points, rays
from tests.ops.test_geometry import cloud, icosphere, soup

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: pytest -m gpu"),
]


def on_gpu(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(array).cuda()


def test_nearest_points_have_the_cores_bits() -> None:
    compare_nearest("cuda")


def test_mesh_queries_have_the_cores_bits() -> None:
    compare_meshes("cuda", count=2000)


def test_surface_samples_have_the_cores_bits() -> None:
    compare_samples("cuda", count=5000)
    compare_samples("cuda", [soup(60_000, 5, 0.01)] + [soup(1 + i, i) for i in range(300)])


def test_orders_have_the_cores_bits() -> None:
    compare_orders("cuda", 100_000)


@pytest.mark.parametrize("side", [17, 64])
def test_grids_have_the_cores_bits(side: int) -> None:
    compare_grids("cuda", side)


def test_large_and_many_meshes_have_the_cores_bits() -> None:
    compare_meshes("cuda", [soup(60_000, 5, 0.01), icosphere(5)] + [soup(1 + i, i) for i in range(300)], count=500)


def test_ops_take_tensors_on_the_gpu() -> None:
    mesh = MESHES["turned box"]
    cast, asked = rays(mesh, 300), points(mesh, 300)
    device_mesh = [on_gpu(part) for part in mesh]
    for found, expected in (
        (ops.cast_rays(*device_mesh, *map(on_gpu, cast)), ops.cast_rays(*mesh, *cast)),
        (ops.closest_point(*device_mesh, on_gpu(asked)), ops.closest_point(*mesh, asked)),
        (ops.nearest_distance(on_gpu(asked), on_gpu(cloud(99))), ops.nearest_distance(asked, cloud(99))),
    ):
        for values, wanted in zip(found, expected, strict=True):
            assert values.is_cuda
            require_same_bits(values.cpu().numpy(), wanted)


def test_launches_go_to_the_current_stream() -> None:
    """The queries are written on that stream just before, behind enough work that another stream would be first."""
    cloud_on_gpu, wanted = on_gpu(cloud(3000)), cloud(500, 1)
    busy = torch.zeros(4096, 4096, device="cuda")
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(20):
            busy = busy @ busy
        queries = torch.zeros(500, 3, device="cuda")
        queries.copy_(on_gpu(wanted) + busy[:500, :3])
        found = ops.nearest_distance(cloud_on_gpu, queries)
    stream.synchronize()
    require_same_bits(found.distance.cpu().numpy(), ops.nearest_distance(cloud(3000), wanted).distance)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_query_that_is_not_finite_is_named(bad: float) -> None:
    queries = cloud(5)
    queries[2, 1] = bad
    with pytest.raises(ValueError, match="queries must be finite, row 2 is not"):
        ops.nearest_distance(on_gpu(cloud(5)), on_gpu(queries))


def test_tensors_of_two_devices_are_refused() -> None:
    with pytest.raises(ValueError, match="points and queries must be on the same device"):
        ops.nearest_distance(on_gpu(cloud(5)), torch.from_numpy(cloud(5)))
