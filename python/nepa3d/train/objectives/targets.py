"""Targets that cannot collapse: fixed embeddings of answers. Letters: B batch, T tokens, D width."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from nepa3d.models.token_features import distance_features, fourier
from nepa3d.samples.schema import POINT_DISTANCE, RAY_HIT, RAY_NORMAL, RAY_T, XYZ

_PROJECTION_SEED = 20_081  # of the one projection there is


def answer_targets(features: Tensor, types: Tensor, width: int) -> Tensor:
    """Embeddings (B, T, D) of the answers of tokens (B, T, 15), for ``--target answer``: a fixed random projection of
    Fourier and distance features of the answer alone, its position and type left out.

    Nothing of it is learned, so that the loss cannot fall by the targets becoming alike (as with random projections for
    speech, BEST-RQ: Chiu et al., arXiv 2202.01855). ``types`` (B, T) are not looked at: what is no answer is not a
    target either.
    """
    hit = features[..., RAY_HIT, None].float()
    answers = torch.cat(
        [
            distance_features(features[..., POINT_DISTANCE]),
            distance_features(features[..., RAY_T]) * hit,
            fourier(features[..., XYZ]) * hit,
            features[..., RAY_NORMAL].float(),
            hit,
        ],
        -1,
    )
    return answers @ _projection(answers.shape[-1], width).to(answers.device)


@lru_cache(maxsize=4)
def _projection(inputs: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(_PROJECTION_SEED)
    return torch.randn(inputs, width, generator=generator) / inputs**0.5
