"""Write the built-in procedural corpus, for machines without any data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tabulate import tabulate

from nepa3d import cli
from nepa3d.corpora.procedural import FAMILIES, obj_bytes, procedural_shape
from nepa3d.execution.files import atomic_open
from nepa3d.execution.progress_bar import progress_bar


@dataclass(frozen=True)
class Config:
    """Write the built-in procedural corpus as a ShapeNet-like folder of OBJ models, one folder a class.

    Example: python -m nepa3d.data.procedural --out_root data/procedural --per_class 20 --seed 0
    """

    out_root: Path
    """Folder to fill: <class>/<class>_<index>/models/model_normalized.obj."""
    per_class: int = 20
    """Shapes per class; a larger number does not change the first ones."""
    seed: int = 0
    """Seed of the shapes' parameters."""
    overwrite: bool = False
    """Replace models of another seed."""


def write_procedural(config: Config) -> dict[str, tuple[int, int]]:
    """Write the corpus; returns (written, already there) by class.

    ValueError if ``per_class`` < 1, ``seed`` < 0, or a model with other contents may not be replaced.
    """
    if config.per_class < 1:
        raise ValueError(f"per_class: expected 1 or more, got {config.per_class}")
    counts: dict[str, tuple[int, int]] = {}
    with progress_bar(total=len(FAMILIES) * config.per_class, unit="shape") as progress:
        for name in FAMILIES:
            written = 0
            for index in range(config.per_class):
                written += _write_shape(config, name, index)
                progress.update()
            counts[name] = (written, config.per_class - written)
    return counts


def _write_shape(config: Config, name: str, index: int) -> bool:
    """Whether the shape had to be written."""
    data = obj_bytes(procedural_shape(name, index, config.seed))
    path = config.out_root / name / f"{name}_{index:04d}" / "models" / "model_normalized.obj"
    if path.exists():
        if path.read_bytes() == data:
            return False
        if not config.overwrite:
            raise ValueError(f"{path} has other contents than seed {config.seed} gives; --overwrite replaces it")
    with atomic_open(path) as file:
        file.write(data)
    return True


def command(config: Config) -> None:
    """Write the corpus and print the counts."""
    counts = write_procedural(config)
    rows = [(name, written, kept) for name, (written, kept) in counts.items()]
    rows.append(("total", sum(row[1] for row in rows), sum(row[2] for row in rows)))
    print(tabulate(rows, headers=("class", "written", "already there")))


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    return cli.run(Config, command, argv, output="out_root")


if __name__ == "__main__":
    raise SystemExit(main())
