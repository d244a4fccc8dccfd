"""Packed caches: cache files in the tar shards that ``nepa3d pack`` writes, and the index that finds them there.

A packed split is the folder ``<root>/<split>`` with shards, tar files whose members are ``<split>/<class>/<id>.npz``,
and ``pack.npz``, which says where in which shard each of them lies. The path of a shape is what it is in a folder of
cache files, so only the readers of files (``nepa3d.shapes.cache``, the compiled loader) know of the two layouts.

Letters: N shapes, S shards, B bytes of all names.
"""

from __future__ import annotations

import bisect
import hashlib
import io
import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nepa3d.execution.errors import BadInputError
from nepa3d.execution.files import map_npz

INDEX = "pack.npz"
FORMAT = 1
DIGEST_BYTES = 32  # SHA-256
BLOCK = 1 << 16  # shapes of an index that are checked at a time

_COLUMNS = {"ends": np.int64, "shard": np.int32, "offset": np.int64, "size": np.int64, "modified": np.int64}

Bytes = NDArray[np.uint8]
Numbers = NDArray[np.int64]


class PackError(BadInputError):
    """A packed cache that cannot be used: names the index and the fault."""


class Place(NamedTuple):
    """Where a cache file lies: its shard, offset and size in bytes, and its SHA-256."""

    shard: str
    offset: int
    size: int
    digest: bytes


def shard_name(number: int) -> str:
    """The name of a shard in the folder of its split."""
    return f"shard-{number:05d}.tar"


class Pack:
    """The index of a packed split. ``PackError`` on an index that is damaged, or names files that no cache has."""

    def __init__(self, folder: str) -> None:
        self.folder, self.path = folder, os.path.join(folder, INDEX)  # noqa: PTH118 - a Path would respell it
        try:
            arrays = {key: array.view(np.ndarray) for key, array in map_npz(self.path).items()}
        except (ValueError, OSError) as error:
            raise PackError(f"{self.path}: not a readable index of shards: {error}") from error
        fault = _fault(arrays)
        if fault:
            raise PackError(f"{self.path}: not an index of shards: {fault}")
        self.names: Bytes = arrays["names"]  # (B,) "class/id.npz", one after the other, sorted
        self.ends: Numbers = arrays["ends"]  # (N,) where each name ends
        self.shard, self.offset, self.size = arrays["shard"], arrays["offset"], arrays["size"]  # (N,) each
        self.modified: Numbers = arrays["modified"]  # (N,) ns, of the files that were packed
        self.digest: Bytes = arrays["digest"]  # (N, 32)
        self.shard_size: Numbers = arrays["shard_size"]  # (S,) bytes
        self._bytes, self._ends = self.names.data, self.ends.data  # an array's own numbers take ten times as long

    def __len__(self) -> int:
        return len(self.ends)

    def name(self, row: int) -> str:
        """ "class/id.npz" of a shape."""
        begin = self._ends[row - 1] if row else 0
        return os.fsdecode(self._bytes[begin : self._ends[row]].tobytes())

    def find(self, name: str) -> Place | None:
        """Where the shape "class/id.npz" lies; ``None`` if it is not among these."""
        row = bisect.bisect_left(range(len(self)), name, key=self.name)
        return self.place(row) if row < len(self) and self.name(row) == name else None

    def place(self, row: int) -> Place:
        """Where a shape lies."""
        offset, size = int(self.offset[row]), int(self.size[row])
        return Place(self.shard_path(int(self.shard[row])), offset, size, self.digest[row].tobytes())

    def shard_path(self, number: int) -> str:
        """The path of a shard."""
        return os.path.join(self.folder, shard_name(number))  # noqa: PTH118 - a Path would respell it


def pack_of(folder: str | os.PathLike[str]) -> Pack | None:
    """The index of the split in ``folder``; ``None`` if it is not packed. ``PackError`` on a damaged one."""
    folder = os.fspath(folder)
    try:
        status = os.stat(f"{folder}/{INDEX}")  # noqa: PTH116 - for every batch
    except (FileNotFoundError, NotADirectoryError):
        return None
    return _opened(folder, status.st_dev, status.st_ino, status.st_mtime_ns)


def locate(path: str) -> Place | None:
    """Where ``<root>/<split>/<class>/<id>.npz`` lies; ``None`` if its split is not packed, or lacks it."""
    folder, name = _parted(path)
    pack = pack_of(folder) if name else None
    return pack.find(name) if pack else None


def exists(path: str | os.PathLike[str]) -> bool:
    """Whether there is a cache file of that path, in a folder or packed."""
    return Path(path).is_file() or locate(os.fspath(path)) is not None


def compiled_places(paths: Sequence[str]) -> list[bytes | tuple[bytes, bytes, int, int]]:
    """The places of cache files as the compiled core takes them: a path, or path, shard, offset and size."""
    packs: dict[str, Pack | None] = {}
    places: list[bytes | tuple[bytes, bytes, int, int]] = []
    for path in paths:
        folder, name = _parted(path)
        if name and folder not in packs:
            packs[folder] = pack_of(folder)
        pack = packs.get(folder)
        found = pack.find(name) if pack else None
        key = os.fsencode(path)
        places.append((key, os.fsencode(found.shard), found.offset, found.size) if found else key)
    return places


def require_unpacked(folder: str | os.PathLike[str], flag: str) -> None:
    """``ValueError`` naming ``flag`` if the split in ``folder`` is packed, for those who write cache files there."""
    if Path(folder, INDEX).exists():
        raise ValueError(
            f"{flag}: expected a folder of cache files, {os.fspath(folder)} is packed: use the cache it was packed "
            "from, or unpack its shards with tar"
        )


def open_place(place: Place) -> BinaryIO:
    """A cache file in its shard, as a file. ``ValueError`` where the shard is not there or ends before it does."""
    shard = Path(place.shard)
    if not shard.is_file():
        raise ValueError("not a file" if shard.exists() else "there is no such file")
    file = shard.open("rb")
    whole = os.fstat(file.fileno()).st_size
    if place.offset + place.size > whole:
        file.close()
        raise ValueError(f"it has {whole} bytes and ends before the shape does")
    return io.BufferedReader(_Part(file, place.offset, place.size))


def is_intact(place: Place) -> bool:
    """Whether the bytes of a cache file have the SHA-256 of the index. Raises as ``open_place`` does."""
    digest = hashlib.sha256()
    with open_place(place) as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.digest() == place.digest


class _Part(io.RawIOBase):
    """The bytes from ``begin`` on of a file, ``size`` of them."""

    def __init__(self, file: BinaryIO, begin: int, size: int) -> None:
        self._file, self._begin, self._size, self._at = file, begin, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        if start + offset < 0:
            raise OSError(f"offset {start + offset} lies before the file")
        self._at = start + offset
        return self._at

    def readinto(self, buffer: Any) -> int:
        count = max(0, min(len(buffer), self._size - self._at))
        data = os.pread(self._file.fileno(), count, self._begin + self._at)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def readall(self) -> bytes:
        data = os.pread(self._file.fileno(), max(0, self._size - self._at), self._begin + self._at)
        self._at += len(data)
        return data

    def close(self) -> None:
        self._file.close()
        super().close()


def _parted(path: str) -> tuple[str, str]:
    """The folder of the split and "class/id.npz"; the latter is empty where the path is too short."""
    parts = path.rsplit(os.sep, 2)
    return (parts[0], f"{parts[1]}/{parts[2]}") if len(parts) == 3 else (path, "")


@lru_cache(maxsize=64)
def _opened(folder: str, device: int, inode: int, modified: int) -> Pack:
    """An index is read again when the file is another one, or has changed."""
    return Pack(folder)


def _fault(arrays: dict[str, NDArray]) -> str:
    """What is wrong with the arrays of an index; "" if nothing is."""
    wanted = {"format", "names", "digest", "shard_size", *_COLUMNS}
    if missing := sorted(wanted - arrays.keys()):
        return f"{missing[0]} is missing"
    if arrays["format"].tolist() != [FORMAT]:
        return f"its format is {arrays['format'].tolist()}, expected [{FORMAT}]: it is of another version of nepa3d"
    count = arrays["ends"].size
    for key, dtype in {**_COLUMNS, "names": np.uint8, "digest": np.uint8, "shard_size": np.int64}.items():
        array = arrays[key]
        shape = (count, DIGEST_BYTES) if key == "digest" else (count,) if key in _COLUMNS else array.shape[:1]
        if array.dtype != dtype or array.shape != shape:
            return f"{key} must be {np.dtype(dtype)} of shape {shape}, got {array.dtype} {array.shape}"
    shard, offset, size, ends = (arrays[key] for key in ("shard", "offset", "size", "ends"))
    if not count:
        return "it lists no shape"
    if shard.min() < 0 or shard.max() >= len(arrays["shard_size"]):
        return f"it names a shard that is none of its {len(arrays['shard_size'])}"
    last = 0
    for first in range(0, count, BLOCK):  # of ten million shapes the whole would take gigabytes
        block = slice(first, first + BLOCK)
        if offset[block].min() < 0 or size[block].min() < 0:
            return "a shape lies outside of its shard"
        if (size[block] > arrays["shard_size"][shard[block]] - offset[block]).any():
            return "a shape lies outside of its shard"
        end = int(ends[block][-1])
        if not last <= end <= len(arrays["names"]):
            return "its names are damaged"
        if fault := _names_fault(arrays["names"][last:end], ends[block] - last):
            return fault
        last = end
    return "" if last == len(arrays["names"]) else "its names are damaged"


def _names_fault(names: Bytes, ends: Numbers) -> str:
    """What is wrong with names that must be "class/id.npz", neither part beginning with a dot."""
    begins = np.concatenate([[0], ends[:-1]])
    if (ends - begins < len("a/b.npz")).any():
        return "its names are damaged"
    slashes = np.flatnonzero(names == ord("/"))
    one_each = len(slashes) == len(ends) and (slashes > begins).all() and (slashes < ends - len("b.npz")).all()
    if not one_each or (names == 0).any():
        return "it has a name that is not class/id.npz"
    dots = (names[begins] == ord(".")) | (names[slashes + 1] == ord("."))
    endings = np.stack([names[ends - 4 + i] for i in range(4)], axis=1) == np.frombuffer(b".npz", np.uint8)
    return "it has a name that is not class/id.npz" if dots.any() or not endings.all() else ""
