"""What tokens are told: bound answers, places in space, and nothing of what they do not have."""

from __future__ import annotations

import math

import pytest
import torch

from nepa3d.models.token_features import FOURIER_DIM, bind, distance_features, expand, fourier, places
from nepa3d.samples.schema import POINT_DISTANCE, RAY_DIRECTION, RAY_HIT, RAY_ORIGIN, RAY_T, XYZ, TokenType

T = TokenType


def qa_sequence() -> tuple[torch.Tensor, torch.Tensor]:
    """A point, a ray that hits and one that misses, as questions and answers, and EOS."""
    types = torch.tensor([[T.BOS, T.Q_POINT, T.A_POINT, T.Q_RAY, T.A_RAY, T.Q_RAY, T.A_RAY, T.EOS]])
    features = torch.zeros(1, 8, 15)
    features[0, 1, XYZ] = torch.tensor([0.1, 0.2, 0.3])
    features[0, 2, POINT_DISTANCE] = 0.25
    for question in (3, 5):
        features[0, question, RAY_ORIGIN] = torch.tensor([2.0, 0.0, 0.0])
        features[0, question, RAY_DIRECTION] = torch.tensor([-1.0, 0.0, 0.0])
    features[0, 4, XYZ] = torch.tensor([0.5, 0.0, 0.0])
    features[0, 4, RAY_T], features[0, 4, RAY_HIT] = 1.5, 1.0
    return features, types


def test_answers_hold_their_questions() -> None:
    features, types = qa_sequence()
    bound = bind(features, types)
    assert bound[0, 2, XYZ].tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert bound[0, 2, POINT_DISTANCE] == 0.25
    assert bound[0, 4, RAY_ORIGIN].tolist() == [2, 0, 0]
    assert bound[0, 4, XYZ].tolist() == [0.5, 0, 0]  # its own, as the question has none
    questions = [0, 1, 3, 5, 7]
    assert torch.equal(bound[:, questions], features[:, questions])


def test_places_are_points_and_hits() -> None:
    features, types = qa_sequence()
    found = places(bind(features, types), types)
    assert found.points[0, :, 3].tolist() == [0, 1, 1, 0, 1, 0, 0, 0]
    assert found.points[0, 4, :3].tolist() == [0.5, 0, 0]
    assert found.distance[0].tolist() == [0, 0, 0.25, 0, 0, 0, 0, 0]
    assert (found.points[found.points[..., 3] == 0] == 0).all()


def test_fourier_features() -> None:
    found = fourier(torch.tensor([0.25]))
    assert found.shape == (12,)
    rates = [math.pi / 2 * 2**k for k in range(6)]
    expected = [math.sin(0.25 * rate) for rate in rates] + [math.cos(0.25 * rate) for rate in rates]
    assert found.tolist() == pytest.approx(expected, abs=1e-6)


def test_distance_features() -> None:
    found = distance_features(torch.tensor([0.05]))[0].tolist()
    wide = math.log(2) / 2
    near = [math.exp(-0.05 / scale) for scale in (0.01, 0.03, 0.1)]
    assert found == pytest.approx([wide, *near, 0.0025, math.sin(2 * wide), math.sin(4 * wide), math.cos(4 * wide)])


def test_a_token_is_not_told_what_it_does_not_have() -> None:
    """Sines of 0 are 0, their cosines are not: they must be left out, too."""
    features, types = qa_sequence()
    found = expand(bind(features, types), types)
    assert found.shape == (1, 8, FOURIER_DIM)
    assert (found[0, [0, 7]] == 0).all()
    coordinates, directions = found[0, :, :36], found[0, :, 72:108]
    assert (coordinates[[3, 5, 6]] == 0).all() and (coordinates[[1, 2, 4]] != 0).any(1).all()
    assert (directions[[1, 2]] == 0).all() and (directions[3:7] != 0).any(1).all()
    assert (found[0, 1, 108:] == 0).all()  # a question has no answer


def test_no_answer_is_in_its_question() -> None:
    features, types = qa_sequence()
    other = features.clone()
    other[0, 2, POINT_DISTANCE], other[0, 4, RAY_T] = 0.5, 1.0
    a, b = (expand(bind(x, types), types) for x in (features, other))
    questions = [1, 3, 5]
    assert torch.equal(a[:, questions], b[:, questions])
