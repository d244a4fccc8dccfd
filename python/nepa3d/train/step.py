"""One optimiser step: micro-batches through the model, gradients summed over them and over processes, one update."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import torch
import tyro
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from nepa3d.execution.checks import require_choice
from nepa3d.models.causal_transformer import Mask
from nepa3d.models.query_nepa import QueryNepa
from nepa3d.ops.attention import DualMask
from nepa3d.samples.schema import N_TYPES_QA, TokenType
from nepa3d.train.augment import AugmentFlags
from nepa3d.train.corpus import Batch
from nepa3d.train.diagnostics import Diagnosis, diagnose
from nepa3d.train.distributed import ProcessGroup
from nepa3d.train.flag_groups import QueryFlags, StepFlags
from nepa3d.train.objectives import OBJECTIVES, Objective
from nepa3d.train.objectives.objective import Model
from nepa3d.train.objectives.tokens import target

if TYPE_CHECKING:
    ObjectiveName: TypeAlias = str
else:
    ObjectiveName = tyro.extras.literal_type_from_choices(OBJECTIVES)

PRECISIONS = {"none": None, "bf16": torch.bfloat16, "fp16": torch.float16}


Target = Literal["embedding", "content", "answer"]


@dataclass(frozen=True, kw_only=True)
class LossFlags:
    """What the model learns to predict."""

    objective: ObjectiveName = "nepa"
    """Predict the next embedding (nepa), the embeddings of masked tokens (mae), answers (answer), which of a batch are
    draws of one shape (align), or both (query)."""
    target: Target = "embedding"
    """Of nepa and mae: predict embeddings as the model sees them; without type and position (content), which can be
    guessed without looking at the shape; or fixed embeddings of the answers, which cannot become alike (answer)."""
    mask_ratio: float = 0.4
    """Share of the tokens that mae masks."""

    def __post_init__(self) -> None:
        if self.objective not in OBJECTIVES:
            raise ValueError(f"objective must be one of {', '.join(OBJECTIVES)}, got {self.objective!r}")
        require_choice("target", self.target, Target)
        if not 0 <= self.mask_ratio <= 1:
            raise ValueError(f"mask_ratio must lie in [0, 1], got {self.mask_ratio}")
        if self.objective == "mae" and not self.mask_ratio:
            raise ValueError("mask_ratio must be above 0 for objective mae, which predicts the tokens that are masked")


class MicroLoss(nn.Module):
    """The loss of a micro-batch as a module's forward pass, which is what ``DistributedDataParallel`` takes."""

    loss: Callable[..., Tensor]

    def __init__(self, model: QueryNepa, loss: Callable[..., Tensor]) -> None:
        super().__init__()
        self.model = model
        self.loss = loss

    def forward(self, micro: Any, *rest: Any) -> Tensor:
        """``loss``; 0 for None, of a process that has no share of the batch and yet takes part in the sums."""
        if micro is not None:
            return self.loss(micro, *rest)
        return torch.stack([0.0 * p.sum() for p in self.parameters() if p.requires_grad]).sum()


@dataclass
class Trainer:
    """What a step works on."""

    loss: LossFlags
    query: QueryFlags
    augment: AugmentFlags
    flags: StepFlags
    seed: int
    n_point: int  # of a sample
    qa: bool  # its form
    process_group: ProcessGroup
    model: QueryNepa
    forward: Model
    optimizer: torch.optim.Optimizer
    precision: torch.dtype | None
    scaler: torch.amp.GradScaler | None
    parts: int  # components of the corpus
    views: Sequence[str] = ()  # of each of them, where known
    micro_loss: nn.Module = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.micro_loss = self.process_group.summing(MicroLoss(self.model, self._loss))

    @property
    def heads(self) -> Tensor:
        """Which of the model's answer heads each part of the corpus is answered by."""
        known = self.model.architecture.answer_views
        numbers = [known.index(view) for view in self.views] if known else [0] * self.parts
        return torch.tensor(numbers, device=self.process_group.device)

    @property
    def objective(self) -> Objective:
        """What is trained for."""
        return OBJECTIVES[self.loss.objective]

    @property
    def weights(self) -> Mapping[str, float]:
        """The terms of the loss and their weights."""
        return self.objective.weights(self)

    def step(self, batch: Batch, number: int, mask: DualMask | None) -> Tensor:
        """One update; returns the tally (2, N_TYPES_QA + parts + terms) of errors: their sums and their counts, by the
        type of the token, by the part of the corpus and by the term of the loss.

        ``MemoryError`` saying what to do where the GPU's memory runs out.
        """
        device, weights = self.process_group.device, tuple(self.weights.values())
        self.optimizer.zero_grad(set_to_none=True)
        tally = torch.zeros(2, N_TYPES_QA + self.parts + len(weights), device=device)
        masks: dict[tuple[int, ...], Mask] = {}
        try:
            todo = self.objective.micro_batches(self, batch, number)
            totals = torch.zeros(len(weights), device=device)
            for micro in todo:
                totals += torch.stack(list(self.objective.counts(micro)))
            totals = self.process_group.add(totals)  # a process may have no share
            with self._unsummed():
                for micro in todo[:-1]:
                    self._backward(micro, self._mask(micro, mask, masks), totals, weights, tally)
            last = todo[-1] if todo else None
            edges = None if last is None else self._mask(last, mask, masks)
            self._backward(last, edges, totals, weights, tally)
        except torch.OutOfMemoryError as error:
            raise MemoryError(
                f"a batch of {batch.samples} samples does not fit onto {device}: "
                f"try --accumulate {2 * self.flags.accumulate}, which gives the same gradients"
            ) from error
        self._update()
        return self.process_group.add(tally)

    def _unsummed(self) -> AbstractContextManager[None]:
        """Where gradients are kept to be summed over processes with those of the last micro-batch."""
        whole = self.micro_loss
        return whole.no_sync() if isinstance(whole, DistributedDataParallel) else nullcontext()

    def _backward(self, *of_micro_batch: Any) -> None:
        """Add the gradients of a micro-batch's loss to those that there are."""
        loss = self.micro_loss(*of_micro_batch)
        (loss if self.scaler is None else self.scaler.scale(loss)).backward()

    def _mask(self, micro: Any, mask: DualMask | None, known: dict[tuple[int, ...], Mask]) -> Mask:
        """The edges of a micro-batch's sequences, made once a step for those of the same types, or of one length."""
        key = micro.kinds if self.model.mask_follows_types else (len(micro.kinds),)
        if key not in known:
            known[key] = self.model.mask(micro.types[0], mask)
        return known[key]

    def _loss(self, micro: Any, mask: Mask, totals: Tensor, weights: Sequence[float], tally: Tensor) -> Tensor:
        """The micro-batch's part of the loss; its errors are added to ``tally``."""
        with self._autocast():
            terms, tallied = self.objective.terms(self, micro, mask)
        loss = torch.zeros((), device=tally.device)
        for number, (term, weight, total) in enumerate(zip(terms, weights, totals, strict=True)):
            loss = loss + weight * (term.errors * term.counted).sum() / total.clamp(min=1)
            own = term.counted if term.own is None else term.counted & term.own
            tally[:, N_TYPES_QA + self.parts + number] += torch.stack([(term.errors.detach() * own).sum(), own.sum()])
        counted = tallied.counted.float()
        for kind in (tallied.types, N_TYPES_QA + tallied.parts):
            tally[0].index_add_(0, kind, tallied.errors * counted)
            tally[1].index_add_(0, kind, counted)
        return loss

    def _autocast(self) -> torch.autocast:
        enabled = self.precision is not None
        return torch.autocast(self.process_group.device.type, dtype=self.precision or torch.bfloat16, enabled=enabled)

    def _update(self) -> None:
        if self.scaler is not None:
            self.scaler.unscale_(self.optimizer)
        if self.flags.clip_grad > 0:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.flags.clip_grad)
        if self.scaler is None:
            self.optimizer.step()
        else:
            self.scaler.step(self.optimizer)
            self.scaler.update()

    @torch.no_grad()
    def diagnosis(self, batch: Batch, number: int) -> Diagnosis:
        """What the losses of a batch mean, its samples whole and no edge dropped; of this process's share alone."""
        features, types = batch.features.to(self.process_group.device), batch.types.to(self.process_group.device)
        with self._autocast():
            z, z_hat, h = self.model(features, types)
        return diagnose(target(self, features, types, z), z_hat, h, types, number)

    def mean_error(self, tally: Tensor) -> Tensor:
        """The loss of a step."""
        sums, counts = tally[:, N_TYPES_QA + self.parts :]
        return (torch.tensor([*self.weights.values()], device=tally.device) * sums / counts.clamp(min=1)).sum()

    def by_kind(self, tally: Tensor, names: Sequence[str]) -> dict[str, dict[str, float]]:
        """The mean errors of a tally by type of token and by part of the corpus, ``names``, those that there are; by
        term of the loss where there are several."""
        sums, counts = tally.tolist()
        means = [total / count if count else None for total, count in zip(sums, counts, strict=True)]
        groups = {"types": [kind.name for kind in TokenType], "parts": names, "terms": list(self.weights)}
        found, first = {}, 0
        for group, kinds in groups.items():
            values = means[first : first + len(kinds)]
            found[group] = {kind: mean for kind, mean in zip(kinds, values, strict=True) if mean is not None}
            first += len(kinds)
        if len(self.weights) == 1:
            del found["terms"]
        return found
