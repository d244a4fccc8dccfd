"""The product of attention to few tokens and to oneself, with its gradients, for processors.

Letters: B batch, H heads, T tokens, K attended tokens, D size of queries, E size of values.

What autograd makes of the same expression (its plain twin, in the tests) takes twice the time and more. Scores and
weights are changed in place, and edges are dropped by adding -inf, as torch fills by a mask one number at a time. And
weights that no sum in float32 can show become 0: the weights of distant tokens would be subnormal numbers, with which
many processors multiply a hundred times slower.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

SMALLEST = 1e-20  # of weights, beside a largest one of 1; smaller ones become 0
_LOWEST = math.log(SMALLEST) - 1


class KeyAttention(torch.autograd.Function):
    """``apply(queries, keys, values, own_score, own_value, edges)``: the softmax over the scores ``queries @ keys.mT``
    of the edges and the own one, times ``values`` and the own one.

    Queries (B, H, T, D), keys (B, H, K, D), values (B, H, K, E), own scores (B, H, T) and values (B, H, T, E) of one
    type; edges (T, K) bool, or a shape that stretches to (B, H, T, K). Returns (B, H, T, E). Under autocast on the CPU
    the products are in float32.
    """

    @staticmethod
    @torch.amp.custom_fwd(device_type="cpu", cast_inputs=torch.float32)
    def forward(
        ctx: Any, queries: Tensor, keys: Tensor, values: Tensor, own_score: Tensor, own_value: Tensor, edges: Tensor
    ) -> Tensor:
        """See the class."""
        weights = queries @ keys.mT
        weights += torch.zeros(edges.shape, dtype=weights.dtype, device=weights.device).masked_fill_(~edges, -math.inf)
        top = torch.maximum(weights.amax(-1), own_score) if keys.shape[2] else own_score
        own = _exponential(own_score - top)
        weights = _exponential(weights.sub_(top[..., None]))
        share = 1 / (weights.sum(-1) + own)
        weights *= share[..., None]
        own = (own * share)[..., None]
        attended: Tensor = own * own_value
        attended += weights @ values
        ctx.save_for_backward(queries, keys, values, own_value, weights, own, attended)
        return attended

    @staticmethod
    @torch.amp.custom_bwd(device_type="cpu")
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of all but the edges."""
        queries, keys, values, own_value, weights, own, attended = ctx.saved_tensors
        (gradient,) = gradients
        mean = (gradient * attended).sum(-1, keepdim=True)
        per_own = own * ((gradient * own_value).sum(-1, keepdim=True) - mean)
        dense = gradient.contiguous()
        per_score = (dense @ values.mT).sub_(mean).mul_(weights)
        return (
            per_score @ keys,
            per_score.mT @ queries,
            weights.mT @ dense,
            per_own[..., 0],
            own * gradient,
            None,
        )


def _exponential(x: Tensor) -> Tensor:
    """exp(x) of x <= 0, in place, 0 below ``SMALLEST``."""
    return torch.threshold_(x.clamp_(min=_LOWEST).exp_(), SMALLEST, 0.0)
