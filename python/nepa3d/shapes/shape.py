"""One shape in memory: its queries, and what its mesh, point cloud and grids answer; what a cache file holds."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nepa3d.execution.errors import BadInputError
from nepa3d.execution.files import write_npz
from nepa3d.shapes.cache import POOLS, CacheError, ShapeArrays, ShapeCache
from nepa3d.shapes.interop import cloud_arrays, mesh_arrays, open3d_cloud, trimesh_cloud, unit_colors
from nepa3d.shapes.mesh import load_mesh, prepare_mesh
from nepa3d.shapes.placement import Placement
from nepa3d.shapes.query_pools import PoolSettings, build_pools, random_stream
from nepa3d.shapes.rotation import Up, upright
from nepa3d.shapes.scan_files import CloudFile, read_cloud
from nepa3d.shapes.scans import placement_of_scan, scan_pools
from nepa3d.shapes.views import ShapeAnswers, VoxelSettings
from nepa3d.shapes.views import view as view_of

if TYPE_CHECKING:
    import trimesh

MeshLike: TypeAlias = "str | os.PathLike[str] | tuple[ArrayLike, ArrayLike] | Any"

CloudLike: TypeAlias = "ArrayLike | Any"

MESH_POOLS = PoolSettings()
CLOUD_POOLS = PoolSettings(pt_pool=2000, ray_pool=1000)
SCAN_POINTS = 200_000  # of a scan, unless more are asked for
_VOXEL = VoxelSettings()
_OF_EVERY_CACHE = ("pc_xyz", "pt_xyz_pool")  # one of them, of a cache of any age


class Shape(ShapeArrays):
    """The arrays of one shape by the keys of a cache file, and the name on which all random draws from it depend.

    Coordinates are those of the normalised shape, which fits the unit sphere. Make one with ``from_mesh``,
    ``from_cloud``, ``from_file`` or ``from_cache``.

    ```python
    chair = Shape.from_mesh("chair.obj")
    answers = chair.view("pointcloud_noray")
    answers.point_xyz.shape, answers.point_distance.shape  # (20000, 3), (20000,)
    ```
    """

    def __init__(
        self,
        arrays: Mapping[str, NDArray[Any]],
        name: str,
        placement: Placement | None = None,
        points_read: int | None = None,
        doubt: str = "",
    ) -> None:
        self._arrays = dict(arrays)
        self.path = name  # what faults of this shape name, as for a cache file
        self.placement = placement
        """Where the input lay; None of a shape that was read from a cache file, which does not hold it."""
        self.points_read = points_read
        """Points of the file of a scan, of which ``pc_xyz`` may hold some; None of any other shape."""
        self.doubt = doubt
        """Why it may be wrong, in words: most of its mesh could not be used. "" if nothing speaks for that."""

    @property
    def name(self) -> str:
        """The key of a shape made here, the path of one that was read."""
        return self.path

    @classmethod
    def from_mesh(
        cls,
        mesh: MeshLike,
        *,
        key: str | None = None,
        settings: PoolSettings = MESH_POOLS,
        seed: int = 0,
        up: Up = "y",
    ) -> Shape:
        """A mesh: a file (OBJ, OFF, PLY, STL, GLB, VRML), ``(vertices, faces)`` of shapes (V, 3) and (F, 3), a
        ``trimesh.Trimesh``, or an ``open3d.geometry.TriangleMesh`` or that of ``open3d.t``.

        The arrays are those of the cache file that ``nepa3d.data.preprocess_shapenet`` writes for the same mesh,
        ``key`` ("class/id"; left out: the file's stem, or "mesh"), ``settings`` and ``seed``. The axis
        ``up`` of the mesh becomes y, on which the shapes stand that models are trained on. Raises
        ``ValueError`` naming the file and the fault where the mesh cannot be used.
        """
        if isinstance(mesh, (str, os.PathLike)):
            key = Path(mesh).stem if key is None else key
            prepared = load_mesh(mesh, up=up)
        else:
            key = "mesh" if key is None else key
            vertices, faces = mesh_arrays(mesh)
            prepared = prepare_mesh(upright(vertices, up), faces, key)
        assert prepared.placement is not None
        placement = replace(prepared.placement, up=up)
        return cls(build_pools(prepared, settings, seed, key), key, placement, doubt=prepared.doubt)

    @classmethod
    def from_cloud(
        cls,
        xyz: CloudLike,
        normals: ArrayLike | None = None,
        *,
        colors: ArrayLike | None = None,
        key: str = "cloud",
        settings: PoolSettings = CLOUD_POOLS,
        seed: int = 0,
        up: Up = "y",
    ) -> Shape:
        """A point cloud ``xyz`` (N, 3), centred on its mean and divided by its largest norm, with unit ``normals``
        (N, 3) and ``colors`` (N, 3) from 0 to 1 (of whole numbers: from 0 to 255) if they are known.

        A ``trimesh.PointCloud``, an ``open3d.geometry.PointCloud`` or that of ``open3d.t`` brings its own normals and
        colours; trimesh has a place for normals only as ``metadata["normals"]``. The arrays are those of the cache file
        that ``nepa3d.data.preprocess_scanobjectnn`` writes for the same scan: distances to its points, no rays and no
        grid; colours are kept as ``pc_rgb``, which no view tells a model. ``up`` is as in ``from_mesh``.

        Raises ``ValueError`` on points that are not
        finite, all in one place or too far apart to be measured, and on arrays that are not of real numbers.
        """
        points, own_normals, own_colors = cloud_arrays(xyz)
        if points.ndim != 2 or points.shape[1] != 3 or len(points) == 0:
            raise ValueError(f"xyz must have shape (N, 3) with N at least 1, got {points.shape}")
        _require_real("xyz", points)
        placement = replace(placement_of_scan(upright(points, up), key), up=up)
        arrays = scan_pools(placement.normalized(points), settings, seed, key)
        known = own_normals if normals is None else normals
        if known is not None:
            _require_real("normals", np.asarray(known))
            arrays["pc_n"] = np.asarray(known, np.float32)
            if arrays["pc_n"].shape != points.shape or not np.isfinite(arrays["pc_n"]).all():
                raise ValueError(f"normals must be finite and have the shape of xyz, {points.shape}")
            arrays["pc_n"] = upright(arrays["pc_n"], up)
        rgb = own_colors if colors is None else unit_colors(colors)
        if rgb is not None:
            if rgb.shape != points.shape:
                raise ValueError(f"colors must be as many as the points, {len(points)}, got {len(rgb)}")
            arrays["pc_rgb"] = rgb
        return cls(arrays, key, placement)

    @classmethod
    def from_scan(
        cls,
        path: str | os.PathLike[str],
        *,
        max_points: int = SCAN_POINTS,
        key: str | None = None,
        settings: PoolSettings = CLOUD_POOLS,
        seed: int = 0,
        up: Up = "y",
    ) -> Shape:
        """A file of a point cloud, see ``nepa3d.shapes.scan_files.read_cloud``, or of a mesh.

        Of a cloud with more than ``max_points`` points (0: no limit) that many are taken at random, which depends on
        ``key`` (left out: the file's stem) and ``seed`` alone. ``up`` is as in ``from_mesh``.

        Raises ``ValueError`` naming the file and the fault.
        """
        if max_points < 0:
            raise ValueError(f"max_points must be at least 0 (0: all), got {max_points}")
        cloud = read_cloud(path)
        if cloud is None:
            rayless = replace(settings, ray_pool=0, no_pc_rays=True)
            return cls.from_mesh(path, key=key, settings=rayless, seed=seed, up=up)
        return cls._from_cloud_file(path, cloud, max_points, key, settings, seed, up)

    @classmethod
    def from_file(cls, path: str | os.PathLike[str], *, key: str | None = None, seed: int = 0, up: Up = "y") -> Shape:
        """A file of a mesh, as ``from_mesh`` reads it, or of a point cloud, as ``from_scan`` does, whichever it holds.

        Raises ``ValueError`` naming the file and the fault.
        """
        cloud = read_cloud(path)
        if cloud is None:
            return cls.from_mesh(path, key=key, seed=seed, up=up)
        return cls._from_cloud_file(path, cloud, SCAN_POINTS, key, CLOUD_POOLS, seed, up)

    @classmethod
    def _from_cloud_file(
        cls,
        path: str | os.PathLike[str],
        cloud: CloudFile,
        max_points: int,
        key: str | None,
        settings: PoolSettings,
        seed: int,
        up: Up,
    ) -> Shape:
        key = Path(path).stem if key is None else key
        try:
            placement_of_scan(cloud.xyz, os.fspath(path))  # of all, so that no fault hides among the others
            count = len(cloud.xyz)
            if max_points and count > max_points:
                rows = np.sort(random_stream(seed, key, "thin").choice(count, max_points, replace=False))
                cloud = cloud.some(rows)
            shape = cls.from_cloud(
                cloud.xyz, cloud.normals, colors=cloud.colors, key=key, settings=settings, seed=seed, up=up
            )
            shape.points_read = count
            return shape
        except BadInputError:
            raise
        except ValueError as error:
            raise ValueError(f"{os.fspath(path)}: {error}") from error

    @classmethod
    def from_cache(cls, path: str | os.PathLike[str]) -> Shape:
        """A cache file, read whole. Raises ``CacheError``, a ``ValueError``, naming the file and the fault; an archive
        of arrays that has neither ``pc_xyz`` nor ``pt_xyz_pool`` is none."""
        with ShapeCache(path) as cache:
            if not any(key in cache for key in _OF_EVERY_CACHE):
                wanted, got = " or ".join(_OF_EVERY_CACHE), ", ".join(cache) or "none"
                raise CacheError(path, f"no cache: expected {wanted}, got {got}; Shape.from_scan reads clouds")
            return cls({key: cache.stored(key) for key in cache}, cache.path)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the cache file of the shape: to a temporary name, synced and renamed."""
        write_npz(Path(path), self._arrays)

    def to_trimesh(self, *, placed: bool = False) -> trimesh.PointCloud:
        """The cloud ``pc_xyz`` as a ``trimesh.PointCloud`` with its colours, and with its normals as
        ``metadata["normals"]``, where the shape has them.

        A shape made of a mesh gives the samples of its surface: the triangles themselves are not kept. ``placed`` puts
        the points in the frame and units of the input; ``ValueError`` if the shape came from a cache file, which does
        not hold them.
        """
        return trimesh_cloud(*self._cloud(placed))

    def to_open3d(self, *, placed: bool = False) -> Any:
        """``to_trimesh`` as an ``open3d.geometry.PointCloud``. ``ValueError`` if Open3D cannot be imported
        (``nepa3d[viz]``)."""
        return open3d_cloud(*self._cloud(placed))

    def _cloud(self, placed: bool) -> tuple[NDArray[np.floating], NDArray[np.float32] | None, NDArray | None]:
        xyz, normals = self["pc_xyz"], self._arrays.get("pc_n")
        if placed and self.placement is None:
            raise ValueError(f"placed: {self.path} was read from a cache file, which does not say where the input lay")
        return (
            self.placement.restored(xyz) if placed and self.placement else xyz,
            normals if normals is not None and normals.any() else None,
            self._arrays.get("pc_rgb"),
        )

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
        shapes = (getattr(self._arrays.get(key), "shape", ()) for key in ("pc_xyz", "pt_xyz_pool", "ray_o_pool"))
        points, queries, rays = (shape[0] if shape else 0 for shape in shapes)
        return f"Shape({self.path!r}, {points} points, {queries} point queries, {rays} rays)"


def _require_real(name: str, array: NDArray[Any]) -> None:
    if array.dtype.kind not in "fiu":
        raise ValueError(f"{name} must be of real numbers, got {array.dtype}")
