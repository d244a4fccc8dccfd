"""Which part of the work is this machine's: a shard given by number, or by the array job it runs in."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

Item = TypeVar("Item")
ArrayKind = Literal["none", "pbs", "slurm"]


@dataclass(frozen=True)
class Shard:
    """Every ``count``-th item from ``index`` on: the shards are disjoint, and together everything."""

    index: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"num_shards must be at least 1, got {self.count}")
        if not 0 <= self.index < self.count:
            raise ValueError(f"shard_index must be at least 0 and below num_shards {self.count}, got {self.index}")

    def select(self, items: Sequence[Item]) -> Sequence[Item]:
        """This shard's items."""
        return items[self.index :: self.count]

    @property
    def suffix(self) -> str:
        """What the names of a shard's own files end with; nothing if it is all there is."""
        return f"_shard{self.index:04d}of{self.count:04d}" if self.count > 1 else ""


def choose_shard(index: int, count: int, array: ArrayKind, environment: Mapping[str, str] = os.environ) -> Shard:
    """The shard of the flags, or that of the PBS or Slurm array job this process is part of.

    PBS tells an index only, so ``count`` must be given; indices may count from 0 or from 1. Slurm tells both, of an
    array without gaps; a ``count`` that is given wins, so that tasks of a run can be run again by their indices.
    """
    if array == "none":
        return Shard(index, count)
    if array == "pbs":
        number = _number(environment, "PBS_ARRAY_INDEX", "PBS_ARRAYID")
        if count < 2:
            raise ValueError("num_shards must be given, as PBS does not tell how many tasks its array has")
        return _by_index(number, count, "PBS")
    number, tasks = _number(environment, "SLURM_ARRAY_TASK_ID"), _number(environment, "SLURM_ARRAY_TASK_COUNT")
    first = _number(environment, "SLURM_ARRAY_TASK_MIN")
    step = _number(environment, "SLURM_ARRAY_TASK_STEP", default=1)
    last = _number(environment, "SLURM_ARRAY_TASK_MAX", default=first + (tasks - 1) * step)
    whole = last - first == (tasks - 1) * step and first <= number <= last and (tasks > 1 or number <= 1)
    if count not in (1, tasks) or (count > 1 and not whole):
        return _by_index(number, count, "Slurm")
    if not whole:
        raise ValueError(
            f"tasks {first} to {last} of this Slurm array are {tasks} in number: no whole array, but some tasks of one "
            "that are run again: pass --num_shards with the number of tasks of the whole"
        )
    return Shard(number % tasks if step == 1 else (number - first) // step, tasks)


def _by_index(number: int, count: int, scheduler: str) -> Shard:
    """The shard of a task by its index alone, which counts from 0 or from 1."""
    if not 0 <= number <= count:
        raise ValueError(f"the {scheduler} array index must lie in 0..{count}, for num_shards {count}, got {number}")
    return Shard(number % count, count)


def _number(environment: Mapping[str, str], *names: str, default: int | None = None) -> int:
    """The first of the variables that is set and not empty."""
    for name in names:
        text = environment.get(name, "")
        if text.isdecimal():
            return int(text)
        if text:
            raise ValueError(f"{name} must be a whole number, got {text!r}")
    if default is None:
        raise ValueError(f"shard_array: {names[0]} is not set, so this is no array job")
    return default
