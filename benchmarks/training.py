"""Pretraining steps beside the same model built of torch's own encoder, with the same weights, batches and masks."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate
from torch import Tensor, nn

from benchmarks import machine
from benchmarks.inputs import make_caches
from benchmarks.run import RESULTS
from nepa3d import cli
from nepa3d.cli import flags
from nepa3d.corpora.shape_list import open_shapes
from nepa3d.execution.files import write_json
from nepa3d.execution.progress_bar import progress_bar
from nepa3d.models.query_nepa import QueryNepa
from nepa3d.ops.attention import dual_mask
from nepa3d.train import pretrain
from nepa3d.train.corpus import Batch, Corpus, EpochBatches, Part
from nepa3d.train.distributed import ProcessGroup
from nepa3d.train.loop import Run, train_step
from nepa3d.train.objectives import nepa_loss

TOLERANCE = {"cpu": 1e-4, "cuda": 1e-3}  # between two losses of the first step; GPUs have it in half precision
MIX = ("mesh", "udfgrid", "pointcloud_noray")  # the document's: two of three have no rays
WARM_UP = {"cpu": 1, "cuda": 4}  # steps before the timed ones: memory is taken, kernels are compiled
STEPS = 1000  # of the run that the mask's warm-up is part of; a step in its middle is timed
PLAIN = "torch.nn.TransformerEncoder"


@dataclass(frozen=True)
class Config:
    """Time whole optimiser steps of the document's Q/A pretraining with dual mask; losses are compared first.

    Example: python -m benchmarks training --cache_root demo/full/cache
    """

    cache_root: Path | None = None
    """Cache whose train split is read; left out: procedural shapes, made below work."""
    work: Path = Path("data/bench")
    """Folder of what is made."""
    batch: int = 8
    """Sequences a step."""
    n_point: int = 256
    """Point queries a sample."""
    n_ray: int = 256
    """Ray queries a sample."""
    d_model: int = 384
    """Width."""
    layers: int = 8
    """Depth."""
    heads: int = 6
    """Attention heads."""
    rounds: int = 5
    """Timed steps of each."""
    compiled: bool = True
    """Also time the model compiled."""
    results: Path = RESULTS
    """Folder for training-<machine>.json."""


class PlainModel(nn.Module):
    """QueryNepa with its backbone replaced by torch's encoder of the same weights."""

    def __init__(self, model: QueryNepa, config: Config) -> None:
        super().__init__()
        self.model = model
        width, heads = config.d_model, config.heads
        layer = nn.TransformerEncoderLayer(width, heads, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, config.layers, enable_nested_tensor=False)
        self.encoder.load_state_dict(model.backbone.enc.state_dict())

    def forward(self, features: Tensor, types: Tensor, dropped: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings and predictions (B, T, D); ``dropped`` (T, T) bool."""
        z = self.model.embed(features, types)
        return z, self.model.pred_head(self.encoder(z, mask=dropped))


Step = Callable[[Batch], float]  # an update; returns the loss


def pretraining(config: Config, **more: Any) -> pretrain.Config:
    """The document's run at this size; ``more`` are flags as they are spelled."""
    settings: dict[str, Any] = {
        name: getattr(config, name) for name in ("batch", "n_point", "n_ray", "d_model", "layers", "heads")
    }
    settings |= {"qa_tokens": 1, "dual_mask_near": 0.4, "dual_mask_far": 0.1, "auto_resume": 0, "save_dir": ""}
    return flags.build(pretrain.Config, settings | more)


def ours(config: pretrain.Config, process_group: ProcessGroup) -> Step:
    """A step of the pretraining command."""
    run = pretrain.start(config, process_group, len(MIX), STEPS)
    run.step = STEPS // 2
    return step_of(run)


def step_of(run: Run) -> Step:
    """The next step of a run."""

    def step(batch: Batch) -> float:
        return float(run.trainer.mean_error(train_step(run, batch)))

    return step


def plain(config: Config, process_group: ProcessGroup) -> Step:
    """The same step as one writes it with torch's modules; the mask is a matrix, missing rays are tokens."""
    settings = pretraining(config)
    run = pretrain.start(settings, process_group, len(MIX), STEPS)
    model, mask = run.trainer.model, run.schedule.dual_mask(STEPS // 2)
    assert mask is not None
    peer = PlainModel(model, config).to(process_group.device).train()
    optimizer = torch.optim.AdamW(peer.parameters(), lr=settings.learning_rate.lr, weight_decay=pretrain.WEIGHT_DECAY)
    mixed = process_group.device.type == "cuda"
    scaler = torch.amp.GradScaler(process_group.device.type, enabled=mixed)

    def step(batch: Batch) -> float:
        features, types = batch.features.to(process_group.device), batch.types.to(process_group.device)
        dropped = ~dual_mask(types.shape[1], mask, device=process_group.device)
        with torch.autocast(process_group.device.type, dtype=torch.float16, enabled=mixed):
            z, z_hat = peer(features, types, dropped)
            loss = nepa_loss(z, z_hat, types)
        optimizer.zero_grad(set_to_none=True)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        return float(loss.detach())

    return step


@dataclass(frozen=True)
class Row:
    """One way to train on one corpus; ``ratio`` is the plain way's least time over this one's."""

    corpus: str
    way: str
    loss: float
    seconds: list[float]
    samples: int

    @property
    def best(self) -> float:
        """Seconds of the fastest step."""
        return min(self.seconds)


def measure(
    config: Config, cache: Path, corpus: str, backends: Sequence[str], process_group: ProcessGroup
) -> list[Row]:
    """Steps of every way in turn. ``ValueError`` where the first losses differ by more than the tolerance."""
    settings = pretraining(config).sample_settings()
    paths = open_shapes(f"{cache}", "train")
    parts = tuple(Part(name, paths, name, settings) for name in backends)
    warm_up = WARM_UP[process_group.device.type]
    mix = Corpus(parts, seed=0, mixed=True, num_samples=config.batch * (config.rounds + warm_up))
    batches = [*EpochBatches(mix, 0, config.batch, process_group)]
    ways = {PLAIN: plain(config, process_group), "nepa3d": ours(pretraining(config), process_group)}
    if len(backends) > 1:
        ways["nepa3d, missing rays left out"] = ours(pretraining(config, skip_missing_rays=1), process_group)
    if config.compiled:
        ways["nepa3d, all that and compiled"] = ours(pretraining(config, skip_missing_rays=1, compile=1), process_group)
    losses = {way: step(batches[0]) for way, step in ways.items()}
    for way, loss in losses.items():
        if abs(loss - losses[PLAIN]) > TOLERANCE[process_group.device.type]:
            raise ValueError(f"{corpus}: the loss of {way} is {loss:.6f}, that of {PLAIN} {losses[PLAIN]:.6f}")
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for batch in batches[1:warm_up]:
        for step in ways.values():
            step(batch)
    for batch in progress_bar(batches[warm_up:], desc=corpus, unit="step"):
        for way, step in ways.items():
            begin = time.perf_counter()
            step(batch)  # its loss is a number, so the device has finished
            seconds[way].append(time.perf_counter() - begin)
    return [Row(corpus, way, losses[way], seconds[way], config.batch) for way in ways]


def command(config: Config) -> None:
    """Measure, print the table, write JSON; see ``Config``."""
    process_group = ProcessGroup(0, 1, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    cache = config.cache_root or make_caches(config.work)
    corpora = {"mesh": MIX[:1], "mesh, udf, cloud": MIX}
    rows = [row for name, views in corpora.items() for row in measure(config, cache, name, views, process_group)]
    table = []
    for row in rows:
        peer = next(other for other in rows if other.corpus == row.corpus and other.way == PLAIN)
        rate, ratio = f"{row.samples / row.best:.2f}", f"{peer.best / row.best:.2f}"
        spread = f"{statistics.pstdev(row.seconds) / statistics.mean(row.seconds):.0%}"
        table.append((row.corpus, row.way, f"{row.loss:.6f}", rate, ratio, spread))
    print(tabulate(table, ("corpus", "way", "first loss", "samples/s", "ratio", "spread"), disable_numparse=True))
    device = torch.cuda.get_device_name(process_group.device) if process_group.device.type == "cuda" else ""
    path = config.results / f"training-{machine.slug()}{'-' + device.lower().replace(' ', '-') if device else ''}.json"
    used = {name: f"{value}" for name, value in asdict(config).items() if name not in ("results", "cache_root", "work")}
    about = machine.describe() | {"torch": torch.__version__, "threads": torch.get_num_threads(), "device": device}
    write_json(path, {**about, "flags": used, "rows": [asdict(row) for row in rows]})
    print(f"wrote {path}")


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(Config, command, argv)
