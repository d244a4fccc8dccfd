"""The ridge head of the completion probe: which shapes it is fitted on, and batches of sequences with their states.

Letters: B sequences, Q queries, D model width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from nepa3d.execution.checks import require_at_least, require_choice
from nepa3d.execution.progress_bar import progress_bar
from nepa3d.models.distances import own_weights
from nepa3d.models.embedding import Probe, Representation, question_states, shapes_of
from nepa3d.models.encoder import ShapeLike, as_shape, shape_name
from nepa3d.models.ridge import RidgeSums, predict
from nepa3d.probes.result import first_failure
from nepa3d.samples.completion import SequenceSettings, sample_of_cache
from nepa3d.samples.completion_loader import CompletionBatch, batch_of_samples, completion_batch
from nepa3d.samples.loader import prefetch
from nepa3d.shapes.views import ShapeAnswers

TRANSDUCTIVE = "none"
OWN = "own"


TARGET_VIEWS = {"udf": "udfgrid", "mesh": "mesh"}  # the view that answers as the target of a completion


@dataclass(frozen=True)
class Reading:
    """How sequences go through the model."""

    representation: Representation = "h"
    batch: int = 64
    """Sequences a forward pass."""
    threads: int = 2
    """That read shapes ahead of their use; 0: none."""
    progress: bool = True

    def __post_init__(self) -> None:
        require_choice("representation", self.representation, Representation)
        require_at_least(1, batch=self.batch)
        require_at_least(0, threads=self.threads)


@dataclass(frozen=True)
class HeadShapes:
    """Which shapes the head is fitted on."""

    split: str = "train_udf"
    """Their split, or ``TRANSDUCTIVE``: part of the evaluated split, which is shuffled; or ``OWN``: none, the distances
    are those that the model itself predicts for the target's view."""
    view: str = "udfgrid"
    """Of their contexts; if transductive they are seen as the evaluated ones."""
    max_shapes: int = 0
    """Only so many, the first by sorted path; 0: all."""
    ratio: float = 0.2
    """Transductive only: the part of the evaluated split."""
    count: int = 0
    """Transductive only: how many of it; 0: as ``ratio`` says."""

    @property
    def transductive(self) -> bool:
        """Whether they are of the evaluated split."""
        return self.split == TRANSDUCTIVE


@dataclass(frozen=True)
class Plan:
    """Which shapes fit the head, which are completed, and how their sequences are made."""

    train: list[str]
    test: list[str]
    train_settings: SequenceSettings
    test_settings: SequenceSettings
    n_total: int
    own: bool = False
    """Whether no head is fitted."""


@dataclass(frozen=True)
class Headed:
    """A model, and the head (D + 1,) that reads distances off its states."""

    probe: Probe
    weights: NDArray[np.float64]

    def distances(self, batch: CompletionBatch, representation: Representation = "h") -> NDArray[np.float64]:
        """Distances (B, Q) that it predicts at the queries of a batch."""
        return predict(self.weights, query_states(self.probe, batch, representation))


def plan_shapes(
    cache_root: str, split: str, max_shapes: int, head: HeadShapes, sequence: SequenceSettings, seed: int = 0
) -> Plan:
    """The shapes of ``split``, seen as ``sequence`` says, and those of the head. ``ValueError`` if there are none."""
    shapes = shapes_of(cache_root, split, max_shapes, "max_shapes")
    if head.split == OWN:
        return Plan([], shapes, sequence, sequence, len(shapes), own=True)
    if head.split == split:
        raise ValueError(
            f"head_train_split: {split} is the split that is evaluated, and the head would know its shapes; "
            f"{TRANSDUCTIVE} divides it"
        )
    if not head.transductive:
        train = shapes_of(cache_root, head.split, head.max_shapes, "head_train_max_shapes")
        return Plan(train, shapes, replace(sequence, context_backend=head.view), sequence, len(shapes))
    shuffled = list(shapes)
    np.random.RandomState(seed).shuffle(shuffled)
    n_train = head.count or round(head.ratio * len(shuffled))
    if not 0 < n_train < len(shuffled):
        raise ValueError(
            f"head_train_n / head_train_ratio: {n_train} of {len(shuffled)} shapes would fit the head; "
            "at least one must fit it and one remain"
        )
    return Plan(shuffled[:n_train], shuffled[n_train:], sequence, sequence, len(shapes))


def fit_head(
    probe: Probe, plan: Plan, ridge_lambda: float, seed: int, reading: Reading, failed: dict[str, str]
) -> tuple[NDArray[np.float64], int]:
    """Weights (D + 1,) of the ridge head, and the number of shapes it was fitted on; others are noted in ``failed``.

    Those of the model's own prediction if the plan says so; ``ValueError`` if it makes none.
    """
    if plan.own:
        if reading.representation != "h":
            raise ValueError(f"representation: the model's own prediction is read off h, got {reading.representation}")
        return own_weights(probe, TARGET_VIEWS[plan.test_settings.target]), 0
    sums: RidgeSums | None = None
    n_read = 0
    for batch in training_batches(plan, seed, reading, failed, "fit head"):
        features = query_states(probe, batch, reading.representation).flatten(0, 1)
        sums = sums or RidgeSums(features.shape[1], features.device)
        sums.add(features, torch.from_numpy(batch.target).flatten())
        n_read += len(batch)
    if sums is None:
        raise ValueError(f"no shape to fit the head on could be read; first: {first_failure(failed, plan.train)}")
    return sums.solve(ridge_lambda), n_read


def training_batches(
    plan: Plan, seed: int, reading: Reading, failed: dict[str, str], title: str
) -> Iterable[CompletionBatch]:
    """The sequences of the shapes that heads are fitted on; shapes that cannot be read are noted in ``failed``."""

    def read(rows: range) -> tuple[CompletionBatch, dict[str, str]]:
        paths = [plan.train[row] for row in rows]
        return completion_batch(paths, plan.train_settings, seed, threads=max(1, reading.threads))

    return batches(len(plan.train), title, read, reading, failed)


def query_states(probe: Probe, batch: CompletionBatch, representation: Representation) -> torch.Tensor:
    """States (B, Q, D) at the query tokens, on the probe's device."""
    return question_states(probe, batch.features, batch.types, batch.query_tokens, representation)


def batches(
    shapes: int,
    title: str,
    read: Callable[[range], tuple[CompletionBatch, dict[str, str]]],
    reading: Reading,
    failed: dict[str, str],
) -> Iterable[CompletionBatch]:
    """The readable shapes in batches, read ahead; the others are noted in ``failed``."""

    def rows_of(begin: int) -> range:
        return range(begin, min(begin + reading.batch, shapes))

    def read_batch(begin: int) -> tuple[int, CompletionBatch, dict[str, str]]:
        return len(rows_of(begin)), *read(rows_of(begin))

    begins = range(0, shapes, reading.batch)
    with progress_bar(total=shapes, desc=title, unit="shape", disable=not reading.progress) as progress:
        for count, batch, faults in prefetch(read_batch, begins) if reading.threads else map(read_batch, begins):
            for path, fault in faults.items():
                failed.setdefault(path, fault)
            if len(batch):
                yield batch
            progress.update(count)


def batch_of(
    shapes: Sequence[ShapeLike],
    sequence: SequenceSettings,
    seed: int,
    others: Sequence[ShapeLike] | None = None,
    *,
    threads: int = 1,
) -> tuple[CompletionBatch, dict[str, str]]:
    """``completion_batch`` of cache files, or the same of shapes in memory; ``others`` give the contexts."""
    if all(isinstance(shape, str) for shape in [*shapes, *(others or ())]):
        contexts = None if others is None else [shape_name(shape) for shape in others]
        return completion_batch([shape_name(shape) for shape in shapes], sequence, seed, contexts, threads=threads)
    told: list[ShapeAnswers | None] = [None] * len(shapes)
    if others is not None:
        told = [as_shape(other).view(sequence.context_backend, sequence.voxel) for other in others]
    samples = [
        sample_of_cache(as_shape(shape), sequence, seed, context) for shape, context in zip(shapes, told, strict=True)
    ]
    return batch_of_samples([shape_name(shape) for shape in shapes], samples), {}
