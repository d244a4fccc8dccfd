"""One optimiser step: micro-batches through the model, gradients summed over them and over processes, one update."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

import torch
import tyro
from torch import Tensor

from nepa3d.cli.spellings import Switch
from nepa3d.models.query_nepa import QueryNepa
from nepa3d.ops.attention import DualMask, remaining_edges
from nepa3d.samples.schema import N_TYPES_QA, TokenType
from nepa3d.train.corpus import Batch
from nepa3d.train.diagnostics import Diagnosis, diagnose
from nepa3d.train.distributed import ProcessGroup
from nepa3d.train.objectives import OBJECTIVES, Choice, hide

if TYPE_CHECKING:
    ObjectiveName: TypeAlias = str
else:
    ObjectiveName = tyro.extras.literal_type_from_choices(OBJECTIVES)

PRECISIONS = {"none": None, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, kw_only=True)
class LossFlags:
    """What the model learns to predict."""

    objective: ObjectiveName = "nepa"
    """Predict the next embedding (nepa) or the embeddings of masked tokens (mae)."""
    target: Literal["embedding", "content"] = "embedding"
    """Predict embeddings as the model sees them, or without type and position (content), which can be guessed without
    looking at the shape."""
    mask_ratio: float = 0.4
    """Share of the tokens that mae masks."""

    def __post_init__(self) -> None:
        if self.objective not in OBJECTIVES:
            raise ValueError(f"objective must be one of {', '.join(OBJECTIVES)}, got {self.objective!r}")
        if not 0 <= self.mask_ratio <= 1:
            raise ValueError(f"mask_ratio must lie in [0, 1], got {self.mask_ratio}")


@dataclass(frozen=True, kw_only=True)
class StepFlags:
    """How a batch becomes one update of the weights."""

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


class Model(Protocol):
    """``QueryNepa.forward``, compiled or not."""

    def __call__(
        self,
        features: Tensor,
        types: Tensor,
        attention_mask: Tensor | None,
        positions: Tensor | None,
        wanted: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]: ...


@dataclass(frozen=True)
class MicroBatch:
    """Samples of a batch that go through the model together.

    ``counted`` (B, T) are the tokens the loss is of, ``hidden`` (B, T) those without features, ``positions`` (T,) the
    places in the whole sequence of the tokens that are there, ``wanted`` (n,) the tokens whose predictions count.
    """

    features: Tensor
    types: Tensor
    parts: Tensor
    counted: Tensor
    hidden: Tensor | None
    positions: Tensor | None
    wanted: Tensor | None


def micro_batches(
    batch: Batch, loss: LossFlags, flags: StepFlags, seeds: Sequence[int], device: torch.device
) -> list[MicroBatch]:
    """The batch in ``accumulate`` micro-batches on ``device``; where missing rays are skipped, in up to twice as many.

    ``seeds`` decide which tokens the objective hides.

    Causal attention lets no token see a later one, so leaving out what follows the last target changes no loss: it is
    the same for Q/A sequences, and differs for plain ones in their last target, the closing token.
    """
    types, objective = batch.types, OBJECTIVES[loss.objective]
    counted, hidden = objective.tokens(types, Choice(loss.mask_ratio, seeds, batch.first))

    def moved(x: Tensor | None) -> Tensor | None:
        return None if x is None else x.to(device, non_blocking=True)

    def predicting(rows: Tensor, columns: Tensor | None) -> Tensor | None:
        return _predicting(_cut(counted, rows, columns)) if objective.predicts_next else None

    features, kinds, parts, targets = (
        x.to(device, non_blocking=True) for x in (batch.features, types, batch.parts, counted)
    )
    unseen = targets if hidden is counted else moved(hidden)
    found = []
    for rows in torch.arange(len(types)).split(max(1, -(-len(types) // flags.accumulate))):
        for group, columns in _groups(types, rows, skip=flags.skip_missing_rays):
            # cut where they are used: on the CPU it takes milliseconds
            taken, places = moved(group if len(group) < len(types) else None), moved(columns)
            found.append(
                MicroBatch(
                    features=_cut(features, taken, places),
                    types=_cut(kinds, taken, places),
                    parts=_cut(parts, taken, None),
                    counted=_cut(targets, taken, places),
                    hidden=None if unseen is None else _cut(unseen, taken, places),
                    positions=places,
                    wanted=moved(predicting(group, columns)),
                )
            )
    return found


def _cut(x: Tensor, rows: Tensor | None, columns: Tensor | None) -> Tensor:
    """These rows and columns of (B, T, ...); None for all."""
    x = x if rows is None else x[rows]
    return x if columns is None else x[:, columns]


def _predicting(counted: Tensor) -> Tensor | None:
    """The tokens (n,) before a counted one in any sample; None where these are most, so that little is to be gained."""
    found = counted.any(0)[1:].nonzero()[:, 0]
    return found if len(found) <= 0.75 * counted.shape[1] else None


def _groups(types: Tensor, rows: Tensor, *, skip: bool) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Rows that have the same tokens, and the columns of these; None for all."""
    if not len(rows):
        return
    there = types[rows] != TokenType.MISSING_RAY
    if not skip or there.all():
        yield rows, None
        return
    whole = there.all(1)
    if whole.any():
        yield rows[whole], None
    yield rows[~whole], there[~whole][0].nonzero()[:, 0]


@dataclass
class Trainer:
    """What a step works on."""

    loss: LossFlags
    flags: StepFlags
    seed: int
    process_group: ProcessGroup
    model: QueryNepa
    forward: Model
    optimizer: torch.optim.Optimizer
    precision: torch.dtype | None
    scaler: torch.amp.GradScaler | None
    parts: int  # components of the corpus

    def step(self, batch: Batch, number: int, mask: DualMask | None) -> Tensor:
        """One update; returns the tally (2, N_TYPES_QA + parts) of errors: their sums and their counts, by the type of
        the token and by the part of the corpus.

        ``MemoryError`` saying what to do where the GPU's memory runs out.
        """
        device = self.process_group.device
        self.optimizer.zero_grad(set_to_none=True)
        tally = torch.zeros(2, N_TYPES_QA + self.parts, device=device)
        masks: dict[int, Tensor | None] = {}
        try:
            todo = micro_batches(batch, self.loss, self.flags, (self.seed, number), device)
            counts = [micro.counted.sum(dtype=torch.float32) for micro in todo]  # a process may have no share
            total = self.process_group.add(torch.stack(counts).sum() if counts else torch.zeros((), device=device))
            for micro in todo:
                length = micro.types.shape[1]
                if length not in masks:
                    masks[length] = remaining_edges(length, mask, device=device)
                errors = self._errors(micro, masks[length])
                self._backward((errors * micro.counted).sum() / total.clamp(min=1))
                self._count(micro, errors.detach(), tally)
        except torch.OutOfMemoryError as error:
            raise MemoryError(
                f"a batch of {batch.samples} samples does not fit onto {device}: "
                f"try --accumulate {2 * self.flags.accumulate}, which gives the same gradients"
            ) from error
        self._update()
        return self.process_group.add(tally)

    def _errors(self, micro: MicroBatch, attention_mask: Tensor | None) -> Tensor:
        errors = OBJECTIVES[self.loss.objective].errors
        with self._autocast():
            if micro.hidden is None:
                z, z_hat, _ = self.forward(micro.features, micro.types, attention_mask, micro.positions, micro.wanted)
                return errors(self._target(micro, z), z_hat)
            with torch.no_grad():
                target = self._target(micro, self.model.embed(micro.features, micro.types, micro.positions))
            seen = hide(micro.features, micro.hidden)
            _, z_hat, _ = self.forward(seen, micro.types, attention_mask, micro.positions, micro.wanted)
            return errors(target, z_hat)

    def _target(self, micro: MicroBatch, z: Tensor) -> Tensor:
        if self.loss.target == "embedding":
            return z
        with torch.no_grad():
            return self.model.content(micro.features)

    def _autocast(self) -> torch.autocast:
        enabled = self.precision is not None
        return torch.autocast(self.process_group.device.type, dtype=self.precision or torch.bfloat16, enabled=enabled)

    def _backward(self, loss: Tensor) -> None:
        (loss if self.scaler is None else self.scaler.scale(loss)).backward()

    def _update(self) -> None:
        self.process_group.add_gradients(self.model.parameters())
        if self.scaler is not None:
            self.scaler.unscale_(self.optimizer)
        if self.flags.clip_grad > 0:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.flags.clip_grad)
        if self.scaler is None:
            self.optimizer.step()
        else:
            self.scaler.step(self.optimizer)
            self.scaler.update()

    def _count(self, micro: MicroBatch, errors: Tensor, tally: Tensor) -> None:
        counted = micro.counted.float()
        parts = (N_TYPES_QA + micro.parts)[:, None].expand_as(micro.types)
        for kind in (micro.types, parts):
            tally[0].index_add_(0, kind.flatten(), (errors * counted).flatten())
            tally[1].index_add_(0, kind.flatten(), counted.flatten())

    @torch.no_grad()
    def diagnosis(self, batch: Batch, number: int) -> Diagnosis:
        """What the losses of a batch mean, its samples whole and no edge dropped; of this process's share alone."""
        features, types = batch.features.to(self.process_group.device), batch.types.to(self.process_group.device)
        with self._autocast():
            z, z_hat, h = self.model(features, types)
            target = z if self.loss.target == "embedding" else self.model.content(features)
        return diagnose(target, z_hat, h, types, number)


def by_kind(tally: Tensor, names: list[str]) -> dict[str, dict[str, float]]:
    """The mean errors of a tally by type of token and by part of the corpus, those that there are."""
    sums, counts = tally.tolist()
    kinds = [kind.name for kind in TokenType] + names
    means = {i: total / count for i, (total, count) in enumerate(zip(sums, counts, strict=True)) if count}
    return {
        "types": {kinds[i]: mean for i, mean in means.items() if i < N_TYPES_QA},
        "parts": {kinds[i]: mean for i, mean in means.items() if i >= N_TYPES_QA},
    }


def mean_error(tally: Tensor) -> Tensor:
    """The loss of a step."""
    return tally[0, :N_TYPES_QA].sum() / tally[1, :N_TYPES_QA].sum().clamp(min=1)
