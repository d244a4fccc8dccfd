"""Causal attention with the stochastic dual mask, and with scores that fall with the distance of two tokens in space.

Letters: B batch, H heads, T tokens, D head size; token i attends token j. A mask is made once a step and shared by the
batch, the heads and the layers: on the CPU as bits (T, T) bool, for torch's own attention; on a GPU packed, (2, T, W)
int32, for the Triton kernel of ``nepa3d.ops.attention_kernel``. Both hold the same bits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from nepa3d.ops.key_attention import KeyAttention
from nepa3d.ops.token_major import token_major_like

HEAD_SIZES = range(1, 129)  # of the kernel
KERNEL_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
_MASK32 = 0xFFFFFFFF

Number = TypeVar("Number", int, Tensor)


@dataclass(frozen=True)
class DualMask:
    """Which edges of causal attention are dropped, as a pure function of (seed, i, j).

    The edge from i back to j is dropped with probability ``near`` where i - j <= window, else ``far``; a window of 0
    or less makes every edge far. The diagonal is never dropped.
    """

    near: float
    far: float
    window: int
    seed: int

    def __post_init__(self) -> None:
        for name in ("near", "far"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in [0, 1], got {getattr(self, name)}")

    @property
    def drops(self) -> bool:
        """Whether any edge can be dropped."""
        return self.near > 0 or self.far > 0


@dataclass(frozen=True)
class DistanceBias:
    """What is added to the score of an edge: offset_j, less slope |x_i - x_j|^2 where i and j have a place in space.

    Attention then is a kernel smoother whose bandwidth each head learns, as in attentive and Transformer neural
    processes (Kim et al., arXiv 1901.05761; Nguyen and Grover, arXiv 2207.04179).
    """

    points: Tensor
    """Coordinates (B, T, 4) float32, the fourth 1 where a token has a place; else all four are 0. Has no gradient."""
    slope: Tensor
    """(H,), positive."""
    offset: Tensor
    """(B, H, T), of the token that is attended."""
    causal: bool = True
    """Whether the mask has no edge to a later token, so that none need be looked for."""

    def scores(self) -> Tensor:
        """The bias (B, H, T, T) of every edge, plainly."""
        xyz, placed = self.points[..., :3], self.points[..., 3]
        squares = ((xyz[:, :, None] - xyz[:, None]) ** 2).sum(-1) * (placed[:, :, None] * placed[:, None])
        return self.offset[:, :, None] - self.slope[:, None, None] * squares[:, None]


@dataclass(frozen=True)
class KeyEdges:
    """Edges (T, T) of which few columns are in use: every token attends itself, else only ``keys``."""

    keys: Tensor
    """(K,) the tokens that others attend, in order."""
    edges: Tensor
    """(T, K) bool, True where i may attend ``keys[j]``; never where that is i itself."""


def key_edges(attention_mask: Tensor) -> KeyEdges:
    """The columns in use of an attention mask (T, T) bool that keeps the diagonal."""
    others = attention_mask & ~torch.eye(len(attention_mask), dtype=torch.bool, device=attention_mask.device)
    keys = others.any(0).nonzero()[:, 0]
    return KeyEdges(keys, others[:, keys])


def dual_mask_attention(q: Tensor, k: Tensor, v: Tensor, near: float, far: float, window: int, seed: int) -> Tensor:
    """Causal attention (B, H, T, D) under one ``DualMask`` for the whole batch and all heads."""
    return masked_attention(q, k, v, remaining_edges(q.shape[-2], DualMask(near, far, window, seed), device=q.device))


def remaining_edges(length: int, mask: DualMask | None, *, device: torch.device | str | None = None) -> Tensor | None:
    """The mask in the form that ``masked_attention`` takes on that device, or None where it would drop nothing."""
    if mask is None or not mask.drops:
        return None
    device = torch.device(device or "cpu")
    if device.type != "cuda":
        return dual_mask(length, mask, device=device)
    from nepa3d.ops import attention_kernel  # Triton is loaded where it is used

    bits = torch.empty(2, length, _words(length), dtype=torch.int32, device=device)
    attention_kernel.pack(_scaled(mask.near), _scaled(mask.far), mask.window, _stirred(mask.seed), bits)
    return bits


def masked_attention(
    q: Tensor, k: Tensor, v: Tensor, attention_mask: Tensor | KeyEdges | None, bias: DistanceBias | None = None
) -> Tensor:
    """Attention (B, H, T, D) under ``attention_mask``: (T, T) bool, True where i may attend j, the same packed by
    ``pack_edges`` or as ``key_edges``, or None for plain causal attention; with ``bias`` one of the latter two.

    ``ValueError`` on a packed mask with a type or a head size that the kernel does not have.
    """
    if isinstance(attention_mask, KeyEdges):
        return _attention_to_keys(q, k, v, attention_mask, bias)
    if bias is not None:
        if attention_mask is None or attention_mask.dtype == torch.bool:
            raise ValueError("attention_mask must be packed or key edges where there is a bias")
        factors = (bias.points, bias.slope.float(), bias.offset.float())
        return torch.ops.nepa3d.packed_distance_attention(q, k, v, *factors, attention_mask, bias.causal)[0]
    if attention_mask is None or attention_mask.dtype == torch.bool:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=attention_mask, is_causal=attention_mask is None)
    attended, _ = torch.ops.nepa3d.packed_attention(q, k, v, attention_mask)
    return attended


def _attention_to_keys(q: Tensor, k: Tensor, v: Tensor, key_edges: KeyEdges, bias: DistanceBias | None) -> Tensor:
    """Attention of every token to itself and along the edges, as plain products in float32; columns that are not in use
    are not computed.

    The bias is bilinear: 2 s x_i x_j - s |x_j|^2 - s |x_i|^2 + offset_j is a product of six numbers of i and six of j.
    """
    keys, wide = key_edges.keys, torch.promote_types(q.dtype, torch.float32)
    queries, own = q.to(wide) / math.sqrt(q.shape[3]), (q.to(wide) * k.to(wide)).sum(-1) / math.sqrt(q.shape[3])
    those = k[:, :, keys].to(wide)
    if bias is not None:
        shape, slope = (*q.shape[:3], 1), bias.slope[:, None, None]
        xyz, placed = bias.points[:, None, :, :3], bias.points[:, None, :, 3:].expand(shape)
        squares = (xyz * xyz).sum(-1, keepdim=True).expand(shape)
        here = (2 * slope * xyz, -slope * squares, placed, torch.ones_like(placed))
        there = (xyz.expand(*shape[:3], 3), placed, -slope * squares, bias.offset[..., None])
        queries = torch.cat([queries, *here], -1)
        those = torch.cat([those, *(x[:, :, keys] for x in there)], -1)
        own = own + bias.offset
    attended: Tensor = KeyAttention.apply(queries, those, v[:, :, keys].to(wide), own, v.to(wide), key_edges.edges)
    return attended.to(v.dtype)


def dual_mask(length: int, mask: DualMask, *, device: torch.device | str | None = None) -> Tensor:
    """Which edges remain: (T, T) bool, True where i may attend j.

    The bit of an edge is one 32-bit hash of a row key and a column key, compared with a probability scaled to 2^32:
    integer arithmetic only, so that every device and kernel makes the same bits. The mixing function is the two-round
    one of least bias known to github.com/skeeto/hash-prospector/issues/19 (TheIronBorn, 2022).
    """
    index = torch.arange(length, device=device)
    row = _mix32((index * 0x9E3779B9 & _MASK32) ^ _stirred(mask.seed))
    column = _mix32((index * 0x85EBCA6B & _MASK32) ^ 0x68E31DA4)
    bits = _mix32(row[:, None] ^ column[None, :])
    back = index[:, None] - index[None, :]
    near = (back <= mask.window) & (mask.window > 0)
    dropped = bits < torch.where(near, _scaled(mask.near), _scaled(mask.far))
    return (back == 0) | ((back > 0) & ~dropped)


def pack_edges(attention_mask: Tensor) -> Tensor:
    """An attention mask (T, T) bool as words (2, T, W) int32, W a multiple of 4 for the kernel.

    Bit j % 32 of word (0, i, j // 32) is the edge from i to j, and so is bit i % 32 of word (1, j, i // 32): the kernel
    reads rows, those of the transpose for the gradients of keys and values.
    """
    length, both = attention_mask.shape[0], torch.stack((attention_mask, attention_mask.mT))
    padded = F.pad(both, (0, _words(length) * 32 - length)).view(2, length, -1, 32).long()
    return (padded << torch.arange(32, device=both.device)).sum(-1).to(torch.int32)


def unpack_edges(words: Tensor) -> Tensor:
    """The attention mask (T, T) bool of words (2, T, W)."""
    length = words.shape[1]
    bits = (words[0, :, :, None] >> torch.arange(32, device=words.device, dtype=torch.int32)) & 1
    return bits.flatten(1)[:, :length].bool()


def _words(length: int) -> int:
    return math.ceil(length / 128) * 4


@torch.library.custom_op("nepa3d::packed_attention", mutates_args=(), device_types="cpu")
def packed_attention(q: Tensor, k: Tensor, v: Tensor, words: Tensor) -> tuple[Tensor, Tensor]:
    """Attention (B, H, T, D) under a packed attention mask, and the logarithm to base 2 of each row's sum (B, H, T).

    This is the kernel's plain twin. Only the first result has a gradient.
    """
    _require_fitting(q, k, v, words)
    wide = torch.promote_types(q.dtype, torch.float32)
    return _attended(q.to(wide) @ k.to(wide).mT / math.sqrt(q.shape[3]), v, words)


def _attended(scores: Tensor, v: Tensor, words: Tensor) -> tuple[Tensor, Tensor]:
    """What both plain twins return, of scores (B, H, T, T)."""
    scores = scores.masked_fill(~unpack_edges(words), -math.inf)
    lse = scores.logsumexp(-1)
    out = token_major_like(v)
    out.copy_((scores - lse[..., None]).exp() @ v.to(scores.dtype))
    return out, lse / math.log(2)


@torch.library.custom_op("nepa3d::packed_attention_backward", mutates_args=(), device_types="cpu")
def packed_attention_backward(
    dout: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, words: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v."""
    wide, scale = lse.dtype, 1 / math.sqrt(q.shape[3])
    scores = (q.to(wide) @ k.to(wide).mT * scale).masked_fill(~unpack_edges(words), -math.inf)
    weights = (scores - lse[..., None] * math.log(2)).exp()
    delta = (dout.to(wide) * out.to(wide)).sum(-1, keepdim=True)
    dscores = weights * (dout.to(wide) @ v.to(wide).mT - delta) * scale
    grads = token_major_like(q), token_major_like(q), token_major_like(q)
    for grad, value in zip(
        grads, (dscores @ k.to(wide), dscores.mT @ q.to(wide), weights.mT @ dout.to(wide)), strict=True
    ):
        grad.copy_(value)
    return grads


@torch.library.custom_op("nepa3d::packed_distance_attention", mutates_args=(), device_types="cpu")
def packed_distance_attention(
    q: Tensor, k: Tensor, v: Tensor, points: Tensor, slope: Tensor, offset: Tensor, words: Tensor, causal: bool
) -> tuple[Tensor, Tensor]:
    """``packed_attention`` with the ``DistanceBias`` of ``points``, ``slope`` and ``offset``, all three float32, and
    ``causal``."""
    _require_fitting(q, k, v, words)
    _require_bias(q, points, slope, offset)
    wide = torch.promote_types(q.dtype, torch.float32)
    scores = q.to(wide) @ k.to(wide).mT / math.sqrt(q.shape[3]) + DistanceBias(points, slope, offset).scores()
    return _attended(scores, v, words)


@torch.library.custom_op("nepa3d::packed_distance_attention_backward", mutates_args=(), device_types="cpu")
def packed_distance_attention_backward(
    dout: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    points: Tensor,
    slope: Tensor,
    offset: Tensor,
    out: Tensor,
    lse: Tensor,
    words: Tensor,
    causal: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of q, k, v, slope and offset."""
    wide, scale, bias = lse.dtype, 1 / math.sqrt(q.shape[3]), DistanceBias(points, slope, offset)
    scores = (q.to(wide) @ k.to(wide).mT * scale + bias.scores()).masked_fill(~unpack_edges(words), -math.inf)
    weights = (scores - lse[..., None] * math.log(2)).exp()
    delta = (dout.to(wide) * out.to(wide)).sum(-1, keepdim=True)
    dscores = weights * (dout.to(wide) @ v.to(wide).mT - delta)
    grads = token_major_like(q), token_major_like(q), token_major_like(q)
    for grad, value in zip(
        grads, (dscores @ k.to(wide) * scale, dscores.mT @ q.to(wide) * scale, weights.mT @ dout.to(wide)), strict=True
    ):
        grad.copy_(value)
    per_slope = DistanceBias(points, torch.ones_like(slope), torch.zeros_like(offset)).scores()
    return *grads, (dscores * per_slope).sum((0, 2, 3)), dscores.sum(2)


@packed_attention.register_kernel("cuda")
def _(q: Tensor, k: Tensor, v: Tensor, words: Tensor) -> tuple[Tensor, Tensor]:
    from nepa3d.ops import attention_kernel

    _require_fitting(q, k, v, words)
    _require_kernel(q)
    return attention_kernel.forward(q, k, v, words)


@packed_attention_backward.register_kernel("cuda")
def _(
    dout: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, words: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    from nepa3d.ops import attention_kernel

    dq, dk, dv = attention_kernel.backward(dout, q, k, v, out, lse, words)
    return dq, dk, dv


@packed_distance_attention.register_kernel("cuda")
def _(
    q: Tensor, k: Tensor, v: Tensor, points: Tensor, slope: Tensor, offset: Tensor, words: Tensor, causal: bool
) -> tuple[Tensor, Tensor]:
    from nepa3d.ops import attention_kernel

    _require_fitting(q, k, v, words)
    _require_bias(q, points, slope, offset)
    _require_kernel(q)
    return attention_kernel.forward(q, k, v, words, bias=(points, slope, offset), causal=causal)


@packed_distance_attention_backward.register_kernel("cuda")
def _(
    dout: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    points: Tensor,
    slope: Tensor,
    offset: Tensor,
    out: Tensor,
    lse: Tensor,
    words: Tensor,
    causal: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    from nepa3d.ops import attention_kernel

    bias = points, slope, offset
    dq, dk, dv, dslope, doffset = attention_kernel.backward(dout, q, k, v, out, lse, words, bias=bias, causal=causal)
    return dq, dk, dv, dslope, doffset


@packed_attention.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, words: Tensor) -> tuple[Tensor, Tensor]:
    return token_major_like(q), q.new_empty(q.shape[:3], dtype=torch.promote_types(q.dtype, torch.float32))


@packed_attention_backward.register_fake
def _(
    dout: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, words: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    return token_major_like(q), token_major_like(q), token_major_like(q)


@packed_distance_attention.register_fake
def _(
    q: Tensor, k: Tensor, v: Tensor, points: Tensor, slope: Tensor, offset: Tensor, words: Tensor, causal: bool
) -> tuple[Tensor, Tensor]:
    return token_major_like(q), q.new_empty(q.shape[:3], dtype=torch.promote_types(q.dtype, torch.float32))


@packed_distance_attention_backward.register_fake
def _(
    dout: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    points: Tensor,
    slope: Tensor,
    offset: Tensor,
    out: Tensor,
    lse: Tensor,
    words: Tensor,
    causal: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    return (
        *(token_major_like(q), token_major_like(q), token_major_like(q)),
        *(torch.empty_like(slope), torch.empty_like(offset)),
    )


def _save(ctx: torch.autograd.function.FunctionCtx, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, words = inputs
    ctx.save_for_backward(q, k, v, *output, words)


def _backward(ctx: torch.autograd.function.FunctionCtx, dout: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    return *torch.ops.nepa3d.packed_attention_backward(dout, *ctx.saved_tensors), None  # type: ignore[attr-defined]


packed_attention.register_autograd(_backward, setup_context=_save)


def _save_with_bias(
    ctx: torch.autograd.function.FunctionCtx, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]
) -> None:
    *factors, words, causal = inputs
    ctx.save_for_backward(*factors, *output, words)
    ctx.causal = causal  # type: ignore[attr-defined]


def _backward_with_bias(ctx: torch.autograd.function.FunctionCtx, dout: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    saved = ctx.saved_tensors  # type: ignore[attr-defined]
    causal = ctx.causal  # type: ignore[attr-defined]
    dq, dk, dv, dslope, doffset = torch.ops.nepa3d.packed_distance_attention_backward(dout, *saved, causal)
    return dq, dk, dv, None, dslope, doffset, None, None


packed_distance_attention.register_autograd(_backward_with_bias, setup_context=_save_with_bias)


def _require_fitting(q: Tensor, k: Tensor, v: Tensor, words: Tensor) -> None:
    if q.dim() != 4:
        raise ValueError(f"q must have shape (B, H, T, D), got {tuple(q.shape)}")
    for name, x in (("k", k), ("v", v)):
        if x.shape != q.shape or x.dtype != q.dtype or x.device != q.device:
            expected = f"{tuple(q.shape)} of {q.dtype} on {q.device}"
            raise ValueError(f"{name} must be as q, {expected}, got {tuple(x.shape)} of {x.dtype} on {x.device}")
    expected_words = (2, q.shape[2], _words(q.shape[2]))
    if tuple(words.shape) != expected_words or words.dtype != torch.int32 or words.device != q.device:
        came = f"{tuple(words.shape)} of {words.dtype} on {words.device}"
        raise ValueError(f"words must be {expected_words} of int32 on {q.device}, got {came}")


def _require_kernel(q: Tensor) -> None:
    if q.dtype not in KERNEL_DTYPES:
        raise ValueError(f"q must be float32, bfloat16 or float16 for the kernel, got {q.dtype}")
    if q.shape[3] not in HEAD_SIZES:
        raise ValueError(f"q must have heads of at most {HEAD_SIZES[-1]} numbers for the kernel, got {q.shape[3]}")


def _require_bias(q: Tensor, points: Tensor, slope: Tensor, offset: Tensor) -> None:
    b, h, length, _ = q.shape
    for name, x, shape in (
        ("points", points, (b, length, 4)),
        ("slope", slope, (h,)),
        ("offset", offset, (b, h, length)),
    ):
        if tuple(x.shape) != shape or x.dtype != torch.float32 or x.device != q.device:
            came = f"{tuple(x.shape)} of {x.dtype} on {x.device}"
            raise ValueError(f"{name} must be {shape} of float32 on {q.device}, got {came}")


def _scaled(probability: float) -> int:
    return int(probability * 2**32)


def _stirred(seed: int) -> int:
    """32 bits of a seed of any size."""
    return _mix32(_mix32(seed & _MASK32) ^ (seed >> 32) & _MASK32)


def _mix32(x: Number) -> Number:
    """The mixing function, on 32-bit values; products of int64 tensors wrap, which keeps their low bits."""
    x = x ^ (x >> 16)
    x = x * 0x21F0AAAD & _MASK32
    x = x ^ (x >> 15)
    x = x * 0xD35A2D97 & _MASK32
    return x ^ (x >> 15)
