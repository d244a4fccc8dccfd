"""The loop of a pretraining run: epochs of steps, the logs and checkpoints they leave, and how it is asked to stop."""

from __future__ import annotations

import math
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from nepa3d import cli
from nepa3d.cli.spellings import Switch
from nepa3d.execution.progress_bar import Progress
from nepa3d.models.checkpoint import Checkpoint, save_checkpoint
from nepa3d.train.corpus import Batch, Corpus, EpochBatches
from nepa3d.train.loss_log import Curves, append_lines
from nepa3d.train.schedule import Schedule
from nepa3d.train.step import Trainer

FLUSH_EVERY = 100  # steps between two writes of the loss log, a multiple of LOG_EVERY
LOG_EVERY = 10  # steps between two looks at the loss, each of which waits for the device
PROBE_AFTER = 100  # steps before which alarms would say nothing


@dataclass(frozen=True, kw_only=True)
class LoopFlags:
    """Length of the run, size of a batch, and how samples are read."""

    batch: int = 32
    """Sequences per step, over all processes."""
    epochs: int = 50
    """Passes over the corpus."""
    num_workers: int = 4
    """Threads that prefetch samples; 0: samples are read between the steps."""

    def __post_init__(self) -> None:
        for name, least in (("batch", 1), ("epochs", 1), ("num_workers", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")

    def steps_per_epoch(self, samples: int) -> int:
        """Steps of an epoch of ``samples``; the last one may be smaller."""
        return math.ceil(samples / self.batch)


@dataclass(frozen=True, kw_only=True)
class OutputFlags:
    """Checkpoints and logs to write."""

    save_every: int = 1
    """Keep a checkpoint of every epoch that is divisible by this, and of the last one."""
    save_last: Switch = True
    """Write last.pt after every epoch."""
    save_steps: int = 0
    """Also write last.pt after every so many steps of an epoch; 0: only at its end."""
    probe_every: int = 100
    """Steps between two diagnoses of the loss, written to diagnostics.jsonl (nepa only); 0: none."""
    tensorboard: Switch = False
    """Write curves to save_dir/tensorboard."""

    def __post_init__(self) -> None:
        for name, least in (("save_every", 1), ("save_steps", 0), ("probe_every", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if self.save_steps and not self.save_last:
            raise ValueError(f"save_steps must be 0 with save_last 0, as it writes last.pt, got {self.save_steps}")


@dataclass
class Run:
    """What is trained, and how far it is: the state that a checkpoint keeps."""

    trainer: Trainer
    schedule: Schedule
    averaged: AveragedModel | None
    args: dict[str, Any]  # the command's flags, as checkpoints hold them
    epoch: int = 0  # the next one
    step: int = 0  # steps done
    batches: int | None = 0  # of the epoch that are done; None where a checkpoint did not say
    source: str = ""  # the checkpoint it was resumed from

    def checkpoint(self) -> Checkpoint:
        """The state as a checkpoint file holds it; ``epoch`` there is the last finished one."""
        trainer = self.trainer
        return Checkpoint(
            trainer.model.state_dict(),
            trainer.optimizer.state_dict(),
            trainer.scaler.state_dict() if trainer.scaler else None,
            self.args,
            self.epoch - 1,
            self.step,
            self.averaged.state_dict() if self.averaged else None,
            self.batches,
        )


@dataclass
class Loop:
    """What an epoch works with."""

    run: Run
    corpus: Corpus
    folder: Path
    flags: LoopFlags
    output: OutputFlags
    progress: Progress
    curves: Curves
    asked: threading.Event  # to end, leaving a checkpoint
    alarms: Sequence[str] = ()  # of the last diagnosis


def train(loop: Loop) -> None:
    """All epochs that are left, each with its checkpoints; ``cli.Interrupted`` as ``train_epoch``."""
    process_group = loop.run.trainer.process_group
    while loop.run.epoch < loop.flags.epochs:
        train_epoch(loop)
        loop.run.epoch, loop.run.batches = loop.run.epoch + 1, 0
        left = loop.run.epoch < loop.flags.epochs
        stop = process_group.any(loop.asked.is_set()) and left  # of epochs with fewer steps than between two looks
        _save(loop, stop)
        if stop:
            raise _interrupted(loop.run)


def train_epoch(loop: Loop) -> None:
    """One pass over the corpus, or what is left of it; logs the loss of every step.

    ``ValueError`` if loss or weights diverge, before a checkpoint of it is written; ``cli.Interrupted`` if it was asked
    to end, with the step in last.pt.
    """
    run, flags, output, process_group = loop.run, loop.flags, loop.output, loop.run.trainer.process_group
    diagnosed = run.trainer.objective.diagnosed
    loader = EpochBatches(loop.corpus, run.epoch, flags.batch, process_group, threads=flags.num_workers)
    first = first_batch(run, flags, len(loader.draws))
    tallies: list[Tensor] = []
    for number, batch in enumerate(loader.from_batch(first), first + 1):
        tallies.append(train_step(run, batch))
        run.batches = number
        if output.probe_every and diagnosed and run.step % output.probe_every == 0:
            _diagnose(loop, batch)
        run.step += 1
        loop.progress.update(batch.samples)
        last = number == len(loader)
        stop = False
        if number % LOG_EVERY == 0 or last:
            loss = float(run.trainer.mean_error(tallies[-1]))
            if not math.isfinite(loss):
                raise ValueError(f"the loss is {loss} at step {run.step}; checkpoints hold an earlier state")
            loop.progress.set_postfix(epoch=run.epoch, loss=f"{loss:.4f}", refresh=False)
            stop = process_group.any(loop.asked.is_set()) and not last
        saves = last or stop or bool(output.save_steps and number % output.save_steps == 0)
        if saves:
            _require_finite(run)
        if saves or number % FLUSH_EVERY == 0:
            if process_group.leads:
                _log(loop, tallies)
            tallies.clear()
        if saves and process_group.leads and (stop or (not last and output.save_last)):
            save_checkpoint(loop.folder / "last.pt", run.checkpoint())
        if stop:
            raise _interrupted(run)


def _interrupted(run: Run) -> cli.Interrupted:
    return cli.Interrupted(f"asked to end at step {run.step}; run the same command to resume")


def first_batch(run: Run, flags: LoopFlags, samples: int) -> int:
    """The batch of the epoch to go on with: above 0 after a checkpoint from within an epoch of ``samples``."""
    if run.batches is not None:
        return run.batches
    steps = flags.steps_per_epoch(samples)
    done = run.step - run.epoch * steps
    return done if 0 < done < steps else 0


def train_step(run: Run, batch: Batch) -> Tensor:
    """One update; returns the tally of ``Trainer.step``."""
    for group in run.trainer.optimizer.param_groups:
        group["lr"] = run.schedule.learning_rate(run.step) * group.get("rate", 1.0)  # which old checkpoints lack
    tally = run.trainer.step(batch, run.step, run.schedule.dual_mask(run.step))
    if run.averaged:
        run.averaged.update_parameters(run.trainer.model)
    return tally


@contextmanager
def stop_on_request() -> Iterator[threading.Event]:
    """Set when a scheduler sends SIGUSR1, as it does some time before it ends a job."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before = signal.signal(signal.SIGUSR1, lambda *_: asked.set())
    try:
        yield asked
    finally:
        signal.signal(signal.SIGUSR1, before)


def _diagnose(loop: Loop, batch: Batch) -> None:
    """Look at what the loss means; says so where an alarm is new."""
    run = loop.run
    if not run.trainer.process_group.leads:
        return
    found = run.trainer.diagnosis(batch, run.step)
    append_lines(loop.folder / "diagnostics.jsonl", [found.plain()])
    loop.curves.add({"step": run.step, "diagnosis": {k: v for k, v in found.plain().items() if k != "step"}})
    if run.step >= PROBE_AFTER:
        alarms = found.alarms()
        if alarms and not loop.alarms:
            loop.progress.write(f"alarm at step {run.step}: " + "; ".join(alarms))
        loop.alarms = alarms


def _log(loop: Loop, tallies: Sequence[Tensor]) -> None:
    """Write the lines of the last steps."""
    run, first = loop.run, loop.run.step - len(tallies)
    names = [part.name for part in loop.corpus.parts]
    lines: list[dict[str, Any]] = []
    for step, tally in enumerate(torch.stack([*tallies]).cpu(), first):
        line = {"step": step, "epoch": run.epoch, "loss": float(run.trainer.mean_error(tally))}
        line["lr"] = run.schedule.learning_rate(step)
        lines.append(line | run.trainer.by_kind(tally, names))
        loop.curves.add(lines[-1])
    append_lines(loop.folder / "loss.jsonl", lines)
    loop.curves.flush()


def _require_finite(run: Run) -> None:
    if not all(bool(parameter.isfinite().all()) for parameter in run.trainer.model.parameters()):
        raise ValueError(f"weights are not finite at step {run.step}; checkpoints hold an earlier state")


def _save(loop: Loop, stop: bool) -> None:
    """Write what the epoch that just ended is due, last.pt in any case where the run is to ``stop``; it comes last, so
    that it never runs ahead."""
    run, folder = loop.run, loop.folder
    if not run.trainer.process_group.leads:
        return
    checkpoint = run.checkpoint()
    finished = run.epoch - 1
    if run.averaged:
        averaged = replace(checkpoint, model=run.averaged.module.state_dict(), opt={}, ema=None)
        save_checkpoint(folder / "ema.pt", averaged)
    if finished % loop.output.save_every == 0 or run.epoch == loop.flags.epochs:
        save_checkpoint(folder / f"ckpt_ep{finished:03d}.pt", checkpoint)
    if loop.output.save_last or stop:
        save_checkpoint(folder / "last.pt", checkpoint)
