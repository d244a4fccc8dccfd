"""A process of its own for each number of threads, since some libraries read their limit when they are imported."""

from __future__ import annotations

import os
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import get_context

from benchmarks import cases  # noqa: F401  registers the rows
from benchmarks.harness import CASES, Case, Result, measure, selected
from benchmarks.inputs import MeshFile, make_inputs, usual_mesh

LIMITS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "IGL_NUM_THREADS", "NUMBA_NUM_THREADS")


@dataclass(frozen=True)
class Job:
    """The rows to measure at one number of threads."""

    files: list[MeshFile]
    only: str
    threads: int
    repeats: int
    budget: float


def plan(job: Job) -> list[tuple[Case, MeshFile]]:
    """The rows of a job by case and mesh. Ops that take no threads are measured with one only."""
    return [
        (case, file)
        for case in CASES
        if case.threaded or job.threads == 1
        for file in (job.files if case.per_mesh else [usual_mesh(job.files)])
        if selected(case.row_name(file.name), job.only)
    ]


def run_job(job: Job) -> list[Result]:
    """Measure the rows of a job in this process."""
    inputs = lru_cache(make_inputs)
    results = []
    for case, file in plan(job):
        name = case.row_name(file.name)
        print(f"  {name}", file=sys.stderr, flush=True)
        row = case.row(inputs(file), job.threads)
        results.append(measure(row, name, job.threads, job.repeats, job.budget))
    return results


def run_in_own_process(job: Job) -> list[Result]:
    """Measure the rows of a job in a fresh process limited to as many processors as it has threads."""
    before = dict(os.environ)
    os.environ.update(dict.fromkeys(LIMITS, str(job.threads)))  # the child inherits them
    try:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=_pin, initargs=(job.threads,)) as pool:
            return pool.submit(run_job, job).result()
    finally:
        os.environ.clear()
        os.environ.update(before)


def _pin(threads: int) -> None:
    """Keep to the last ``threads`` processors, where the system can, so that no library uses more."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-threads:])
