"""One function over many shapes in worker processes, where a bad shape costs only itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from nepa3d.execution.processes import GOOD, Engine, Job, LocalEngine, Outcome, Pool, Task, Work, run_chunks
from nepa3d.execution.progress_bar import progress_bar


def open_engine(pool: Pool) -> Engine:
    """The engine a pool asks for. ``ValueError`` if that is Ray and it is not installed."""
    if pool.engine == "local":
        return LocalEngine(pool)
    from nepa3d.execution.ray_tasks import RayEngine

    return RayEngine(pool)


def run_tasks(
    work: Work[Job],
    tasks: Sequence[Task[Job]],
    pool: Pool,
    label: str,
    observe: Callable[[int, int], None] = lambda done, failed: None,
) -> list[Outcome]:
    """Call ``work`` on every job in worker processes, with a progress bar; one outcome a task, in no given order.

    ``observe`` is told the numbers of shapes done and failed as they grow.
    """
    outcomes: list[Outcome] = []
    failed = 0
    chunks = [tasks[i : i + pool.chunk_size] for i in range(0, len(tasks), pool.chunk_size)]
    with (
        open_engine(pool) as engine,
        progress_bar(total=len(tasks), desc=label, unit="shape", smoothing=0.1) as progress,
    ):
        for results in run_chunks(engine, work, chunks):
            outcomes += results
            progress.update(len(results))
            failed += sum(outcome.state not in GOOD for outcome in results)
            if failed:
                progress.set_postfix(failed=failed, refresh=False)
            observe(len(outcomes), failed)
    return outcomes
