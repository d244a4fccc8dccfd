"""What a classifier's head reads, by hand."""

from __future__ import annotations

import pytest
import torch

from nepa3d.models.classifier import Classifier, Readout, read_out
from nepa3d.models.query_nepa import QueryNepa
from nepa3d.samples.schema import FEATURE_DIM, TokenType

TYPES = torch.tensor([[TokenType.BOS, TokenType.POINT, TokenType.POINT, TokenType.MISSING_RAY, TokenType.EOS]] * 2)
HIDDEN = torch.tensor(
    [
        [[9.0, -9], [1, 2], [3, -2], [8, 8], [5, 6]],
        [[9.0, -9], [-1, -2], [-3, -6], [8, 8], [7, 4]],
    ]
)


@pytest.mark.parametrize(
    ("readout", "expected"),
    [
        ("eos", [[5, 6], [7, 4]]),
        ("mean", [[2, 0], [-2, -4]]),
        ("max", [[3, 2], [-1, -2]]),
    ],
)
def test_missing_rays_are_not_read(readout: Readout, expected: list[list[float]]) -> None:
    assert read_out(HIDDEN, TYPES, readout).tolist() == expected


def test_an_answer_of_the_qa_form_is_read_and_its_question_is_not() -> None:
    types = torch.tensor([[TokenType.BOS, TokenType.Q_POINT, TokenType.A_POINT, TokenType.A_RAY, TokenType.EOS]] * 2)
    assert read_out(HIDDEN, types, "mean").tolist() == [[5.5, 3], [2.5, 1]]


@pytest.mark.parametrize("readout", ["mean", "max"])
def test_no_answer_no_mean(readout: Readout) -> None:
    types = torch.where(TYPES == TokenType.POINT, TokenType.MISSING_RAY, TYPES)
    types = torch.cat([TYPES[:1], types[1:]])
    with pytest.raises(ValueError, match=f"readout {readout} needs a token with an answer"):
        read_out(HIDDEN, types, readout)


def test_an_unknown_readout() -> None:
    with pytest.raises(ValueError, match="readout must be one of eos, mean, max, got 'last'"):
        Classifier(tiny(), 3, readout="last")  # type: ignore[arg-type]


def test_the_head_sees_standardised_values() -> None:
    torch.manual_seed(0)
    model = Classifier(tiny(), 3, readout="mean", standardize=True)
    features = torch.rand(6, TYPES.shape[1], FEATURE_DIM)
    types = TYPES[:1].expand(6, -1)
    read = read_out(model.backbone(features, types)[2], types, "mean")
    scaled = (read - read.mean(0)) / (read.var(0, correction=0) + 1e-5).sqrt()
    torch.testing.assert_close(model(features, types), model.head(scaled))
    model.eval()  # after one batch the running moments are a tenth of the way from 0 and 1
    moved = (read - 0.1 * read.mean(0)) / (0.9 + 0.1 * read.var(0) + 1e-5).sqrt()
    torch.testing.assert_close(model(features, types), model.head(moved))


def tiny() -> QueryNepa:
    return QueryNepa(d_model=8, n_types=9, nhead=2, num_layers=1, max_len=TYPES.shape[1])
