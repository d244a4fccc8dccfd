"""Pretraining: it learns, it resumes bit for bit, also after SIGKILL, and it refuses what cannot work."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from nepa3d import cli
from nepa3d.execution.files import TEMPORARY_PREFIX
from nepa3d.models.checkpoint import build_model, load_checkpoint, save_checkpoint
from nepa3d.ops.attention import DualMask
from nepa3d.train import loop, pretrain
from nepa3d.train.corpus import Batch
from nepa3d.train.schedule import DualMaskFlags, LearningRateFlags, Schedule
from tests.commands import errors, status_of

SMALL = ["--mix_config", "mix.yaml", "--mix_num_samples", "48", "--batch", "16", "--lr", "1e-3", "--n_point", "8"]
SMALL += ["--n_ray", "4", "--d_model", "16", "--layers", "1", "--heads", "2", "--num_workers", "0"]
QA = ["--qa_tokens", "1", "--dual_mask_near", "0.4", "--dual_mask_far", "0.1", "--dual_mask_window", "4"]


def run(folder: Path, *more: str) -> int:
    return status_of(pretrain.main, [*SMALL, "--save_dir", f"{folder}", *more])


def losses(folder: Path) -> list[float]:
    lines = [json.loads(line) for line in (folder / "loss.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(len(lines)))
    return [line["loss"] for line in lines]


def assert_same_state(a: Path, b: Path) -> None:
    first, second = load_checkpoint(a), load_checkpoint(b)
    assert (first.epoch, first.step) == (second.epoch, second.step)
    assert all(torch.equal(value, second.model[key]) for key, value in first.model.items())
    for index, state in first.opt["state"].items():
        assert all(torch.equal(value, second.opt["state"][index][key]) for key, value in state.items())


@pytest.mark.parametrize("flags", [QA, ["--objective", "mae"], ["--objective", "nepa"]])
def test_the_loss_falls(golden: Path, tmp_path: Path, flags: list[str]) -> None:
    assert run(tmp_path, "--epochs", "4", "--lr", "3e-3", *flags) == cli.EXIT_OK
    found = losses(tmp_path)
    assert len(found) == 12
    assert sum(found[-3:]) < 0.5 * sum(found[:3])


@pytest.mark.parametrize("flags", [QA, ["--objective", "mae"]])
def test_resumed_is_bit_equal_to_uninterrupted(golden: Path, tmp_path: Path, flags: list[str]) -> None:
    flags = [*flags, "--dual_mask_warmup_frac", "0"]
    assert run(tmp_path / "whole", "--epochs", "3", *flags) == cli.EXIT_OK
    assert run(tmp_path / "parts", "--epochs", "1", *flags) == cli.EXIT_OK
    with (tmp_path / "parts" / "loss.jsonl").open("a") as file:
        file.write('{"step": 3, "epo')  # a killed run may leave half a line
    assert run(tmp_path / "parts", "--epochs", "3", *flags) == cli.EXIT_OK
    assert_same_state(tmp_path / "whole" / "last.pt", tmp_path / "parts" / "last.pt")
    assert losses(tmp_path / "whole") == losses(tmp_path / "parts")


@pytest.mark.parametrize("flags", [QA, ["--objective", "mae"]])
@pytest.mark.parametrize("interrupted_at", [1, 4, 5])
@pytest.mark.parametrize("flush_every", [loop.FLUSH_EVERY, 1])
def test_a_run_goes_on_within_an_epoch(
    golden: Path,
    tmp_path: Path,
    flags: list[str],
    interrupted_at: int,
    flush_every: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Three steps an epoch, last.pt after every second step within it: what was done after it is done again, also where
    the log is ahead of last.pt."""
    monkeypatch.setattr(loop, "FLUSH_EVERY", flush_every)
    flags = [*flags, "--epochs", "2", "--save_steps", "2"]
    assert run(tmp_path / "whole", *flags) == cli.EXIT_OK
    step, steps = loop.train_step, []

    def interrupted(state: loop.Run, *rest: Any) -> torch.Tensor:
        steps.append(state.step)
        if state.step == interrupted_at and steps.count(interrupted_at) == 1:
            raise KeyboardInterrupt
        return step(state, *rest)

    monkeypatch.setattr(loop, "train_step", interrupted)
    assert run(tmp_path / "parts", *flags) == cli.EXIT_INTERRUPTED
    kept = {1: 0, 4: 3, 5: 5}[interrupted_at]
    logged = losses(tmp_path / "parts") if (tmp_path / "parts" / "loss.jsonl").exists() else []
    assert len(logged) == (interrupted_at if flush_every == 1 else kept)
    assert run(tmp_path / "parts", *flags) == cli.EXIT_OK
    assert steps == [*range(interrupted_at + 1), *range(kept, 6)]
    assert_same_state(tmp_path / "whole" / "last.pt", tmp_path / "parts" / "last.pt")
    assert losses(tmp_path / "whole") == losses(tmp_path / "parts")


def test_a_run_that_is_done_keeps_its_record(golden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its flags, not those of who asked for it again, made the weights."""
    assert run(tmp_path, "--epochs", "1") == cli.EXIT_OK
    record = tmp_path / "pretrain.config.yaml"
    before = record.read_bytes()
    assert run(tmp_path, "--epochs", "1", "--lr", "0.5") == cli.EXIT_OK
    assert "lr 0.001 -> 0.5" in capsys.readouterr().out
    assert record.read_bytes() == before
    assert run(tmp_path, "--epochs", "2", "--init", "nepa_v1.pt") == cli.EXIT_OK
    assert "init nepa_v1.pt is not used: the run is resumed" in capsys.readouterr().out
    assert record.read_bytes() != before


def test_another_batch_at_the_end_of_an_epoch_leaves_nothing_out(
    golden: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three steps of 16 samples, then two of 24 and three of 20; within an epoch another batch is refused."""
    samples: list[int] = []
    step = loop.train_step

    def counted(state: loop.Run, batch: Batch) -> torch.Tensor:
        samples.append(batch.samples)
        return step(state, batch)

    monkeypatch.setattr(loop, "train_step", counted)
    for epochs, batch in enumerate(("16", "24", "20"), 1):
        assert run(tmp_path, "--epochs", f"{epochs}", "--batch", batch) == cli.EXIT_OK
    assert samples == [16, 16, 16, 24, 24, 20, 20, 8]


def test_a_fresh_run_does_not_overwrite_another(
    golden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, "--epochs", "1") == cli.EXIT_OK
    before = {path: path.read_bytes() for path in tmp_path.glob("*.pt")}
    assert run(tmp_path, "--epochs", "1", "--auto_resume", "0") == cli.EXIT_USAGE
    assert "would be overwritten by a fresh run: choose another save_dir" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in tmp_path.glob("*.pt")} == before


def test_another_batch_within_an_epoch_is_refused(
    golden: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    step = loop.train_step

    def interrupted(state: loop.Run, batch: Batch) -> torch.Tensor:
        if state.step == 2:
            raise KeyboardInterrupt
        return step(state, batch)

    flags = ["--epochs", "1", "--save_steps", "1"]
    monkeypatch.setattr(loop, "train_step", interrupted)
    assert run(tmp_path, *flags) == cli.EXIT_INTERRUPTED
    monkeypatch.setattr(loop, "train_step", step)
    assert load_checkpoint(tmp_path / "last.pt").batches == 2
    assert run(tmp_path, *flags, "--batch", "8") == cli.EXIT_USAGE
    said = f"batch must be 16 to resume {tmp_path / 'last.pt'}, which has 2 batches of an epoch, got 8"
    assert said in capsys.readouterr().err
    assert run(tmp_path, *flags) == cli.EXIT_OK and len(losses(tmp_path)) == 3


def test_a_checkpoint_that_does_not_say_its_place_in_an_epoch(golden: Path, tmp_path: Path) -> None:
    """As those of before, which tell it by their steps."""
    flags = ["--epochs", "2", "--save_steps", "1"]
    assert run(tmp_path / "whole", *flags) == cli.EXIT_OK
    assert run(tmp_path / "old", *flags) == cli.EXIT_OK
    kept = load_checkpoint(tmp_path / "old" / "ckpt_ep000.pt")
    assert kept.batches == 0
    save_checkpoint(tmp_path / "old" / "last.pt", replace(kept, batches=None))
    assert run(tmp_path / "old", *flags) == cli.EXIT_OK
    assert losses(tmp_path / "old") == losses(tmp_path / "whole")


def test_averaged_weights_are_kept_for_evaluation(golden: Path, tmp_path: Path) -> None:
    flags = [*QA, "--ema", "0.5"]
    assert run(tmp_path / "whole", "--epochs", "3", *flags) == cli.EXIT_OK
    assert run(tmp_path / "parts", "--epochs", "1", *flags) == cli.EXIT_OK
    assert run(tmp_path / "parts", "--epochs", "3", *flags) == cli.EXIT_OK
    averaged, same = (load_checkpoint(tmp_path / name / "ema.pt") for name in ("whole", "parts"))
    assert all(torch.equal(value, same.model[key]) for key, value in averaged.model.items())
    last = load_checkpoint(tmp_path / "whole" / "last.pt")
    assert build_model(averaged)
    assert not torch.equal(averaged.model["pred_head.weight"], last.model["pred_head.weight"])
    before = load_checkpoint(tmp_path / "whole" / "ckpt_ep000.pt").model["pred_head.weight"]
    drift = (last.model["pred_head.weight"] - before).norm()
    assert (averaged.model["pred_head.weight"] - last.model["pred_head.weight"]).norm() < drift


def test_the_loop_says_that_a_low_loss_means_little(
    golden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Embeddings hold type and position: predicting them in Q/A form is soon easy, and soon called so."""
    flags = [*QA, "--mix_num_samples", "512", "--epochs", "4", "--probe_every", "25"]
    assert run(tmp_path, *flags) == cli.EXIT_OK
    assert "alarm at step 100: position and type alone give a loss of 0.0" in "".join(capsys.readouterr())
    lines = [json.loads(line) for line in (tmp_path / "diagnostics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 25, 50, 75, 100, 125]
    assert {"cos_next", "cos_prev", "gap", "copy_win", "persistence_loss", "mean_loss", "spread"} <= set(lines[-1])
    assert lines[-1]["loss"] == pytest.approx(losses(tmp_path)[125], abs=0.05)  # edges were dropped there


def test_losses_by_type_and_component(golden: Path, tmp_path: Path) -> None:
    assert run(tmp_path, "--epochs", "1", *QA) == cli.EXIT_OK
    line = json.loads((tmp_path / "loss.jsonl").read_text().splitlines()[0])
    assert set(line["types"]) == {"A_POINT", "A_RAY"}
    names = [component["name"] for component in yaml.safe_load(Path("mix.yaml").read_text())["datasets"]]
    assert set(line["parts"]) <= set(names)
    assert line["lr"] == 1e-3


def test_curves_for_tensorboard(golden: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert run(tmp_path, "--epochs", "1", "--tensorboard", "1", *QA) == cli.EXIT_OK
    events = EventAccumulator(f"{tmp_path / 'tensorboard'}").Reload()
    assert [event.value for event in events.Scalars("loss")] == pytest.approx(losses(tmp_path))
    assert {"lr", "types/A_POINT", "diagnosis/gap"} <= set(events.Tags()["scalars"])


def test_worker_count_does_not_matter(golden: Path, tmp_path: Path) -> None:
    assert run(tmp_path / "none", "--epochs", "1") == cli.EXIT_OK
    assert run(tmp_path / "one", "--epochs", "1", "--num_workers", "1") == cli.EXIT_OK
    assert_same_state(tmp_path / "none" / "last.pt", tmp_path / "one" / "last.pt")


def test_sigkill_loses_no_finished_epoch(golden: Path, tmp_path: Path) -> None:
    assert run(tmp_path / "calm", "--epochs", "6", *QA) == cli.EXIT_OK
    folder = tmp_path / "killed"
    command = [sys.executable, "-m", "nepa3d.train.pretrain", *SMALL, "--save_dir", f"{folder}", "--epochs", "6", *QA]
    for epoch in (0, 2):
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        deadline = time.monotonic() + 60
        while not (folder / f"ckpt_ep{epoch:03d}.pt").exists() and time.monotonic() < deadline:
            assert process.poll() in (None, 0)
            time.sleep(0.001)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert load_checkpoint(folder / f"ckpt_ep{epoch:03d}.pt").epoch == epoch
    assert run(folder, "--epochs", "6", *QA) == cli.EXIT_OK
    assert_same_state(tmp_path / "calm" / "last.pt", folder / "last.pt")
    assert losses(tmp_path / "calm") == losses(folder)
    assert not list(folder.glob(f"{TEMPORARY_PREFIX}*"))


def test_a_damaged_last_checkpoint_costs_an_epoch_not_the_run(
    golden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path / "calm", "--epochs", "3") == cli.EXIT_OK
    folder = tmp_path / "damaged"
    assert run(folder, "--epochs", "2") == cli.EXIT_OK
    for name in ("last.pt", "ckpt_ep001.pt"):
        content = bytearray((folder / name).read_bytes())
        content[len(content) // 2] ^= 1
        (folder / name).write_bytes(content)
    assert run(folder, "--epochs", "3", "--resume", f"{folder}/ckpt_ep001.pt") == cli.EXIT_USAGE
    assert run(folder, "--epochs", "3", "--resume", f"{folder}/last.pt", "--auto_resume", "0") == cli.EXIT_USAGE
    capsys.readouterr()
    assert run(folder, "--epochs", "3", "--resume", f"{folder}/last.pt") == cli.EXIT_OK
    said = capsys.readouterr().out
    assert "last.pt: not a readable checkpoint: the checksum of" in said
    assert "ckpt_ep000.pt: epoch 1, step 3" in said
    assert_same_state(tmp_path / "calm" / "last.pt", folder / "last.pt")
    assert losses(tmp_path / "calm") == losses(folder)
    for path in folder.glob("*.pt"):
        path.write_bytes(b"")
    assert run(folder, "--epochs", "4") == cli.EXIT_USAGE  # rather than start over
    assert "last.pt: not a readable checkpoint" in capsys.readouterr().err


@pytest.mark.parametrize("workers", ["0", "1"])
def test_an_unreadable_shape_is_named(
    golden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], workers: str
) -> None:
    shutil.copytree("cache", tmp_path / "cache")
    shape = sorted((tmp_path / "cache" / "train").glob("*/*.npz"))[7]
    shape.write_bytes(shape.read_bytes()[:1000])
    flags = [
        "--mix_config",
        "",
        "--mix_num_samples",
        "0",
        "--cache_root",
        f"{tmp_path}/cache",
        "--epochs",
        "1",
        "--num_workers",
        workers,
    ]
    assert run(tmp_path / "run", *flags) == cli.EXIT_USAGE
    error = capsys.readouterr().err
    assert f"error: {shape}: not a readable .npz" in error
    assert "Traceback" not in error


def test_what_diverges_is_not_kept(
    golden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(tmp_path, "--epochs", "1") == cli.EXIT_OK
    before = (tmp_path / "last.pt").read_bytes()
    assert run(tmp_path, "--epochs", "2", "--lr", "1e30") == cli.EXIT_USAGE
    assert "the loss is nan at step 6" in capsys.readouterr().err
    step = loop.train_step

    def step_that_spoils(state: loop.Run, *rest: Any) -> torch.Tensor:
        loss = step(state, *rest)
        torch.nn.init.constant_(state.trainer.model.pred_head.bias, float("nan") if state.step == 5 else 0)
        return loss

    monkeypatch.setattr(loop, "train_step", step_that_spoils)
    assert run(tmp_path, "--epochs", "2") == cli.EXIT_USAGE
    assert "weights are not finite at step 6" in capsys.readouterr().err
    assert (tmp_path / "last.pt").read_bytes() == before


def test_a_mix_may_decide_on_the_eos_token(golden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mix = yaml.safe_load(Path("mix.yaml").read_text())
    for component in mix["datasets"]:
        component.update(name="same", add_eos=0)
    path = tmp_path / "mix.yaml"
    path.write_text(yaml.safe_dump(mix))
    for epochs in ("1", "2"):
        assert run(tmp_path / "run", "--mix_config", f"{path}", "--epochs", epochs) == cli.EXIT_OK
    saved = load_checkpoint(tmp_path / "run" / "last.pt")
    assert saved.args["add_eos"] == 0
    assert saved.model["pos_emb"].shape == (1, 1 + 8 + 4, 16)
    mix["datasets"][0]["add_eos"] = 1
    path.write_text(yaml.safe_dump(mix))
    assert run(tmp_path / "other", "--mix_config", f"{path}", "--epochs", "1") == cli.EXIT_USAGE
    assert "sequences of one length, got same#1 14, same#2 13, same#3 13" in capsys.readouterr().err


def test_the_loss_log_of_a_run_that_began_elsewhere(golden: Path, tmp_path: Path) -> None:
    sizes = ["--n_point", "32", "--n_ray", "16", "--d_model", "32", "--layers", "2"]
    assert run(tmp_path, "--epochs", "5", "--resume", "nepa_v1.pt", *sizes) == cli.EXIT_OK
    log = tmp_path / "loss.jsonl"
    with log.open("a") as file:  # killed after the log of an epoch, and while writing the next
        file.write('{"step": 67, "epoch": 5, "loss": 9.0}\n{"step": 68, "epo')
    assert run(tmp_path, "--epochs", "6", *sizes) == cli.EXIT_OK
    assert [json.loads(line)["step"] for line in log.read_text().splitlines()] == list(range(64, 70))


def test_a_resume_that_does_not_exist_starts_fresh_and_says_so(
    golden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, "--epochs", "1", "--resume", "missing.pt") == cli.EXIT_OK
    assert "there is no missing.pt: starting fresh" in capsys.readouterr().out


def test_a_mistyped_resume_overwrites_nothing(golden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, "--epochs", "2") == cli.EXIT_OK
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert run(tmp_path, "--epochs", "2", "--resume", "mistyped.pt") == cli.EXIT_USAGE
    assert "there is no mistyped.pt, but" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("resume", [[], ["--resume", "last.pt"]])
def test_a_missing_last_checkpoint_costs_nothing(
    golden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], resume: list[str]
) -> None:
    assert run(tmp_path, "--epochs", "2") == cli.EXIT_OK
    (tmp_path / "last.pt").unlink()
    flags = ["--resume", f"{tmp_path / 'last.pt'}"] if resume else []
    assert run(tmp_path, "--epochs", "3", *flags) == cli.EXIT_OK
    assert f"resumed from {tmp_path / 'ckpt_ep001.pt'}: epoch 2" in capsys.readouterr().out
    assert len(losses(tmp_path)) == 9


def test_another_objective_is_refused_and_other_settings_are_named(
    golden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, "--epochs", "1") == cli.EXIT_OK
    assert run(tmp_path, "--epochs", "2", "--objective", "mae") == cli.EXIT_USAGE
    assert "is of another model (objective nepa -> mae)" in capsys.readouterr().err
    assert run(tmp_path, "--epochs", "2", "--seed", "5") == cli.EXIT_OK
    assert "other settings than before: epochs 1 -> 2; seed 0 -> 5" in capsys.readouterr().out


def test_files_and_a_second_call(golden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, "--epochs", "4", "--save_every", "2") == cli.EXIT_OK
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "ckpt_ep000.pt",
        "ckpt_ep002.pt",
        "ckpt_ep003.pt",
        "diagnostics.jsonl",
        "last.pt",
        "loss.jsonl",
        "pretrain.config.yaml",
    ]
    assert run(tmp_path, "--epochs", "4", "--save_every", "2") == cli.EXIT_OK
    assert "all 4 epochs are done" in capsys.readouterr().out


def test_the_authors_checkpoint_goes_on(golden: Path, tmp_path: Path) -> None:
    sizes = ["--n_point", "32", "--n_ray", "16", "--d_model", "32", "--layers", "2", "--heads", "2"]
    assert run(tmp_path, "--resume", "nepa_v1.pt", "--epochs", "5", *sizes) == cli.EXIT_OK
    assert load_checkpoint(tmp_path / "last.pt").step == 64 + 3
    assert losses_from(tmp_path)[0] < 0.1  # trained, not fresh


def test_beta2_of_a_resumed_run_is_that_of_its_flags(golden: Path, tmp_path: Path) -> None:
    assert run(tmp_path, "--epochs", "1") == cli.EXIT_OK
    assert run(tmp_path, "--epochs", "2", "--beta2", "0.95") == cli.EXIT_OK
    kept = load_checkpoint(tmp_path / "last.pt")
    assert [group["betas"] for group in kept.opt["param_groups"]] == [(0.9, 0.95)]


@pytest.mark.parametrize("save_last", ["0", "1"])
def test_a_run_of_short_epochs_ends_when_asked(
    golden: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, save_last: str
) -> None:
    """After the epoch, whose three steps are fewer than those between two looks."""

    def asked(loop_: loop.Loop) -> None:
        loop_.asked.set()
        loop.train(loop_)

    with monkeypatch.context() as only_now:
        only_now.setattr(pretrain, "train", asked)
        assert run(tmp_path, "--epochs", "3", "--save_last", save_last) == cli.EXIT_RESUMABLE
    assert load_checkpoint(tmp_path / "last.pt").epoch == 0
    assert run(tmp_path, "--epochs", "3") == cli.EXIT_OK
    assert len(losses(tmp_path)) == 9


def test_a_new_run_starts_from_the_weights_of_another(
    golden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path / "first", "--epochs", "1") == cli.EXIT_OK
    first = load_checkpoint(tmp_path / "first" / "last.pt")
    weights = ["--init", f"{tmp_path / 'first' / 'last.pt'}"]
    assert run(tmp_path / "next", "--epochs", "1", "--lr", "1e-12", *weights) == cli.EXIT_OK
    found = load_checkpoint(tmp_path / "next" / "last.pt")
    assert (found.epoch, found.step) == (0, 3)
    for name, value in found.model.items():
        torch.testing.assert_close(value, first.model[name], rtol=0, atol=1e-9)
    for epochs, said in (("2", "resumed from"), ("2", "all 2 epochs are done")):  # as any run, whatever init says
        assert run(tmp_path / "next", "--epochs", epochs, "--init", "is/gone") == cli.EXIT_OK
        assert said in capsys.readouterr().out
    other = ["--epochs", "1", "--init", "furniture-small"]
    assert run(tmp_path / "other", *other) == cli.EXIT_USAGE
    assert "furniture-small: is of another model (" in capsys.readouterr().err
    assert not (tmp_path / "other" / "last.pt").exists()


def test_weights_without_pulled_points_may_get_them(golden: Path, tmp_path: Path) -> None:
    recipe = ["--config", "nepa3d/configs/query.yaml", "--epochs", "1", "--mix_config", "mix.yaml", "--batch", "8"]
    recipe += ["--mix_num_samples", "8", "--uniform_prob", "0", "--n_point", "8", "--context_min", "2", "--blind", "4"]
    recipe += ["--context_max", "4", "--d_model", "16", "--layers", "1", "--heads", "4"]
    assert pretrain.main([*recipe, "--pulled_points", "0", "--save_dir", f"{tmp_path / 'first'}"]) == cli.EXIT_OK
    weights = ["--init", f"{tmp_path / 'first'}", "--lr", "1e-12"]
    assert pretrain.main([*recipe, *weights, "--save_dir", f"{tmp_path / 'wider'}"]) == cli.EXIT_OK
    first, wider = (load_checkpoint(tmp_path / name / "last.pt").model for name in ("first", "wider"))
    for name, value in wider.items():
        seen = first[name].shape[-1] if name == "token_mlp.0.weight" else None
        torch.testing.assert_close(value[..., :seen], first[name], rtol=0, atol=1e-9)
        assert seen is None or (value.shape[1] > seen and value[:, seen:].abs().max() < 1e-9)


def losses_from(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "loss.jsonl").read_text().splitlines()]


def test_single_cache(golden: Path, tmp_path: Path) -> None:
    flags = ["--mix_config", "", "--mix_num_samples", "0", "--cache_root", "cache", "--backend", "pointcloud"]
    flags += ["--epochs", "1"]
    assert run(tmp_path, *flags) == cli.EXIT_OK
    assert len(losses(tmp_path)) == 2  # 20 shapes in batches of 16


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--mix_config", "missing.yaml"], "missing.yaml: there is no such file"),
        (
            ["--mix_config", "", "--mix_num_samples", "0", "--cache_root", "nowhere"],
            "there is no such folder of caches",
        ),
        (["--mix_config", "", "--mix_num_samples", "0"], "give cache_root, mesh_root or mix_config"),
        (["--mix_config", ""], "mix_num_samples is of a mix, and no mix_config is given, got 48"),
        (["--cache_root", "cache"], "cache_root must be left out with mix_config, whose file says what is read"),
        (["--backend", "udfgrid"], "backend must be left out with mix_config"),
        (["--mix_seed", "4294967296"], "mix_seed must be at most 2147483647, got 4294967296"),
        (["--heads", "3"], "d_model must be a multiple of the number of heads, got 16 and 3"),
        (["--resume", "missing.pt", "--auto_resume", "0"], "resume: there is no missing.pt"),
        (["--resume", "nepa_v1.pt"], "n_point 32 -> 8; n_ray 16 -> 4; d_model 32 -> 16; layers 2 -> 1"),
        (["--dual_mask_near", "2"], "dual_mask_near must lie in [0, 1], got 2.0"),
        (["--mask_ratio", "-1"], "mask_ratio must lie in"),
        (["--dual_mask_warmup_frac", "2"], "dual_mask_warmup_frac must lie in"),
        (["--seed", "-1"], "seed must be at least 0, got -1"),
        (["--lr", "nan"], "lr must be positive, got nan"),
        (["--objective", "gan"], "gan"),
        (["--init", "missing.pt"], "missing.pt: expected a checkpoint, a folder with config.json or last.pt"),
        (["--init", "a.pt", "--resume", "b.pt"], "init and resume must not both be given, got a.pt and b.pt"),
        (
            ["--save_steps", "5", "--save_last", "0"],
            "save_steps must be 0 with save_last 0, as it writes last.pt, got 5",
        ),
        (["--ema", "1"], "ema must lie in [0, 1), got 1"),
        (["--clip_grad", "-1"], "clip_grad must be at least 0, got -1"),
        (["--accumulate", "0"], "accumulate must be at least 1, got 0"),
        (["--warmup_frac", "1"], "warmup_frac must lie in [0, 1), got 1.0"),
        (["--turn", "0.5"], "turn is of the objectives answer, align and query only, got 0.5 for nepa"),
        (["--objective", "mae", "--scale_min", "0.5"], "scale_min is of the objectives answer, align and query only"),
        (
            ["--objective", "answer", "--skip_missing_rays", "1", "--answer_head", "1"],
            "skip_missing_rays is of the objectives nepa and mae only, got 1 for answer",
        ),
        (
            ["--objective", "answer", "--target", "content", "--answer_head", "1"],
            "target is of the objectives nepa and mae only, got content for answer",
        ),
    ],
)
def test_wrong_requests(
    golden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], message: str
) -> None:
    assert run(tmp_path, "--epochs", "1", *flags) == cli.EXIT_USAGE
    assert message in errors(capsys)


def test_dual_mask_rises_to_its_probabilities() -> None:
    flags = DualMaskFlags(dual_mask_near=0.4, dual_mask_far=0.1, dual_mask_warmup_frac=0.1)
    schedule = Schedule(LearningRateFlags(), flags, seed=2, total_steps=100)
    assert schedule.dual_mask(0) is None
    assert schedule.dual_mask(5) == DualMask(0.2, 0.05, 32, 2 * 1_000_003 + 5)
    assert schedule.dual_mask(50) == DualMask(0.4, 0.1, 32, 2 * 1_000_003 + 50)
