"""The command that prints results as the track document's tables, see ``nepa3d.report.tables``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nepa3d import cli
from nepa3d.execution.files import write_text
from nepa3d.report.tables import collect


@dataclass(frozen=True)
class Config:
    """Collect results of probes into tables.

    Example: python -m nepa3d.analysis.tables --results results/*.json --out_md results/tables.md
    """

    results: tuple[str, ...]
    """Result files; a file that no table shows is named and left out."""
    out_md: str = ""
    """File to write the tables to as Markdown; empty: none."""


def command(config: Config) -> None:
    """Print the tables; write them as Markdown where asked."""
    for path in map(Path, config.results):
        if path.is_dir():
            raise ValueError(f"results: expected result files, got the folder {path}")
        if not path.exists():
            raise ValueError(f"results: there is no file {path}")
    tables = collect(config.results)
    for table in tables:
        print(f"{table.title}\n{table.text('simple')}\n")
    if config.out_md:
        write_text(config.out_md, "\n".join(f"### {t.title}\n\n{t.text('pipe')}\n" for t in tables))
        print(f"wrote {config.out_md}")


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m nepa3d.analysis.tables``."""
    return cli.run(Config, command, argv, output="out_md")


if __name__ == "__main__":
    raise SystemExit(main())
