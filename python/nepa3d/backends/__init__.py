"""Views of a cached shape: which answers each exposes for the same queries."""

from __future__ import annotations

import os
from collections.abc import Callable

from nepa3d.backends.answers import ShapeAnswers, VoxelSettings
from nepa3d.backends.mesh_backend import mesh
from nepa3d.backends.pointcloud_backend import pointcloud, pointcloud_meshray, pointcloud_noray
from nepa3d.backends.udfgrid_backend import udfgrid
from nepa3d.backends.voxel_backend import voxel
from nepa3d.data.cache import CacheError, ShapeArrays, ShapeCache

_VIEWS: dict[str, Callable[[ShapeArrays, VoxelSettings], ShapeAnswers]] = {
    "mesh": mesh,
    "pointcloud": pointcloud,
    "pointcloud_meshray": pointcloud_meshray,
    "pointcloud_noray": pointcloud_noray,
    "udfgrid": udfgrid,
    "voxel": voxel,
}
BACKENDS = tuple(_VIEWS)
_DEFAULT_VOXEL = VoxelSettings()

__all__ = ["BACKENDS", "ShapeAnswers", "VoxelSettings", "read_answers", "require_backend", "view"]


def require_backend(name: str, argument: str = "backend") -> str:
    """``name``, or ``ValueError`` if there is no such backend."""
    if name not in BACKENDS:
        raise ValueError(f"{argument} must be one of {', '.join(BACKENDS)}, got {name!r}")
    return name


def read_answers(path: str | os.PathLike[str], backend: str, voxel: VoxelSettings = _DEFAULT_VOXEL) -> ShapeAnswers:
    """The view ``backend`` of the cache file ``path``. Reads only what the view needs; faults are ``CacheError``."""
    require_backend(backend)
    with ShapeCache(path) as cache:
        return view(cache, backend, voxel)


def view(cache: ShapeArrays, backend: str, voxel: VoxelSettings = _DEFAULT_VOXEL) -> ShapeAnswers:
    """``read_answers`` of a cache file that is open."""
    answers = _VIEWS[require_backend(backend)]
    try:
        return answers(cache, voxel)
    except CacheError:
        raise
    except ValueError as error:  # of a kernel, which does not know the file
        raise CacheError(cache.path, f"no {backend} view: {error}") from error
