"""Shapes read by threads and used by the batch, so that one that cannot be used costs only itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

from numpy.typing import NDArray

from nepa3d.execution.progress_bar import progress_bar
from nepa3d.shapes.cache import CacheError

Item = TypeVar("Item")
Made = TypeVar("Made")


class Refused(NamedTuple):
    """What stands in the place of something that could not be read or used."""

    reason: str


class Used(NamedTuple):
    """An item, what was read of it, and its row of what a batch became; the last two where it was not refused."""

    item: Any
    made: Any
    row: NDArray[Any] | Refused


def used(
    items: Sequence[Item],
    read: Callable[[Item], Made | Refused],
    use: Callable[[Sequence[Made]], NDArray[Any]],
    *,
    workers: int,
    batch: int,
    task: str,
) -> Iterator[Used]:
    """Read every item in one of the threads, use them ``batch`` at a time (``of_each``), and give them back in order,
    under a progress bar that names the ``task``."""
    with ThreadPoolExecutor(workers) as threads, progress_bar(total=len(items), desc=task, unit="shape") as bar:
        for some in in_batches(threads, lambda item: (item, read(item)), items, batch):
            rows = iter(of_each(use, [made for _, made in some if not isinstance(made, Refused)]))
            for item, made in some:
                row = made if isinstance(made, Refused) else next(rows)
                yield Used(item, made, Refused(row.fault) if isinstance(row, CacheError) else row)
            bar.update(len(some))


def in_batches(
    pool: ThreadPoolExecutor, make: Callable[[Item], Made], items: Sequence[Item], size: int
) -> Iterator[list[Made]]:
    """What ``make`` gives of the items, ``size`` at a time and in order; the next ones are made meanwhile."""
    batches = [items[begin : begin + size] for begin in range(0, len(items), size)]
    waiting: list[list[Future[Made]]] = []
    try:
        for batch in batches:
            waiting.append([pool.submit(make, item) for item in batch])
            if len(waiting) > 1:
                yield [future.result() for future in waiting.pop(0)]
        if waiting:
            yield [future.result() for future in waiting.pop(0)]
    finally:  # an interruption does not wait for what nobody takes
        for future in (future for batch in waiting for future in batch):
            future.cancel()


def of_each(use: Callable[[Sequence[Item]], NDArray[Any]], items: Sequence[Item]) -> list[NDArray[Any] | CacheError]:
    """The row of each item in what ``use`` gives of all; where it refuses a shape, with a ``CacheError``, they are used
    one by one, and the error stands in the place of those that it refuses."""
    if not items:
        return []
    try:
        return [*use(items)]
    except CacheError as error:
        if len(items) == 1:
            return [error]
    return [row for item in items for row in of_each(use, [item])]
