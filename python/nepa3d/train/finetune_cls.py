"""Fine-tuning: a pretrained model learns to tell classes, from all shapes or a few, and is tested once."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate

from nepa3d import cli
from nepa3d.cli import flags
from nepa3d.cli.spellings import OptionalCount, OptionalSwitch
from nepa3d.execution.files import remove_temporaries, require_newer, write_json
from nepa3d.models.checkpoint import SizeFlags, build_model, model_for, parts_of, read_tensors, write_tensors
from nepa3d.models.classifier import Classifier
from nepa3d.models.query_nepa import ArchitectureFlags, QueryNepa
from nepa3d.models.stored import read_model
from nepa3d.probes.scores import Scores, draw_confusion
from nepa3d.samples.dataset import SampleSettings
from nepa3d.samples.flag_groups import VoxelFlags
from nepa3d.samples.labelled import SequenceReader, SplitFlags, short_classes, shortage
from nepa3d.samples.schema import N_TYPES_QA
from nepa3d.shapes.views import VoxelSettings, require_backend
from nepa3d.train.finetune_loop import (
    AugmentationFlags,
    EvaluationFlags,
    HeadFlags,
    Run,
    TrainingFlags,
    class_weights,
    evaluate,
    optimizer_of,
    train,
)

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
    force_missing_ray: bool = False
    """Drop the rays of all samples."""

    def settings(self, voxel: VoxelSettings) -> SampleSettings:
        """The settings that samples are read with, none of them None any more."""
        n_point, n_ray, qa, eos = self.n_point, self.n_ray, self.qa_tokens, self.add_eos
        assert n_point is not None and n_ray is not None and qa is not None and eos is not None
        return SampleSettings(n_point, n_ray, qa=qa, eos=eos, force_missing_ray=self.force_missing_ray, voxel=voxel)


@dataclass(frozen=True, kw_only=True)
class FreshSizeFlags(SizeFlags):
    """Size of a model that is trained from scratch."""


@dataclass(frozen=True, kw_only=True)
class FreshArchitectureFlags(ArchitectureFlags):
    """Parts of a model that is trained from scratch."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """Fine-tune a checkpoint to classify the shapes of a cache.

    The weights with the best validation figure (best.pt) are tested; last.pt holds the result of the finished run.
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
    augmentation: AugmentationFlags = field(default_factory=AugmentationFlags)
    head: HeadFlags = field(default_factory=HeadFlags)
    split: SplitFlags = field(default_factory=SplitFlags)
    evaluation: EvaluationFlags = field(default_factory=EvaluationFlags)
    model: FreshSizeFlags = field(default_factory=FreshSizeFlags)
    architecture: FreshArchitectureFlags = field(default_factory=FreshArchitectureFlags)

    def __post_init__(self) -> None:
        if self.ckpt:
            _require_left_out(self.architecture, FreshArchitectureFlags(), "parts")
            _require_left_out(self.model, FreshSizeFlags(), "size")

    def sample_settings(self) -> SampleSettings:
        """How shapes become sequences, once it is known for the model."""
        return self.samples.settings(self.voxel.settings())


def _require_left_out(given: FreshSizeFlags | FreshArchitectureFlags, default: object, what: str) -> None:
    names = ", ".join(name for name, value in vars(given).items() if value != vars(default)[name])
    if names:
        raise ValueError(f"{names}: a checkpoint has its own {what}, leave them out")


def _checked(backbone: QueryNepa, config: Config, name: str) -> QueryNepa:
    if config.training.drop_ray_prob_train > 0 and backbone.mask_follows_types:
        raise ValueError(
            f"drop_ray_prob_train must be 0 with {name}: attention follows the tokens' types, which must be the same "
            f"in all sequences of a batch, got {config.training.drop_ray_prob_train}"
        )
    return backbone


def open_backbone(config: Config) -> tuple[QueryNepa, Config]:
    """The pretrained model, or a fresh one, and the flags with the checkpoint's values where they were None.

    ``ValueError`` if sizes are given that are not the checkpoint's.
    """
    if not config.ckpt:
        config = _filled(config, {"n_point": 512, "n_ray": 512, "add_eos": True, "qa_tokens": False})
        torch.manual_seed(config.training.seed)
        return _checked(model_for(flags.spellings(config)), config, "these parts"), config
    checkpoint = read_model(config.ckpt).checkpoint
    backbone = build_model(checkpoint)
    qa = bool(checkpoint.args.get("qa_tokens", backbone.type_emb.num_embeddings == N_TYPES_QA))
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
    if backbone.max_len not in (None, settings.length):
        raise ValueError(
            f"n_point {settings.n_point}, n_ray {settings.n_ray} and add_eos {settings.eos:d} make {settings.length} "
            f"tokens, {config.ckpt} has {backbone.max_len}"
        )
    return _checked(backbone, config, config.ckpt), config


def _filled(config: Config, known: Mapping[str, Any]) -> Config:
    missing = {name: value for name, value in known.items() if getattr(config.samples, name) is None}
    return replace(config, samples=replace(config.samples, **missing))


def start(config: Config) -> Run:
    """A fresh run, or the one that was interrupted in the same folder."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    backbone, config = open_backbone(config)
    args, training, views = flags.spellings(config), config.training, config.views
    sets = config.split.sets(config.cache_root)
    torch.manual_seed(config.training.seed)
    head = config.head
    if head.standardize and (training.batch == 1 or len(sets.train) % training.batch == 1):
        raise ValueError(
            f"standardize needs two shapes in every batch, but batch {training.batch} leaves one of {len(sets.train)}"
        )
    model = Classifier(
        backbone,
        len(sets.classes),
        freeze_backbone=training.freeze_backbone,
        readout=head.readout,
        standardize=head.standardize,
    ).to(device)
    optimizer = optimizer_of(model, training)
    scaler = torch.amp.GradScaler() if device.type == "cuda" else None
    train_reader, eval_reader = (
        SequenceReader(backend or views.backend, config.sample_settings(), training.batch, training.num_workers)
        for backend in (views.train_backend, views.eval_backend)
    )
    weights = class_weights(sets).to(device) if head.balance else None
    given = (args, training, config.augmentation, config.evaluation, sets, train_reader, eval_reader)
    run = Run(*given, device, model, optimizer, scaler, weights)
    state = Path(config.save_dir) / "state.pt"
    if state.exists():
        _restore(run, state, config)
    return run


def _require_same(path: Path, args: Mapping[str, Any], config: Config) -> None:
    """``ValueError`` naming the flags of ``config`` that the run of a file was not made with, or its checkpoint if that
    was written since."""
    differing = flags.differing(args, config, harmless=HARMLESS)
    if differing:
        raise ValueError(f"{path}: is of a run with other settings ({'; '.join(differing)}): delete it to start anew")
    if config.ckpt:
        require_newer(path, config.ckpt)


def _restore(run: Run, path: Path, config: Config) -> None:
    kept = read_tensors(path, run.device)
    _require_same(path, kept["args"], config)
    run.model.load_state_dict(kept["model"])
    run.optimizer.load_state_dict(kept["opt"])
    if run.scaler and kept["scaler"]:
        run.scaler.load_state_dict(kept["scaler"])
    run.epoch, run.best_epoch, run.best_accuracy = kept["epoch"], kept["best_epoch"], kept["best_accuracy"]
    print(f"resuming from {path}: epoch {run.epoch}")


def finetune(config: Config) -> dict[str, Any]:
    """Train, test the best weights, and write everything; returns what result.json holds."""
    folder = Path(config.save_dir)
    if (folder / "last.pt").exists():
        result = read_tensors(folder / "last.pt")
        _require_same(folder / "last.pt", result["args"], open_backbone(config)[1])
        print(f"{folder / 'last.pt'} is there already: test_acc {result['test_acc']:.4f}")
        _warn(config.split.fewshot_k, result.get("fewshot_short", {}))  # older runs do not say
        return {name: value for name, value in result.items() if name not in ("model", "backbone")}
    folder.mkdir(parents=True, exist_ok=True)
    remove_temporaries(folder)
    run = start(config)
    sets = run.sets
    print(f"{len(sets.train)} training, {len(sets.validation)} validation, {len(sets.test)} test shapes", end=", ")
    print(f"{len(sets.classes)} classes, {run.train_reader.settings.length} tokens, on {run.device}")
    _warn(config.split.fewshot_k, short_classes(sets.train, config.split.fewshot_k))
    train(run, folder)
    best = read_tensors(folder / "best.pt", run.device)
    run.model.load_state_dict(best["model"])
    tested = evaluate(run, sets.test, run.evaluation.resamples("test"))
    result = _result(run, tested, config.split.fewshot_k)
    write_json(folder / "result.json", result)
    if find_spec("matplotlib"):
        draw_confusion(tested, sets.classes, folder / "confusion.png")
    backbone = parts_of(run.model.backbone)
    write_tensors(folder / "last.pt", {"model": best["model"], "backbone": backbone, **result})
    (folder / "state.pt").unlink(missing_ok=True)
    return result


def _warn(fewshot_k: int, short: Mapping[str, int]) -> None:
    """Say which classes have fewer shapes than shots were asked for."""
    if short:
        print(f"warning: {shortage(fewshot_k, short)}", file=sys.stderr)


def _result(run: Run, tested: Scores, fewshot_k: int) -> dict[str, Any]:
    return {
        "test_acc": tested.accuracy,
        "val_acc": run.best_accuracy if run.sets.validation else None,
        "test_balanced_acc": tested.balanced_accuracy,
        "test_majority": tested.majority,
        "test_majority_share": tested.majority_share,
        "chance": tested.chance,
        "alarm": tested.alarm(),
        "best_epoch": run.best_epoch,
        "epoch": run.epochs - 1,
        "n_train": len(run.sets.train),
        "fewshot_short": short_classes(run.sets.train, fewshot_k),
        "n_val": len(run.sets.validation),
        "n_test": len(run.sets.test),
        "classes": run.sets.classes,
        "confusion": tested.confusion.tolist(),
        "args": run.args,
    }


def command(config: Config) -> None:
    """``finetune``, printing the figures beside what they mean little without."""
    done_before = (Path(config.save_dir) / "last.pt").exists()
    result = finetune(config)
    rows = [
        ("test accuracy", result["test_acc"]),
        ("balanced", result["test_balanced_acc"]),
        ("best validation", result["val_acc"]),
        ("always the commonest class", result["test_majority"]),
        ("share of the commonest prediction", result["test_majority_share"]),
        ("chance", result["chance"]),
    ]
    print(tabulate(rows, floatfmt=".4f", missingval="none"))
    if result["alarm"]:
        print(f"alarm: {result['alarm']}")
    print(f"results: {config.save_dir}")
    if done_before:
        raise cli.Unchanged


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(Config, command, argv, output="save_dir")


if __name__ == "__main__":
    raise SystemExit(main())
