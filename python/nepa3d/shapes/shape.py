"""One shape in memory: its queries, and what its mesh, point cloud and grids answer; what a cache file holds."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nepa3d.execution.files import write_npz
from nepa3d.shapes.cache import POOLS, CacheError, ShapeArrays, ShapeCache
from nepa3d.shapes.mesh import load_mesh, prepare_mesh
from nepa3d.shapes.query_pools import PoolSettings, build_pools
from nepa3d.shapes.scans import normalize_scan, scan_pools
from nepa3d.shapes.views import ShapeAnswers, VoxelSettings
from nepa3d.shapes.views import view as view_of

MeshLike: TypeAlias = "str | os.PathLike[str] | tuple[ArrayLike, ArrayLike] | Any"

MESH_POOLS = PoolSettings()
CLOUD_POOLS = PoolSettings(pt_pool=2000, ray_pool=1000)
_VOXEL = VoxelSettings()


class Shape(ShapeArrays):
    """The arrays of one shape by the keys of a cache file, and the name on which all random draws from it depend.

    Coordinates are those of the normalised shape, which fits the unit sphere. Make one with ``from_mesh``,
    ``from_cloud`` or ``from_cache``.

    ```python
    chair = Shape.from_mesh("chair.obj")
    answers = chair.view("pointcloud_noray")
    answers.point_xyz.shape, answers.point_distance.shape  # (20000, 3), (20000,)
    ```
    """

    def __init__(self, arrays: Mapping[str, NDArray[Any]], name: str) -> None:
        self._arrays = dict(arrays)
        self.path = name  # what faults of this shape name, as for a cache file

    @property
    def name(self) -> str:
        """The key of a shape made here, the path of one that was read."""
        return self.path

    @classmethod
    def from_mesh(
        cls, mesh: MeshLike, *, key: str | None = None, settings: PoolSettings = MESH_POOLS, seed: int = 0
    ) -> Shape:
        """A mesh: a file (OBJ, OFF, PLY, STL, GLB), ``(vertices, faces)`` of shapes (V, 3) and (F, 3), or an object
        with such attributes, as a ``trimesh.Trimesh`` is.

        The arrays are those of the cache file that ``nepa3d.data.preprocess_shapenet`` writes for the same mesh,
        ``key`` ("class/id"; left out: the file's stem, or "mesh"), ``settings`` and ``seed``. Raises ``ValueError``
        naming the file and the fault where the mesh cannot be used.
        """
        if isinstance(mesh, (str, os.PathLike)):
            key = Path(mesh).stem if key is None else key
            prepared = load_mesh(mesh)
        else:
            key = "mesh" if key is None else key
            vertices, faces = mesh if isinstance(mesh, tuple) else (mesh.vertices, mesh.faces)
            prepared = prepare_mesh(np.asarray(vertices), np.asarray(faces), key)
        return cls(build_pools(prepared, settings, seed, key), key)

    @classmethod
    def from_cloud(
        cls,
        xyz: ArrayLike,
        normals: ArrayLike | None = None,
        *,
        key: str = "cloud",
        settings: PoolSettings = CLOUD_POOLS,
        seed: int = 0,
    ) -> Shape:
        """A point cloud ``xyz`` (N, 3), centred on its mean and divided by its largest norm, with unit ``normals``
        (N, 3) if they are known.

        The arrays are those of the cache file that ``nepa3d.data.preprocess_scanobjectnn`` writes for the same scan:
        distances to its points, no rays and no grid. Raises ``ValueError`` on points that are not finite or all in one
        place.
        """
        points = np.asarray(xyz)
        if points.ndim != 2 or points.shape[1] != 3 or len(points) == 0:
            raise ValueError(f"xyz must have shape (N, 3) with N at least 1, got {points.shape}")
        arrays = scan_pools(normalize_scan(points, key), settings, seed, key)
        if normals is not None:
            arrays["pc_n"] = np.asarray(normals, np.float32)
            if arrays["pc_n"].shape != points.shape or not np.isfinite(arrays["pc_n"]).all():
                raise ValueError(f"normals must be finite and have the shape of xyz, {points.shape}")
        return cls(arrays, key)

    @classmethod
    def from_cache(cls, path: str | os.PathLike[str]) -> Shape:
        """A cache file, read whole. Raises ``CacheError``, a ``ValueError``, naming the file and the fault."""
        with ShapeCache(path) as cache:
            return cls({key: cache.stored(key) for key in cache}, cache.path)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the cache file of the shape: to a temporary name, synced and renamed."""
        write_npz(Path(path), self._arrays)

    def view(self, name: str, voxel: VoxelSettings = _VOXEL) -> ShapeAnswers:
        """The queries with the answers that the view ``name`` of ``nepa3d.shapes.views.BACKENDS`` exposes."""
        return view_of(self, name, voxel)

    def __getitem__(self, key: str) -> NDArray[Any]:
        if key not in self._arrays:
            raise CacheError(self.path, f"{key} is missing")
        array = self._arrays[key]
        return array.astype(np.float32) if key in POOLS and array.dtype != np.float32 else array

    def __contains__(self, key: object) -> bool:
        return key in self._arrays

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def __repr__(self) -> str:
        points, rays = len(self._arrays["pt_xyz_pool"]), len(self._arrays["ray_o_pool"])
        return f"Shape({self.path!r}, {len(self._arrays['pc_xyz'])} points, {points} point queries, {rays} rays)"
