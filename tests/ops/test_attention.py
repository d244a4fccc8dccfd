"""The dual mask against its definition in plain integers, its statistics, and the attention under it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from nepa3d.ops.attention import (
    DualMask,
    dual_mask,
    dual_mask_attention,
    masked_attention,
    pack_edges,
    remaining_edges,
    unpack_edges,
)


def mix32(x: int) -> int:
    x ^= x >> 16
    x = x * 0x21F0AAAD % 2**32
    x ^= x >> 15
    x = x * 0xD35A2D97 % 2**32
    return x ^ (x >> 15)


def edge(mask: DualMask, i: int, j: int) -> bool:
    """Whether i may attend j, one edge at a time."""
    if j >= i:
        return j == i
    stirred = mix32(mix32(mask.seed % 2**32) ^ (mask.seed >> 32) % 2**32)
    row = mix32(i * 0x9E3779B9 % 2**32 ^ stirred)
    column = mix32(j * 0x85EBCA6B % 2**32 ^ 0x68E31DA4)
    near = mask.window > 0 and i - j <= mask.window
    return mix32(row ^ column) >= int((mask.near if near else mask.far) * 2**32)


@pytest.mark.parametrize(
    "mask",
    [
        DualMask(0.4, 0.1, 3, 0),
        DualMask(0.5, 0.9, 0, 7),
        DualMask(0.5, 0.9, -1, 7),
        DualMask(1.0, 0.0, 5, 2**40 + 12345),
        DualMask(0.0, 1.0, 5, 1),
    ],
)
def test_every_bit_is_its_definition(mask: DualMask) -> None:
    expected = [[edge(mask, i, j) for j in range(40)] for i in range(40)]
    assert dual_mask(40, mask).tolist() == expected


def test_a_longer_sequence_has_the_same_bits() -> None:
    mask = DualMask(0.4, 0.1, 32, 5)
    assert torch.equal(dual_mask(300, mask)[:100, :100], dual_mask(100, mask))


def rates(mask: DualMask, length: int = 800) -> tuple[float, float]:
    """Dropped part of the near and of the far edges."""
    bits = dual_mask(length, mask).numpy()
    back = np.subtract.outer(np.arange(length), np.arange(length))
    near = (back > 0) & (back <= mask.window)
    return 1 - bits[near].mean(), 1 - bits[(back > 0) & ~near].mean()


@pytest.mark.parametrize("seed", [0, 1, 1_000_003, 2**33])
def test_rates(seed: int) -> None:
    near, far = rates(DualMask(0.4, 0.1, 32, seed))
    assert near == pytest.approx(0.4, abs=0.02)  # 25,000 and 290,000 edges
    assert far == pytest.approx(0.1, abs=0.004)


def test_the_diagonal_stays_and_the_future_is_hidden() -> None:
    bits = dual_mask(64, DualMask(1.0, 1.0, 8, 3))
    assert torch.equal(bits, torch.eye(64, dtype=torch.bool))
    assert not dual_mask(64, DualMask(0.0, 0.0, 8, 3)).triu(1).any()


def test_seeds_rows_and_columns_are_unrelated() -> None:
    def dropped(seed: int) -> np.ndarray:
        return 1.0 - dual_mask(600, DualMask(0.5, 0.5, 32, seed)).numpy()[300:, :300]

    first = dropped(1000)
    pairs = {
        "next seed": dropped(1001),
        "next row": np.roll(first, 1, axis=0),
        "next column": np.roll(first, 1, axis=1),
        "next row and column": np.roll(first, (1, 1), axis=(0, 1)),
    }
    for name, other in pairs.items():
        correlation = np.corrcoef(first.ravel(), other.ravel())[0, 1]
        assert abs(correlation) < 0.02, name  # 90,000 edges: five standard deviations
    assert abs(first.mean(0) - 0.5).max() < 0.17
    assert abs(first.mean(1) - 0.5).max() < 0.17


SETTINGS = [(0.0, 0.0, 4, 1), (0.5, 0.2, 4, 1), (1.0, 1.0, 4, 1)]


def by_its_formula(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
    scores = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).masked_fill(~edges, -torch.inf)
    return scores.softmax(-1) @ v


def inputs(shape: tuple[int, ...], seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True) for _ in range(3)]


@pytest.mark.parametrize("shape", [(1, 1, 1, 4), (2, 3, 33, 8), (1, 2, 65, 16)])
@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("packed", [False, True])
def test_attention_by_its_formula(shape: tuple[int, ...], setting: tuple[float, float, int, int], packed: bool) -> None:
    q, k, v = inputs(shape)
    edges = dual_mask(shape[2], DualMask(*setting))
    expected = by_its_formula(q, k, v, edges)
    found = masked_attention(q, k, v, pack_edges(edges)) if packed else dual_mask_attention(q, k, v, *setting)
    torch.testing.assert_close(found, expected)
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for a, b in zip(
        torch.autograd.grad((found * weight).sum(), (q, k, v)),
        torch.autograd.grad((expected * weight).sum(), (q, k, v)),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


def test_nothing_dropped_is_causal_attention() -> None:
    q, k, v = torch.randn(3, 2, 2, 17, 8, generator=torch.Generator().manual_seed(1)).unbind()
    expected = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    assert torch.equal(dual_mask_attention(q, k, v, 0, 0, 32, 5), expected)
    assert remaining_edges(17, DualMask(0, 0, 32, 5)) is None


@pytest.mark.parametrize("length", [1, 31, 32, 33, 128, 129])
def test_packing_is_undone(length: int) -> None:
    edges = dual_mask(length, DualMask(0.5, 0.2, 7, 3))
    words = pack_edges(edges)
    assert words.shape == (2, length, -(-length // 128) * 4)
    assert torch.equal(unpack_edges(words), edges)
    i, j = length - 1, length // 2
    assert bool(words[0, i, j // 32].item() >> (j % 32) & 1) == bool(edges[i, j])
    assert torch.equal(words[1], pack_edges(edges.mT)[0])


def test_the_packed_operator_is_registered_well() -> None:
    q, k, v = inputs((1, 2, 9, 4))
    words = pack_edges(dual_mask(9, DualMask(0.5, 0.2, 3, 1)))
    torch.library.opcheck(torch.ops.nepa3d.packed_attention.default, (q, k, v, words))
    assert torch.autograd.gradcheck(lambda *qkv: masked_attention(*qkv, words), (q, k, v))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch.jit, which the compiler itself uses
def test_it_compiles_into_one_graph() -> None:
    q, k, v = (x.detach().float() for x in inputs((2, 2, 19, 8)))
    edges = dual_mask(19, DualMask(0.5, 0.2, 3, 1))
    compiled = torch.compile(masked_attention, fullgraph=True)
    for form in (None, edges, pack_edges(edges)):
        torch.testing.assert_close(compiled(q, k, v, form), masked_attention(q, k, v, form))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": torch.zeros(1, 2, 8, 4)}, r"k must be as q, \(1, 2, 9, 4\) of torch.float32 on cpu, got \(1, 2, 8, 4\)"),
        ({"v": torch.zeros(1, 2, 9, 4, dtype=torch.float64)}, r"v must be as q.*float64"),
        ({"q": torch.zeros(2, 9, 4)}, r"q must have shape \(B, H, T, D\), got \(2, 9, 4\)"),
        ({"words": torch.zeros(9, 4, dtype=torch.int32)}, r"words must be \(2, 9, 4\) of int32 on cpu, got \(9, 4\)"),
        ({"words": torch.zeros(2, 9, 4, dtype=torch.int64)}, r"words must be \(2, 9, 4\) of int32 on cpu"),
    ],
)
def test_arguments_are_checked(change: dict[str, torch.Tensor], message: str) -> None:
    zeros = torch.zeros(1, 2, 9, 4)
    arguments = {"q": zeros, "k": zeros, "v": zeros, "words": torch.zeros(2, 9, 4, dtype=torch.int32)} | change
    with pytest.raises(ValueError, match=message):
        torch.ops.nepa3d.packed_attention(*arguments.values())


def test_probabilities_are_checked() -> None:
    with pytest.raises(ValueError, match=r"near must lie in \[0, 1\], got 1.5"):
        DualMask(1.5, 0, 32, 0)
