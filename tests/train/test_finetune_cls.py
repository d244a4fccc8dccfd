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
from nepa3d.models.checkpoint import build_model, load_checkpoint, read_tensors
from nepa3d.probes.scores import draw_confusion, score
from nepa3d.samples.labelled import Sets, training_batches
from nepa3d.train import finetune_cls, finetune_loop
from nepa3d.train.finetune_cls import Config, start
from nepa3d.train.finetune_loop import class_weights, predict
from tests.commands import status_of

COMMON = ["--cache_root", "cache", "--batch", "8", "--num_workers", "0", "--val_ratio", "0.25"]


def run(folder: Path, *flags: str, ckpt: str = "nepa_v1.pt", epochs: int = 2) -> int:
    given = ["--save_dir", f"{folder}", "--ckpt", ckpt, "--epochs", f"{epochs}", "--lr", "1e-3", *flags]
    return status_of(finetune_cls.main, [*COMMON, *given])


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
    assert run(tmp_path, "--lr", "0.5", "--cache_root", "nowhere") == cli.EXIT_USAGE
    said = capsys.readouterr().err
    assert "last.pt: is of a run with other settings (cache_root cache -> nowhere; lr " in said
    assert "-> 0.5): delete it to start anew" in said


def test_sizes_left_out_are_those_of_pretraining_also_where_a_result_is_there(
    golden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A result of 8 points was once given out for one of 256, which the checkpoint was trained with."""
    given = {"ckpt": "furniture-small", "epochs": 1}
    assert run(tmp_path, "--n_point", "8", "--n_ray", "0", **given) == cli.EXIT_OK
    record = (tmp_path / "finetune_cls.config.yaml").read_bytes()
    capsys.readouterr()
    assert run(tmp_path, **given) == cli.EXIT_USAGE
    assert "last.pt: is of a run with other settings (n_point 8 -> 256)" in capsys.readouterr().err
    assert run(tmp_path, "--n_point", "8", **given) == cli.EXIT_OK
    assert (tmp_path / "finetune_cls.config.yaml").read_bytes() == record


def test_without_validation_there_is_no_best_figure(
    golden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, "--val_ratio", "0", epochs=1) == cli.EXIT_OK
    assert json.loads((tmp_path / "result.json").read_text())["val_acc"] is None
    assert ["best", "validation", "none"] in [line.split() for line in capsys.readouterr().out.splitlines()]


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
        (["--ckpt", "nowhere.pt"], "nowhere.pt: expected a checkpoint"),
        (["--d_model", "16", "--heads", "2"], "d_model, heads: a checkpoint has its own size, leave them out"),
    ],
)
def test_requests_that_make_no_sense(
    golden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], fault: str
) -> None:
    assert run(tmp_path, *flags) == cli.EXIT_USAGE
    assert fault in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "last.pt").exists()


class TestOptions:
    """What finetune_cls can do beyond the document's protocol."""

    @staticmethod
    def config(folder: Path, **given: Any) -> Config:
        common = {"cache_root": "cache", "save_dir": f"{folder}", "num_workers": 0, "val_ratio": 0, "batch": 8}
        return build(Config, common | {"ckpt": "nepa_v1.pt", "lr": 1e-3, "epochs": 2} | given)

    def test_rays_are_not_dropped_for_attention_that_follows_types(self, golden: Path, tmp_path: Path) -> None:
        sizes = {"d_model": 16, "layers": 1, "heads": 2, "n_point": 8, "n_ray": 4}
        config = self.config(tmp_path, ckpt="", answer_keys=1, drop_ray_prob_train=0.5, **sizes)
        with pytest.raises(ValueError, match=r"drop_ray_prob_train must be 0 .* attention follows .* got 0\.5"):
            start(config)

    def test_without_them_it_is_the_documents_protocol(self, golden: Path, tmp_path: Path) -> None:
        config = self.config(tmp_path)
        made = start(config)
        backbone = build_model(load_checkpoint("nepa_v1.pt"))
        torch.manual_seed(0)
        head = torch.nn.Linear(backbone.width, len(made.sets.classes))
        trained = [p for name, p in backbone.named_parameters() if not name.startswith("pred_head")]
        optimizer = torch.optim.AdamW([*trained, *head.parameters()], lr=1e-3, weight_decay=0.05)
        backbone.train()
        for epoch in range(2):
            for features, types, labels in training_batches(made.sets, made.train_reader, 0, epoch, drop_ray_prob=0):
                optimizer.zero_grad()
                logits = head(backbone(features, types)[2][:, -1])
                torch.nn.functional.cross_entropy(logits, labels).backward()
                optimizer.step()
        finetune_loop.train(made, tmp_path)
        expected = {f"backbone.{key}": value for key, value in backbone.state_dict().items()}
        assert same(made.model.state_dict(), expected | {f"head.{k}": v for k, v in head.state_dict().items()})

    def test_the_learning_rate_rises_falls_and_decays_by_layer(
        self, golden: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made = start(
            self.config(tmp_path, schedule="cosine", warmup_frac=0.5, layer_decay=0.5, beta2=0.9, batch=24, epochs=2)
        )
        assert made.optimizer.defaults["betas"] == (0.9, 0.9)
        layers = made.model.backbone.layers
        names = {id(parameter): name for name, parameter in made.model.named_parameters()}
        seen: list[dict[str, float]] = []
        step = made.optimizer.step

        def recorded(*args: Any) -> Any:
            groups = made.optimizer.param_groups
            seen.append({names[id(p)]: group["lr"] for group in groups for p in group["params"]})
            return step(*args)

        monkeypatch.setattr(made.optimizer, "step", recorded)
        finetune_loop.train(made, tmp_path)
        total = len(seen)
        assert total == 2 * -(-len(made.sets.train) // 24)
        assert {*seen[0]} == {name for name, p in made.model.named_parameters() if p.requires_grad}
        for number, rates in enumerate(seen):
            half = total / 2
            rising = 1e-3 * (number + 1) / -(-total // 2)
            rate = rising if number < half else 1e-3 * 0.5 * (1 + np.cos(np.pi * (number - half) / half))
            assert rates["head.weight"] == pytest.approx(rate)
            for layer in range(layers):
                below = layers - layer
                assert rates[f"backbone.backbone.enc.layers.{layer}.norm1.weight"] == pytest.approx(rate * 0.5**below)
            for name in ("type_emb.weight", "pos_emb", "token_mlp.0.bias"):
                assert rates[f"backbone.{name}"] == pytest.approx(rate * 0.5 ** (layers + 1))

    def test_training_samples_turn_about_the_vertical_and_others_do_not(
        self, golden: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def seen_in_an_epoch(**given: Any) -> torch.Tensor:
            made, seen = start(self.config(tmp_path, **given)), list[torch.Tensor]()
            made.model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
            finetune_loop.train_epoch(made)
            count = len(seen)
            finetune_loop.predict(made, made.sets.test, 1)
            tested.append(torch.cat(seen[count:]))
            return torch.cat(seen[:count])

        tested: list[torch.Tensor] = []
        still, turned = seen_in_an_epoch(), seen_in_an_epoch(turn=1.0)
        x, height, z = 0, 1, 2
        torch.testing.assert_close(turned[..., height], still[..., height])
        torch.testing.assert_close(turned[..., [x, z]].norm(dim=-1), still[..., [x, z]].norm(dim=-1))
        assert (turned[:, 1, x] - still[:, 1, x]).abs().gt(1e-3).sum() > 0.8 * len(still)
        angle = torch.atan2(turned[..., z], turned[..., x]) - torch.atan2(still[..., z], still[..., x])
        assert len(angle[:, 1].remainder(2 * torch.pi).round(decimals=3).unique()) > 0.8 * len(still)
        assert torch.equal(tested[0], tested[1])

    @pytest.mark.parametrize("change", [{"answer_shift": 0.05}, {"answer_noise": 0.05}, {"clutter": 1.0}], ids=str)
    def test_answers_may_be_others_in_training(self, golden: Path, tmp_path: Path, change: dict[str, float]) -> None:
        weights_of = []
        for given in ({}, change):
            made = start(self.config(tmp_path, **given, epochs=1))
            finetune_loop.train_epoch(made)
            weights_of.append({name: value.clone() for name, value in made.model.state_dict().items()})
        assert not same(*weights_of)

    def test_classes_weigh_alike(self) -> None:
        train = [f"r/train/{name}/{number}.npz" for name, count in (("a", 6), ("b", 2)) for number in range(count)]
        weights_of_classes = class_weights(Sets(train, [], [], ["a", "b"]))
        assert weights_of_classes.tolist() == pytest.approx([8 / 12, 2.0])

    def test_balance_changes_the_loss_as_the_weights_say(self, golden: Path, tmp_path: Path) -> None:
        every = start(self.config(tmp_path, batch=1000, epochs=1))
        ((features, types, labels),) = training_batches(every.sets, every.train_reader, 0, 0, drop_ray_prob=0)
        errors = torch.nn.functional.cross_entropy(every.model(features, types), labels, reduction="none").detach()
        weight = class_weights(every.sets)[labels]
        assert finetune_loop.train_epoch(every) == pytest.approx(float(errors.mean()), rel=1e-5)
        balanced = start(self.config(tmp_path, batch=1000, epochs=1, balance=1))
        expected = float((errors * weight).sum() / weight.sum())
        assert finetune_loop.train_epoch(balanced) == pytest.approx(expected, rel=1e-5)

    def test_few_shapes_are_passed_over_until_there_are_steps_enough(self, golden: Path, tmp_path: Path) -> None:
        given = {"fewshot_k": 2, "batch": 4, "epochs": 3}
        few = start(self.config(tmp_path, **given))
        assert (few.steps, few.epochs) == (-(-len(few.sets.train) // 4), 3)
        more = start(self.config(tmp_path, **given, min_steps=7 * few.steps - 1))
        assert (more.steps, more.epochs) == (few.steps, 7)
        assert start(self.config(tmp_path, **given, min_steps=3 * few.steps)).epochs == 3

    def test_epochs_are_selected_by_balanced_accuracy(
        self, golden: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """An epoch that says the commonest class wins by accuracy, and loses by balanced accuracy."""
        labels = np.array([0] * 6 + [1] * 2 + [2] * 2)
        collapsed, fair = np.zeros(10, int), np.array([0, 0, 0, 1, 1, 1, 1, 1, 2, 0])
        best = {}
        for figure in ("accuracy", "balanced"):
            made = start(self.config(tmp_path, val_ratio=0.25, select_by=figure, epochs=2))
            found = iter([score(said, labels, ("a", "b", "c")) for said in (collapsed, fair)])
            monkeypatch.setattr(finetune_loop, "evaluate", lambda *_, found=found: next(found))
            monkeypatch.setattr(finetune_loop, "train_epoch", lambda _: 0.0)
            finetune_loop.train(made, tmp_path)
            best[figure] = (made.best_epoch, made.best_accuracy)
        assert best == {"accuracy": (0, pytest.approx(0.6)), "balanced": (1, pytest.approx((0.5 + 1 + 0.5) / 3))}

    def test_a_fresh_model_may_have_the_recipes_parts(self, golden: Path, tmp_path: Path) -> None:
        sizes = {"ckpt": "", "n_point": 8, "n_ray": 4, "d_model": 16, "layers": 1, "heads": 2}
        made = start(self.config(tmp_path, **sizes, type_std=0.02, position_embedding=0, token_features="fourier"))
        assert made.model.backbone.pos_emb is None
        assert float(made.model.backbone.type_emb.weight.detach().std()) < 0.04
        with pytest.raises(ValueError, match="token_features, type_std: a checkpoint has"):
            self.config(tmp_path, type_std=0.02, token_features="fourier")

    def test_a_run_with_all_of_them_resumes_bit_equal(
        self, golden: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        flags = ["--schedule", "cosine", "--warmup_frac", "0.1", "--layer_decay", "0.7", "--turn", "0.5"]
        flags += ["--readout", "mean", "--standardize", "1", "--clip_grad", "1", "--balance", "1"]
        monkeypatch.setattr(finetune_loop, "KEEP_EVERY", 0.0)
        assert run(tmp_path / "whole", *flags, epochs=3) == cli.EXIT_OK
        step = finetune_loop.train_epoch

        def interrupted(state: Any) -> float:
            if state.epoch == 2:
                raise KeyboardInterrupt
            return step(state)

        with monkeypatch.context() as patch:
            patch.setattr(finetune_loop, "train_epoch", interrupted)
            assert run(tmp_path / "parts", *flags, epochs=3) == cli.EXIT_INTERRUPTED
        assert run(tmp_path / "parts", *flags, epochs=3) == cli.EXIT_OK
        assert same(weights(tmp_path / "whole"), weights(tmp_path / "parts"))
        result = json.loads((tmp_path / "parts" / "result.json").read_text())
        confusion = np.array(result["confusion"])
        assert result["test_majority_share"] == pytest.approx(confusion.sum(0).max() / confusion.sum())

    @pytest.mark.parametrize(
        ("flags", "fault"),
        [
            ({"layer_decay": 0.0}, "layer_decay must lie in"),
            ({"clip_grad": -1.0}, "clip_grad must be at least 0"),
            ({"min_steps": -1}, "min_steps must be at least 0"),
            ({"warmup_frac": 2.0}, "warmup_frac must lie in"),
            ({"turn": 2.0}, "turn must lie in"),
        ],
    )
    def test_options_that_make_no_sense(self, tmp_path: Path, flags: dict[str, float], fault: str) -> None:
        with pytest.raises(ValueError, match=fault):
            self.config(tmp_path, **flags)

    def test_one_shape_has_no_deviation(self, golden: Path, tmp_path: Path) -> None:
        count = len(start(self.config(tmp_path)).sets.train)
        for batch in (count - 1, 1):
            with pytest.raises(ValueError, match=f"standardize needs .* batch {batch} leaves one of {count}"):
                start(self.config(tmp_path, standardize=1, batch=batch))


class TestScores:
    CLASSES = ("a", "b", "c")

    def test_by_hand(self) -> None:
        labels = np.array([0, 0, 0, 0, 1, 1])
        found = score(np.array([0, 0, 0, 2, 1, 0]), labels, self.CLASSES)
        assert found.accuracy == pytest.approx(4 / 6)
        assert found.balanced_accuracy == pytest.approx((3 / 4 + 1 / 2) / 2)
        assert found.majority == pytest.approx(4 / 6)
        assert found.majority_share == pytest.approx(4 / 6)
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
