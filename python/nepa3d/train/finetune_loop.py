"""The loop of a fine-tuning: epochs of training, each validated, and the predictions of what was trained."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nepa3d.cli.spellings import OptionalCount, Switch
from nepa3d.execution.progress_bar import progress_bar
from nepa3d.models.checkpoint import write_tensors
from nepa3d.models.classifier import Classifier, Readout
from nepa3d.probes.scores import Scores, score
from nepa3d.samples.labelled import SequenceReader, Sets, evaluation_batches, training_batches
from nepa3d.train.augment import AugmentFlags, cluttered, placed, unsettled
from nepa3d.train.schedule import LearningRateFlags, Schedule

KEEP_EVERY = 60.0  # seconds between two savings of the state to go on from


@dataclass(frozen=True, kw_only=True)
class TrainingFlags(LearningRateFlags):
    """How the model is trained."""

    batch: int = 32
    """Sequences per step."""
    epochs: int = 100
    """Passes over the training set."""
    min_steps: int = 0
    """Minimum number of optimiser steps; epochs are added until it is reached."""
    lr: float = 1e-4
    """Learning rate of AdamW."""
    layer_decay: float = 1.0
    """Factor of the learning rate from each layer to the one below it; the head has lr. 1: the same for all layers."""
    clip_grad: float = 0.0
    """Largest norm of the gradient; 0: no clipping."""
    weight_decay: float = 0.05
    """Weight decay of AdamW."""
    freeze_backbone: bool = False
    """Train the head only."""
    drop_ray_prob_train: float = 0.0
    """Probability that all rays of a training sample are dropped."""
    seed: int = 0
    """Seed of the head's weights and of the order and draws of training."""
    num_workers: int = 4
    """Threads that prefetch samples; 0: none."""

    def __post_init__(self) -> None:
        super().__post_init__()
        least_of = {"batch": 1, "epochs": 1, "min_steps": 0, "num_workers": 0, "seed": 0, "weight_decay": 0}
        for name, least in least_of.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if not 0 < self.layer_decay <= 1:
            raise ValueError(f"layer_decay must lie in (0, 1], got {self.layer_decay}")
        if not 0 <= self.clip_grad < math.inf:
            raise ValueError(f"clip_grad must be at least 0, got {self.clip_grad}")


@dataclass(frozen=True, kw_only=True)
class HeadFlags:
    """Input of the classifier's head, and weights of its errors."""

    readout: Readout = "eos"
    """Hidden states that are read: the last token's, or the mean or the largest values of those of all answers."""
    standardize: Switch = False
    """Standardise what the head reads over the batch."""
    balance: Switch = False
    """Give all classes the same weight in the loss, regardless of their numbers of training shapes."""


@dataclass(frozen=True, kw_only=True)
class AugmentationFlags(AugmentFlags):
    """Augmentation of the training samples."""


@dataclass(frozen=True, kw_only=True)
class EvaluationFlags:
    """Validation and test."""

    eval_seed: int = 0
    """Seed of the draws of validation and test."""
    mc_eval_k: int = 1
    """Number of draws per shape whose logits are averaged."""
    mc_eval_k_val: OptionalCount = None
    """Number of draws per validation shape; -1: mc_eval_k."""
    mc_eval_k_test: OptionalCount = None
    """Number of draws per test shape; -1: mc_eval_k."""
    select_by: Literal["accuracy", "balanced"] = "accuracy"
    """Validation metric that selects the epoch to test. Balanced accuracy scores a majority-class classifier at
    chance."""

    def __post_init__(self) -> None:
        if self.mc_eval_k < 1:
            raise ValueError(f"mc_eval_k must be at least 1, got {self.mc_eval_k}")
        for name in ("mc_eval_k_val", "mc_eval_k_test"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, or -1, got {getattr(self, name)}")

    def resamples(self, which: Literal["val", "test"]) -> int:
        """Draws a shape in validation or test."""
        given = self.mc_eval_k_val if which == "val" else self.mc_eval_k_test
        return self.mc_eval_k if given is None else given


@dataclass
class Run:
    """A fine-tuning under way: what the state file keeps, and what it is made of."""

    args: dict[str, Any]  # the command's flags, as files hold them
    training: TrainingFlags
    augmentation: AugmentationFlags
    evaluation: EvaluationFlags
    sets: Sets
    train_reader: SequenceReader
    eval_reader: SequenceReader
    device: torch.device
    model: Classifier
    optimizer: torch.optim.AdamW
    scaler: torch.amp.GradScaler | None
    weights: Tensor | None = None  # of the classes (C,)
    epoch: int = 0  # the next one
    best_epoch: int = -1
    best_accuracy: float = -1.0  # or balanced accuracy, if epochs are selected by that

    @property
    def steps(self) -> int:
        """Of an epoch."""
        return math.ceil(len(self.sets.train) / self.training.batch)

    @property
    def epochs(self) -> int:
        """Passes over the training set."""
        return max(self.training.epochs, math.ceil(self.training.min_steps / self.steps))

    def state(self) -> dict[str, Any]:
        """Plain values and tensors from which the run goes on bit for bit."""
        return {
            "model": self.model.state_dict(),
            "opt": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict() if self.scaler else None,
            "args": self.args,
            "epoch": self.epoch,
            "best_epoch": self.best_epoch,
            "best_accuracy": self.best_accuracy,
        }


def train(run: Run, folder: Path) -> None:
    """All epochs that are left; writes best.pt and, now and then, the state to go on from."""
    epochs, kept = run.epochs, time.monotonic()
    with progress_bar(total=epochs, initial=run.epoch, unit="epoch") as progress:
        while run.epoch < epochs:
            loss = train_epoch(run)
            accuracy = 0.0
            if run.sets.validation:
                found = evaluate(run, run.sets.validation, run.evaluation.resamples("val"))
                accuracy = found.accuracy if run.evaluation.select_by == "accuracy" else found.balanced_accuracy
            if accuracy > run.best_accuracy or not run.sets.validation:
                run.best_epoch, run.best_accuracy = run.epoch, accuracy
                write_tensors(folder / "best.pt", {**run.state(), "opt": {}, "val_acc": accuracy})
            run.epoch += 1
            progress.update()
            progress.set_postfix(
                loss=f"{loss:.3f}", val=f"{accuracy:.3f}", best=f"{run.best_accuracy:.3f}", refresh=False
            )
            if time.monotonic() - kept > KEEP_EVERY:
                write_tensors(folder / "state.pt", run.state())
                kept = time.monotonic()


def train_epoch(run: Run) -> float:
    """One pass over the training set; returns the mean loss. ``ValueError`` if it diverges."""
    run.model.train()
    if run.model.frozen:
        run.model.backbone.eval()
    total, count = torch.zeros((), device=run.device), 0
    seed, drop_ray_prob = run.training.seed, run.training.drop_ray_prob_train
    schedule = Schedule(run.training, None, seed, run.steps * run.epochs)
    batches = training_batches(run.sets, run.train_reader, seed, run.epoch, drop_ray_prob=drop_ray_prob)
    for number, (features, types, labels) in enumerate(batches):
        features = cluttered(features, types, run.augmentation, (seed, run.epoch), count)
        features = placed(features, run.augmentation, (seed, run.epoch), count)
        features = unsettled(features, types[0], run.augmentation, (seed, run.epoch), count)
        features, types, labels = (t.to(run.device, non_blocking=True) for t in (features, types, labels))
        with torch.autocast(run.device.type, dtype=torch.float16, enabled=run.scaler is not None):
            loss = torch.nn.functional.cross_entropy(run.model(features, types), labels, run.weights)
        _step(run, loss, schedule.learning_rate(run.epoch * run.steps + number))
        total += loss.detach() * len(labels)
        count += len(labels)
    mean = float(total) / count
    if not math.isfinite(mean):
        raise ValueError(f"the loss is {mean} in epoch {run.epoch}; best.pt holds the best weights before it")
    return mean


def _step(run: Run, loss: Tensor, learning_rate: float) -> None:
    run.optimizer.zero_grad(set_to_none=True)
    for group in run.optimizer.param_groups:
        group["lr"] = learning_rate * group.get("rate", 1.0)  # states of former versions have one group, without it
    (loss if run.scaler is None else run.scaler.scale(loss)).backward()
    if run.training.clip_grad > 0:
        if run.scaler is not None:
            run.scaler.unscale_(run.optimizer)
        torch.nn.utils.clip_grad_norm_(run.model.parameters(), run.training.clip_grad)
    if run.scaler is None:
        run.optimizer.step()
    else:
        run.scaler.step(run.optimizer)
        run.scaler.update()


def optimizer_of(model: Classifier, training: TrainingFlags) -> torch.optim.AdamW:
    """AdamW over what is trained; with a ``layer_decay`` the head is a group, each layer one, and the embeddings."""
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    groups: dict[int, list[Tensor]] = {}
    for name, parameter in trained.items():
        below = _layers_below_the_head(name, model.backbone.layers) if training.layer_decay < 1 else 0
        groups.setdefault(below, []).append(parameter)
    given = [{"params": groups[below], "rate": training.layer_decay**below} for below in sorted(groups)]
    betas = (0.9, training.beta2)
    return torch.optim.AdamW(given, lr=training.lr, betas=betas, weight_decay=training.weight_decay)


def _layers_below_the_head(name: str, layers: int) -> int:
    """How far below the head a parameter of the classifier is: 0 for the head and the last norm, 1 for the last of the
    ``layers``, layers + 1 for the embeddings."""
    parts = name.split(".")
    if "layers" in parts:
        return layers - int(parts[parts.index("layers") + 1])
    return layers + 1 if any(part.endswith("_emb") or part == "token_mlp" for part in parts) else 0


def class_weights(sets: Sets) -> Tensor:
    """Weights (C,) of the classes, inverse to the number of their training shapes; their mean over shapes is 1."""
    counts = torch.bincount(torch.from_numpy(sets.labels(sets.train)), minlength=len(sets.classes))
    return len(sets.train) / (len(sets.classes) * counts.float())


@torch.no_grad()
def predict(run: Run, paths: Sequence[str], resamples: int) -> NDArray[np.float64]:
    """Logits (n, C), the mean over ``resamples`` draws of each shape."""
    run.model.eval()
    logits = np.zeros((len(paths), len(run.sets.classes)))
    for begin, features, types in evaluation_batches(paths, run.eval_reader, run.evaluation.eval_seed, resamples):
        with torch.autocast(run.device.type, dtype=torch.float16, enabled=run.scaler is not None):
            found = run.model(features.to(run.device), types.to(run.device))
        logits[begin : begin + len(found)] += found.double().cpu().numpy()
    return logits / resamples


def evaluate(run: Run, paths: Sequence[str], resamples: int) -> Scores:
    """The figures of a set."""
    return score(predict(run, paths, resamples).argmax(1), run.sets.labels(paths), run.sets.classes)
