"""How the tensors of attention lie in memory. Letters: B batch, H heads, T tokens, D head size."""

from __future__ import annotations

from torch import Tensor


def token_major_like(q: Tensor) -> Tensor:
    """An empty (B, H, T, D) that lies in memory as (B, T, H, D): joining the heads then copies nothing."""
    b, h, length, d = q.shape
    return q.new_empty(b, length, h, d).transpose(1, 2)
