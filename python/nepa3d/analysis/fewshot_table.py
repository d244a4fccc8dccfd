"""The command of the few-shot table, see ``nepa3d.report.fewshot``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nepa3d import cli
from nepa3d.report.fewshot import print_tables, read_runs, write_tables


@dataclass(frozen=True)
class Config:
    """Compute the few-shot table from the finished runs.

    Example: python -m nepa3d.analysis.fewshot_table --runs_root runs --results results
    """

    runs_root: Path = Path("runs")
    """Folder of scan_<method>_k<K>_s<seed>/last.pt."""
    results: Path = Path("results")
    """Folder of m1_table.{md,csv,json}."""


def command(config: Config) -> None:
    """Print and write it."""
    runs = read_runs(config.runs_root)
    if not runs:
        raise ValueError(f"runs_root: no scan_<method>_k<K>_s<seed>/last.pt in {config.runs_root}")
    print_tables(runs)
    write_tables(runs, config.results)


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(Config, command, argv, output="results")


if __name__ == "__main__":
    raise SystemExit(main())
