"""From a shape's answers to a token sequence: (T, 15) features and (T,) type ids.

Letters: P point pool, R ray pool, n points and m rays of the sample, T tokens.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from nepa3d.samples import schema
from nepa3d.samples.draws import SEED_STRIDE
from nepa3d.samples.ordering import order_points, order_rays
from nepa3d.samples.schema import TokenType
from nepa3d.shapes.views import ShapeAnswers

Features = NDArray[np.float32]
Types = NDArray[np.int64]
Rows = NDArray[np.int64]


def tokenize(
    answers: ShapeAnswers, point_rows: Rows, ray_rows: Rows, *, qa: bool, eos: bool, rays_missing: bool = False
) -> tuple[Features, Types]:
    """The sequence BOS, points, rays, optional EOS for the given rows of the pools, in the pools' natural order.

    Plain form: one token a query, holding question and answer. Q/A form: a question token, then an answer token.
    Rays that the view lacks, or ``rays_missing``, become blank MISSING_RAY tokens.
    """
    missing = rays_missing or not answers.rays_available
    point_rows = order_points(answers.point_xyz, point_rows)
    if not missing:
        ray_rows = order_rays(answers.ray_direction, ray_rows)
    return layout(answers, point_rows, ray_rows, qa=qa, eos=eos, rays_missing=missing)


def layout(
    answers: ShapeAnswers, point_rows: Rows, ray_rows: Rows, *, qa: bool, eos: bool, rays_missing: bool = False
) -> tuple[Features, Types]:
    """``tokenize`` of rows that are in order."""
    n, m = len(point_rows), len(ray_rows)
    features = np.zeros((schema.sequence_length(n, m, qa=qa, eos=eos), schema.FEATURE_DIM), np.float32)
    types = np.full(len(features), TokenType.EOS, np.int64)
    types[0] = TokenType.BOS
    stride = 2 if qa else 1
    first_ray = 1 + stride * n
    _fill_points(features[1:first_ray], types[1:first_ray], answers, point_rows, stride)
    rays = slice(first_ray, first_ray + stride * m)
    if rays_missing or not answers.rays_available:
        types[rays] = TokenType.MISSING_RAY
    else:
        _fill_rays(features[rays], types[rays], answers, ray_rows, stride)
    return features, types


def draw_rows(pool_size: int, n: int, rng: np.random.RandomState) -> Rows:
    """``n`` rows (n,) of a pool, without replacement unless the pool is smaller."""
    if n == 0:
        return np.empty(0, np.int64)
    if pool_size == 0:
        raise ValueError(f"{n} rows are asked of an empty pool")
    return rng.choice(pool_size, size=n, replace=pool_size < n).astype(np.int64)


def evaluation_rng(path: str, eval_seed: int, resample: int = 0) -> np.random.RandomState:
    """Random numbers of one evaluation draw, a function of the path as composed, the seed and the resample."""
    return np.random.RandomState(evaluation_draw_seed(path, eval_seed, resample))


def evaluation_draw_seed(path: str, eval_seed: int, resample: int = 0) -> int:
    """The seed, of 32 bits, of ``evaluation_rng``."""
    digest = int(hashlib.md5(path.encode("utf-8", "surrogateescape"), usedforsecurity=False).hexdigest()[:8], 16)
    return resample_seed(digest + eval_seed, resample)


def resample_seed(seed: int, resample: int) -> int:
    """The seed, of 32 bits, of a resample; two evaluations share draws where these are equal for their seeds."""
    return (seed + SEED_STRIDE * resample) & 0xFFFFFFFF


def draws_are_shared(seed: int, other: int, draws: int) -> bool:
    """Whether two evaluations of so many ``draws`` each, from two seeds, have one in common."""
    first, second = ({resample_seed(one, draw) for draw in range(draws)} for one in (seed, other))
    return bool(first & second)


def _fill_points(features: Features, types: Types, answers: ShapeAnswers, rows: Rows, stride: int) -> None:
    answer = stride - 1  # in the plain form question and answer share a token
    types[::stride] = TokenType.POINT if stride == 1 else TokenType.Q_POINT
    if stride == 2:
        types[1::2] = TokenType.A_POINT
    features[::stride, schema.XYZ] = answers.point_xyz[rows]
    features[answer::stride, schema.POINT_DISTANCE] = answers.point_distance[rows]


def _fill_rays(features: Features, types: Types, answers: ShapeAnswers, rows: Rows, stride: int) -> None:
    answer = stride - 1
    types[::stride] = TokenType.RAY if stride == 1 else TokenType.Q_RAY
    if stride == 2:
        types[1::2] = TokenType.A_RAY
    origin, direction = answers.ray_origin[rows], answers.ray_direction[rows]
    hit, t = answers.ray_hit[rows], answers.ray_t[rows]
    struck = (hit > 0.5)[:, None]
    features[::stride, schema.RAY_ORIGIN] = origin
    features[::stride, schema.RAY_DIRECTION] = direction
    features[answer::stride, schema.XYZ] = np.where(struck, origin + t[:, None] * direction, 0)
    features[answer::stride, schema.RAY_T] = t
    features[answer::stride, schema.RAY_HIT] = hit
    features[answer::stride, schema.RAY_NORMAL] = np.where(struck, answers.ray_normal[rows], 0)
