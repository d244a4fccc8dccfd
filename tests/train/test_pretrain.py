"""Pretraining: it learns, it resumes bit for bit, also after SIGKILL, and it refuses what cannot work."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from nepa3d import cli
from nepa3d.data.files import TEMPORARY_PREFIX
from nepa3d.ops.attention import DualMask
from nepa3d.train import pretrain
from nepa3d.train.checkpoint import load_checkpoint
from nepa3d.train.pretrain import Config

SMALL = ["--mix_config", "mix.yaml", "--mix_num_samples", "48", "--batch", "16", "--lr", "1e-3", "--n_point", "8"]
SMALL += ["--n_ray", "4", "--d_model", "16", "--layers", "1", "--heads", "2", "--num_workers", "0"]
QA = ["--qa_tokens", "1", "--dual_mask_near", "0.4", "--dual_mask_far", "0.1", "--dual_mask_window", "4"]


def run(folder: Path, *more: str) -> int:
    try:
        return pretrain.main([*SMALL, "--save_dir", f"{folder}", *more])
    except SystemExit as stopped:
        assert isinstance(stopped.code, int)
        return stopped.code


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


def test_files_and_a_second_call(golden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, "--epochs", "4", "--save_every", "2") == cli.EXIT_OK
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "ckpt_ep000.pt",
        "ckpt_ep002.pt",
        "ckpt_ep003.pt",
        "last.pt",
        "loss.jsonl",
    ]
    assert run(tmp_path, "--epochs", "4", "--save_every", "2") == cli.EXIT_OK
    assert "all 4 epochs are done" in capsys.readouterr().out


def test_the_authors_checkpoint_goes_on(golden: Path, tmp_path: Path) -> None:
    sizes = ["--n_point", "32", "--n_ray", "16", "--d_model", "32", "--layers", "2", "--heads", "2"]
    assert run(tmp_path, "--resume", "nepa_v1.pt", "--epochs", "5", *sizes) == cli.EXIT_OK
    assert load_checkpoint(tmp_path / "last.pt").step == 64 + 3
    assert losses_from(tmp_path)[0] < 0.1  # trained, not fresh


def losses_from(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "loss.jsonl").read_text().splitlines()]


def test_single_cache(golden: Path, tmp_path: Path) -> None:
    flags = ["--mix_config", "", "--cache_root", "cache", "--backend", "pointcloud", "--epochs", "1"]
    assert run(tmp_path, *flags) == cli.EXIT_OK
    assert len(losses(tmp_path)) == 2  # 20 shapes in batches of 16


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--mix_config", "missing.yaml"], "missing.yaml: there is no such file"),
        (["--mix_config", "", "--cache_root", "nowhere"], "there is no such folder of caches"),
        (["--mix_config", ""], "give cache_root, or mix_config"),
        (["--heads", "3"], "d_model must be a multiple of the number of heads, got 16 and 3"),
        (["--resume", "missing.pt", "--auto_resume", "0"], "resume: there is no missing.pt"),
        (["--resume", "nepa_v1.pt"], "d_model 32 -> 16; layers 2 -> 1; n_point 32 -> 8; n_ray 16 -> 4"),
        (["--dual_mask_near", "2"], "near must lie in"),
        (["--mask_ratio", "-1"], "mask_ratio must lie in"),
        (["--objective", "gan"], "gan"),
    ],
)
def test_wrong_requests(
    golden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], message: str
) -> None:
    assert run(tmp_path, "--epochs", "1", *flags) == cli.EXIT_USAGE
    assert message in " ".join(capsys.readouterr().err.replace("│", " ").split())


def test_dual_mask_rises_to_its_probabilities() -> None:
    config = Config(save_dir="x", dual_mask_near=0.4, dual_mask_far=0.1, dual_mask_warmup_frac=0.1, seed=2)
    assert pretrain.dual_mask_at(config, 0, 100) == DualMask(0, 0, 32, 2 * 1_000_003)
    assert pretrain.dual_mask_at(config, 5, 100) == DualMask(0.2, 0.05, 32, 2 * 1_000_003 + 5)
    assert pretrain.dual_mask_at(config, 50, 100) == DualMask(0.4, 0.1, 32, 2 * 1_000_003 + 50)
