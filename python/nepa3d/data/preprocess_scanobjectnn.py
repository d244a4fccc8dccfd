"""Scans in ScanObjectNN's h5 files become shape caches: point queries with distances to the scan, no rays."""

from __future__ import annotations

import os
import re
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
from numpy.typing import NDArray

from nepa3d import cli
from nepa3d.corpora import scan_variants
from nepa3d.corpora.objects import write_objects
from nepa3d.corpora.preprocessing import RunFlags, claim, exit_status, preprocess, settings_file
from nepa3d.execution.files import is_macos_metadata, read_json, write_json, write_text
from nepa3d.execution.npz import save_npz
from nepa3d.execution.processes import Report, Unwritten
from nepa3d.shapes.mesh import BadShapeError, Reason
from nepa3d.shapes.query_pools import PoolSettings
from nepa3d.shapes.scans import normalize_scan, scan_pools

SPLITS = ("train", "test")
MAX_LABEL = 999  # class_XXX

_VALIDATION = re.compile(r"(?:^|[^a-z])val(?:id|idation)?(?:[^a-z]|$)")  # in a name


@dataclass(frozen=True, kw_only=True)
class Config(RunFlags):
    """Preprocess ScanObjectNN's scans into a shape cache.

    The scans of <scan_root>/**/*.h5 become <out_root>/<split>/class_<label>/<h5 stem>_<index>.npz. Files with "train"
    in their name (or else in their folder's name) form the train split, files with "test" the test split. The data set
    is distributed in five variants per folder; --variant chooses one. Existing files are skipped. Scans that fail are
    listed at the end and in <out_root>/_meta/preprocess_<split>.json; the command then ends with status 3.
    <out_root>/_meta/scanobjectnn_<split>_source.txt records which files were read. If the files name the objects (a
    dataset "object"), objects_<split>.json beside it records which scans show the same object.

    Example: python -m nepa3d.data.preprocess_scanobjectnn --scan_root data/ScanObjectNN/h5_files/main_split
    --variant plain --out_root data/scanobjectnn_main_split_v2 --split all --pt_pool 4000 --ray_pool 256
    """

    scan_root: Path
    """Folder of the h5 files: ScanObjectNN's main_split, main_split_nobg, ..., or any other."""
    out_root: Path
    """Folder to write the cache to."""
    split: Literal["train", "test", "all"] = "all"
    """Which split to build."""
    variant: scan_variants.Variant | None = None
    """Variant to read, by file name: plain is {training,test}_objectdataset.h5 (OBJ_BG; in a folder without background,
    OBJ_ONLY); the others are {training,test}_objectdataset_<variant>.h5 (augmentedrot_scale75 is PB_T50_RS). Without
    it, all files are read, and they must belong to one variant."""
    pt_pool: int = 2000
    """Point queries per scan."""
    ray_pool: int = 1000
    """Rows of the ray pools (all zero, as a scan has no rays)."""
    pt_surface_ratio: float = 0.5
    """Share of the point queries that are drawn near the scan."""
    pt_surface_sigma: float = 0.02
    """Standard deviation of their offset from the scan, per axis."""
    seed: int = 0
    """Seed of the queries; -1: a different one in every run."""
    allow_duplicate_stems: bool = False
    """Accept h5 files with equal names; the scans of all but the first then also carry their folder's name."""

    def __post_init__(self) -> None:
        self.pools()

    def pools(self) -> PoolSettings:
        """What decides the queries."""
        return PoolSettings(
            pt_pool=self.pt_pool,
            ray_pool=self.ray_pool,
            pt_surface_ratio=self.pt_surface_ratio,
            pt_surface_sigma=self.pt_surface_sigma,
        )

    def content(self) -> dict[str, Any]:
        """The settings that decide what is in a cache file."""
        names = ("seed", "pt_pool", "ray_pool", "pt_surface_ratio", "pt_surface_sigma")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class ScanJob:
    """One scan to turn into one cache file."""

    key: str  # "class_XXX/id"
    file: Path
    index: int
    out: Path
    settings: PoolSettings
    seed: int

    @property
    def reads(self) -> None:
        """No file as a whole."""


def compute_scan(job: ScanJob) -> Unwritten:
    """The cache file of one scan, to be written."""
    points = normalize_scan(read_scan(job.file, job.index), f"{job.file}[{job.index}]")
    pools = scan_pools(points, job.settings, job.seed, job.key)
    return Unwritten("", job.out, partial(save_npz, arrays=pools))


def open_scans(file: Path) -> h5py.File:
    """An h5 file with ``data`` (S, N, 3) and ``label`` (S,) or (S, 1). ``ValueError`` naming the file and its fault."""
    if file.stat().st_size == 0:
        raise ValueError(f"{file}: the file has 0 bytes")
    try:
        opened = h5py.File(file, "r")
    except OSError as error:
        raise ValueError(f"{file}: not a readable h5 file, truncated or of another kind: {error}") from error
    for name, kinds, rank in (("data", "f", 3), ("label", "iuf", 1)):
        dataset = opened.get(name)
        if not isinstance(dataset, h5py.Dataset):
            raise ValueError(f"{file}: has no dataset {name!r}, only {', '.join(opened) or 'nothing'}")
        column = name == "label" and dataset.shape[1:] == (1,)
        if dataset.dtype.kind not in kinds or not (len(dataset.shape) == rank or column):
            raise ValueError(f"{file}: {name} must have {rank} axes of numbers, got {dataset.dtype} {dataset.shape}")
    data, label = opened["data"].shape, opened["label"].shape
    if data[0] != label[0]:
        raise ValueError(f"{file}: data holds {data[0]} scans, label {label[0]}")
    if data[2] != 3 or data[1] == 0:
        raise ValueError(f"{file}: data must have shape (S, N, 3), got {data}")
    return opened


def read_labels(file: Path) -> NDArray[np.int64]:
    """The class (S,) of each scan. ``ValueError`` if one is no whole number of 0..999."""
    with open_scans(file) as opened:
        try:
            labels = opened["label"][:].reshape(-1)
        except OSError as error:
            raise ValueError(f"{file}: label cannot be read: {error}") from error
    wrong = ~np.isfinite(labels) | (labels != np.floor(labels)) | (labels < 0) | (labels > MAX_LABEL)
    if wrong.any():
        index = int(np.flatnonzero(wrong)[0])
        raise ValueError(f"{file}: label {labels[index]} of scan {index} is no class of 0..{MAX_LABEL}")
    return labels.astype(np.int64)


def read_objects(file: Path) -> list[str] | None:
    """The name of the object (S,) each scan is of; ``None`` where the file does not say."""
    with open_scans(file) as opened:
        dataset = opened.get("object")
        if not isinstance(dataset, h5py.Dataset):
            return None
        count = len(opened["label"])
        if dataset.shape != (count,) or h5py.check_string_dtype(dataset.dtype) is None:
            raise ValueError(f"{file}: object must have {count} names, got {dataset.dtype} {dataset.shape}")
        try:
            return [str(name) for name in dataset.asstr()[:]]
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"{file}: object cannot be read: {error}") from error


def read_scan(file: Path, index: int) -> NDArray[np.floating]:
    """The points (N, 3) of one scan. Each process opens a file of its own: handles must not cross a fork."""
    try:
        points: NDArray[np.floating] = _opened(file, os.getpid())["data"][index]
    except OSError as error:
        raise BadShapeError(f"{file}[{index}]", Reason.UNREADABLE, str(error)) from error
    return points


@lru_cache(maxsize=4)
def _opened(file: Path, process: int) -> h5py.File:
    return open_scans(file)


def split_of(file: Path) -> str | None:
    """The split a file's name tells, or else its folder's; ``None`` if neither does, or it is a validation set."""
    for name in (file.name.lower(), file.parent.name.lower()):
        told = [split for split in SPLITS if split in name]
        if len(told) == 1:
            return told[0]
        if not told and _VALIDATION.search(name):
            return None
    return None


def find_scans(config: Config) -> dict[str, list[Path]]:
    """The h5 files of each chosen split, sorted.

    ``ValueError`` if one has none, if two have one name, or if there are several variants and none was chosen.
    """
    found_files = h5_files(config.scan_root)
    files = [f for f in found_files if config.variant in (None, scan_variants.variant_of(f))]
    stems = Counter(file.stem for file in files)
    twice = [f"{file}" for file in files if stems[file.stem] > 1]
    if twice and not config.allow_duplicate_stems:
        raise ValueError(
            f"scan_root: several h5 files of one name ({', '.join(twice)}), their scans would be mixed up: "
            "name the folder of one variant, or --allow_duplicate_stems"
        )
    files = scan_variants.choose(config.scan_root, found_files, config.variant)
    folders = scan_variants.folders(files)
    if len(folders) > 1 and not config.allow_duplicate_stems:
        raise ValueError(
            f"scan_root: {config.scan_root} holds files of several folders of ScanObjectNN ({', '.join(folders)}), "
            "which must not be mixed in one cache: name one of them"
        )
    wanted = SPLITS if config.split == "all" else (config.split,)
    found = {split: [file for file in files if split_of(file) == split] for split in wanted}
    for split, of_split in found.items():
        if not of_split:
            of_variant = f" of the variant {config.variant}" if config.variant else ""
            raise ValueError(
                f"scan_root: no *.h5{of_variant} below {config.scan_root} has {split!r} in its or its folder's name"
            )
    return found


def h5_files(root: Path) -> list[Path]:
    """Every h5 file below ``root``, sorted."""
    if not root.is_dir():
        raise ValueError(f"scan_root: {root} is not a folder")
    return sorted(path for path in root.rglob("*") if is_h5(path.name) and not is_macos_metadata(path))


def is_h5(name: str) -> bool:
    """Whether a file's name is that of an h5 file."""
    return name.lower().endswith(".h5")


def name_left_out(config: Config) -> None:
    """Say which h5 files no split takes."""
    for file in h5_files(config.scan_root):
        variant = scan_variants.variant_of(file)
        if split_of(file) is None:
            print(f"left out {file}: neither 'train' nor 'test' in its or its folder's name", file=sys.stderr)
        elif config.variant and variant is None:
            print(f"left out {file}: its name tells no variant of ScanObjectNN", file=sys.stderr)


def plan(config: Config, split: str, files: Sequence[Path]) -> list[ScanJob]:
    """The jobs of a split, sorted by key."""
    jobs = []
    taken: set[str] = set()
    for file in files:
        stem = f"{file.parent.name}_{file.stem}" if file.stem in taken else file.stem
        if stem in taken:
            raise ValueError(f"{file}: another h5 file also has the name {stem}")
        taken.add(stem)
        for index, label in enumerate(read_labels(file)):
            key = f"class_{label:03d}/{stem}_{index:06d}"
            out = config.out_root / split / f"{key}.npz"
            jobs.append(ScanJob(key, file, index, out, config.pools(), config.seed))
    return sorted(jobs, key=lambda job: job.key)


def source_list(out_root: Path, split: str) -> Path:
    """Where it is kept which files a split was made of."""
    return out_root / "_meta" / f"scanobjectnn_{split}_source.txt"


def write_provenance(config: Config, split: str, files: Sequence[Path]) -> None:
    """Say which files a split was made of, and how."""
    settings = [f"{name}={value}" for name, value in config.content().items() if name != "seed"]
    settings += [f"{name}={value}" for name, value in scan_variants.source_of(files).items() if value]
    lines = [f"scan_root={config.scan_root.resolve()}", f"split={split}", f"seed={config.seed}", *settings]
    lines += [f"h5_count={len(files)}", *(f"{file.resolve()}" for file in files)]
    write_text(source_list(config.out_root, split), "".join(f"{line}\n" for line in lines))


def require_one_source(config: Config, source: Mapping[str, str | None]) -> None:
    """Refuse a cache that has scans of another variant, which --overwrite would leave beside the new ones.

    So is one whose other split is of another folder. Settings from before these were noted get theirs.
    """
    for split in SPLITS:
        path = settings_file(config.out_root, split)
        if not path.exists():
            continue
        before = read_json(path)
        listed = source_list(config.out_root, split)
        if listed.exists() and not source.keys() <= before.keys():
            lines = listed.read_text(encoding="utf-8", errors="surrogateescape").split("\n")
            before = {**source, **scan_variants.source_of(Path(line) for line in lines[1:] if is_h5(line)), **before}
            write_json(path, before)
        stays = config.split not in ("all", split)
        for name, value in source.items():
            if before.get(name) != value and name in before and (stays or name == "variant"):
                raise ValueError(
                    f"{config.out_root / split} holds scans of another {name} ({before[name]} -> {value}): "
                    "choose another out_root"
                )


def write_object_list(config: Config, split: str, jobs: Sequence[ScanJob]) -> None:
    """Say which scans are of one object, where the files do; a scan whose file does not is an object of its own."""
    named = {file: names for file in {job.file for job in jobs} if (names := read_objects(file)) is not None}
    if named:
        objects = {job.key: named[job.file][job.index] if job.file in named else job.key for job in jobs}
        write_objects(config.out_root, split, objects)


def preprocess_scans(config: Config) -> Report:
    """Build every missing cache file of the chosen splits; see ``Config``."""
    files = find_scans(config)
    splits = {split: plan(config, split, of_split) for split, of_split in files.items()}
    source = scan_variants.source_of(file for of_split in files.values() for file in of_split)
    settings = config.content() | source
    require_one_source(config, source)
    claim(config, config.out_root, splits, settings)
    name_left_out(config)
    for split, of_split in files.items():
        write_provenance(config, split, of_split)
        write_object_list(config, split, splits[split])
    return preprocess(config, config.out_root, splits, compute_scan, settings, f"preprocess_{config.split}")


def command(config: Config) -> int:
    """``preprocess_scans`` with an exit status."""
    return exit_status(preprocess_scans(config))


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(Config, command, argv, output="out_root")


if __name__ == "__main__":
    raise SystemExit(main())
