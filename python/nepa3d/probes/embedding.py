"""Shapes as vectors of a frozen model, and beside them as the answers that it was given.

Letters: N shapes, B samples, T tokens, D model width.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray

from nepa3d.execution.checks import require_at_least, require_choice
from nepa3d.execution.progress_bar import progress_bar
from nepa3d.models.checkpoint import Checkpoint, fresh_model
from nepa3d.models.embedding import Pooling, Probe, Representation, pooled_of, pooled_states, sample_length
from nepa3d.models.encoder import Encoder, ShapeLike, as_shape, draw_samples, is_cache, require_shape, shape_name
from nepa3d.models.vectors import normalize
from nepa3d.probes.point_answers import PointAnswers, point_answers
from nepa3d.probes.result import Json, first_failure
from nepa3d.samples.dataset import SampleSettings
from nepa3d.samples.loader import prefetch
from nepa3d.samples.questions import Questions
from nepa3d.samples.schema import POINT_DISTANCE, XYZ, TokenType
from nepa3d.shapes.shape import Shape
from nepa3d.shapes.views import VoxelSettings, require_backend

Array = NDArray[np.float64]

RAW_CELLS = 4  # a side of the grid in which plain distances are compared


@dataclass(frozen=True)
class EmbeddingSettings:
    """How a view of a shape becomes one vector."""

    pooling: Pooling = "eos"
    representation: Representation = "h"
    draws: int = 1
    """Samples whose vectors are averaged."""
    batch: int = 64
    """Sequences a forward pass."""
    threads: int = 2
    """That read shapes ahead of their use; 0: none."""
    voxel: VoxelSettings = field(default_factory=VoxelSettings)
    hide_positions: bool = False
    """Set the coordinates of point tokens to zero."""
    hide_distances: bool = False
    """Set the distances of point tokens to zero."""
    questions: Questions = "pool"
    """Points are asked anywhere in a shape's pool, or only in its part that is uniform in the cube."""

    def __post_init__(self) -> None:
        require_choice("pooling", self.pooling, Pooling)
        require_choice("representation", self.representation, Representation)
        require_choice("questions", self.questions, Questions)
        require_at_least(1, draws=self.draws, batch=self.batch)
        require_at_least(0, threads=self.threads)

    def report(self, probe: Probe) -> Json:
        """The settings as result files hold them."""
        return {
            "ckpt": probe.ckpt,
            "precision": probe.precision,
            "n_point": probe.n_point,
            "n_ray": probe.n_ray,
            "add_eos": probe.eos,
            "qa_tokens": probe.qa,
            "mc_k": self.draws,
            "pooling": self.pooling,
            "representation": pooled_of(self.pooling, self.representation),
            **voxel_report(self.voxel),
            "questions": self.questions,
        }


@dataclass(frozen=True)
class View:
    """One way to look at every shape, and the seed of what is asked."""

    name: str
    seed: int


@dataclass(frozen=True)
class Embedded:
    """Shapes as unit vectors (N, D), and as their plain answers, which no model has seen: means (N, RAW_CELLS^3) in
    cells, and all that was told in points."""

    vectors: Array
    plain: Array
    answers: PointAnswers


def embed(
    probe: Probe,
    shapes: Sequence[ShapeLike],
    view: View,
    settings: EmbeddingSettings,
    failed: dict[str, str],
    *,
    progress: bool = True,
) -> Embedded:
    """Embed ``shapes``, each read once a draw. One that cannot be read is noted in ``failed``, its rows mean nothing.

    ``ValueError`` if the samples do not fit the model, or if no shape can be read.
    """
    require_backend(view.name, "view")
    probe.require_length(sample_length(probe), "n_point, n_ray, qa_tokens and add_eos")
    form = SampleSettings(
        probe.n_point, probe.n_ray, qa=probe.qa, eos=probe.eos, voxel=settings.voxel, questions=settings.questions
    )
    names = [shape_name(shape) for shape in shapes]
    size, draws = settings.batch, settings.draws

    def read(number: int) -> tuple[int, NDArray[np.float32], NDArray[np.int64], NDArray[np.int64], dict[int, str]]:
        """The number of samples asked for; features and types of the good ones and their rows; why not the others."""
        chunk, draw = divmod(number, draws)
        rows = range(len(shapes))[chunk * size : (chunk + 1) * size]
        features, types, faults = draw_samples(
            shapes[rows.start : rows.stop], view.name, form, view.seed, draw, threads=max(1, settings.threads)
        )
        good = np.setdiff1d(np.arange(len(rows)), [row for row, _ in faults])
        if faults:
            features, types = features[good], types[good]
        if len(good):  # no two calls at a time
            plain[rows.start + good] += plain_distances(features, types) / draws
            points[rows.start + good, draw], distances[rows.start + good, draw] = point_answers(features, types)
        return len(rows), features, types, rows.start + good, {rows[row]: fault for row, fault in faults}

    numbers = range(math.ceil(len(shapes) / size) * draws)
    vectors: Array | None = None
    plain = np.zeros((len(shapes), RAW_CELLS**3))
    points = np.zeros((len(shapes), draws, probe.n_point, 3), np.float32)
    distances = np.zeros(points.shape[:3], np.float32)
    title = f"embed {view.name}"
    with progress_bar(total=len(shapes) * draws, desc=title, unit="sample", disable=not progress) as bar:
        for count, features, types, good, faults in prefetch(read, numbers) if settings.threads else map(read, numbers):
            for row, fault in faults.items():
                failed.setdefault(names[row], f"{view.name}: {fault}")
            if len(good):
                embedded = normalize(_pooled(probe, features, types, settings))
                if vectors is None:
                    vectors = np.zeros((len(shapes), embedded.shape[1]))
                vectors[good] += embedded
            bar.update(count)
    if names and vectors is None:
        raise ValueError(f"none of {len(names)} shapes could be read; first: {first_failure(failed, names)}")
    answers = PointAnswers(points.reshape(len(shapes), -1, 3), distances.reshape(len(shapes), -1))
    return Embedded(np.empty((len(shapes), 0)) if vectors is None else normalize(vectors), plain, answers)


def embed_samples(
    probe: Probe, features: NDArray[np.float32], types: NDArray[np.int64], settings: EmbeddingSettings
) -> Array:
    """Unit vectors (N, D) of one sample each: features (N, T, 15), which are not modified, and types (N, T)."""
    chunks = [slice(begin, begin + settings.batch) for begin in range(0, len(types), settings.batch)]
    pooled = [_pooled(probe, features[chunk].copy(), types[chunk], settings) for chunk in chunks]
    return normalize(np.concatenate(pooled))


def require_several(shapes: object, argument: str = "shapes") -> None:
    """``ValueError`` naming the argument where one shape or folder stands in the place of a list."""
    if isinstance(shapes, (Shape, str, os.PathLike)):
        raise ValueError(
            f"{argument} must be a list of shapes, got {shapes!r} alone; the cache files of a folder are "
            'sorted(Path(folder).rglob("*.npz"))'
        )


def in_memory(shapes: Sequence[ShapeLike]) -> list[ShapeLike]:
    """The shapes with meshes read and sampled once; cache files stay files. ``ValueError`` on what is no shape."""
    for shape in shapes:
        require_shape(shape)
    return [shape_name(shape) if is_cache(shape) else as_shape(shape) for shape in shapes]


def require_read(failed: Mapping[str, str]) -> None:
    """``ValueError`` naming the first shape that could not be read, if there is one."""
    for path, reason in failed.items():
        raise ValueError(f"shapes: {path}: {reason}")


def plain_distances(features: NDArray[np.float32], types: NDArray[np.int64]) -> Array:
    """A shape's mean answered distance in each of RAW_CELLS^3 cells (B, cells), the shape's mean where none was asked.

    What a probe makes of this is owed to the answers alone: a model has to do better.
    """
    samples = len(types)
    points, distances = point_answers(features, types)
    if not distances.size:
        return np.zeros((samples, RAW_CELLS**3))
    distances = distances.astype(np.float64)
    place = np.clip(((points + 1) / 2 * RAW_CELLS).astype(np.int64), 0, RAW_CELLS - 1)
    cell = np.ravel_multi_index(tuple(np.moveaxis(place, -1, 0)), 3 * (RAW_CELLS,))
    cell += np.arange(samples)[:, None] * RAW_CELLS**3
    sums = np.bincount(cell.ravel(), distances.ravel(), samples * RAW_CELLS**3).reshape(samples, -1)
    counts = np.bincount(cell.ravel(), minlength=samples * RAW_CELLS**3).reshape(samples, -1)
    return np.where(counts > 0, sums / np.maximum(counts, 1), distances.mean(1, keepdims=True))


def centred(vectors: Array) -> Array:
    """Vectors (N, D) less their mean: cosines of distances, which are all positive, would be near 1 otherwise."""
    return vectors - vectors.mean(0)


def untrained(probe: Probe, seed: int) -> Probe:
    """The probe with new weights of the same sizes, a function of ``seed``."""
    state = {name: tensor.cpu() for name, tensor in probe.model.state_dict().items()}
    checkpoint = Checkpoint(state, opt={}, scaler=None, args=dict(probe.args), epoch=0, step=0, path=probe.ckpt)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = fresh_model(checkpoint)
    return replace(probe, model=model.to(probe.device).eval())


def untrained_encoder(encoder: Encoder, seed: int) -> Encoder:
    """An encoder with new weights of the same sizes, a function of ``seed``, and without a distance head: fit that on
    the shapes that the trained one's was fitted on."""
    return Encoder(untrained(encoder.probe, seed))


def voxel_report(voxel: VoxelSettings) -> Json:
    """The settings of the voxel view as result files hold them."""
    return {"voxel_grid": voxel.grid, "voxel_dilate": voxel.dilate, "voxel_max_steps": voxel.max_steps}


def _pooled(
    probe: Probe, features: NDArray[np.float32], types: NDArray[np.int64], settings: EmbeddingSettings
) -> NDArray[np.float32]:
    if settings.hide_positions:
        features[np.isin(types, (TokenType.POINT, TokenType.Q_POINT)), XYZ] = 0.0
    if settings.hide_distances:
        features[np.isin(types, (TokenType.POINT, TokenType.A_POINT)), POINT_DISTANCE] = 0.0
    states = pooled_states(probe, features, types, settings.pooling, settings.representation)
    vectors: NDArray[np.float32] = states.cpu().numpy()
    return vectors
