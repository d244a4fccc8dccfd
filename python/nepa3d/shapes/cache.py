"""The shape cache: one ``.npz`` per shape, its keys, and how they are read.

Letters: N surface samples, P point queries, R rays, G grid side.
"""

from __future__ import annotations

import contextlib
import errno
import lzma
import math
import os
import struct
import tokenize
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nepa3d.execution.errors import BadInputError
from nepa3d.shapes.packed import locate, open_place


class Field(NamedTuple):
    """What a key holds: its shape, one size a letter and file, and the kinds of dtype it may have."""

    shape: tuple[str | int, ...]
    kinds: str = "f"


KEYS: dict[str, Field] = {
    "pc_xyz": Field(("N", 3)),  # surface samples
    "pc_n": Field(("N", 3)),  # their face normals; zeros for scans
    "pt_xyz_pool": Field(("P", 3)),  # point queries
    "pt_dist_pool": Field(("P",)),  # distance to the mesh (of a scan: to the scan)
    "pt_dist_pc_pool": Field(("P",)),  # distance to pc_xyz; negative or not finite: to be recomputed
    "pt_dist_udf_pool": Field(("P",)),  # distance field sampled at the queries
    "ray_o_pool": Field(("R", 3)),  # origins
    "ray_d_pool": Field(("R", 3)),  # unit directions
    "ray_hit_pool": Field(("R",), "fbiu"),  # first hit on the mesh: 0 or 1
    "ray_t_pool": Field(("R",)),  # its distance, 0 on a miss
    "ray_n_pool": Field(("R", 3)),  # its face normal, 0 on a miss
    "ray_hit_pc_pool": Field(("R",), "fbiu"),  # the same answers from the voxelised point cloud
    "ray_t_pc_pool": Field(("R",)),
    "ray_n_pc_pool": Field(("R", 3)),
    "udf_grid": Field(("G", "G", "G")),  # distance field; (1, 1, 1) when off
    "occ_grid": Field(("G", "G", "G"), "bu"),  # occupied cells
    "df_grid": Field((1,), "iu"),  # the grids' settings: side
    "df_dilate": Field((1,), "iu"),  # and rounds of dilation
}
# arrays of further views (nepa3d.shapes.view_table), by the prefix of their keys, and what few shapes have
_FURTHER: dict[str, Field] = {
    "pc_rgb": Field(("N", 3)),  # colours from 0 to 1; no view tells them
    "pt_dist_": Field(("P",)),
    "ray_hit_": Field(("R",), "fbiu"),
    "ray_t_": Field(("R",)),
    "ray_n_": Field(("R", 3)),
}
_POOL_PREFIXES = ("pc_", "pt_", "ray_")
POOLS = frozenset(key for key in KEYS if key.startswith(_POOL_PREFIXES))
MAX_MEMBER_BYTES = 1 << 30  # no shape comes near; a member that says more is damaged or a bomb
MAX_POOL_BYTES = 1 << 26  # of a pool: over five million points

# what zipfile, the decompressors and NumPy's header parser raise on bytes that are not what they say
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    tokenize.TokenError,
    EOFError,
    LookupError,
    OSError,
    OverflowError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
)
# what is wrong with the machine at the moment, and not with the file
_PASSING = frozenset({errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE, errno.ETIMEDOUT})
_HEADER_READERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


class CacheError(BadInputError):
    """A cache file that cannot be used: names the file and the fault."""

    def __init__(self, path: str | os.PathLike[str], fault: str) -> None:
        super().__init__(f"{os.fspath(path)}: {fault}")
        self.path, self.fault = os.fspath(path), fault

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path, self.fault)


class ShapeArrays(Mapping[str, NDArray]):
    """The arrays of one shape by the keys of a cache file, and the path or name that faults of it name."""

    path: str


class ShapeCache(ShapeArrays):
    """One cache file, its arrays read and checked when they are asked for. Use it in a ``with`` block.

    The arrays are read-only; those of the pools are float32, the grids are as stored. Raises ``CacheError`` on a file
    that is missing, empty, truncated or no ``.npz``, or whose shard is missing or truncated, and on a member that is
    missing, damaged, pickled, of the wrong shape or dtype, or of another length than those asked for before it.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        self._arrays: dict[str, NDArray] = {}
        self._sizes: dict[str, tuple[str, int]] = {}
        with contextlib.ExitStack() as opened:
            try:
                file = opened.enter_context(_open(self.path))
                self._zip = opened.enter_context(zipfile.ZipFile(file))
            except (CacheError, PermissionError):
                raise
            except _DAMAGE as error:
                _raise_passing(error)
                raise CacheError(self.path, f"not a readable .npz, truncated or of another kind: {error}") from error
            names = self._zip.namelist()
            if len(set(names)) < len(names):
                raise CacheError(self.path, f"{Counter(names).most_common(1)[0][0]} is there twice")
            self._members = {name.removesuffix(".npy"): name for name in names if name.endswith(".npy")}
            self._open = opened.pop_all()

    def __enter__(self) -> ShapeCache:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)

    def __contains__(self, key: object) -> bool:
        return key in self._members

    def __getitem__(self, key: str) -> NDArray:
        array = self.stored(key)
        if _is_pool(key) and array.dtype != np.float32:
            return array.astype(np.float32)
        return array

    def stored(self, key: str) -> NDArray:
        """The array of ``key`` with the dtype it has in the file."""
        if key not in self._members:
            raise CacheError(self.path, f"{key} is missing")
        if key not in self._arrays:
            try:
                self._arrays[key] = self._read(key)
            except CacheError:
                raise
            except _DAMAGE as error:
                _raise_passing(error)
                raise CacheError(self.path, f"{key} cannot be read: {error}") from error
        return self._arrays[key]

    def is_deflated(self) -> bool:
        """Whether any member is compressed."""
        return any(member.compress_type != zipfile.ZIP_STORED for member in self._zip.infolist())

    def _read(self, key: str) -> NDArray:
        """The array of a member; everything its header says is checked before its data is touched."""
        info = self._zip.getinfo(self._members[key])
        with self._zip.open(info) as member:
            shape, fortran, dtype = _header(member)
            if dtype.hasobject:
                raise CacheError(self.path, f"{key} is pickled; only plain arrays are read")
            self._check(key, shape, dtype)
            size = math.prod(shape) * dtype.itemsize
            limit = MAX_POOL_BYTES if _is_pool(key) else MAX_MEMBER_BYTES
            if max(size, info.file_size) > limit:
                raise CacheError(self.path, f"{key} says it holds over {limit} bytes")
            data = member.read(size + 1)  # past the end, which is where the checksum is compared
        if len(data) != size:
            raise CacheError(self.path, f"{key} does not hold the {size} bytes that {dtype} {shape} needs")
        array: NDArray = np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")
        return array

    def _check(self, key: str, shape: tuple[int, ...], dtype: np.dtype) -> None:
        field = field_of(key)
        if field is None:
            return
        rank_fits = len(shape) == len(field.shape)
        if not rank_fits or any(isinstance(w, int) and w != s for w, s in zip(field.shape, shape, strict=True)):
            wanted = ", ".join(map(str, field.shape)) + ("," if len(field.shape) == 1 else "")
            raise CacheError(self.path, f"{key} must have shape ({wanted}), got {shape}")
        if dtype.kind not in field.kinds:
            raise CacheError(self.path, f"{key} must have a dtype of kind {' or '.join(field.kinds)}, got {dtype}")
        for letter, size in zip(field.shape, shape, strict=True):
            if isinstance(letter, str):
                first, known = self._sizes.setdefault(letter, (key, size))
                if size != known:
                    raise CacheError(self.path, f"{key} has {letter} = {size}, {first} has {letter} = {known}")


def read_cache(path: str | os.PathLike[str], keys: Iterable[str]) -> dict[str, NDArray]:
    """The arrays of ``keys``, and no others, of the cache file ``path``; see ``ShapeCache`` for dtypes and faults."""
    with ShapeCache(path) as cache:
        return {key: cache[key] for key in keys}


def _raise_passing(error: Exception) -> None:
    """Raise an error that says nothing about the file, which may be sound."""
    if isinstance(error, OSError) and error.errno in _PASSING:
        raise error


def _open(path: str) -> BinaryIO:
    """The cache file of a path, from its folder or its shard; ``CacheError`` if there is none, or nothing in it."""
    place, file = locate(path), Path(path)
    if place is not None:
        try:
            opened = open_place(place)
        except ValueError as error:
            raise CacheError(path, f"its shard {place.shard}: {error}") from error
    elif not file.is_file():
        raise CacheError(path, "not a file" if file.exists() else "there is no such file")
    else:
        opened = file.open("rb")
    if opened.seek(0, os.SEEK_END) == 0:
        opened.close()
        raise CacheError(path, "the file has 0 bytes")
    return opened


def field_of(key: str) -> Field | None:
    """What the array ``key`` must be; None if it is none of a cache's."""
    if key in KEYS:
        return KEYS[key]
    return next((field for prefix, field in _FURTHER.items() if key.startswith(prefix)), None)


def needs_distances(distances: NDArray[np.floating]) -> bool:
    """Whether stored distances ask to be recomputed: a value that is negative or not finite says so."""
    return not bool(np.all(np.isfinite(distances) & (distances >= 0)))


def _is_pool(key: str) -> bool:
    return key.startswith(_POOL_PREFIXES) and field_of(key) is not None


def _header(member: Any) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = np.lib.format.read_magic(member)
    if version not in _HEADER_READERS:
        raise ValueError(f"unknown .npy version {version}")
    return _HEADER_READERS[version](member)
