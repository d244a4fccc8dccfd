"""Predict the embeddings of masked tokens, as masked autoencoders do. Letters: B batch, T tokens, D width."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nepa3d.samples.schema import TokenType
from nepa3d.train.objectives.objective import Choice, Tokens, mean
from nepa3d.train.objectives.tokens import TokenObjective


def mae_errors(target: Tensor, z_hat: Tensor) -> Tensor:
    """Squared error (B, T), the mean over D, between z_hat and stopgrad target (B, T, D)."""
    return ((z_hat.float() - target.detach().float()) ** 2).mean(-1)


def mae_loss(target: Tensor, z_hat: Tensor, masked: Tensor) -> Tensor:
    """Mean of ``mae_errors`` over the masked tokens (B, T); ``target`` is of the unmasked input."""
    return mean(mae_errors(target, z_hat), masked)


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


def _tokens(types: Tensor, choice: Choice) -> Tokens:
    masked = torch.from_numpy(choose_masked(types.numpy(), *choice))
    return Tokens(masked, masked)


MAE = TokenObjective(_tokens, mae_errors, predicts_next=False, diagnosed=False)
