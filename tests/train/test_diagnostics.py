"""What a loss means: the figures on sequences made by hand, and the alarms on models that cheat."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from nepa3d.samples.schema import TokenType as T
from nepa3d.train.diagnostics import Diagnosis, diagnose, effective_rank

X, Y, Z = [1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]


def qa_types(samples: int, points: int) -> torch.Tensor:
    return torch.tensor([[T.BOS, *points * [T.Q_POINT, T.A_POINT], T.EOS]]).repeat(samples, 1)


def random_targets(samples: int = 24, points: int = 12, width: int = 32) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    types = qa_types(samples, points)
    return torch.randn(*types.shape, width, generator=generator), types


def predicting(target: torch.Tensor) -> torch.Tensor:
    """Predictions that are the next token's target."""
    return torch.cat([target[:, 1:], target[:, :1]], 1)


def test_by_hand() -> None:
    types = torch.tensor([[T.BOS, T.POINT, T.POINT, T.EOS]])
    target = torch.tensor([[X, X, Y, Y]])
    z_hat = torch.tensor([[X, X, Z, X]])  # of the tokens 1, 2, 3: right, copied, neither
    found = diagnose(target, z_hat, target, types, 7)
    assert found.loss == pytest.approx((0 + 1 + 1) / 3)
    assert found.cos_next == pytest.approx(0.0)  # of the tokens 2 and 3, which have a target before them
    assert found.cos_prev == pytest.approx(0.5)
    assert found.copy_win == pytest.approx(0.5)
    assert found.persistence_loss == pytest.approx((1 + 0) / 2)
    assert math.isnan(found.position_type_loss)  # one sample says nothing of others
    assert "position_type_loss" not in found.plain()
    assert found.plain()["gap"] == pytest.approx(-0.5)


def test_answers_are_compared_with_the_answer_before() -> None:
    types = qa_types(1, 2)
    target = torch.tensor([[X, Z, X, Z, Y, Z]])
    found = diagnose(target, predicting(target), target, types, 0)
    assert found.loss == pytest.approx(0.0)
    assert found.cos_prev == pytest.approx(0.0)
    assert found.persistence_loss == pytest.approx(1.0)


def test_a_model_that_knows_raises_no_alarm() -> None:
    target, types = random_targets()
    found = diagnose(target, predicting(target), torch.randn_like(target), types, 100)
    assert found.loss < 1e-5
    assert found.position_type_loss == pytest.approx(1.0, abs=0.1)
    assert found.effective_rank > 20
    assert found.alarms() == []


def test_copying_is_seen() -> None:
    target, types = random_targets()
    target[:, 2::2] = target[:, 2:3] + 0.05 * target[:, 2::2]  # answers that change little
    copied = torch.roll(target, 1, 1)  # at the question: the answer before it
    found = diagnose(target, copied, torch.randn_like(target), types, 100)
    assert found.loss < 0.1  # the first answer has none before it
    assert found.copy_win > 0.9
    assert any("resemble the target before" in alarm for alarm in found.alarms())


def test_targets_of_position_and_type_are_seen() -> None:
    target, types = random_targets()
    target = target[:1] + 0.05 * target  # the same at a place in every sample
    found = diagnose(target, predicting(target), torch.randn_like(target), types, 100)
    assert found.position_type_loss < 0.01
    assert any("the targets hold little of the shape" in alarm for alarm in found.alarms())


def test_a_loss_that_position_and_type_explain_is_seen() -> None:
    target, types = random_targets(samples=200)
    places = torch.randn(1, *target.shape[1:], generator=torch.Generator().manual_seed(1))
    target = F.normalize(places, dim=-1) + F.normalize(target, dim=-1)
    guess = predicting(F.normalize(places, dim=-1).expand_as(target))
    found = diagnose(target, guess, torch.randn_like(target), types, 100)
    assert found.loss == pytest.approx(found.position_type_loss, abs=0.01)
    assert any("hardly below that of position and type alone" in alarm for alarm in found.alarms())


def test_collapse_is_seen() -> None:
    target, types = random_targets()
    states = torch.ones_like(target) + 1e-3 * torch.randn_like(target)
    found = diagnose(target, predicting(target), states, types, 100)
    assert found.spread < 1e-3
    assert any("nearly one" in alarm for alarm in found.alarms())


def test_both_kinds_of_samples_have_their_own_mean() -> None:
    """At one place half of the samples answer about points, half about rays."""
    types = qa_types(8, 1)
    types[4:, 1:3] = torch.tensor([T.Q_RAY, T.A_RAY])
    target = torch.zeros(8, 4, 3)
    target[:4, 2], target[4:, 2] = torch.tensor(X), torch.tensor(Y)
    found = diagnose(target, target, torch.randn(8, 4, 3), types, 0)
    assert found.position_type_loss == pytest.approx(0.0, abs=1e-6)
    assert found.mean_loss == pytest.approx(1 - 0.5**0.5)


def test_effective_rank() -> None:
    assert effective_rank(torch.eye(8)) == pytest.approx(8, rel=1e-5)
    assert effective_rank(torch.ones(50, 8)) == pytest.approx(1, abs=1e-3)
    assert isinstance(Diagnosis(0, *9 * [0.5], 8).plain()["gap"], float)
