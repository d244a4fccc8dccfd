"""Arrays that are no shape, and archives that are no cache."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from nepa3d import Shape
from nepa3d.shapes.cache import CacheError
from nepa3d.shapes.mesh import BadShapeError

XYZ = np.array([[0, 0, 0], [1, 0, 0], [0, 2, 0], [0, 0, 3.0]])


def test_an_archive_that_is_no_cache(tmp_path: Path) -> None:
    np.savez(tmp_path / "points.npz", points=XYZ)
    with pytest.raises(CacheError, match=r"points\.npz: no cache: expected pc_xyz or pt_xyz_pool, got points; "):
        Shape.from_cache(tmp_path / "points.npz")


@pytest.mark.parametrize("key", ["pc_xyz", "pt_xyz_pool"])
def test_a_cache_may_lack_arrays(tmp_path: Path, key: str) -> None:
    np.savez(tmp_path / "old.npz", **{key: XYZ})
    shape = Shape.from_cache(tmp_path / "old.npz")
    assert "4 point" in repr(shape) and "0 rays" in repr(shape)


def test_any_shape_is_shown() -> None:
    assert repr(Shape({}, "none")) == "Shape('none', 0 points, 0 point queries, 0 rays)"
    assert repr(Shape({"pc_xyz": np.array(1.0)}, "odd")) == "Shape('odd', 0 points, 0 point queries, 0 rays)"


@pytest.mark.parametrize("xyz", [XYZ * 1e200, np.array([[1e308, 0, 0], [-1e308, 0, 0], [1.7e308, 1, 1]])])
def test_an_extent_that_overflows_is_refused(xyz: NDArray) -> None:
    with pytest.raises(BadShapeError, match=r"far: too_large: the extent of xyz overflows, it reaches [13]\.?7?e\+"):
        Shape.from_cloud(xyz, key="far")


def test_large_coordinates_are_read() -> None:
    shape = Shape.from_cloud(XYZ * 1e100)
    np.testing.assert_allclose(shape["pc_xyz"], Shape.from_cloud(XYZ)["pc_xyz"], atol=1e-6)


@pytest.mark.parametrize("kind", [complex, str, object])
def test_what_are_no_real_numbers(kind: type) -> None:
    with pytest.raises(ValueError, match="xyz must be of real numbers, got "):
        Shape.from_cloud(XYZ.astype(kind))
    with pytest.raises(ValueError, match="normals must be of real numbers, got "):
        Shape.from_cloud(XYZ, XYZ.astype(kind))
