"""Many commands on a few slots: what is done is skipped, each has a log, and one that fails stops no other."""

from __future__ import annotations

import os
import queue
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tqdm import tqdm

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


def run_job(job: Job, device: str, processes: set[subprocess.Popen[bytes]]) -> Finished:
    """Run one job on a device, its output appended to its log; its process is among ``processes`` meanwhile."""
    if job.result.exists():
        return Finished(job, "done before")
    begin = time.perf_counter()
    job.log.parent.mkdir(parents=True, exist_ok=True)
    pid = job.log.with_suffix(PIDS)
    command = [sys.executable, "-u", "-m", job.module, *job.flags]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "" if device == "cpu" else device}
    with job.log.open("a") as log:
        log.write(f"$ {shlex.join(command[2:])}\n")
        log.flush()
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)
        processes.add(process)
        pid.write_text(f"{process.pid}\n")
        status = process.wait()
    processes.discard(process)
    pid.unlink()
    done = status == 0 and job.result.exists()
    return Finished(job, "ok" if done else "failed", time.perf_counter() - begin, status)


def run_jobs(jobs: Sequence[Job], slots: Sequence[str]) -> list[Finished]:
    """Run the jobs in order, as many at a time as there are slots; prints a line for each that ends."""
    waiting: queue.SimpleQueue[Job] = queue.SimpleQueue()
    for job in jobs:
        waiting.put(job)
    finished: list[Finished] = []
    failures: list[OSError] = []
    processes: set[subprocess.Popen[bytes]] = set()
    stopped = threading.Event()

    def work(device: str) -> None:
        while not stopped.is_set():
            try:
                job = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                ended = run_job(job, device, processes)
            except OSError as error:  # such as a full disk, which is every job's
                failures.append(error)
                stopped.set()
                return
            finished.append(ended)
            progress.update()
            progress.write(line(ended))

    with tqdm(total=len(jobs), unit="job") as progress:
        threads = [threading.Thread(target=work, args=(device,), daemon=True) for device in slots]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                while thread.is_alive():
                    thread.join(0.2)
        finally:  # whoever ends us ends them
            stopped.set()
            for process in list(processes):
                process.terminate()
            for thread in threads:
                thread.join()
    if failures:
        raise failures[0]
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
        text = path.read_text().strip()
        number = int(text) if text.isdecimal() else 0
        found.append((path, number, number > 0 and Path(f"/proc/{number}").exists()))
    return found
