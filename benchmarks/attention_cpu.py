"""Attention of training on the CPU, with a dual mask and with a bias of distances: torch's fused one, the plain product
and the package's paths."""

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
from nepa3d.models.causal_transformer import Kernel
from nepa3d.ops.attention import DistanceBias, dual_mask, key_edges, masked_attention, remaining_edges

FUSED, PLAIN = "torch, fused", "torch, plain product"
OURS, KEYS = "nepa3d, mask", "nepa3d, columns in use"
DUAL, DISTANCES = "dual mask", "bias of distances"
TOLERANCE = 1e-4  # of the largest number of each answer
BUDGET = 60.0  # seconds a way and problem
Attention = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Config:
    """Time forward and backward of one attention call on the CPU; answers are compared first.

    With the dual mask, as the document's models are trained, and with the bias of distances of the recommended recipe,
    whose tokens attend a context of points.

    Example: python -m benchmarks attention_cpu
    """

    problems: tuple[tuple[int, int], ...] = ((64, 130), (32, 258))
    """Sequences and tokens of each problem with the dual mask."""
    contexts: tuple[tuple[int, int, int], ...] = ((32, 194, 65), (32, 250, 121))
    """Sequences, tokens and attended tokens of each problem with the bias of distances."""
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

    kind: str
    batch: int
    length: int
    way: str
    times: Times


@dataclass(frozen=True)
class Problem:
    """Inputs of ``gradients``, and the same attention in several ways."""

    kind: str
    tensors: Sequence[Tensor]
    ways: dict[str, Attention]


def plain_product(q: Tensor, k: Tensor, v: Tensor, edges: Tensor, bias: Tensor | None = None) -> Tensor:
    """Attention (B, H, T, D) as a product, a softmax and a product, all edges computed."""
    scores = q @ k.mT / math.sqrt(q.shape[3])
    if bias is not None:
        scores = scores + bias[: len(q)]
    return scores.masked_fill(~edges, -math.inf).softmax(-1) @ v


def with_dual_mask(config: Config, batch: int, length: int) -> Problem:
    """A problem whose edges are dropped at random. The package's models take the last way where only answers are
    attended."""
    edges = dual_mask(length, MASK)
    bits, columns = remaining_edges(length, MASK, device="cpu"), key_edges(edges)
    ways: dict[str, Attention] = {
        FUSED: lambda q, k, v: F.scaled_dot_product_attention(q, k, v, attn_mask=edges),
        PLAIN: partial(plain_product, edges=edges),
        OURS: lambda q, k, v: masked_attention(q, k, v, bits),
        KEYS: lambda q, k, v: masked_attention(q, k, v, columns),
    }
    return Problem(DUAL, inputs(config, batch, length), ways)


def with_distances(config: Config, batch: int, length: int, context: int) -> Problem:
    """A problem whose tokens attend the first ``context`` ones and themselves, with the bias that a model begins with,
    of points spread over the cube around a sphere. Torch's ways have the bias as a matrix (B, H, T, T) at hand."""
    edges = torch.eye(length, dtype=torch.bool)
    edges[:, :context] = True
    points = torch.rand(batch, length, 3, generator=torch.Generator().manual_seed(length)) * 2 - 1
    answered = (points.norm(dim=-1) - 0.5).abs() * (torch.arange(length) < context)
    places = torch.cat([points, torch.ones_like(points[..., :1])], -1)
    with torch.no_grad():
        bias = Kernel(config.heads, 1)((places, answered, torch.zeros(batch, length, dtype=torch.int64), False))
        matrix, columns = bias.scores(), key_edges(edges)
    masked = matrix.masked_fill(~edges, -math.inf)

    def of_keys(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        few = DistanceBias(bias.points[: len(q)], bias.slope, bias.offset[: len(q)], bias.causal)
        return masked_attention(q, k, v, columns, few)

    ways: dict[str, Attention] = {
        FUSED: lambda q, k, v: F.scaled_dot_product_attention(q, k, v, attn_mask=masked[: len(q)]),
        PLAIN: partial(plain_product, edges=edges, bias=matrix),
        KEYS: of_keys,
    }
    return Problem(DISTANCES, inputs(config, batch, length), ways)


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


def measure(config: Config, problem: Problem) -> list[Row]:
    """Times of every way in turn."""
    require_agreement(problem.ways, problem.tensors)
    calls = {way: Contender(partial(gradients, attend, *problem.tensors)) for way, attend in problem.ways.items()}
    for contender in calls.values():
        contender.run()
    batch, _, length, _ = problem.tensors[0].shape
    taken = take_turns(calls, config.rounds, BUDGET)
    return [Row(problem.kind, batch, length, way, times) for way, times in taken.items()]


def command(config: Config) -> None:
    """Measure, print the table, write JSON; see ``Config``."""
    problems = [with_dual_mask(config, *sizes) for sizes in config.problems]
    problems += [with_distances(config, *sizes) for sizes in config.contexts]
    rows, table = [], []
    for problem in problems:
        measured = measure(config, problem)
        fused = next(row for row in measured if row.way == FUSED)
        for row in measured:
            ratio = f"{fused.times.minimum / row.times.minimum:.2f}"
            spent = [milliseconds(seconds) for seconds in (row.times.minimum, row.times.median)]
            table.append((row.kind, f"{row.batch} x {row.length}", row.way, *spent, f"{row.times.spread:.0%}", ratio))
        rows += measured
    heads = ("attention", "sequences x tokens", "way", "ms", "median", "spread", "x fused")
    print(tabulate(table, heads, disable_numparse=True))
    path = config.results / f"attention-{machine.slug()}.json"
    about = machine.describe() | {"torch": torch.__version__, "threads": torch.get_num_threads()}
    used = {name: value for name, value in asdict(config).items() if name != "results"}
    write_json(path, {**about, "flags": used, "rows": [asdict(row) for row in rows]})
    print(f"wrote {path}")


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(Config, command, argv)
