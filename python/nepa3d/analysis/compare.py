"""The command that compares two results shape by shape, see ``nepa3d.report.compare``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tabulate import tabulate

from nepa3d import cli
from nepa3d.execution.files import write_json
from nepa3d.probes.intervals import cell
from nepa3d.report.compare import compare, read_comparable


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
    """File to write the comparison to; empty: none."""


def command(config: Config) -> None:
    """Print the comparison; write it where asked."""
    first, second = (read_comparable(path) for path in (config.first, config.second))
    found = compare(first, second)
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
    over = f"95 % over {first.settings.get('group_by', 'shape')}s"
    heads = (f"{found[0]['shapes']} shapes", "first", "second", "second - first", over, "other sign", "")
    print(tabulate(rows, heads, disable_numparse=True))
    if config.out_json:
        write_json(Path(config.out_json), {"figures": found})


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(Config, command, argv, output="out_json")


if __name__ == "__main__":
    raise SystemExit(main())
