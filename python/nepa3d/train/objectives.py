"""What pretraining minimises. Letters: B batch, T tokens, D width."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from torch import Tensor

from nepa3d.token.schema import TokenType

_ANSWERS = (TokenType.A_POINT, TokenType.A_RAY)
_QUESTIONS_AND_ANSWERS = (TokenType.Q_POINT, TokenType.Q_RAY, *_ANSWERS)


def nepa_targets(types: Tensor) -> Tensor:
    """Which tokens (B, T) are to be predicted: those after the first that are not MISSING_RAY; in Q/A sequences the
    answers only."""
    paired = _is_any(types, _QUESTIONS_AND_ANSWERS).any()  # stays on the device: no wait for it
    targets = torch.where(paired, _is_any(types, _ANSWERS), types != TokenType.MISSING_RAY)
    return F.pad(targets[:, 1:], (1, 0))


def nepa_errors(target: Tensor, z_hat: Tensor) -> Tensor:
    """1 - cos(z_hat[t - 1], stopgrad target[t]) of every token (B, T), 0 for the first; both inputs (B, T, D).

    (NEPA: arXiv 2512.16922.)
    """
    cosine = F.cosine_similarity(z_hat[:, :-1].float(), target[:, 1:].detach().float(), dim=-1)
    return F.pad(1 - cosine, (1, 0))


def mae_errors(target: Tensor, z_hat: Tensor) -> Tensor:
    """Squared error (B, T), the mean over D, between z_hat and stopgrad target (B, T, D)."""
    return ((z_hat.float() - target.detach().float()) ** 2).mean(-1)


def nepa_loss(target: Tensor, z_hat: Tensor, types: Tensor) -> Tensor:
    """Mean of ``nepa_errors`` over ``nepa_targets``; 0 where there are none."""
    return _mean(nepa_errors(target, z_hat), nepa_targets(types))


def mae_loss(target: Tensor, z_hat: Tensor, masked: Tensor) -> Tensor:
    """Mean of ``mae_errors`` over the masked tokens (B, T); ``target`` is of the unmasked input."""
    return _mean(mae_errors(target, z_hat), masked)


def choose_masked(
    types: NDArray[np.int64], mask_ratio: float, seeds: Sequence[int], first: int = 0
) -> NDArray[np.bool_]:
    """The tokens (B, T) whose features are hidden: of each sample int(mask_ratio * n) of its n inner tokens.

    A row's choice is a function of ``seeds`` and its number; ``first`` is the number of the first row.
    """
    masked = np.zeros(types.shape, bool)
    for row, inner in enumerate((types != TokenType.BOS) & (types != TokenType.EOS)):
        candidates = np.flatnonzero(inner)
        rng = np.random.default_rng([*seeds, first + row])
        masked[row, rng.choice(candidates, int(mask_ratio * len(candidates)), replace=False)] = True
    return masked


def hide(features: Tensor, masked: Tensor) -> Tensor:
    """``features`` (B, T, 15) with the rows of ``masked`` (B, T) at zero."""
    return features.masked_fill(masked[..., None], 0.0)


def _mean(errors: Tensor, counted: Tensor) -> Tensor:
    weight = counted.to(errors.dtype)
    return (errors * weight).sum() / weight.sum().clamp(min=1)


def _is_any(types: Tensor, wanted: tuple[TokenType, ...]) -> Tensor:
    return torch.isin(types, torch.tensor(wanted, device=types.device))
