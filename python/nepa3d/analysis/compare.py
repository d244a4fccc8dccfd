"""Two results of the same probe on the same shapes: is one better, or are the shapes just others?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate

from nepa3d import cli
from nepa3d.analysis.tables import read_result
from nepa3d.execution.files import write_json
from nepa3d.probes.classifiers import SETTINGS
from nepa3d.probes.intervals import cell, paired_difference

PROTOCOL = (
    *("probe", "tie_rule", "split", "eval_split", "query_backend", "gallery_backend", "context_backend", "target"),
    *("eval_seed", "eval_seed_gallery", "n_seeds", "seed", "mc_k", "query_source", "context", "head_train_split"),
    *("precision", "backend", "fewshot_k", "fewshot_seed", "val_ratio", "val_seed", "group_by"),
)
BEFORE = {"precision": "float32"}  # of results that do not say
FIGURES = ("mAP", "mae", *SETTINGS)  # of single shapes, as the probes write them


@dataclass(frozen=True)
class Config:
    """Compare two results of ucpr, cpac or probe-cls (written with --out_json) shape by shape.

    Example: nepa3d compare --first results/ucpr_mae.json --second results/ucpr_nepa.json
    """

    first: Path
    """Result of the first checkpoint."""
    second: Path
    """Result of the second checkpoint."""
    out_json: str = ""
    """Where to write the comparison; empty: nowhere."""


def compare(first: dict[str, Any], second: dict[str, Any]) -> list[dict[str, Any]]:
    """For each figure the mean difference second - first over the shapes both have, with a paired bootstrap interval.

    Scans of one object are resampled together where the results are grouped so.
    ``ValueError`` where they are not of one protocol, or share no shape.
    """
    settings = [BEFORE | result for result in (first, second)]
    mine, theirs = ({name: found.get(name) for name in PROTOCOL} for found in settings)
    if mine != theirs:
        told = "; ".join(f"{name} {mine[name]} and {theirs[name]}" for name in PROTOCOL if mine[name] != theirs[name])
        raise ValueError(f"the results are of different protocols: {told}")
    items = [result.get("items", {}) for result in (first, second)]
    figures = [name for name in FIGURES if all(name in found for found in items)]
    if not figures:
        raise ValueError("items: a result has no values shape by shape; make it again with --out_json")
    places = [{path: place for place, path in enumerate(found["path"])} for found in items]
    shared = [path for path in places[0] if path in places[1]]
    if not shared:
        raise ValueError("items: the results share no shape")
    rows = [[found[path] for path in shared] for found in places]
    grouped = first.get("group_by") == "object"
    if grouped and not all("object" in found for found in items):
        raise ValueError("items: a result does not say whose scans its files are; make it again with --out_json")
    names = items[0]["object" if grouped else "path"]
    objects = [names[row] for row in rows[0]]
    found = []
    for figure in figures:
        a, b = (np.array(of[figure], np.float64)[taken] for of, taken in zip(items, rows, strict=True))
        means = {"first": float(a.mean()), "second": float(b.mean())}
        found.append({"figure": figure, "shapes": len(shared), **means, **paired_difference(a, b, objects)})
    return found


def command(config: Config) -> None:
    """Print the comparison; write it where asked."""
    results = [read_result(f"{path}") for path in (config.first, config.second)]
    found = compare(*results)
    rows = [
        (
            one["figure"],
            cell(one["first"]),
            cell(one["second"]),
            cell(one["difference"]),
            cell((one["low"], one["high"])),
            f"{one['other_sign']:.1%}",
            "no difference can be told" if one["low"] <= 0 <= one["high"] else "",
        )
        for one in found
    ]
    over = f"95 % over {results[0].get('group_by', 'shape')}s"
    heads = (f"{found[0]['shapes']} shapes", "first", "second", "second - first", over, "other sign", "")
    print(tabulate(rows, heads, disable_numparse=True))
    if config.out_json:
        write_json(Path(config.out_json), {"figures": found})


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(Config, command, argv, output="out_json")


if __name__ == "__main__":
    raise SystemExit(main())
