"""The whole way of the data on a real corpus: meshes, caches, three models, probes, classifiers, tables, a picture."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tabulate import tabulate

from nepa3d import cli
from nepa3d.data.import_sweethome3d import fetch_furniture, find_furniture
from nepa3d.execution.files import read_json, write_json
from nepa3d.experiments import demo_plan
from nepa3d.experiments.demo_plan import FULL, QUICK, SHIPPED, Demo
from nepa3d.experiments.jobs import Finished, run_jobs
from nepa3d.models.stored import built_in


@dataclass(frozen=True)
class Config:
    """Run the whole pipeline in one folder. The same command resumes an interrupted run.

    Example: python -m nepa3d.experiments.demo --root demo/full
    """

    root: Path
    """Folder of everything the demo downloads and makes."""
    quick: bool = False
    """Use few shapes and few steps, to check that the pipeline runs; the models learn little."""
    workers: int = 2
    """Processes of the preprocessing; trainings and probes that run beside each other, on a share of the cores each."""


def find_source(download: Path) -> tuple[str, Path | None]:
    """A sentence that says which meshes are used, and their folder; None: procedural ones have to do."""
    try:
        furniture = find_furniture() or fetch_furniture(download)
    except OSError as error:
        return f"the built-in procedural shapes, since the furniture package is not available ({error})", None
    return f"Sweet Home 3D's furniture, from {furniture}", furniture


def run(config: Config) -> int:
    """Run every job, see ``Config``; the exit status of one that fails, after which no other is run."""
    said, furniture = find_source(config.root / "download")
    print(f"corpus: {said}")
    # procedural shapes in a folder of their own, should the package be found another time
    root = config.root if furniture is not None else config.root / "procedural"
    # a small corpus is divided otherwise, so that its test shapes may be among those that the package's model has seen
    shipped = furniture is not None and not config.quick and SHIPPED in built_in()
    demo = Demo(root, QUICK if config.quick else FULL, config.workers, shipped)
    demo_plan.write_mixes(demo)
    finished: list[Finished] = []
    data = (demo_plan.corpus_job(root, demo.scale, furniture), *demo_plan.data_jobs(demo), *demo_plan.scan_jobs(demo))
    for name, stage, at_a_time in (
        ("data", data, 1),
        ("models", demo_plan.model_jobs(demo), config.workers),
        ("report", demo_plan.report_jobs(demo), 1),
    ):
        jobs = list(stage)
        logs = f", {at_a_time} at a time, their output in {demo.root / 'logs'}" if jobs[0].log is not None else ""
        print(f"\n== {name}: {len(jobs)} jobs{logs}", flush=True)
        finished += run_jobs(jobs, [None] * at_a_time, stop_at_failure=True)
        failed = next((done for done in finished if done.state == "failed"), None)
        if failed is not None:
            print(failed.output_end, file=sys.stderr)
            return failed.status or cli.EXIT_IO
    _write_timings(root / "timings.json", finished)
    print(f"\ncorpus: {said}")
    seconds = [(done.job.name, done.seconds) for done in finished]
    print(tabulate(seconds, headers=("stage", "seconds"), floatfmt=".1f", tablefmt="github"))
    print(f"to look at: {root / 'report.html'}")
    print(f"picture: {root / 'demo.png'}, tables: {demo.results / 'tables.md'}, ", end="")
    print(f"completed surfaces: {root / 'surfaces'}")
    return cli.EXIT_OK


def _write_timings(path: Path, finished: Sequence[Finished]) -> None:
    """Keep a job's time when it was skipped now because it was done before."""
    before = read_json(path) if path.exists() else {}
    times = {done.job.name: round(done.seconds, 2) or before.get(done.job.name, 0.0) for done in finished}
    write_json(path, times)


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(Config, run, argv)


if __name__ == "__main__":
    raise SystemExit(main())
