"""The training benchmark's ways agree, and it says so where they do not; attention's answers are compared."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml

from benchmarks import attention, attention_cpu, recipe, training
from nepa3d import cli
from nepa3d.execution.files import find_config
from nepa3d.ops.attention import dual_mask, pack_edges

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


@pytest.fixture
def small_recipe(tmp_path: Path) -> Path:
    """The recipe with few questions."""
    content = yaml.safe_load(find_config("nepa3d/configs/query.yaml").read_text())
    content["flags"] |= {"uniform_prob": 0.0, "n_point": 12, "context_min": 4, "context_max": 6, "blind": 4}
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_the_recipe_stands_beside_the_document(
    golden: Path, small_recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "results"
    assert recipe.main([*TINY[:-1], "--recipe", f"{small_recipe}", "--results", f"{out}"]) == cli.EXIT_OK
    assert "seconds a step" in capsys.readouterr().out
    (path,) = out.iterdir()
    rows = json.loads(path.read_text())["rows"]
    ways = [(recipe.DOCUMENT, recipe.OURS), (recipe.DOCUMENT, training.PLAIN)]
    assert [(row["objective"], row["way"]) for row in rows] == [
        *ways,
        (recipe.RECIPE, recipe.OURS),
        (recipe.RECIPE, recipe.WHOLE),
    ]
    losses = [row["loss"] for row in rows]
    assert losses[1::2] == pytest.approx(losses[::2], abs=training.TOLERANCE["cpu"]) and losses[0] != losses[2]
    assert all(len(row["seconds"]) == 2 for row in rows)


def test_another_loss_of_the_recipe_is_refused(
    golden: Path,
    small_recipe: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(recipe, "pack_edges", lambda edges: pack_edges(torch.eye(len(edges), dtype=torch.bool)))
    out = tmp_path / "results"
    assert recipe.main([*TINY[:-1], "--recipe", f"{small_recipe}", "--results", f"{out}"]) == cli.EXIT_USAGE
    assert f"{recipe.RECIPE}: the loss of {recipe.WHOLE} is" in capsys.readouterr().err
    assert not out.exists()


def test_attentions_on_the_cpu(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--problems", "2", "20", "3", "33", "--head_size", "8", "--rounds", "2", "--results", f"{tmp_path}"]
    flags += ["--contexts", "2", "24", "9"]
    assert attention_cpu.main(flags) == cli.EXIT_OK
    assert "3 x 33" in capsys.readouterr().out
    (path,) = tmp_path.iterdir()
    rows = json.loads(path.read_text())["rows"]
    names = [attention_cpu.FUSED, attention_cpu.PLAIN, attention_cpu.OURS, attention_cpu.KEYS]
    expected = [(length, way) for length in (20, 33) for way in names]
    expected += [(24, way) for way in names if way != attention_cpu.OURS]  # of a bias there is no plain mask
    assert [(row["length"], row["way"]) for row in rows] == expected
    assert all(row["times"]["runs"] == 2 for row in rows)


@pytest.mark.parametrize("kind", [attention_cpu.DUAL, attention_cpu.DISTANCES])
def test_a_wrong_attention_on_the_cpu_is_refused(kind: str) -> None:
    config = attention_cpu.Config()
    dual = kind == attention_cpu.DUAL
    problem = attention_cpu.with_dual_mask(config, 2, 40) if dual else attention_cpu.with_distances(config, 2, 40, 11)
    attention_cpu.require_agreement(problem.ways, problem.tensors)
    causal = torch.ones(40, 40, dtype=torch.bool).tril()
    problem.ways[attention_cpu.KEYS] = lambda q, k, v: attention_cpu.plain_product(q, k, v, causal)
    with pytest.raises(ValueError, match="nepa3d, columns in use at T = 40: error"):
        attention_cpu.require_agreement(problem.ways, problem.tensors)
