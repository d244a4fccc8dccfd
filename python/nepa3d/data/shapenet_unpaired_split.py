"""The unpaired corpus, on paper: every training shape goes to one of three views, no shape to two."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate

from nepa3d import cli
from nepa3d.corpora.shape_list import list_shapes
from nepa3d.corpora.splits import class_of
from nepa3d.execution.files import write_json

PARTS = ("train_mesh", "train_pc", "train_udf")
EVALUATION = "eval"


@dataclass(frozen=True)
class Config:
    """Assign each training shape of a cache to train_mesh, train_pc or train_udf, class by class.

    Example: python -m nepa3d.data.shapenet_unpaired_split --cache_root data/shapenet_cache_v0
    --out_json data/shapenet_unpaired_splits_v1.json --ratios 0.34 0.33 0.33
    """

    cache_root: str
    """Cache whose shapes are assigned."""
    out_json: Path
    """File to write the assignment to."""
    train_split: str = "train"
    """Split whose shapes are assigned."""
    eval_split: str = "test"
    """Split that becomes the split eval."""
    ratios: tuple[float, float, float] = (0.34, 0.33, 0.33)
    """Shares of mesh, pc and udf; the last one gets the remaining shapes."""
    seed: int = 0
    """Seed of the assignment."""


def thirds(n: int, ratios: tuple[float, float, float]) -> list[int]:
    """How many of ``n`` shapes each part gets; from three shapes on, none gets none."""
    share = np.asarray(ratios, np.float64) / sum(ratios)
    first = min(round(share[0] * n), n)
    second = min(round(share[1] * n), n - first)
    counts = [int(first), int(second), int(n - first - second)]
    if n >= 3:
        for part in range(3):
            if counts[part] == 0:
                counts[int(np.argmax(counts))] -= 1
                counts[part] = 1
    return counts


def unpaired_split(config: Config) -> dict[str, Any]:
    """The assignment as written to ``out_json``: ``meta`` and ``records``, train records first, each sorted by key."""
    if min(config.ratios) < 0 or not sum(config.ratios) > 0:
        raise ValueError(f"ratios must not be negative, nor all 0, got {config.ratios}")
    by_class: dict[str, list[str]] = {}
    for path in list_shapes(config.cache_root, config.train_split):
        by_class.setdefault(class_of(path), []).append(Path(path).stem)
    rng = np.random.RandomState(config.seed)
    train = []
    for name in sorted(by_class):
        ids = sorted(by_class[name])
        rng.shuffle(ids)
        parts = np.repeat(PARTS, thirds(len(ids), config.ratios))
        train += [_record(f"{name}/{i}", str(part), config.train_split) for i, part in zip(ids, parts, strict=True)]
    held_out = list_shapes(config.cache_root, config.eval_split)
    evaluation = [_record(f"{class_of(p)}/{Path(p).stem}", EVALUATION, config.eval_split) for p in held_out]
    records = sorted(train, key=lambda r: r["key"]) + sorted(evaluation, key=lambda r: r["key"])
    meta = {
        "cache_root": os.fspath(config.cache_root),
        "train_split": config.train_split,
        "eval_split": config.eval_split,
        "seed": config.seed,
        "ratios_mesh_pc_udf": list(config.ratios),
        "counts": dict(Counter(record["split"] for record in records)),
    }
    return {"meta": meta, "records": records}


def _record(key: str, split: str, source: str) -> dict[str, str]:
    return {"key": key, "split": split, "src_split": source, "src_relpath": f"{source}/{key}.npz"}


def command(config: Config) -> None:
    """Write the assignment and print its counts."""
    split = unpaired_split(config)
    write_json(config.out_json, split)
    print(tabulate(split["meta"]["counts"].items(), headers=("split", "shapes"), tablefmt="github"))
    print(f"wrote {config.out_json}")


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(Config, command, argv, output="out_json")


if __name__ == "__main__":
    raise SystemExit(main())
