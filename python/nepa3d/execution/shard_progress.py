"""The progress of the shards of a preprocessing run: a small status file for each, and a table of them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tabulate import tabulate

from nepa3d.execution.files import read_json, write_json
from nepa3d.execution.processes import Report
from nepa3d.execution.progress_bar import duration
from nepa3d.execution.sharding import Shard

INTERVAL = 5.0  # seconds between two writes
SILENT = 60.0  # seconds after which an unfinished shard seems to have stopped


@dataclass(frozen=True)
class Status:
    """What one shard has done so far."""

    shard: int
    shards: int
    total: int  # shapes of the shard
    skipped: int  # that were there already
    done: int  # since it began
    failed: int
    seconds: float
    updated: float  # seconds since the epoch
    finished: bool = False

    def seconds_left(self) -> float | None:
        """At the rate so far; ``None`` if nothing is known yet."""
        left = self.total - self.skipped - self.done
        if self.finished or left == 0:
            return 0.0
        return left * self.seconds / self.done if self.done else None


class ShardProgress:
    """The status file of one shard; of work that is not sharded, none."""

    def __init__(self, out_root: Path, name: str, shard: Shard, *, total: int, skipped: int) -> None:
        self._shard, self._total, self._skipped = shard, total, skipped
        self._path = status_folder(out_root) / f"{name}{shard.suffix}.json"
        self._begin, self._written = time.monotonic(), -INTERVAL
        self._folder_name = (out_root, name)
        self.update(0, 0)

    def update(self, done: int, failed: int) -> None:
        """Note the shapes done since the beginning; written every few seconds."""
        if time.monotonic() - self._written >= INTERVAL:
            self._write(done, failed, finished=False)

    def finish(self, report: Report) -> None:
        """Note the end, and say what the other shards are at."""
        self._write(len(report.outcomes) - self._skipped, len(report.failures()), finished=True)
        if self._shard.count > 1:
            print(summary(read_statuses(*self._folder_name)))

    def _write(self, done: int, failed: int, *, finished: bool) -> None:
        if self._shard.count == 1:
            return
        self._written = time.monotonic()
        seconds = self._written - self._begin
        index, count = self._shard.index, self._shard.count
        status = Status(index, count, self._total, self._skipped, done, failed, seconds, time.time(), finished)
        write_json(self._path, asdict(status))


def status_folder(out_root: Path) -> Path:
    """Where the status files lie."""
    return out_root / "_meta" / "progress"


def run_names(out_root: Path) -> list[str]:
    """The names of the sharded runs that have begun: several commands may fill one folder, each its own split."""
    stems = (path.stem for path in status_folder(out_root).glob("*_shard*of*.json"))
    return sorted({stem.rpartition("_shard")[0] for stem in stems})


def read_statuses(out_root: Path, name: str) -> list[Status]:
    """The statuses of the shards of a run that have begun, those of the latest number of shards."""
    paths = status_folder(out_root).glob(f"{name}_shard*of*.json")
    statuses = [_read(path) for path in paths]
    if not statuses:
        return []
    shards = max(statuses, key=lambda status: status.updated).shards
    return sorted((status for status in statuses if status.shards == shards), key=lambda status: status.shard)


def _read(path: Path) -> Status:
    try:
        return Status(**read_json(path))
    except TypeError as error:
        raise ValueError(f"{path}: not the status of a shard: {error}") from error


def summary(statuses: Sequence[Status]) -> str:
    """One line: how many shards are done, and the time the slowest of the others needs."""
    if not statuses:
        return "no shard has begun"
    shards = statuses[0].shards
    finished = sum(status.finished for status in statuses)
    waiting = shards - len(statuses)
    line = f"{finished} of {shards} shards finished"
    if waiting:
        line += f", {waiting} not begun"
    times = [left for status in statuses if not status.finished and (left := status.seconds_left()) is not None]
    return f"{line}, about {duration(max(times))} left" if times else line


def table(statuses: Sequence[Status], now: float) -> str:
    """A row a shard."""

    def state(status: Status) -> str:
        if status.finished:
            return "finished"
        left = status.seconds_left()
        if now - status.updated > SILENT:
            return f"silent for {duration(now - status.updated)}"
        return "begun" if left is None else f"{duration(left)} left"

    rows = [(s.shard, s.total, s.skipped, s.done, s.failed, duration(s.seconds), state(s)) for s in statuses]
    return str(tabulate(rows, headers=("shard", "shapes", "were there", "done", "failed", "time", "state")))
