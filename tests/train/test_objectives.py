"""The losses by hand, and the choice of masked tokens."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from nepa3d.cli import flags
from nepa3d.samples.schema import TokenType as T
from nepa3d.train import pretrain
from nepa3d.train.objectives import OBJECTIVES, choose_masked, hide, mae_loss, nepa_loss

X, Y = [1.0, 0.0], [0.0, 1.0]


def test_nepa_compares_with_the_next_token() -> None:
    z = torch.tensor([[X, Y, X]])
    z_hat = torch.tensor([[Y, Y, X]])  # right, wrong by 90 degrees, not asked
    types = torch.tensor([[T.BOS, T.POINT, T.EOS]])
    assert nepa_loss(z, z_hat, types).item() == pytest.approx(0.5)


def test_nepa_leaves_out_missing_rays() -> None:
    z, z_hat = torch.tensor([[X, X, Y, X]]), torch.tensor([[X, X, Y, X]])
    types = torch.tensor([[T.BOS, T.POINT, T.MISSING_RAY, T.EOS]])
    assert nepa_loss(z, z_hat, types).item() == pytest.approx((0 + 1) / 2)


def test_nepa_asks_for_answers_only_where_there_are_any() -> None:
    z = torch.tensor([[X, Y, X, Y, X]])
    z_hat = torch.tensor([[X, X, Y, Y, Y]])
    types = torch.tensor([[T.BOS, T.Q_POINT, T.A_POINT, T.MISSING_RAY, T.EOS]])
    assert nepa_loss(z, z_hat, types).item() == pytest.approx(0.0)


def test_targets_get_no_gradient() -> None:
    z, z_hat = (torch.randn(1, 4, 3, requires_grad=True) for _ in range(2))
    nepa_loss(z, z_hat, torch.tensor([[T.BOS, T.POINT, T.POINT, T.EOS]])).backward()
    assert z.grad is None
    assert z_hat.grad is not None
    assert not z_hat.grad[:, -1].any()


def test_mae_by_hand() -> None:
    z, z_hat = torch.tensor([[X, X, X]]), torch.tensor([[Y, Y, [3.0, 0.0]]])
    masked = torch.tensor([[False, True, True]])
    assert mae_loss(z, z_hat, masked).item() == pytest.approx((1.0 + 2.0) / 2)


def test_masks_leave_bos_and_eos_and_have_their_size() -> None:
    types = np.array([[T.BOS] + 9 * [T.POINT] + [T.EOS], [T.BOS] + 10 * [T.RAY]], np.int64)
    masked = choose_masked(types, 0.4, (0,))
    assert masked.sum(1).tolist() == [3, 4]
    assert not masked[:, 0].any()
    assert not masked[0, -1]
    assert not np.array_equal(masked, choose_masked(types, 0.4, (1,)))
    np.testing.assert_array_equal(masked, choose_masked(types, 0.4, (0,)))


def test_a_rows_mask_does_not_depend_on_the_other_rows() -> None:
    types = np.array(3 * [[T.BOS, *9 * [T.POINT], T.EOS]], np.int64)
    whole = choose_masked(types, 0.4, (0, 7))
    np.testing.assert_array_equal(choose_masked(types[1:], 0.4, (0, 7), first=1), whole[1:])


def test_hide() -> None:
    features = torch.ones(1, 3, 15)
    hidden = hide(features, torch.tensor([[False, True, False]]))
    assert hidden.sum(-1).tolist() == [[15, 0, 15]]
    assert features.min() == 1


def test_an_objective_is_one_row(golden: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file and a row: here an absolute error on masked tokens, added at run time."""

    def absolute_errors(target: Tensor, z_hat: Tensor) -> Tensor:
        return (z_hat.float() - target.detach().float()).abs().mean(-1)

    monkeypatch.setitem(OBJECTIVES, "toy", replace(OBJECTIVES["mae"], errors=absolute_errors))
    sizes = {"n_point": 8, "n_ray": 4, "d_model": 16, "layers": 1, "heads": 2, "batch": 4, "mix_num_samples": 8}
    given = {"mix_config": "mix.yaml", "save_dir": f"{tmp_path}", "objective": "toy", "epochs": 1, "num_workers": 0}
    pretrain.command(flags.build(pretrain.Config, given | sizes))
    losses = (tmp_path / "loss.jsonl").read_text().splitlines()
    assert len(losses) == 2
    assert not (tmp_path / "diagnostics.jsonl").exists()  # nothing is claimed of a loss that is not nepa's
    with pytest.raises(ValueError, match="objective must be one of nepa, mae, answer, align, query, toy, got 'other'"):
        flags.build(pretrain.Config, given | {"objective": "other"})
