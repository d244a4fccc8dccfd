"""How far long work is: a bar on a terminal, and a plain line every half minute where the output goes to a file."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from typing import Any, Generic, TypeAlias, TypeVar

from tqdm import tqdm

INTERVAL = 30.0  # seconds between two lines

T = TypeVar("T")


class ProgressLines(Generic[T]):
    """Takes the place of a bar where no terminal shows one: prints count, rate and time left to standard error.

    Work that takes less than ``INTERVAL`` seconds prints nothing; longer work also prints a line when it ends.
    """

    def __init__(
        self,
        iterable: Iterable[T] = (),
        *,
        unit: str,
        total: int | None = None,
        desc: str = "",
        initial: int = 0,
        disable: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.iterable, self.total, self.n = iterable, total, initial
        self._head, self._unit, self._initial, self._disable = f"{desc}: " if desc else "", unit, initial, disable
        self._postfix = ""
        self._clock = clock
        self._begin = self._printed = clock()

    def __enter__(self) -> ProgressLines[T]:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[T]:
        with self:
            for item in self.iterable:
                yield item
                self.update()

    def update(self, n: int = 1) -> None:
        """Count ``n`` more; prints a line if one is due."""
        self.n += n
        now = self._clock()
        if now - self._printed >= INTERVAL and self.n != self.total:  # the last line is that of ``close``
            self._printed = now
            self._print(now - self._begin, ended=False)

    def set_postfix(self, *, refresh: bool = True, **figures: object) -> None:
        """Figures to show at the end of the following lines; ``refresh`` is there because bars have it."""
        self._postfix = "".join(f", {name} {value}" for name, value in figures.items())

    def write(self, text: str) -> None:
        """Print ``text`` to standard output, as bars do."""
        print(text, flush=True)

    def close(self) -> None:
        """Print the line of the end, if the work was long."""
        seconds = self._clock() - self._begin
        if seconds >= INTERVAL:
            self._print(seconds, ended=True)

    def _print(self, seconds: float, *, ended: bool) -> None:
        if self._disable:
            return
        done = self.n - self._initial
        count = f"{self.n}/{self.total}" if self.total is not None else f"{self.n}"
        line = f"{self._head}{count} {self._unit}s, {rate(done / seconds, self._unit)}"
        if ended:
            line += f", ended after {duration(seconds)}"
        elif self.total is not None and done:
            line += f", {duration(max(self.total - self.n, 0) * seconds / done)} left"
        print(line + self._postfix, file=sys.stderr, flush=True)


Progress: TypeAlias = "tqdm | ProgressLines[Any]"


def progress_bar(
    iterable: Iterable[T] | None = None,
    *,
    unit: str,
    total: int | None = None,
    desc: str = "",
    initial: int = 0,
    disable: bool = False,
    **looks: Any,
) -> Progress:
    """A tqdm bar if standard error is a terminal, else ``ProgressLines``. ``looks`` are further arguments of tqdm.

    ``TQDM_DISABLE=1`` in the environment silences both.
    """
    disable = disable or bool(os.environ.get("TQDM_DISABLE"))
    if sys.stderr.isatty():
        return tqdm(iterable, unit=unit, total=total, desc=desc, initial=initial, disable=disable, **looks)
    if total is None and isinstance(iterable, Sized):
        total = len(iterable)
    return ProgressLines(iterable or (), unit=unit, total=total, desc=desc, initial=initial, disable=disable)


def rate(each_second: float, unit: str) -> str:
    """ "41.2 shapes/s", or "3.5 s/shape" of what takes longer than a second."""
    return f"{1 / each_second:.1f} s/{unit}" if 0 < each_second < 1 else f"{each_second:.1f} {unit}s/s"


def duration(seconds: float) -> str:
    """ "1 h 02 min", "3 min 20 s" or "45 s"."""
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 60} min {whole % 60:02d} s" if whole >= 60 else f"{whole} s"
