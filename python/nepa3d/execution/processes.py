"""Chunks of tasks in worker processes of this machine. One that dies or overruns a shape is replaced."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Generic, Literal, Protocol, TypeVar

from pebble import ProcessExpired, ProcessPool

from nepa3d.execution.errors import BadInputError
from nepa3d.execution.files import PendingFile, finish, read_ahead, write_pending
from nepa3d.execution.sockets import shorten_socket_paths

State = Literal[
    "ok", "ok_repaired", "suspicious", "skipped", "bad_input", "timeout", "crash", "oom", "io_error", "error"
]
CHUNKS_A_WORKER = 3  # on their way: one is computed, one waits, and the files of one are put in place
GOOD: tuple[State, ...] = ("ok", "ok_repaired", "suspicious", "skipped")

Job = TypeVar("Job")


@dataclass(frozen=True)
class Outcome:
    """What became of a shape; ``reason`` says why it failed, what was repaired, or what is suspicious."""

    key: str
    state: State
    reason: str = ""


Results = list[Outcome] | Outcome  # of a chunk


@dataclass(frozen=True)
class Pool:
    """How the work is spread over processes."""

    workers: int = 4
    chunk_size: int = 1  # shapes handed to a worker at once
    max_tasks_per_child: int = 0  # chunks after which a worker is replaced; 0: never
    time_limit: float = 600.0  # seconds a shape may take
    engine: Literal["local", "ray"] = "local"  # processes of this machine, or workers on a Ray cluster
    ray_address: str = ""  # of that cluster; "": one started on this machine

    def __post_init__(self) -> None:
        for name, least in (("workers", 1), ("chunk_size", 1), ("max_tasks_per_child", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if self.time_limit <= 0:
            raise ValueError(f"time_limit must be positive, got {self.time_limit}")


@dataclass(frozen=True)
class Unwritten:
    """A shape that is computed but not on disk; ``write`` fills the file at ``path``, while the worker computes the
    next one."""

    repaired: str
    path: Path
    write: Callable[[BinaryIO], None]
    doubt: str = ""  # why it is suspicious; "" if it is not


@dataclass(frozen=True)
class Written:
    """A shape whose file is written, and has yet to be put in place."""

    key: str
    file: PendingFile
    repaired: str
    doubt: str


@dataclass(frozen=True)
class Task(Generic[Job]):
    """A named call: ``work(job)`` returns "" when all went well, or what had to be repaired, or ``Unwritten``."""

    key: str
    job: Job
    reads: Path | None = None  # a file that is fetched while the task before is worked on


@dataclass(frozen=True)
class Batched(Generic[Job]):
    """Work on the jobs of a chunk at once: what it returns or raises for each of them, in their order.

    What it raises itself is not charged to any: the jobs are run again one by one.
    """

    work: Callable[[Sequence[Job]], Sequence[str | Unwritten | Exception]]


Work = Callable[[Job], str | Unwritten] | Batched[Job]
Chunk = Sequence[Task[Any]]
Chunks = Sequence[Chunk]


@dataclass
class Report:
    """The outcomes of a run."""

    outcomes: list[Outcome] = field(default_factory=list)

    def counts(self) -> dict[str, int]:
        """Shapes by state."""
        return dict(Counter(outcome.state for outcome in self.outcomes))

    def failures(self) -> list[Outcome]:
        """Shapes without a result, by key."""
        return sorted((o for o in self.outcomes if o.state not in GOOD), key=lambda o: o.key)

    def of_state(self, state: State) -> list[Outcome]:
        """Shapes of one state, by key."""
        return sorted((o for o in self.outcomes if o.state == state), key=lambda o: o.key)

    def to_json(self) -> dict[str, Any]:
        """Counts, failures, repairs and what is suspicious as plain values."""
        return {
            "counts": self.counts(),
            "failures": [asdict(outcome) for outcome in self.failures()],
            "repaired": [asdict(outcome) for outcome in self.of_state("ok_repaired")],
            "suspicious": [asdict(outcome) for outcome in self.of_state("suspicious")],
        }

    def print_summary(self, label: str) -> None:
        """One line of counts, then a line for each failure and each suspicious shape."""
        print(f"{label}: " + (", ".join(f"{n} {state}" for state, n in self.counts().items()) or "nothing to do"))
        for failure in [*self.failures(), *self.of_state("suspicious")]:
            print(f"  {failure.key}: {failure.state}: {failure.reason}")


class Engine(Protocol):
    """Where chunks of tasks are run. Use it in a ``with`` block."""

    def __enter__(self) -> Engine: ...
    def __exit__(self, *_: object) -> None: ...
    def results(self, work: Work[Any], chunks: Chunks) -> Iterator[tuple[Chunk, Results]]:
        """Each chunk with its outcomes, as they come, or with the one outcome of a worker that did not return."""


class LocalEngine:
    """Processes of this machine, forked from a clean server. One that dies, or overruns a shape, is replaced.

    They write files; threads of this process put these in place, a chunk's at once, while the next are computed.
    """

    def __init__(self, pool: Pool) -> None:
        shorten_socket_paths()
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["nepa3d.shapes.query_pools"])
        self._time_limit = pool.time_limit
        self._processes = ProcessPool(pool.workers, max_tasks=pool.max_tasks_per_child, context=context)
        self._most = CHUNKS_A_WORKER * pool.workers
        self._finishers = ThreadPoolExecutor(pool.workers)

    def __enter__(self) -> LocalEngine:
        return self

    def __exit__(self, *_: object) -> None:  # also when interrupted: what is waiting is not begun
        self._processes.stop()
        self._processes.join()
        self._finishers.shutdown()

    def results(self, work: Work[Any], chunks: Chunks) -> Iterator[tuple[Chunk, Results]]:
        """See ``Engine``."""
        waiting = iter(chunks)
        running: dict[Future[Any], Chunk] = {}
        finishing: dict[Future[Any], Chunk] = {}
        while True:
            for chunk in islice(waiting, self._most - len(running) - len(finishing)):
                running[self._processes.schedule(_run_chunk, (work, chunk, self._time_limit, os.getpid()))] = chunk
            if not running and not finishing:
                return
            done, _ = wait([*running, *finishing], return_when=FIRST_COMPLETED)
            for future in done:
                if future in finishing:
                    yield finishing.pop(future), future.result()
                    continue
                chunk, error = running.pop(future), future.exception()
                if error is None:
                    finishing[self._finishers.submit(_put_in_place, future.result())] = chunk
                else:
                    yield chunk, _outcome(chunk[0].key, error)


def run_chunks(engine: Engine, work: Work[Any], chunks: Chunks) -> Iterator[list[Outcome]]:
    """The outcomes of all tasks. Those of a chunk whose worker was lost are run again one by one, so that only the
    culprit is charged."""
    waiting = chunks
    while waiting:
        again: list[Chunk] = []
        for chunk, results in engine.results(work, waiting):
            if isinstance(results, list):
                yield results
            elif len(chunk) == 1:
                yield [results]
            else:
                again += [[task] for task in chunk]
        waiting = again


def _run_chunk(
    work: Work[Job], tasks: Sequence[Task[Job]], time_limit: float, finisher: int
) -> list[Outcome | Written]:
    """Compute the shapes one after the other, each while the one before it is written and the one after it is read.

    A shape that takes longer than ``time_limit`` seconds ends the process by SIGALRM, wherever it is. The files are
    those of the process ``finisher``, which puts them in place.
    """
    if isinstance(work, Batched):
        return _run_batch(work, tasks, time_limit, finisher)
    found: list[Future[Outcome | Written]] = []
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    with ThreadPoolExecutor(1) as writer:
        for task, after in zip(tasks, [*tasks[1:], None], strict=True):
            signal.setitimer(signal.ITIMER_REAL, time_limit)
            if after and after.reads:
                read_ahead(after.reads)
            computed = _compute(work, task)
            if found:
                found[-1].result()
            found.append(writer.submit(_write, task.key, computed, finisher))
        signal.setitimer(signal.ITIMER_REAL, time_limit)
    signal.setitimer(signal.ITIMER_REAL, 0)
    return [written.result() for written in found]


def _run_batch(
    work: Batched[Job], tasks: Sequence[Task[Job]], time_limit: float, finisher: int
) -> list[Outcome | Written]:
    """Compute all shapes, then write them; the time limit is that of all."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, time_limit * len(tasks))
    computed = work.work([task.job for task in tasks])
    found = [
        _write(task.key, _outcome(task.key, one) if isinstance(one, Exception) else one, finisher)
        for task, one in zip(tasks, computed, strict=True)
    ]
    signal.setitimer(signal.ITIMER_REAL, 0)
    return found


def _compute(work: Callable[[Job], str | Unwritten], task: Task[Job]) -> str | Unwritten | Outcome:
    try:
        return work(task.job)
    except (ValueError, OSError, MemoryError) as error:
        return _outcome(task.key, error)


def _write(key: str, computed: str | Unwritten | Outcome, finisher: int) -> Outcome | Written:
    """Write what was computed, if there is something to write."""
    if isinstance(computed, Outcome):
        return computed
    if isinstance(computed, str):
        return _good(key, computed)
    try:
        file = write_pending(computed.path, computed.write, finisher)
    except (ValueError, OSError, MemoryError) as error:
        return _outcome(key, error)
    return Written(key, file, computed.repaired, computed.doubt)


def _put_in_place(found: Sequence[Outcome | Written]) -> list[Outcome]:
    """Put the files of a chunk in place, which is one journal entry for all of them."""
    failed = finish([one.file for one in found if isinstance(one, Written)])

    def outcome(one: Outcome | Written) -> Outcome:
        if isinstance(one, Outcome):
            return one
        if one.file in failed:
            return _outcome(one.key, failed[one.file])
        if one.doubt:
            return Outcome(one.key, "suspicious", one.doubt)
        return _good(one.key, one.repaired)

    return [outcome(one) for one in found]


def _good(key: str, repaired: str) -> Outcome:
    return Outcome(key, "ok_repaired" if repaired else "ok", repaired)


def _outcome(key: str, error: BaseException) -> Outcome:
    if isinstance(error, BadInputError):
        return Outcome(key, "bad_input", str(error))
    if isinstance(error, ProcessExpired):
        return Outcome(key, *_death(error.exitcode))
    if isinstance(error, MemoryError):
        return Outcome(key, "oom", "memory ran out")
    if isinstance(error, OSError):
        return Outcome(key, "io_error", str(error))
    return Outcome(key, "error", f"{type(error).__name__}: {error}")


def _death(exit_status: int | None) -> tuple[State, str]:
    if exit_status == -signal.SIGKILL:
        return "oom", "the worker was killed by SIGKILL, as a system out of memory does"
    if exit_status == -signal.SIGALRM:
        return "timeout", "the time limit of a shape is over"
    if exit_status is not None and exit_status < 0:
        return "crash", f"the worker died of {signal.Signals(-exit_status).name}"
    return "crash", f"the worker exited with status {exit_status}"
