"""A step of the recommended recipe beside one of the document's objective, at the sizes of the demo's models."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from tabulate import tabulate
from torch import Tensor

from benchmarks import machine, training
from benchmarks.run import RESULTS
from benchmarks.training import MIX, PLAIN, STEPS, TOLERANCE, WARM_UP, Step
from nepa3d import cli
from nepa3d.corpora.shape_list import open_shapes
from nepa3d.execution.files import write_json
from nepa3d.execution.progress_bar import progress_bar
from nepa3d.models.checkpoint import SizeFlags
from nepa3d.models.query_nepa import QueryNepa
from nepa3d.ops.attention import DualMask, KeyEdges, pack_edges
from nepa3d.train import pretrain
from nepa3d.train.corpus import Batch, Corpus, EpochBatches, Part
from nepa3d.train.distributed import ProcessGroup
from nepa3d.train.loop import LoopFlags
from nepa3d.train.resume import ResumeFlags

DOCUMENT, RECIPE = "the document's", "the recipe"
OURS, WHOLE = "nepa3d", "scores of all pairs of tokens"


@dataclass(frozen=True)
class Config:
    """Time optimiser steps of the recommended recipe and of the document's Q/A pretraining; losses are compared first.

    Example: python -m benchmarks recipe --cache_root demo/full/cache
    """

    cache_root: Path
    """Cache whose train split is read."""
    recipe: str = "nepa3d/configs/query.yaml"
    """Flags of the recipe, for pretrain."""
    batch: int = 32
    """Sequences a step."""
    n_point: int = 64
    """Point queries of the document's samples; those of the recipe are as its file says."""
    n_ray: int = 64
    """Ray queries of the document's samples."""
    d_model: int = 128
    """Width."""
    layers: int = 4
    """Depth."""
    heads: int = 4
    """Attention heads."""
    rounds: int = 15
    """Timed steps of each."""
    results: Path = RESULTS
    """Folder for recipe-<machine>.json."""

    def document(self) -> training.Config:
        """The document's run."""
        sizes = {name: getattr(self, name) for name in ("batch", "n_point", "n_ray", "d_model", "layers", "heads")}
        return training.Config(self.cache_root, **sizes)

    def recommended(self) -> pretrain.Config:
        """The recipe's run."""
        read = cli.parse(pretrain.Config, ["--config", self.recipe, "--save_dir", "none"])
        return replace(
            read,
            model=SizeFlags(d_model=self.d_model, layers=self.layers, heads=self.heads),
            loop=LoopFlags(batch=self.batch),
            resuming=ResumeFlags(auto_resume=False),
        )


class WholeScores(QueryNepa):
    """The model with its attention as plain products over all pairs of tokens, on the CPU too."""

    def mask(self, types: Tensor, dropped: DualMask | None = None) -> Tensor:
        """The same edges, packed."""
        found = super().mask(types, dropped)
        if not isinstance(found, KeyEdges):
            raise ValueError("recipe must have answer_keys 1 or kernel_attention 1, and the device be the CPU")
        edges = torch.eye(len(types), dtype=torch.bool)
        edges[:, found.keys] |= found.edges
        return pack_edges(edges)


@dataclass(frozen=True)
class Row:
    """One way to train for one objective."""

    objective: str
    way: str
    loss: float
    seconds: list[float]
    samples: int

    @property
    def mean(self) -> float:
        """Seconds a step: the recipe's differ, as each draws the size of its context."""
        return statistics.mean(self.seconds)


def steps(config: Config, objective: str, process_group: ProcessGroup) -> dict[str, Step]:
    """The ways to train for one objective, from the same weights."""
    if objective == DOCUMENT:
        settings = config.document()
        return {
            OURS: training.ours(training.pretraining(settings), process_group),
            PLAIN: training.plain(settings, process_group),
        }
    found = {}
    for way in (OURS, WHOLE):
        run = pretrain.start(config.recommended(), process_group, len(MIX), STEPS, MIX)
        run.step = STEPS // 2
        if way == WHOLE:
            run.trainer.model.__class__ = WholeScores  # the weights stay
        # it begins at 0, where losses would hardly depend on attention
        torch.nn.init.normal_(run.trainer.model.answer_head.weight, std=0.1, generator=torch.Generator().manual_seed(0))
        found[way] = training.step_of(run)
    return found


def batches_of(config: Config, objective: str, process_group: ProcessGroup) -> list[Batch]:
    """Batches of the three views for every round and those before; the recipe's hold two draws of each shape."""
    paired = objective == RECIPE
    run = config.recommended() if paired else training.pretraining(config.document())
    paths = open_shapes(f"{config.cache_root}", "train")
    parts = tuple(Part(name, paths, name, run.sample_settings()) for name in MIX)
    count = config.batch * (config.rounds + WARM_UP["cpu"])
    corpus = Corpus(parts, seed=0, mixed=True, num_samples=count, paired_batch=config.batch if paired else 0)
    return [*EpochBatches(corpus, 0, config.batch, process_group)]


def measure(config: Config, process_group: ProcessGroup) -> list[Row]:
    """Steps of every objective and way in turn. ``ValueError`` where first losses of one objective differ by more than
    the tolerance."""
    found = {objective: steps(config, objective, process_group) for objective in (DOCUMENT, RECIPE)}
    batches = {objective: batches_of(config, objective, process_group) for objective in found}
    rows = []
    for objective, by_way in found.items():
        for way, step in by_way.items():
            rows.append(Row(objective, way, step(batches[objective][0]), [], config.batch))
        first, other = rows[-2:]
        if abs(first.loss - other.loss) > TOLERANCE["cpu"]:
            differ = f"the loss of {other.way} is {other.loss:.6f}, that of {first.way} {first.loss:.6f}"
            raise ValueError(f"{objective}: {differ}")
    warm_up = WARM_UP["cpu"]
    for number in progress_bar(range(warm_up, warm_up + config.rounds), desc="training", unit="step"):
        for row in rows:
            begin = time.perf_counter()
            found[row.objective][row.way](batches[row.objective][number])
            row.seconds.append(time.perf_counter() - begin)
    return rows


def command(config: Config) -> None:
    """Measure, print the table, write JSON; see ``Config``."""
    process_group = ProcessGroup(0, 1, torch.device("cpu"))
    rows = measure(config, process_group)
    base = rows[0]
    table = [
        (
            *(row.objective, row.way, f"{row.loss:.6f}", f"{row.mean:.3f}", f"{row.samples / row.mean:.1f}"),
            *(f"{row.mean / base.mean:.2f}", f"{statistics.pstdev(row.seconds) / row.mean:.0%}"),
        )
        for row in rows
    ]
    heads = ("objective", "way", "first loss", "seconds a step", "samples/s", f"x {DOCUMENT}", "spread")
    print(tabulate(table, heads, disable_numparse=True))
    path = config.results / f"recipe-{machine.slug()}.json"
    used = {name: f"{value}" for name, value in asdict(config).items() if name not in ("results", "cache_root")}
    about = machine.describe() | {"torch": torch.__version__, "threads": torch.get_num_threads()}
    write_json(path, {**about, "flags": used, "rows": [asdict(row) for row in rows]})
    print(f"wrote {path}")


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(Config, command, argv)
