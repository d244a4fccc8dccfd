"""Meshes and clouds of trimesh and Open3D become shapes, and shapes become their clouds."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh

import nepa3d
from nepa3d import cli
from nepa3d.report import view
from nepa3d.shapes.query_pools import PoolSettings
from nepa3d.shapes.scan_files import read_cloud

POOLS = PoolSettings(pc_points=64, pt_pool=60, ray_pool=8, n_views=2, rays_per_view=4, pc_grid=8, df_grid=8)
RNG = np.random.default_rng(0)
XYZ = RNG.normal(size=(40, 3)) * 5 + [10, 20, 30]
NORMALS = np.tile([0.0, 0.6, 0.8], (40, 1))
COLORS = RNG.integers(0, 256, (40, 3)).astype(np.uint8)


def test_a_mesh_says_where_it_lay() -> None:
    mesh = trimesh.creation.box((2, 4, 6), transform=trimesh.transformations.translation_matrix([7, 8, 9]))
    shape = nepa3d.Shape.from_mesh(mesh, settings=POOLS)
    assert shape.placement is not None
    np.testing.assert_allclose(shape.placement.centre, [7, 8, 9])
    assert shape.placement.scale == pytest.approx(np.sqrt(1 + 4 + 9))
    cloud = shape.to_trimesh(placed=True)
    assert (mesh.bounds[0] - 1e-5 <= cloud.vertices).all() and (cloud.vertices <= mesh.bounds[1] + 1e-5).all()
    np.testing.assert_allclose(trimesh.proximity.closest_point_naive(mesh, cloud.vertices)[1], 0, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(cloud.metadata["normals"], axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(shape.to_trimesh().vertices, shape["pc_xyz"])


def test_a_cloud_of_trimesh_and_back(tmp_path: Path) -> None:
    cloud = trimesh.PointCloud(XYZ, colors=COLORS, metadata={"normals": NORMALS})
    shape = nepa3d.Shape.from_cloud(cloud)
    plain = nepa3d.Shape.from_cloud(XYZ, NORMALS, colors=COLORS)
    assert all(np.array_equal(shape[key], plain[key]) for key in plain) and len(shape) == len(plain)
    back = shape.to_trimesh(placed=True)
    np.testing.assert_allclose(back.vertices, XYZ, atol=1e-5)
    np.testing.assert_array_equal(back.colors[:, :3], COLORS)
    np.testing.assert_allclose(back.metadata["normals"], NORMALS, atol=1e-6)
    shape.save(tmp_path / "cloud.npz")
    again = nepa3d.Shape.from_cache(tmp_path / "cloud.npz")
    np.testing.assert_array_equal(again.to_trimesh().colors[:, :3], COLORS)
    with pytest.raises(ValueError, match="which does not say where the input lay"):
        again.to_trimesh(placed=True)


def test_a_cloud_without_normals_and_colours() -> None:
    shape = nepa3d.Shape.from_cloud(trimesh.PointCloud(XYZ))
    assert "pc_rgb" not in shape and not shape["pc_n"].any()
    assert "normals" not in shape.to_trimesh().metadata


@pytest.mark.parametrize("colors", [COLORS[:9], COLORS.astype(float), COLORS[:, :2], np.full((40, 3), -0.1)])
def test_colours_that_are_none(colors: Any) -> None:
    with pytest.raises(ValueError, match="colors must"):
        nepa3d.Shape.from_cloud(XYZ, colors=colors)


def test_what_is_no_mesh() -> None:
    with pytest.raises(ValueError, match=r"mesh must be a file, .* got dict"):
        nepa3d.Shape.from_mesh({})


class Tensor:
    """As ``open3d.core.Tensor``, as far as it is used."""

    def __init__(self, array: Any) -> None:
        self.array = np.asarray(array)

    def cpu(self) -> Tensor:
        return self

    def numpy(self) -> np.ndarray[Any, Any]:
        return self.array


def test_open3ds_tensors_without_open3d() -> None:
    box = trimesh.creation.box((1, 2, 3))
    mesh = types.SimpleNamespace(vertex={"positions": Tensor(box.vertices)}, triangle={"indices": Tensor(box.faces)})
    one, other = (nepa3d.Shape.from_mesh(m, key="box", settings=POOLS) for m in (mesh, box))
    assert all(np.array_equal(one[key], other[key]) for key in other)
    point = {"positions": Tensor(XYZ), "normals": Tensor(NORMALS), "colors": Tensor(COLORS)}
    cloud = nepa3d.Shape.from_cloud(types.SimpleNamespace(point=point, to_legacy=None))
    plain = nepa3d.Shape.from_cloud(XYZ, NORMALS, colors=COLORS)
    assert all(np.array_equal(cloud[key], plain[key]) for key in plain)


def test_open3ds_own(tmp_path: Path) -> None:
    """The real library, where it is installed and its system libraries are."""
    o3d = pytest.importorskip("open3d", exc_type=ImportError)
    box = trimesh.creation.box((1, 2, 3))
    legacy = o3d.geometry.TriangleMesh(o3d.utility.Vector3dVector(box.vertices), o3d.utility.Vector3iVector(box.faces))
    tensor = o3d.t.geometry.TriangleMesh.from_legacy(legacy)
    expected = nepa3d.Shape.from_mesh(box, key="box", settings=POOLS)
    for mesh in (legacy, tensor):
        found = nepa3d.Shape.from_mesh(mesh, key="box", settings=POOLS)
        assert all(np.array_equal(found[key], expected[key]) for key in expected)
    shape = nepa3d.Shape.from_cloud(XYZ, NORMALS, colors=COLORS)
    cloud = shape.to_open3d(placed=True)
    np.testing.assert_allclose(np.asarray(cloud.points), XYZ, atol=1e-5)
    np.testing.assert_allclose(np.asarray(cloud.normals), NORMALS, atol=1e-6)
    np.testing.assert_allclose(np.asarray(cloud.colors) * 255, COLORS, atol=1e-4)
    for again in (cloud, o3d.t.geometry.PointCloud.from_legacy(cloud)):
        found = nepa3d.Shape.from_cloud(again)
        for key in ("pc_xyz", "pc_n", "pc_rgb"):
            np.testing.assert_allclose(found[key], shape[key], atol=1e-5)


def test_no_open3d(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "open3d", None)
    with pytest.raises(ValueError, match=r"Open3D is not installed: pip install 'nepa3d\[viz\]'"):
        nepa3d.Shape.from_cloud(XYZ).to_open3d()


def test_a_window_that_cannot_be(
    golden: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Named before any work: nothing is printed or written."""
    shape, out = next(Path("unpaired/eval").glob("*/*.npz")), tmp_path / "shape.png"
    flags = [f"{shape}", "--out_png", f"{out}", "--window"]
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    assert view.main(flags) == cli.EXIT_USAGE
    assert "window: there is no display" in capsys.readouterr().err
    monkeypatch.setenv("DISPLAY", ":99")
    monkeypatch.setitem(sys.modules, "open3d", None)
    assert view.main(flags) == cli.EXIT_USAGE
    said = capsys.readouterr()
    assert "window: Open3D is not installed" in said.err and said.out == ""
    assert not out.exists()


@pytest.mark.parametrize(
    ("rest", "normals", "colors"),
    [
        ("0 0 1", [[0, 0, 1]] * 3, None),
        ("0 0.6 0.8", [[0, 0.6, 0.8]] * 3, None),
        ("235 55 187", None, [[235, 55, 187]] * 3),
        ("0 0 0", None, [[0, 0, 0]] * 3),
        ("0.2 0.5 0.1", None, None),  # colours from 0 to 1, or anything else
        ("300 0 0", None, None),
        ("0 0 1 7", None, None),
    ],
)
def test_columns_behind_the_points_of_a_text(
    tmp_path: Path, rest: str, normals: list[list[float]] | None, colors: list[list[float]] | None
) -> None:
    path = tmp_path / "scan.xyz"
    path.write_text("".join(f"{x} 0 {x * x} {rest}\n" for x in range(3)), encoding="utf-8")
    found = read_cloud(path)
    assert found is not None
    for array, expected in ((found.normals, normals), (found.colors, colors)):
        assert (array is None) == (expected is None)
        if array is not None:
            np.testing.assert_allclose(array, expected)
    shape = nepa3d.Shape.from_scan(path)
    assert ("pc_rgb" in shape) == (colors is not None)
    assert shape["pc_n"].any() == (normals is not None)
