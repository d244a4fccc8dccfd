"""Pretraining: one loop over a corpus of cached shapes, resumable at every step, on one process or several."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tabulate import tabulate
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from nepa3d import cli
from nepa3d.cli import flags
from nepa3d.execution.files import remove_temporaries
from nepa3d.execution.progress_bar import progress_bar
from nepa3d.models.checkpoint import Checkpoint, SizeFlags, load_optimizer, load_weights, model_for
from nepa3d.models.interpolation import NEARBY_DIM
from nepa3d.models.query_nepa import ArchitectureFlags, QueryNepa
from nepa3d.models.stored import read_model
from nepa3d.samples.dataset import SampleSettings
from nepa3d.samples.flag_groups import VoxelFlags
from nepa3d.train.augment import AugmentFlags
from nepa3d.train.corpus import Corpus, CorpusFlags, SampleFlags, open_corpus
from nepa3d.train.distributed import ProcessGroup, process_group
from nepa3d.train.flag_groups import Optimizer, QueryFlags, StepFlags
from nepa3d.train.loop import Loop, LoopFlags, OutputFlags, Run, first_batch, stop_on_request, train
from nepa3d.train.loss_log import Curves, keep_steps
from nepa3d.train.muon import Muon
from nepa3d.train.objectives import OBJECTIVES
from nepa3d.train.resume import ResumeFlags, checkpoint_to_resume, require_same_model
from nepa3d.train.schedule import DualMaskFlags, LearningRateFlags, Schedule
from nepa3d.train.step import PRECISIONS, LossFlags, Trainer

WEIGHT_DECAY = 0.05
KERNEL_RATE = 5.0
# flags that a run keeps when it is resumed, and those that change no number
SHAPE = (*flags.flags(SizeFlags), *flags.flags(ArchitectureFlags))
MODEL = ("objective", "target", "optimizer", *SHAPE, "n_point", "n_ray", "qa_tokens", "add_eos")
FIRST_LAYER = "token_mlp.0.weight"  # that sees the features of a token, those of pulled points last
HARMLESS = ("save_dir", "num_workers", *flags.flags(OutputFlags), *flags.flags(ResumeFlags))


@dataclass(frozen=True, kw_only=True)
class Config:
    """Pretrain QueryNepa on cached shapes and write checkpoints and the loss log to save_dir.

    The same command resumes an interrupted run from last.pt.

    Example: python -m nepa3d.train.pretrain --mix_config nepa3d/configs/shapenet_unpaired_mix.yaml
    --objective nepa --qa_tokens 1 --dual_mask_near 0.4 --dual_mask_far 0.1 --save_dir runs/nepa_qa

    On several GPUs: torchrun --nproc_per_node 2 -m nepa3d.train.pretrain, with the same flags.
    """

    save_dir: str
    """Folder for ckpt_ep<NNN>.pt, last.pt, loss.jsonl and diagnostics.jsonl."""
    corpus: CorpusFlags = field(default_factory=CorpusFlags)
    samples: SampleFlags = field(default_factory=SampleFlags)
    voxel: VoxelFlags = field(default_factory=VoxelFlags)
    model: SizeFlags = field(default_factory=SizeFlags)
    architecture: ArchitectureFlags = field(default_factory=ArchitectureFlags)
    loss: LossFlags = field(default_factory=LossFlags)
    query: QueryFlags = field(default_factory=QueryFlags)
    augment: AugmentFlags = field(default_factory=AugmentFlags)
    dual_mask: DualMaskFlags = field(default_factory=DualMaskFlags)
    loop: LoopFlags = field(default_factory=LoopFlags)
    learning_rate: LearningRateFlags = field(default_factory=LearningRateFlags)
    step: StepFlags = field(default_factory=StepFlags)
    output: OutputFlags = field(default_factory=OutputFlags)
    resuming: ResumeFlags = field(default_factory=ResumeFlags)
    seed: int = 0
    """Seed of the weights, samples and masks."""

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ValueError(f"seed must be at least 0, got {self.seed}")

    def sample_settings(self) -> SampleSettings:
        """How shapes become sequences."""
        return self.samples.settings(self.voxel.settings())


class Trained(NamedTuple):
    """What a call of ``pretrain`` did."""

    last: Path
    """The last checkpoint."""
    steps: int
    """Taken in this call; 0 where all epochs were done before."""


def pretrain(config: Config, process_group: ProcessGroup) -> Trained:
    """Train to the last epoch, resuming from a checkpoint where there is one."""
    corpus = open_corpus(config.corpus, config.sample_settings(), config.seed)
    if OBJECTIVES[config.loss.objective].draws == 2:
        corpus = replace(corpus, paired_batch=config.loop.batch)
        if config.loop.batch < process_group.size:  # what they compare, each of them has to send
            raise ValueError(f"batch must be at least {process_group.size}, the processes, got {config.loop.batch}")
        if any(part.ask_pair for part in corpus.parts) and config.loop.batch % (2 * process_group.size):
            raise ValueError(
                f"batch must be a multiple of {2 * process_group.size} where ask_pair keeps both draws of a shape in "
                f"one process, got {config.loop.batch}"
            )
    elif any(part.pair is not None for part in corpus.parts):
        raise ValueError(f"objective {config.loss.objective} takes no mix whose components have a pair")
    # a mix may decide on it, and the checkpoint has to tell what was trained
    config = replace(config, samples=replace(config.samples, add_eos=corpus.parts[0].settings.eos))
    folder, epochs = Path(config.save_dir), config.loop.epochs
    if process_group.leads:
        folder.mkdir(parents=True, exist_ok=True)
        remove_temporaries(folder)
    samples = len(corpus.epoch(0))
    total_steps = config.loop.steps_per_epoch(samples) * epochs
    run = start(config, process_group, len(corpus.parts), total_steps, [part.backend for part in corpus.parts])
    if process_group.leads:
        keep_steps(folder, run.step)
        _announce(run, corpus)
    if run.epoch >= epochs:
        process_group.say(f"all {epochs} epochs are done")
        return Trained(Path(run.source), 0)
    begin = run.step
    curves = Curves(folder, run.step, wanted=config.output.tensorboard and process_group.leads)
    begun = min(first_batch(run, config.loop, samples) * config.loop.batch, samples)
    with (
        stop_on_request() as asked,
        progress_bar(
            total=epochs * samples,
            initial=run.epoch * samples + begun,
            unit="sample",
            disable=not process_group.leads,
        ) as progress,
    ):
        loop = Loop(run, corpus, folder, config.loop, config.output, progress, curves, asked)
        train(loop)
    if loop.alarms:
        process_group.say("alarms: " + "; ".join(loop.alarms))
    return Trained(folder / f"ckpt_ep{epochs - 1:03d}.pt", run.step - begin)


def start(config: Config, process_group: ProcessGroup, parts: int, total_steps: int, views: Sequence[str] = ()) -> Run:
    """A fresh run of ``total_steps`` on a corpus of ``parts``, seen as ``views``, or the checkpoint to resume."""
    args = flags.spellings(config)
    torch.manual_seed(config.seed)
    model = model_for(args).to(process_group.device).train()
    model.pred_head.requires_grad_(OBJECTIVES[config.loss.objective].predicts_embeddings)
    optimizer = optimizer_of(model, config.learning_rate, config.step.optimizer)
    on_gpu = process_group.device.type == "cuda"
    amp = config.step.amp if config.step.amp != "auto" else "fp16" if on_gpu else "none"
    trainer = Trainer(
        loss=config.loss,
        query=config.query,
        augment=config.augment,
        flags=config.step,
        seed=config.seed,
        n_point=config.samples.n_point,
        qa=config.samples.qa_tokens,
        process_group=process_group,
        model=model,
        forward=torch.compile(model, dynamic=True) if config.step.compile else model,
        optimizer=optimizer,
        precision=PRECISIONS[amp],
        scaler=torch.amp.GradScaler(process_group.device.type) if amp == "fp16" else None,
        parts=parts,
        views=views,
    )
    trainer.objective.require(trainer)
    mask = config.dual_mask if OBJECTIVES[config.loss.objective].predicts_next else None
    schedule = Schedule(config.learning_rate, mask, config.seed, total_steps)
    ema = config.step.ema
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(ema)) if ema else None
    run = Run(trainer, schedule, averaged, args)
    checkpoint = checkpoint_to_resume(Path(config.save_dir), config.resuming, process_group)
    if checkpoint:
        _restore(run, checkpoint)
        if config.resuming.init:
            process_group.say(f"init {config.resuming.init} is not used: the run is resumed")
    elif config.resuming.init:
        _initialise(run, read_model(config.resuming.init, process_group.device).checkpoint)
    return run


def optimizer_of(model: QueryNepa, rate: LearningRateFlags, kind: Optimizer = "adamw") -> torch.optim.AdamW:
    """AdamW, or Muon for the matrices of the Transformer's layers, over all parameters.

    Those of attention kernels, a few numbers a head that are no weights of features, have ``KERNEL_RATE`` times the
    learning rate and no decay, and are a group of their own.
    """
    named = list(model.named_parameters())
    kernels = {name for name, _ in named if ".kernel." in name}
    matrices = {name for name, p in named if kind == "muon" and name.startswith("backbone.enc.layers.") and p.ndim == 2}
    matrices -= kernels
    groups: list[dict[str, Any]] = [{"params": [p for name, p in named if name not in kernels | matrices], "rate": 1.0}]
    if kernels:
        groups.append({"params": [p for name, p in named if name in kernels], "rate": KERNEL_RATE, "weight_decay": 0.0})
    betas = 0.9, rate.beta2
    if kind == "adamw":
        return torch.optim.AdamW(groups, lr=rate.lr, weight_decay=WEIGHT_DECAY, betas=betas)
    groups.append({"params": [p for name, p in named if name in matrices], "rate": 1.0, "orthogonal": True})
    return Muon(groups, lr=rate.lr, weight_decay=WEIGHT_DECAY, betas=betas)


def _initialise(run: Run, checkpoint: Checkpoint) -> None:
    """The weights of ``checkpoint``, of a model of the same flags; one without ``pulled_points`` may get them, which it
    then has to learn to use."""
    of_model = {name: value for name, value in _as_the_document(checkpoint).items() if name in SHAPE}
    if run.args["pulled_points"] and not of_model["pulled_points"] and FIRST_LAYER in checkpoint.model:
        first = checkpoint.model[FIRST_LAYER]
        widened = torch.cat([first, first.new_zeros(len(first), NEARBY_DIM)], 1)
        checkpoint = replace(checkpoint, model={**checkpoint.model, FIRST_LAYER: widened})
        of_model["pulled_points"] = run.args["pulled_points"]
    require_same_model(run.args, replace(checkpoint, args=of_model), run.trainer.process_group, kept=SHAPE, harmless=())
    load_weights(run.trainer.model, checkpoint)
    if run.averaged:
        run.averaged.module.load_state_dict(run.trainer.model.state_dict())
    run.trainer.process_group.say(f"weights of {checkpoint.path}")


def _as_the_document(checkpoint: Checkpoint) -> dict[str, Any]:
    """Its args; what one does not say of the model is as in the document."""
    return flags.spellings(ArchitectureFlags()) | checkpoint.args


def _restore(run: Run, checkpoint: Checkpoint) -> None:
    trainer = run.trainer
    checkpoint = replace(checkpoint, args=_as_the_document(checkpoint))
    require_same_model(run.args, checkpoint, trainer.process_group, kept=MODEL, harmless=HARMLESS)
    load_weights(trainer.model, checkpoint)
    load_optimizer(trainer.optimizer, checkpoint)
    for group in trainer.optimizer.param_groups:
        group["betas"] = trainer.optimizer.defaults["betas"]  # as this run's beta2 says
    if trainer.scaler and checkpoint.scaler:
        trainer.scaler.load_state_dict(checkpoint.scaler)
    if run.averaged and checkpoint.ema:
        run.averaged.load_state_dict(checkpoint.ema)
    before, now = checkpoint.args.get("batch"), run.args["batch"]
    if checkpoint.batches and before != now:
        raise ValueError(
            f"batch must be {before} to resume {checkpoint.path}, which has {checkpoint.batches} batches of an epoch, "
            f"got {now}"
        )
    run.epoch, run.step, run.source = checkpoint.epoch + 1, checkpoint.step, checkpoint.path
    run.batches = checkpoint.batches
    trainer.process_group.say(f"resumed from {checkpoint.path}: epoch {run.epoch}, step {run.step}")


def _announce(run: Run, corpus: Corpus) -> None:
    trainer, schedule, total = run.trainer, run.schedule, run.schedule.total_steps
    parameters = sum(p.numel() for p in trainer.model.parameters())
    others = trainer.process_group.size - 1
    where = f"{trainer.process_group.device}" + (f" and {others} more" if others else "")
    print(f"{trainer.loss.objective}: {parameters / 1e6:.2f} M parameters, {corpus.length} tokens, on {where}")
    for part in corpus.parts:
        print(f"  {part.name}: {len(part.paths)} shapes as {part.backend}")
    steps = sorted({0, math.ceil(schedule.rate.warmup_frac * total), total // 2, total - 1})
    print(
        tabulate(
            [["learning rate", *(f"{schedule.learning_rate(step):.2e}" for step in steps)]],
            headers=["step", *map(str, steps)],
        )
    )


def command(config: Config) -> None:
    """``pretrain``, saying where the result is."""
    with process_group() as group:
        found = pretrain(config, group)
        group.say(f"last checkpoint: {found.last}")
    if not found.steps:
        raise cli.Unchanged


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(Config, command, argv, output="save_dir")


if __name__ == "__main__":
    raise SystemExit(main())
