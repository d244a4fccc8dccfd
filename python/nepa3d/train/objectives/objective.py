"""What an objective is: how a batch is cut, and the errors whose means are its loss. Letters: B batch, T tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from torch import Tensor

from nepa3d.models.causal_transformer import Mask
from nepa3d.models.query_nepa import QueryNepa
from nepa3d.train.augment import AugmentFlags
from nepa3d.train.corpus import Batch
from nepa3d.train.distributed import ProcessGroup
from nepa3d.train.flag_groups import QueryFlags, StepFlags


class Model(Protocol):
    """``QueryNepa.forward``, compiled or not."""

    def __call__(
        self,
        features: Tensor,
        types: Tensor,
        attention_mask: Mask,
        positions: Tensor | None,
        wanted: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]: ...


class Wanted(Protocol):
    """What a run learns to predict: ``nepa3d.train.step.LossFlags``."""

    @property
    def objective(self) -> str: ...

    @property
    def target(self) -> str: ...

    @property
    def mask_ratio(self) -> float: ...


class Training(Protocol):
    """What an objective is told of a run: ``nepa3d.train.step.Trainer``."""

    query: QueryFlags
    augment: AugmentFlags
    flags: StepFlags
    seed: int
    n_point: int
    qa: bool
    process_group: ProcessGroup
    model: QueryNepa
    forward: Model
    views: Sequence[str]

    @property
    def loss(self) -> Wanted: ...

    @property
    def heads(self) -> Tensor: ...


class Term(NamedTuple):
    """Errors whose mean, over all micro-batches and processes, is a part of the loss."""

    errors: Tensor
    """Of any shape."""
    counted: Tensor
    """Of the same shape, bool: which of them the mean is of."""
    own: Tensor | None = None
    """Those of this process, where ``errors`` has the other processes', too."""


class Tallied(NamedTuple):
    """Errors for the log, by the type of their token and by the part of the corpus; of one shape (n,)."""

    errors: Tensor
    counted: Tensor
    types: Tensor
    parts: Tensor


class Objective(Protocol):
    """One way to pretrain. The trainer handles sums over micro-batches and processes, precision and the update."""

    @property
    def predicts_next(self) -> bool:
        """Whether predictions are made at tokens before their targets. Only then is the dual mask used."""

    @property
    def diagnosed(self) -> bool:
        """Whether ``nepa3d.train.diagnostics`` can say what a loss of it means."""

    @property
    def predicts_embeddings(self) -> bool:
        """Whether the model's ``pred_head`` is trained."""

    @property
    def draws(self) -> int:
        """Samples of each shape in a batch, one after the other: 1 or 2."""

    def require(self, trainer: Training) -> None:
        """``ValueError`` naming the flag of a model, or of a step, that cannot be trained so."""

    def weights(self, trainer: Training) -> Mapping[str, float]:
        """The terms of the loss and their weights."""

    def micro_batches(self, trainer: Training, batch: Batch, number: int) -> Sequence[Any]:
        """What goes through the model together at step ``number``, on the device; may be none."""

    def counts(self, micro: Any) -> Sequence[Tensor]:
        """How many errors each term will have that count."""

    def terms(self, trainer: Training, micro: Any, attention_mask: Any) -> tuple[Sequence[Term], Tallied]:
        """The terms of a micro-batch, and its errors for the log.

        ``micro.types`` (B, T) decide the mask; ``micro.kinds`` are those of its first sequence, on the CPU.
        """


class Choice(NamedTuple):
    """What decides which tokens of a batch an objective takes, besides their types."""

    mask_ratio: float
    seeds: Sequence[int]
    first: int  # the number of the first sample


class Tokens(NamedTuple):
    """Tokens of a batch on the CPU: those whose errors count (B, T), and those whose features are hidden (B, T)."""

    counted: Tensor
    hidden: Tensor | None = None  # none are


def mean(errors: Tensor, counted: Tensor) -> Tensor:
    """The mean of errors (B, T) over the tokens that count; 0 where there are none."""
    weight = counted.to(errors.dtype)
    return (errors * weight).sum() / weight.sum().clamp(min=1)
