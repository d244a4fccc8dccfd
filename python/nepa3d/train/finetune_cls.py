"""Fine-tuning: a pretrained model learns to tell classes, from all shapes or a few, and is tested once."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from tabulate import tabulate
from torch import Tensor

from nepa3d import cli
from nepa3d.cli import flags
from nepa3d.cli.spellings import OptionalCount, OptionalSwitch
from nepa3d.execution.files import remove_temporaries, write_json
from nepa3d.execution.progress_bar import progress_bar
from nepa3d.models.checkpoint import ModelFlags, build_model, load_checkpoint, model_for, read_tensors, write_tensors
from nepa3d.models.classifier import Classifier
from nepa3d.models.query_nepa import QueryNepa
from nepa3d.probes.scores import Scores, draw_confusion, score
from nepa3d.samples.dataset import SampleSettings
from nepa3d.samples.flag_groups import VoxelFlags
from nepa3d.samples.labelled import (
    GroupBy,
    Sets,
    View,
    evaluation_batches,
    short_classes,
    shortage,
    split_sets,
    training_batches,
)
from nepa3d.samples.schema import N_TYPES_QA
from nepa3d.shapes.views import VoxelSettings, require_backend

KEEP_EVERY = 60.0  # seconds between two savings of the state to go on from
HARMLESS = ("save_dir", "num_workers")  # these change no number


@dataclass(frozen=True, kw_only=True)
class ViewFlags:
    """Views of the shapes."""

    backend: str = "pointcloud_noray"
    """View of the shapes."""
    train_backend: str = ""
    """View of the training shapes; empty: backend."""
    eval_backend: str = ""
    """View of the validation and test shapes; empty: backend."""

    def __post_init__(self) -> None:
        for name in ("backend", "train_backend", "eval_backend"):
            if name == "backend" or getattr(self, name):
                require_backend(getattr(self, name), name)


@dataclass(frozen=True, kw_only=True)
class SampleFlags:
    """How a shape becomes a sequence of tokens."""

    n_point: OptionalCount = None
    """Point queries per sample; -1: as in pretraining."""
    n_ray: OptionalCount = None
    """Ray queries per sample; -1: as in pretraining."""
    add_eos: OptionalSwitch = None
    """End sequences with an EOS token; -1: as in pretraining."""
    qa_tokens: OptionalSwitch = None
    """Encode a question and its answer as two tokens; -1: as in pretraining."""
    drop_ray_prob_train: float = 0.0
    """Probability that all rays of a training sample are dropped."""
    force_missing_ray: bool = False
    """Drop the rays of all samples."""

    def settings(self, voxel: VoxelSettings) -> SampleSettings:
        """The settings that samples are read with, none of them None any more."""
        n_point, n_ray, qa, eos = self.n_point, self.n_ray, self.qa_tokens, self.add_eos
        assert n_point is not None and n_ray is not None and qa is not None and eos is not None
        return SampleSettings(n_point, n_ray, qa=qa, eos=eos, force_missing_ray=self.force_missing_ray, voxel=voxel)


@dataclass(frozen=True, kw_only=True)
class TrainingFlags:
    """How the model is trained."""

    batch: int = 32
    """Sequences per step."""
    epochs: int = 100
    """Passes over the training set."""
    lr: float = 1e-4
    """Learning rate of AdamW (constant)."""
    weight_decay: float = 0.05
    """Weight decay of AdamW."""
    freeze_backbone: bool = False
    """Train the head only."""
    num_workers: int = 4
    """Threads that prefetch samples; 0: none."""

    def __post_init__(self) -> None:
        for name, least in (("batch", 1), ("epochs", 1), ("num_workers", 0), ("weight_decay", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if not 0 < self.lr < math.inf:
            raise ValueError(f"lr must be positive, got {self.lr}")


@dataclass(frozen=True, kw_only=True)
class SplitFlags:
    """Training and validation shapes, chosen from the train split."""

    val_ratio: float = 0.1
    """Share of each class of the train split that is used for validation."""
    val_seed: int = 0
    """Seed of the choice of the validation set."""
    group_by: GroupBy = "file"
    """Split off files, or whole objects, so that no object has scans in both training and validation."""
    fewshot_k: int = 0
    """Training shapes per class (fewer if a class has fewer); 0: all."""
    fewshot_seed: int = 0
    """Seed of the choice of these shapes."""

    def __post_init__(self) -> None:
        if self.fewshot_k < 0:
            raise ValueError(f"fewshot_k must be at least 0, got {self.fewshot_k}")
        if not 0 <= self.val_ratio < 1:
            raise ValueError(f"val_ratio must lie in [0, 1), got {self.val_ratio}")

    def sets(self, cache_root: str) -> Sets:
        """The three sets of a cache."""
        shots = (self.fewshot_k, self.fewshot_seed)
        return split_sets(cache_root, self.val_ratio, self.val_seed, *shots, self.group_by)


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


@dataclass(frozen=True, kw_only=True)
class FreshModelFlags(ModelFlags):
    """Size of a model that is trained from scratch."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """Fine-tune a checkpoint to classify the shapes of a cache.

    The weights with the best validation accuracy (best.pt) are tested; last.pt holds the result of the finished run.
    The same command resumes an interrupted run.

    Example: python -m nepa3d.train.finetune_cls --cache_root data/scanobjectnn_main_split_v2
    --backend pointcloud_noray --ckpt runs/nepa_qa/last.pt --save_dir runs/scan_nepa_k5_s0 --fewshot_k 5
    """

    cache_root: str
    """Cache with the splits train and test."""
    save_dir: str
    """Folder to write the results to."""
    ckpt: str = ""
    """Pretrained checkpoint; empty: train from scratch with d_model, layers and heads."""
    views: ViewFlags = field(default_factory=ViewFlags)
    samples: SampleFlags = field(default_factory=SampleFlags)
    voxel: VoxelFlags = field(default_factory=VoxelFlags)
    training: TrainingFlags = field(default_factory=TrainingFlags)
    seed: int = 0
    """Seed of the head's weights and of the order and draws of training."""
    split: SplitFlags = field(default_factory=SplitFlags)
    evaluation: EvaluationFlags = field(default_factory=EvaluationFlags)
    model: FreshModelFlags = field(default_factory=FreshModelFlags)

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ValueError(f"seed must be at least 0, got {self.seed}")

    def sample_settings(self) -> SampleSettings:
        """How shapes become sequences, once it is known for the model."""
        return self.samples.settings(self.voxel.settings())


@dataclass
class Run:
    """A fine-tuning under way: what the state file keeps, and what it is made of."""

    config: Config
    sets: Sets
    training: View
    evaluation: View
    device: torch.device
    model: Classifier
    optimizer: torch.optim.AdamW
    scaler: torch.amp.GradScaler | None
    epoch: int = 0  # the next one
    best_epoch: int = -1
    best_accuracy: float = -1.0

    def state(self) -> dict[str, Any]:
        """Plain values and tensors from which the run goes on bit for bit."""
        return {
            "model": self.model.state_dict(),
            "opt": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict() if self.scaler else None,
            "args": flags.spellings(self.config),
            "epoch": self.epoch,
            "best_epoch": self.best_epoch,
            "best_accuracy": self.best_accuracy,
        }


def open_backbone(config: Config) -> tuple[QueryNepa, Config]:
    """The pretrained model, or a fresh one, and the flags with the checkpoint's values where they were None.

    ``ValueError`` if sizes are given that are not the checkpoint's.
    """
    if not config.ckpt:
        config = _filled(config, {"n_point": 512, "n_ray": 512, "add_eos": True, "qa_tokens": False})
        torch.manual_seed(config.seed)
        return model_for(flags.spellings(config)), config
    checkpoint = load_checkpoint(config.ckpt)
    backbone = build_model(checkpoint)
    qa = backbone.type_emb.num_embeddings == N_TYPES_QA
    known = {"qa_tokens": qa, **{name: checkpoint.args.get(name) for name in ("add_eos", "n_point", "n_ray")}}
    lacking = [
        name for name, value in known.items() if not isinstance(value, int) and getattr(config.samples, name) is None
    ]
    if lacking:
        raise ValueError(f"{config.ckpt}: does not say its {', '.join(lacking)}: give them")
    config = _filled(config, known | {"add_eos": bool(known["add_eos"])})
    settings = config.sample_settings()
    if settings.qa != qa:
        raise ValueError(f"qa_tokens must be {qa:d}, as {config.ckpt} has it, got {settings.qa:d}")
    if settings.length != backbone.pos_emb.shape[1]:
        raise ValueError(
            f"n_point {settings.n_point}, n_ray {settings.n_ray} and add_eos {settings.eos:d} make {settings.length} "
            f"tokens, {config.ckpt} has {backbone.pos_emb.shape[1]}"
        )
    return backbone, config


def _filled(config: Config, known: Mapping[str, int | None]) -> Config:
    missing = {name: value for name, value in known.items() if getattr(config.samples, name) is None}
    return replace(config, samples=replace(config.samples, **missing))


def start(config: Config) -> Run:
    """A fresh run, or the one that was interrupted in the same folder."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    backbone, config = open_backbone(config)
    training, views = config.training, config.views
    sets = config.split.sets(config.cache_root)
    torch.manual_seed(config.seed)
    model = Classifier(backbone, len(sets.classes), freeze_backbone=training.freeze_backbone).to(device)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=training.lr, weight_decay=training.weight_decay)
    scaler = torch.amp.GradScaler() if device.type == "cuda" else None
    train_view, eval_view = (
        View(backend or views.backend, config.sample_settings(), training.batch, training.num_workers)
        for backend in (views.train_backend, views.eval_backend)
    )
    run = Run(config, sets, train_view, eval_view, device, model, optimizer, scaler)
    state = Path(config.save_dir) / "state.pt"
    if state.exists():
        _restore(run, state)
    return run


def _restore(run: Run, path: Path) -> None:
    kept = read_tensors(path, run.device)
    before = {  # by default, flags that the run did not know yet
        name: kept["args"].get(name, flag.spelling(flag.default)) for name, flag in flags.flags(Config).items()
    }
    differing = [
        f"{name} {before[name]} -> {value}"
        for name, value in flags.spellings(run.config).items()
        if name not in HARMLESS and before[name] != value
    ]
    if differing:
        raise ValueError(f"{path}: is of a run with other settings ({'; '.join(differing)}): delete it to start anew")
    run.model.load_state_dict(kept["model"])
    run.optimizer.load_state_dict(kept["opt"])
    if run.scaler and kept["scaler"]:
        run.scaler.load_state_dict(kept["scaler"])
    run.epoch, run.best_epoch, run.best_accuracy = kept["epoch"], kept["best_epoch"], kept["best_accuracy"]
    print(f"goes on from {path}: epoch {run.epoch}")


def train_epoch(run: Run) -> float:
    """One pass over the training set; returns the mean loss. ``ValueError`` if it diverges."""
    config = run.config
    run.model.train()
    if run.model.frozen:
        run.model.backbone.eval()
    total, count = torch.zeros((), device=run.device), 0
    drop_ray_prob = config.samples.drop_ray_prob_train
    batches = training_batches(run.sets, run.training, config.seed, run.epoch, drop_ray_prob=drop_ray_prob)
    for features, types, labels in batches:
        features, types, labels = (t.to(run.device, non_blocking=True) for t in (features, types, labels))
        with torch.autocast(run.device.type, dtype=torch.float16, enabled=run.scaler is not None):
            loss = torch.nn.functional.cross_entropy(run.model(features, types), labels)
        _step(run, loss)
        total += loss.detach() * len(labels)
        count += len(labels)
    mean = float(total) / count
    if not math.isfinite(mean):
        raise ValueError(f"the loss is {mean} in epoch {run.epoch}; best.pt holds the best weights before it")
    return mean


def _step(run: Run, loss: Tensor) -> None:
    run.optimizer.zero_grad(set_to_none=True)
    if run.scaler is None:
        loss.backward()
        run.optimizer.step()
    else:
        run.scaler.scale(loss).backward()
        run.scaler.step(run.optimizer)
        run.scaler.update()


@torch.no_grad()
def predict(run: Run, paths: Sequence[str], resamples: int) -> NDArray[np.float64]:
    """Logits (n, C), the mean over ``resamples`` draws of each shape."""
    run.model.eval()
    logits = np.zeros((len(paths), len(run.sets.classes)))
    for begin, features, types in evaluation_batches(paths, run.evaluation, run.config.evaluation.eval_seed, resamples):
        with torch.autocast(run.device.type, dtype=torch.float16, enabled=run.scaler is not None):
            found = run.model(features.to(run.device), types.to(run.device))
        logits[begin : begin + len(found)] += found.double().cpu().numpy()
    return logits / resamples


def evaluate(run: Run, paths: Sequence[str], resamples: int) -> Scores:
    """The figures of a set."""
    return score(predict(run, paths, resamples).argmax(1), run.sets.labels(paths), run.sets.classes)


def finetune(config: Config) -> dict[str, Any]:
    """Train, test the best weights, and write everything; returns what result.json holds."""
    folder = Path(config.save_dir)
    if (folder / "last.pt").exists():
        result = read_tensors(folder / "last.pt")
        print(f"{folder / 'last.pt'} is there already: test_acc {result['test_acc']:.4f}")
        _warn(config, result.get("fewshot_short", {}))  # older runs do not say
        return {name: value for name, value in result.items() if name != "model"}
    folder.mkdir(parents=True, exist_ok=True)
    remove_temporaries(folder)
    run = start(config)
    sets = run.sets
    print(f"{len(sets.train)} training, {len(sets.validation)} validation, {len(sets.test)} test shapes", end=", ")
    print(f"{len(sets.classes)} classes, {run.training.settings.length} tokens, on {run.device}")
    _warn(config, short_classes(sets.train, config.split.fewshot_k))
    _train(run, folder)
    best = read_tensors(folder / "best.pt", run.device)
    run.model.load_state_dict(best["model"])
    tested = evaluate(run, sets.test, run.config.evaluation.resamples("test"))
    result = _result(run, tested)
    write_json(folder / "result.json", result)
    if find_spec("matplotlib"):
        draw_confusion(tested, sets.classes, folder / "confusion.png")
    write_tensors(folder / "last.pt", {"model": best["model"], **result})
    (folder / "state.pt").unlink(missing_ok=True)
    return result


def _warn(config: Config, short: Mapping[str, int]) -> None:
    """Say which classes have fewer shapes than shots were asked for."""
    if short:
        print(f"warning: {shortage(config.split.fewshot_k, short)}", file=sys.stderr)


def _train(run: Run, folder: Path) -> None:
    config, kept = run.config, time.monotonic()
    with progress_bar(total=config.training.epochs, initial=run.epoch, unit="epoch") as progress:
        while run.epoch < config.training.epochs:
            loss = train_epoch(run)
            accuracy = (
                evaluate(run, run.sets.validation, config.evaluation.resamples("val")).accuracy
                if run.sets.validation
                else 0.0
            )
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


def _result(run: Run, tested: Scores) -> dict[str, Any]:
    return {
        "test_acc": tested.accuracy,
        "val_acc": run.best_accuracy,
        "test_balanced_acc": tested.balanced_accuracy,
        "test_majority": tested.majority,
        "chance": tested.chance,
        "alarm": tested.alarm(),
        "best_epoch": run.best_epoch,
        "epoch": run.config.training.epochs - 1,
        "n_train": len(run.sets.train),
        "fewshot_short": short_classes(run.sets.train, run.config.split.fewshot_k),
        "n_val": len(run.sets.validation),
        "n_test": len(run.sets.test),
        "classes": run.sets.classes,
        "confusion": tested.confusion.tolist(),
        "args": flags.spellings(run.config),
    }


def command(config: Config) -> None:
    """``finetune``, printing the figures beside what they mean little without."""
    result = finetune(config)
    rows = [
        ("test accuracy", result["test_acc"]),
        ("balanced", result["test_balanced_acc"]),
        ("best validation", result["val_acc"]),
        ("always the commonest class", result["test_majority"]),
        ("chance", result["chance"]),
    ]
    print(tabulate(rows, floatfmt=".4f"))
    if result["alarm"]:
        print(f"alarm: {result['alarm']}")
    print(f"results: {config.save_dir}")


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(Config, command, argv, output="save_dir")


if __name__ == "__main__":
    raise SystemExit(main())
