"""Cached shapes as token sequences, for training and for evaluation.

The samples here are read whole file by whole file, in plain NumPy: ``nepa3d.samples.loader`` gives the same ones by the
batch, fast.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from nepa3d.execution.checks import require_choice
from nepa3d.samples.draws import TrainingDraws
from nepa3d.samples.questions import Questions, asked_of
from nepa3d.samples.schema import sequence_length
from nepa3d.samples.tokenizer import Rows, draw_rows, evaluation_rng, tokenize
from nepa3d.shapes.cache import CacheError
from nepa3d.shapes.views import ShapeAnswers, VoxelSettings, read_answers

Sample = tuple[NDArray[np.float32], NDArray[np.int64]]
DrawRows = Callable[[int, int], Rows]  # of a pool's size, how many

NO_RAYS = (
    "ray_d_pool has directions of length 0, as that of a scan, which has no rays: choose pointcloud_noray, or n_ray 0"
)


@dataclass(frozen=True)
class SampleSettings:
    """How a shape becomes a sequence."""

    n_point: int
    n_ray: int
    qa: bool
    eos: bool
    drop_ray_prob: float = 0.0  # in training, of leaving out all rays of a sample
    force_missing_ray: bool = False
    voxel: VoxelSettings = field(default_factory=VoxelSettings)
    uniform_prob: float = 0.0  # in training, of asking a sample's points in the uniform part of the pool only
    questions: Questions = "pool"  # "uniform": ask them there always

    def __post_init__(self) -> None:
        for name in ("n_point", "n_ray"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")
        require_choice("questions", self.questions, Questions)
        for name in ("drop_ray_prob", "uniform_prob"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in [0, 1], got {getattr(self, name)}")

    @property
    def length(self) -> int:
        """Tokens T of a sample."""
        return sequence_length(self.n_point, self.n_ray, qa=self.qa, eos=self.eos)


def evaluation_sample(path: str, backend: str, settings: SampleSettings, eval_seed: int, resample: int = 0) -> Sample:
    """Features (T, 15) and types (T,), a function of the path as spelt, the seed and the resample."""
    return sample_of_answers(path, read_answers(path, backend, settings.voxel), settings, eval_seed, resample)


def sample_of_answers(
    name: str, answers: ShapeAnswers, settings: SampleSettings, eval_seed: int, resample: int = 0
) -> Sample:
    """``evaluation_sample`` of a view at hand, a function of the shape's ``name``, the seed and the resample."""
    rng = evaluation_rng(name, eval_seed, resample)
    answers = asked_of(answers, settings.questions, name)
    return sample_of(name, answers, settings, lambda pool, n: draw_rows(pool, n, rng), settings.force_missing_ray)


def training_sample(path: str, backend: str, settings: SampleSettings, seed: int, epoch: int, index: int) -> Sample:
    """Features (T, 15) and types (T,), a function of the file, the settings and (seed, epoch, index)."""
    draws = TrainingDraws(seed, epoch, index)
    dropped = draws.uniform() < settings.drop_ray_prob
    uniform = settings.uniform_prob > 0 and draws.uniform() < settings.uniform_prob
    questions = "uniform" if uniform else settings.questions
    answers = asked_of(read_answers(path, backend, settings.voxel), questions, path)
    return sample_of(path, answers, settings, draws.rows, settings.force_missing_ray or dropped)


def sample_of(
    path: str, answers: ShapeAnswers, settings: SampleSettings, draw_rows: DrawRows, rays_missing: bool
) -> Sample:
    """Features (T, 15) and types (T,) of the rows that ``draw_rows`` takes of the pools; ``CacheError`` with ``path``
    on an empty pool, values that are not finite, or rays without a direction."""

    def draw(name: str, pool: int, n: int) -> Rows:
        if n and not pool:
            raise CacheError(path, f"{name} is {n}, but the pool is empty")
        return draw_rows(pool, n)

    missing = rays_missing or not answers.rays_available
    points = draw("n_point", len(answers.point_xyz), settings.n_point)
    blank = np.zeros(settings.n_ray, np.int64)
    rays = blank if missing else draw("n_ray", len(answers.ray_t), settings.n_ray)
    if not missing and (answers.ray_direction[rays] == 0).all(1).any():
        raise CacheError(path, NO_RAYS)
    features, types = tokenize(answers, points, rays, qa=settings.qa, eos=settings.eos, rays_missing=missing)
    if not np.isfinite(features).all():
        raise CacheError(path, "the sample has values that are not finite")
    return features, types
