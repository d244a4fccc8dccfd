"""The flags that say where jobs run."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from nepa3d import cli
from nepa3d.cli.flags import command_line
from nepa3d.experiments.jobs import Finished, Job, run_jobs

Config = TypeVar("Config")


@dataclass(frozen=True, kw_only=True)
class JobFlags:
    """Where the jobs run."""

    slots: str = "0,1"
    """Devices, one job each: GPU numbers, or cpu*N. With ray: whether a job takes a GPU, or a processor."""
    engine: Literal["local", "ray"] = "local"
    """This machine, or a Ray cluster that sees the same folders."""
    ray_address: str = ""
    """Address of the cluster; empty: start one on this machine."""

    def __post_init__(self) -> None:
        slots_from(self.slots)

    def run(self, jobs: Sequence[Job]) -> list[Finished]:
        """Run them in order; prints a line for each that ends."""
        slots = slots_from(self.slots)
        if self.engine == "local":
            return run_jobs(jobs, slots)
        from nepa3d.experiments.ray_jobs import run_jobs_on_ray  # Ray is loaded where it is used

        return run_jobs_on_ray(jobs, self.ray_address, slots)


def slots_from(text: str) -> list[str]:
    """Devices to run on, one job each: "0,1" are GPUs, "cpu" or "cpu*3" processes without one.

    ``ValueError`` on anything else.
    """
    slots: list[str] = []
    for part in text.split(","):
        name, _, count = part.strip().partition("*")
        if not (name == "cpu" or name.isdecimal()) or (count and not count.isdecimal()):
            raise ValueError(f"slots must be GPU numbers or cpu*N with commas between them, got {text!r}")
        slots += [name] * int(count or 1)
    if not slots:
        raise ValueError(f"slots must name at least one device, got {text!r}")
    return slots


def with_words(config: Config, words: str) -> Config:
    """``config`` with more flags, given as on a command line; ends as that does on one that is wrong."""
    more = shlex.split(words)
    return cli.parse(type(config), [*command_line(config), *more]) if more else config
