"""What the experiment's jobs are at: runs that are done, processes that live, pid files of those that do not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tabulate import tabulate

from nepa3d import cli
from nepa3d.experiments.jobs import running
from nepa3d.report.fewshot import RUN


@dataclass(frozen=True)
class Config:
    """Show the finished fine-tunings per method and the running jobs; --clean removes pid files of ended processes.

    Example: python -m nepa3d.experiments.pipeline_status --clean
    """

    runs_root: Path = Path("runs")
    """Folder of the runs."""
    logs: Path = Path("logs")
    """Folder of the logs and pid files."""
    clean: bool = False
    """Remove pid files of processes that ended."""


def command(config: Config) -> None:
    """Print the counts and the jobs."""
    names = [match for path in config.runs_root.glob("*/last.pt") if (match := RUN.fullmatch(path.parent.name))]
    done = Counter(match["method"] for match in names)
    if done:
        print(tabulate(sorted(done.items()), headers=("method", "fine-tunings done")))
    others = sorted(path.parent.name for path in config.runs_root.glob("*/last.pt"))
    pretrained = [name for name in others if not RUN.fullmatch(name)]
    print(f"pretrained or under way: {', '.join(pretrained) or 'none'}")
    for path, number, lives in running(config.logs):
        state = "running" if lives else "exited without cleanup"
        print(f"{path.stem}: {state}, process {number}, log {path.with_suffix('.log')}")
        if config.clean and not lives:
            path.unlink()
            print(f"removed {path}")


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(Config, command, argv)


if __name__ == "__main__":
    raise SystemExit(main())
