"""Chunks of tasks on a Ray cluster: every worker there runs them in a process of its own, as a local run does.

Ray carries chunks out and outcomes back, nothing else; the files are written by the same code in the same way.
"""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from nepa3d.data.runner import Chunk, Chunks, LocalEngine, Outcome, Pool, Results, Work, run_chunks

try:
    import ray
except ImportError as error:
    raise ValueError("engine: ray is not installed: pip install 'nepa3d[ray]'") from error

MAX_LOSSES = 3  # of workers or nodes that held a chunk, before it is given up


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
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        if pool.ray_address:
            ray.init(address=pool.ray_address, log_to_driver=False)
        else:
            ray.init(num_cpus=pool.workers, include_dashboard=False, log_to_driver=False, _node_ip_address="127.0.0.1")
        self._actor = ray.remote(num_cpus=1, max_restarts=0)(_Worker)

    def __enter__(self) -> RayEngine:
        return self

    def __exit__(self, *_: object) -> None:
        ray.shutdown()

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
            (done,), _ = ray.wait(list(running))
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
            yield chunks[number], results
