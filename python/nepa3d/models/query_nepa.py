"""QueryNepa: token embeddings, a causal Transformer, and heads that predict the next embedding and the next answer."""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from nepa3d.cli.spellings import Switch
from nepa3d.models import token_features
from nepa3d.models.causal_transformer import CausalTransformer, Mask
from nepa3d.models.interpolation import (
    INTERPOLATION_DIM,
    NEARBY_DIM,
    Interpolated,
    interpolate,
    interpolation_features,
)
from nepa3d.models.token_features import ANSWERS, FOURIER_DIM, is_any
from nepa3d.ops.attention import DualMask, dual_mask, key_edges, pack_edges, remaining_edges
from nepa3d.samples.schema import FEATURE_DIM, N_TYPES_QA, TokenType
from nepa3d.shapes.views import require_backend


@dataclass(frozen=True, kw_only=True)
class ArchitectureFlags:
    """Parts of the model. The defaults are the document's model; --config nepa3d/configs/query.yaml sets the others."""

    token_features: Literal["linear", "fourier"] = "linear"
    """What the token MLP sees: the 15 columns, or Fourier features of coordinates and several scales of distances."""
    bound_answers: Switch = False
    """An answer token holds its question's columns, too."""
    position_embedding: Switch = True
    """Learn an embedding of every place in the sequence. Without it, sequences may have any length."""
    type_std: float = 1.0
    """Standard deviation of the embeddings of token types at the start."""
    answer_keys: Switch = False
    """Tokens attend to BOS, to answers and to themselves only, so that questions do not see one another."""
    prefix_attention: Switch = False
    """Answers and EOS attend to all answers, later ones too; questions still see earlier ones only. Needs answer_keys
    and kernel_attention, and plain tokens."""
    kernel_attention: Switch = False
    """Attention scores decrease with the squared distance of two tokens in space, at a rate that each head learns."""
    final_norm: Switch = False
    """Normalise the states of the last layer."""
    answer_head: Switch = False
    """Predict the distance at a point question, which becomes the first coordinate of its state."""
    answer_views: tuple[str, ...] = ()
    """Predict the distances of each of these views at every question, which become the first coordinates of its state;
    none: one distance, of whatever view the sample is."""
    interpolation: Switch = False
    """Give blind questions the value of a thin-plate spline through the context's distances and the bounds that these
    imply; the answer head predicts the difference from the spline."""
    pulled_points: Switch = False
    """Also tell blind questions which context points are nearest, and how far the nearest estimated surface points are:
    context points moved by their distances against the spline's gradient. Needs interpolation."""

    def __post_init__(self) -> None:
        if self.token_features not in ("linear", "fourier"):
            raise ValueError(f"token_features must be linear or fourier, got {self.token_features!r}")
        if not 0 < self.type_std < math.inf:
            raise ValueError(f"type_std must be positive, got {self.type_std}")
        if self.prefix_attention and not (self.answer_keys and self.kernel_attention):
            raise ValueError("prefix_attention 1 needs answer_keys 1 and kernel_attention 1")
        for name in self.answer_views:
            require_backend(name, "answer_views")
        if len(set(self.answer_views)) < len(self.answer_views) or (self.answer_views and not self.answer_head):
            raise ValueError(f"answer_views must differ, and need answer_head 1, got {', '.join(self.answer_views)}")
        if self.interpolation and not (self.answer_head and self.token_features == "fourier"):
            raise ValueError("interpolation 1 needs answer_head 1 and token_features fourier")
        if self.pulled_points and not self.interpolation:
            raise ValueError("pulled_points 1 needs interpolation 1")


@dataclass(frozen=True)
class Answers:
    """What is predicted of tokens (B, T, V): the distance at a question's point as each of V views answers it, and the
    log of its Laplace scale."""

    distance: Tensor
    log_scale: Tensor


class QueryNepa(nn.Module):
    """Next-embedding prediction over query tokens.

    A token is an MLP of its features plus the embeddings of its type and its position. ``n_types`` is 5 for plain
    sequences and 9 for the Q/A form; ``max_len`` is the longest sequence, of a model with position embeddings.
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
        architecture: ArchitectureFlags = ArchitectureFlags(),
    ) -> None:
        super().__init__()
        self.architecture = architecture
        self.nhead = nhead
        self.pos_emb: nn.Parameter | None = None
        # in the order of the author's optimiser states, which go by position
        if architecture.position_embedding:
            self.pos_emb = nn.Parameter(torch.empty(1, max_len, d_model))
        self.type_emb = nn.Embedding(n_types, d_model)
        seen = FOURIER_DIM if architecture.token_features == "fourier" else feat_dim
        seen += INTERPOLATION_DIM * architecture.interpolation + NEARBY_DIM * architecture.pulled_points
        self.token_mlp = nn.Sequential(nn.Linear(seen, d_model), nn.GELU(), nn.Linear(d_model, d_model))
        types = n_types if architecture.kernel_attention else 0
        self.backbone = CausalTransformer(d_model, nhead, num_layers, mlp_ratio, dropout, kernel_types=types)
        self.pred_head = nn.Linear(d_model, d_model)
        if architecture.final_norm:
            self.norm = nn.LayerNorm(d_model)
        if architecture.answer_head:
            self.answer_head = nn.Linear(d_model, 2 * self.heads)
            nn.init.zeros_(self.answer_head.weight)
            nn.init.zeros_(self.answer_head.bias)
        if self.pos_emb is not None:
            nn.init.trunc_normal_(self.pos_emb, std=0.02)
        if architecture.type_std != 1.0:
            nn.init.normal_(self.type_emb.weight, std=architecture.type_std)

    @property
    def width(self) -> int:
        """D, the width of states and embeddings."""
        return self.pred_head.in_features

    @property
    def layers(self) -> int:
        """The number of layers."""
        return len(self.backbone.enc.layers)

    @property
    def max_len(self) -> int | None:
        """The longest sequence that the position embedding covers; None without one."""
        return None if self.pos_emb is None else self.pos_emb.shape[1]

    @property
    def heads(self) -> int:
        """V, the number of views whose distances are predicted."""
        return max(1, len(self.architecture.answer_views))

    @property
    def asks_blind(self) -> bool:
        """Whether a question whose answer is not known has no answer token after it, rather than a blank one, which
        other tokens would take for an answer."""
        return self.architecture.answer_keys or self.architecture.answer_head

    @property
    def mask_follows_types(self) -> bool:
        """Whether ``mask`` differs between sequences of different types."""
        return self.architecture.answer_keys or self.architecture.kernel_attention

    def content(self, features: Tensor, types: Tensor, known: Interpolated | None = None) -> Tensor:
        """What tokens (B, T, D) hold apart from their type and position. ``known`` is as the method of that name gives
        it, where it is at hand."""
        columns = features
        if self.architecture.bound_answers:
            features = token_features.bind(features, types)
        if self.architecture.token_features == "fourier":
            features = token_features.expand(features, types)
        if self.architecture.interpolation:
            told = interpolate(columns, types, self.architecture.pulled_points) if known is None else known
            features = torch.cat([features, interpolation_features(told, types)], -1)
        found: Tensor = self.token_mlp(features)
        return found

    def known(self, features: Tensor, types: Tensor) -> Interpolated | None:
        """What the context says of the blind questions of sequences, if the model is told."""
        if not self.architecture.interpolation:
            return None
        return interpolate(features, types, self.architecture.pulled_points)

    def embed(
        self, features: Tensor, types: Tensor, positions: Tensor | None = None, known: Interpolated | None = None
    ) -> Tensor:
        """Token embeddings z (B, T, D) of features (B, T, 15) and type ids (B, T).

        ``positions`` (T,) are the tokens' places in the whole sequence, where some of it is left out.
        """
        z = self.content(features, types, known) + self.type_emb(types)
        if self.pos_emb is None:
            return z
        length = features.shape[1]
        if positions is None and length > self.pos_emb.shape[1]:
            raise ValueError(f"features must have at most {self.pos_emb.shape[1]} tokens, got {length}")
        return z + (self.pos_emb[:, :length] if positions is None else self.pos_emb[:, positions])

    def mask(self, types: Tensor, dropped: DualMask | None = None) -> Mask:
        """The edges of attention in sequences of types (T,), less those that ``dropped`` drops, in the form that the
        backbone takes on the device of ``types``; None for plain causal attention.

        With ``answer_keys`` or ``kernel_attention`` no edge of EOS is dropped: it is what a sequence is known by.
        """
        length = len(types)
        if not self.mask_follows_types:
            return remaining_edges(length, dropped, device=types.device)
        edges = self.edges(types, dropped)
        return pack_edges(edges) if edges.is_cuda else key_edges(edges)

    def edges(self, types: Tensor, dropped: DualMask | None = None) -> Tensor:
        """The edges (..., T, T) of attention in sequences of types (..., T), True where a token may attend another,
        less those that ``dropped`` drops; see ``mask``. Of a model whose mask follows the types."""
        length, device = types.shape[-1], types.device
        answers, closing = is_any(types, ANSWERS), (types == TokenType.EOS)[..., None]
        places = torch.arange(length, device=device)
        edges, own = places[:, None] >= places, places[:, None] == places
        if dropped is not None:
            edges = edges & (dual_mask(length, dropped, device=device) | closing)
        if self.architecture.prefix_attention:
            edges = edges | answers[..., None] & edges.mT  # to a later answer, where that one's edge to this is kept
            edges = edges | closing & answers[..., None, :]
        if self.architecture.answer_keys:
            seen = (answers | (types == TokenType.BOS))[..., None, :]
            edges = edges & (seen | own)
        return edges.expand(*types.shape, length)

    def states(
        self,
        z: Tensor,
        features: Tensor,
        types: Tensor,
        attention_mask: Mask = None,
        wanted: Tensor | None = None,
        known: Interpolated | None = None,
    ) -> Tensor:
        """Hidden states h (B, T, D) of embeddings z (B, T, D), or those of the tokens ``wanted`` (n,) only.

        ``attention_mask`` is as ``mask`` gives it; without one it is that of the first sample's types.
        ``ValueError`` if the types differ in a way that needs another mask.
        """
        architecture = self.architecture
        if attention_mask is None and self.mask_follows_types:
            if not (types == types[:1]).all():
                raise ValueError("types must be the same in all sequences of a batch for this model")
            attention_mask = self.mask(types[0])
        if not architecture.kernel_attention:
            h = self.backbone(z, attention_mask, wanted)
        else:
            bound = token_features.bind(features, types) if architecture.bound_answers else features
            places = (*token_features.places(bound, types), types, not architecture.prefix_attention)
            h = self.backbone(z, attention_mask, wanted, places)
        if architecture.final_norm:
            h = self.norm(h)
        if not architecture.answer_head:
            return h
        kind = h.device.type
        # distances need more than 8 bits; where there is no autocast, none is left, as that has no ONNX form
        with torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext():
            count = self.heads
            distance = nn.functional.linear(h.float(), self.answer_head.weight[:count], self.answer_head.bias[:count])
        if known is not None:
            distance = distance + _of(known.guess, wanted)[..., None]
        asked = (_of(types, wanted) == TokenType.Q_POINT)[..., None]
        first = torch.where(asked, distance, h[..., :count].float())
        return torch.cat([first, h[..., count:].float()], -1)

    def answers(self, h: Tensor) -> Answers:
        """What is predicted at point questions, from their states (B, T, D)."""
        count = self.heads
        log_scale = nn.functional.linear(h, self.answer_head.weight[count:], self.answer_head.bias[count:])
        return Answers(h[..., :count], log_scale.float())

    def forward(
        self,
        features: Tensor,
        types: Tensor,
        attention_mask: Mask = None,
        positions: Tensor | None = None,
        wanted: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Embeddings z, predictions z_hat and hidden states h, each (B, T, D).

        ``attention_mask`` is as ``mask`` gives it, ``positions`` as ``embed`` takes them. With ``wanted`` (n,) the
        states are those of these tokens only (B, n, D), and all other predictions are 0: the last layer is then
        cheaper.
        """
        known = self.known(features, types)
        z = self.embed(features, types, positions, known)
        h = self.states(z, features, types, attention_mask, wanted, known)
        z_hat = self.pred_head(h)
        if wanted is not None:
            z_hat = z_hat.new_zeros(z.shape).index_copy(1, wanted, z_hat)
        return z, z_hat, h


def _of(x: Tensor, wanted: Tensor | None) -> Tensor:
    """The columns ``wanted`` (n,) of (B, T); None for all."""
    return x if wanted is None else x[:, wanted]
