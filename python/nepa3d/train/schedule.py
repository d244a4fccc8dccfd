"""What changes with the step of a pretraining run: functions of the flags and the step alone, so resuming is exact."""

from __future__ import annotations

import math
from typing import Literal, Protocol

from nepa3d.ops.attention import DualMask
from nepa3d.samples.draws import SEED_STRIDE


class Schedule(Protocol):
    """The flags that ask for it; see ``nepa3d.train.pretrain.Config``."""

    @property
    def lr(self) -> float: ...
    @property
    def schedule(self) -> Literal["constant", "cosine"]: ...
    @property
    def warmup_frac(self) -> float: ...
    @property
    def dual_mask_near(self) -> float: ...
    @property
    def dual_mask_far(self) -> float: ...
    @property
    def dual_mask_window(self) -> int: ...
    @property
    def dual_mask_warmup_frac(self) -> float: ...
    @property
    def seed(self) -> int: ...


def learning_rate(config: Schedule, step: int, total_steps: int) -> float:
    """Linear from 0 over the warm-up, its first step above 0; then constant, or half a cosine down to 0."""
    warmup = config.warmup_frac * total_steps
    if step < warmup:
        return config.lr * (step + 1) / math.ceil(warmup)
    if config.schedule == "constant":
        return config.lr
    return config.lr * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (total_steps - warmup)))


def dual_mask_at(config: Schedule, step: int, total_steps: int) -> DualMask:
    """The mask of a step: its seed, and the probabilities on their way up from 0."""
    warmup = config.dual_mask_warmup_frac * total_steps
    ramp = min(1.0, step / warmup) if warmup > 0 else 1.0
    near, far = ramp * config.dual_mask_near, ramp * config.dual_mask_far
    return DualMask(near, far, config.dual_mask_window, config.seed * SEED_STRIDE + step)
