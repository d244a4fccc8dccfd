"""The arrays of a cache file: against the recorded ones, by their definition, and their independence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nepa3d import ops
from nepa3d.shapes import query_pools
from nepa3d.shapes.mesh import Mesh
from nepa3d.shapes.query_pools import PoolSettings, build_pools, composed_pools
from tests.conftest import GOLDEN
from tests.ops.test_geometry import soup

SMALL = PoolSettings(
    pc_points=200, pt_pool=301, ray_pool=150, n_views=4, rays_per_view=20, pc_grid=16, df_grid=16, dist_ref_points=500
)
CUBE = Mesh(
    np.float32([(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]) / np.float32(3**0.5),
    np.array(
        [(0, 1, 3), (0, 3, 2), (4, 7, 5), (4, 6, 7), (0, 5, 1), (0, 4, 5), (2, 3, 7), (2, 7, 6), (0, 2, 6), (0, 6, 4),
         (1, 5, 7), (1, 7, 3)]
    ),
    {},
)  # fmt: skip


def recorded_caches() -> list[Path]:
    return sorted((GOLDEN / "cache").glob("*/*/*.npz"))


@pytest.mark.parametrize("path", recorded_caches()[::4], ids=lambda p: p.stem)
def test_recorded_answers(path: Path) -> None:
    with np.load(path) as file:
        cache = dict(file)
    grid, dilate = int(cache["df_grid"][0]), int(cache["df_dilate"][0])
    settings = PoolSettings(df_grid=grid, df_dilate=dilate, pc_grid=16)
    distance = ops.nearest_distance(cache["pc_xyz"], cache["pt_xyz_pool"]).distance
    np.testing.assert_allclose(distance, cache["pt_dist_pc_pool"], atol=1e-5)
    field = query_pools.distance_field(cache["pc_xyz"], cache["pt_xyz_pool"], settings)
    np.testing.assert_array_equal(field["occ_grid"], cache["occ_grid"])
    np.testing.assert_allclose(field["udf_grid"], cache["udf_grid"], atol=1e-3)
    np.testing.assert_allclose(field["pt_dist_udf_pool"], cache["pt_dist_udf_pool"], atol=1e-5)
    rays = query_pools.cloud_ray_answers(
        cache["pc_xyz"], cache["pc_n"], cache["ray_o_pool"], cache["ray_d_pool"], settings
    )
    np.testing.assert_array_equal(rays["ray_hit_pc_pool"], cache["ray_hit_pc_pool"])
    np.testing.assert_allclose(rays["ray_t_pc_pool"], cache["ray_t_pc_pool"], atol=1e-5)
    np.testing.assert_allclose(rays["ray_n_pc_pool"], cache["ray_n_pc_pool"], atol=1e-5)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"pt_dist_mode": "mesh"},
        {"no_udf": True},
        {"no_pc_rays": True},
        {"pc_grid": 12, "pc_dilate": 2, "pc_max_steps": 7},
        {"pt_pool": 1, "ray_pool": 0},
        {"pt_surface_ratio": 0.0},
        {"pt_surface_ratio": 1.0, "pt_surface_sigma": 0.9},
        {"pc_points": 1, "dist_ref_points": 1},
    ],
)
@pytest.mark.parametrize("faces", ["cube", "soup"])
def test_one_call_gives_what_the_steps_give(changes: dict[str, Any], faces: str) -> None:
    """Every array of the same name, in the same order, of the same type and bytes."""
    settings = PoolSettings(**{**SMALL.__dict__, **changes})
    mesh = CUBE
    if faces == "soup":  # with a face that rounding to float32 leaves without area
        vertices, triangles = soup(400, 1)
        vertices[triangles[7]] = vertices[triangles[7][0]]
        mesh = Mesh(vertices.astype(np.float32), triangles, {})
    fast, plain = build_pools(mesh, settings, 3, "box/a"), composed_pools(mesh, settings, 3, "box/a")
    assert list(fast) == list(plain)
    for name, array in plain.items():
        assert (fast[name].dtype, fast[name].shape) == (array.dtype, array.shape), name
        assert fast[name].tobytes() == array.tobytes(), name


def test_a_tree_at_hand_gives_the_same() -> None:
    bvh = ops.TriangleBvh(CUBE.vertices, CUBE.faces)
    with_tree, without = build_pools(CUBE, SMALL, 0, "box/a", bvh), build_pools(CUBE, SMALL, 0, "box/a")
    assert all(np.array_equal(array, without[name]) for name, array in with_tree.items())


def test_what_does_not_fit_is_named() -> None:
    bvh = ops.TriangleBvh(CUBE.vertices, CUBE.faces)
    draws = query_pools.draw(SMALL, 0, "box/a")

    def pools(faces: Any = CUBE.faces, field: tuple[int, int] = (8, 1), **changes: Any) -> None:
        bvh.query_pools(CUBE.vertices, faces, draws._replace(**changes), sigma=0.1, field=field, cloud=None)

    for message, wrong in (
        ("bvh must be the tree", {"faces": CUBE.faces[1:]}),
        ("surface must lie in", {"surface": draws.surface + 1}),
        ("jitter and around must have the same length", {"around": draws.around[1:]}),
        ("around must index 200 vertices", {"around": draws.around + 200}),
        ("origins and directions", {"origins": draws.origins[1:]}),
        ("anywhere must be finite", {"anywhere": np.full_like(draws.anywhere, np.nan)}),
        ("field must be between 1 and 2048", {"field": (0, 1)}),
    ):
        with pytest.raises(ValueError, match=message):
            pools(**wrong)


def test_recorded_cameras() -> None:
    with np.load(GOLDEN / "ops.npz") as arrays:
        cameras = query_pools.camera_positions(20)
        np.testing.assert_allclose(cameras, arrays["cameras"], atol=1e-6)
        np.testing.assert_allclose(query_pools.look_at_origin(cameras), arrays["lookat"], atol=1e-6)


def test_a_camera_above_still_has_a_frame() -> None:
    frame = query_pools.look_at_origin(np.float32([[0, 0, 2]]))[0]
    np.testing.assert_allclose(frame @ frame.T, np.eye(3), atol=1e-6)
    np.testing.assert_allclose(frame[2], [0, 0, -1], atol=1e-6)


def test_shapes_dtypes_and_ranges() -> None:
    cache = build_pools(CUBE, SMALL, 0, "box/a")
    floats = {"pc_xyz": (200, 3), "pc_n": (200, 3), "pt_xyz_pool": (301, 3), "pt_dist_pool": (301,)}
    floats |= {"pt_dist_pc_pool": (301,), "pt_dist_udf_pool": (301,), "ray_o_pool": (150, 3), "ray_d_pool": (150, 3)}
    for suffix in ("pool", "pc_pool"):
        floats |= {f"ray_hit_{suffix}": (150,), f"ray_t_{suffix}": (150,), f"ray_n_{suffix}": (150, 3)}
    assert {key: cache[key].shape for key in floats} == floats
    assert {cache[key].dtype for key in floats} == {np.dtype(np.float32)}
    assert cache["udf_grid"].dtype == np.float16
    assert cache["occ_grid"].dtype == np.uint8
    assert cache["udf_grid"].shape == cache["occ_grid"].shape == (16, 16, 16)
    assert set(cache) == set(floats) | {"udf_grid", "occ_grid", "df_grid", "df_dilate"}
    assert np.abs(cache["pt_xyz_pool"]).max() <= 1
    np.testing.assert_allclose(np.linalg.norm(cache["ray_d_pool"], axis=1), 1, atol=1e-6)
    side = np.float32(1 / 3**0.5)
    np.testing.assert_allclose(np.abs(cache["pc_xyz"]).max(1), side, atol=1e-6)


def test_answers_are_those_of_the_twins() -> None:
    settings = PoolSettings(**{**SMALL.__dict__, "pt_dist_mode": "mesh"})
    cache = build_pools(CUBE, settings, 0, "box/a")
    distance = ops.reference.closest_point(CUBE.vertices, CUBE.faces, cache["pt_xyz_pool"]).distance
    np.testing.assert_allclose(cache["pt_dist_pool"], distance, atol=1e-6)
    t, face, _ = ops.reference.cast_rays(CUBE.vertices, CUBE.faces, cache["ray_o_pool"], cache["ray_d_pool"])
    hit = face >= 0
    assert 0 < hit.sum() < len(hit)
    np.testing.assert_array_equal(cache["ray_hit_pool"], hit)
    np.testing.assert_allclose(cache["ray_t_pool"], np.where(hit, t, 0), atol=1e-5)
    facing = (cache["ray_n_pool"] * cache["ray_d_pool"]).sum(1)
    assert (facing[hit] < 0).all()
    assert not cache["ray_n_pool"][~hit].any()


def test_kdtree_distances_are_close_above_the_surface_distances() -> None:
    exact = build_pools(CUBE, PoolSettings(**{**SMALL.__dict__, "pt_dist_mode": "mesh"}), 0, "box/a")
    sampled = build_pools(CUBE, PoolSettings(**{**SMALL.__dict__, "dist_ref_points": 20_000}), 0, "box/a")
    np.testing.assert_array_equal(exact["pt_xyz_pool"], sampled["pt_xyz_pool"])
    excess = sampled["pt_dist_pool"] - exact["pt_dist_pool"]
    assert excess.min() > -1e-6
    assert excess.max() < 0.05


def test_half_of_the_queries_lie_near_the_surface() -> None:
    cache = build_pools(CUBE, SMALL, 0, "box/a")
    uniform = round(0.5 * 301)
    assert cache["pt_dist_pc_pool"][uniform:].max() < 0.1
    assert cache["pt_dist_pc_pool"][:uniform].max() > 0.3


def test_randomness_is_a_function_of_seed_and_key_alone() -> None:
    first = build_pools(CUBE, SMALL, 0, "box/a")
    again = build_pools(CUBE, SMALL, 0, "box/a")
    for key, array in first.items():
        np.testing.assert_array_equal(array, again[key])
    assert not np.array_equal(first["pc_xyz"], build_pools(CUBE, SMALL, 0, "box/b")["pc_xyz"])
    assert not np.array_equal(first["pc_xyz"], build_pools(CUBE, SMALL, 1, "box/a")["pc_xyz"])
    assert not np.array_equal(
        build_pools(CUBE, SMALL, -1, "a/a")["pc_xyz"], build_pools(CUBE, SMALL, -1, "a/a")["pc_xyz"]
    )


def test_one_setting_does_not_stir_another_draw() -> None:
    first = build_pools(CUBE, SMALL, 0, "box/a")
    second = build_pools(CUBE, PoolSettings(**{**SMALL.__dict__, "ray_pool": 40, "df_grid": 8}), 0, "box/a")
    for key in ("pc_xyz", "pt_xyz_pool", "pt_dist_pool"):
        np.testing.assert_array_equal(first[key], second[key])


def test_what_is_switched_off() -> None:
    cache = build_pools(CUBE, PoolSettings(**{**SMALL.__dict__, "no_udf": True, "no_pc_rays": True}), 0, "box/a")
    assert cache["udf_grid"].shape == cache["occ_grid"].shape == (1, 1, 1)
    assert not any("_pc_pool" in key and key.startswith("ray") for key in cache)
    assert "pt_dist_udf_pool" not in cache


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("pc_points", 0, "pc_points must be at least 1, got 0"),
        ("df_dilate", -1, "df_dilate must be at least 0, got -1"),
        ("pt_surface_ratio", 1.5, "pt_surface_ratio must be between 0 and 1, got 1.5"),
    ],
)
def test_settings_are_checked(name: str, value: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PoolSettings(**{name: value})
