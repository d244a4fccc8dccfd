"""What an objective is: the mean of errors over the tokens that count. Letters: B batch, T tokens, D width."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor


class Choice(NamedTuple):
    """What decides which tokens of a batch an objective takes, besides their types."""

    mask_ratio: float
    seeds: Sequence[int]
    first: int  # the number of the first sample


class Tokens(NamedTuple):
    """Tokens of a batch on the CPU: those whose errors count (B, T), and those whose features are hidden (B, T)."""

    counted: Tensor
    hidden: Tensor | None = None  # none are


@dataclass(frozen=True)
class Objective:
    """One way to pretrain."""

    tokens: Callable[[Tensor, Choice], Tokens]
    """Chooses tokens by their types (B, T); a sample's must not depend on the others of its batch."""
    errors: Callable[[Tensor, Tensor], Tensor]
    """Errors (B, T) of a target and a prediction (B, T, D); the target is detached."""
    predicts_next: bool
    """Whether the error of a token is of the prediction at the token before it. Only then is the dual mask used."""
    diagnosed: bool
    """Whether ``nepa3d.train.diagnostics`` can say what a loss of it means."""


def mean(errors: Tensor, counted: Tensor) -> Tensor:
    """The mean of errors (B, T) over the tokens that count; 0 where there are none."""
    weight = counted.to(errors.dtype)
    return (errors * weight).sum() / weight.sum().clamp(min=1)
