"""Validate a cache: read every file and check its contents for consistency."""

from __future__ import annotations

import os
import re
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path, PurePath
from typing import Annotated

import numpy as np
import tyro
from numpy.typing import NDArray
from tabulate import tabulate

from nepa3d import cli, ops
from nepa3d.corpora.packing import members
from nepa3d.corpora.preprocess_meshes import keys_path
from nepa3d.corpora.preprocessing import settings_file
from nepa3d.corpora.shape_list import list_shapes
from nepa3d.corpora.shapenet import shape_key
from nepa3d.execution.files import TEMPORARY_PREFIX, read_json, write_json, write_text
from nepa3d.execution.processes import Pool, Task
from nepa3d.execution.tasks import run_tasks
from nepa3d.shapes.cache import POOLS, CacheError, ShapeCache, field_of, needs_distances
from nepa3d.shapes.packed import exists, is_intact, locate, pack_of
from nepa3d.shapes.query_pools import random_stream

REQUIRED = ("pc_xyz", "pt_xyz_pool", "pt_dist_pool")
RAYS = ("ray_o_pool", "ray_d_pool", "ray_hit_pool", "ray_t_pool", "ray_n_pool")
DAMAGED = ("bad_input", "ok_repaired")  # states of a file that was read and is not what it has to be
SHOWN = 20  # faults printed; all are in the JSON
TOLERANCE = 1e-5  # of distances and lengths, where a shape's radius is 1
HALF = 1e-3  # of a distance field stored in half precision, relative to its largest value


@dataclass(frozen=True)
class Config:
    """Validate every cache file below ROOT and list damaged and missing files.

    A valid file is readable, complete, finite and in range, and its distances are those of its point cloud. Of a packed
    cache, each file must have the SHA-256 of the index, and each shard the files of the index. A file is missing if
    preprocessing listed its mesh; shapes that preprocessing reported as bad input are counted separately. Writes
    <ROOT>/_meta/verify.json and ends with status 4 if files are damaged or missing. --delete removes damaged files, so
    that the preprocessing command builds them again.

    Example: nepa3d verify data/shapenet_cache_v0 --workers 4
    """

    root: Annotated[Path, tyro.conf.Positional]
    """Folder of the splits."""
    sample: int = 256
    """Point queries per shape whose distances are recomputed and compared; 0: none."""
    workers: int = 4
    """Number of worker processes."""
    list_file: Path | None = None
    """File to write the paths of damaged files to, one per line."""
    delete: bool = False
    """Remove damaged files."""

    def __post_init__(self) -> None:
        if self.sample < 0:
            raise ValueError(f"sample must be at least 0, got {self.sample}")
        Pool(self.workers)


@dataclass(frozen=True)
class FileJob:
    """One file to check."""

    path: str
    sample: int


def check_file(job: FileJob) -> str:
    """ "" if all is well, else ``CacheError`` with every fault found, "kind: detail"."""
    try:
        place = locate(job.path)
        with ShapeCache(job.path) as cache:
            if place and not is_intact(place):
                raise CacheError(job.path, f"its bytes in {place.shard} do not have the SHA-256 of the index")
            faults = list(_faults(cache, job))
    except CacheError as error:
        faults = [f"unreadable: {error.fault}"]
    if faults:
        raise CacheError(job.path, "; ".join(faults))
    return ""


@dataclass(frozen=True)
class ShardJob:
    """One shard to compare with the index of its split."""

    folder: str
    number: int


def check_shard(job: ShardJob) -> str:
    """ "" if the members of a shard are where its index says, else ``CacheError`` with the first that is not."""
    pack = pack_of(job.folder)
    assert pack is not None
    path = pack.shard_path(job.number)
    rows = np.flatnonzero(pack.shard == job.number).tolist()
    split = Path(job.folder).name
    wanted = [(f"{split}/{pack.name(row)}", int(pack.offset[row]), int(pack.size[row])) for row in rows]
    try:
        found = members(path)
    except (OSError, tarfile.TarError) as error:
        raise CacheError(path, f"unreadable: {error}") from error
    if Path(path).stat().st_size != pack.shard_size[job.number]:
        raise CacheError(path, f"unreadable: expected {pack.shard_size[job.number]} bytes as the index says")
    for has, should in zip_longest(found, wanted):
        if has != should:
            held, listed = ("{} at {}, {} bytes".format(*each) if each else "nothing more" for each in (has, should))
            raise CacheError(path, f"unlike the index: it holds {held}, the index has {listed}")
    return ""


def check(job: FileJob | ShardJob) -> str:
    """``check_file`` or ``check_shard``."""
    return check_file(job) if isinstance(job, FileJob) else check_shard(job)


def _faults(cache: ShapeCache, job: FileJob) -> list[str]:
    if missing := list(_missing(cache)):
        return missing
    for key in cache:
        if field_of(key) is not None:
            cache[key]  # checks dtype, shape and checksum
    return [*_not_finite(cache), *_out_of_range(cache)] or list(_other_distances(cache, job))


def _missing(cache: ShapeCache) -> Iterator[str]:
    for key in REQUIRED:
        if key not in cache:
            yield f"missing: {key}"
    rays = [key for key in RAYS if key in cache]
    if rays and len(rays) < len(RAYS):
        yield f"missing: {', '.join(sorted(set(RAYS) - set(rays)))}"


def _not_finite(cache: ShapeCache) -> Iterator[str]:
    for key in [*(POOLS - {"pt_dist_pc_pool"}), "udf_grid"]:  # values of that one may ask to be computed again
        if key in cache and not np.isfinite(cache[key]).all():
            yield f"not finite: {key}"


def _out_of_range(cache: ShapeCache) -> Iterator[str]:
    def lengths(key: str) -> NDArray[np.float64]:
        return np.linalg.norm(cache[key].astype(np.float64), axis=1)

    def unit(key: str) -> bool:
        length = lengths(key)
        return bool((np.abs(length - 1) < 1e-4)[length > 0].all())  # scans have no normals and no rays

    rules: dict[str, Callable[[str], bool]] = {
        "pc_xyz": lambda key: bool((lengths(key) <= 1 + 1e-3).all()),
        "pc_n": unit,
        "pt_xyz_pool": lambda key: bool((np.abs(cache[key]) <= 1).all()),
        "ray_d_pool": unit,
        **dict.fromkeys(("ray_n_pool", "ray_n_pc_pool"), unit),
        **dict.fromkeys(("ray_hit_pool", "ray_hit_pc_pool"), lambda key: bool(np.isin(cache[key], (0, 1)).all())),
        **dict.fromkeys(
            ("pt_dist_pool", "pt_dist_udf_pool", "ray_t_pool", "ray_t_pc_pool", "udf_grid"),
            lambda key: bool((cache[key] >= 0).all()),
        ),
    }
    for key, holds in rules.items():
        if key in cache and not holds(key):
            yield f"out of range: {key}"


def _other_distances(cache: ShapeCache, job: FileJob) -> Iterator[str]:
    """Distances to the cloud and in the field, of a sample of the queries."""
    queries = cache["pt_xyz_pool"]
    if not job.sample or not len(queries):
        return
    rows = random_stream(0, "", "verify").choice(len(queries), min(job.sample, len(queries)), replace=False)
    if "pt_dist_pc_pool" in cache and not needs_distances(cache["pt_dist_pc_pool"]):
        wanted = ops.nearest_distance(cache["pc_xyz"], queries[rows]).distance
        off = np.abs(cache["pt_dist_pc_pool"][rows] - wanted).max()
        if off > TOLERANCE:
            yield f"other distances: pt_dist_pc_pool is up to {off:.2g} from the distance to pc_xyz"
    if "pt_dist_udf_pool" in cache and cache.get("udf_grid", np.zeros(1)).size > 1:
        field = cache["udf_grid"].astype(np.float32)
        off = np.abs(cache["pt_dist_udf_pool"][rows] - ops.trilinear_sample(field, queries[rows])).max()
        if off > TOLERANCE + HALF * field.max():
            yield f"other distances: pt_dist_udf_pool is up to {off:.2g} from udf_grid"


@dataclass(frozen=True)
class Findings:
    """What is wrong with a tree: faults by path, files left by killed writers, and shapes that are not there."""

    files: int
    faults: dict[str, str]
    unchecked: dict[str, str]  # files that may be sound: why they could not be read now
    temporaries: list[str]
    absent: list[str]
    bad_input: list[str]  # not there either, as their meshes are no shapes

    @property
    def clean(self) -> bool:
        """Whether nothing has to be done; temporaries do no harm."""
        return not (self.faults or self.unchecked or self.absent)


def verify(config: Config) -> Findings:
    """Check the tree; see ``Config``."""
    root = config.root
    if not root.is_dir():
        raise ValueError(f"root: {root} is not a folder")
    splits = sorted(p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith(("_", ".")))
    if not splits:
        raise ValueError(f"root: {root} holds no splits")
    paths = [f"{Path(path)}" for split in splits for path in list_shapes(root, split)]
    packs = [pack for split in splits if (pack := pack_of(root / split))]
    if packs and config.delete:
        raise ValueError(f"delete: {packs[0].folder} is packed, no file of it can be removed: pack the cache anew")
    tasks = [Task[FileJob | ShardJob](path, FileJob(path, config.sample)) for path in paths]
    for pack in packs:
        tasks += [Task(pack.shard_path(n), ShardJob(pack.folder, n)) for n in range(len(pack.shard_size))]
    outcomes = run_tasks(check, tasks, Pool(config.workers, chunk_size=16), "verify")
    said = {o.key: o for o in sorted(outcomes, key=lambda o: o.key) if o.reason}
    reasons = {key: outcome.reason.removeprefix(f"{key}: ") for key, outcome in said.items()}
    faults = {key: reason for key, reason in reasons.items() if said[key].state in DAMAGED}
    unchecked = {key: reason for key, reason in reasons.items() if key not in faults}
    temporaries = sorted(f"{path}" for path in root.rglob(f"{TEMPORARY_PREFIX}*"))
    absent = {path: key for key, path in _promised(root) if not exists(path)}
    known = {split: _bad_input(root, split) for split in {path.relative_to(root).parts[0] for path in absent}}
    bad = {path for path, key in absent.items() if key in known[path.relative_to(root).parts[0]]}
    lists = [sorted(f"{path}" for path in chosen) for chosen in (absent.keys() - bad, bad)]
    return Findings(len(paths), faults, unchecked, temporaries, *lists)


def _promised(root: Path) -> Iterator[tuple[str, Path]]:
    """ "class/id" and cache file of each shape that a mesh was found for, whatever its layout."""
    for manifest in sorted((root / "_splits").glob("*.txt")):
        split = manifest.stem
        listed = keys_path(root, split)
        for key in read_json(listed)["keys"] if listed.is_file() else _keys_of(root, manifest):
            yield key, root / split / f"{key}.npz"


def _keys_of(root: Path, manifest: Path) -> Iterator[str]:
    """The shapes of a list of meshes that was written without their keys: by mesh_glob, or in ModelNet40's layout."""
    settings = settings_file(root, manifest.stem)
    mesh_glob = read_json(settings).get("mesh_glob", "") if settings.is_file() else ""
    depth = 0 if "**" in mesh_glob else len(PurePath(mesh_glob).parts)
    for line in manifest.read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        mesh = Path(line)
        if depth:
            yield shape_key(Path(*mesh.parts[-depth:]), Path())
        elif mesh.parent.name == "models":
            yield "/".join(mesh.parts[-4:-2])
        elif len(mesh.parts) >= 3:
            yield f"{mesh.parts[-3]}/{mesh.stem}"


def _bad_input(root: Path, split: str) -> set[str]:
    """The shapes of a split that the latest run of its preprocessing could make nothing of."""
    runs: dict[str, list[Path]] = {}
    for name in (split, "all"):
        for path in (root / "_meta").glob(f"preprocess_{name}*.json"):
            run = re.fullmatch(rf"preprocess_{re.escape(name)}(?:_shard\d+(of\d+))?", path.stem)
            if run:
                runs.setdefault(f"{name}{run[1]}", []).append(path)
    latest = max(runs.values(), key=lambda paths: max(path.stat().st_mtime_ns for path in paths), default=[])
    failures = [failure for path in latest for failure in read_json(path).get("failures", [])]
    return {failure["key"] for failure in failures if failure["state"] == "bad_input"}


def command(config: Config) -> int:
    """Print what was found and what to do about it; 4 if something is wrong, 74 if files could only not be checked."""
    findings = verify(config)
    kinds = Counter(fault.partition(":")[0] for text in findings.faults.values() for fault in text.split("; "))
    kinds["could not be checked"] += len(findings.unchecked)
    kinds["absent, though a mesh list has it"] += len(findings.absent)
    kinds["known bad input (not to be rebuilt)"] += len(findings.bad_input)
    kinds["left by a killed writer (harmless)"] += len(findings.temporaries)
    rows = [(kind, count) for kind, count in kinds.most_common() if count]
    if rows:
        print(tabulate(rows, headers=("fault", "files")))
    for path, fault in [*findings.faults.items(), *findings.unchecked.items()][:SHOWN]:
        print(f"{path}: {fault}")
    meta = config.root / "_meta" / "verify.json"
    if os.access(meta.parent if meta.parent.exists() else config.root, os.W_OK):
        report = {"files": findings.files, "faults": findings.faults, "absent": findings.absent}
        report["unchecked"] = findings.unchecked
        report["bad_input"] = findings.bad_input
        write_json(meta, report | {"temporaries": findings.temporaries})
        print(f"report: {meta}")
    if config.list_file:
        write_text(config.list_file, "".join(f"{path}\n" for path in [*findings.faults, *findings.absent]))
    if config.delete:
        for path in findings.faults:
            Path(path).unlink()
    print(f"{findings.files} files, {_to_do(findings, config.delete)}")
    if findings.faults or findings.absent:
        return cli.EXIT_INTEGRITY
    return cli.EXIT_IO if findings.unchecked else cli.EXIT_OK


def _to_do(findings: Findings, deleted: bool) -> str:
    """How many files are damaged or missing, and what makes them anew."""
    damaged, absent = len(findings.faults), len(findings.absent)
    if findings.clean:
        return "all good"
    parts = []
    if findings.unchecked:
        parts.append(f"{len(findings.unchecked)} could not be checked and are kept: verify again")
    if deleted and damaged + absent:
        parts.append(f"{damaged} deleted, {absent} missing: preprocess again")
    elif damaged + absent:
        parts.append(f"{damaged + absent} to rebuild: --delete and preprocess again")
    return "; ".join(parts)


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(Config, command, argv)


if __name__ == "__main__":
    raise SystemExit(main())
