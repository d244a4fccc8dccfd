"""Packing the cache files of a split into tar shards, one shard at a time, each whole or not there.

``nepa3d.shapes.packed`` reads them. A shard that is written has a list of its members beside it until the index of its
split is written, so that a run that was interrupted goes on with the shards that are missing.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import tarfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nepa3d.corpora.shape_list import open_shapes
from nepa3d.execution.files import TEMPORARY_PREFIX, atomic_path, read_json, write_json, write_npz
from nepa3d.shapes.cache import CacheError
from nepa3d.shapes.packed import DIGEST_BYTES, FORMAT, INDEX, Pack, shard_name

Member = tuple[str, int, int]  # "class/id.npz", size in bytes, time of its last change in ns


@dataclass(frozen=True)
class ShardJob:
    """A shard to write: the folder of the split whose files it takes, its path, and its members."""

    source: str
    shard: Path
    members: tuple[Member, ...]

    @property
    def listing(self) -> Path:
        """Where its members are listed until the split's index is written."""
        return self.shard.with_suffix(".json")


def plan(cache_root: Path, split: str, out: Path, shard_bytes: int) -> list[ShardJob]:
    """The shards of a split in the order of its shapes: each as many files as ``shard_bytes`` hold, one at least."""
    source = f"{cache_root / split}"
    jobs: list[ShardJob] = []
    members: list[Member] = []
    size = 0
    for path in open_shapes(cache_root, split):
        status = os.stat(path)  # noqa: PTH116 - of millions; links are followed
        if members and size + status.st_size > shard_bytes:
            jobs.append(ShardJob(source, out / shard_name(len(jobs)), tuple(members)))
            members, size = [], 0
        members.append((path[len(source) + 1 :], status.st_size, status.st_mtime_ns))
        size += status.st_size
    return [*jobs, ShardJob(source, out / shard_name(len(jobs)), tuple(members))]


def write_shard(job: ShardJob) -> str:
    """Write a shard and the list of its members. ``CacheError`` naming a file that is not what it was when listed."""
    split = Path(job.source).name
    offsets, digests = [], []
    with atomic_path(job.shard) as temporary, temporary.open("xb") as file:
        with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
            for name, size, _ in job.members:
                data = Path(job.source, name).read_bytes()
                if len(data) != size:
                    raise CacheError(f"{job.source}/{name}", f"had {size} bytes when it was listed, now {len(data)}")
                info = tarfile.TarInfo(f"{split}/{name}")
                info.size = size
                archive.addfile(info, io.BytesIO(data))
                offsets.append(file.tell() - -(-size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE)
                digests.append(hashlib.sha256(data).hexdigest())
        size = file.tell()
    write_json(job.listing, {"members": job.members, "offsets": offsets, "digests": digests, "bytes": size})
    return ""


def is_written(job: ShardJob) -> bool:
    """Whether an earlier run wrote this shard from the same files."""
    try:
        kept = read_json(job.listing)
        return [tuple(member) for member in kept["members"]] == [*job.members] and kept["bytes"] == _size(job.shard)
    except (FileNotFoundError, ValueError, KeyError):
        return False


def is_packed(pack: Pack, jobs: Sequence[ShardJob]) -> bool:
    """Whether an index is of the files of ``jobs``: the same names, sizes and times of their last change."""
    names, sizes, times = _columns(jobs)
    same = (pack.size, sizes), (pack.modified, times), (pack.names, _joined(names)), (pack.ends, _ends(names))
    return all(np.array_equal(kept, wanted) for kept, wanted in same)


def missing_shard(pack: Pack) -> str | None:
    """The first shard of a pack that is not there or has another size; None if all are there."""
    for number, size in enumerate(pack.shard_size):
        shard = Path(pack.shard_path(number))
        if not shard.is_file() or _size(shard) != size:
            return f"{shard}"
    return None


def is_cut_as(pack: Pack, jobs: Sequence[ShardJob]) -> bool:
    """Whether the shards of a pack are those of ``jobs``."""
    return np.array_equal(pack.shard, _shards(jobs))


def write_index(folder: Path, jobs: Sequence[ShardJob]) -> None:
    """Write the index of a split whose shards are written; the lists of their members are of no use then."""
    names, sizes, times = _columns(jobs)
    kept = [read_json(job.listing) for job in jobs]
    digests = bytes.fromhex("".join(digest for listing in kept for digest in listing["digests"]))
    arrays: dict[str, NDArray] = {
        "format": np.array([FORMAT]),
        "names": _joined(names),
        "ends": _ends(names),
        "shard": _shards(jobs),
        "offset": np.concatenate([np.array(listing["offsets"], np.int64) for listing in kept]),
        "size": sizes,
        "modified": times,
        "digest": np.frombuffer(digests, np.uint8).reshape(-1, DIGEST_BYTES),
        "shard_size": np.array([listing["bytes"] for listing in kept], np.int64),
    }
    write_npz(folder / INDEX, arrays)


def remove_others(folder: Path, jobs: Sequence[ShardJob]) -> None:
    """Remove shards and lists of members of an unfinished pack that had other shards."""
    planned = {path for job in jobs for path in (job.shard, job.listing)}
    for path in folder.glob("shard-*"):
        if path not in planned:
            path.unlink()


def copy_rest(cache_root: Path, out: Path, splits: Iterable[str]) -> None:
    """Copy what lies beside the splits, such as ``_splits``, ``_meta`` and licences; lists of folders are left out."""
    for entry in sorted(cache_root.iterdir()):
        if entry.name in splits:
            continue
        for path in sorted(entry.rglob("*")) if entry.is_dir() else [entry]:
            is_list = path.parent == cache_root / "_meta" and path.match("index_*.npz")
            if path.is_file() and not is_list and not path.name.startswith(TEMPORARY_PREFIX):
                with atomic_path(out / path.relative_to(cache_root)) as temporary:
                    shutil.copyfile(path, temporary)


def members(shard: str) -> list[tuple[str, int, int]]:
    """Name, offset and size of each member of a tar file, as its headers say. ``OSError``, ``tarfile.TarError``."""
    with tarfile.open(shard, "r:") as archive:
        return [(info.name, info.offset_data, info.size) for info in archive]


def _columns(jobs: Sequence[ShardJob]) -> tuple[list[bytes], NDArray[np.int64], NDArray[np.int64]]:
    """Names, sizes and times of all members."""
    every: list[Any] = [member for job in jobs for member in job.members]
    names = [os.fsencode(name) for name, _, _ in every]
    numbers = np.array([numbers for _, *numbers in every], np.int64)
    return names, numbers[:, 0], numbers[:, 1]


def _shards(jobs: Sequence[ShardJob]) -> NDArray[np.int32]:
    """The number of the shard of each member."""
    return np.repeat(np.arange(len(jobs), dtype=np.int32), [len(job.members) for job in jobs])


def _joined(names: Sequence[bytes]) -> NDArray[np.uint8]:
    return np.frombuffer(b"".join(names), np.uint8)


def _ends(names: Sequence[bytes]) -> NDArray[np.int64]:
    return np.cumsum([len(name) for name in names], dtype=np.int64)


def _size(path: Path) -> int:
    return path.stat().st_size
