"""The dual mask against its definition in plain integers, its statistics, and the attention under it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from nepa3d.ops.attention import DualMask, dual_mask, dual_mask_attention


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


@pytest.mark.parametrize("shape", [(1, 1, 1, 4), (2, 3, 33, 8), (1, 2, 65, 16)])
@pytest.mark.parametrize("mask", [None, DualMask(0, 0, 4, 1), DualMask(0.5, 0.2, 4, 1), DualMask(1, 1, 4, 1)])
def test_attention_by_its_formula(shape: tuple[int, ...], mask: DualMask | None) -> None:
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True) for _ in range(3))
    seen = dual_mask(shape[2], mask or DualMask(0, 0, 1, 0))
    scores = (q @ k.transpose(-1, -2) / shape[-1] ** 0.5).masked_fill(~seen, -torch.inf)
    expected = scores.softmax(-1) @ v
    found = dual_mask_attention(q, k, v, mask)
    torch.testing.assert_close(found, expected)
    weight = torch.randn(shape, generator=generator, dtype=torch.float64)
    for a, b in zip(
        torch.autograd.grad((found * weight).sum(), (q, k, v)),
        torch.autograd.grad((expected * weight).sum(), (q, k, v)),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


def test_nothing_dropped_is_causal_attention() -> None:
    q, k, v = torch.randn(3, 2, 2, 17, 8, generator=torch.Generator().manual_seed(1)).unbind()
    expected = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    assert torch.equal(dual_mask_attention(q, k, v, DualMask(0, 0, 32, 5)), expected)


def test_probabilities_are_checked() -> None:
    with pytest.raises(ValueError, match=r"near must lie in \[0, 1\], got 1.5"):
        DualMask(1.5, 0, 32, 0)
