"""QueryNepa: token embeddings, a causal Transformer, and a head that predicts the next embedding."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nepa3d.models.causal_transformer import CausalTransformer
from nepa3d.samples.schema import FEATURE_DIM, N_TYPES_QA


class QueryNepa(nn.Module):
    """Next-embedding prediction over query tokens.

    A token is an MLP of its features plus the embeddings of its type and its position. ``n_types`` is 5 for plain
    sequences and 9 for the Q/A form; ``max_len`` is the longest sequence.
    """

    def __init__(
        self,
        feat_dim: int = FEATURE_DIM,
        d_model: int = 384,
        n_types: int = N_TYPES_QA,
        nhead: int = 6,
        num_layers: int = 8,
        mlp_ratio: float = 4.0,
        dropout: float = 0.0,
        max_len: int = 1026,
    ) -> None:
        super().__init__()
        # in the order of the author's optimiser states, which go by position
        self.pos_emb = nn.Parameter(torch.empty(1, max_len, d_model))
        self.type_emb = nn.Embedding(n_types, d_model)
        self.token_mlp = nn.Sequential(nn.Linear(feat_dim, d_model), nn.GELU(), nn.Linear(d_model, d_model))
        self.backbone = CausalTransformer(d_model, nhead, num_layers, mlp_ratio, dropout)
        self.pred_head = nn.Linear(d_model, d_model)
        nn.init.trunc_normal_(self.pos_emb, std=0.02)

    def content(self, features: Tensor) -> Tensor:
        """What tokens (B, T, D) hold apart from their type and position."""
        found: Tensor = self.token_mlp(features)
        return found

    def embed(self, features: Tensor, types: Tensor, positions: Tensor | None = None) -> Tensor:
        """Token embeddings z (B, T, D) of features (B, T, 15) and type ids (B, T).

        ``positions`` (T,) are the tokens' places in the whole sequence, where some of it is left out.
        """
        length = features.shape[1]
        if positions is None and length > self.pos_emb.shape[1]:
            raise ValueError(f"features must have at most {self.pos_emb.shape[1]} tokens, got {length}")
        placed = self.pos_emb[:, :length] if positions is None else self.pos_emb[:, positions]
        return self.content(features) + self.type_emb(types) + placed

    def forward(
        self,
        features: Tensor,
        types: Tensor,
        attention_mask: Tensor | None = None,
        positions: Tensor | None = None,
        wanted: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Embeddings z, predictions z_hat and hidden states h, each (B, T, D).

        ``attention_mask`` is as the backbone takes it, ``positions`` as ``embed`` does. With ``wanted`` (n,) the states
        are those of these tokens only (B, n, D), and all other predictions are 0: the last layer is then cheaper.
        """
        z = self.embed(features, types, positions)
        h = self.backbone(z, attention_mask, wanted)
        z_hat = self.pred_head(h)
        if wanted is not None:
            z_hat = z_hat.new_zeros(z.shape).index_copy(1, wanted, z_hat)
        return z, z_hat, h
