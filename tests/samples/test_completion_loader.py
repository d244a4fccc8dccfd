"""The compiled completion sequences beside their plain twin, bit for bit, and the shapes that cannot be read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import trimesh
from numpy.typing import NDArray

from nepa3d.corpora.shape_list import list_shapes
from nepa3d.samples.completion import SequenceSettings, completion_sample, mesh_path
from nepa3d.samples.completion_loader import CompletionBatch, completion_batch
from nepa3d.shapes.views import BACKENDS, VoxelSettings

SETTINGS = SequenceSettings("pointcloud_noray", 40, 30, qa=True, eos=True, voxel=VoxelSettings(16))


def arrays_of(path: str) -> dict[str, NDArray]:
    with np.load(path) as file:
        return dict(file)


@pytest.fixture
def paths(golden: Path) -> list[str]:
    return list_shapes("cache", "test")[:4]


def require_same(
    batch: CompletionBatch, paths: list[str], settings: SequenceSettings, others: list[str | None]
) -> None:
    assert len(batch) == len(paths)
    for row, (path, other) in enumerate(zip(paths, others, strict=True)):
        sample = completion_sample(path, settings, 3, other)
        np.testing.assert_array_equal(batch.features[row], sample.features)
        np.testing.assert_array_equal(batch.types[row], sample.types)
        np.testing.assert_array_equal(batch.query_tokens, sample.query_tokens)
        np.testing.assert_array_equal(batch.target[row], sample.target)
        if sample.nearest_copy is None:
            assert batch.nearest_copy is None
        else:
            assert batch.nearest_copy is not None
            np.testing.assert_array_equal(batch.nearest_copy[row], sample.nearest_copy)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("source", ["pool", "pool_disjoint", "grid"])
@pytest.mark.parametrize("context", ["own", "absent"])
def test_views_and_sources(backend: str, source: str, context: str, paths: list[str]) -> None:
    settings = replace(SETTINGS, context_backend=backend, query_source=source, context=context)
    batch, faults = completion_batch(paths, settings, 3, threads=2)
    assert not faults
    require_same(batch, paths, settings, [None] * 4)


@pytest.mark.parametrize("qa", [False, True])
@pytest.mark.parametrize("eos", [False, True])
def test_forms_and_the_meshs_own_distances(qa: bool, eos: bool, paths: list[str]) -> None:
    settings = replace(SETTINGS, qa=qa, eos=eos, target="mesh")
    batch, _ = completion_batch(paths, settings, 3)
    require_same(batch, paths, settings, [None] * 4)


@pytest.mark.parametrize("source", ["pool", "pool_disjoint", "grid"])
def test_contexts_of_other_shapes(source: str, paths: list[str]) -> None:
    settings = replace(SETTINGS, context="mismatched", query_source=source)
    others = [*paths[1:], paths[0]]
    batch, _ = completion_batch(paths, settings, 3, others)
    require_same(batch, paths, settings, [*others])


def test_more_than_the_pool_holds(paths: list[str]) -> None:
    settings = replace(SETTINGS, n_query=len(arrays_of(paths[0])["pt_xyz_pool"]) + 5)
    batch, _ = completion_batch(paths, settings, 3)
    require_same(batch, paths, settings, [None] * 4)


def test_exact_distances(paths: list[str], tmp_path: Path) -> None:
    mesh = trimesh.creation.icosphere(1)
    for path in paths[:-1]:
        target = mesh_path(path, f"{tmp_path}")
        target.parent.mkdir(parents=True)
        mesh.export(target)
    settings = replace(SETTINGS, target="mesh", query_source="grid", mesh_root=f"{tmp_path}")
    batch, faults = completion_batch(paths, settings, 3, threads=2)
    assert list(faults) == paths[-1:]
    require_same(batch, paths[:-1], settings, [None] * 3)


def test_what_exact_distances_replace_may_be_damaged(paths: list[str], tmp_path: Path) -> None:
    arrays = arrays_of(paths[0])
    path = tmp_path / "class" / "a.npz"
    target = mesh_path(f"{path}", f"{tmp_path / 'meshes'}")
    path.parent.mkdir()
    target.parent.mkdir(parents=True)
    trimesh.creation.icosphere(1).export(target)
    np.savez(path, **{**arrays, "pt_dist_pool": np.full_like(arrays["pt_dist_pool"], np.nan)})
    settings = replace(SETTINGS, target="mesh", mesh_root=f"{tmp_path / 'meshes'}")
    batch, faults = completion_batch([f"{path}"], settings, 3)
    assert not faults
    require_same(batch, [f"{path}"], settings, [None])


def test_a_grid_stored_the_other_way_around(paths: list[str], tmp_path: Path) -> None:
    arrays = arrays_of(paths[0])
    grid = np.arange(arrays["udf_grid"].size, dtype=np.float16).reshape(arrays["udf_grid"].shape) / 4096
    path = tmp_path / "a.npz"
    np.savez(path, **{**arrays, "udf_grid": np.asfortranarray(grid)})
    settings = replace(SETTINGS, query_source="grid")
    batch, _ = completion_batch([f"{path}"], settings, 3)
    require_same(batch, [f"{path}"], settings, [None])


def test_what_cannot_be_read_is_left_out_and_said(paths: list[str], tmp_path: Path) -> None:
    arrays = arrays_of(paths[0])
    broken = {
        "gone.npz": None,
        "plain.npz": {key: array for key, array in arrays.items() if key != "pt_dist_udf_pool"},
        "nan.npz": {**arrays, "pt_dist_udf_pool": np.full_like(arrays["pt_dist_udf_pool"], np.nan)},
    }
    for name, found in broken.items():
        if found is not None:
            np.savez(tmp_path / name, **found)
    bad = [f"{tmp_path / name}" for name in broken]
    batch, faults = completion_batch([bad[0], paths[0], *bad[1:], paths[1]], SETTINGS, 3)
    require_same(batch, paths[:2], SETTINGS, [None] * 2)
    assert list(faults) == bad
    assert [*faults.values()] == [
        "there is no such file",
        "pt_dist_udf_pool is missing",
        "the sample has values that are not finite",
    ]
    taken = replace(SETTINGS, n_context=len(arrays["pt_xyz_pool"]), query_source="pool_disjoint")
    _, faults = completion_batch(paths[:1], taken, 3)
    assert "none is left to ask for" in faults[paths[0]]
    np.savez(tmp_path / "flat.npz", **{**arrays, "udf_grid": np.zeros((1, 1, 1), np.float16)})
    _, faults = completion_batch([f"{tmp_path / 'flat.npz'}"], replace(SETTINGS, query_source="grid"), 3)
    assert "no UDF grid to ask for, its udf_grid has shape (1, 1, 1)" in faults[f"{tmp_path / 'flat.npz'}"]
    _, faults = completion_batch(paths[:1], replace(SETTINGS, context="mismatched"), 3, bad[:1])
    assert faults == {paths[0]: f"context {bad[0]}: there is no such file"}
