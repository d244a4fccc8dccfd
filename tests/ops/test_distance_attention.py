"""Attention whose scores fall with distances in space: every path against the formula, in float64."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from nepa3d.ops import attention_kernel
from nepa3d.ops.attention import DistanceBias, DualMask, dual_mask, key_edges, masked_attention, pack_edges
from nepa3d.ops.attention_kernel import Tiles
from nepa3d.ops.key_attention import KeyAttention

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
Tensors = list[torch.Tensor]


def inputs(length: int, head_size: int = 16, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, Tensors]:
    """Points, some without a place; and q, k, v, slope, offset."""
    generator = torch.Generator().manual_seed(length)
    q, k, v = torch.randn(3, 2, 2, length, head_size, generator=generator).to(DEVICE, dtype)
    points = torch.rand(2, length, 4, generator=generator) * 2 - 1
    placed = torch.rand(2, length, generator=generator) < 0.8
    points[..., 3] = 1
    points *= placed[..., None]
    slope, offset = torch.tensor([4.0, 40.0]), torch.randn(2, 2, length, generator=generator)
    return points.to(DEVICE), [q, k, v, slope.to(DEVICE), offset.to(DEVICE)]


def edges_of(length: int, causal: bool) -> torch.Tensor:
    edges = dual_mask(length, DualMask(0.4, 0.1, 9, 3))
    if not causal:
        edges |= torch.rand(length, length, generator=torch.Generator().manual_seed(1)) < 0.3
    return edges.to(DEVICE)


def by_its_formula(points: torch.Tensor, edges: torch.Tensor, tensors: Tensors) -> torch.Tensor:
    """With distances one pair at a time."""
    q, k, v, slope, offset = (x.double() for x in tensors)
    scores = q @ k.mT / q.shape[-1] ** 0.5 + offset[:, :, None]
    for i in range(len(edges)):
        both = points[:, i, 3:] * points[..., 3]
        squares = (points[:, i : i + 1, :3].double() - points[..., :3]).square().sum(-1) * both
        scores[:, :, i] -= slope[:, None] * squares[:, None]
    return scores.masked_fill(~edges, -torch.inf).softmax(-1) @ v


def with_gradients(attend: Callable[[Tensors], torch.Tensor], tensors: Tensors) -> Tensors:
    leaves = [x.detach().clone().requires_grad_() for x in tensors]
    out = attend(leaves)
    grad = torch.randn(out.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64).to(out)
    return [out.detach(), *torch.autograd.grad(out, leaves, grad)]


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("path", ["keys", "packed"])
@pytest.mark.parametrize("length", [1, 45])
def test_output_and_gradients(length: int, path: str, causal: bool) -> None:
    points, tensors = inputs(length)
    edges = edges_of(length, causal)
    mask = key_edges(edges) if path == "keys" else pack_edges(edges)
    found = with_gradients(lambda x: masked_attention(*x[:3], mask, DistanceBias(points, *x[3:], causal)), tensors)
    expected = with_gradients(lambda x: by_its_formula(points, edges, x), tensors)
    for mine, exact in zip(found, expected, strict=True):
        torch.testing.assert_close(mine.double(), exact.double(), rtol=1e-4, atol=2e-5)


@pytest.mark.gpu
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("tiles", [Tiles(32, 32), Tiles(32, 64), None], ids=str)
@pytest.mark.parametrize("length", [1, 70])
def test_the_kernel(length: int, tiles: Tiles | None, causal: bool) -> None:
    points, tensors = inputs(length, 32)
    edges = edges_of(length, causal)
    q, k, v, slope, offset = tensors
    words, bias = pack_edges(edges), (points, slope, offset)
    out, lse = attention_kernel.forward(q, k, v, words, tiles, bias, causal=causal)
    grad = torch.randn(out.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64).to(out)
    found = [out, *attention_kernel.backward(grad, q, k, v, out, lse, words, tiles, bias, causal=causal)]
    expected = with_gradients(lambda x: by_its_formula(points, edges, x), tensors)
    for mine, exact in zip(found, expected, strict=True):
        torch.testing.assert_close(mine.double(), exact.double(), rtol=1e-4, atol=2e-5)


@pytest.mark.gpu
@pytest.mark.skipif(DEVICE == "cpu", reason="needs a GPU")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_operator_on_a_gpu(dtype: torch.dtype) -> None:
    points, tensors = inputs(300, 32)
    edges = edges_of(300, True)
    tensors[:3] = [x.to(dtype) for x in tensors[:3]]

    def attend(x: Tensors) -> torch.Tensor:
        return masked_attention(*x[:3], pack_edges(edges), DistanceBias(points, *x[3:]))

    tolerance = 1e-4 if dtype == torch.float32 else 5e-2
    expected = with_gradients(lambda x: by_its_formula(points, edges, x), tensors)
    for mine, exact in zip(with_gradients(attend, tensors), expected, strict=True):
        assert (mine.double() - exact.double()).abs().max() <= tolerance * exact.double().abs().max()


def test_only_columns_in_use_are_keys() -> None:
    edges = torch.eye(5, dtype=torch.bool)
    edges[3, 1] = edges[4, 1] = edges[4, 3] = True
    found = key_edges(edges)
    assert found.keys.tolist() == [1, 3]
    assert found.edges.int().tolist() == [[0, 0], [0, 0], [0, 0], [1, 0], [1, 1]]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_products_of_low_precision_are_wide(dtype: torch.dtype) -> None:
    """A token's edge to itself, too: what is left is the rounding of the result."""
    points, tensors = inputs(45)
    edges = edges_of(45, True)
    tensors = [(8 * x).to(dtype) for x in tensors[:3]] + tensors[3:]
    found = masked_attention(*tensors[:3], key_edges(edges), DistanceBias(points, *tensors[3:]))
    exact = by_its_formula(points, edges, [x.double() for x in tensors])
    rounded = exact.to(dtype)
    assert ((found - rounded).abs() > 2 * torch.finfo(dtype).eps * rounded.abs()).double().mean() < 0.01
    large = [torch.full_like(x, 200.0) for x in tensors[:3]]  # 200 * 200 * D is no number in float16
    assert masked_attention(*large, key_edges(edges)).isfinite().all()


@pytest.mark.parametrize("key_count", [0, 7])
def test_gradients_of_the_products(key_count: int) -> None:
    generator = torch.Generator().manual_seed(2)
    shapes = ((2, 2, 5, 3), (2, 2, key_count, 3), (2, 2, key_count, 4), (2, 2, 5), (2, 2, 5, 4))
    leaves = [torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_() for shape in shapes]
    edges = torch.rand(5, key_count, generator=generator) < 0.5
    torch.autograd.gradcheck(lambda *x: KeyAttention.apply(*x, edges), leaves)


def test_autocast_leaves_the_products_in_float32() -> None:
    points, tensors = inputs(20)
    bias, mask = DistanceBias(points, *tensors[3:]), key_edges(edges_of(20, True))

    def attend(x: Tensors) -> torch.Tensor:
        return masked_attention(*x, mask, bias)

    expected = with_gradients(attend, tensors[:3])
    with torch.autocast("cpu", torch.bfloat16):
        found = with_gradients(attend, tensors[:3])
    for mine, exact in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, exact)


def test_weights_too_small_for_a_sum_are_none() -> None:
    """Not subnormal numbers, with which processors multiply a hundred times slower."""
    places = torch.tensor([[[0.0], [0.1], [0.9], [1.0]]]).expand(1, 4, 3)
    points = torch.cat([places, torch.ones(1, 4, 1)], -1)
    q, k, v = torch.randn(3, 1, 1, 4, 8, generator=torch.Generator().manual_seed(1))
    bias = DistanceBias(points, torch.tensor([40.0]), torch.zeros(1, 1, 4))
    edges = torch.ones(4, 4, dtype=torch.bool).tril()

    def attend(x: Tensors) -> torch.Tensor:
        return masked_attention(*x, key_edges(edges), bias)[:, :, 2:]  # 2.4 and more from the first two

    found = with_gradients(attend, [q, k, v])
    for gradient in found[2:]:
        assert (gradient[:, :, :2] == 0).all() and (gradient[:, :, 2:] != 0).any()
    exact = by_its_formula(points, edges, [x.double() for x in (q, k, v, bias.slope, bias.offset)])[:, :, 2:]
    torch.testing.assert_close(found[0].double(), exact, rtol=1e-5, atol=1e-6)
    not_a_number = masked_attention(q * torch.nan, k, v, key_edges(edges), bias)
    assert not_a_number.isnan().all()


def test_without_a_bias_keys_are_the_mask() -> None:
    _, (q, k, v, _, _) = inputs(20)
    edges = edges_of(20, True)
    torch.testing.assert_close(masked_attention(q, k, v, key_edges(edges)), masked_attention(q, k, v, edges))


def test_the_operator_is_registered_well() -> None:
    points, tensors = inputs(9)
    q, k, v, slope, offset = (x.requires_grad_() for x in tensors)
    arguments = (q, k, v, points, slope, offset, pack_edges(edges_of(9, True)), True)
    torch.library.opcheck(torch.ops.nepa3d.packed_distance_attention.default, arguments)


def test_arguments_are_checked() -> None:
    points, (q, k, v, slope, offset) = inputs(9)
    words = pack_edges(edges_of(9, True))
    with pytest.raises(ValueError, match="attention_mask must be packed or key edges"):
        masked_attention(q, k, v, edges_of(9, True), DistanceBias(points, slope, offset))
    with pytest.raises(ValueError, match=r"slope must be \(2,\) of float32 on .*, got \(1,\)"):
        masked_attention(q, k, v, words, DistanceBias(points, slope[:1], offset))
    with pytest.raises(ValueError, match=r"points must be \(2, 9, 4\) of float32 .*, got \(2, 9, 4\) of torch.float64"):
        masked_attention(q, k, v, words, DistanceBias(points.double(), slope, offset))
