"""Chunks of tasks on a Ray cluster: every worker there runs them in a process of its own, as a local run does.

Ray carries chunks out and outcomes back, nothing else; the files are written by the same code in the same way.
"""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from nepa3d.execution.processes import Chunk, Chunks, LocalEngine, Outcome, Pool, Results, Work, run_chunks
from nepa3d.execution.sockets import socket_folder

try:
    import ray
except ImportError as error:
    raise ValueError("engine: ray is not installed: pip install 'nepa3d[ray]'") from error

SOCKET_ROOM = len("/ray/session_2000-01-01_00-00-00_123456_1234567/sockets/plasma_store.1")  # below a temporary folder
MAX_LOSSES = 3  # of workers or nodes that held a chunk, before it is given up


@contextmanager
def ray_cluster(address: str, cpus: int, gpus: int = 0) -> Iterator[Callable[[Iterable[Any]], Any]]:
    """Connect to a cluster, or start one here; gives a function that waits for one of several tasks to end.

    Told to end by SIGTERM, that function ends the process as the signal's own status says; raising it from a handler
    while Ray's core waits would abort instead.
    """
    asked = threading.Event()

    def next_done(tasks: Iterable[Any]) -> Any:
        while not asked.is_set():
            done, _ = ray.wait(list(tasks), timeout=0.2)
            if done:
                return done[0]
        raise SystemExit(128 + signal.SIGTERM)

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM)
    if address:
        ray.init(address=address, log_to_driver=False)
    else:
        ray.init(
            num_cpus=cpus,
            num_gpus=gpus or None,
            include_dashboard=False,
            log_to_driver=False,
            _node_ip_address="127.0.0.1",
            _temp_dir=None if "RAY_TMPDIR" in os.environ else f"{socket_folder(SOCKET_ROOM)}/ray",
        )
    try:
        if main:
            signal.signal(signal.SIGTERM, lambda *_: asked.set())
        yield next_done
    finally:
        ray.shutdown()
        if main:
            signal.signal(signal.SIGTERM, before)


class _Worker:
    """One process slot of the cluster."""

    def __init__(self, pool: Pool) -> None:
        self._engine = LocalEngine(pool)

    def run(self, work: Work[Any], chunk: Chunk) -> list[Outcome]:
        """The outcomes of a chunk; a shape that takes its process down is charged here."""
        return [outcome for results in run_chunks(self._engine, work, [chunk]) for outcome in results]


class RayEngine:
    """``pool.workers`` workers on a Ray cluster; one that is lost with its node is replaced, its chunk run again."""

    def __init__(self, pool: Pool) -> None:
        self._pool = replace(pool, workers=1, engine="local")
        self._workers = pool.workers
        self._cluster = ray_cluster(pool.ray_address, pool.workers)

    def __enter__(self) -> RayEngine:
        self._next_done = self._cluster.__enter__()
        self._actor = ray.remote(num_cpus=1, max_restarts=0)(_Worker)
        return self

    def __exit__(self, *error: Any) -> None:
        self._cluster.__exit__(*error)

    def results(self, work: Work[Any], chunks: Chunks) -> Iterator[tuple[Chunk, Results]]:
        """See ``Engine``."""
        waiting, losses = deque(range(len(chunks))), Counter[int]()
        running: dict[Any, tuple[Any, int]] = {}
        shared = ray.put(work)

        def start(worker: Any) -> None:
            if waiting:
                number = waiting.popleft()
                running[worker.run.remote(shared, chunks[number])] = worker, number

        for _ in range(min(self._workers, len(chunks))):
            start(self._actor.remote(self._pool))
        while running:
            done = self._next_done(running)
            worker, number = running.pop(done)
            try:
                results: Results = ray.get(done)
            except ray.exceptions.RayActorError as error:
                worker = self._actor.remote(self._pool)
                losses[number] += 1
                if losses[number] < MAX_LOSSES:
                    waiting.append(number)
                    start(worker)
                    continue
                results = Outcome(chunks[number][0].key, "crash", f"{MAX_LOSSES} workers were lost with it: {error}")
            start(worker)
            del worker  # one without work leaves its processor to a worker that waits for one
            yield chunks[number], results
