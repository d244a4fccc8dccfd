"""Two results of the same probe on the same shapes: is one better, or are the shapes just others?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate

from nepa3d import cli
from nepa3d.analysis.intervals import paired_difference
from nepa3d.analysis.tables import read_result
from nepa3d.data.files import write_json

PROTOCOL = (
    *("probe", "tie_rule", "split", "eval_split", "query_backend", "gallery_backend", "context_backend", "target"),
    *("eval_seed", "eval_seed_gallery", "n_seeds", "seed", "mc_k", "query_source", "context", "head_train_split"),
)


@dataclass(frozen=True)
class Config:
    """Compare two results shape by shape; both as written by ucpr, or both by cpac, with --out_json.

    Example: nepa3d compare --first results/ucpr_mae.json --second results/ucpr_nepa.json
    """

    first: Path
    """Result of the one checkpoint."""
    second: Path
    """Result of the other one."""
    out_json: str = ""
    """Where to write the comparison; empty: nowhere."""


def compare(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """The mean difference second - first over the shapes both have, with a paired bootstrap interval.

    ``ValueError`` where they are not of one protocol, or share no shape.
    """
    differing = [name for name in PROTOCOL if first.get(name) != second.get(name)]
    if differing:
        told = "; ".join(f"{name} {first.get(name)} and {second.get(name)}" for name in differing)
        raise ValueError(f"the results are of different protocols: {told}")
    figure = "mAP" if "mAP" in first.get("items", {}) else "mae"
    values = []
    for result in (first, second):
        items = result.get("items", {})
        if figure not in items:
            raise ValueError("items: a result has no values shape by shape; make it again with --out_json")
        values.append(dict(zip(items["path"], items[figure], strict=True)))
    shared = [path for path in values[0] if path in values[1]]
    if not shared:
        raise ValueError("items: the results share no shape")
    a, b = (np.array([found[path] for path in shared]) for found in values)
    means = {"first": float(a.mean()), "second": float(b.mean())}
    return {"figure": figure, "shapes": len(shared), **means, **paired_difference(a, b)}


def command(config: Config) -> None:
    """Print the comparison; write it where asked."""
    found = compare(read_result(f"{config.first}"), read_result(f"{config.second}"))
    rows = [
        ("first", f"{found['first']:.4f}"),
        ("second", f"{found['second']:.4f}"),
        ("second - first", f"{found['difference']:.4f}"),
        ("95 % over shapes", f"{found['low']:.4f} to {found['high']:.4f}"),
        ("resamples of another sign", f"{found['other_sign']:.1%}"),
    ]
    print(tabulate(rows, (f"{found['figure']}, {found['shapes']} shapes", ""), disable_numparse=True))
    if found["low"] <= 0 <= found["high"]:
        print("no difference can be told")
    if config.out_json:
        write_json(Path(config.out_json), found)


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(Config, command, argv, output="out_json")


if __name__ == "__main__":
    raise SystemExit(main())
