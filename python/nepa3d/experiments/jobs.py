"""Commands as jobs on a few slots: a job whose result exists is skipped, and a failure stops no other unless asked.

A job holds the configuration of its command, so that its flags are checked where the job is planned. The slots are
devices of this machine, or wherever a Ray cluster has room (``ray_jobs``).
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import IO, Any, Literal

from nepa3d.cli import configuration, flags
from nepa3d.cli.flags import command_line
from nepa3d.execution.files import lives, require_newer
from nepa3d.execution.progress_bar import progress_bar
from nepa3d.execution.provenance import usable_cores

PIDS = ".pid"  # beside a log while its job runs
LAST_LINES = 20  # of a log, that are shown of a job that failed

State = Literal["done before", "ok", "failed"]
Device = str | None  # number of a GPU, "cpu", or None: whatever the command finds


@dataclass(frozen=True)
class Job:
    """A command to run."""

    name: str
    config: Any
    """Configuration of the command: an instance of the ``Config`` of its module."""
    result: Path | None = None
    """The job is done when this exists; without it, it is always run."""
    log: Path | None = None
    """File that its output is appended to; without it, output goes to the terminal."""
    accepted: tuple[int, ...] = (0,)
    """Exit statuses that count as success."""
    harmless: tuple[str, ...] = ("device", "num_workers", "workers")
    """Flags in which a result that is there may differ."""

    @property
    def module(self) -> str:
        """The module of the command."""
        return type(self.config).__module__

    @property
    def command(self) -> list[str]:
        """What follows ``python -m``: the module and its flags."""
        return [self.module, *command_line(self.config)]

    @property
    def checkpoint(self) -> str:
        """The checkpoint that it reads; "" if it reads none."""
        words = dict(pairwise(self.command))
        return words.get("--ckpt", "")

    @property
    def done(self) -> bool:
        """Whether its result is there."""
        return self.result is not None and self.result.exists()


def require_same_settings(jobs: Sequence[Job]) -> None:
    """``ValueError`` where a result that is there is of other flags than its job's, as the configuration beside it
    says, or of an earlier state of its checkpoint: it would be taken for this one's."""
    for job in jobs:
        if not job.done or job.result is None:
            continue
        if job.checkpoint:
            require_newer(job.result, job.checkpoint)
        for output in (job.result, job.result.parent):
            saved = configuration.beside(output, job.module)
            if saved.exists():
                before = configuration.load(saved, job.module, type(job.config))
                known = flags.flags(type(job.config))
                spelled = {name: known[name].spelling(value) for name, value in before.items()}
                differing = flags.differing(spelled, job.config, harmless=job.harmless)
                if differing:
                    raise ValueError(
                        f"{job.result} was made with other settings ({'; '.join(differing)}): delete it, or write the "
                        "results to another folder"
                    )


@dataclass(frozen=True)
class Finished:
    """What became of a job."""

    job: Job
    state: State
    seconds: float = 0.0
    status: int = 0

    @property
    def line(self) -> str:
        """One line that says so."""
        if self.state == "failed":
            where = f", see {self.job.log}" if self.job.log else ""
            return f"{self.job.name}: failed with status {self.status} after {self.seconds:.0f} s{where}"
        return f"{self.job.name}: {self.state}" + (f", {self.seconds:.0f} s" if self.seconds else "")

    @property
    def output_end(self) -> str:
        """The last lines of its log; "" if its output went to the terminal."""
        if self.job.log is None or not self.job.log.exists():
            return ""
        return "\n".join(self.job.log.read_text(encoding="utf-8", errors="replace").splitlines()[-LAST_LINES:])


class Processes:
    """The processes of the jobs that run; once ended, those that are yet to come end at their start."""

    def __init__(self) -> None:
        self.living: set[subprocess.Popen[bytes]] = set()
        self.ended = False
        self.lock = threading.Lock()

    def start(
        self, command: Sequence[str], log: IO[str] | None, environment: Mapping[str, str]
    ) -> subprocess.Popen[bytes]:
        with self.lock:
            errors = None if log is None else subprocess.STDOUT
            process = subprocess.Popen(command, stdout=log, stderr=errors, env=environment)
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


def run_job(job: Job, device: Device, processes: Processes, threads: int | None = None) -> Finished:
    """Run one job on a device, its numerical libraries with so many threads, unless the environment says how many."""
    if job.done:
        return Finished(job, "done before")
    begin = time.perf_counter()
    environment = dict(os.environ)
    if threads is not None:
        environment.setdefault("OMP_NUM_THREADS", f"{threads}")
    if device is not None:
        environment["CUDA_VISIBLE_DEVICES"] = "" if device == "cpu" else device
    command = [sys.executable, "-u", "-m", *job.command]
    if job.log is None:
        print(f"\n== {job.name}\n$ python -m {shlex.join(job.command)}", flush=True)
        status = processes.wait(processes.start(command, None, environment))
    else:
        status = _run_logged(job.log, command, environment, processes)
    ok = status in job.accepted and (job.result is None or job.done)
    return Finished(job, "ok" if ok else "failed", time.perf_counter() - begin, status)


def _run_logged(log: Path, command: Sequence[str], environment: Mapping[str, str], processes: Processes) -> int:
    """The exit status of ``command``, its output appended to ``log``; a pid file is beside that while it runs."""
    log.parent.mkdir(parents=True, exist_ok=True)
    pid = log.with_suffix(PIDS)
    with log.open("a", encoding="utf-8", errors="surrogateescape") as file:
        file.write(f"$ python {shlex.join(command[2:])}\n")
        file.flush()
        process = processes.start(command, file, environment)
        pid.write_text(f"{process.pid}\n", encoding="utf-8")
        try:
            return processes.wait(process)
        finally:
            pid.unlink()


def run_jobs(jobs: Sequence[Job], slots: Sequence[Device], *, stop_at_failure: bool = False) -> list[Finished]:
    """Run the jobs in order, as many at a time as there are slots, which share the processor's cores; a job whose
    checkpoint another one makes waits for that one. Prints a line for each that ends.

    With ``stop_at_failure``, no job is begun after one has failed. ``ValueError`` as ``require_same_settings`` says.
    """
    require_same_settings(jobs)
    makers = _makers(jobs)
    waiting, ended = list(range(len(jobs))), set[int]()
    finished: list[Finished] = []
    processes = Processes()
    threads = max(1, usable_cores() // len(slots)) if len(slots) > 1 else None
    change = threading.Condition()

    def take() -> int | None:
        with change:
            while waiting and not processes.ended:
                for number in waiting:
                    if makers[number] <= ended:
                        waiting.remove(number)
                        return number
                change.wait()
        return None

    def work(device: Device) -> None:
        while (number := take()) is not None:
            done = run_job(jobs[number], device, processes, threads)
            with change:
                finished.append(done)
                ended.add(number)
                if stop_at_failure and done.state == "failed":
                    waiting.clear()
                change.notify_all()
            if progress is None:
                print(done.line, flush=True)
            else:
                progress.update()
                progress.write(done.line)

    own_output = any(job.log is None for job in jobs)  # a bar would stand in it
    with (
        nullcontext() if own_output else progress_bar(total=len(jobs), unit="job") as progress,
        ThreadPoolExecutor(len(slots)) as pool,
    ):
        try:
            # an OSError, such as a full disk, is every job's
            for worker in as_completed([pool.submit(work, device) for device in slots]):
                worker.result()
        finally:  # whoever ends us ends them
            processes.end()
            with change:
                change.notify_all()
    return finished


def _makers(jobs: Sequence[Job]) -> list[set[int]]:
    """The numbers of the jobs that make the checkpoint of each."""
    made = {f"{job.result}": number for number, job in enumerate(jobs) if job.result is not None}
    found = [made.get(job.checkpoint) for job in jobs]
    return [set() if maker in (None, number) else {maker} for number, maker in enumerate(found)]


def running(folder: Path) -> list[tuple[Path, int, bool]]:
    """The pid files below ``folder``: each with its process, and whether that lives."""
    found = []
    for path in sorted(folder.rglob(f"*{PIDS}")):
        text = path.read_text(encoding="utf-8", errors="replace").strip()
        number = int(text) if text.isdecimal() else 0
        found.append((path, number, number > 0 and lives(number)))
    return found
