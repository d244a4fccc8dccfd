"""Meshes in ShapeNet's layout become shape caches: surface samples, queries and their answers."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Literal

from nepa3d import cli
from nepa3d.data.files import remove_temporaries, write_json, write_npz, write_text
from nepa3d.data.mesh import load_mesh
from nepa3d.data.query_pools import PoolSettings, build_pools
from nepa3d.data.runner import Outcome, Pool, Report, Task, Unwritten, run_tasks
from nepa3d.data.splits import mesh_test_split


@dataclass(frozen=True, kw_only=True)
class Config(PoolSettings):
    """Turn <shapenet_root>/<synset>/<model>/models/model_normalized.obj into <out_root>/<split>/<synset>/<model>.npz.

    What exists is skipped. Shapes that fail are listed at the end and in <out_root>/_meta/preprocess_<split>.json;
    the exit status is then 3.

    Example: python -m nepa3d.data.preprocess_shapenet --shapenet_root data/ShapeNetCore.v2
    --out_root data/shapenet_cache_v0 --workers 4
    """

    shapenet_root: Path
    """Folder of the synsets."""
    out_root: Path
    """Folder of the caches."""
    split: Literal["train", "test", "all"] = "all"
    """Which part to build."""
    mesh_glob: str = "*/*/models/model_normalized.obj"
    """Where the meshes lie below shapenet_root; the first two folders are synset and model."""
    test_ratio: float = 0.1
    """Part of each synset that is the test split."""
    split_seed: int = 0
    """Which models those are."""
    pt_query_chunk: int = 2048
    """Has no effect here: the kernels need no chunks. Kept for the command's users."""
    ray_query_chunk: int = 2048
    """Has no effect here, as pt_query_chunk."""
    seed: int = 0
    """Randomness of the samples; -1: different at every call."""
    overwrite: bool = False
    """Build again what exists."""
    workers: int = 4
    """Processes."""
    chunk_size: int = 8
    """Shapes handed to a process at once."""
    max_tasks_per_child: int = 0
    """Chunks after which a process is replaced; 0: never, as its memory does not grow."""
    time_limit: float = 600.0
    """Seconds a shape may take."""

    def content(self) -> dict[str, object]:
        """The settings that decide what is in a cache file, and which files there are."""
        names = [*(f.name for f in fields(PoolSettings)), "seed", "mesh_glob", "test_ratio", "split_seed"]
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class ShapeJob:
    """One mesh to turn into one cache file."""

    key: str  # "synset/model"
    mesh: Path
    out: Path
    settings: PoolSettings
    seed: int


def compute_shape(job: ShapeJob) -> Unwritten:
    """The cache file of one mesh, to be written, and what cleaning the mesh dropped."""
    mesh = load_mesh(job.mesh)
    pools = build_pools(mesh, job.settings, job.seed, job.key)
    repaired = ", ".join(f"{count} {what.replace('_', ' ')}" for what, count in mesh.dropped.items() if count)
    return Unwritten(repaired, partial(write_npz, job.out, pools))


def shape_key(mesh: Path, root: Path) -> str:
    """ "synset/model" of a mesh below ``root``."""
    parts = mesh.relative_to(root).parts
    if len(parts) < 2:
        raise ValueError(f"{mesh}: a mesh must lie in a synset's folder below {root}")
    return f"{parts[0]}/{parts[1] if len(parts) > 2 else mesh.stem}"


def plan(config: Config) -> dict[str, list[ShapeJob]]:
    """The jobs of each chosen split, sorted by key."""
    root = config.shapenet_root
    if not root.is_dir():
        raise ValueError(f"shapenet_root: {root} is not a folder")
    meshes = _by_key(sorted(root.glob(config.mesh_glob)), root)
    if not meshes:
        raise ValueError(f"no mesh matches {config.mesh_glob} below {root}")
    test = mesh_test_split(list(meshes), config.test_ratio, config.split_seed)
    parts = {"train": sorted(set(meshes) - set(test)), "test": test}
    wanted = ("train", "test") if config.split == "all" else (config.split,)
    settings = PoolSettings(**{f.name: getattr(config, f.name) for f in fields(PoolSettings)})
    return {
        name: [
            ShapeJob(key, meshes[key], config.out_root / name / f"{key}.npz", settings, config.seed)
            for key in parts[name]
        ]
        for name in wanted
    }


def preprocess(config: Config) -> Report:
    """Build every missing cache file of the chosen split; see ``Config``."""
    begin = time.perf_counter()
    splits = plan(config)
    for split, of_split in splits.items():
        _require_one_split(config, split, of_split)
    for split, of_split in splits.items():
        _claim(config, split)
        manifest = "".join(sorted(f"{job.mesh}\n" for job in of_split))
        write_text(config.out_root / "_splits" / f"{split}.txt", manifest)
    remove_temporaries(config.out_root)
    jobs = [job for of_split in splits.values() for job in of_split]
    missing = [job for job in jobs if config.overwrite or not job.out.exists()]
    waiting = {job.key for job in missing}
    pool = Pool(config.workers, config.chunk_size, config.max_tasks_per_child, config.time_limit)
    tasks = [Task(job.key, job) for job in missing]
    outcomes = [Outcome(job.key, "skipped") for job in jobs if job.key not in waiting]
    report = Report(outcomes + run_tasks(compute_shape, tasks, pool, "preprocess"))
    failed = {failure.key for failure in report.failures()}
    for split, of_split in splits.items():
        if not any(job.key in failed and job.out.exists() for job in of_split):  # what is there is of these settings
            write_json(_settings_file(config, split), config.content())
    seconds = time.perf_counter() - begin
    path = config.out_root / "_meta" / f"preprocess_{config.split}.json"
    write_json(path, {"settings": config.content(), "seconds": seconds} | report.to_json())
    report.print_summary(f"{len(jobs)} shapes in {seconds:.1f} s")
    print(f"report: {path}")
    return report


def command(config: Config) -> int:
    """``preprocess`` with an exit status."""
    failures = preprocess(config).failures()
    if any(failure.state == "io_error" for failure in failures):
        return cli.EXIT_IO
    return cli.EXIT_SOME_FAILED if failures else cli.EXIT_OK


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(Config, command, argv)


def _settings_file(config: Config, split: str) -> Path:
    return config.out_root / "_meta" / f"preprocess_settings_{split}.json"


def _claim(config: Config, split: str) -> None:
    """Refuse to mix shapes of different settings in a split, or to pass over half an exchange of them."""
    path, settings = _settings_file(config, split), config.content()
    if not path.exists():
        write_json(path, settings)
        return
    before = json.loads(path.read_text())
    differing = [f"{k} {before.get(k)} -> {v}" for k, v in settings.items() if before.get(k) != v]
    if before.get("exchanged") and not config.overwrite:
        raise ValueError(f"{path}: shapes of other settings are half exchanged here: run it with --overwrite again")
    if differing and not config.overwrite:
        raise ValueError(
            f"{config.out_root / split} holds shapes of other settings ({'; '.join(differing)}): "
            "choose another out_root, or --overwrite"
        )
    if differing:
        write_json(path, settings | {"exchanged": True})  # until the last of them is written


def _require_one_split(config: Config, split: str, jobs: Sequence[ShapeJob]) -> None:
    """Refuse to put a shape into both splits."""
    other = "test" if split == "train" else "train"
    for job in jobs:
        there = config.out_root / other / f"{job.key}.npz"
        if there.exists():
            raise ValueError(
                f"{there}: this shape now belongs to {split}, as meshes were added or the split's settings changed: "
                "choose another out_root, or delete it"
            )


def _by_key(meshes: Sequence[Path], root: Path) -> dict[str, Path]:
    """Meshes by shape; two of one name would overwrite each other, and are refused."""
    found: dict[str, Path] = {}
    for path in meshes:
        key = shape_key(path, root)
        if key in found:
            raise ValueError(f"two meshes are both shape {key}: {found[key]} and {path}")
        found[key] = path
    return found


if __name__ == "__main__":
    raise SystemExit(main())
