"""Augmented samples: exact answers stay exact, and every sample's change is its own."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nepa3d.corpora.scanner import GAP
from nepa3d.samples.schema import POINT_DISTANCE, RAY_DIRECTION, RAY_ORIGIN, RAY_T, XYZ, TokenType
from nepa3d.shapes.rotation import turn
from nepa3d.train.augment import AugmentFlags, cluttered, placed, reach, unsettled
from nepa3d.train.corpus import Batch
from nepa3d.train.objectives.query import arrange

T = TokenType


def samples(count: int) -> torch.Tensor:
    features = torch.zeros(count, 6, 15)
    generator = torch.Generator().manual_seed(0)
    features[:, :, XYZ] = torch.rand(count, 6, 3, generator=generator) - 0.5
    features[:, :, RAY_ORIGIN] = torch.rand(count, 6, 3, generator=generator)
    features[:, :, RAY_DIRECTION] = torch.tensor([1.0, 0, 0])
    features[:, :, POINT_DISTANCE] = features[:, :, XYZ].norm(dim=-1)  # to the origin
    features[:, :, RAY_T] = 2
    return features


def test_distances_turn_and_scale_with_the_points() -> None:
    features = samples(40)
    found = placed(features, AugmentFlags(turn=1, scale_min=0.5), (0, 3), 0)
    torch.testing.assert_close(found[..., POINT_DISTANCE], found[..., XYZ].norm(dim=-1))
    ratio = found[..., POINT_DISTANCE] / features[..., POINT_DISTANCE]
    torch.testing.assert_close(ratio, ratio[:, :1].expand_as(ratio))
    assert ratio.min() < 0.6 and ratio.max() > 0.9
    torch.testing.assert_close(found[..., 1], features[..., 1] * ratio)  # y is up
    torch.testing.assert_close(found[..., RAY_T], 2 * ratio)
    torch.testing.assert_close(found[..., RAY_DIRECTION].norm(dim=-1), torch.ones(40, 6))
    angles = torch.atan2(found[:, 0, 8], found[:, 0, 6])
    assert angles.std() > 1


def test_about_half_are_turned() -> None:
    features = samples(400)
    found = placed(features, AugmentFlags(turn=0.5), (0, 3), 0)
    turned = (found != features).any(2).any(1).float().mean()
    assert float(turned) == pytest.approx(0.5, abs=0.1)


def test_a_quarter_turn() -> None:
    np.testing.assert_allclose(turn(np.array([[1, 5, 0]]), np.pi / 2), [[0, 5, -1]], atol=1e-12)


def test_answers_are_off_and_questions_are_not() -> None:
    features = samples(300)
    types = torch.tensor([T.BOS, T.POINT, T.POINT, T.POINT, T.EOS, T.Q_POINT])
    flags = AugmentFlags(answer_shift=0.05)
    found = unsettled(features, types, flags, (0, 3), 0)
    moved = (found - features)[..., POINT_DISTANCE]
    assert (moved[:, [0, 4, 5]] == 0).all()
    torch.testing.assert_close(moved[:, 1:4], moved[:, 1:2].expand(-1, 3), atol=1e-6, rtol=0)
    assert 0.04 < float(moved.abs().max()) <= 0.05 + 1e-6
    assert float((moved[:, 1] == 0).float().mean()) == pytest.approx(0.2, abs=0.1)
    noisy = unsettled(features, types, AugmentFlags(answer_noise=0.05), (0, 3), 0)
    away = (noisy - features)[:, 1:4, POINT_DISTANCE]
    assert (away >= -1e-6).all() and away.max() > 0.01
    assert (found[..., POINT_DISTANCE] >= 0).all()


def test_a_samples_change_does_not_depend_on_the_others() -> None:
    features, types = samples(4), torch.tensor([T.BOS, T.POINT, T.POINT, T.POINT, T.EOS, T.Q_POINT])
    flags = AugmentFlags(answer_shift=0.05, answer_noise=0.02, turn=0.7, scale_min=0.8)
    whole = unsettled(placed(features, flags, (0, 3), 0), types, flags, (0, 3), 0)
    alone = unsettled(placed(features[2:], flags, (0, 3), 2), types, flags, (0, 3), 2)
    assert torch.equal(whole[2:], alone)
    assert not torch.equal(whole, unsettled(placed(features, flags, (0, 4), 0), types, flags, (0, 4), 0))


def test_nothing_asked_is_nothing_changed() -> None:
    features = samples(2)
    assert placed(features, AugmentFlags(), (0, 1), 0) is features
    assert cluttered(features, torch.tensor([T.RAY] * 6), AugmentFlags(), (0, 1), 0) is features


def stools(count: int, qa: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """Samples of 40 points and their distances to a shape of two points, (0, -0.5, 0) and (0.3, 0.5, 0)."""
    pair = [T.Q_POINT, T.A_POINT] if qa else [T.POINT]
    types = torch.tensor([T.BOS, *40 * pair, T.EOS])
    xyz = torch.rand(count, 40, 3, generator=torch.Generator().manual_seed(1)) * 2 - 1
    xyz[:, 0], xyz[:, 1] = torch.tensor([0, -0.5, 0]), torch.tensor([0.3, 0.5, 0])
    distance = torch.minimum((xyz - xyz[:, :1]).norm(dim=-1), (xyz - xyz[:, 1:2]).norm(dim=-1))
    features = torch.zeros(count, len(types), 15)
    features[:, (types == pair[0]).nonzero()[:, 0], XYZ] = xyz
    features[:, (types == pair[-1]).nonzero()[:, 0], POINT_DISTANCE] = distance
    return features, types


def in_a_room(xyz: np.ndarray, distance: np.ndarray, heading: float, gap: float) -> list[float]:
    """Distances to the shape, the floor or the wall, point by point, of numbers."""
    near = sorted(range(len(distance)), key=lambda i: distance[i])[: len(distance) // 4]
    found = []
    for x, d in zip(xyz, distance, strict=True):
        to_plane = []
        for axis, behind in (((0, 1, 0), 0), ((np.cos(heading), 0, np.sin(heading)), gap)):
            along = [sum(a * b for a, b in zip(axis, point, strict=True)) for point in xyz]
            low = min(min(along[i] - distance[i] for i in near), min(along + distance))
            to_plane.append(abs(sum(a * b for a, b in zip(axis, x, strict=True)) - (max(low, -1) - behind)))
        found.append(min(d, *to_plane))
    return found


@pytest.mark.parametrize("qa", [False, True])
def test_distances_in_a_room_are_those_of_its_plain_twin(qa: bool) -> None:
    features, types = stools(40, qa)
    found = cluttered(features, types, AugmentFlags(clutter=0.5), (0, 3), 5)
    answers = (types == (T.A_POINT if qa else T.POINT)).nonzero()[:, 0]
    questions = answers - int(qa)
    rooms = 0
    for row in range(40):
        rng = np.random.default_rng([0, 3, 5 + row, 7_003])
        heading, gap, drawn = rng.uniform(0, 2 * np.pi), rng.uniform(0, GAP), rng.random()
        xyz, distance = features[row, questions, XYZ].numpy(), features[row, answers, POINT_DISTANCE].numpy()
        wanted = in_a_room(xyz, distance, heading, gap) if drawn < 0.5 else distance
        np.testing.assert_allclose(found[row, answers, POINT_DISTANCE], wanted, atol=1e-6)
        rooms += drawn < 0.5
    assert 10 < rooms < 30
    others = found.clone()
    others[:, answers, POINT_DISTANCE] = features[:, answers, POINT_DISTANCE]
    assert torch.equal(others, features)  # nothing else has changed


def test_a_room_is_around_the_shape() -> None:
    features, types = stools(200)
    points = types == T.POINT
    before = features[:, points]
    after = cluttered(features, types, AugmentFlags(clutter=1.0), (0, 3), 0)[:, points, POINT_DISTANCE]
    assert (after <= before[..., POINT_DISTANCE]).all()
    closer = (after < before[..., POINT_DISTANCE] - 1e-6).float().mean()
    assert 0.2 < closer < 0.9
    # the two points of the shape, among them the one the floor is below, keep the distance 0
    assert (after[:, :2] == 0).all()
    low = before[:, :, 1] < -0.99
    assert (after[low] <= 0.5).all()  # the floor is at -0.5 or lower, but not below the ball


def test_how_low_a_shape_reaches() -> None:
    along, distance = torch.tensor([0.0, 0.2, -0.4, 0.9]), torch.tensor([0.1, 0.5, 0.6, 0.7])
    assert float(reach(along, distance)) == pytest.approx(-0.1)  # one of four points is next to the shape
    # what the third point is nearest to is lower than that
    assert float(reach(along - torch.tensor([0, 0, 0.5, 0]), distance)) == pytest.approx(-0.3)
    assert float(reach(along - 2, distance)) == -1


def test_what_is_asked_is_of_the_room_too() -> None:
    features, types = stools(4)
    none = torch.zeros(4).long()
    batch = Batch(features, types.expand(4, -1), none, torch.arange(4), none.bool(), first=0, samples=4)
    flags = AugmentFlags(clutter=1.0, turn=1.0, scale_min=0.5)
    found = arrange(batch, torch.arange(4), 20, 20, (0, 3), flags)
    context = found.features[:, 1:21, POINT_DISTANCE]
    room = cluttered(features, types, flags, (0, 3), 0)
    assert not torch.equal(room, features)
    wanted = placed(room, flags, (0, 3), 0)[:, types == T.POINT, POINT_DISTANCE]
    seen = torch.cat([context, found.distance], 1)
    torch.testing.assert_close(seen.sort(1).values, wanted.sort(1).values)


def test_a_room_takes_no_rays() -> None:
    features, types = stools(2)
    missing = torch.where(types == T.EOS, int(T.MISSING_RAY), types)
    torch.testing.assert_close(
        cluttered(features, missing, AugmentFlags(clutter=1.0), (0, 3), 0),
        cluttered(features, types, AugmentFlags(clutter=1.0), (0, 3), 0),
    )
    with pytest.raises(ValueError, match=r"clutter must be 0 where samples have rays \(n_ray 0 has none\), got 0.3"):
        cluttered(features, torch.where(types == T.EOS, int(T.RAY), types), AugmentFlags(clutter=0.3), (0, 3), 0)
    of_each = torch.stack([missing, torch.where(types == T.EOS, int(T.RAY), types)])  # the first one's were dropped
    with pytest.raises(ValueError, match="clutter must be 0 where samples have rays"):
        cluttered(features, of_each, AugmentFlags(clutter=0.3), (0, 3), 0)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"answer_shift": -1.0}, r"answer_shift must lie in \[0, 1\], got -1.0"),
        ({"turn": 2.0}, r"turn must lie in \[0, 1\], got 2.0"),
        ({"clutter": 1.5}, r"clutter must lie in \[0, 1\], got 1.5"),
        ({"scale_min": 0.0}, r"scale_min must lie in \(0, 1\], got 0.0"),
    ],
)
def test_flags_are_checked(given: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AugmentFlags(**given)
