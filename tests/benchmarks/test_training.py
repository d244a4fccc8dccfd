"""The training benchmark's ways agree, and it says so where they do not; attention's answers are compared."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks import attention, training
from nepa3d import cli
from nepa3d.ops.attention import dual_mask

TINY = ["--cache_root", "cache", "--batch", "4", "--n_point", "8", "--n_ray", "4", "--d_model", "16", "--layers", "1"]
TINY += ["--heads", "2", "--rounds", "2", "--no-compiled"]


def test_rows_and_file(golden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert training.main([*TINY, "--results", f"{tmp_path}"]) == cli.EXIT_OK
    assert capsys.readouterr().out.count(training.PLAIN) == 2
    (path,) = tmp_path.iterdir()
    rows = json.loads(path.read_text())["rows"]
    assert [row["way"] for row in rows if row["corpus"] == "mesh"] == [training.PLAIN, "nepa3d"]
    losses = [row["loss"] for row in rows if row["corpus"] != "mesh"]
    assert losses == pytest.approx(3 * [losses[0]], abs=training.TOLERANCE["cpu"])
    assert all(len(row["seconds"]) == 2 for row in rows)


def test_another_loss_is_refused(
    golden: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(training, "nepa_loss", lambda *_: torch.ones((), requires_grad=True))
    assert training.main([*TINY, "--results", f"{tmp_path}"]) == cli.EXIT_USAGE
    assert "the loss of nepa3d is" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_attention_needs_a_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    assert attention.main([]) == cli.EXIT_USAGE
    assert "needs a GPU" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_attentions_agree() -> None:
    found = attention.ways(70, torch.device("cpu"), compiled=False)
    q, k, v = torch.randn(3, 1, 2, 70, 16, generator=torch.Generator().manual_seed(0)).unbind()
    expected = found[attention.MASKED](q, k, v)
    for way in (attention.OURS, attention.FLEX):
        torch.testing.assert_close(found[way](q, k, v), expected)
    assert not torch.allclose(found[attention.CAUSAL](q, k, v), expected)


def test_a_wrong_attention_is_refused() -> None:
    found = attention.ways(40, torch.device("cpu"), compiled=False)
    found[attention.FLEX] = found[attention.MASKED]  # on the CPU it has no gradient
    tensors = attention.inputs(attention.Config(batch=2), 40, torch.device("cpu"))
    attention.require_agreement(found, tensors, 40)
    other = dual_mask(40, attention.DualMask(0.4, 0.1, 32, 2))
    found[attention.OURS] = lambda q, k, v: torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=other)
    with pytest.raises(ValueError, match=r"nepa3d at T = 40: error"):
        attention.require_agreement(found, tensors, 40)
