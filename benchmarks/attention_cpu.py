"""Attention of training on the CPU with a dual mask: torch's fused one, the plain product and the package's paths."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812
from tabulate import tabulate
from torch import Tensor

from benchmarks import machine
from benchmarks.attention import MASK, gradients
from benchmarks.harness import Contender, Times, take_turns
from benchmarks.report import milliseconds
from benchmarks.run import RESULTS
from nepa3d import cli
from nepa3d.execution.files import write_json
from nepa3d.ops.attention import dual_mask, key_edges, masked_attention, remaining_edges

FUSED, PLAIN = "torch, fused", "torch, plain product"
OURS, KEYS = "nepa3d, mask", "nepa3d, columns in use"
TOLERANCE = 1e-4  # of the largest number of each answer
BUDGET = 60.0  # seconds a way and problem
Attention = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Config:
    """Time forward and backward of one attention call with the dual mask on the CPU; answers are compared first.

    Example: python -m benchmarks attention_cpu
    """

    problems: tuple[tuple[int, int], ...] = ((64, 130), (32, 258))
    """Sequences and tokens of each problem."""
    heads: int = 4
    """Attention heads."""
    head_size: int = 32
    """Numbers a head has."""
    rounds: int = 30
    """Timed calls of each way."""
    results: Path = RESULTS
    """Folder for attention-<machine>.json."""

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise ValueError(f"rounds must be at least 1, got {self.rounds}")


@dataclass(frozen=True)
class Row:
    """Seconds of forward and backward together."""

    batch: int
    length: int
    way: str
    times: Times


def plain_product(q: Tensor, k: Tensor, v: Tensor, edges: Tensor) -> Tensor:
    """Attention (B, H, T, D) as a product, a softmax and a product, all edges computed."""
    scores = (q @ k.mT / math.sqrt(q.shape[3])).masked_fill(~edges, -math.inf)
    return scores.softmax(-1) @ v


def ways(length: int) -> dict[str, Attention]:
    """The same attention in four ways. The package's models take the last one where only answers are attended."""
    edges = dual_mask(length, MASK)
    bits, columns = remaining_edges(length, MASK, device="cpu"), key_edges(edges)
    return {
        FUSED: lambda q, k, v: F.scaled_dot_product_attention(q, k, v, attn_mask=edges),
        PLAIN: partial(plain_product, edges=edges),
        OURS: lambda q, k, v: masked_attention(q, k, v, bits),
        KEYS: lambda q, k, v: masked_attention(q, k, v, columns),
    }


def inputs(config: Config, batch: int, length: int) -> list[Tensor]:
    """q, k, v and the gradient of the output (B, H, T, D), token by token as the model has them."""
    shape = (batch, length, 4, config.heads, config.head_size)
    found = torch.randn(shape, generator=torch.Generator().manual_seed(length))
    return [*found[:, :, :3].permute(2, 0, 3, 1, 4), found[:, :, 3].contiguous().transpose(1, 2)]


def require_agreement(found: dict[str, Attention], tensors: Sequence[Tensor]) -> None:
    """``ValueError`` where an output or a gradient is off the plain product in float64 by more than the tolerance."""
    few = [x[:4] for x in tensors]
    exact = gradients(found[PLAIN], *(x.double() for x in few))
    for way, attention in found.items():
        for answer, right in zip(gradients(attention, *few), exact, strict=True):
            error, most = float((answer - right).abs().max()), TOLERANCE * float(right.abs().max())
            if not error <= most:
                raise ValueError(f"{way} at T = {few[0].shape[2]}: error {error:.2e} where {most:.2e} is allowed")


def measure(config: Config, batch: int, length: int) -> list[Row]:
    """Times of every way in turn."""
    found, tensors = ways(length), inputs(config, batch, length)
    require_agreement(found, tensors)
    calls = {way: Contender(partial(gradients, attention, *tensors)) for way, attention in found.items()}
    for contender in calls.values():
        contender.run()
    return [Row(batch, length, way, times) for way, times in take_turns(calls, config.rounds, BUDGET).items()]


def command(config: Config) -> None:
    """Measure, print the table, write JSON; see ``Config``."""
    rows = [row for problem in config.problems for row in measure(config, *problem)]
    table = []
    for row in rows:
        fused = next(other for other in rows if (other.length, other.way) == (row.length, FUSED))
        ratio = f"{fused.times.minimum / row.times.minimum:.2f}"
        spent = [milliseconds(seconds) for seconds in (row.times.minimum, row.times.median)]
        table.append((f"{row.batch} x {row.length}", row.way, *spent, f"{row.times.spread:.0%}", ratio))
    heads = ("sequences x tokens", "way", "ms", "median", "spread", "x fused")
    print(tabulate(table, heads, disable_numparse=True))
    path = config.results / f"attention-{machine.slug()}.json"
    about = machine.describe() | {"torch": torch.__version__, "threads": torch.get_num_threads()}
    used = {name: value for name, value in asdict(config).items() if name != "results"}
    write_json(path, {**about, "flags": used, "rows": [asdict(row) for row in rows]})
    print(f"wrote {path}")


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(Config, command, argv)
