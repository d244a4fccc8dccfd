"""Pretraining: one loop over a corpus of cached shapes, resumable at every epoch."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from nepa3d import cli
from nepa3d.backends import VoxelSettings
from nepa3d.data.dataset import SampleSettings
from nepa3d.data.files import remove_temporaries, write_text
from nepa3d.models.query_nepa import QueryNepa
from nepa3d.ops.attention import DualMask, remaining_edges
from nepa3d.train.checkpoint import (
    Checkpoint,
    load_checkpoint,
    load_optimizer,
    load_weights,
    model_for,
    save_checkpoint,
)
from nepa3d.train.corpus import Corpus, EpochBatches, open_corpus
from nepa3d.train.objectives import choose_masked, hide, mae_loss, nepa_loss

WEIGHT_DECAY = 0.05
STEP_STRIDE = 1_000_003  # between the seeds of two runs' masks
LOG_EVERY = 10  # steps between two looks at the loss, each of which waits for the device
MODEL = ("objective", "d_model", "layers", "heads", "n_point", "n_ray", "qa_tokens", "add_eos")  # a run keeps these
HARMLESS = (
    "save_dir",
    "save_every",
    "save_last",
    "save_steps",
    "resume",
    "auto_resume",
    "num_workers",
)  # these change no number


@dataclass(frozen=True, kw_only=True)
class Config:
    """Pretrain QueryNepa on cached shapes; writes ckpt_ep<NNN>.pt, last.pt and loss.jsonl to save_dir.

    Example: python -m nepa3d.train.pretrain --mix_config nepa3d/configs/shapenet_unpaired_mix.yaml
    --objective nepa --qa_tokens 1 --dual_mask_near 0.4 --dual_mask_far 0.1 --save_dir runs/nepa_qa
    """

    save_dir: str
    """Folder of checkpoints and the loss log."""
    cache_root: str = ""
    """Cache whose train split is read; not used with mix_config."""
    backend: str = "mesh"
    """View of that cache."""
    mix_config: str = ""
    """YAML file that mixes several caches and views."""
    mix_num_samples: int = 0
    """Samples an epoch of a mix; 0: as the file says, or all."""
    mix_seed: int = 0
    """Seed of a mix's draws; 0: as the file says."""
    batch: int = 32
    """Sequences a step."""
    epochs: int = 50
    """Passes over the corpus."""
    lr: float = 3e-4
    """Learning rate of AdamW, constant."""
    n_point: int = 512
    """Point queries a sample."""
    n_ray: int = 512
    """Ray queries a sample."""
    d_model: int = 384
    """Width."""
    layers: int = 8
    """Depth."""
    heads: int = 6
    """Attention heads."""
    save_every: int = 1
    """Keep a checkpoint at epochs divisible by this, and at the last."""
    save_last: Literal[0, 1] = 1
    """Write last.pt after every epoch."""
    save_steps: int = 0
    """Also write last.pt every so many steps within an epoch; 0: not."""
    resume: str = ""
    """Checkpoint to go on from."""
    auto_resume: Literal[0, 1] = 1
    """Without resume go on from last.pt in save_dir, or from the newest checkpoint there if it is damaged or missing;
    start fresh where there is none."""
    num_workers: int = 4
    """Threads that read samples ahead of their use; 0: none, they are read between the steps."""
    drop_ray_prob: float = 0.0
    """Probability that a sample loses its rays."""
    force_missing_ray: bool = False
    """All samples lose their rays."""
    add_eos: Literal[0, 1] = 1
    """Close sequences with a token."""
    qa_tokens: Literal[0, 1] = 0
    """Question and answer as two tokens."""
    dual_mask_near: float = 0.0
    """Probability of dropping an attention edge within the window (nepa only)."""
    dual_mask_far: float = 0.0
    """The same beyond the window."""
    dual_mask_window: int = 32
    """Tokens back that count as near."""
    dual_mask_warmup_frac: float = 0.05
    """Part of all steps over which the two probabilities rise from 0."""
    objective: Literal["nepa", "mae"] = "nepa"
    """Predict the next embedding, or the embeddings of masked tokens."""
    mask_ratio: float = 0.4
    """Part of the tokens that mae masks."""
    voxel_grid: int = 64
    """Side of the voxel view's grid."""
    voxel_dilate: int = 1
    """Rounds by which its occupied cells grow."""
    voxel_max_steps: int = 0
    """Cells a ray visits at most; 0: three times the side."""
    seed: int = 0
    """Weights, samples and masks."""

    def __post_init__(self) -> None:
        for name in ("batch", "epochs", "save_every", "layers", "heads", "d_model"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("num_workers", "seed", "save_steps"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")
        for name in ("mask_ratio", "dual_mask_warmup_frac"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in [0, 1], got {getattr(self, name)}")
        if not 0 < self.lr < math.inf:
            raise ValueError(f"lr must be positive, got {self.lr}")
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
    model: QueryNepa
    optimizer: torch.optim.AdamW
    scaler: torch.amp.GradScaler | None
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
        scaler = self.scaler.state_dict() if self.scaler else None
        args = asdict(self.config)
        return Checkpoint(self.model.state_dict(), self.optimizer.state_dict(), scaler, args, self.epoch - 1, self.step)


def pretrain(config: Config) -> Path:
    """Train to the last epoch, going on from a checkpoint where there is one; returns the last checkpoint's path."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    corpus = open_corpus(config, config.sample_settings())
    # a mix may decide on it, and the checkpoint has to tell what was trained
    config = replace(config, add_eos=1 if corpus.parts[0].settings.eos else 0)
    folder = Path(config.save_dir)
    folder.mkdir(parents=True, exist_ok=True)
    remove_temporaries(folder)
    run = start(config, device)
    _announce(run, corpus, device)
    last = folder / f"ckpt_ep{config.epochs - 1:03d}.pt"
    if run.epoch >= config.epochs:
        print(f"all {config.epochs} epochs are done")
        return Path(run.source)
    samples = len(corpus.epoch(0))
    total_steps = math.ceil(samples / config.batch) * config.epochs
    begun = min(run.first_batch(samples) * config.batch, samples)
    with tqdm(total=config.epochs * samples, initial=run.epoch * samples + begun, unit="sample") as progress:
        while run.epoch < config.epochs:
            train_epoch(run, corpus, device, total_steps, progress)
            run.epoch += 1
            _save(run, folder)
    return last


def start(config: Config, device: torch.device) -> Run:
    """A fresh run, or the one of the checkpoint to go on from."""
    torch.manual_seed(config.seed)
    model = model_for(asdict(config)).to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.lr, weight_decay=WEIGHT_DECAY)
    scaler = torch.amp.GradScaler() if device.type == "cuda" else None
    run = Run(config, model, optimizer, scaler)
    checkpoint = _checkpoint_to_resume(config, device)
    if checkpoint:
        _restore(run, checkpoint)
    _keep_losses(Path(config.save_dir), run.step)
    return run


def train_epoch(run: Run, corpus: Corpus, device: torch.device, total_steps: int, progress: tqdm) -> None:
    """One pass over the corpus, or what is left of it; logs the loss of every step.

    ``ValueError`` if loss or weights diverge, before anything of it is written.
    """
    config, folder = run.config, Path(run.config.save_dir)
    first = run.first_batch(len(corpus.epoch(run.epoch)))
    pinned = device.type == "cuda"
    loader = EpochBatches(corpus, run.epoch, config.batch, threads=config.num_workers, pinned=pinned, first=first)
    losses: list[Tensor] = []
    for number, (features, types) in enumerate(loader, first + 1):
        losses.append(train_step(run, features, types, total_steps, device))
        run.step += 1
        progress.update(len(features))
        last = number == len(loader)
        if number % LOG_EVERY == 0 or last:
            loss = float(losses[-1])
            if not math.isfinite(loss):
                raise ValueError(f"the loss is {loss} at step {run.step}; checkpoints hold an earlier state")
            progress.set_postfix(epoch=run.epoch, loss=f"{loss:.4f}", refresh=False)
        if last or (config.save_steps and number % config.save_steps == 0):
            _require_finite(run)
            _append_losses(folder, run, [float(loss) for loss in losses])
            losses.clear()
            if not last and config.save_last:
                save_checkpoint(folder / "last.pt", run.checkpoint())


def _require_finite(run: Run) -> None:
    if not all(bool(parameter.isfinite().all()) for parameter in run.model.parameters()):
        raise ValueError(f"weights are not finite at step {run.step}; checkpoints hold an earlier state")


def train_step(run: Run, features: Tensor, types: Tensor, total_steps: int, device: torch.device) -> Tensor:
    """One optimiser step on features (B, T, 15) and types (B, T); returns the loss, detached."""
    config = run.config
    hidden = None
    if config.objective == "mae":
        rng = np.random.default_rng([config.seed, run.step])
        hidden = torch.from_numpy(choose_masked(types.numpy(), config.mask_ratio, rng)).to(device)
    features, types = features.to(device, non_blocking=True), types.to(device, non_blocking=True)
    with torch.autocast(device.type, dtype=torch.float16, enabled=run.scaler is not None):
        if hidden is None:
            mask = dual_mask_at(config, run.step, total_steps)
            z, z_hat, _ = run.model(features, types, remaining_edges(features.shape[1], mask, device=device))
            loss = nepa_loss(z, z_hat, types)
        else:
            with torch.no_grad():
                target = run.model.embed(features, types)
            _, z_hat, _ = run.model(hide(features, hidden), types)
            loss = mae_loss(target, z_hat, hidden)
    run.optimizer.zero_grad(set_to_none=True)
    if run.scaler is None:
        loss.backward()
        run.optimizer.step()
    else:
        run.scaler.scale(loss).backward()
        run.scaler.step(run.optimizer)
        run.scaler.update()
    return loss.detach()


def dual_mask_at(config: Config, step: int, total_steps: int) -> DualMask:
    """The mask of a step: its seed, and the probabilities on their way up from 0."""
    warmup = config.dual_mask_warmup_frac * total_steps
    ramp = min(1.0, step / warmup) if warmup > 0 else 1.0
    near, far = ramp * config.dual_mask_near, ramp * config.dual_mask_far
    return DualMask(near, far, config.dual_mask_window, config.seed * STEP_STRIDE + step)


def _checkpoint_to_resume(config: Config, device: torch.device) -> Checkpoint | None:
    last = Path(config.save_dir) / "last.pt"
    path = Path(config.resume or last)
    if not config.resume and not config.auto_resume:
        return None
    if not path.exists():
        kept = sorted(last.parent.glob("*.pt"))
        if not config.auto_resume or (kept and path.resolve() != last.resolve()):
            there = f", but {kept[-1]} would be overwritten by a fresh run" if kept else ""
            raise ValueError(f"resume: there is no {path}{there}")
        newest = _newest_readable(last.parent, device)
        if newest is None and kept:
            raise ValueError(f"{kept[-1]}: cannot be read and would be overwritten, move it away to start fresh")
        if newest is None:
            print(f"there is no {path}: starting fresh")
        return newest
    try:
        return load_checkpoint(path, device)
    except ValueError as error:
        if not config.auto_resume or path.resolve() != last.resolve():
            raise
        print(error)
        older = _newest_readable(last.parent, device)
        if older is None:
            raise
        return older


def _newest_readable(folder: Path, device: torch.device) -> Checkpoint | None:
    """The last of the checkpoints kept by epoch that can be read."""
    for path in sorted(folder.glob("ckpt_ep*.pt"), key=lambda path: (len(path.name), path.name), reverse=True):
        try:
            return load_checkpoint(path, device)
        except ValueError as error:
            print(error)
    return None


def _restore(run: Run, checkpoint: Checkpoint) -> None:
    _require_same_model(run.config, checkpoint)
    load_weights(run.model, checkpoint)
    load_optimizer(run.optimizer, checkpoint)
    for group in run.optimizer.param_groups:
        group["lr"] = run.config.lr
    if run.scaler and checkpoint.scaler:
        run.scaler.load_state_dict(checkpoint.scaler)
    run.epoch, run.step, run.source = checkpoint.epoch + 1, checkpoint.step, checkpoint.path
    print(f"resumed from {checkpoint.path}: epoch {run.epoch}, step {run.step}")


def _require_same_model(config: Config, checkpoint: Checkpoint) -> None:
    """Refuse to go on with another model or objective; say which other settings are new."""
    asked = asdict(config)
    differing = {
        name: f"{name} {before} -> {asked[name]}"
        for name, before in checkpoint.args.items()
        if name in asked and name not in HARMLESS and before != asked[name]
    }
    of_model = [change for name, change in differing.items() if name in MODEL]
    if of_model:
        raise ValueError(f"{checkpoint.path}: is of another model ({'; '.join(of_model)})")
    if differing:
        print(f"other settings than before: {'; '.join(differing.values())}")


def _save(run: Run, folder: Path) -> None:
    """Write what the epoch that just ended is due; last.pt comes last, so that it never runs ahead."""
    checkpoint = run.checkpoint()
    finished = run.epoch - 1
    if finished % run.config.save_every == 0 or run.epoch == run.config.epochs:
        save_checkpoint(folder / f"ckpt_ep{finished:03d}.pt", checkpoint)
    if run.config.save_last:
        save_checkpoint(folder / "last.pt", checkpoint)


def _append_losses(folder: Path, run: Run, losses: list[float]) -> None:
    first = run.step - len(losses)
    with (folder / "loss.jsonl").open("a") as file:
        for i, loss in enumerate(losses):
            file.write(json.dumps({"step": first + i, "epoch": run.epoch, "loss": loss}) + "\n")
        file.flush()
        os.fsync(file.fileno())


def _keep_losses(folder: Path, steps: int) -> None:
    """Cut the loss log to the steps a resumed run has behind it, and off half a line that a killed run left."""
    path = folder / "loss.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    try:
        kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] < steps]
    except (ValueError, LookupError, TypeError) as error:
        raise ValueError(f"{path}: not a loss log, move it away: {error}") from error
    write_text(path, "".join(kept))


def _announce(run: Run, corpus: Corpus, device: torch.device) -> None:
    parameters = sum(p.numel() for p in run.model.parameters())
    print(f"{run.config.objective}: {parameters / 1e6:.2f} M parameters, {corpus.length} tokens, on {device}")
    for part in corpus.parts:
        print(f"  {part.name}: {len(part.paths)} shapes as {part.backend}")


def command(config: Config) -> None:
    """``pretrain``, saying where the result is."""
    print(f"last checkpoint: {pretrain(config)}")


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(Config, command, argv)


if __name__ == "__main__":
    raise SystemExit(main())
