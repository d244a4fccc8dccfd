"""The processes of one training run, as torchrun starts them; without it a run is one process.

Every process holds the whole model and works on its share of each batch; sums over them take the place of one
process's sums, so that a run is the same, up to rounding, on any number of processes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

TORCHRUN = ("WORLD_SIZE", "RANK", "LOCAL_RANK")  # the numbers it gives each process
MASTER = ("MASTER_ADDR", "MASTER_PORT")  # where they meet
TRANSPORTS = ("TORCH_NCCL_", "NCCL_", "GLOO_")  # what their settings begin with


@dataclass(frozen=True)
class ProcessGroup:
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

    def summing(self, module: nn.Module) -> nn.Module:
        """``module`` as one whose gradients are summed over all processes while its backward pass still runs."""
        if self.size == 1:
            return module
        parallel = DistributedDataParallel(module, gradient_as_bucket_view=True)
        # its own takes the mean; torch refuses a hook whose annotations are strings, as they are in this file
        parallel.register_comm_hook(None, lambda _, bucket: _sum(bucket))
        return parallel

    def any(self, value: bool) -> bool:
        """Whether ``value`` is true in any process."""
        return bool(self.add(torch.tensor(float(value), device=self.device)) > 0)


def _sum(bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:
    """The sum of a bucket of gradients over all processes, to come."""
    work = dist.all_reduce(bucket.buffer(), async_op=True)
    assert work is not None
    return work.get_future().then(lambda future: future.value()[0])


def local_rank() -> int | None:
    """This process's number on its machine as torchrun gave it; ``None`` where the run is this process alone.

    Variables that are empty, as `qsub -v` may leave them, are taken away: they count as not set. ``ValueError`` where
    others of several processes are missing, as torchrun did not start them.
    """
    for name, value in list(os.environ.items()):
        if not value.strip() and (name in (*TORCHRUN, *MASTER) or name.startswith(TRANSPORTS)):
            del os.environ[name]
    numbers = {}
    for name in (*TORCHRUN, "MASTER_PORT"):
        text = os.environ.get(name, "0")
        if not text.strip().isdecimal():
            raise ValueError(f"{name} must be a whole number, got {text!r}")
        numbers[name] = int(text)
    size, missing = numbers["WORLD_SIZE"], [name for name in (*TORCHRUN, *MASTER) if name not in os.environ]
    if "WORLD_SIZE" in missing or (missing and size == 1):
        return None
    if missing:
        raise ValueError(f"WORLD_SIZE is {size}, but not set: {', '.join(missing)}: start with torchrun, or unset it")
    for name, end in (("RANK", size), ("MASTER_PORT", 65536)):
        if numbers[name] >= end:
            raise ValueError(f"{name} must lie in 0..{end - 1}, for WORLD_SIZE {size}, got {numbers[name]}")
    return numbers["LOCAL_RANK"]


@contextmanager
def process_group() -> Iterator[ProcessGroup]:
    """The processes that torchrun has started with this one; a GPU for each where there are any.

    ``ValueError`` if there are fewer GPUs here than processes, or only some of torchrun's variables are set.
    """
    cuda = torch.cuda.is_available()
    local = local_rank()
    if local is None:
        yield ProcessGroup(0, 1, torch.device("cuda" if cuda else "cpu"))
        return
    if cuda and local >= torch.cuda.device_count():
        raise ValueError(f"torchrun: process {local} here has no GPU of its own, there are {torch.cuda.device_count()}")
    device = torch.device("cuda", local) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    try:
        dist.init_process_group("nccl" if cuda else "gloo")
    except RuntimeError as error:
        place = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        raise OSError(f"the processes of this run do not meet at {place}: {str(error).splitlines()[0]}") from error
    try:
        yield ProcessGroup(dist.get_rank(), dist.get_world_size(), device)
    finally:
        dist.destroy_process_group()
