"""What the distances of the context say of a blind question without a model, in torch: a clipped thin-plate spline, and
the points of the surface that its gradient leads to.

The spline's plain twin is ``nepa3d.probes.spline``. Letters: B batch, T tokens, C context points, Q blind questions.
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
NEAREST = 3  # context points and pulled points that a question is told of
NEARBY = 3 * NEAREST + 1
NEARBY_DIM = 3 * NEAREST * DISTANCE_FEATURES + 1
_RIDGE = 1e-6  # on the affine part: few points, or points in one plane, leave it open


class Interpolated(NamedTuple):
    """Distances (B, T) at the blind questions of sequences: guessed, and the bounds of any distance; with pulled points
    also ``nearby`` (B, T, 10). Else 0."""

    guess: Tensor
    low: Tensor
    high: Tensor
    nearby: Tensor | None = None


class Spline(NamedTuple):
    """Thin-plate splines by their centres (B, C, 3) and weights (B, C + 4), float64, the affine part last."""

    centres: Tensor
    weights: Tensor


def interpolate(features: Tensor, types: Tensor, pulled_points: bool = False) -> Interpolated:
    """The guess and the bounds at the blind questions of sequences (B, T, 15) whose types (B, T) are all the same; with
    ``pulled_points`` also what is ``nearby`` them.

    Blind are point questions that no answer follows; the context are the answered points. Nothing of it has a gradient.
    """
    kinds = types[0]
    answered = is_any(kinds, POINT_ANSWERS).nonzero()[:, 0]
    followed = torch.nn.functional.pad(kinds[1:], (0, 1)) == TokenType.A_POINT
    blind = ((kinds == TokenType.Q_POINT) & ~followed).nonzero()[:, 0]
    places = answered - (kinds[answered] == TokenType.A_POINT).long()  # of a Q/A sequence at the question
    with torch.no_grad():
        x, d = features[:, places, XYZ].double(), features[:, answered, POINT_DISTANCE].double()
        q = features[:, blind, XYZ].double()
        spline = fit_spline(x, d)
        zeros = torch.zeros(types.shape, device=types.device)
        found = [zeros.index_copy(1, blind, values.float()) for values in clipped(spline, d, q)]
        if not pulled_points:
            return Interpolated(*found)
        told = zeros.new_zeros(*types.shape, NEARBY).index_copy(1, blind, nearby(spline, d, q))
        return Interpolated(found[0], found[1], found[2], told)


def interpolation_features(known: Interpolated, types: Tensor) -> Tensor:
    """What tokens (B, T) are told of it: (B, T, 18), with ``nearby`` (B, T, 18 + 73), 0 except at point questions."""
    there = is_any(types, (TokenType.Q_POINT,))
    told = [distance_features(known.guess), distance_features(known.high)]
    told += [known.low[..., None], (known.high - known.low)[..., None]]
    if known.nearby is not None:
        told += [distance_features(known.nearby[..., :-1]).flatten(-2), known.nearby[..., -1:]]
    return torch.cat(told, -1) * there[..., None]


def clipped_spline(
    context: Tensor, distances: Tensor, queries: Tensor, smoothing: float = SMOOTHING
) -> tuple[Tensor, Tensor, Tensor]:
    """Distances (B, Q) at ``queries`` (B, Q, 3) by smoothing thin-plate splines through ``distances`` (B, C) at
    ``context`` (B, C, 3), clipped to the bounds of any distance, and these bounds, low and high; in float64.

    Without a context the guess is 0 and the bounds are 0 and 4. (Wahba, Spline Models for Observational Data, 1990.)
    """
    d = distances.double()
    return clipped(fit_spline(context.double(), d, smoothing), d, queries.double())


def fit_spline(x: Tensor, d: Tensor, smoothing: float = SMOOTHING) -> Spline:
    """Smoothing thin-plate splines through the values ``d`` (B, C) at ``x`` (B, C, 3), float64."""
    affine = torch.cat([x.new_ones(*x.shape[:2], 1), x], -1)
    n = x.shape[1]
    system = x.new_zeros(len(x), n + 4, n + 4)
    system[:, :n, :n] = _kernel(_apart(x, x))
    system[:, :n, n:], system[:, n:, :n] = affine, affine.mT
    diagonal = torch.cat([x.new_full((n,), smoothing), x.new_full((4,), -_RIDGE)])
    system.diagonal(dim1=1, dim2=2).add_(diagonal)
    return Spline(x, _solve(system, torch.cat([d, d.new_zeros(len(d), 4)], 1)))


def clipped(spline: Spline, d: Tensor, q: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The spline's values (B, Q) at ``q`` (B, Q, 3), clipped to the bounds that the distances ``d`` (B, C) at its
    centres imply, and these bounds, low and high."""
    apart = _apart(q, spline.centres)
    high = torch.cat([d[:, None] + apart, apart.new_full((*q.shape[:2], 1), FARTHEST)], -1).amin(-1)
    low = torch.cat([d[:, None] - apart, apart.new_zeros(*q.shape[:2], 1)], -1).amax(-1)
    low = torch.minimum(low, high)  # of answers that contradict each other
    there = torch.cat([_kernel(apart), q.new_ones(*q.shape[:2], 1), q], -1)
    guess = (there @ spline.weights[..., None])[..., 0]
    return torch.minimum(torch.maximum(guess, low), high), low, high


def gradients(spline: Spline, q: Tensor) -> Tensor:
    """The spline's gradients (B, Q, 3) at ``q`` (B, Q, 3)."""
    apart, n = _apart(q, spline.centres), spline.centres.shape[1]
    slope = torch.where(apart > 0, 2 * apart.clamp(min=1e-300).log() + 1, 0) * spline.weights[:, None, :n]
    return q * slope.sum(-1, keepdim=True) - slope @ spline.centres + spline.weights[:, None, n + 1 :]


def pulled_points(spline: Spline, d: Tensor) -> Tensor:
    """Estimated points of the surface (B, C, 3): each of the spline's centres, moved by its distance ``d`` (B, C)
    against the spline's gradient. (Ma et al., Neural-Pull, arXiv 2011.13495, move points by a network's distance.)"""
    towards = torch.nn.functional.normalize(gradients(spline, spline.centres), dim=-1)
    return spline.centres - d[..., None] * towards


def nearby(spline: Spline, d: Tensor, q: Tensor) -> Tensor:
    """What is near questions ``q`` (B, Q, 3), (B, Q, 10): how far the three nearest context points are, what distances
    ``d`` (B, C) were told there, how far the three nearest pulled points are, and the length of the spline's gradient,
    1 for a distance; 4 for points that there are not. Distances are in float32."""
    points = q.float()
    far, which = _nearest(points, spline.centres.float())
    told = torch.nn.functional.pad(d.float(), (0, NEAREST), value=FARTHEST)
    there = told[:, None].expand(-1, q.shape[1], -1).gather(2, which)
    pulled, _ = _nearest(points, pulled_points(spline, d).float())
    steep = gradients(spline, q).norm(dim=-1, keepdim=True).clamp(max=FARTHEST)
    return torch.cat([far, there, pulled, steep.float()], -1)


@torch.library.custom_op("nepa3d::solve", mutates_args=())  # torch.compile would make torch's solve of NumPy's
def _solve(system: Tensor, right: Tensor) -> Tensor:
    """Solutions (B, n) of systems (B, n, n). On a CPU by NumPy: with several threads, torch 2.13's batched solve there
    returns wrong numbers from some 200 unknowns on."""
    if system.is_cuda:
        return torch.linalg.solve(system, right)
    return torch.from_numpy(np.linalg.solve(system.numpy(), right.numpy()[..., None])[..., 0])


@_solve.register_fake
def _(system: Tensor, right: Tensor) -> Tensor:
    return torch.empty_like(right)


def _nearest(points: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """Distances (B, n, 3) of points (B, n, 3) from the nearest of ``others`` (B, m, 3), and which these are."""
    found: tuple[Tensor, Tensor] = torch.nn.functional.pad(_apart(points, others), (0, NEAREST), value=FARTHEST).topk(
        NEAREST, largest=False
    )
    return found


def _apart(a: Tensor, b: Tensor) -> Tensor:
    """Distances (B, n, m) of points (B, n, 3) and (B, m, 3)."""
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")


def _kernel(distance: Tensor) -> Tensor:
    """r^2 log r, 0 at 0."""
    return torch.special.xlogy(distance * distance, distance)
