"""A pre-norm causal Transformer whose parameters carry the names of ``torch.nn.TransformerEncoder``'s."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nepa3d.ops.attention import masked_attention


class SelfAttention(nn.Module):
    """Causal multi-head self-attention."""

    def __init__(self, d_model: int, nhead: int) -> None:
        super().__init__()
        if nhead < 1 or d_model % nhead:
            raise ValueError(f"d_model must be a multiple of the number of heads, got {d_model} and {nhead}")
        self.nhead = nhead
        self.in_proj_weight = nn.Parameter(torch.empty(3 * d_model, d_model))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * d_model))
        self.out_proj = nn.Linear(d_model, d_model)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, x: Tensor, attention_mask: Tensor | None, wanted: Tensor | None = None) -> Tensor:
        """(B, T, D) to (B, T, D), or to (B, n, D) where only the tokens ``wanted`` (n,) are."""
        qkv = nn.functional.linear(x, self.in_proj_weight, self.in_proj_bias)
        q, k, v = qkv.unflatten(-1, (3, self.nhead, -1)).permute(2, 0, 3, 1, 4)
        attended = masked_attention(q, k, v, attention_mask)
        joined = attended.transpose(1, 2).flatten(-2)
        return self.out_proj(joined if wanted is None else joined[:, wanted])


class Block(nn.Module):
    """Attention and a two-layer perceptron, each on the normalised stream and added to it."""

    def __init__(self, d_model: int, nhead: int, mlp_ratio: float, dropout: float) -> None:
        super().__init__()
        hidden = int(d_model * mlp_ratio)
        self.self_attn = SelfAttention(d_model, nhead)
        self.linear1 = nn.Linear(d_model, hidden)
        self.linear2 = nn.Linear(hidden, d_model)
        self.norm1 = nn.LayerNorm(d_model)
        self.norm2 = nn.LayerNorm(d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, attention_mask: Tensor | None, wanted: Tensor | None = None) -> Tensor:
        """(B, T, D) to (B, T, D), or to (B, n, D) where only the tokens ``wanted`` (n,) are."""
        attended = self.self_attn(self.norm1(x), attention_mask, wanted)
        x = (x if wanted is None else x[:, wanted]) + self.dropout(attended)
        hidden = self.dropout(nn.functional.gelu(self.linear1(self.norm2(x))))
        return x + self.dropout(self.linear2(hidden))


class Encoder(nn.Module):
    """The stack of blocks, without a final norm."""

    def __init__(self, d_model: int, nhead: int, num_layers: int, mlp_ratio: float, dropout: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Block(d_model, nhead, mlp_ratio, dropout) for _ in range(num_layers))

    def forward(self, x: Tensor, attention_mask: Tensor | None, wanted: Tensor | None = None) -> Tensor:
        """(B, T, D) to (B, T, D), or to (B, n, D) where only the tokens ``wanted`` (n,) are."""
        last = len(self.layers) - 1
        for number, layer in enumerate(self.layers):
            x = layer(x, attention_mask, wanted if number == last else None)
        return x


class CausalTransformer(nn.Module):
    """The backbone: every token sees itself and the tokens before it, or those of them that ``attention_mask`` leaves,
    in a form that ``nepa3d.ops.attention.masked_attention`` takes.
    """

    def __init__(self, d_model: int, nhead: int, num_layers: int, mlp_ratio: float = 4.0, dropout: float = 0.0) -> None:
        super().__init__()
        self.enc = Encoder(d_model, nhead, num_layers, mlp_ratio, dropout)

    def forward(self, x: Tensor, attention_mask: Tensor | None = None, wanted: Tensor | None = None) -> Tensor:
        """(B, T, D) to (B, T, D), or to (B, n, D) where only the tokens ``wanted`` (n,) are."""
        return self.enc(x, attention_mask, wanted)
