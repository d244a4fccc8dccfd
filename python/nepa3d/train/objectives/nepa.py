"""Predict the embedding of the next token (NEPA: arXiv 2512.16922). Letters: B batch, T tokens, D width."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from nepa3d.models.token_features import is_any
from nepa3d.samples.schema import TokenType
from nepa3d.train.objectives.objective import Choice, Tokens, mean
from nepa3d.train.objectives.tokens import TokenObjective

_ANSWERS = (TokenType.A_POINT, TokenType.A_RAY)
_QUESTIONS_AND_ANSWERS = (TokenType.Q_POINT, TokenType.Q_RAY, *_ANSWERS)


def nepa_targets(types: Tensor) -> Tensor:
    """Which tokens (B, T) are to be predicted: those after the first that are not MISSING_RAY; in Q/A sequences the
    answers only."""
    paired = is_any(types, _QUESTIONS_AND_ANSWERS).any()  # stays on the device: no wait for it
    targets = torch.where(paired, is_any(types, _ANSWERS), types != TokenType.MISSING_RAY)
    return F.pad(targets[:, 1:], (1, 0))


def nepa_errors(target: Tensor, z_hat: Tensor) -> Tensor:
    """1 - cos(z_hat[t - 1], stopgrad target[t]) of every token (B, T), 0 for the first; both inputs (B, T, D).

    (NEPA: arXiv 2512.16922.)
    """
    cosine = F.cosine_similarity(z_hat[:, :-1].float(), target[:, 1:].detach().float(), dim=-1)
    return F.pad(1 - cosine, (1, 0))


def nepa_loss(target: Tensor, z_hat: Tensor, types: Tensor) -> Tensor:
    """Mean of ``nepa_errors`` over ``nepa_targets``; 0 where there are none."""
    return mean(nepa_errors(target, z_hat), nepa_targets(types))


def _tokens(types: Tensor, choice: Choice) -> Tokens:
    return Tokens(nepa_targets(types))


NEPA = TokenObjective(_tokens, nepa_errors, predicts_next=True, diagnosed=True)
