"""The shape cache: one ``.npz`` per shape, its keys, and how they are read.

Letters: N surface samples, P point queries, R rays, G grid side.
"""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

# trailing shape and dtype kind of every key; the first axis is N, P or R by the key's prefix
_VECTORS, _SCALARS = (3,), ()
KEYS: dict[str, tuple[int, ...]] = {
    "pc_xyz": _VECTORS,  # surface samples
    "pc_n": _VECTORS,  # their face normals; zeros for scans
    "pt_xyz_pool": _VECTORS,  # point queries
    "pt_dist_pool": _SCALARS,  # distance to the mesh (of a scan: to the scan)
    "pt_dist_pc_pool": _SCALARS,  # distance to pc_xyz; negative or not finite: to be recomputed
    "pt_dist_udf_pool": _SCALARS,  # distance field sampled at the queries
    "ray_o_pool": _VECTORS,  # origins
    "ray_d_pool": _VECTORS,  # unit directions
    "ray_hit_pool": _SCALARS,  # first hit on the mesh: 0 or 1
    "ray_t_pool": _SCALARS,  # its distance, 0 on a miss
    "ray_n_pool": _VECTORS,  # its face normal, 0 on a miss
    "ray_hit_pc_pool": _SCALARS,  # the same answers from the voxelised point cloud
    "ray_t_pc_pool": _SCALARS,
    "ray_n_pc_pool": _VECTORS,
}
GRIDS = ("udf_grid", "occ_grid")  # (G, G, G) f16 and u8, or (1, 1, 1) when off
SETTINGS = ("df_grid", "df_dilate")  # (1,) i32


class CacheError(ValueError):
    """A cache file that cannot be used: names the file and the fault."""

    def __init__(self, path: str | os.PathLike[str], fault: str) -> None:
        super().__init__(f"{os.fspath(path)}: {fault}")
        self.path, self.fault = os.fspath(path), fault

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path, self.fault)


class ShapeCache(Mapping[str, NDArray]):
    """One cache file, its arrays read and checked when they are asked for. Use it in a ``with`` block.

    Raises ``CacheError`` on a file that is missing, empty, truncated or no ``.npz``, and on a member that is
    missing, damaged, pickled, of the wrong shape, or of another length than those read before it.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        try:
            self._handle = Path(self.path).open("rb")  # np.load would leave a damaged file open
        except FileNotFoundError as error:
            raise CacheError(self.path, "there is no such file") from error
        try:
            self._file = self._open()
        except BaseException:
            self._handle.close()
            raise
        self._read: dict[str, NDArray] = {}
        self._lengths: dict[str, tuple[str, int]] = {}

    def __enter__(self) -> ShapeCache:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._handle.close()

    def __iter__(self) -> Iterator[str]:
        return iter(self._file.files)

    def __len__(self) -> int:
        return len(self._file.files)

    def __contains__(self, key: object) -> bool:
        return key in self._file.files

    def __getitem__(self, key: str) -> NDArray:
        if key not in self._read:
            self._read[key] = self._checked(key, self._member(key))
        return self._read[key]

    def _open(self) -> np.lib.npyio.NpzFile:
        if os.fstat(self._handle.fileno()).st_size == 0:
            raise CacheError(self.path, "the file has 0 bytes")
        try:
            file = np.load(self._handle, allow_pickle=False)
        except (zipfile.BadZipFile, ValueError, EOFError) as error:
            raise CacheError(self.path, f"not a readable .npz: {error}") from error
        if not isinstance(file, np.lib.npyio.NpzFile):
            raise CacheError(self.path, "not an .npz but a single array")
        return file

    def _member(self, key: str) -> NDArray:
        if key not in self._file.files:
            raise CacheError(self.path, f"{key} is missing")
        try:
            return self._file[key]
        except (zipfile.BadZipFile, zlib.error, ValueError, EOFError, OSError, NotImplementedError) as error:
            raise CacheError(self.path, f"{key} cannot be read: {error}") from error

    def _checked(self, key: str, array: NDArray) -> NDArray:
        if key not in KEYS:
            return array
        expected = KEYS[key]
        if array.ndim != 1 + len(expected) or array.shape[1:] != expected or array.dtype.kind != "f":
            wanted = ", ".join(["n", *map(str, expected)]) + ("" if expected else ",")
            raise CacheError(self.path, f"{key} must be floats of shape ({wanted}), got {array.dtype} {array.shape}")
        pool = key.split("_")[0]
        first, length = self._lengths.setdefault(pool, (key, len(array)))
        if len(array) != length:
            raise CacheError(self.path, f"{key} has {len(array)} rows, {first} {length}")
        return np.ascontiguousarray(array, np.float32)


def needs_distances(distances: NDArray[np.floating]) -> bool:
    """Whether stored distances ask to be recomputed: a value that is negative or not finite says so."""
    return not bool(np.all(np.isfinite(distances) & (distances >= 0)))
