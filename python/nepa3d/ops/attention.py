"""Causal attention with the stochastic dual mask, in its plain form on torch.

Letters: B batch, H heads, T tokens, D head size; token i attends token j.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

_MASK32 = 0xFFFFFFFF


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


def dual_mask(length: int, mask: DualMask, *, device: torch.device | str | None = None) -> Tensor:
    """Which edges remain: (T, T) bool, True where i may attend j.

    The bit of an edge is one 32-bit hash of a row key and a column key, compared with a probability scaled to 2^32:
    integer arithmetic only, so that every device and kernel makes the same bits. The mixing function is the two-round
    one of least bias known to github.com/skeeto/hash-prospector/issues/19 (TheIronBorn, 2022).
    """
    index = torch.arange(length, device=device)
    low, high = mask.seed & _MASK32, (mask.seed >> 32) & _MASK32
    stirred = _mix32(_mix32(torch.tensor(low, device=device)) ^ high)
    row = _mix32((index * 0x9E3779B9 & _MASK32) ^ stirred)
    column = _mix32((index * 0x85EBCA6B & _MASK32) ^ 0x68E31DA4)
    bits = _mix32(row[:, None] ^ column[None, :])
    back = index[:, None] - index[None, :]
    near = (back <= mask.window) & (mask.window > 0)
    dropped = bits < torch.where(near, _scaled(mask.near), _scaled(mask.far))
    return (back == 0) | ((back > 0) & ~dropped)


def dual_mask_attention(q: Tensor, k: Tensor, v: Tensor, mask: DualMask | None = None) -> Tensor:
    """Causal attention (B, H, T, D) under one mask for the whole batch and all heads; ``None`` drops nothing."""
    return masked_attention(q, k, v, remaining_edges(q.shape[-2], mask, device=q.device))


def remaining_edges(length: int, mask: DualMask | None, *, device: torch.device | str | None = None) -> Tensor | None:
    """``dual_mask``, or None where it would drop nothing."""
    return dual_mask(length, mask, device=device) if mask is not None and mask.drops else None


def masked_attention(q: Tensor, k: Tensor, v: Tensor, edges: Tensor | None) -> Tensor:
    """Attention (B, H, T, D) along ``edges`` (T, T) bool; ``None`` stands for all causal ones."""
    return F.scaled_dot_product_attention(q, k, v, attn_mask=edges, is_causal=edges is None)


def _scaled(probability: float) -> int:
    return int(probability * 2**32)


def _mix32(x: Tensor) -> Tensor:
    """The mixing function on int64 tensors that hold 32-bit values; their products wrap, which keeps the low bits."""
    x = x ^ (x >> 16)
    x = x * 0x21F0AAAD & _MASK32
    x = x ^ (x >> 15)
    x = x * 0xD35A2D97 & _MASK32
    return x ^ (x >> 15)
