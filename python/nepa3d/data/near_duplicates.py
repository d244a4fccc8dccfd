"""The command that finds shapes of one split that another holds, too; see ``nepa3d.corpora.near_duplicates``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from tabulate import tabulate

from nepa3d import cli
from nepa3d.corpora.near_duplicates import DuplicateSettings, near_duplicates
from nepa3d.corpora.objects import objects_of
from nepa3d.corpora.shape_list import list_shapes
from nepa3d.execution.files import write_text


@dataclass(frozen=True)
class Pair:
    """An object of the examined split, and the one of the other splits that is nearly the same."""

    name: str
    other: str
    """With its split."""
    difference: float
    degrees: float


@dataclass(frozen=True, kw_only=True)
class Config(DuplicateSettings):
    """List the objects of a split that are nearly the same as one of other splits.

    Shapes are compared by the distances to their surface samples at common points of the unit ball, at some headings.
    Nothing is changed: --list_file writes the objects so that scan-retrieval --exclude can leave them out.

    Example: nepa3d near-duplicates --cache_root data/shapenet_cache_v0 --list_file data/duplicates.txt
    """

    cache_root: Path
    """Cache folder."""
    split: str = "test"
    """Split whose objects are examined."""
    among: tuple[str, ...] = ("train",)
    """Splits that they are compared with."""
    list_file: Path | None = None
    """File to write the objects to, one per line, each below a comment that says what it is like."""

    def settings(self) -> DuplicateSettings:
        """What counts as nearly the same."""
        return DuplicateSettings(**{f.name: getattr(self, f.name) for f in fields(DuplicateSettings)})


def find(config: Config) -> tuple[list[Pair], int]:
    """The pairs, most alike first, and the number of examined objects. Bad input is ``ValueError``."""
    if not config.among or config.split in config.among:
        raise ValueError(f"among must be splits other than {config.split}, got {' '.join(config.among)!r}")
    paths = list_shapes(config.cache_root, config.split)
    names = objects_of(config.cache_root, config.split, paths)
    others, labels = list[str](), list[str]()
    for split in config.among:
        of_split = list_shapes(config.cache_root, split)
        others += of_split
        labels += [f"{split}/{name}" for name in objects_of(config.cache_root, split, of_split)]
    pairs: dict[str, Pair] = {}
    for twin in near_duplicates(paths, others, config.settings(), progress=True):
        pair = Pair(names[twin.row], labels[twin.other], twin.difference, twin.degrees)
        pairs.setdefault(pair.name, pair)  # of several scans of an object the most alike
    return list(pairs.values()), len(set(names))


def command(config: Config) -> None:
    """Print the pairs; write the objects where asked."""
    pairs, count = find(config)
    rows = [(pair.name, pair.other, f"{pair.difference:.4f}", f"{pair.degrees:.0f}") for pair in pairs]
    if rows:
        print(tabulate(rows, (config.split, "nearly the same", "difference", "turned by"), disable_numparse=True))
    among = " ".join(config.among)
    said = f"{len(pairs)} of {count} objects of {config.split} are in {among}, too, within {config.tolerance:g}"
    print(said)
    if config.list_file:
        lines = [f"# {said}"]
        for pair in pairs:
            lines += [f"# {pair.other}, {pair.difference:.4f}", pair.name]
        write_text(config.list_file, "".join(f"{line}\n" for line in lines))
        print(f"wrote {config.list_file}")


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(Config, command, argv, output="list_file")


if __name__ == "__main__":
    raise SystemExit(main())
