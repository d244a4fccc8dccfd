"""Views of a cached shape: the answers that each gives to the same queries. Their table is in ``view_table``."""

from __future__ import annotations

import os

from nepa3d.shapes.answers import ShapeAnswers, VoxelSettings
from nepa3d.shapes.cache import CacheError, ShapeArrays, ShapeCache
from nepa3d.shapes.stored import stored_answers
from nepa3d.shapes.view_table import BACKENDS, VIEWS, ViewRow, require_backend, view_row
from nepa3d.shapes.voxels import voxel_answers

_DEFAULT_VOXEL = VoxelSettings()

__all__ = [
    "BACKENDS",
    "VIEWS",
    "ShapeAnswers",
    "ViewRow",
    "VoxelSettings",
    "read_answers",
    "require_backend",
    "view",
    "view_row",
]


def read_answers(path: str | os.PathLike[str], backend: str, voxel: VoxelSettings = _DEFAULT_VOXEL) -> ShapeAnswers:
    """The view ``backend`` of the cache file ``path``. Reads only what the view needs; faults are ``CacheError``."""
    require_backend(backend)
    with ShapeCache(path) as cache:
        return view(cache, backend, voxel)


def view(cache: ShapeArrays, backend: str, voxel: VoxelSettings = _DEFAULT_VOXEL) -> ShapeAnswers:
    """``read_answers`` of a cache file that is open."""
    row = view_row(backend)
    try:
        return voxel_answers(cache, voxel) if row.voxels else stored_answers(cache, row)
    except CacheError:
        raise
    except ValueError as error:  # of a kernel, which does not know the file
        raise CacheError(cache.path, f"no {backend} view: {error}") from error
