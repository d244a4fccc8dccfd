"""Give older caches the point cloud's own distances, so that its view does not know the mesh's."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nepa3d import cli, ops
from nepa3d.corpora.shape_list import list_shapes
from nepa3d.execution.files import remove_temporaries, write_npz
from nepa3d.execution.processes import Outcome, Pool, Report, Task
from nepa3d.execution.tasks import run_tasks
from nepa3d.shapes.cache import CacheError, ShapeCache, needs_distances
from nepa3d.shapes.packed import require_unpacked

KEY = "pt_dist_pc_pool"


@dataclass(frozen=True)
class Config:
    """Add pt_dist_pc_pool to every cache file that lacks a valid one, in place.

    Each file is replaced atomically, through symbolic links that point to it; hard links to it keep the old content.
    --stored also rewrites compressed files without compression, from which samples are read several times faster.
    Shapes that fail are listed; the command then ends with status 3.

    Example: python -m nepa3d.data.migrate_add_pt_dist_pc_pool --cache_root data/shapenet_cache_v0 --splits train,test
    """

    cache_root: str
    """Cache to migrate."""
    splits: str = "all"
    """Splits, separated by commas, or all."""
    workers: int = 4
    """Processes."""
    chunk: int = 1
    """Number of files sent to a worker at a time."""
    overwrite: bool = False
    """Recompute valid distances, too."""
    stored: bool = False
    """Rewrite compressed files without compression."""
    limit: int = 0
    """Process only this many files; 0: all."""


@dataclass(frozen=True)
class FileJob:
    """One file to migrate."""

    path: str
    overwrite: bool = False
    stored: bool = False


def migrate_file(path: str, *, stored: bool = False) -> str:
    """Add the distances to one file; all else in it keeps its values, dtypes and, unless ``stored``, form."""
    target = os.path.realpath(path)
    with ShapeCache(target) as cache:
        distance = ops.nearest_distance(cache["pc_xyz"], cache["pt_xyz_pool"]).distance
        arrays = {key: cache.stored(key) for key in cache if key != KEY} | {KEY: distance}
        deflate = cache.is_deflated() and not stored
    write_npz(target, arrays, deflate=deflate)
    return ""


def is_migrated(path: str, *, stored: bool = False) -> bool:
    """Whether the file has valid distances already, one for each query, and if asked is not deflated."""
    with ShapeCache(path) as cache:
        queries = cache["pt_xyz_pool"]
        if KEY not in cache or (stored and cache.is_deflated()):
            return False
        try:
            distances = cache[KEY]
        except CacheError:
            return False
        return len(distances) == len(queries) and not needs_distances(distances)


def splits_of(config: Config) -> list[str]:
    """The split folders to migrate; ``ValueError`` if there are none."""
    if config.splits != "all":
        names = [name.strip() for name in config.splits.split(",") if name.strip()]
        if not names:
            raise ValueError(f"splits must be names with commas between them, or all, got {config.splits!r}")
        return names
    root = Path(config.cache_root)
    if not root.is_dir():
        raise ValueError(f"cache_root: {root} is not a folder")
    return sorted(p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith(("_", ".")))


def migrate_or_skip(job: FileJob) -> str:
    """Migrate a file unless it is done; what it returns tells the two apart."""
    if not job.overwrite and is_migrated(job.path, stored=job.stored):
        return "skip"
    return migrate_file(job.path, stored=job.stored)


def migrate(config: Config) -> Report:
    """Migrate the chosen files; see ``Config``."""
    for split in splits_of(config):
        require_unpacked(Path(config.cache_root, split), "cache_root")
    paths = [path for split in splits_of(config) for path in list_shapes(config.cache_root, split)]
    if config.limit > 0:
        paths = paths[: config.limit]
    for folder in {Path(os.path.realpath(path)).parent for path in paths}:
        remove_temporaries(folder)
    tasks = [Task(path, FileJob(path, config.overwrite, config.stored)) for path in paths]
    pool = Pool(config.workers, config.chunk)
    outcomes = run_tasks(migrate_or_skip, tasks, pool, "migrate")
    return Report([Outcome(o.key, "skipped") if o.state == "ok_repaired" else o for o in outcomes])


def command(config: Config) -> int:
    """Migrate, and print the counts as the document has them."""
    report = migrate(config)
    count: Counter[str] = Counter(outcome.state for outcome in report.outcomes)
    failures = report.failures()
    for failure in failures:
        print(f"  {failure.key}: {failure.state}: {failure.reason}")
    total = len(report.outcomes)
    print(f"done: ok={count['ok']} skip={count['skipped']} fail={len(failures)} total={total}")
    return cli.EXIT_SOME_FAILED if failures else cli.EXIT_OK


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(Config, command, argv)


if __name__ == "__main__":
    raise SystemExit(main())
