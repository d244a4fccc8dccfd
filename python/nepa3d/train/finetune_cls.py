"""Fine-tuning: a pretrained model learns to tell classes, from all shapes or a few, and is tested once."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from tabulate import tabulate
from torch import Tensor

from nepa3d import cli
from nepa3d.execution.files import remove_temporaries, write_json
from nepa3d.execution.progress_bar import progress_bar
from nepa3d.models.checkpoint import build_model, load_checkpoint, model_for, read_tensors, write_tensors
from nepa3d.models.classifier import Classifier
from nepa3d.models.query_nepa import QueryNepa
from nepa3d.probes.scores import Scores, draw_confusion, score
from nepa3d.samples.dataset import SampleSettings
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
    backend: str = "pointcloud_noray"
    """View of the shapes."""
    train_backend: str = ""
    """View of the training shapes; empty: backend."""
    eval_backend: str = ""
    """View of the validation and test shapes; empty: backend."""
    batch: int = 32
    """Sequences per step."""
    epochs: int = 100
    """Passes over the training set."""
    lr: float = 1e-4
    """Learning rate of AdamW (constant)."""
    weight_decay: float = 0.05
    """Weight decay of AdamW."""
    n_point: int = -1
    """Point queries per sample; -1: as in pretraining."""
    n_ray: int = -1
    """Ray queries per sample; -1: as in pretraining."""
    num_workers: int = 4
    """Threads that prefetch samples; 0: none."""
    seed: int = 0
    """Seed of the head's weights and of the order and draws of training."""
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
    eval_seed: int = 0
    """Seed of the draws of validation and test."""
    mc_eval_k: int = 1
    """Number of draws per shape whose logits are averaged."""
    mc_eval_k_val: int = -1
    """Number of draws per validation shape; -1: mc_eval_k."""
    mc_eval_k_test: int = -1
    """Number of draws per test shape; -1: mc_eval_k."""
    drop_ray_prob_train: float = 0.0
    """Probability that all rays of a training sample are dropped."""
    force_missing_ray: bool = False
    """Drop the rays of all samples."""
    add_eos: Literal[-1, 0, 1] = -1
    """End sequences with an EOS token; -1: as in pretraining."""
    qa_tokens: Literal[-1, 0, 1] = -1
    """Encode a question and its answer as two tokens; -1: as in pretraining."""
    voxel_grid: int = 64
    """Side of the grid of the voxel view, in cells."""
    voxel_dilate: int = 1
    """Rounds of dilation of that grid."""
    voxel_max_steps: int = 0
    """Largest number of cells that a ray visits; 0: three times voxel_grid."""
    freeze_backbone: bool = False
    """Train the head only."""
    d_model: int = 384
    """Width of a model trained from scratch."""
    layers: int = 8
    """Number of layers of a model trained from scratch."""
    heads: int = 6
    """Number of attention heads of a model trained from scratch."""

    def __post_init__(self) -> None:
        for name in ("batch", "epochs", "mc_eval_k", "d_model", "layers", "heads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("num_workers", "seed", "fewshot_k", "weight_decay"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")
        for name in ("mc_eval_k_val", "mc_eval_k_test"):
            if getattr(self, name) != -1 and getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, or -1, got {getattr(self, name)}")
        if not 0 <= self.val_ratio < 1:
            raise ValueError(f"val_ratio must lie in [0, 1), got {self.val_ratio}")
        if not 0 < self.lr < math.inf:
            raise ValueError(f"lr must be positive, got {self.lr}")
        for name in ("backend", "train_backend", "eval_backend"):
            if name == "backend" or getattr(self, name):
                require_backend(getattr(self, name), name)

    def resamples(self, which: Literal["val", "test"]) -> int:
        """Draws a shape in validation or test."""
        given = self.mc_eval_k_val if which == "val" else self.mc_eval_k_test
        return self.mc_eval_k if given == -1 else given


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
            "args": asdict(self.config),
            "epoch": self.epoch,
            "best_epoch": self.best_epoch,
            "best_accuracy": self.best_accuracy,
        }


def open_backbone(config: Config) -> tuple[QueryNepa, Config]:
    """The pretrained model, or a fresh one, and the flags with the checkpoint's values where they were -1.

    ``ValueError`` if sizes are given that are not the checkpoint's.
    """
    if not config.ckpt:
        defaults = {"n_point": 512, "n_ray": 512, "add_eos": 1, "qa_tokens": 0}
        config = _filled(config, defaults)
        torch.manual_seed(config.seed)
        return model_for(asdict(config)), config
    checkpoint = load_checkpoint(config.ckpt)
    backbone = build_model(checkpoint)
    qa = int(backbone.type_emb.num_embeddings == N_TYPES_QA)
    known = {"qa_tokens": qa, "add_eos": 1, **{k: checkpoint.args.get(k) for k in ("n_point", "n_ray", "add_eos")}}
    lacking = [name for name, value in known.items() if not isinstance(value, int) and getattr(config, name) == -1]
    if lacking:
        raise ValueError(f"{config.ckpt}: does not say its {', '.join(lacking)}: give them")
    config = _filled(config, known)
    length = _settings(config).length
    if config.qa_tokens != qa:
        raise ValueError(f"qa_tokens must be {qa}, as {config.ckpt} has it, got {config.qa_tokens}")
    if length != backbone.pos_emb.shape[1]:
        raise ValueError(
            f"n_point {config.n_point}, n_ray {config.n_ray} and add_eos {config.add_eos} make {length} tokens, "
            f"{config.ckpt} has {backbone.pos_emb.shape[1]}"
        )
    return backbone, config


def _filled(config: Config, values: dict[str, Any]) -> Config:
    return replace(config, **{name: value for name, value in values.items() if getattr(config, name) == -1})


def _settings(config: Config) -> SampleSettings:
    return SampleSettings(
        config.n_point,
        config.n_ray,
        qa=bool(config.qa_tokens),
        eos=bool(config.add_eos),
        force_missing_ray=config.force_missing_ray,
        voxel=VoxelSettings(config.voxel_grid, config.voxel_dilate, config.voxel_max_steps),
    )


def start(config: Config) -> Run:
    """A fresh run, or the one that was interrupted in the same folder."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    backbone, config = open_backbone(config)
    shots = (config.fewshot_k, config.fewshot_seed)
    sets = split_sets(config.cache_root, config.val_ratio, config.val_seed, *shots, config.group_by)
    torch.manual_seed(config.seed)
    model = Classifier(backbone, len(sets.classes), freeze_backbone=config.freeze_backbone).to(device)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=config.lr, weight_decay=config.weight_decay)
    scaler = torch.amp.GradScaler() if device.type == "cuda" else None
    training, evaluation = (
        View(backend or config.backend, _settings(config), config.batch, config.num_workers)
        for backend in (config.train_backend, config.eval_backend)
    )
    run = Run(config, sets, training, evaluation, device, model, optimizer, scaler)
    state = Path(config.save_dir) / "state.pt"
    if state.exists():
        _restore(run, state)
    return run


def _restore(run: Run, path: Path) -> None:
    kept = read_tensors(path, run.device)
    usual = {field.name: field.default for field in fields(Config)}  # of flags the run did not know yet
    before = {name: kept["args"].get(name, usual[name]) for name in usual}
    differing = [
        f"{name} {before[name]} -> {value}"
        for name, value in asdict(run.config).items()
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
    batches = training_batches(run.sets, run.training, config.seed, run.epoch, drop_ray_prob=config.drop_ray_prob_train)
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
    for begin, features, types in evaluation_batches(paths, run.evaluation, run.config.eval_seed, resamples):
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
    _warn(config, short_classes(sets.train, config.fewshot_k))
    _train(run, folder)
    best = read_tensors(folder / "best.pt", run.device)
    run.model.load_state_dict(best["model"])
    tested = evaluate(run, sets.test, run.config.resamples("test"))
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
        print(f"warning: {shortage(config.fewshot_k, short)}", file=sys.stderr)


def _train(run: Run, folder: Path) -> None:
    config, kept = run.config, time.monotonic()
    with progress_bar(total=config.epochs, initial=run.epoch, unit="epoch") as progress:
        while run.epoch < config.epochs:
            loss = train_epoch(run)
            accuracy = (
                evaluate(run, run.sets.validation, config.resamples("val")).accuracy if run.sets.validation else 0.0
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
        "epoch": run.config.epochs - 1,
        "n_train": len(run.sets.train),
        "fewshot_short": short_classes(run.sets.train, run.config.fewshot_k),
        "n_val": len(run.sets.validation),
        "n_test": len(run.sets.test),
        "classes": run.sets.classes,
        "confusion": tested.confusion.tolist(),
        "args": asdict(run.config),
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
