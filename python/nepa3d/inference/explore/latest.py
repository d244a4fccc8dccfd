"""Work that is asked for faster than it can be done: the last request of each kind is, one after the other."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor


class Latest:
    """One thread that does what was last asked of each kind. A request that was not begun when the next one of its kind
    came is never done."""

    def __init__(self, refuse: Callable[[str], None]) -> None:
        """``refuse`` is told the message of a ``ValueError``, ``OSError`` or ``MemoryError``; the thread goes on after
        any."""
        self._refuse = refuse
        self._lock = threading.Lock()
        self._wanted: dict[str, Callable[[], None]] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="explore")

    def ask(self, kind: str, work: Callable[[], None]) -> None:
        """Have ``work`` done when what was asked before is."""
        with self._lock:
            fresh = kind not in self._wanted
            self._wanted[kind] = work
            if fresh:
                self._thread.submit(self._do, kind).add_done_callback(_show_error)

    def close(self) -> None:
        """Forget what is not begun."""
        with self._lock:
            self._wanted.clear()
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _do(self, kind: str) -> None:
        with self._lock:
            work = self._wanted.pop(kind, None)
        if work is None:
            return
        try:
            work()
        except (ValueError, OSError, MemoryError) as error:
            self._refuse(str(error) or "memory ran out")


def _show_error(done: Future[None]) -> None:
    """Of a defect: on the terminal, as a thread's errors are; the page goes on."""
    if not done.cancelled() and (error := done.exception()) is not None:
        traceback.print_exception(error)
