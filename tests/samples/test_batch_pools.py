"""The arrays of a batch of shapes, by what the threads of a GPU do: byte for byte those of one shape after another."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from nepa3d.samples.batch_pools import build_pools_of_batch
from nepa3d.shapes.mesh import Mesh
from nepa3d.shapes.query_pools import PoolSettings, build_pools
from tests.cuda.meshes import MESHES

SMALL = PoolSettings(
    pc_points=300, pt_pool=700, ray_pool=250, n_views=6, rays_per_view=10, pc_grid=20, df_grid=18, dist_ref_points=1100
)
NAMES = ("sphere", "turned box", "one face", "soup", "needles")


def compare(device: str, settings: PoolSettings) -> None:
    """Names in the same order, shapes, dtypes and bytes; the needles have faces without area."""
    meshes = [Mesh(MESHES[name][0], MESHES[name][1].astype(np.int64), {}) for name in NAMES]
    meshes.append(Mesh(meshes[0].vertices, np.concatenate([[[0, 0, 1]], meshes[0].faces]), {}))
    keys = [f"class/{number}" for number in range(len(meshes))]
    found = build_pools_of_batch(meshes, settings, 7, keys, device)
    assert len(found) == len(meshes)
    for arrays, mesh, key in zip(found, meshes, keys, strict=True):
        expected = build_pools(mesh, settings, 7, key)
        assert [*arrays] == [*expected]
        for name, values in expected.items():
            assert (arrays[name].shape, arrays[name].dtype) == (values.shape, values.dtype), name
            assert arrays[name].tobytes() == values.tobytes(), (key, name)


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"pt_dist_mode": "mesh", "no_udf": True},
        {"no_pc_rays": True, "df_dilate": 0, "pt_surface_ratio": 1.0},
        {"ray_pool": 0, "pc_max_steps": 3},
    ],
)
def test_a_batch_has_the_bytes_of_its_shapes(changed: dict[str, object]) -> None:
    compare("cpu", replace(SMALL, **changed))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: pytest -m gpu")
@pytest.mark.parametrize("changed", [{}, {"pt_dist_mode": "mesh"}])
def test_a_batch_on_a_gpu_has_the_bytes_of_its_shapes(changed: dict[str, object]) -> None:
    compare("cuda", replace(PoolSettings(), **changed))


def test_what_cannot_be_is_named() -> None:
    mesh = Mesh(MESHES["sphere"][0], MESHES["sphere"][1].astype(np.int64), {})
    with pytest.raises(ValueError, match="keys must be as many as meshes, 1, got 2"):
        build_pools_of_batch([mesh], SMALL, 0, ["a", "b"], "cpu")
    with pytest.raises(ValueError, match="must be on a CUDA device or the CPU, got meta"):
        build_pools_of_batch([mesh], SMALL, 0, ["a"], "meta")
    assert build_pools_of_batch([], SMALL, 0, [], "cpu") == []
