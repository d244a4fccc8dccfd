"""Shapes read by threads and used by the batch, so that one that cannot be used costs only itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from numpy.typing import NDArray

Item = TypeVar("Item")
Made = TypeVar("Made")


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


def of_each(use: Callable[[Sequence[Item]], NDArray[Any]], items: Sequence[Item]) -> list[NDArray[Any] | ValueError]:
    """The row of each item in what ``use`` gives of all; where it refuses one, they are used one by one, and the error
    stands in the place of those that it refuses."""
    if not items:
        return []
    try:
        return [*use(items)]
    except ValueError as error:
        if len(items) == 1:
            return [error]
    return [row for item in items for row in of_each(use, [item])]
