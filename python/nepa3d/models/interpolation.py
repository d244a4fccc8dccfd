"""What the distances of the context say of a blind question without a model: a clipped thin-plate spline, in torch.

Its plain twin is ``nepa3d.probes.spline``. Letters: B batch, T tokens, C context points, Q blind questions.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from nepa3d.models.token_features import DISTANCE_FEATURES, POINT_ANSWERS, distance_features, is_any
from nepa3d.samples.schema import POINT_DISTANCE, XYZ, TokenType

SMOOTHING = 1e-3
INTERPOLATION_DIM = 2 * DISTANCE_FEATURES + 2
FARTHEST = 4.0  # more than any distance in the cube
_RIDGE = 1e-6  # on the affine part: few points, or points in one plane, leave it open


class Interpolated(NamedTuple):
    """Distances (B, T) at the blind questions of sequences: guessed, and the bounds of any distance; else 0."""

    guess: Tensor
    low: Tensor
    high: Tensor


def interpolate(features: Tensor, types: Tensor) -> Interpolated:
    """The guess and the bounds at the blind questions of sequences (B, T, 15) whose types (B, T) are all the same.

    Blind are point questions that no answer follows; the context are the answered points. Nothing of it has a gradient.
    """
    kinds = types[0]
    answered = is_any(kinds, POINT_ANSWERS).nonzero()[:, 0]
    followed = torch.nn.functional.pad(kinds[1:], (0, 1)) == TokenType.A_POINT
    blind = ((kinds == TokenType.Q_POINT) & ~followed).nonzero()[:, 0]
    places = answered - (kinds[answered] == TokenType.A_POINT).long()  # of a Q/A sequence at the question
    with torch.no_grad():
        context, distances = features[:, places, XYZ], features[:, answered, POINT_DISTANCE]
        found = clipped_spline(context, distances, features[:, blind, XYZ])
        zeros = torch.zeros(types.shape, device=types.device)
        return Interpolated(*(zeros.index_copy(1, blind, values.float()) for values in found))


def interpolation_features(known: Interpolated, types: Tensor) -> Tensor:
    """What tokens (B, T) are told of it: (B, T, 18), 0 except at point questions."""
    there = is_any(types, (TokenType.Q_POINT,))
    told = [distance_features(known.guess), distance_features(known.high)]
    rest = [known.low[..., None], (known.high - known.low)[..., None]]
    return torch.cat([*told, *rest], -1) * there[..., None]


def clipped_spline(
    context: Tensor, distances: Tensor, queries: Tensor, smoothing: float = SMOOTHING
) -> tuple[Tensor, Tensor, Tensor]:
    """Distances (B, Q) at ``queries`` (B, Q, 3) by smoothing thin-plate splines through ``distances`` (B, C) at
    ``context`` (B, C, 3), clipped to the bounds of any distance, and these bounds, low and high; in float64.

    Without a context the guess is 0 and the bounds are 0 and 4. (Wahba, Spline Models for Observational Data, 1990.)
    """
    x, d, q = context.double(), distances.double(), queries.double()
    apart = torch.cdist(q, x, compute_mode="donot_use_mm_for_euclid_dist")
    high = torch.cat([d[:, None] + apart, apart.new_full((*q.shape[:2], 1), FARTHEST)], -1).amin(-1)
    low = torch.cat([d[:, None] - apart, apart.new_zeros(*q.shape[:2], 1)], -1).amax(-1)
    low = torch.minimum(low, high)  # of answers that contradict each other
    affine = torch.cat([x.new_ones(*x.shape[:2], 1), x], -1)
    n = x.shape[1]
    system = x.new_zeros(len(x), n + 4, n + 4)
    system[:, :n, :n] = _kernel(torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist"))
    system[:, :n, n:], system[:, n:, :n] = affine, affine.mT
    diagonal = torch.cat([x.new_full((n,), smoothing), x.new_full((4,), -_RIDGE)])
    system.diagonal(dim1=1, dim2=2).add_(diagonal)
    weights = _solve(system, torch.cat([d, d.new_zeros(len(d), 4)], 1))
    there = torch.cat([_kernel(apart), q.new_ones(*q.shape[:2], 1), q], -1)
    guess = (there @ weights[..., None])[..., 0]
    return torch.minimum(torch.maximum(guess, low), high), low, high


def _solve(system: Tensor, right: Tensor) -> Tensor:
    """Solutions (B, n) of systems (B, n, n). On a CPU by NumPy: with several threads, torch 2.13's batched solve there
    returns wrong numbers from some 200 unknowns on."""
    if system.is_cuda:
        return torch.linalg.solve(system, right)
    return torch.from_numpy(np.linalg.solve(system.numpy(), right.numpy()[..., None])[..., 0])


def _kernel(distance: Tensor) -> Tensor:
    """r^2 log r, 0 at 0."""
    return torch.special.xlogy(distance * distance, distance)
