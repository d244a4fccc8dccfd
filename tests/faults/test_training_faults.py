"""The rows T01 to T07 of docs/faults.md: training runs that are killed, starved, or diverge."""

from __future__ import annotations

import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from nepa3d import cli
from nepa3d.models.checkpoint import load_checkpoint
from tests.train.test_pretrain import QA, SMALL, assert_same_state, losses, run

KILLS = 8


def command(folder: Path, *flags: str) -> list[str]:
    return [sys.executable, "-m", "nepa3d.train.pretrain", *SMALL, "--save_dir", f"{folder}", *flags]


def written(path: Path) -> int:
    """When a file was written last, in ns; 0 if it is not there."""
    return path.stat().st_mtime_ns if path.exists() else 0


def test_kills_at_random_moments_change_no_bit(golden: Path, tmp_path: Path) -> None:
    """T01: SIGKILL wherever it is; every checkpoint is whole, and the curve and the weights are those of a calm run.

    Every second kill waits for a checkpoint, so that the run gets on however busy the machine is.
    """
    flags = ["--epochs", "200", "--save_every", "1000", "--save_steps", "1", "--mix_num_samples", "160", *QA]
    flags += ["--dual_mask_warmup_frac", "0"]  # or the masks would depend on how long the run is to be
    folder = tmp_path / "killed"
    rng, steps = random.Random(0), []
    for kill in range(KILLS):
        before = written(folder / "last.pt")
        process = subprocess.Popen(command(folder, *flags), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert process.stdout
        process.stdout.readline()  # it has begun, or goes on
        while kill % 2 and written(folder / "last.pt") == before and process.poll() is None:
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.5))
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
        steps.append(load_checkpoint(folder / "last.pt").step if (folder / "last.pt").exists() else 0)
    assert steps == sorted(steps)
    assert len(set(steps)) > 3
    flags[1] = str(steps[-1] // 10 + 2)
    for end in (folder, tmp_path / "calm"):
        assert run(end, *flags) == cli.EXIT_OK
    assert_same_state(tmp_path / "calm" / "last.pt", folder / "last.pt")
    assert losses(tmp_path / "calm") == losses(folder)


def test_an_interrupted_run_can_go_on(golden: Path, tmp_path: Path) -> None:
    """T02: Ctrl-C ends it within seconds, status 130, and what is kept is whole."""
    flags = ["--epochs", "300", "--save_every", "1000", "--num_workers", "2", *QA]
    process = subprocess.Popen(command(tmp_path, *flags), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (tmp_path / "last.pt").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=20)
    assert process.returncode == cli.EXIT_INTERRUPTED
    assert "Traceback" not in said
    kept = load_checkpoint(tmp_path / "last.pt")
    assert run(tmp_path, *flags[2:], "--epochs", str(kept.epoch + 2)) == cli.EXIT_OK


def test_a_checkpoint_that_cannot_be_written(golden: Path, tmp_path: Path) -> None:
    """T03: a disk that fills up at the checkpoint: status 74 naming file and size, the one before stays, and a run with
    room goes on from it."""
    assert run(tmp_path, "--epochs", "1", *QA) == cli.EXIT_OK
    before = (tmp_path / "last.pt").read_bytes()

    def little_room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    full = subprocess.run(
        command(tmp_path, "--epochs", "2", *QA), capture_output=True, text=True, preexec_fn=little_room, timeout=60
    )
    assert full.returncode == cli.EXIT_IO
    assert "writing a checkpoint of" in full.stderr
    assert "ckpt_ep001.pt" in full.stderr
    assert "Traceback" not in full.stderr
    assert (tmp_path / "last.pt").read_bytes() == before
    assert run(tmp_path, "--epochs", "2", *QA) == cli.EXIT_OK
    assert run(tmp_path / "calm", "--epochs", "1", *QA) == cli.EXIT_OK
    assert run(tmp_path / "calm", "--epochs", "2", *QA) == cli.EXIT_OK
    assert_same_state(tmp_path / "last.pt", tmp_path / "calm" / "last.pt")


def test_every_edge_dropped_is_finite(golden: Path, tmp_path: Path) -> None:
    """T04: tokens that see themselves only, from the first step on."""
    flags = ["--qa_tokens", "1", "--dual_mask_near", "1", "--dual_mask_far", "1", "--dual_mask_warmup_frac", "0"]
    assert run(tmp_path, "--epochs", "1", *flags) == cli.EXIT_OK
    assert all(0 <= loss < 2 for loss in losses(tmp_path))


def test_one_shape_over_and_over(golden: Path, tmp_path: Path) -> None:
    """T05: a corpus of a single shape, with no other sample to compare it with, is trained on all the same."""
    source = next((golden / "cache" / "train").glob("*/*.npz"))
    target = tmp_path / "cache" / "train" / "class" / "only.npz"
    target.parent.mkdir(parents=True)
    target.write_bytes(source.read_bytes())
    flags = [
        "--mix_config",
        "",
        "--mix_num_samples",
        "0",
        "--cache_root",
        f"{tmp_path / 'cache'}",
        "--epochs",
        "3",
        "--probe_every",
        "1",
    ]
    assert run(tmp_path / "run", *flags) == cli.EXIT_OK
    assert len(losses(tmp_path / "run")) == 3


def test_gradients_beyond_half_precision_are_skipped(golden: Path, tmp_path: Path) -> None:
    """T06: a step whose scaled gradients overflow changes no weight, halves the scale, and the run goes on; the scale
    is kept, so that resuming is exact."""
    flags = ["--amp", "fp16", *QA]
    assert run(tmp_path / "whole", "--epochs", "3", "--dual_mask_warmup_frac", "0", *flags) == cli.EXIT_OK
    assert run(tmp_path / "parts", "--epochs", "1", "--dual_mask_warmup_frac", "0", *flags) == cli.EXIT_OK
    kept = load_checkpoint(tmp_path / "parts" / "last.pt")
    spoiled = dict(kept.scaler or {}, scale=2.0**40)
    path = tmp_path / "parts" / "last.pt"
    content = torch.load(path, weights_only=True)
    torch.save(content | {"scaler": spoiled}, tmp_path / "overflow.pt")
    assert run(tmp_path / "parts", "--epochs", "3", "--dual_mask_warmup_frac", "0", *flags) == cli.EXIT_OK
    assert_same_state(tmp_path / "whole" / "last.pt", path)
    resumed = ["--resume", f"{tmp_path / 'overflow.pt'}", "--dual_mask_warmup_frac", "0"]
    assert run(tmp_path / "overflow", "--epochs", "2", *flags, *resumed) == cli.EXIT_OK
    after = load_checkpoint(tmp_path / "overflow" / "last.pt")
    assert after.scaler is not None
    assert after.scaler["scale"] < 2.0**40
    assert all(torch.equal(value, after.model[key]) for key, value in kept.model.items())


def test_what_no_run_can_mean(golden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """T07: flags that are misspelt or of the wrong kind: status 2, one named fault, before any data is read."""
    for flags, message in (
        (["--epoch", "2"], "epoch"),
        (["--batch", "many"], "batch"),
        (["--batch", "-1"], "batch must be at least 1, got -1"),
        (["--amp", "fp8"], "amp"),
    ):
        assert run(tmp_path / "run", *flags) == cli.EXIT_USAGE
        assert message in capsys.readouterr().err
        assert not (tmp_path / "run").exists()
