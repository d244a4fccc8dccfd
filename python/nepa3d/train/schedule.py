"""What changes with the step of a pretraining run: functions of the flags and the step alone, so resuming is exact."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from nepa3d.execution.checks import require_choice
from nepa3d.ops.attention import DualMask
from nepa3d.samples.draws import SEED_STRIDE

DecaySchedule = Literal["constant", "cosine"]


@dataclass(frozen=True, kw_only=True)
class LearningRateFlags:
    """Learning rate over the run."""

    lr: float = 3e-4
    """Learning rate."""
    schedule: DecaySchedule = "constant"
    """Learning rate after the warm-up: constant, or cosine decay to 0."""
    warmup_frac: float = 0.0
    """Share of all steps in which the learning rate rises from 0."""
    beta2: float = 0.999
    """Decay of AdamW's mean squared gradient; lower values suit short runs."""

    def __post_init__(self) -> None:
        require_choice("schedule", self.schedule, DecaySchedule)
        if not 0 <= self.beta2 < 1:
            raise ValueError(f"beta2 must lie in [0, 1), got {self.beta2}")
        if not 0 < self.lr < math.inf:
            raise ValueError(f"lr must be positive, got {self.lr}")
        if not 0 <= self.warmup_frac < 1:
            raise ValueError(f"warmup_frac must lie in [0, 1), got {self.warmup_frac}")


@dataclass(frozen=True, kw_only=True)
class DualMaskFlags:
    """Attention edges that are dropped at random in training, under all objectives but mae."""

    dual_mask_near: float = 0.0
    """Probability of dropping an attention edge within the window."""
    dual_mask_far: float = 0.0
    """Probability of dropping an attention edge beyond the window."""
    dual_mask_window: int = 32
    """Largest distance, in tokens, that counts as near."""
    dual_mask_warmup_frac: float = 0.05
    """Share of all steps in which the two probabilities rise from 0."""

    def __post_init__(self) -> None:
        for name in ("dual_mask_near", "dual_mask_far", "dual_mask_warmup_frac"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in [0, 1], got {getattr(self, name)}")


@dataclass(frozen=True)
class Schedule:
    """The learning rate and the dual mask of every step; ``mask`` is None where the objective uses none."""

    rate: LearningRateFlags
    mask: DualMaskFlags | None
    seed: int
    total_steps: int

    def learning_rate(self, step: int) -> float:
        """Linear from 0 over the warm-up, its first step above 0; then constant, or half a cosine down to 0."""
        warmup = self.rate.warmup_frac * self.total_steps
        if step < warmup:
            return self.rate.lr * (step + 1) / math.ceil(warmup)
        if self.rate.schedule == "constant":
            return self.rate.lr
        done = min(1.0, (step - warmup) / (self.total_steps - warmup))  # above 1 after a resume with fewer steps
        return self.rate.lr * 0.5 * (1 + math.cos(math.pi * done))

    def dual_mask(self, step: int) -> DualMask | None:
        """The mask of a step, its probabilities on their way up from 0; None where it drops nothing."""
        if self.mask is None:
            return None
        warmup = self.mask.dual_mask_warmup_frac * self.total_steps
        ramp = min(1.0, step / warmup) if warmup > 0 else 1.0
        near, far = ramp * self.mask.dual_mask_near, ramp * self.mask.dual_mask_far
        mask = DualMask(near, far, self.mask.dual_mask_window, self.seed * SEED_STRIDE + step)
        return mask if mask.drops else None
