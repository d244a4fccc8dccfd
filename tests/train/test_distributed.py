"""Several processes: the run of one, to rounding; one that dies takes the others along; a scheduler's signal."""

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
from nepa3d.models.checkpoint import load_checkpoint
from nepa3d.train.distributed import ProcessGroup
from nepa3d.train.pretrain import Config, pretrain
from tests.train.test_pretrain import QA, SMALL, assert_same_state, losses, run


def torchrun(processes: int, folder: Path, *flags: str) -> list[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    return [*command, "-m", "nepa3d.train.pretrain", *SMALL, "--save_dir", f"{folder}", *flags]


RECIPE = ["--config", "nepa3d/configs/query.yaml", "--uniform_prob", "0", "--n_point", "24", "--blind", "0"]
RECIPE += ["--batch", "8", "--context_min", "8", "--context_max", "16"]


@pytest.mark.parametrize(
    ("processes", "flags"),
    [
        (2, [*QA, "--skip_missing_rays", "1", "--accumulate", "3"]),
        (2, ["--objective", "mae", "--batch", "20"]),
        (3, [*QA, "--batch", "23"]),  # of the last batch, of two samples, one has none
        (2, RECIPE),
    ],
    ids=str,
)
def test_several_processes_train_as_one(golden: Path, tmp_path: Path, processes: int, flags: list[str]) -> None:
    """48 samples in batches of 16, or of 20 and a smaller last one."""
    flags = ["--epochs", "2", *flags]
    assert run(tmp_path / "one", *flags) == cli.EXIT_OK
    done = subprocess.run(torchrun(processes, tmp_path / "two", *flags), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("last checkpoint:") == 1
    assert f"on cpu and {processes - 1} more" in done.stdout
    one, two = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert two == pytest.approx(one, abs=1e-5)
    first, second = (load_checkpoint(tmp_path / name / "last.pt").model for name in ("one", "two"))
    for key, value in first.items():
        found, expected = second[key], value
        if key.endswith("in_proj_bias"):  # one bias of all keys changes no weight: its gradient is rounding alone
            (found, _, more), (expected, _, rest) = found.chunk(3), expected.chunk(3)
            found, expected = torch.cat((found, more)), torch.cat((expected, rest))
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4, msg=lambda text, key=key: f"{key}: {text}")
    lines = [(tmp_path / name / "loss.jsonl").read_text().splitlines() for name in ("one", "two")]
    assert [set(json.loads(line)["parts"]) for line in lines[0]] == [
        set(json.loads(line)["parts"]) for line in lines[1]
    ]


def test_each_process_has_to_send_a_sample_that_is_compared(golden: Path, tmp_path: Path) -> None:
    config = cli.parse(Config, [*SMALL, *RECIPE, "--batch", "4", "--save_dir", f"{tmp_path / 'run'}"])
    with pytest.raises(ValueError, match="batch must be at least 5, the processes, got 4"):
        pretrain(config, ProcessGroup(0, 5, torch.device("cpu")))
    assert not (tmp_path / "run").exists()


def children(process: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def test_a_process_that_dies_takes_the_others_along(golden: Path, tmp_path: Path) -> None:
    """And the same command goes on from what was kept."""
    flags = ["--epochs", "400", "--save_every", "1000", *QA]
    with (tmp_path / "log").open("w") as log:
        launcher = subprocess.Popen(torchrun(2, tmp_path / "run", *flags), stdout=log, stderr=log)
    deadline = time.monotonic() + 90
    while not (tmp_path / "run" / "last.pt").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    workers = children(launcher.pid)
    assert len(workers) == 2
    os.kill(workers[1], signal.SIGKILL)
    assert launcher.wait(60) != 0
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)
    assert "-9" in (tmp_path / "log").read_text()
    kept = load_checkpoint(tmp_path / "run" / "last.pt")
    epochs = str(kept.epoch + 2)
    again = torchrun(2, tmp_path / "run", *flags[2:], "--epochs", epochs)
    done = subprocess.run(again, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert f"resumed from {tmp_path / 'run' / 'last.pt'}: epoch {kept.epoch + 1}" in done.stdout
    assert len(losses(tmp_path / "run")) == 3 * (kept.epoch + 2)


def test_a_lost_process_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from nepa3d.train import distributed

    def lost(_: torch.Tensor) -> None:
        raise RuntimeError("Connection closed by peer [127.0.0.1]:1\nmore")

    monkeypatch.setattr(distributed.dist, "all_reduce", lost)
    with pytest.raises(OSError, match=r"process 1 of 2: another process of this run has ended: Connection closed"):
        distributed.ProcessGroup(1, 2, torch.device("cpu")).add(torch.zeros(1))


def test_a_scheduler_may_ask_to_end(golden: Path, tmp_path: Path) -> None:
    """SIGUSR1: the step is kept, the status says that it can go on, and the end is as if it had never been asked."""
    flags = ["--epochs", "4", "--mix_num_samples", "640", *QA]  # 40 steps an epoch
    command = [sys.executable, "-m", "nepa3d.train.pretrain", *SMALL, "--save_dir", f"{tmp_path / 'run'}", *flags]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (tmp_path / "run" / "last.pt").exists() and time.monotonic() < deadline:
        time.sleep(0.001)
    process.send_signal(signal.SIGUSR1)
    _, said = process.communicate(timeout=60)
    assert process.returncode == cli.EXIT_RESUMABLE, said
    assert "asked to end at step" in said
    kept = load_checkpoint(tmp_path / "run" / "last.pt")
    assert kept.step % 10 == 0
    assert run(tmp_path / "run", *flags) == cli.EXIT_OK
    assert run(tmp_path / "calm", *flags) == cli.EXIT_OK
    assert_same_state(tmp_path / "calm" / "last.pt", tmp_path / "run" / "last.pt")
    assert losses(tmp_path / "calm") == losses(tmp_path / "run")
