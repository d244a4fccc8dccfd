"""Scans of meshes by a virtual camera, in ScanObjectNN's h5 layout: fine-tuning without the real scans."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from tabulate import tabulate

from nepa3d import cli
from nepa3d.corpora.preprocessing import RunFlags, exit_status, preprocess
from nepa3d.corpora.scanner import ScanSettings, scan
from nepa3d.corpora.shapenet import find_meshes
from nepa3d.corpora.splits import mesh_test_split
from nepa3d.execution.files import atomic_path, read_json, write_json
from nepa3d.execution.npz import save_npz
from nepa3d.execution.processes import Report, Unwritten
from nepa3d.execution.progress_bar import progress_bar
from nepa3d.shapes.cache import ShapeCache
from nepa3d.shapes.mesh import load_mesh
from nepa3d.shapes.query_pools import random_stream

FILES = {"train": "training_objectdataset.h5", "test": "test_objectdataset.h5"}  # as the real data set's


@dataclass(frozen=True, kw_only=True)
class Config(ScanSettings, RunFlags):
    """Scan the meshes of <mesh_root>/<class>/<id>/... into <out_root>/h5_files/main_split/{training,test}_*.h5.

    All scans of a mesh are in one split; the dataset "object" tells which mesh that is. classes.json has the classes'
    names by label. Meshes that fail are listed; the exit status is then 3.

    Example: python -m nepa3d.data.virtual_scanner --mesh_root data/ShapeNetCore.v2 --out_root data/VirtualScans
    """

    mesh_root: Path
    """Folder of the classes."""
    out_root: Path
    """Folder of the scans."""
    mesh_glob: str = "*/*/models/model_normalized.obj"
    """Where the meshes lie below mesh_root; the first two folders are class and mesh."""
    scans: int = 1
    """Scans of each mesh, from different sides."""
    test_ratio: float = 0.2
    """Share of each class that becomes the test split."""
    split_seed: int = 0
    """Seed of the choice of the test split."""
    seed: int = 0
    """Seed of the scans; -1: a different one in every run."""

    def __post_init__(self) -> None:
        ScanSettings.__post_init__(self)
        if self.scans < 1:
            raise ValueError(f"scans must be at least 1, got {self.scans}")

    def content(self) -> dict[str, Any]:
        """The settings that decide what is in the files."""
        names = [f.name for f in fields(ScanSettings)]
        names += ["seed", "mesh_glob", "scans", "test_ratio", "split_seed"]
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class ScanJob:
    """One scan of one mesh."""

    key: str  # "class/id_scan"
    mesh: Path
    out: Path
    settings: ScanSettings
    seed: int

    @property
    def reads(self) -> Path:
        """The mesh."""
        return self.mesh


def compute_scan(job: ScanJob) -> Unwritten:
    """One scan, to be written."""
    points, mask = scan(load_mesh(job.mesh), job.settings, random_stream(job.seed, job.key, "scan"), f"{job.mesh}")
    return Unwritten("", job.out, partial(save_npz, arrays={"points": points, "mask": mask}))


def plan(config: Config) -> dict[str, list[ScanJob]]:
    """The jobs of each split, sorted by key."""
    meshes = find_meshes(config.mesh_root, config.mesh_glob)
    test = set(mesh_test_split(list(meshes), config.test_ratio, config.split_seed))
    settings = ScanSettings(**{f.name: getattr(config, f.name) for f in fields(ScanSettings)})
    splits: dict[str, list[ScanJob]] = {split: [] for split in FILES}
    for mesh_key in sorted(meshes):
        split = "test" if mesh_key in test else "train"
        for number in range(config.scans):
            key = f"{mesh_key}_{number:02d}"
            out = _scans(config) / split / f"{key}.npz"
            splits[split].append(ScanJob(key, meshes[mesh_key], out, settings, config.seed))
    return splits


def scan_meshes(config: Config) -> Report | None:
    """Scan every mesh and write the h5 files; ``None`` if they are there, of the same settings. See ``Config``.

    ``ValueError`` if they are there, and of other settings.
    """
    about = config.out_root / "_meta" / "virtual_scanner.json"
    folder = config.out_root / "h5_files" / "main_split"
    if about.exists() and not _scans(config).exists() and not config.overwrite:
        before, settings = read_json(about).get("settings", {}), config.content()
        differing = [
            f"{name} {before.get(name)} -> {value}" for name, value in settings.items() if _other(before, name, value)
        ]
        if differing:
            raise ValueError(
                f"{folder} holds scans of other settings ({'; '.join(differing)}): choose another out_root, or "
                "--overwrite"
            )
        print(f"{folder} is there already; --overwrite scans again")
        return None
    splits = plan(config)
    if config.shard().count > 1:
        raise ValueError("num_shards: the scans of one h5 file are made by one command, give 1")
    report = preprocess(config, _scans(config), splits, compute_scan, config.content(), "scan")
    classes = sorted({job.key.split("/")[0] for jobs in splits.values() for job in jobs})
    if len(report.failures()) == len(report.outcomes):
        raise ValueError(f"mesh_root: no mesh below {config.mesh_root} could be scanned")
    rows = []
    for split, jobs in splits.items():
        made = [job for job in jobs if job.out.exists()]
        write_h5(folder / FILES[split], made, classes)
        counts = Counter(job.key.split("/")[0] for job in made)
        rows += [(split, name, counts[name]) for name in classes]
    write_json(folder / "classes.json", classes)
    write_json(about, {"settings": config.content(), "classes": classes} | report.to_json())
    shutil.rmtree(_scans(config))
    print(tabulate(rows, headers=("split", "class", "scans")))
    print(f"wrote {folder}")
    return report


def _other(before: dict[str, Any], name: str, value: Any) -> bool:
    """Whether a setting was another one, as JSON keeps it; one that an older version did not have was not."""
    return name in before and before[name] != json.loads(json.dumps(value))


def write_h5(path: Path, jobs: Sequence[ScanJob], classes: Sequence[str]) -> None:
    """The scans of one split: data (S, N, 3), label (S,), mask (S, N) and the mesh (S,) each is of."""
    points = jobs[0].settings.points if jobs else 0
    with atomic_path(path) as temporary, h5py.File(temporary, "x") as file:
        data = file.create_dataset("data", (len(jobs), points, 3), np.float32)
        mask = file.create_dataset("mask", (len(jobs), points), np.int32)
        for i, job in enumerate(progress_bar(jobs, desc=path.name, unit="scan")):
            with ShapeCache(job.out) as cache:
                data[i], mask[i] = cache["points"], cache["mask"]
        file["label"] = np.array([classes.index(job.key.split("/")[0]) for job in jobs], np.int32)
        file["object"] = np.array([job.key.rpartition("_")[0].encode() for job in jobs], h5py.string_dtype())


def _scans(config: Config) -> Path:
    return config.out_root / "_scans"  # one file each, until all are there


def command(config: Config) -> int:
    """``scan_meshes`` with an exit status."""
    report = scan_meshes(config)
    return cli.EXIT_OK if report is None else exit_status(report)


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(Config, command, argv, output="out_root")


if __name__ == "__main__":
    raise SystemExit(main())
