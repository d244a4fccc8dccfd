"""One optimiser step: a batch in pieces through the model, gradients summed over pieces and processes, one update."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from nepa3d.models.query_nepa import QueryNepa
from nepa3d.ops.attention import DualMask, remaining_edges
from nepa3d.samples.schema import N_TYPES_QA, TokenType
from nepa3d.train.corpus import Batch
from nepa3d.train.diagnostics import Diagnosis, diagnose
from nepa3d.train.distributed import World
from nepa3d.train.objectives import OBJECTIVES, Choice, hide

PRECISIONS = {"none": None, "bf16": torch.bfloat16, "fp16": torch.float16}


class StepConfig(Protocol):
    """The flags a step needs; see ``nepa3d.train.pretrain.Config``."""

    @property
    def objective(self) -> str: ...
    @property
    def target(self) -> Literal["embedding", "content"]: ...
    @property
    def mask_ratio(self) -> float: ...
    @property
    def accumulate(self) -> int: ...
    @property
    def skip_missing_rays(self) -> Literal[0, 1]: ...
    @property
    def clip_grad(self) -> float: ...
    @property
    def seed(self) -> int: ...


class Model(Protocol):
    """``QueryNepa.forward``, compiled or not."""

    def __call__(
        self,
        features: Tensor,
        types: Tensor,
        edges: Tensor | None,
        positions: Tensor | None,
        wanted: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]: ...


@dataclass(frozen=True)
class Piece:
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


def pieces(batch: Batch, config: StepConfig, step: int, device: torch.device) -> list[Piece]:
    """The batch in ``accumulate`` pieces on ``device``; without missing rays, where they are skipped, twice as many.

    Causal attention lets no token see a later one, so leaving out what follows the last target changes no loss: it is
    the same for Q/A sequences, and differs for plain ones in their last target, the closing token.
    """
    types, objective = batch.types, OBJECTIVES[config.objective]
    counted, hidden = objective.tokens(types, Choice(config.mask_ratio, (config.seed, step), batch.first))

    def moved(x: Tensor | None) -> Tensor | None:
        return None if x is None else x.to(device, non_blocking=True)

    def predicting(rows: Tensor, columns: Tensor | None) -> Tensor | None:
        return _predicting(_cut(counted, rows, columns)) if objective.predicts_next else None

    features, kinds, parts, targets = (
        x.to(device, non_blocking=True) for x in (batch.features, types, batch.parts, counted)
    )
    unseen = targets if hidden is counted else moved(hidden)
    found = []
    for rows in torch.arange(len(types)).split(max(1, -(-len(types) // config.accumulate))):
        for group, columns in _groups(types, rows, skip=bool(config.skip_missing_rays)):
            # cut where they are used: on the CPU it takes milliseconds
            taken, places = moved(group if len(group) < len(types) else None), moved(columns)
            found.append(
                Piece(
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

    config: StepConfig
    world: World
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
        self.optimizer.zero_grad(set_to_none=True)
        tally = torch.zeros(2, N_TYPES_QA + self.parts, device=self.world.device)
        masks: dict[int, Tensor | None] = {}
        try:
            todo = pieces(batch, self.config, number, self.world.device)
            counts = [piece.counted.sum(dtype=torch.float32) for piece in todo]  # a process may have no share
            total = self.world.add(torch.stack(counts).sum() if counts else torch.zeros((), device=self.world.device))
            for piece in todo:
                length = piece.types.shape[1]
                if length not in masks:
                    masks[length] = remaining_edges(length, mask, device=self.world.device)
                errors = self._errors(piece, masks[length])
                self._backward((errors * piece.counted).sum() / total.clamp(min=1))
                self._count(piece, errors.detach(), tally)
        except torch.OutOfMemoryError as error:
            raise MemoryError(
                f"a batch of {batch.samples} samples does not fit onto {self.world.device}: "
                f"try --accumulate {2 * self.config.accumulate}, which gives the same gradients"
            ) from error
        self._update()
        return self.world.add(tally)

    def _errors(self, piece: Piece, edges: Tensor | None) -> Tensor:
        errors = OBJECTIVES[self.config.objective].errors
        with self._autocast():
            if piece.hidden is None:
                z, z_hat, _ = self.forward(piece.features, piece.types, edges, piece.positions, piece.wanted)
                return errors(self._target(piece, z), z_hat)
            with torch.no_grad():
                target = self._target(piece, self.model.embed(piece.features, piece.types, piece.positions))
            seen = hide(piece.features, piece.hidden)
            _, z_hat, _ = self.forward(seen, piece.types, edges, piece.positions, piece.wanted)
            return errors(target, z_hat)

    def _target(self, piece: Piece, z: Tensor) -> Tensor:
        if self.config.target == "embedding":
            return z
        with torch.no_grad():
            return self.model.content(piece.features)

    def _autocast(self) -> torch.autocast:
        enabled = self.precision is not None
        return torch.autocast(self.world.device.type, dtype=self.precision or torch.bfloat16, enabled=enabled)

    def _backward(self, loss: Tensor) -> None:
        (loss if self.scaler is None else self.scaler.scale(loss)).backward()

    def _update(self) -> None:
        self.world.add_gradients(self.model.parameters())
        if self.scaler is not None:
            self.scaler.unscale_(self.optimizer)
        if self.config.clip_grad > 0:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip_grad)
        if self.scaler is None:
            self.optimizer.step()
        else:
            self.scaler.step(self.optimizer)
            self.scaler.update()

    def _count(self, piece: Piece, errors: Tensor, tally: Tensor) -> None:
        counted = piece.counted.float()
        parts = (N_TYPES_QA + piece.parts)[:, None].expand_as(piece.types)
        for kind in (piece.types, parts):
            tally[0].index_add_(0, kind.flatten(), (errors * counted).flatten())
            tally[1].index_add_(0, kind.flatten(), counted.flatten())

    @torch.no_grad()
    def diagnosis(self, batch: Batch, number: int) -> Diagnosis:
        """What the losses of a batch mean, its samples whole and no edge dropped; of this process's share alone."""
        features, types = batch.features.to(self.world.device), batch.types.to(self.world.device)
        with self._autocast():
            z, z_hat, h = self.model(features, types)
            target = z if self.config.target == "embedding" else self.model.content(features)
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
