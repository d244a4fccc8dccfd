"""Pretraining: one loop over a corpus of cached shapes, resumable at every step, on one process or several."""

from __future__ import annotations

import math
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import torch
import tyro
from tabulate import tabulate
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from nepa3d import cli
from nepa3d.execution.files import remove_temporaries
from nepa3d.execution.progress_bar import Progress, progress_bar
from nepa3d.models.checkpoint import Checkpoint, load_optimizer, load_weights, model_for, save_checkpoint
from nepa3d.ops.attention import DualMask
from nepa3d.samples.dataset import SampleSettings
from nepa3d.shapes.views import VoxelSettings
from nepa3d.train.corpus import Batch, Corpus, EpochBatches, open_corpus
from nepa3d.train.distributed import World, world
from nepa3d.train.loss_log import Curves, append_lines, keep_steps
from nepa3d.train.objectives import OBJECTIVES
from nepa3d.train.resume import checkpoint_to_resume, require_same_model
from nepa3d.train.schedule import dual_mask_at, learning_rate
from nepa3d.train.step import PRECISIONS, Trainer, by_kind, mean_error

if TYPE_CHECKING:
    ObjectiveName: TypeAlias = str
else:
    ObjectiveName = tyro.extras.literal_type_from_choices(OBJECTIVES)

WEIGHT_DECAY = 0.05
LOG_EVERY = 10  # steps between two looks at the loss, each of which waits for the device
PROBE_AFTER = 100  # steps before which alarms would say nothing
MODEL = (
    "objective",
    "target",
    "d_model",
    "layers",
    "heads",
    "n_point",
    "n_ray",
    "qa_tokens",
    "add_eos",
)  # a run keeps these
# these change no number
OUTPUT = ("save_dir", "save_every", "save_last", "save_steps", "probe_every", "tensorboard")
HARMLESS = (*OUTPUT, "resume", "auto_resume", "num_workers")


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
    cache_root: str = ""
    """Cache to train on (its train split); not used with mix_config."""
    backend: str = "mesh"
    """View of that cache."""
    mix_config: str = ""
    """YAML file that mixes several caches and views."""
    mix_num_samples: int = 0
    """Samples per epoch of a mix; 0: the value of the file, or all samples."""
    mix_seed: int = 0
    """Seed of the draws from a mix; 0: the value of the file."""
    batch: int = 32
    """Sequences per step, over all processes."""
    epochs: int = 50
    """Passes over the corpus."""
    lr: float = 3e-4
    """Learning rate of AdamW."""
    schedule: Literal["constant", "cosine"] = "constant"
    """Learning rate after the warm-up: constant, or cosine decay to 0."""
    warmup_frac: float = 0.0
    """Share of all steps in which the learning rate rises from 0."""
    clip_grad: float = 0.0
    """Largest norm of the gradient; 0: no clipping."""
    accumulate: int = 1
    """Number of micro-batches per batch, to use less memory; the gradients are the same."""
    amp: Literal["auto", "none", "bf16", "fp16"] = "auto"
    """Mixed precision; auto: fp16 on a GPU, none on the CPU."""
    compile: Literal[0, 1] = 0
    """Compile the model with torch.compile."""
    ema: float = 0.0
    """Decay of an exponential moving average of the weights, saved as ema.pt for evaluation; 0: none."""
    n_point: int = 512
    """Point queries per sample."""
    n_ray: int = 512
    """Ray queries per sample."""
    d_model: int = 384
    """Width of the Transformer."""
    layers: int = 8
    """Number of layers."""
    heads: int = 6
    """Number of attention heads."""
    save_every: int = 1
    """Keep a checkpoint of every epoch that is divisible by this, and of the last one."""
    save_last: Literal[0, 1] = 1
    """Write last.pt after every epoch."""
    save_steps: int = 0
    """Also write last.pt after every so many steps of an epoch; 0: only at its end."""
    probe_every: int = 100
    """Steps between two diagnoses of the loss, written to diagnostics.jsonl (nepa only); 0: none."""
    tensorboard: Literal[0, 1] = 0
    """Write curves to save_dir/tensorboard."""
    resume: str = ""
    """Checkpoint to resume from."""
    auto_resume: Literal[0, 1] = 1
    """If resume is empty, resume from last.pt in save_dir, or from the newest checkpoint there if last.pt is damaged or
    missing; start a new run if there is none."""
    num_workers: int = 4
    """Threads that prefetch samples; 0: samples are read between the steps."""
    drop_ray_prob: float = 0.0
    """Probability that all rays of a sample are dropped."""
    force_missing_ray: bool = False
    """Drop the rays of all samples."""
    skip_missing_rays: Literal[0, 1] = 0
    """Leave the tokens of missing rays out of the model. With qa_tokens the loss is the same and the step is faster."""
    add_eos: Literal[0, 1] = 1
    """End sequences with an EOS token."""
    qa_tokens: Literal[0, 1] = 0
    """Encode a question and its answer as two tokens."""
    dual_mask_near: float = 0.0
    """Probability of dropping an attention edge within the window (nepa only)."""
    dual_mask_far: float = 0.0
    """Probability of dropping an attention edge beyond the window (nepa only)."""
    dual_mask_window: int = 32
    """Largest distance, in tokens, that counts as near."""
    dual_mask_warmup_frac: float = 0.05
    """Share of all steps in which the two probabilities rise from 0."""
    objective: ObjectiveName = "nepa"
    """Predict the next embedding (nepa) or the embeddings of masked tokens (mae)."""
    target: Literal["embedding", "content"] = "embedding"
    """Predict embeddings as the model sees them, or without type and position (content), which can be guessed without
    looking at the shape."""
    mask_ratio: float = 0.4
    """Share of the tokens that mae masks."""
    voxel_grid: int = 64
    """Side of the grid of the voxel view, in cells."""
    voxel_dilate: int = 1
    """Rounds of dilation of that grid."""
    voxel_max_steps: int = 0
    """Largest number of cells that a ray visits; 0: three times voxel_grid."""
    seed: int = 0
    """Seed of the weights, samples and masks."""

    def __post_init__(self) -> None:
        for name in ("batch", "epochs", "save_every", "layers", "heads", "d_model", "accumulate"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("num_workers", "seed", "save_steps", "probe_every"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")
        for name in ("mask_ratio", "dual_mask_warmup_frac", "warmup_frac"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in [0, 1], got {getattr(self, name)}")
        if not 0 < self.lr < math.inf:
            raise ValueError(f"lr must be positive, got {self.lr}")
        if not 0 <= self.clip_grad < math.inf:
            raise ValueError(f"clip_grad must be at least 0, got {self.clip_grad}")
        if not 0 <= self.ema < 1:
            raise ValueError(f"ema must lie in [0, 1), got {self.ema}")
        if self.objective not in OBJECTIVES:
            raise ValueError(f"objective must be one of {', '.join(OBJECTIVES)}, got {self.objective!r}")
        DualMask(self.dual_mask_near, self.dual_mask_far, self.dual_mask_window, 0)

    def sample_settings(self) -> SampleSettings:
        """How shapes become sequences."""
        return SampleSettings(
            self.n_point,
            self.n_ray,
            qa=bool(self.qa_tokens),
            eos=bool(self.add_eos),
            drop_ray_prob=self.drop_ray_prob,
            force_missing_ray=self.force_missing_ray,
            voxel=VoxelSettings(self.voxel_grid, self.voxel_dilate, self.voxel_max_steps),
        )


@dataclass
class Run:
    """The state a checkpoint keeps."""

    config: Config
    trainer: Trainer
    averaged: AveragedModel | None
    epoch: int = 0  # the next one
    step: int = 0  # steps done
    source: str = ""  # the checkpoint it went on from

    def first_batch(self, samples: int) -> int:
        """The batch of the epoch to go on with: above 0 after a checkpoint from within an epoch of ``samples``."""
        steps = math.ceil(samples / self.config.batch)
        done = self.step - self.epoch * steps
        return done if 0 < done < steps else 0

    def checkpoint(self) -> Checkpoint:
        """The state as a checkpoint file holds it; ``epoch`` there is the last finished one."""
        trainer = self.trainer
        return Checkpoint(
            trainer.model.state_dict(),
            trainer.optimizer.state_dict(),
            trainer.scaler.state_dict() if trainer.scaler else None,
            asdict(self.config),
            self.epoch - 1,
            self.step,
            self.averaged.state_dict() if self.averaged else None,
        )


def pretrain(config: Config, processes: World) -> Path:
    """Train to the last epoch, going on from a checkpoint where there is one; returns the last checkpoint's path."""
    corpus = open_corpus(config, config.sample_settings())
    # a mix may decide on it, and the checkpoint has to tell what was trained
    config = replace(config, add_eos=1 if corpus.parts[0].settings.eos else 0)
    folder = Path(config.save_dir)
    if processes.leads:
        folder.mkdir(parents=True, exist_ok=True)
        remove_temporaries(folder)
    samples = len(corpus.epoch(0))
    total_steps = math.ceil(samples / config.batch) * config.epochs
    run = start(config, processes, len(corpus.parts))
    if processes.leads:
        keep_steps(folder, run.step)
        _announce(run, corpus, total_steps)
    last = folder / f"ckpt_ep{config.epochs - 1:03d}.pt"
    if run.epoch >= config.epochs:
        processes.say(f"all {config.epochs} epochs are done")
        return Path(run.source)
    curves = Curves(folder, run.step, wanted=bool(config.tensorboard) and processes.leads)
    begun = min(run.first_batch(samples) * config.batch, samples)
    with (
        _asked_to_stop() as asked,
        progress_bar(
            total=config.epochs * samples,
            initial=run.epoch * samples + begun,
            unit="sample",
            disable=not processes.leads,
        ) as progress,
    ):
        loop = Loop(run, corpus, total_steps, progress, curves, asked)
        while run.epoch < config.epochs:
            train_epoch(loop)
            run.epoch += 1
            _save(run, folder)
    if loop.alarms:
        processes.say("alarms: " + "; ".join(loop.alarms))
    return last


def start(config: Config, processes: World, parts: int) -> Run:
    """A fresh run, or the one of the checkpoint to go on from."""
    torch.manual_seed(config.seed)
    model = model_for(asdict(config)).to(processes.device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.lr, weight_decay=WEIGHT_DECAY)
    amp = config.amp if config.amp != "auto" else "fp16" if processes.device.type == "cuda" else "none"
    scaler = torch.amp.GradScaler(processes.device.type) if amp == "fp16" else None
    forward = torch.compile(model, dynamic=True) if config.compile else model
    trainer = Trainer(config, processes, model, forward, optimizer, PRECISIONS[amp], scaler, parts)
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(config.ema)) if config.ema else None
    run = Run(config, trainer, averaged)
    checkpoint = checkpoint_to_resume(Path(config.save_dir), config.resume, bool(config.auto_resume), processes)
    if checkpoint:
        _restore(run, checkpoint)
    return run


@dataclass
class Loop:
    """What an epoch works with."""

    run: Run
    corpus: Corpus
    total_steps: int
    progress: Progress
    curves: Curves
    asked: threading.Event  # to end, leaving a checkpoint
    alarms: Sequence[str] = ()  # of the last look


def train_epoch(loop: Loop) -> None:
    """One pass over the corpus, or what is left of it; logs the loss of every step.

    ``ValueError`` if loss or weights diverge, before anything of it is written; ``cli.Interrupted`` if it was asked to
    end, with the step in last.pt.
    """
    run, config, processes = loop.run, loop.run.config, loop.run.trainer.world
    objective = OBJECTIVES[config.objective]
    first = run.first_batch(len(loop.corpus.epoch(run.epoch)))
    threads = config.num_workers
    loader = EpochBatches(loop.corpus, run.epoch, config.batch, processes, threads=threads, first=first)
    tallies: list[Tensor] = []
    for number, batch in enumerate(loader, first + 1):
        tallies.append(train_step(run, batch, loop.total_steps))
        if config.probe_every and objective.diagnosed and run.step % config.probe_every == 0:
            _probe(loop, batch)
        run.step += 1
        loop.progress.update(batch.samples)
        last = number == len(loader)
        stop = False
        if number % LOG_EVERY == 0 or last:
            loss = float(mean_error(tallies[-1]))
            if not math.isfinite(loss):
                raise ValueError(f"the loss is {loss} at step {run.step}; checkpoints hold an earlier state")
            loop.progress.set_postfix(epoch=run.epoch, loss=f"{loss:.4f}", refresh=False)
            stop = processes.any(loop.asked.is_set()) and not last
        if last or stop or (config.save_steps and number % config.save_steps == 0):
            _require_finite(run)
            if processes.leads:
                _log(loop, tallies)
                if stop or (not last and config.save_last):
                    save_checkpoint(Path(config.save_dir) / "last.pt", run.checkpoint())
            tallies.clear()
        if stop:
            raise cli.Interrupted(f"asked to end at step {run.step}; the same command goes on from there")


def train_step(run: Run, batch: Batch, total_steps: int) -> Tensor:
    """One update; returns the tally of ``Trainer.step``."""
    for group in run.trainer.optimizer.param_groups:
        group["lr"] = learning_rate(run.config, run.step, total_steps)
    predicts_next = OBJECTIVES[run.config.objective].predicts_next
    mask = dual_mask_at(run.config, run.step, total_steps) if predicts_next else None
    tally = run.trainer.step(batch, run.step, mask)
    if run.averaged:
        run.averaged.update_parameters(run.trainer.model)
    return tally


def _probe(loop: Loop, batch: Batch) -> None:
    """Look at what the loss means; says so where an alarm is new."""
    run = loop.run
    if not run.trainer.world.leads:
        return
    found = run.trainer.diagnosis(batch, run.step)
    append_lines(Path(run.config.save_dir) / "diagnostics.jsonl", [found.plain()])
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
    for i, tally in enumerate(tallies):
        line = {"step": first + i, "epoch": run.epoch, "loss": float(mean_error(tally))}
        line["lr"] = learning_rate(run.config, first + i, loop.total_steps)
        lines.append(line | by_kind(tally, names))
        loop.curves.add(lines[-1])
    append_lines(Path(run.config.save_dir) / "loss.jsonl", lines)
    loop.curves.flush()


def _require_finite(run: Run) -> None:
    if not all(bool(parameter.isfinite().all()) for parameter in run.trainer.model.parameters()):
        raise ValueError(f"weights are not finite at step {run.step}; checkpoints hold an earlier state")


@contextmanager
def _asked_to_stop() -> Iterator[threading.Event]:
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


def _restore(run: Run, checkpoint: Checkpoint) -> None:
    trainer = run.trainer
    require_same_model(asdict(run.config), checkpoint, trainer.world, kept=MODEL, harmless=HARMLESS)
    load_weights(trainer.model, checkpoint)
    load_optimizer(trainer.optimizer, checkpoint)
    if trainer.scaler and checkpoint.scaler:
        trainer.scaler.load_state_dict(checkpoint.scaler)
    if run.averaged and checkpoint.ema:
        run.averaged.load_state_dict(checkpoint.ema)
    run.epoch, run.step, run.source = checkpoint.epoch + 1, checkpoint.step, checkpoint.path
    trainer.world.say(f"resumed from {checkpoint.path}: epoch {run.epoch}, step {run.step}")


def _save(run: Run, folder: Path) -> None:
    """Write what the epoch that just ended is due; last.pt comes last, so that it never runs ahead."""
    if not run.trainer.world.leads:
        return
    checkpoint = run.checkpoint()
    finished = run.epoch - 1
    if run.averaged:
        save_checkpoint(
            folder / "ema.pt", replace(checkpoint, model=run.averaged.module.state_dict(), opt={}, ema=None)
        )
    if finished % run.config.save_every == 0 or run.epoch == run.config.epochs:
        save_checkpoint(folder / f"ckpt_ep{finished:03d}.pt", checkpoint)
    if run.config.save_last:
        save_checkpoint(folder / "last.pt", checkpoint)


def _announce(run: Run, corpus: Corpus, total_steps: int) -> None:
    config, trainer = run.config, run.trainer
    parameters = sum(p.numel() for p in trainer.model.parameters())
    where = f"{trainer.world.device}" + (f" and {trainer.world.size - 1} more" if trainer.world.size > 1 else "")
    print(f"{config.objective}: {parameters / 1e6:.2f} M parameters, {corpus.length} tokens, on {where}")
    for part in corpus.parts:
        print(f"  {part.name}: {len(part.paths)} shapes as {part.backend}")
    steps = sorted({0, math.ceil(config.warmup_frac * total_steps), total_steps // 2, total_steps - 1})
    print(
        tabulate(
            [["learning rate", *(f"{learning_rate(config, step, total_steps):.2e}" for step in steps)]],
            headers=["step", *map(str, steps)],
        )
    )


def command(config: Config) -> None:
    """``pretrain``, saying where the result is."""
    with world() as processes:
        last = pretrain(config, processes)
        processes.say(f"last checkpoint: {last}")


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(Config, command, argv, output="save_dir")


if __name__ == "__main__":
    raise SystemExit(main())
