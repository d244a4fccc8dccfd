"""The comparison with the peers: meshes, a process for each number of threads, a table, JSON and a picture."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import machine, peers, report
from benchmarks.inputs import choose_meshes, make_corpus
from benchmarks.worker import Job, plan, run_in_own_process
from nepa3d import cli
from nepa3d.execution.files import write_json
from nepa3d.execution.provenance import usable_cores

RESULTS = Path(__file__).parent / "results"
QUICK_REPEATS = 3


@dataclass(frozen=True)
class Config:
    """Time nepa3d's kernels beside other libraries, after their answers were compared; 3 if some differ.

    Example: python -m benchmarks --only "ray casting"

    "python -m benchmarks scaling" times the pipeline itself against the problem's size.
    """

    corpus: Path | None = None
    """Folder with OBJ files of many sizes; left out: the demo's corpus, made below work."""
    work: Path = Path("data/bench")
    """Folder of what is downloaded and made."""
    results: Path = RESULTS
    """Folder for <machine>.json and <machine>.png; partial runs (quick, only) end in -partial."""
    only: str = ""
    """Measure the rows whose name contains this; * and ? stand for any letters."""
    quick: bool = False
    """Small meshes and few repeats: shows that it works, not how fast it is."""
    threads: tuple[int, ...] = ()
    """Numbers of threads; left out: one and as many as there are processors."""
    repeats: int = 15
    """Runs of each contender."""
    budget: float = 5.0
    """Seconds after which a contender runs no more, unless it ran fewer than three times."""

    def __post_init__(self) -> None:
        for name in ("repeats", "budget"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")
        if any(count < 1 for count in self.threads):
            raise ValueError(f"threads must be at least 1, got {self.threads}")


def command(config: Config) -> int:
    """Measure, print the table, write JSON and picture; see ``Config``."""
    peers.require_loadable()
    corpus = config.corpus or make_corpus(config.work, config.quick)
    files = choose_meshes(corpus, config.work, config.quick)
    repeats = min(config.repeats, QUICK_REPEATS) if config.quick else config.repeats
    results = []
    for threads in config.threads or sorted({1, usable_cores()}):
        job = Job(files, config.only, threads, repeats, config.budget)
        if plan(job):
            print(f"== {threads} thread{'s' if threads > 1 else ''}", file=sys.stderr, flush=True)
            results += run_in_own_process(job)
    if not results:
        raise ValueError(f"only: no row's name contains {config.only!r}")
    about = machine.describe() | {"meshes": {file.name: _name_in(corpus, file.path) for file in files}}
    print(report.table(results))
    print("ratio: the fastest peer's least time over ours; above 1 we are faster")
    print(*(f"{name} {version}" for name, version in about["versions"].items()), sep=", ")
    for line in report.absent_peers(results):
        print(line)
    write_results(config, about, results)
    return cli.EXIT_SOME_FAILED if any(result.differs for result in results) else cli.EXIT_OK


def write_results(config: Config, about: dict, results: list) -> None:
    """Write the JSON and, where matplotlib is installed, the picture; say where."""
    partial = "-partial" if config.quick or config.only else ""
    path = config.results / f"{machine.slug()}{partial}.json"
    write_json(path, report.as_json(about, results))
    print(f"wrote {path}")
    if importlib.util.find_spec("matplotlib") is None:
        print("no picture: matplotlib is not installed")
        return
    report.picture(about, results, path.with_suffix(".png"))
    print(f"wrote {path.with_suffix('.png')}")


def _name_in(corpus: Path, path: Path) -> str:
    return path.relative_to(corpus).as_posix() if path.is_relative_to(corpus) else path.name


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(Config, command, argv)
