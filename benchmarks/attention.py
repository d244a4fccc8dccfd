"""The dual-mask kernel beside what torch offers for the same mask, and causal attention without one; on a GPU."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812
from tabulate import tabulate
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from benchmarks import machine
from benchmarks.run import RESULTS
from nepa3d import cli
from nepa3d.execution.files import write_json
from nepa3d.ops.attention import DualMask, dual_mask, masked_attention, remaining_edges

MASK = DualMask(0.4, 0.1, 32, 1)
OURS, MASKED, FLEX, CAUSAL = "nepa3d", "SDPA with the mask", "FlexAttention", "SDPA, causal, no mask"
TOLERANCE = 2.0  # times the error of SDPA with the mask in the same precision
Attention = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Config:
    """Time forward and backward of one attention call; answers are compared first. Needs a GPU.

    Timed are replays of a recorded graph of launches, the device's own time, and calls from Python one by one.

    Example: python -m benchmarks attention
    """

    lengths: tuple[int, ...] = (514, 1026, 2050, 4098)
    """Tokens T."""
    batch: int = 32
    """Sequences; fewer where T is above 1026, so that B * T stays the same."""
    heads: int = 6
    """Attention heads."""
    head_size: int = 64
    """Numbers a head has."""
    rounds: int = 30
    """Timed replays and calls of each."""
    results: Path = RESULTS
    """Folder for attention-<GPU>.json."""


@dataclass(frozen=True)
class Row:
    """Milliseconds of forward and backward together: on the device, and called one by one."""

    length: int
    way: str
    milliseconds: list[float]
    called: list[float]

    @property
    def median(self) -> float:
        """Milliseconds on the device."""
        return statistics.median(self.milliseconds)


def ways(length: int, device: torch.device, *, compiled: bool = True) -> dict[str, Attention]:
    """The same attention in four ways; the last one drops nothing."""
    edges = dual_mask(length, MASK, device=device)
    words = remaining_edges(length, MASK, device=device)
    blocks = flex_mask(edges)
    flex = torch.compile(flex_attention, dynamic=False) if compiled else flex_attention
    return {
        OURS: lambda q, k, v: masked_attention(q, k, v, words),
        MASKED: lambda q, k, v: F.scaled_dot_product_attention(q, k, v, attn_mask=edges),
        FLEX: lambda q, k, v: flex(q, k, v, block_mask=blocks),
        CAUSAL: lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True),
    }


def flex_mask(edges: Tensor) -> BlockMask:
    """The same bits, looked up where FlexAttention asks for them; blocks without an edge are left out."""
    length = len(edges)

    def remains(_b: Tensor, _h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        return edges[i, j]

    return create_block_mask(remains, None, None, length, length, device=f"{edges.device}")


def inputs(config: Config, length: int, device: torch.device) -> list[Tensor]:
    """q, k, v and the gradient of the output (B, H, T, D) in bfloat16, token by token as the model has them."""
    batch = max(1, math.ceil(config.batch * min(1.0, 1026 / length)))
    generator = torch.Generator(device).manual_seed(length)
    shape = (batch, length, 4, config.heads, config.head_size)
    found = torch.randn(shape, generator=generator, device=device).bfloat16()
    return [*found[:, :, :3].permute(2, 0, 3, 1, 4), found[:, :, 3].contiguous().transpose(1, 2)]


def gradients(attention: Attention, q: Tensor, k: Tensor, v: Tensor, grad: Tensor) -> list[Tensor]:
    """Output and gradients."""
    leaves = [x.detach().requires_grad_() for x in (q, k, v)]
    out = attention(*leaves)
    return [out.detach(), *torch.autograd.grad(out, leaves, grad)]


def require_agreement(found: dict[str, Attention], tensors: Sequence[Tensor], length: int) -> None:
    """``ValueError`` where an answer is further from float32's than ``TOLERANCE`` times SDPA's is."""
    exact = gradients(found[MASKED], *(x[:2].float() for x in tensors))
    allowed = [
        TOLERANCE * float((a - b).abs().max())
        for a, b in zip(gradients(found[MASKED], *(x[:2] for x in tensors)), exact, strict=True)
    ]
    for way in (OURS, FLEX):
        answers = gradients(found[way], *(x[:2] for x in tensors))
        for answer, right, most in zip(answers, exact, allowed, strict=True):
            error = float((answer - right).abs().max())
            if not error <= most:
                raise ValueError(f"{way} at T = {length}: error {error:.2e} where {most:.2e} is allowed")


def recorded(call: Callable[[], object]) -> Callable[[], object]:
    """Its launches as one graph, to be replayed; warms up first."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay


def milliseconds(call: Callable[[], object]) -> float:
    """Between two events on the device, one before the call and one after it."""
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    begin.record()
    call()
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end)


def measure(config: Config, length: int, device: torch.device) -> list[Row]:
    """Times of every way in turn."""
    found, tensors = ways(length, device), inputs(config, length, device)
    require_agreement(found, tensors, length)
    calls = {way: partial(gradients, attention, *tensors) for way, attention in found.items()}
    replays = {way: recorded(call) for way, call in calls.items()}
    rows = {way: Row(length, way, [], []) for way in found}
    for _ in range(config.rounds):
        for way, row in rows.items():
            row.milliseconds.append(milliseconds(replays[way]))
            row.called.append(milliseconds(calls[way]))
    return [*rows.values()]


def command(config: Config) -> None:
    """Measure, print the table, write JSON; see ``Config``."""
    if not torch.cuda.is_available():
        raise ValueError("attention: this benchmark needs a GPU that torch can use")
    device = torch.device("cuda")
    rows = [row for length in config.lengths for row in measure(config, length, device)]
    table = []
    for length in config.lengths:
        times = {row.way: row.median for row in rows if row.length == length}
        ratios = (f"{times[peer] / times[OURS]:.2f}" for peer in (MASKED, FLEX, CAUSAL))
        called = next(statistics.median(row.called) for row in rows if (row.length, row.way) == (length, OURS))
        table.append((f"{length}", *(f"{spent:.3f}" for spent in times.values()), *ratios, f"{called:.3f}"))
    headers = (
        "T",
        *(f"{way}, ms" for way in (OURS, MASKED, FLEX, CAUSAL)),
        *("x masked", "x Flex", "x causal", f"{OURS}, called from Python, ms"),
    )
    print(tabulate(table, headers, disable_numparse=True))
    name = torch.cuda.get_device_name(device)
    path = config.results / f"attention-{name.lower().replace(' ', '-')}.json"
    about = machine.describe() | {"torch": torch.__version__, "device": name}
    used = {name: value for name, value in asdict(config).items() if name != "results"}
    write_json(path, {**about, "flags": used, "rows": [asdict(row) for row in rows]})
    print(f"wrote {path}")


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(Config, command, argv)
