"""Whole shapes: preprocessing as a user runs it, where the time of a shape goes, and whether memory stays flat."""

from __future__ import annotations

import cProfile
import os
import pstats
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from tabulate import tabulate

from benchmarks import machine
from benchmarks.inputs import make_corpus
from benchmarks.run import RESULTS
from nepa3d import cli
from nepa3d.corpora.preprocess_meshes import ShapeJob, compute_shape
from nepa3d.execution.files import atomic_open, finish, write_json, write_pending
from nepa3d.execution.progress_bar import progress_bar
from nepa3d.shapes.mesh import load_mesh
from nepa3d.shapes.query_pools import PoolSettings, composed_pools

PROFILED = 100  # shapes, evenly spread over the corpus
MEMORY_STEP = 250  # shapes between two looks at the memory
BUILD, COMPOSED = "build_pools", "composed_pools"
Stages = Mapping[
    str, tuple[str | tuple[str, str], ...]
]  # of a shape, by the functions that make them up; a pair counts
# what the second spends in the first
STAGES: Stages = {
    "read": ("load_mesh",),
    "draws": ("draw",),
    "tree": (("__init__", BUILD),),
    "queries and answers": (("query_pools", BUILD),),
    "write": ("write_pending",),
    "sync": ("finish",),
}
STEPS: Stages = {
    "sample": ("surface",),
    "queries": ("point_queries", "camera_rays"),
    "distances": (("nearest_distance", COMPOSED),),
    "tree": (("__init__", COMPOSED),),
    "rays on the mesh": ("mesh_ray_answers",),
    "rays in the cloud": ("cloud_ray_answers",),
    "grids": ("distance_field",),
}
SHAPENET, CORES = 52_000, 16  # what the time is projected for


@dataclass(frozen=True)
class Config:
    """Preprocess a corpus at the default settings with each number of workers, and profile its shapes in one process.

    Example: python -m benchmarks shapes --corpus demo/full/corpus
    """

    corpus: Path | None = None
    """Meshes in ShapeNet's layout; left out: the demo's, made below work."""
    work: Path = Path("data/bench")
    """Folder of what is downloaded and made; the caches go to a temporary folder in it."""
    results: Path = RESULTS
    """Folder for shapes-<machine>.json and .png."""
    workers: tuple[int, ...] = (1, 2)
    """Numbers of worker processes."""
    memory_shapes: int = 0
    """Shapes one process writes while its memory is watched; 0: not done."""

    def __post_init__(self) -> None:
        if not self.workers or any(count < 1 for count in self.workers):
            raise ValueError(f"workers must be at least 1, got {self.workers}")
        if self.memory_shapes < 0:
            raise ValueError(f"memory_shapes must be at least 0, got {self.memory_shapes}")


@dataclass(frozen=True)
class Throughput:
    """One run of the command: its wall time with start and end, and what it wrote."""

    workers: int
    shapes: int
    seconds: float
    bytes_per_shape: int


def preprocess(corpus: Path, out: Path, workers: int) -> Throughput:
    """Run the command in a process of its own, as a user does."""
    command = [sys.executable, "-m", "nepa3d.data.preprocess_shapenet"]
    command += ["--shapenet_root", f"{corpus}", "--out_root", f"{out}", "--workers", f"{workers}"]
    begin = time.perf_counter()
    status = subprocess.run(command, stdout=subprocess.DEVNULL).returncode
    seconds = time.perf_counter() - begin
    if status not in (cli.EXIT_OK, cli.EXIT_SOME_FAILED):
        raise ValueError(f"{' '.join(command)} ended with status {status}")
    sizes = [file.stat().st_size for file in out.glob("*/*/*.npz")]
    return Throughput(workers, len(sizes), seconds, sum(sizes) // max(1, len(sizes)))


def jobs(meshes: Sequence[Path], out: Path, count: int) -> Iterator[ShapeJob]:
    """``count`` jobs that go round the meshes and write one file over and over."""
    for index, mesh in enumerate(islice(cycle(meshes), count)):
        yield ShapeJob(f"bench/{index}", mesh, out / "shape.npz", PoolSettings(), 0)


def build_and_write(job: ShapeJob) -> None:
    """A whole shape, one step after the other."""
    shape = compute_shape(job)
    finish([write_pending(shape.path, shape.write)])


def compose(job: ShapeJob) -> None:
    """The pools of a shape by their plain twin."""
    composed_pools(load_mesh(job.mesh), job.settings, job.seed, job.key)


def profile(meshes: Sequence[Path], out: Path, work: Callable[[ShapeJob], None], stages: Stages) -> dict[str, float]:
    """Seconds a shape by stage of ``work``, in one process under ``cProfile``; what no stage covers is "other"."""
    chosen = meshes[:: max(1, len(meshes) // PROFILED)]
    profiler = cProfile.Profile()
    for job in jobs(chosen, out, len(chosen)):
        profiler.runcall(work, job)
    calls: dict[tuple[str, int, str], tuple] = pstats.Stats(profiler).stats  # type: ignore[attr-defined]
    total = sum(entry[3] for function, entry in calls.items() if function[2] == work.__name__)
    seconds = {stage: sum(spent(calls, part) for part in parts) for stage, parts in stages.items()}
    seconds["other"] = total - sum(seconds.values())
    return {stage: value / len(chosen) for stage, value in seconds.items()}


def projected_minutes(run: Throughput) -> float:
    """Minutes for ShapeNet's shapes on ``CORES`` cores, each as fast as a worker of ``run``."""
    return SHAPENET / (CORES * run.shapes / run.seconds / run.workers) / 60


def spent(calls: Mapping[tuple[str, int, str], tuple], part: str | tuple[str, str]) -> float:
    """Seconds in a function with all it calls; of a pair, those of the first when called by the second.

    A function paired with itself stands for its own time, without what it calls.
    """
    name, caller = (part, None) if isinstance(part, str) else part
    entries = [entry for function, entry in calls.items() if function[2] == name]
    if caller is None:
        return float(sum(entry[3] for entry in entries))
    if caller == name:
        return float(sum(entry[2] for entry in entries))
    return float(sum(c[3] for entry in entries for function, c in entry[4].items() if function[2] == caller))


def watch_memory(meshes: Sequence[Path], out: Path, count: int) -> list[tuple[int, int]]:
    """Resident bytes of this process after so many shapes."""
    seen = []
    for index, job in enumerate(
        progress_bar(jobs(meshes, out, count), total=count, desc="memory", unit="shape"), start=1
    ):
        build_and_write(job)
        if index % MEMORY_STEP == 0 or index == count:
            pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
            seen.append((index, pages * os.sysconf("SC_PAGESIZE")))
    return seen


def picture(
    about: Mapping[str, Any], stages: Mapping[str, float], memory: Sequence[tuple[int, int]], path: Path
) -> None:
    """Draw where a shape's time goes, and the memory over the shapes if it was watched."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11 if memory else 6, 3.5), layout="constrained")
    axes = figure.subplots(1, 2 if memory else 1, squeeze=False)[0]
    axes[0].barh([*stages], [seconds * 1e3 for seconds in stages.values()], color="#3b6fb6")
    axes[0].invert_yaxis()
    axes[0].set_xlabel("milliseconds a shape")
    if memory:
        axes[1].plot([count for count, _ in memory], [size / 2**20 for _, size in memory], ".-")
        axes[1].set(xlabel="shapes", ylabel="resident memory, MiB", ylim=(0, None))
    for panel in axes:
        panel.spines[["top", "right"]].set_visible(False)
    described = about["machine"]
    figure.suptitle(f"{described['cpu']}, commit {about['commit']}, {about['date'][:10]}", fontsize=9)
    with atomic_open(path) as file:
        figure.savefig(file, format="png", dpi=130)


def command(config: Config) -> None:
    """Measure, print the tables, write JSON and picture; see ``Config``."""
    corpus = config.corpus or make_corpus(config.work, quick=False)
    meshes = sorted(corpus.glob("*/*/models/model_normalized.obj"))
    if not meshes:
        raise ValueError(f"corpus: no */*/models/model_normalized.obj below {corpus}")
    config.work.mkdir(parents=True, exist_ok=True)
    runs = []
    for workers in config.workers:
        with tempfile.TemporaryDirectory(dir=config.work) as out:
            runs.append(preprocess(corpus, Path(out), workers))
    with tempfile.TemporaryDirectory(dir=config.work) as out:
        stages = profile(meshes, Path(out), build_and_write, STAGES)
        steps = profile(meshes, Path(out), compose, STEPS)
        memory = watch_memory(meshes, Path(out), config.memory_shapes)
    about = machine.describe()
    print(tabulate(lines(runs), headers=("workers", "shapes", "seconds", "shapes/s and worker", "MB a shape")))
    for title, parts in (("stage", stages), ("step of the plain twin", steps)):
        whole = sum(parts.values())
        print(tabulate([(name, f"{s * 1e3:.2f}", f"{s / whole:.0%}") for name, s in parts.items()], (title, "ms", "")))
    largest = max(runs, key=lambda run: run.workers)
    print(
        f"ShapeNet, projected: {SHAPENET:,} shapes on {CORES} cores take {projected_minutes(largest):.1f} minutes at "
        f"the {largest.shapes / largest.seconds / largest.workers:.1f} shapes/s and worker of {largest.workers} workers"
    )
    path = config.results / f"shapes-{machine.slug()}.json"
    found = {"runs": [asdict(run) for run in runs], "stages": stages, "steps": steps, "memory": memory}
    found["projected"] = {"shapes": SHAPENET, "cores": CORES, "minutes": projected_minutes(largest)}
    write_json(path, {**about, **found})
    picture(about, stages, memory, path.with_suffix(".png"))
    print(f"wrote {path} and {path.with_suffix('.png')}")


def lines(runs: Sequence[Throughput]) -> list[tuple[str, ...]]:
    """The throughput table's cells."""
    return [
        (
            f"{run.workers}",
            f"{run.shapes:,}",
            f"{run.seconds:.1f}",
            f"{run.shapes / run.seconds / run.workers:.1f}",
            f"{run.bytes_per_shape / 1e6:.2f}",
        )
        for run in runs
    ]


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(Config, command, argv)
