"""A pre-norm causal Transformer whose parameters carry the names of ``torch.nn.TransformerEncoder``'s."""

from __future__ import annotations

from typing import TypeAlias

import torch
from torch import Tensor, nn

from nepa3d.ops.attention import DistanceBias, KeyEdges, masked_attention

Mask: TypeAlias = Tensor | KeyEdges | None
"""In a form that ``nepa3d.ops.attention.masked_attention`` takes."""
Places: TypeAlias = tuple[Tensor, Tensor, Tensor, bool]
"""Points (B, T, 4) and answered distances (B, T), as ``nepa3d.models.token_features.Places``, types (B, T), and whether
the mask is causal."""

# where the heads' kernels begin: near and far, one that prefers small distances and one that avoids them
_STEEPNESS = (4.0, 40.0, 10.0, 20.0)
_PREFERENCE = (0.0, 0.0, 0.9, -1.0)


class Kernel(nn.Module):
    """A bias of attention scores that each head learns: -s (|x_i - x_j|^2 - w d_j^2) + b[type_j], s > 0, for places x
    and answered distances d. Rates s begin at 4, 40, 10, 20, and weights w at 0, 0, 0.9, -1, in turn over the heads."""

    def __init__(self, nhead: int, n_types: int) -> None:
        super().__init__()
        heads = torch.arange(nhead) % len(_STEEPNESS)
        self.log_slope = nn.Parameter(torch.tensor(_STEEPNESS)[heads].log())
        self.preference = nn.Parameter(torch.tensor(_PREFERENCE)[heads])
        self.type_bias = nn.Parameter(torch.zeros(nhead, n_types))

    def forward(self, places: Places) -> DistanceBias:
        points, distance, types, causal = places
        slope = self.log_slope.exp()
        offset = (slope * self.preference)[:, None] * (distance * distance)[:, None] + self.type_bias.T[types].mT
        return DistanceBias(points, slope, offset, causal)


class SelfAttention(nn.Module):
    """Causal multi-head self-attention; with ``kernel_types`` token types its scores have a ``Kernel``'s bias."""

    def __init__(self, d_model: int, nhead: int, kernel_types: int = 0) -> None:
        super().__init__()
        if nhead < 1 or d_model % nhead:
            raise ValueError(f"d_model must be a multiple of the number of heads, got {d_model} and {nhead}")
        self.nhead = nhead
        self.in_proj_weight = nn.Parameter(torch.empty(3 * d_model, d_model))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * d_model))
        self.out_proj = nn.Linear(d_model, d_model)
        self.kernel = Kernel(nhead, kernel_types) if kernel_types else None
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(
        self, x: Tensor, attention_mask: Mask, wanted: Tensor | None = None, places: Places | None = None
    ) -> Tensor:
        """(B, T, D) to (B, T, D), or to (B, n, D) where only the tokens ``wanted`` (n,) are."""
        qkv = nn.functional.linear(x, self.in_proj_weight, self.in_proj_bias)
        q, k, v = qkv.unflatten(-1, (3, self.nhead, -1)).permute(2, 0, 3, 1, 4)
        bias = self.kernel(places) if self.kernel is not None else None
        attended = masked_attention(q, k, v, attention_mask, bias)
        joined = attended.transpose(1, 2).flatten(-2)
        return self.out_proj(joined if wanted is None else joined[:, wanted])


class Block(nn.Module):
    """Attention and a two-layer perceptron, each on the normalised stream and added to it."""

    def __init__(self, d_model: int, nhead: int, mlp_ratio: float, dropout: float, kernel_types: int = 0) -> None:
        super().__init__()
        hidden = int(d_model * mlp_ratio)
        self.self_attn = SelfAttention(d_model, nhead, kernel_types)
        self.linear1 = nn.Linear(d_model, hidden)
        self.linear2 = nn.Linear(hidden, d_model)
        self.norm1 = nn.LayerNorm(d_model)
        self.norm2 = nn.LayerNorm(d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x: Tensor, attention_mask: Mask, wanted: Tensor | None = None, places: Places | None = None
    ) -> Tensor:
        """(B, T, D) to (B, T, D), or to (B, n, D) where only the tokens ``wanted`` (n,) are."""
        attended = self.self_attn(self.norm1(x), attention_mask, wanted, places)
        x = (x if wanted is None else x[:, wanted]) + self.dropout(attended)
        hidden = self.dropout(nn.functional.gelu(self.linear1(self.norm2(x))))
        return x + self.dropout(self.linear2(hidden))


class BlockStack(nn.Module):
    """The stack of blocks, without a final norm."""

    def __init__(
        self, d_model: int, nhead: int, num_layers: int, mlp_ratio: float, dropout: float, kernel_types: int = 0
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Block(d_model, nhead, mlp_ratio, dropout, kernel_types) for _ in range(num_layers))

    def forward(
        self, x: Tensor, attention_mask: Mask, wanted: Tensor | None = None, places: Places | None = None
    ) -> Tensor:
        """(B, T, D) to (B, T, D), or to (B, n, D) where only the tokens ``wanted`` (n,) are."""
        last = len(self.layers) - 1
        for number, layer in enumerate(self.layers):
            x = layer(x, attention_mask, wanted if number == last else None, places)
        return x


class CausalTransformer(nn.Module):
    """The backbone: every token sees itself and the tokens before it, or those of them that ``attention_mask`` leaves,
    in a form that ``nepa3d.ops.attention.masked_attention`` takes. With ``kernel_types`` it is also told ``places``.
    """

    def __init__(
        self,
        d_model: int,
        nhead: int,
        num_layers: int,
        mlp_ratio: float = 4.0,
        dropout: float = 0.0,
        kernel_types: int = 0,
    ) -> None:
        super().__init__()
        self.enc = BlockStack(d_model, nhead, num_layers, mlp_ratio, dropout, kernel_types)

    def forward(
        self, x: Tensor, attention_mask: Mask = None, wanted: Tensor | None = None, places: Places | None = None
    ) -> Tensor:
        """(B, T, D) to (B, T, D), or to (B, n, D) where only the tokens ``wanted`` (n,) are."""
        return self.enc(x, attention_mask, wanted, places)
