"""What all preprocessing commands share: their run flags, and the run from a plan of cache files to a report."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

from nepa3d import cli
from nepa3d.execution.files import read_json, remove_temporaries, write_json
from nepa3d.execution.processes import Outcome, Pool, Report, Task, Work
from nepa3d.execution.shard_progress import ShardProgress
from nepa3d.execution.sharding import ArrayKind, Shard, choose_shard
from nepa3d.execution.tasks import run_tasks
from nepa3d.shapes.packed import require_unpacked


class CacheJob(Protocol):
    """What becomes one cache file."""

    @property
    def key(self) -> str: ...  # "class/id"
    @property
    def out(self) -> Path: ...
    @property
    def reads(self) -> Path | None: ...  # the file it is made of, if it is made of one as a whole


Job = TypeVar("Job", bound=CacheJob)


@dataclass(frozen=True, kw_only=True)
class RunFlags:
    """How the work is done; none of it changes a cache file."""

    overwrite: bool = False
    """Rebuild existing files."""
    workers: int = 4
    """Number of worker processes."""
    chunk_size: int = 8
    """Number of shapes sent to a worker at a time."""
    max_tasks_per_child: int = 0
    """Number of chunks after which a worker is replaced; 0: never (its memory does not grow)."""
    time_limit: float = 600.0
    """Time limit per shape, in seconds."""
    num_shards: int = 1
    """Number of shards, for several machines. In a Slurm array, the default is the number of tasks."""
    shard_index: int = 0
    """Shard to process, from 0."""
    shard_array: ArrayKind = "none"
    """Take the shard from the array job: pbs (requires num_shards) or slurm."""
    engine: Literal["local", "ray"] = "local"
    """Run on processes of this machine, or on a Ray cluster (requires nepa3d[ray])."""
    ray_address: str = ""
    """Address of the Ray cluster; empty: start one on this machine."""

    def pool(self) -> Pool:
        """The processes."""
        return Pool(
            self.workers, self.chunk_size, self.max_tasks_per_child, self.time_limit, self.engine, self.ray_address
        )

    def shard(self) -> Shard:
        """The part to do."""
        return choose_shard(self.shard_index, self.num_shards, self.shard_array)


def preprocess(
    flags: RunFlags,
    out_root: Path,
    splits: Mapping[str, Sequence[Job]],
    work: Work[Job],
    settings: Mapping[str, Any],
    report_name: str,
) -> Report:
    """Build every missing cache file of ``splits``, refusing to mix ``settings``; writes and prints a report.

    ``settings`` are those that decide what is in a cache file and which files there are.
    """
    begin = time.perf_counter()
    shard = flags.shard()
    others = strangers(out_root, splits)
    claim(flags, out_root, splits, settings)
    remove_temporaries(out_root)
    jobs = shard.select([job for of_split in splits.values() for job in of_split])
    missing = [job for job in jobs if flags.overwrite or not job.out.exists()]
    waiting = {job.key for job in missing}
    skipped = [Outcome(job.key, "skipped") for job in jobs if job.key not in waiting]
    progress = ShardProgress(out_root, report_name, shard, total=len(jobs), skipped=len(skipped))
    tasks = [Task(job.key, job, job.reads) for job in missing]
    report = Report(skipped + run_tasks(work, tasks, flags.pool(), "preprocess", progress.update))
    if any(outcome.state in ("crash", "oom", "timeout") for outcome in report.outcomes):
        remove_temporaries(out_root)  # of workers that did not come to put their files in place
    if shard.count == 1:
        mixed = {name.partition("/")[0] for name in others}
        _settle(out_root, {split: jobs for split, jobs in splits.items() if split not in mixed}, settings, report)
    seconds = time.perf_counter() - begin
    path = out_root / "_meta" / f"{report_name}{shard.suffix}.json"
    write_json(path, {"settings": settings, "seconds": seconds, "strangers": others} | report.to_json())
    progress.finish(report)
    report.print_summary(f"{len(jobs)} shapes in {seconds:.1f} s")
    if others:
        print(
            f"warning: {len(others)} files are of no shape of this run, such as {out_root / others[0]}: their class, "
            "id or split was another, or their source is gone; whoever reads the cache reads them, too"
        )
    print(f"report: {path}")
    return report


def strangers(out_root: Path, splits: Mapping[str, Sequence[CacheJob]]) -> list[str]:
    """Cache files "split/class/id.npz" that no job of their split makes."""
    found = (path for split in splits for path in (out_root / split).glob("*/*.npz"))
    planned = {job.out for of_split in splits.values() for job in of_split}
    return sorted(path.relative_to(out_root).as_posix() for path in found if path not in planned)


def claim(flags: RunFlags, out_root: Path, splits: Iterable[str], settings: Mapping[str, Any]) -> None:
    """Note the settings of each split, or refuse them: ``ValueError`` where shapes of other settings are there."""
    for split in splits:
        require_unpacked(out_root / split, "out_root")
        _claim(out_root, split, settings, flags.overwrite, flags.shard())


def exit_status(report: Report) -> int:
    """74 if reading or writing failed, 3 if other shapes did, else 0."""
    failures = report.failures()
    if any(failure.state == "io_error" for failure in failures):
        return cli.EXIT_IO
    return cli.EXIT_SOME_FAILED if failures else cli.EXIT_OK


def settings_file(out_root: Path, split: str) -> Path:
    """Where the settings of a split's shapes are kept."""
    return out_root / "_meta" / f"preprocess_settings_{split}.json"


def _claim(out_root: Path, split: str, settings: Mapping[str, Any], overwrite: bool, shard: Shard) -> None:
    """Refuse to mix shapes of different settings in a split, or to pass over half an exchange of them."""
    path = settings_file(out_root, split)
    if not path.exists():
        write_json(path, settings)
        return
    before = read_json(path)
    differing = [f"{k} {before.get(k)} -> {v}" for k, v in settings.items() if before.get(k) != v]
    if before.get("exchanged") and not overwrite:
        raise ValueError(
            f"{path}: an earlier --overwrite run did not finish, so files with two settings are mixed; "
            "rerun with --overwrite"
        )
    if differing and not overwrite:
        raise ValueError(
            f"{out_root / split} holds shapes of other settings ({'; '.join(differing)}): "
            "choose another out_root, or --overwrite"
        )
    if differing and shard.count > 1:
        raise ValueError(
            f"{out_root / split} holds shapes of other settings ({'; '.join(differing)}), which one shard of "
            f"{shard.count} cannot exchange: choose another out_root, or --overwrite without shards"
        )
    if differing:
        write_json(path, {**settings, "exchanged": True})  # until the last of them is written


def _settle(
    out_root: Path, splits: Mapping[str, Sequence[CacheJob]], settings: Mapping[str, Any], report: Report
) -> None:
    """Say that a split's shapes are of these settings, unless one of others stayed."""
    failed = {failure.key for failure in report.failures()}
    for split, of_split in splits.items():
        if not any(job.key in failed and job.out.exists() for job in of_split):
            write_json(settings_file(out_root, split), settings)
