"""Many commands on a few slots: what is done is skipped, each has a log, and one that fails stops no other.

The slots are devices of this machine, or wherever a Ray cluster has room.
"""

from __future__ import annotations

import os
import queue
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from nepa3d.execution.files import lives
from nepa3d.execution.progress_bar import progress_bar

PIDS = ".pid"  # beside a log while its job runs

State = Literal["done before", "ok", "failed"]


@dataclass(frozen=True)
class Job:
    """A module of nepa3d to run with flags; it is done when ``result`` exists."""

    name: str
    module: str
    flags: tuple[str, ...]
    result: Path
    log: Path


@dataclass(frozen=True, kw_only=True)
class JobFlags:
    """The flags that say where jobs run."""

    slots: str = "0,1"
    """Devices, one job each: GPU numbers, or cpu*N. With ray: whether a job takes a GPU, or a processor."""
    engine: Literal["local", "ray"] = "local"
    """This machine, or a Ray cluster that sees the same folders."""
    ray_address: str = ""
    """Address of the cluster; left out: one is started here."""

    def __post_init__(self) -> None:
        slots_from(self.slots)

    def run(self, jobs: Sequence[Job]) -> list[Finished]:
        """Run them in order; prints a line for each that ends."""
        slots = slots_from(self.slots)
        if self.engine == "local":
            return run_jobs(jobs, slots)
        from nepa3d.execution.ray_jobs import run_jobs_on_ray  # Ray is loaded where it is used

        return run_jobs_on_ray(jobs, self.ray_address, slots)


@dataclass(frozen=True)
class Finished:
    """What became of a job."""

    job: Job
    state: State
    seconds: float = 0.0
    status: int = 0


def slots_from(text: str) -> list[str]:
    """Devices to run on, one job each: "0,1" are GPUs, "cpu" or "cpu*3" processes without one.

    ``ValueError`` on anything else.
    """
    slots: list[str] = []
    for part in text.split(","):
        name, _, count = part.strip().partition("*")
        if not (name == "cpu" or name.isdecimal()) or (count and not count.isdecimal()):
            raise ValueError(f"slots must be GPU numbers or cpu*N with commas between them, got {text!r}")
        slots += [name] * int(count or 1)
    if not slots:
        raise ValueError(f"slots must name at least one device, got {text!r}")
    return slots


class Processes:
    """The processes of the jobs that run; once ended, those that are yet to come end at their start."""

    def __init__(self) -> None:
        self.living: set[subprocess.Popen[bytes]] = set()
        self.ended = False
        self.lock = threading.Lock()

    def start(self, command: Sequence[str], log: IO[str], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        with self.lock:
            process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)
            self.living.add(process)
            if self.ended:
                process.terminate()
        return process

    def wait(self, process: subprocess.Popen[bytes]) -> int:
        """Its exit status; who is interrupted meanwhile ends it."""
        try:
            return process.wait()
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
            with self.lock:
                self.living.discard(process)

    def end(self) -> None:
        with self.lock:
            self.ended = True
            for process in self.living:
                process.terminate()


def run_job(job: Job, device: str, processes: Processes) -> Finished:
    """Run one job on a device, its output appended to its log."""
    if job.result.exists():
        return Finished(job, "done before")
    begin = time.perf_counter()
    job.log.parent.mkdir(parents=True, exist_ok=True)
    pid = job.log.with_suffix(PIDS)
    command = [sys.executable, "-u", "-m", job.module, *job.flags]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "" if device == "cpu" else device}
    with job.log.open("a", encoding="utf-8", errors="surrogateescape") as log:
        log.write(f"$ {shlex.join(command[2:])}\n")
        log.flush()
        process = processes.start(command, log, environment)
        pid.write_text(f"{process.pid}\n", encoding="utf-8")
        try:
            status = processes.wait(process)
        finally:
            pid.unlink()
    done = status == 0 and job.result.exists()
    return Finished(job, "ok" if done else "failed", time.perf_counter() - begin, status)


def run_jobs(jobs: Sequence[Job], slots: Sequence[str]) -> list[Finished]:
    """Run the jobs in order, as many at a time as there are slots; prints a line for each that ends."""
    waiting: queue.SimpleQueue[Job] = queue.SimpleQueue()
    for job in jobs:
        waiting.put(job)
    finished: list[Finished] = []
    processes = Processes()

    def work(device: str) -> None:
        while not processes.ended:
            try:
                job = waiting.get_nowait()
            except queue.Empty:
                return
            finished.append(run_job(job, device, processes))
            progress.update()
            progress.write(line(finished[-1]))

    with progress_bar(total=len(jobs), unit="job") as progress, ThreadPoolExecutor(len(slots)) as pool:
        try:
            # an OSError, such as a full disk, is every job's
            for worker in as_completed([pool.submit(work, device) for device in slots]):
                worker.result()
        finally:  # whoever ends us ends them
            processes.end()
    return finished


def line(finished: Finished) -> str:
    """One line of a job's end."""
    job = finished.job
    if finished.state == "failed":
        return f"{job.name}: failed with status {finished.status} after {finished.seconds:.0f} s, see {job.log}"
    return f"{job.name}: {finished.state}" + (f", {finished.seconds:.0f} s" if finished.seconds else "")


def running(folder: Path) -> list[tuple[Path, int, bool]]:
    """The pid files below ``folder``: each with its process, and whether that lives."""
    found = []
    for path in sorted(folder.rglob(f"*{PIDS}")):
        text = path.read_text(encoding="utf-8", errors="replace").strip()
        number = int(text) if text.isdecimal() else 0
        found.append((path, number, number > 0 and lives(number)))
    return found
