"""Show how far a sharded preprocessing run is."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nepa3d import cli
from nepa3d.execution.shard_progress import read_statuses, run_names, summary, table


@dataclass(frozen=True)
class Config:
    """Show the progress of a sharded preprocessing run and the estimated time left.

    Example: python -m nepa3d.data.progress --out_root data/shapenet_cache_v0
    """

    out_root: Path
    """Folder of the cache that is being built."""


def command(config: Config) -> None:
    """Print the table and the time left of each run."""
    names = run_names(config.out_root)
    if not names:
        raise ValueError(f"out_root: no sharded run has begun in {config.out_root}")
    for name in names:
        if len(names) > 1:
            print(f"{name}:")
        statuses = read_statuses(config.out_root, name)
        print(table(statuses, time.time()))
        print(summary(statuses))


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(Config, command, argv)


if __name__ == "__main__":
    raise SystemExit(main())
