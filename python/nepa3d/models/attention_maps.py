"""Where a model looks: the attention weights of one sequence, layer by layer.

Letters: T tokens, H heads, D width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nepa3d.models.causal_transformer import Mask, Places, SelfAttention
from nepa3d.models.query_nepa import QueryNepa
from nepa3d.ops.attention import KeyEdges, unpack_edges


@dataclass(frozen=True)
class AttentionMap:
    """What one layer attends to."""

    weights: NDArray[np.float32]  # (T, T), row i over the tokens j that it sees, mean over the heads
    reach: NDArray[np.float32]  # (H,) tokens looked back, mean over the weights and the rows


def attention_maps(model: QueryNepa, features: NDArray[np.float32], types: NDArray[np.int64]) -> list[AttentionMap]:
    """A map a layer, of one sample's features (T, 15) and types (T,), with no edge dropped at random."""
    maps: list[AttentionMap] = []

    def look(attention: SelfAttention, inputs: tuple[Any, ...]) -> None:
        x, attention_mask, _, places = inputs
        maps.append(_map_of(attention_weights(attention, x, attention_mask, places)[0]))

    watched = [module for module in model.modules() if isinstance(module, SelfAttention)]
    handles = [module.register_forward_pre_hook(look) for module in watched]
    device = model.pred_head.weight.device
    try:
        with torch.inference_mode():
            model(torch.from_numpy(features)[None].to(device), torch.from_numpy(types)[None].to(device))
    finally:
        for handle in handles:
            handle.remove()
    return maps


def attention_weights(
    attention: SelfAttention, x: Tensor, attention_mask: Mask = None, places: Places | None = None
) -> Tensor:
    """Weights (B, H, T, T), softmax(q k' / sqrt(D / H) + bias) over the edges of the mask, of a layer's normalised
    input (B, T, D); mask and places are as the layer takes them."""
    qkv = torch.nn.functional.linear(x, attention.in_proj_weight, attention.in_proj_bias)
    q, k, _ = qkv.unflatten(-1, (3, attention.nhead, -1)).permute(2, 0, 3, 1, 4)
    scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    if attention.kernel is not None and places is not None:
        scores = scores + attention.kernel(places).scores()
    return scores.masked_fill(~edges_of(attention_mask, scores.shape[-1]).to(scores.device), -torch.inf).softmax(-1)


def edges_of(attention_mask: Mask, length: int) -> Tensor:
    """The edges (T, T) bool that a mask in any of its forms leaves."""
    if attention_mask is None:
        return torch.ones(length, length, dtype=torch.bool).tril()
    if isinstance(attention_mask, KeyEdges):
        edges = torch.eye(length, dtype=torch.bool)
        edges[:, attention_mask.keys] |= attention_mask.edges
        return edges
    return attention_mask if attention_mask.dtype == torch.bool else unpack_edges(attention_mask)


def _map_of(weights: Tensor) -> AttentionMap:
    index = torch.arange(weights.shape[-1], device=weights.device)
    back = (index[:, None] - index[None, :]).clamp(min=0)
    reach = (weights * back).sum(-1).mean(-1)
    return AttentionMap(weights.mean(0).float().cpu().numpy(), reach.float().cpu().numpy())
