"""What a row is, and how it is measured: answers first, then times taken in turns."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from typing import Any

import numpy as np

from benchmarks.agreement import Agreement
from benchmarks.inputs import Inputs

OURS = "nepa3d"
MIN_RUNS = 3  # of a contender that has used up its time
PAUSE = 0.002  # seconds before a run, in which the thread pool of the one before stops spinning


def unchanged(raw: Any) -> Any:
    return raw


@dataclass(frozen=True)
class Contender:
    """One library's way: ``run`` is timed; ``answer`` turns what it returned into what is compared, untimed."""

    run: Callable[[], Any]
    answer: Callable[[Any], Any] = unchanged


@dataclass(frozen=True)
class Row:
    """One line of the table: a problem of one size, our way, the peers' ways, and what agreement means.

    A peer is named by its package and is a function that imports it and brings the inputs into the form it likes
    best, untimed; ``compare`` gets our answer and a peer's.
    """

    size: Mapping[str, int]
    ours: Contender
    peers: Mapping[str, Callable[[], Contender]]
    compare: Callable[[Any, Any], Agreement]


MakeRow = Callable[[Inputs, int], Row]


@dataclass(frozen=True)
class Case:
    """A kind of row: ``row`` makes it for the inputs of one mesh and a number of threads."""

    name: str
    row: MakeRow
    per_mesh: bool
    threaded: bool

    def row_name(self, inputs_name: str) -> str:
        return f"{self.name}, {inputs_name}" if self.per_mesh else self.name


CASES: list[Case] = []


def case(name: str, *, per_mesh: bool = False, threaded: bool = False) -> Callable[[MakeRow], MakeRow]:
    """Register a function that makes rows: for every mesh or for one, for several numbers of threads or for one."""

    def register(row: MakeRow) -> MakeRow:
        CASES.append(Case(name, row, per_mesh, threaded))
        return row

    return register


def selected(name: str, pattern: str) -> bool:
    """Whether a row's name contains ``pattern``, in which * and ? stand for any letters; case does not matter."""
    return fnmatch(name.lower(), f"*{pattern.lower()}*")


@dataclass(frozen=True)
class Times:
    """Seconds of one contender: the least, the median, and the middle half's width as part of the median."""

    minimum: float
    median: float
    spread: float
    runs: int

    @staticmethod
    def of(seconds: list[float]) -> Times:
        low, median, high = np.quantile(seconds, (0.25, 0.5, 0.75))
        return Times(min(seconds), float(median), float((high - low) / median), len(seconds))


@dataclass(frozen=True)
class Result:
    """One measured row. ``times`` is empty if an answer differed; ``notes`` says what was found, by peer."""

    name: str
    threads: int
    size: Mapping[str, int]
    differs: bool
    notes: Mapping[str, str]
    absent: Mapping[str, str]
    times: Mapping[str, Times] = field(default_factory=dict)

    @property
    def fastest_peer(self) -> str | None:
        peers = [name for name in self.times if name != OURS]
        return min(peers, key=lambda name: self.times[name].minimum, default=None)

    @property
    def ratio(self) -> float | None:
        """The fastest peer's least time over ours: 2 means that we take half its time. None without a peer."""
        peer = self.fastest_peer
        return self.times[peer].minimum / self.times[OURS].minimum if peer else None

    @property
    def ratio_of_medians(self) -> float | None:
        peer = self.fastest_peer
        return self.times[peer].median / self.times[OURS].median if peer else None


def measure(row: Row, name: str, threads: int, repeats: int, budget: float) -> Result:
    """Compare every peer's answer with ours, then time all of them, unless one differs."""
    peers, absent = prepare(row)
    ours = row.ours.answer(row.ours.run())  # also the warm-up: caches, pages, compilation
    agreements = {peer: row.compare(ours, way.answer(way.run())) for peer, way in peers.items()}
    notes = {peer: agreement.note for peer, agreement in agreements.items() if agreement.note}
    differs = not all(agreement.agree for agreement in agreements.values())
    times = {} if differs else take_turns({OURS: row.ours, **peers}, repeats, budget)
    return Result(name, threads, row.size, differs, notes, absent, times)


def prepare(row: Row) -> tuple[dict[str, Contender], dict[str, str]]:
    """The peers that can be imported, and why the others cannot."""
    peers, absent = {}, {}
    for name, make in row.peers.items():
        try:
            peers[name] = make()
        except ModuleNotFoundError as error:
            absent[name] = f"{error.name} is not installed"
        except ImportError as error:
            absent[name] = f"it cannot be loaded: {error}"
    return peers, absent


def take_turns(contenders: Mapping[str, Contender], repeats: int, budget: float) -> dict[str, Times]:
    """Time every contender ``repeats`` times, all of them once a round, so that a busy moment hits all alike.

    One that has run for ``budget`` seconds, but at least ``MIN_RUNS`` times, leaves early.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    gc.collect()
    gc.disable()
    try:
        for _ in range(repeats):
            for name, contender in contenders.items():
                taken = seconds[name]
                if len(taken) < MIN_RUNS or sum(taken) < budget:
                    taken.append(_time_once(contender.run))
    finally:
        gc.enable()
    return {name: Times.of(taken) for name, taken in seconds.items()}


def _time_once(run: Callable[[], Any]) -> float:
    time.sleep(PAUSE)
    begin = time.perf_counter()
    result = run()
    seconds = time.perf_counter() - begin
    del result  # freed outside the timing
    return seconds
