"""Predict answers at questions, and bring two draws of one shape together.

A sample's point questions are parted at random: those of the context keep their answers, the blind ones are moved to
the end and lose theirs. The sequence is BOS, context, EOS, blind questions. Letters: B batch, T tokens, C context
points, Q blind questions, D width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from torch import Tensor

from nepa3d.models.causal_transformer import Mask
from nepa3d.models.query_nepa import Answers
from nepa3d.samples.schema import POINT_DISTANCE, TokenType
from nepa3d.train.augment import AugmentFlags, cluttered, placed, unsettled
from nepa3d.train.corpus import Batch
from nepa3d.train.flag_groups import QueryFlags
from nepa3d.train.objectives.objective import Tallied, Term, Training

NO_AUGMENTATION = AugmentFlags()


@dataclass(frozen=True)
class QueryBatch:
    """Sequences of one length and the same types, with what is asked of them."""

    features: Tensor  # (B, T, 15)
    types: Tensor  # (B, T)
    kinds: tuple[int, ...]  # of each sequence, which the CPU knows without a wait for the device
    parts: Tensor  # (B, Q + C), whose views answer the questions of both kinds
    shapes: Tensor  # (B,)
    first: int  # place of the first in the whole batch
    samples: int  # of the whole batch
    blind: Tensor  # (Q,) where the blind questions stand
    causal: Tensor  # (C,) where the context's questions stand; empty in plain sequences
    wanted: Tensor  # (n,) whose states are used: both, and EOS where there is one
    distance: Tensor  # (B, Q + C) true distances of both


@dataclass(frozen=True)
class QueryObjective:
    """The sum of the terms: answers of blind questions and of the context's own, and the alignment of two draws."""

    answers: bool
    aligns: bool
    predicts_next: bool = True
    diagnosed: bool = False
    predicts_embeddings: bool = False

    @property
    def draws(self) -> int:
        """Two of each shape where draws are aligned."""
        return 2 if self.aligns else 1

    def require(self, trainer: Training) -> None:
        """``ValueError`` where the model does not predict the answers, or a batch is cut whose draws are compared."""
        name, views = trainer.loss.objective, trainer.model.architecture.answer_views
        if trainer.loss.target != "embedding":
            raise ValueError(f"target is of the objectives nepa and mae only, got {trainer.loss.target} for {name}")
        if trainer.flags.skip_missing_rays:
            raise ValueError(f"skip_missing_rays is of the objectives nepa and mae only, got 1 for {name}")
        for view in trainer.views if views else ():
            if view not in views:
                raise ValueError(f"answer_views must hold the views of the corpus, {view} is not in {', '.join(views)}")
        if not trainer.model.architecture.answer_head:
            raise ValueError(f"objective {name} needs answer_head 1 (see nepa3d/configs/query.yaml)")
        if trainer.qa and trainer.model.architecture.prefix_attention:
            raise ValueError(f"qa_tokens must be 0 for objective {name} where prefix_attention is 1, got 1")
        if self.aligns and trainer.flags.accumulate > 1:
            raise ValueError(
                f"accumulate must be 1 for objective {name}, whose loss compares all samples of a batch, "
                f"got {trainer.flags.accumulate}"
            )

    def weights(self, trainer: Training) -> Mapping[str, float]:
        """Of the terms that there are."""
        flags, found = trainer.query, {}
        if self.answers:
            found["blind"] = flags.answer_weight
            if trainer.qa:
                found["causal"] = flags.answer_weight * flags.causal_weight
        if self.aligns:
            found["align"] = flags.align_weight if self.answers else 1.0
        return found

    def micro_batches(self, trainer: Training, batch: Batch, number: int) -> list[QueryBatch]:
        """The batch in ``accumulate`` pieces, each sample's questions parted as a function of (seed, step, sample)."""
        device, size = trainer.process_group.device, max(1, math.ceil(len(batch.types) / trainer.flags.accumulate))
        sizes = part_sizes(trainer.query, trainer.n_point, (trainer.seed, number))
        return [
            _moved(arrange(batch, rows, *sizes, (trainer.seed, number), trainer.augment), device)
            for rows in torch.arange(len(batch.types)).split(size)
            if len(rows)
        ]

    def counts(self, micro: QueryBatch) -> list[Tensor]:
        """How many blind questions, context questions and samples there are."""
        device, samples = micro.types.device, len(micro.types)
        found = []
        if self.answers:
            found = [samples * len(micro.blind)] + [samples * len(micro.causal)] * (len(micro.causal) > 0)
        return [torch.tensor(float(count), device=device) for count in [*found, *([samples] if self.aligns else [])]]

    def terms(self, trainer: Training, micro: QueryBatch, attention_mask: Mask) -> tuple[list[Term], Tallied]:
        """Errors of both kinds of questions (B, Q) and (B, C), and of every sample of the whole batch."""
        _, _, h = trainer.forward(micro.features, micro.types, attention_mask, None, micro.wanted)
        asked = micro.wanted[: len(micro.blind) + len(micro.causal)]
        everything = trainer.model.answers(h[:, : len(asked)])
        heads = trainer.heads[micro.parts][..., None]
        predicted = Answers(everything.distance.gather(2, heads)[..., 0], everything.log_scale.gather(2, heads)[..., 0])
        errors = answer_errors(predicted, micro.distance, trainer.query.answer_loss)
        found = []
        if self.answers:
            for some in errors.split([len(micro.blind), len(micro.causal)], 1):
                if some.shape[1]:
                    found.append(Term(some, torch.ones_like(some, dtype=torch.bool)))
        if self.aligns:
            if len(asked) == len(micro.wanted):
                raise ValueError("add_eos must be 1 where draws are aligned: its state is what is compared")
            found.append(_alignment(trainer, micro, h[:, -1]))
        apart = (predicted.distance - micro.distance).abs().detach()
        types = micro.types[:, asked]
        counted = torch.ones_like(types, dtype=torch.bool)
        tallied = Tallied(*(x.flatten() for x in (apart, counted, types, micro.parts)))
        return found, tallied


def answer_errors(predicted: Answers, distance: Tensor, loss: Literal["l1", "laplace"]) -> Tensor:
    """Errors (B, n) of distances predicted for one view: absolute, or minus the logarithm of a Laplace density, up to a
    constant."""
    apart = (predicted.distance - distance).abs()
    if loss == "l1":
        return apart
    return apart * (-predicted.log_scale).exp() + predicted.log_scale


def contrast(states: Tensor, shapes: Tensor, temperature: float) -> Tensor:
    """NT-Xent (B,) of states (B, D) whose samples 2k and 2k + 1 are draws of one shape: minus the logarithm of the
    softmax of the cosine with the other draw, over those with all samples of other shapes.

    (SimCLR: Chen et al., arXiv 2002.05709.) ``shapes`` (B,) number the shapes: one may be drawn more than once.
    """
    unit = F.normalize(states.float(), dim=-1)
    partner = torch.arange(len(unit), device=unit.device) ^ 1
    others = shapes[:, None] == shapes
    others[torch.arange(len(unit), device=unit.device), partner] = False
    logits = (unit @ unit.mT / temperature).masked_fill(others, -torch.inf)
    return F.cross_entropy(logits, partner, reduction="none")


def part_sizes(flags: QueryFlags, n_point: int, seeds: Sequence[int]) -> tuple[int, int]:
    """How many of a sample's ``n_point`` questions are of the context, and how many are asked blind; a function of
    ``seeds``. ``ValueError`` naming the flag where there are not as many."""
    most = flags.context_max or n_point // 2
    few = flags.context_min or most
    if not 0 < most < n_point:
        raise ValueError(f"context_max must be from 1 to n_point - 1 = {n_point - 1}, got {most}")
    if few > most:
        raise ValueError(f"context_min must be at most context_max = {most}, got {few}")
    low, high = math.log(few), math.log(most)
    context = round(math.exp(low + (high - low) * np.random.default_rng([*seeds, n_point]).random()))
    return context, min(flags.blind or n_point, n_point - context)


def arrange(
    batch: Batch,
    rows: Tensor,
    context: int,
    n_blind: int,
    seeds: Sequence[int],
    augment: AugmentFlags = NO_AUGMENTATION,
) -> QueryBatch:
    """The samples ``rows`` (n,) with ``context`` of their point questions, and ``n_blind`` others moved behind the end,
    unanswered.

    Which they are is a function of ``seeds`` and of the sample's place in the whole batch. Two draws that ask their
    pair are asked each other's, before either is changed by ``augment``. ``ValueError`` on samples of different types.
    """
    types, first = batch.types[rows], batch.first + int(rows[0])
    if not (types == types[:1]).all():
        raise ValueError("the samples of a batch must have the same types of tokens: drop_ray_prob must be 0 or 1")
    kinds = types[0]
    qa = bool((kinds == TokenType.Q_POINT).any())
    questions = (kinds == (TokenType.Q_POINT if qa else TokenType.POINT)).nonzero()[:, 0]
    chosen = torch.from_numpy(_parted(len(rows), len(questions), context, n_blind, seeds, first))
    answered, unanswered = questions[chosen[:, :context]], questions[chosen[:, context:]]
    features, parts, asked_parts = batch.features[rows], batch.parts[rows], batch.parts[rows]
    if batch.ask_pair.any():
        ask_pair, partner = batch.ask_pair[rows], torch.arange(len(rows)) ^ 1
        moved = torch.cat([unanswered, unanswered + 1], 1) if qa else unanswered
        features = _exchanged(features, moved, ask_pair, partner)
        asked_parts = torch.where(ask_pair, parts[partner], parts)
    features = cluttered(features, kinds, augment, seeds, first)
    features = placed(features, augment, seeds, first)
    if qa:
        answered = torch.stack([answered, answered + 1], -1).flatten(1)
    others = torch.isin(kinds, torch.tensor([TokenType.Q_POINT, TokenType.A_POINT, TokenType.POINT]), invert=True)
    rest = others.nonzero()[1:, 0].expand(len(rows), -1)
    order = torch.cat([torch.zeros(len(rows), 1, dtype=torch.int64), answered, rest, unanswered], 1)
    arranged = features.gather(1, order[..., None].expand(-1, -1, features.shape[2]))
    tokens = kinds[order[0]]
    length = order.shape[1]
    asked = torch.arange(length - n_blind, length)
    distance = features[..., POINT_DISTANCE]
    truths = [distance.gather(1, unanswered + int(qa))]
    causal = torch.arange(1, 1 + answered.shape[1], 2) if qa else asked[:0]
    if qa:
        truths.append(arranged[:, causal + 1, POINT_DISTANCE])
    arranged[:, asked, POINT_DISTANCE] = 0.0
    tokens[asked] = TokenType.Q_POINT
    return QueryBatch(
        features=unsettled(arranged, tokens, augment, seeds, first),
        types=tokens.expand(len(rows), -1),
        kinds=tuple(tokens.tolist()),
        parts=torch.cat([asked_parts[:, None].expand(-1, n_blind), parts[:, None].expand(-1, len(causal))], 1),
        shapes=batch.shapes[rows],
        first=first,
        samples=batch.samples,
        blind=asked,
        causal=causal,
        wanted=torch.cat([asked, causal, (tokens == TokenType.EOS).nonzero()[:, 0]]),
        distance=torch.cat(truths, 1),
    )


def _exchanged(features: Tensor, places: Tensor, chosen: Tensor, partner: Tensor) -> Tensor:
    """Features (B, T, F) whose ``chosen`` (B,) samples have, at places (B, n), what their partners (B,) have at
    theirs."""
    there = places[..., None].expand(-1, -1, features.shape[2])
    own = features.gather(1, there)
    return features.scatter(1, there, torch.where(chosen[:, None, None], own[partner], own))


def _parted(
    samples: int, questions: int, context: int, blind: int, seeds: Sequence[int], first: int
) -> NDArray[np.int64]:
    """Numbers (samples, context + blind) of each one's questions, those of the context first; both in order."""
    found = np.empty((samples, context + blind), np.int64)
    for row in range(samples):
        order = np.random.default_rng([*seeds, first + row]).permutation(questions)[: context + blind]
        found[row] = np.concatenate([np.sort(order[:context]), np.sort(order[context:])])
    return found


def _alignment(trainer: Training, micro: QueryBatch, states: Tensor) -> Term:
    """``contrast`` over the samples of all processes; gradients reach the states of this one."""
    rows = torch.arange(micro.first, micro.first + len(states), device=states.device)
    everyone = states.new_zeros(micro.samples, states.shape[1], dtype=torch.float32)
    everyone = trainer.process_group.add(everyone.index_copy(0, rows, states.detach().float()))
    shapes = torch.zeros(micro.samples, device=states.device, dtype=torch.float64)
    shapes = trainer.process_group.add(shapes.index_copy(0, rows, micro.shapes.double()))
    errors = contrast(everyone.index_copy(0, rows, states.float()), shapes, trainer.query.temperature)
    own = torch.zeros(micro.samples, dtype=torch.bool, device=states.device).index_fill(0, rows, True)
    return Term(errors, torch.ones_like(own), own)


def _moved(micro: QueryBatch, device: torch.device) -> QueryBatch:
    if device.type == "cpu":
        return micro
    return replace(
        micro,
        features=micro.features.to(device, non_blocking=True),
        types=micro.types.to(device, non_blocking=True),
        parts=micro.parts.to(device, non_blocking=True),
        shapes=micro.shapes.to(device, non_blocking=True),
        blind=micro.blind.to(device, non_blocking=True),
        causal=micro.causal.to(device, non_blocking=True),
        wanted=micro.wanted.to(device, non_blocking=True),
        distance=micro.distance.to(device, non_blocking=True),
    )


ANSWER = QueryObjective(answers=True, aligns=False)
ALIGN = QueryObjective(answers=False, aligns=True)
QUERY = QueryObjective(answers=True, aligns=True)
