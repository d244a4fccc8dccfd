"""The unpaired corpus, on disk: a view of the source cache with one folder a part, as links or copies."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from nepa3d import cli
from nepa3d.data.shapenet_unpaired_split import EVALUATION, PARTS
from nepa3d.execution.files import read_json, remove_temporaries, temporary_prefix, write_json
from nepa3d.execution.progress_bar import progress_bar
from nepa3d.shapes.packed import require_unpacked

LinkMode = Literal["symlink", "hardlink", "copy"]


@dataclass(frozen=True)
class Config:
    """Build <out_root>/<split>/<class>/<id>.npz from an assignment written by shapenet_unpaired_split.

    Example: python -m nepa3d.data.preprocess_shapenet_unpaired --src_cache_root data/shapenet_cache_v0
    --split_json data/shapenet_unpaired_splits_v1.json --out_root data/shapenet_unpaired_cache_v1
    """

    src_cache_root: Path
    """Cache to take the shapes from."""
    split_json: Path
    """File with the assignment."""
    out_root: Path
    """Folder to build the unpaired cache in."""
    splits: tuple[str, ...] = ("train_mesh", "train_pc", "train_udf", "eval")
    """Splits to build."""
    link_mode: LinkMode = "symlink"
    """Make symbolic links, hard links or copies."""
    overwrite: bool = False
    """Replace existing files."""


@dataclass(frozen=True)
class Record:
    """One line of an assignment."""

    key: str
    split: str
    src_relpath: str


def read_records(path: Path) -> list[Record]:
    """The records of an assignment file; ``ValueError`` naming the file and the record on anything unsound."""
    try:
        content = read_json(path, "an object with a list `records`")
    except FileNotFoundError as error:
        raise ValueError(f"{path}: there is no such file") from error
    if not isinstance(content.get("records"), list):
        raise ValueError(f"{path}: expected an object with a list `records`")
    return [_record(path, index, entry) for index, entry in enumerate(content["records"])]


def _record(path: Path, index: int, entry: Any) -> Record:
    values = [entry.get(name) if isinstance(entry, dict) else None for name in ("key", "split", "src_relpath")]
    for value in values:
        if not isinstance(value, str) or PurePosixPath(value).is_absolute() or ".." in PurePosixPath(value).parts:
            raise ValueError(
                f"{path}: record {index} must give key, split and src_relpath as paths that stay inside, got {entry!r}"
            )
    return Record(*(str(value) for value in values))


def materialize(config: Config) -> dict[str, Any]:
    """Make every missing file of the chosen parts; returns counts and the missing sources."""
    records = read_records(config.split_json)
    chosen = [record for record in records if record.split in config.splits]
    unknown = set(config.splits) - {record.split for record in records} - {*PARTS, EVALUATION}
    if unknown or not chosen:
        raise ValueError(f"splits: {config.split_json} has no shape of {', '.join(sorted(unknown) or config.splits)}")
    for source_split in sorted({PurePosixPath(record.src_relpath).parts[0] for record in chosen}):
        require_unpacked(config.src_cache_root / source_split, "src_cache_root")
    config.out_root.mkdir(parents=True, exist_ok=True)
    remove_temporaries(config.out_root)
    counts: Counter[str] = Counter({"created": 0, "skipped": 0, "missing": 0})
    missing = []
    for record in progress_bar(chosen, desc="view", unit="shape"):
        source = config.src_cache_root / record.src_relpath
        target = config.out_root / record.split / f"{record.key}.npz"
        if not source.exists():
            missing.append(record.src_relpath)
            counts["missing"] += 1
        elif not config.overwrite and target.exists():
            _require_same(source, target, config.link_mode)
            counts["skipped"] += 1
        else:
            _place(source, target, config.link_mode)
            counts["created"] += 1
    summary = {
        "src_cache_root": os.fspath(config.src_cache_root),
        "split_json": os.fspath(config.split_json),
        "splits": list(config.splits),
        "link_mode": config.link_mode,
        "counts": dict(counts),
        "missing": missing,
        "strangers": _strangers(config, chosen),
    }
    write_json(config.out_root / "_meta" / "split_source.json", summary)
    return summary


def _require_same(source: Path, target: Path, mode: LinkMode) -> None:
    """``ValueError`` if what is there is a link, and not this one."""
    if target.is_symlink() and (mode != "symlink" or target.resolve() != source.resolve()):
        raise ValueError(
            f"{target} is there already, as a link to {target.resolve()}, and not a {mode} of {source}: choose another "
            "out_root, or --overwrite"
        )


def _strangers(config: Config, chosen: Sequence[Record]) -> list[str]:
    """Files of the view that the assignment does not put there, as a view made from another one leaves behind."""
    placed = {f"{record.split}/{record.key}.npz" for record in chosen}
    found = (path for split in config.splits for path in (config.out_root / split).glob("*/*.npz"))
    return sorted({path.relative_to(config.out_root).as_posix() for path in found} - placed)


def _place(source: Path, target: Path, mode: LinkMode) -> None:
    """Make ``target`` from ``source`` under a temporary name, then rename it, so that it is whole or not there."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=temporary_prefix(), dir=target.parent) as folder:
        temporary = Path(folder, target.name)
        if mode == "symlink":
            temporary.symlink_to(os.path.relpath(source.resolve(), target.parent.resolve()))
        elif mode == "hardlink":
            os.link(source.resolve(), temporary)
        else:
            shutil.copyfile(source, temporary)
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
        temporary.replace(target)


def command(config: Config) -> int:
    """Lay out the view; sources that are missing are listed and make the exit status 3."""
    summary = materialize(config)
    print("view: " + ", ".join(f"{count} {what}" for what, count in summary["counts"].items()))
    for name in summary["missing"]:
        print(f"  missing: {config.src_cache_root / name}")
    if summary["strangers"]:
        print(
            f"warning: {len(summary['strangers'])} files are not of this assignment, so a shape may be in two parts; "
            f"delete them or choose another out_root: {summary['strangers'][0]} ..."
        )
    return cli.EXIT_SOME_FAILED if summary["missing"] else cli.EXIT_OK


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(Config, command, argv, output="out_root")


if __name__ == "__main__":
    raise SystemExit(main())
