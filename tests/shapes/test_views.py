"""Which answers each view exposes, and what older caches give instead."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from nepa3d import ops
from nepa3d.shapes.cache import CacheError, read_cache
from nepa3d.shapes.views import BACKENDS, VoxelSettings, read_answers

SHAPE = "cache/test/kitchen/Blend_Swap_CC_0_bread.npz"
RAYS = ("ray_origin", "ray_direction", "ray_hit", "ray_t", "ray_normal")


@pytest.fixture
def stored(golden: Path) -> dict[str, NDArray]:
    with np.load(SHAPE) as file:
        return dict(file)


@pytest.fixture
def old(tmp_path: Path, stored: dict[str, NDArray]) -> Path:
    """A cache from before the cloud's distances, its rays and the distance field were kept; deflated."""
    path = tmp_path / "old.npz"
    keys = [key for key in stored if "_pc_pool" not in key and "udf" not in key]
    np.savez_compressed(path, **{key: stored[key] for key in keys})
    return path


@pytest.mark.parametrize(
    ("backend", "distance", "rays"),
    [
        ("mesh", "pt_dist_pool", "pool"),
        ("pointcloud", "pt_dist_pc_pool", "pc_pool"),
        ("pointcloud_meshray", "pt_dist_pc_pool", "pool"),
        ("pointcloud_noray", "pt_dist_pc_pool", None),
        ("udfgrid", "pt_dist_udf_pool", None),
    ],
)
def test_view_exposes_its_own_answers(stored: dict[str, NDArray], backend: str, distance: str, rays: str) -> None:
    answers = read_answers(SHAPE, backend)
    np.testing.assert_array_equal(answers.point_xyz, stored["pt_xyz_pool"])
    np.testing.assert_array_equal(answers.point_distance, stored[distance])
    assert answers.rays_available == (rays is not None)
    if rays is None:
        assert all(len(getattr(answers, name)) == 0 for name in RAYS)
    else:
        keys = ("ray_o_pool", "ray_d_pool", f"ray_hit_{rays}", f"ray_t_{rays}", f"ray_n_{rays}")
        for name, key in zip(RAYS, keys, strict=True):
            np.testing.assert_array_equal(getattr(answers, name), stored[key])


@pytest.mark.parametrize("backend", BACKENDS)
def test_older_caches_load_in_every_view(stored: dict[str, NDArray], old: Path, backend: str) -> None:
    answers = read_answers(old, backend)
    if backend != "voxel":
        np.testing.assert_array_equal(answers.point_distance, stored["pt_dist_pool"])
    if answers.rays_available and backend != "voxel":
        np.testing.assert_array_equal(answers.ray_t, stored["ray_t_pool"])


@pytest.mark.parametrize("mark", [-1.0, np.nan, np.inf])
def test_marked_cloud_distances_are_recomputed_exactly(stored: dict[str, NDArray], tmp_path: Path, mark: float) -> None:
    stored["pt_dist_pc_pool"][3] = mark
    np.savez(tmp_path / "marked.npz", **stored)
    gaps = np.linalg.norm(stored["pt_xyz_pool"][:, None].astype(np.float64) - stored["pc_xyz"], axis=2).min(1)
    answers = read_answers(tmp_path / "marked.npz", "pointcloud_noray")
    np.testing.assert_allclose(answers.point_distance, gaps, rtol=0, atol=1e-6)


def test_cloud_distances_are_computed_if_no_others_are_kept(stored: dict[str, NDArray], tmp_path: Path) -> None:
    np.savez(tmp_path / "bare.npz", **{key: stored[key] for key in ("pc_xyz", "pt_xyz_pool")})
    answers = read_answers(tmp_path / "bare.npz", "pointcloud_noray")
    np.testing.assert_allclose(answers.point_distance, stored["pt_dist_pc_pool"], rtol=0, atol=1e-5)


def test_voxel_distance_is_read_at_the_cell_of_the_query(tmp_path: Path) -> None:
    """One point in the middle cell of 4; queries on the cell's borders and far outside."""
    queries = np.array([[0.1, 0.1, 0.1], [0.49, 0, 0], [0.5, 0, 0], [1, 0, 0], [9, 0, 0], [-0.01, 0, 0]], np.float32)
    rays = np.array([[0.1, 0.1, -2], [0.9, 0.9, -2]], np.float32)
    np.savez(
        tmp_path / "point.npz",
        pc_xyz=np.full((1, 3), 0.2, np.float32),
        pc_n=np.array([[0, 0, -1]], np.float32),
        pt_xyz_pool=queries,
        ray_o_pool=rays,
        ray_d_pool=np.array([[0, 0, 1]] * 2, np.float32),
    )
    answers = read_answers(tmp_path / "point.npz", "voxel", VoxelSettings(grid=4, dilate=0))
    np.testing.assert_array_equal(answers.point_distance, [0, 0, 0.5, 0.5, 0.5, 0.5])
    np.testing.assert_array_equal(answers.ray_hit, [1, 0])
    np.testing.assert_array_equal(answers.ray_t, [2, 0])
    np.testing.assert_array_equal(answers.ray_normal, [[0, 0, -1], [0, 0, 0]])


def test_voxel_rays_at_the_caches_own_settings_are_the_cached_ones(stored: dict[str, NDArray]) -> None:
    """The recorded caches hold the rays of a 16 grid dilated once."""
    answers = read_answers(SHAPE, "voxel", VoxelSettings(grid=16, dilate=1))
    np.testing.assert_array_equal(answers.ray_hit, stored["ray_hit_pc_pool"])
    np.testing.assert_allclose(answers.ray_t, stored["ray_t_pc_pool"], rtol=0, atol=1e-5)
    np.testing.assert_array_equal(ops.voxelize(stored["pc_xyz"], 16, 1), stored["occ_grid"])


def test_unknown_view_is_refused_with_the_known_ones_before_any_file_is_looked_at() -> None:
    with pytest.raises(ValueError, match=r"one of mesh, pointcloud, .*got 'meshes'"):
        read_answers("no/such/file.npz", "meshes")


def test_what_a_kernel_refuses_names_the_file(stored: dict[str, NDArray], tmp_path: Path) -> None:
    path = tmp_path / "none.npz"
    np.savez(path, pc_xyz=np.empty((0, 3), np.float32), pt_xyz_pool=stored["pt_xyz_pool"])
    with pytest.raises(CacheError, match=r"none\.npz"):
        read_answers(path, "pointcloud_noray")


@pytest.mark.parametrize(("field", "value"), [("grid", 0), ("dilate", -1), ("max_steps", -1)])
def test_voxel_settings_are_checked(field: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"voxel_{field}"):
        VoxelSettings(**{field: value})


def test_views_leave_the_cache_unread_where_they_need_not_look(stored: dict[str, NDArray], tmp_path: Path) -> None:
    path = tmp_path / "partly.npz"
    np.savez(path, **{**stored, "ray_t_pool": np.zeros(1, np.float32)})
    assert len(read_answers(path, "udfgrid").point_xyz) == len(read_cache(path, ["pt_xyz_pool"])["pt_xyz_pool"])
    with pytest.raises(CacheError, match="ray_t_pool"):
        read_answers(path, "mesh")


def test_voxels_of_queries_that_are_not_finite(tmp_path: Path, stored: dict[str, NDArray]) -> None:
    stored["pt_xyz_pool"] = np.full_like(stored["pt_xyz_pool"], np.nan)
    np.savez(tmp_path / "a.npz", **stored)
    with pytest.raises(CacheError, match=r"a.npz: pt_xyz_pool is not finite"):
        read_answers(tmp_path / "a.npz", "voxel")
