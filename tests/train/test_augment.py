"""Augmented samples: exact answers stay exact, and every sample's change is its own."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nepa3d.corpora.scanner import turn
from nepa3d.samples.schema import POINT_DISTANCE, RAY_DIRECTION, RAY_ORIGIN, RAY_T, XYZ, TokenType
from nepa3d.train.augment import AugmentFlags, placed, unsettled

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


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"answer_shift": -1.0}, r"answer_shift must lie in \[0, 1\], got -1.0"),
        ({"turn": 2.0}, r"turn must lie in \[0, 1\], got 2.0"),
        ({"scale_min": 0.0}, r"scale_min must lie in \(0, 1\], got 0.0"),
    ],
)
def test_flags_are_checked(given: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AugmentFlags(**given)
