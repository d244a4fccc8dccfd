"""Retrieval and completion beside the same figures worked out one shape at a time, and the memory of the ridge head."""

from __future__ import annotations

import contextlib
import io
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tabulate import tabulate
from torch import nn

from benchmarks import machine
from benchmarks.inputs import make_caches
from benchmarks.run import RESULTS
from nepa3d import cli
from nepa3d.analysis import completion_cpac_udf as cpac
from nepa3d.analysis import retrieval_ucpr as ucpr
from nepa3d.cli.flags import build
from nepa3d.execution.files import write_json
from nepa3d.models.checkpoint import Checkpoint, model_for, save_checkpoint
from nepa3d.models.embedding import Probe, ProbeRequest, open_probe, pick_device, shapes_of
from nepa3d.models.ridge import RidgeSums
from nepa3d.probes.completion import TEST_SEED_OFFSET
from nepa3d.probes.result import Result
from nepa3d.samples.completion import SequenceSettings, completion_sample
from nepa3d.samples.dataset import SampleSettings, evaluation_sample

TOLERANCE = {"retrieval": 2e-3, "completion": 1e-4}  # of figures, relative; rounding may swap two items of a gallery
# half precision moves figures by more: its row says by how much, and is no answer to the same question
ENCODER = "one shape at a time, torch.nn.TransformerEncoder"
PEER = "one shape at a time"
OURS = "nepa3d"
HALF = "nepa3d, --precision bf16"
PAIR = ("mesh", "udfgrid")
GALLERY_SEED = 999
HEAD_SPLIT, SPLIT = "train", "test"
MIB = 1 << 20


@dataclass(frozen=True)
class Size:
    """A model: its width, depth, heads, and points and rays of a sample; and how many shapes it is timed on."""

    d_model: int
    layers: int
    heads: int
    tokens: int
    shapes: int

    @property
    def name(self) -> str:
        """As the table has it."""
        return f"{self.d_model} x {self.layers}, {4 * self.tokens + 2} tokens"


@dataclass(frozen=True)
class Config:
    """Time whole retrievals and completions of a small model and of the document's; figures are compared first.

    Example: python -m benchmarks evaluation --cache_root demo/full/cache
    """

    cache_root: Path | None = None
    """Cache with the splits train (for the head) and test; left out: procedural shapes, made below work."""
    work: Path = Path("data/bench")
    """Folder of what is made."""
    per_class: int = 16
    """Procedural shapes of a class; half of them are test."""
    shapes: int = 64
    """Shapes of each split for the small model (128 x 4, 64 points and 64 rays)."""
    document_shapes: int = 16
    """Shapes of each split for the document's (384 x 8, 256 points and 256 rays); 0: it is left out."""
    rounds: int = 5
    """Timed runs of each way, in turn."""
    ridge_shapes: int = 15_406
    """Head shapes, of 256 queries and 384 features each, whose fit is watched for memory."""
    device: str = "auto"
    """auto (a GPU where there is one, and then in half precision, too), cpu, or cuda."""
    num_workers: int = 2
    """Threads that read shapes for nepa3d."""
    results: Path = RESULTS
    """Folder for evaluation-<machine>.json."""

    @property
    def sizes(self) -> list[Size]:
        """The models."""
        sizes = [Size(128, 4, 4, 64, self.shapes), Size(384, 8, 6, 256, self.document_shapes)]
        return [size for size in sizes if size.shapes]


Figures = dict[str, float]
Run = Callable[[], Figures]


@dataclass(frozen=True)
class Row:
    """One way to a probe's figures with one model; ``shapes`` go through it in a run."""

    probe: str
    model: str
    way: str
    shapes: int
    figures: Figures
    seconds: list[float]

    @property
    def best(self) -> float:
        """Seconds of the fastest run."""
        return min(self.seconds)


class PlainEncoder(nn.Module):
    """The same model with torch's own encoder of the same weights, its causal mask a matrix."""

    def __init__(self, probe: Probe, size: Size) -> None:
        super().__init__()
        self.model = probe.model
        layer = nn.TransformerEncoderLayer(
            size.d_model, size.heads, 4 * size.d_model, 0.0, "gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, size.layers, enable_nested_tensor=False)
        self.encoder.load_state_dict(probe.model.backbone.enc.state_dict())
        self.to(probe.device).eval()

    def forward(self, features: torch.Tensor, types: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Embeddings, predictions and hidden states (B, T, D)."""
        z = self.model.embed(features, types)
        mask = nn.Transformer.generate_square_subsequent_mask(z.shape[1], device=z.device)
        h = self.encoder(z, mask=mask, is_causal=True)
        return z, self.model.pred_head(h), h


def one_state(model: nn.Module, features: NDArray, types: NDArray, device: str) -> NDArray[np.float32]:
    """Hidden states (T, D) of one sequence."""
    with torch.inference_mode():
        _, _, h = model(torch.from_numpy(features)[None].to(device), torch.from_numpy(types)[None].to(device))
    state: NDArray[np.float32] = h[0].cpu().numpy()
    return state


def retrieve_one_by_one(config: ucpr.Config, probe: Probe, model: nn.Module) -> Figures:
    """Retrieval as one writes it first: a shape at a time, then all similarities at once."""
    paths = shapes_of(config.cache_root, config.split, config.max_files)
    settings, asked = SampleSettings(probe.n_point, probe.n_ray, qa=probe.qa, eos=probe.eos), config.settings()
    views = []
    for backend, seed in ((asked.query_view, asked.query_seed), (asked.gallery_view, asked.gallery_seed)):
        vectors = []
        for path in paths:
            features, types = evaluation_sample(path, backend, settings, seed)
            vectors.append(one_state(model, features, types, probe.device)[-1].astype(np.float64))
        stacked = np.stack(vectors)
        views.append(stacked / np.linalg.norm(stacked, axis=1, keepdims=True))
    similarity = views[0] @ views[1].T
    rank = 1 + (similarity > similarity.diagonal()[:, None]).sum(1)
    return {"mAP": float((1 / rank).mean()), "mean_rank": float(rank.mean())}


def complete_one_by_one(config: cpac.Config, probe: Probe, model: nn.Module) -> Figures:
    """Completion as one writes it first: a shape at a time, all features stacked, then the ridge of them."""
    plan, settings = config.plan(probe), config.settings()

    def states(path: str, sequence: SequenceSettings, seed: int) -> tuple[NDArray, NDArray]:
        sample = completion_sample(path, sequence, seed)
        hidden = one_state(model, sample.features, sample.types, probe.device)[sample.query_tokens]
        return np.concatenate([hidden.astype(np.float64), np.ones((len(hidden), 1))], 1), sample.target

    features, targets = zip(*(states(path, plan.train_settings, settings.seed) for path in plan.train), strict=True)
    x, y = np.concatenate(features), np.concatenate(targets)
    weights = np.linalg.solve(x.T @ x + settings.ridge_lambda * np.eye(x.shape[1]), x.T @ y)
    errors = []
    for path in plan.test:
        asked, true = states(path, plan.test_settings, settings.seed + TEST_SEED_OFFSET)
        errors.append(asked @ weights - true)
    return {"mae": float(np.abs(errors).mean()), "rmse": float(np.sqrt(np.square(errors).mean()))}


def compare(probe: str, size: Size, shapes: int, runs: dict[str, Run], rounds: int) -> list[Row]:
    """The ways in turn. ``ValueError`` where one's figures are not those of the peer."""
    figures = {way: _quietly(run) for way, run in runs.items()}  # also warms up
    expected = figures[PEER]
    for way, found in figures.items():
        for name, value in expected.items() if way != HALF else ():
            if not np.isclose(found[name], value, rtol=TOLERANCE[probe], atol=0):
                raise ValueError(f"{probe}, {size.name}: {name} of {way} is {found[name]:.6f}, of {PEER} {value:.6f}")
    seconds: dict[str, list[float]] = {way: [] for way in runs}
    for _ in range(rounds):
        for way, run in runs.items():
            begin = time.perf_counter()
            _quietly(run)
            seconds[way].append(time.perf_counter() - begin)
    kept = {way: {name: found[name] for name in expected} for way, found in figures.items()}
    return [Row(probe, size.name, way, shapes, kept[way], seconds[way]) for way in runs]


def measure(config: Config, cache_root: str, size: Size, ckpt: str) -> list[Row]:
    """Both probes with one model, whole: the checkpoint is opened in every run."""
    given: dict[str, Any] = {"cache_root": cache_root, "ckpt": ckpt, "split": SPLIT}
    given |= {"device": config.device, "num_workers": config.num_workers}
    given |= {"spline": 0}  # the peers work out the model's figures only
    views = {"query_backend": PAIR[0], "gallery_backend": PAIR[1], "eval_seed_gallery": GALLERY_SEED}
    retrieval = build(ucpr.Config, given | views | {"max_files": size.shapes, "lipschitz": 0})
    head = {"head_train_split": HEAD_SPLIT, "head_train_max_shapes": size.shapes}
    sizes = {"n_context": size.tokens, "n_query": size.tokens, "max_shapes": size.shapes}
    completion = build(cpac.Config, given | head | sizes)

    def opened() -> Probe:
        return open_probe(ProbeRequest(ckpt, device=config.device))

    def with_model(run: Callable[..., Figures], probe_config: Any) -> dict[str, Run]:
        def peer() -> Figures:
            probe = opened()
            return run(probe_config, probe, probe.model)

        def encoder() -> Figures:
            probe = opened()
            return run(probe_config, probe, PlainEncoder(probe, size))

        return {ENCODER: encoder, PEER: peer}

    def of_ours(run: Callable[[Any], Result], probe_config: Any) -> dict[str, Run]:
        ways: dict[str, Run] = {OURS: lambda: run(probe_config).figures}
        if pick_device(config.device) != "cpu":
            half = replace(probe_config, model=replace(probe_config.model, precision="bf16"))
            ways[HALF] = lambda: run(half).figures
        return ways

    found = []
    runs = with_model(retrieve_one_by_one, retrieval) | of_ours(ucpr.retrieve, retrieval)
    count = 2 * len(shapes_of(cache_root, SPLIT, size.shapes))
    found += compare("retrieval", size, count, runs, config.rounds)
    runs = with_model(complete_one_by_one, completion) | of_ours(cpac.complete, completion)
    count = sum(len(shapes_of(cache_root, split, size.shapes)) for split in (HEAD_SPLIT, SPLIT))
    return found + compare("completion", size, count, runs, config.rounds)


def write_model(path: Path, size: Size) -> None:
    """A checkpoint in Q/A form with random weights, the same at every call."""
    args = {"d_model": size.d_model, "layers": size.layers, "heads": size.heads, "qa_tokens": 1, "add_eos": 1}
    args |= {"n_point": size.tokens, "n_ray": size.tokens}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = model_for(args)
    save_checkpoint(path, Checkpoint(model.state_dict(), {}, None, args, 0, 0))


def ridge_memory(shapes: int, queries: int = 256, width: int = 384, batch: int = 64) -> dict[str, float]:
    """Fit a ridge head to so many shapes' features, drawn a batch at a time, in this process; what its peak of resident
    memory grew by, in MiB, batch and all. ``ValueError`` where the weights that made the targets are not found."""
    rng = np.random.default_rng(0)
    true = rng.standard_normal(width).astype(np.float32)
    before = peak_memory()
    begin = time.perf_counter()
    sums = RidgeSums(width)
    for first in range(0, shapes, batch):
        features = rng.standard_normal((min(batch, shapes - first) * queries, width), np.float32)
        sums.add(torch.from_numpy(features), torch.from_numpy(features @ true))
    weights = sums.solve(1e-3)
    seconds, grown = time.perf_counter() - begin, peak_memory() - before
    if not np.allclose(weights[:-1], true, atol=1e-3):
        raise ValueError(f"ridge: weights are off by {np.abs(weights[:-1] - true).max():.2g}")
    return {"shapes": shapes, "queries": queries, "width": width, "MiB": grown / MIB, "seconds": seconds}


def peak_memory() -> int:
    """The most bytes this process has had resident, as Linux counts them."""
    status = Path("/proc/self/status").read_text(encoding="utf-8", errors="replace")
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def _quietly(run: Run) -> Figures:
    """``run`` without its progress bars."""
    with contextlib.redirect_stderr(io.StringIO()):
        return run()


def command(config: Config) -> None:
    """Measure, print the tables, write JSON; see ``Config``."""
    cache_root = f"{config.cache_root or make_caches(config.work, config.per_class)}"
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as alone:
        ridge = alone.submit(ridge_memory, config.ridge_shapes).result()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for size in config.sizes:
            ckpt = Path(folder) / f"{size.d_model}.pt"
            write_model(ckpt, size)
            rows += measure(config, cache_root, size, f"{ckpt}")
    heads = ("probe", "model", "way", "shapes/s", "ratio", "spread", "figures off by")
    print(tabulate(lines(rows), heads, disable_numparse=True))
    print(
        f"ridge head of {ridge['shapes']:,} shapes x {ridge['queries']} queries x {ridge['width']} features: "
        f"{ridge['MiB']:.0f} MiB beyond what was there before, {ridge['seconds']:.1f} s"
    )
    device = torch.cuda.get_device_name() if torch.cuda.is_available() and config.device != "cpu" else ""
    path = (
        config.results / f"evaluation-{machine.slug()}{'-' + device.lower().replace(' ', '-') if device else ''}.json"
    )
    used = {name: value for name, value in asdict(config).items() if name not in ("results", "cache_root", "work")}
    about = machine.describe() | {"torch": torch.__version__, "threads": torch.get_num_threads(), "device": device}
    found = {"corpus": "given" if config.cache_root else "procedural", "flags": used, "ridge": ridge}
    write_json(path, {**about, **found, "rows": [asdict(row) | {"ratio": ratio(row, rows)} for row in rows]})
    print(f"wrote {path}")


def peer_of(row: Row, rows: Sequence[Row]) -> Row:
    """One shape at a time."""
    return next(other for other in rows if (other.probe, other.model, other.way) == (row.probe, row.model, PEER))


def ratio(row: Row, rows: Sequence[Row]) -> float:
    """The peer's least time over this one's."""
    return peer_of(row, rows).best / row.best


def deviation(row: Row, rows: Sequence[Row]) -> float:
    """The most by which a figure differs from the peer's, relative to it."""
    expected = peer_of(row, rows).figures
    return max(abs(row.figures[name] - value) / (abs(value) or 1.0) for name, value in expected.items())


def lines(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """The table's cells."""
    return [
        (
            row.probe,
            row.model,
            row.way,
            f"{row.shapes / row.best:.1f}",
            f"{ratio(row, rows):.2f}",
            f"{statistics.pstdev(row.seconds) / statistics.mean(row.seconds):.0%}",
            f"{deviation(row, rows):.1g}",
        )
        for row in rows
    ]


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(Config, command, argv)
