"""What pretraining minimises. Letters: B batch, T tokens, D width."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from torch import Tensor

from nepa3d.token.schema import TokenType

_ANSWERS = (TokenType.A_POINT, TokenType.A_RAY)
_QUESTIONS_AND_ANSWERS = (TokenType.Q_POINT, TokenType.Q_RAY, *_ANSWERS)


def nepa_loss(z: Tensor, z_hat: Tensor, types: Tensor) -> Tensor:
    """Mean of 1 - cos(z_hat[t], stopgrad z[t + 1]) over the targets; z, z_hat (B, T, D), types (B, T).

    Targets are the tokens after the first that are not MISSING_RAY; in Q/A sequences the answers only.
    (NEPA: arXiv 2512.16922.)
    """
    target_types = types[:, 1:]
    paired = _is_any(types, _QUESTIONS_AND_ANSWERS).any()  # stays on the device: no wait for it
    counted = torch.where(paired, _is_any(target_types, _ANSWERS), target_types != TokenType.MISSING_RAY)
    cosine = F.cosine_similarity(z_hat[:, :-1].float(), z[:, 1:].detach().float(), dim=-1)
    weight = counted.to(cosine.dtype)
    return ((1 - cosine) * weight).sum() / weight.sum().clamp(min=1)


def mae_loss(z: Tensor, z_hat: Tensor, masked: Tensor) -> Tensor:
    """Mean squared error between z_hat and stopgrad z at the masked tokens; z embeds the unmasked input."""
    error = ((z_hat.float() - z.detach().float()) ** 2).mean(-1)
    weight = masked.to(error.dtype)
    return (error * weight).sum() / weight.sum().clamp(min=1)


def choose_masked(types: NDArray[np.int64], mask_ratio: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """The tokens (B, T) whose features are hidden: of each sample int(mask_ratio * n) of its n inner tokens."""
    masked = np.zeros(types.shape, bool)
    for row, inner in enumerate((types != TokenType.BOS) & (types != TokenType.EOS)):
        candidates = np.flatnonzero(inner)
        masked[row, rng.choice(candidates, int(mask_ratio * len(candidates)), replace=False)] = True
    return masked


def hide(features: Tensor, masked: Tensor) -> Tensor:
    """``features`` (B, T, 15) with the rows of ``masked`` (B, T) at zero."""
    return features.masked_fill(masked[..., None], 0.0)


def _is_any(types: Tensor, wanted: tuple[TokenType, ...]) -> Tensor:
    return torch.isin(types, torch.tensor(wanted, device=types.device))
