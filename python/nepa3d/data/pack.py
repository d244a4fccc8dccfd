"""A shape cache as a few large files instead of many small ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from nepa3d import cli
from nepa3d.corpora.packing import (
    ShardJob,
    copy_rest,
    is_cut_as,
    is_packed,
    is_written,
    missing_shard,
    plan,
    remove_others,
    write_index,
    write_shard,
)
from nepa3d.corpora.preprocessing import exit_status
from nepa3d.execution.files import remove_temporaries
from nepa3d.execution.processes import Pool, Report, Task
from nepa3d.execution.tasks import run_tasks
from nepa3d.shapes.packed import INDEX, pack_of, require_unpacked

TIME_LIMIT = 86_400.0  # seconds a shard may take on a slow file system


@dataclass(frozen=True)
class Config:
    """Pack a shape cache into tar shards, for file systems that are slow with many files, such as NFS and Lustre.

    Each split becomes the folder <out>/<split> of shards and an index with the SHA-256 of each file; _splits, _meta and
    whatever else lies beside the splits are copied. Every command reads the packed cache as it reads the folder, with
    the same samples. Shards that an interrupted run wrote are kept. `tar xf` unpacks a shard.

    Example: nepa3d pack data/shapenet_cache_v0 --out data/shapenet_packed_v0 --workers 4
    """

    cache_root: Annotated[Path, tyro.conf.Positional]
    """Cache to pack; it is not changed."""
    out: Path
    """Folder of the packed cache."""
    shard_mb: float = 512.0
    """Size of a shard in megabytes, at most; a larger cache file has a shard of its own."""
    workers: int = 4
    """Number of worker processes."""

    def __post_init__(self) -> None:
        if not 0 < self.shard_mb < math.inf:
            raise ValueError(f"shard_mb must be positive, got {self.shard_mb}")
        Pool(self.workers)


@dataclass(frozen=True)
class Packed:
    """What became of a pack: shapes, shards, bytes of the shapes, and the outcomes of the shards that were missing."""

    shapes: int
    shards: int
    size: int
    report: Report


def pack(config: Config) -> Packed:
    """Write what is missing of the packed cache; see ``Config``. Indexes are written once all shards are there."""
    root, out = config.cache_root, config.out
    splits = _splits(root, out)
    remove_temporaries(out)
    jobs = {split: plan(root, split, out / split, round(config.shard_mb * 1e6)) for split in splits}
    waiting = {split: of_split for split, of_split in jobs.items() if not _is_there(out / split, of_split)}
    for split, of_split in waiting.items():
        (out / split).mkdir(parents=True, exist_ok=True)
        remove_others(out / split, of_split)
    planned = [job for of_split in jobs.values() for job in of_split]
    every = [job for of_split in waiting.values() for job in of_split]
    tasks = [Task(f"{job.shard}", job) for job in every if not is_written(job)]
    report = Report(run_tasks(write_shard, tasks, Pool(config.workers, time_limit=TIME_LIMIT), "pack"))
    if not report.failures():
        copy_rest(root, out, splits)
        for split, of_split in waiting.items():
            write_index(out / split, of_split)
        for job in planned:  # also of a split whose index is all that an earlier run came to
            job.listing.unlink(missing_ok=True)
    sizes = [size for job in planned for _, size, _ in job.members]
    return Packed(len(sizes), len(planned), sum(sizes), report)


def _splits(root: Path, out: Path) -> list[str]:
    """The splits to pack. ``ValueError`` if there are none, one is packed, or one folder lies in the other."""
    if not root.is_dir():
        raise ValueError(f"cache_root: {root} is not a folder")
    if out.resolve().is_relative_to(root.resolve()) or root.resolve().is_relative_to(out.resolve()):
        raise ValueError(f"out: expected a folder beside {root}, got {out}")
    splits = sorted(p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith(("_", ".")))
    if not splits:
        raise ValueError(f"cache_root: {root} holds no splits")
    for split in splits:
        require_unpacked(root / split, "cache_root")
    return splits


def _is_there(folder: Path, jobs: Sequence[ShardJob]) -> bool:
    """Whether the split is packed already; ``ValueError`` if its folder has an index of other files or shards, or one
    of these is missing."""
    kept = pack_of(folder)
    if kept is None:
        return False
    if not is_packed(kept, jobs):
        raise ValueError(
            f"out: {folder / INDEX} is of other files, or they changed since: remove {folder}, or choose another"
        )
    if not is_cut_as(kept, jobs):
        raise ValueError(f"shard_mb: {folder} has shards of another size: remove it, or give the size it was made with")
    if shard := missing_shard(kept):
        raise ValueError(f"out: {shard} is missing or damaged: remove {folder}, and pack it again")
    return True


def command(config: Config) -> int:
    """Pack, and say how large the shards are."""
    packed = pack(config)
    if packed.report.failures():
        packed.report.print_summary(f"{len(packed.report.outcomes)} shards")
        return exit_status(packed.report)
    print(
        f"{packed.shapes} shapes, {packed.size / 1e9:.2f} GB, in {packed.shards} shards, "
        f"{len(packed.report.outcomes)} of them written now: {config.out}"
    )
    return cli.EXIT_OK


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(Config, command, argv, output="out")


if __name__ == "__main__":
    raise SystemExit(main())
