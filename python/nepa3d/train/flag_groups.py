"""Groups of flags that objectives and the step share."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from nepa3d.cli.spellings import Switch
from nepa3d.execution.checks import require_at_least, require_choice, require_positive

Optimizer = Literal["adamw", "muon"]
AnswerLoss = Literal["l1", "laplace"]


@dataclass(frozen=True, kw_only=True)
class StepFlags:
    """How a batch becomes one update of the weights."""

    optimizer: Optimizer = "adamw"
    """AdamW, or Muon for the matrices of the Transformer's layers and AdamW for the rest, at the same learning rate."""
    accumulate: int = 1
    """Number of micro-batches per batch, to use less memory; the gradients are the same."""
    skip_missing_rays: Switch = False
    """Leave the tokens of missing rays out of the model. With qa_tokens the loss is the same and the step is faster."""
    clip_grad: float = 0.0
    """Largest norm of the gradient; 0: no clipping."""
    amp: Literal["auto", "none", "bf16", "fp16"] = "auto"
    """Mixed precision; auto: fp16 on a GPU, none on the CPU."""
    compile: Switch = False
    """Compile the model with torch.compile."""
    ema: float = 0.0
    """Decay of an exponential moving average of the weights, saved as ema.pt for evaluation; 0: none."""

    def __post_init__(self) -> None:
        if self.accumulate < 1:
            raise ValueError(f"accumulate must be at least 1, got {self.accumulate}")
        if not 0 <= self.clip_grad < math.inf:
            raise ValueError(f"clip_grad must be at least 0, got {self.clip_grad}")
        if not 0 <= self.ema < 1:
            raise ValueError(f"ema must lie in [0, 1), got {self.ema}")


@dataclass(frozen=True, kw_only=True)
class QueryFlags:
    """Objectives answer, align and query."""

    context_min: int = 0
    """Minimum number of context points; each step draws a log-uniform number from here to context_max. 0: context_max,
    in every step."""
    context_max: int = 0
    """Maximum number of context points; 0: half of n_point."""
    blind: int = 0
    """Number of query points whose distances are predicted; 0: all points outside the context."""
    answer_weight: float = 5.0
    """Weight of the errors of predicted answers."""
    causal_weight: float = 0.5
    """Weight of the loss on the context's own answers, each predicted from earlier tokens, relative to that of
    blind questions; with qa_tokens only."""
    answer_loss: AnswerLoss = "l1"
    """Mean absolute error, or the likelihood of a Laplace distribution whose scale is predicted, too."""
    align_weight: float = 0.3
    """Weight of the contrastive loss of two draws (query only)."""
    temperature: float = 0.05
    """Temperature of that loss."""

    def __post_init__(self) -> None:
        require_choice("answer_loss", self.answer_loss, AnswerLoss)
        require_at_least(0, blind=self.blind, context_min=self.context_min, context_max=self.context_max)
        for name in ("answer_weight", "causal_weight", "align_weight"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")
        require_positive(temperature=self.temperature)
