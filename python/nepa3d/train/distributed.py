"""The processes of one training run, as torchrun starts them; without it a run is one process.

Every process holds the whole model and works on its share of each batch; sums over them take the place of one
process's sums, so that a run is the same, up to rounding, on any number of processes.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class World:
    """This process among the ``size`` of a run."""

    rank: int
    size: int
    device: torch.device

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes files and talks."""
        return self.rank == 0

    def say(self, text: str) -> None:
        """Print it once for all processes."""
        if self.leads:
            print(text)

    def share(self, places: range) -> range:
        """This process's part of a batch's samples; the parts follow one another and may be empty."""
        count = len(places)
        return places[count * self.rank // self.size : count * (self.rank + 1) // self.size]

    def add(self, values: Tensor) -> Tensor:
        """The sum over all processes, in place.

        ``OSError`` where one of them has ended.
        """
        if self.size > 1:
            try:
                dist.all_reduce(values)
            except RuntimeError as error:  # of gloo and NCCL alike
                reason = str(error).splitlines()[0]
                raise OSError(
                    f"process {self.rank} of {self.size}: another process of this run has ended: {reason}"
                ) from error
        return values

    def add_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Replace every gradient by its sum over all processes."""
        if self.size == 1:
            return
        parameters = list(parameters)
        flat = torch.cat([(p.grad if p.grad is not None else torch.zeros_like(p)).flatten() for p in parameters])
        self.add(flat)
        for parameter, grad in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
            parameter.grad = grad.view_as(parameter)

    def any(self, said: bool) -> bool:
        """Whether it is said by any process."""
        return bool(self.add(torch.tensor(float(said), device=self.device)) > 0)


@contextmanager
def world() -> Iterator[World]:
    """The processes that torchrun has started with this one; a GPU for each where there are any.

    ``ValueError`` if there are fewer GPUs here than processes.
    """
    cuda = torch.cuda.is_available()
    if "WORLD_SIZE" not in os.environ:
        yield World(0, 1, torch.device("cuda" if cuda else "cpu"))
        return
    local = int(os.environ["LOCAL_RANK"])
    if cuda and local >= torch.cuda.device_count():
        raise ValueError(f"torchrun: process {local} here has no GPU of its own, there are {torch.cuda.device_count()}")
    device = torch.device("cuda", local) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if cuda else "gloo")
    try:
        yield World(dist.get_rank(), dist.get_world_size(), device)
    finally:
        dist.destroy_process_group()
