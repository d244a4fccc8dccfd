"""Objectives that predict embeddings of tokens of a sample as it is read. Letters: B batch, T tokens, D width."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nepa3d.models.causal_transformer import Mask
from nepa3d.samples.schema import TokenType
from nepa3d.train.augment import AugmentFlags
from nepa3d.train.corpus import Batch
from nepa3d.train.flag_groups import StepFlags
from nepa3d.train.objectives.objective import Choice, Tallied, Term, Tokens, Training, Wanted
from nepa3d.train.objectives.targets import answer_targets


@dataclass(frozen=True)
class TokenObjective:
    """The mean of errors over the tokens that count."""

    tokens: Callable[[Tensor, Choice], Tokens]
    """Chooses tokens by their types (B, T); a sample's must not depend on the others of its batch."""
    errors: Callable[[Tensor, Tensor], Tensor]
    """Errors (B, T) of a target and a prediction (B, T, D); the target is detached."""
    predicts_next: bool
    """Whether the error of a token is of the prediction at the token before it. Only then is the dual mask used."""
    diagnosed: bool
    """Whether ``nepa3d.train.diagnostics`` can say what a loss of it means."""
    predicts_embeddings: bool = True
    draws: int = 1

    def require(self, trainer: Training) -> None:
        """``ValueError`` where tokens see those that are to be predicted, or a draw is to be augmented."""
        name = trainer.loss.objective
        for flag, value in vars(trainer.augment).items():
            if value != vars(AugmentFlags())[flag]:
                raise ValueError(f"{flag} is of the objectives answer, align and query only, got {value} for {name}")
        if self.predicts_next and trainer.model.architecture.prefix_attention:
            raise ValueError(f"prefix_attention must be 0 for objective {name}, got 1")

    def weights(self, trainer: Training) -> Mapping[str, float]:
        """There is one term."""
        return {"loss": 1.0}

    def micro_batches(self, trainer: Training, batch: Batch, number: int) -> list[MicroBatch]:
        """``micro_batches`` of the trainer's flags."""
        return micro_batches(
            self,
            batch,
            trainer.loss,
            trainer.flags,
            (trainer.seed, number),
            trainer.process_group.device,
            by_types=trainer.model.mask_follows_types,
        )

    def counts(self, micro: MicroBatch) -> list[Tensor]:
        """How many tokens count."""
        return [micro.counted.sum(dtype=torch.float32)]

    def terms(self, trainer: Training, micro: MicroBatch, attention_mask: Mask) -> tuple[list[Term], Tallied]:
        """The errors of all tokens."""
        if micro.hidden is None:
            z, z_hat, _ = trainer.forward(micro.features, micro.types, attention_mask, micro.positions, micro.wanted)
            errors = self.errors(target(trainer, micro.features, micro.types, z), z_hat)
        else:
            with torch.no_grad():
                z = trainer.model.embed(micro.features, micro.types, micro.positions)
                wanted = target(trainer, micro.features, micro.types, z)
            seen = hide(micro.features, micro.hidden)
            _, z_hat, _ = trainer.forward(seen, micro.types, attention_mask, micro.positions, micro.wanted)
            errors = self.errors(wanted, z_hat)
        parts = micro.parts[:, None].expand_as(micro.types)
        return [Term(errors, micro.counted)], Tallied(
            *(x.flatten() for x in (errors.detach(), micro.counted, micro.types, parts))
        )


def hide(features: Tensor, masked: Tensor) -> Tensor:
    """``features`` (B, T, 15) with the rows of ``masked`` (B, T) at zero."""
    return features.masked_fill(masked[..., None], 0.0)


def target(trainer: Training, features: Tensor, types: Tensor, z: Tensor) -> Tensor:
    """What predictions (B, T, D) are compared with."""
    if trainer.loss.target == "embedding":
        return z
    with torch.no_grad():
        if trainer.loss.target == "answer":
            return answer_targets(features, types, z.shape[-1])
        return trainer.model.content(features, types)


@dataclass(frozen=True)
class MicroBatch:
    """Samples of a batch that go through the model together.

    ``kinds`` are the types of its first sequence, which the CPU knows without a wait for the device. ``counted`` (B, T)
    are the tokens the loss is of, ``hidden`` (B, T) those without features, ``positions`` (T,) the places in the whole
    sequence of the tokens that are there, ``wanted`` (n,) the tokens whose predictions count.
    """

    features: Tensor
    types: Tensor
    kinds: tuple[int, ...]
    parts: Tensor
    counted: Tensor
    hidden: Tensor | None
    positions: Tensor | None
    wanted: Tensor | None


def micro_batches(
    objective: TokenObjective,
    batch: Batch,
    loss: Wanted,
    flags: StepFlags,
    seeds: Sequence[int],
    device: torch.device,
    *,
    by_types: bool = False,
) -> list[MicroBatch]:
    """The batch in ``accumulate`` micro-batches on ``device``; where missing rays are skipped, in up to twice as many.

    ``seeds`` decide which tokens the objective hides. With ``by_types`` the samples of a micro-batch have the same
    types, as a model needs whose mask follows them.

    Causal attention lets no token see a later one, so leaving out what follows the last target changes no loss: it is
    the same for Q/A sequences, and differs for plain ones in their last target, the closing token.
    """
    types = batch.types
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
        for group, columns in _groups(types, rows, skip=flags.skip_missing_rays, by_types=by_types):
            # cut where they are used: on the CPU it takes milliseconds
            taken, places = moved(group if len(group) < len(types) else None), moved(columns)
            found.append(
                MicroBatch(
                    features=_cut(features, taken, places),
                    types=_cut(kinds, taken, places),
                    kinds=tuple(_cut(types, group[:1], columns)[0].tolist()),
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


def _groups(types: Tensor, rows: Tensor, *, skip: bool, by_types: bool) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Rows that have the same tokens, and the columns of these; None for all."""
    if not len(rows):
        return
    if by_types and not skip:
        kinds, kind = types[rows].unique(dim=0, return_inverse=True)
        for number in range(len(kinds)):
            yield rows[kind == number], None
        return
    there = types[rows] != TokenType.MISSING_RAY
    if not skip or there.all():
        yield rows, None
        return
    whole = there.all(1)
    if whole.any():
        yield rows[whole], None
    yield rows[~whole], there[~whole][0].nonzero()[:, 0]
