"""Fine-tuning: sizes from the checkpoint, exact resume, honest figures, and requests that make no sense."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nepa3d import cli
from nepa3d.cli.flags import build
from nepa3d.models.checkpoint import load_checkpoint, read_tensors
from nepa3d.probes.scores import draw_confusion, score
from nepa3d.train import finetune_cls, finetune_loop
from nepa3d.train.finetune_cls import Config, start
from nepa3d.train.finetune_loop import predict

COMMON = ["--cache_root", "cache", "--batch", "8", "--num_workers", "0", "--val_ratio", "0.25"]


def run(folder: Path, *flags: str, ckpt: str = "nepa_v1.pt", epochs: int = 2) -> int:
    try:
        return finetune_cls.main(
            [*COMMON, "--save_dir", f"{folder}", "--ckpt", ckpt, "--epochs", f"{epochs}", "--lr", "1e-3", *flags]
        )
    except SystemExit as stopped:
        assert isinstance(stopped.code, int)
        return stopped.code


def weights(folder: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = read_tensors(folder / "last.pt")["model"]
    return found


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(value, b[key]) for key, value in a.items())


def test_a_run_leaves_what_the_document_says(golden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path) == cli.EXIT_OK
    shown = capsys.readouterr().out
    assert "test accuracy" in shown
    assert "always the commonest class" in shown
    last = read_tensors(tmp_path / "last.pt")
    assert 0 <= last["test_acc"] <= 1
    assert 0 <= last["val_acc"] <= 1
    assert (last["args"]["n_point"], last["args"]["n_ray"], last["args"]["qa_tokens"]) == (32, 16, 0)
    assert read_tensors(tmp_path / "best.pt")["epoch"] == last["best_epoch"]
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["test_acc"] == last["test_acc"]
    assert np.sum(result["confusion"]) == result["n_test"] == 12
    assert not (tmp_path / "state.pt").exists()
    assert run(tmp_path) == cli.EXIT_OK  # which now is done
    assert "is there already" in capsys.readouterr().out


def test_training_changes_what_is_predicted(golden: Path, tmp_path: Path) -> None:
    losses = []
    given = {"cache_root": "cache", "save_dir": f"{tmp_path}", "ckpt": "nepa_qa.pt", "num_workers": 0}
    state = start(build(Config, given | {"lr": 3e-3, "val_ratio": 0}))
    for _ in range(12):
        losses.append(finetune_loop.train_epoch(state))
        state.epoch += 1
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize("backend", ["mesh", "voxel", "udfgrid"])
def test_views_may_differ_between_training_and_test(golden: Path, tmp_path: Path, backend: str) -> None:
    assert run(tmp_path, "--train_backend", backend, "--eval_backend", "pointcloud", epochs=1) == cli.EXIT_OK


def test_workers_do_not_matter_and_seeds_do(golden: Path, tmp_path: Path) -> None:
    assert run(tmp_path / "a") == cli.EXIT_OK
    assert run(tmp_path / "b", "--num_workers", "2") == cli.EXIT_OK
    assert run(tmp_path / "c", "--seed", "1") == cli.EXIT_OK
    assert same(weights(tmp_path / "a"), weights(tmp_path / "b"))
    assert not same(weights(tmp_path / "a"), weights(tmp_path / "c"))


def test_classes_with_fewer_shapes_than_shots_are_named(
    golden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """T32: on stderr before training, again where the run is done, and in its result."""
    assert run(tmp_path / "many", "--fewshot_k", "40", epochs=1) == cli.EXIT_OK
    said = capsys.readouterr().err
    result = json.loads((tmp_path / "many" / "result.json").read_text(encoding="utf-8"))
    counts = result["fewshot_short"]
    assert sorted(counts) == result["classes"] and sum(counts.values()) == result["n_train"]
    told = ", ".join(f"{name} {count}" for name, count in counts.items())
    warning = f"warning: fewshot_k 40 is more than these classes have training shapes, all of which are used: {told}\n"
    assert said.startswith(warning)
    assert run(tmp_path / "many", "--fewshot_k", "40", epochs=1) == cli.EXIT_OK
    assert capsys.readouterr().err == warning
    assert read_tensors(tmp_path / "many" / "last.pt")["fewshot_short"] == counts
    for name, flags in {"few": ("--fewshot_k", "2"), "all": ()}.items():
        assert run(tmp_path / name, *flags, epochs=1) == cli.EXIT_OK
        assert "warning" not in capsys.readouterr().err
        assert json.loads((tmp_path / name / "result.json").read_text(encoding="utf-8"))["fewshot_short"] == {}


def test_an_interrupted_run_ends_bit_equal(golden: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(tmp_path / "whole", epochs=4) == cli.EXIT_OK
    monkeypatch.setattr(finetune_loop, "KEEP_EVERY", 0.0)
    step = finetune_loop.train_epoch

    def interrupted(state: Any) -> float:
        if state.epoch == 2:
            raise KeyboardInterrupt
        return step(state)

    with monkeypatch.context() as patch:
        patch.setattr(finetune_loop, "train_epoch", interrupted)
        assert run(tmp_path / "parts", epochs=4) == cli.EXIT_INTERRUPTED
    assert not (tmp_path / "parts" / "last.pt").exists()
    assert run(tmp_path / "parts", "--seed", "3", epochs=4) == cli.EXIT_USAGE  # another run's state
    assert run(tmp_path / "parts", epochs=4) == cli.EXIT_OK
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "parts"))
    results = [json.loads((tmp_path / name / "result.json").read_text()) for name in ("whole", "parts")]
    assert results[0]["test_acc"] == results[1]["test_acc"]


def test_a_frozen_backbone_stays(golden: Path, tmp_path: Path) -> None:
    assert run(tmp_path, "--freeze_backbone") == cli.EXIT_OK
    before = load_checkpoint("nepa_v1.pt").model
    after = weights(tmp_path)
    assert all(torch.equal(value, after[f"backbone.{key}"]) for key, value in before.items())


def test_few_shots_and_monte_carlo(golden: Path, tmp_path: Path) -> None:
    flags = ["--fewshot_k", "2", "--fewshot_seed", "1", "--mc_eval_k_val", "1", "--mc_eval_k_test", "3"]
    assert run(tmp_path, *flags) == cli.EXIT_OK
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["n_train"] == 2 * len(result["classes"])
    given = {"cache_root": "cache", "save_dir": f"{tmp_path / 'x'}", "ckpt": "nepa_v1.pt", "num_workers": 0}
    state = start(build(Config, given))
    paths = state.sets.test
    averaged = predict(state, paths, 3)
    assert averaged.shape == (len(paths), len(state.sets.classes))
    assert np.abs(averaged - predict(state, paths, 1)).max() > 1e-6
    np.testing.assert_array_equal(averaged, predict(state, paths, 3))


def test_scratch_needs_no_checkpoint(golden: Path, tmp_path: Path) -> None:
    sizes = ["--n_point", "8", "--n_ray", "4", "--d_model", "16", "--layers", "1", "--heads", "2"]
    assert run(tmp_path, *sizes, ckpt="") == cli.EXIT_OK
    assert read_tensors(tmp_path / "last.pt")["args"]["qa_tokens"] == 0


@pytest.mark.parametrize(
    ("flags", "fault"),
    [
        (["--n_point", "40"], "make 58 tokens, nepa_v1.pt has 50"),
        (["--qa_tokens", "1"], "qa_tokens must be 0"),
        (["--backend", "cloud"], "backend must be one of"),
        (["--val_ratio", "1"], "val_ratio must lie in"),
        (["--mc_eval_k_test", "0"], "mc_eval_k_test must be at least 1"),
        (["--cache_root", "nowhere"], "nowhere"),
        (["--ckpt", "nowhere.pt"], "there is no such checkpoint"),
    ],
)
def test_requests_that_make_no_sense(
    golden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], fault: str
) -> None:
    assert run(tmp_path, *flags) == cli.EXIT_USAGE
    assert fault in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "last.pt").exists()


class TestScores:
    CLASSES = ("a", "b", "c")

    def test_by_hand(self) -> None:
        labels = np.array([0, 0, 0, 0, 1, 1])
        found = score(np.array([0, 0, 0, 2, 1, 0]), labels, self.CLASSES)
        assert found.accuracy == pytest.approx(4 / 6)
        assert found.balanced_accuracy == pytest.approx((3 / 4 + 1 / 2) / 2)
        assert found.majority == pytest.approx(4 / 6)
        assert found.confusion.tolist() == [[3, 0, 1], [1, 1, 0], [0, 0, 0]]
        assert "no better than" in found.alarm()

    def test_collapse_rings_and_good_predictions_do_not(self) -> None:
        labels = np.repeat([0, 1, 2], 20)
        assert "nearly all predictions are b" in score(np.ones(60, int), labels, self.CLASSES).alarm()
        assert score(labels, labels, self.CLASSES).alarm() == ""

    def test_picture(self, tmp_path: Path) -> None:
        pytest.importorskip("matplotlib")
        labels = np.repeat([0, 1, 2], 20)
        draw_confusion(score(labels, labels, self.CLASSES), self.CLASSES, tmp_path / "a.png")
        assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
