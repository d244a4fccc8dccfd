"""The spline that questions are told, against SciPy's and at points that leave it open."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nepa3d.models.interpolation import (
    FARTHEST,
    SMOOTHING,
    clipped_spline,
    fit_spline,
    interpolate,
    interpolation_features,
    nearby,
    pulled_points,
)
from nepa3d.probes.spline import lipschitz_bounds, spline_distances
from nepa3d.samples.schema import POINT_DISTANCE, XYZ, TokenType


def ball(points: np.ndarray) -> np.ndarray:
    return np.abs(np.linalg.norm(points, axis=-1) - 0.5)


def test_it_is_scipys(subtests: pytest.Subtests, request: pytest.FixtureRequest) -> None:
    pytest.importorskip("scipy")
    threads = torch.get_num_threads()
    request.addfinalizer(lambda: torch.set_num_threads(threads))
    torch.set_num_threads(max(2, threads))  # a batched solve may go wrong in several threads only
    rng = np.random.default_rng(0)
    for count in (4, 30, 200):
        with subtests.test(context=count):
            context, queries = rng.uniform(-1, 1, (3, count, 3)), rng.uniform(-1, 1, (3, 50, 3))
            guess, low, high = clipped_spline(
                torch.from_numpy(context), torch.from_numpy(ball(context)), torch.from_numpy(queries)
            )
            for row in range(3):
                expected = spline_distances(context[row], ball(context[row]), queries[row])
                np.testing.assert_allclose(guess[row], expected, atol=1e-4)
                bounds = lipschitz_bounds(context[row], ball(context[row]), queries[row])
                np.testing.assert_allclose(torch.stack([low[row], high[row]]), bounds, atol=1e-12)


def plain_gradients(context: np.ndarray, distances: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Of SciPy's spline, by differences."""
    rbf = pytest.importorskip("scipy.interpolate").RBFInterpolator
    spline = rbf(context, distances, kernel="thin_plate_spline", smoothing=SMOOTHING)
    steps = 1e-5 * np.eye(3)
    return np.stack([(spline(points + step) - spline(points - step)) / 2e-5 for step in steps], -1)


def test_what_is_nearby_is_its_plain_twin() -> None:
    rng = np.random.default_rng(1)
    context, queries = rng.uniform(-1, 1, (2, 40, 3)), rng.uniform(-1, 1, (2, 20, 3))
    told = torch.from_numpy(ball(context))
    spline = fit_spline(torch.from_numpy(context), told)
    pulled = pulled_points(spline, told)
    found = nearby(spline, told, torch.from_numpy(queries)).numpy()
    for row in range(2):
        x, d = context[row], ball(context[row])
        slope = plain_gradients(x, d, x)
        expected = x - d[:, None] * slope / np.linalg.norm(slope, axis=1, keepdims=True)
        np.testing.assert_allclose(pulled[row], expected, atol=1e-5)
        for query, values in zip(queries[row], found[row], strict=True):
            apart = np.linalg.norm(query - x, axis=1)
            nearest = np.argsort(apart)[:3]
            np.testing.assert_allclose(values[:3], apart[nearest], atol=1e-5)
            np.testing.assert_allclose(values[3:6], d[nearest], atol=1e-6)
            np.testing.assert_allclose(values[6:9], np.sort(np.linalg.norm(query - expected, axis=1))[:3], atol=1e-5)
        steep = np.linalg.norm(plain_gradients(x, d, queries[row]), axis=1)
        np.testing.assert_allclose(found[row, :, 9], steep, atol=1e-4)
    off = np.abs(np.linalg.norm(pulled.numpy(), axis=-1) - 0.5)
    assert np.median(off) < 0.01  # they lie on the ball, of which the points were up to 1.2 away


@pytest.mark.parametrize("count", [0, 1, 2, 4])
def test_few_points_nearby(count: int) -> None:
    context = torch.linspace(-0.5, 0.5, max(count, 1)).double()[None, :count, None].expand(1, -1, 3)
    told = torch.full((1, count), 0.25).double()
    found = nearby(fit_spline(context, told), told, torch.zeros(1, 1, 3).double())[0, 0]
    assert torch.isfinite(found).all()
    assert (found[:9].reshape(3, 3)[:, count:] == FARTHEST).all()
    assert (found[:9].reshape(3, 3)[:, : min(count, 3)] < FARTHEST).all()


@pytest.mark.parametrize("count", [0, 1, 3])
def test_few_points(count: int) -> None:
    """Within the bounds, whatever the spline may be."""
    context = torch.linspace(-0.5, 0.5, max(count, 1))[None, :count, None].expand(1, -1, 3)
    distances = torch.full((1, count), 0.25)
    queries = torch.rand(1, 20, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1
    guess, low, high = clipped_spline(context, distances, queries)
    assert torch.isfinite(guess).all()
    assert ((low <= guess) & (guess <= high)).all()
    if count == 0:
        assert (guess == 0).all() and (high == FARTHEST).all()


def test_points_in_one_plane_and_points_given_twice() -> None:
    plane = torch.rand(1, 30, 3, generator=torch.Generator().manual_seed(0))
    plane[..., 2] = 0.3
    plane[:, 15:] = plane[:, :15]
    height = torch.linspace(-1, 1, 9)
    queries = torch.stack([torch.full((9,), 0.5), torch.full((9,), 0.5), height], -1)[None]
    guess, low, high = clipped_spline(plane, torch.full((1, 30), 0.1), queries)
    assert torch.isfinite(guess).all()
    assert ((low <= guess) & (guess <= high)).all()


def test_contradicting_answers() -> None:
    """Two distances at one place that differ: the bounds meet, the guess lies on them."""
    context = torch.zeros(1, 2, 3)
    guess, low, high = clipped_spline(context, torch.tensor([[0.1, 0.6]]), torch.zeros(1, 1, 3))
    assert low.item() == high.item() == guess.item() == pytest.approx(0.1)


def sequence(kinds: list[TokenType]) -> tuple[torch.Tensor, torch.Tensor]:
    features = torch.zeros(2, len(kinds), 15)
    generator = torch.Generator().manual_seed(0)
    for place, kind in enumerate(kinds):
        if kind in (TokenType.Q_POINT, TokenType.POINT):
            features[:, place, XYZ] = torch.rand(2, 3, generator=generator)
        if kind in (TokenType.A_POINT, TokenType.POINT):
            features[:, place, POINT_DISTANCE] = torch.rand(2, generator=generator)
    return features, torch.tensor(kinds).expand(2, -1)


@pytest.mark.parametrize("qa", [True, False])
def test_only_blind_questions_are_told(qa: bool) -> None:
    t = TokenType
    pair = [t.Q_POINT, t.A_POINT] if qa else [t.POINT]
    features, types = sequence([t.BOS, *pair * 6, t.EOS, t.Q_POINT, t.Q_POINT])
    found = interpolate(features, types)
    assert found.high[:, -2:].min() > 0
    assert found.nearby is None
    assert all((values[:, :-2] == 0).all() for values in found[:3])
    step = len(pair)
    context = features[:, 1 : 1 + 6 * step : step, XYZ]
    distances = features[:, step : 1 + 6 * step : step, POINT_DISTANCE]
    expected = clipped_spline(context, distances, features[:, -2:, XYZ])
    for mine, plain in zip(found[:3], expected, strict=True):
        torch.testing.assert_close(mine[:, -2:], plain.float())
    more = interpolate(features, types, pulled_points=True)
    assert all(torch.equal(a, b) for a, b in zip(more[:3], found[:3], strict=True))
    assert more.nearby is not None and (more.nearby[:, :-2] == 0).all()
    spline = fit_spline(context.double(), distances.double())
    told = nearby(spline, distances.double(), features[:, -2:, XYZ].double())
    assert torch.equal(more.nearby[:, -2:], told)
    columns = interpolation_features(more, types)
    assert torch.equal(columns[..., :18], interpolation_features(found, types))
    assert (
        columns[:, -2:, 18:].abs().sum(-1).min() > 0
        and (columns[:, :-2, 18:] == 0)[:, types[0, :-2] != t.Q_POINT].all()
    )
