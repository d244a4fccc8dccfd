"""Cross-view retrieval (UCPR): does a shape seen through one view retrieve itself seen through another?

Every shape of a split is embedded twice, through the query view and the gallery view. Each query ranks the gallery by
cosine similarity; its true item is the same shape. Tied items share their ranks, so a collapsed encoder scores chance.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from tabulate import tabulate

from nepa3d import cli
from nepa3d.analysis.outcome import conclude
from nepa3d.execution.progress_bar import progress_bar
from nepa3d.models.embedding import (
    Pooling,
    Precision,
    Probe,
    ProbeRequest,
    Representation,
    open_probe,
    pooled_states,
    sample_length,
    shapes_of,
)
from nepa3d.probes import ranking
from nepa3d.probes.intervals import cell, interval
from nepa3d.samples.dataset import SampleSettings
from nepa3d.samples.loader import Request, evaluation_samples, prefetch
from nepa3d.samples.schema import POINT_DISTANCE, XYZ, TokenType
from nepa3d.samples.tokenizer import resample_seed
from nepa3d.shapes.views import VoxelSettings, require_backend

COLLAPSED_FROM = 0.5  # share of the gallery tied with the true item from which we speak of collapse
RAW_CELLS = 4  # a side of the grid in which plain distances are compared
TOP = 5  # gallery items listed a query


@dataclass(frozen=True)
class Config:
    """Retrieve every shape across two of its views and report R@k, mAP and ranks beside chance.

    Example: python -m nepa3d.analysis.retrieval_ucpr --cache_root data/shapenet_unpaired_cache_v1 --split eval
    --ckpt runs/eccv_upmix_nepa_s0/ckpt_ep049.pt --query_backend mesh --gallery_backend udfgrid
    --eval_seed 0 --eval_seed_gallery 999 --max_files 1000 --out_json results/ucpr_mesh2udf.json
    """

    cache_root: str
    """Cache folder holding <split>/<class>/<id>.npz; the draws depend on how this path is spelled."""
    ckpt: str
    """Checkpoint to probe."""
    query_backend: str
    """View of the query shapes."""
    gallery_backend: str
    """View of the gallery shapes."""
    split: str = "eval"
    """Split to retrieve in."""
    n_point: int = -1
    """Point queries per sample; -1: as in pretraining."""
    n_ray: int = -1
    """Ray queries per sample; -1: as in pretraining."""
    add_eos: Literal[-1, 0, 1] = -1
    """End sequences with an EOS token; -1: as in pretraining."""
    qa_tokens: Literal[-1, 0, 1] = -1
    """Encode a question and its answer as two tokens; -1: as in pretraining."""
    eval_seed: int = 0
    """Seed of the query draws."""
    eval_seed_gallery: int = -1
    """Seed of the gallery draws; -1: eval_seed. Both views then share coordinates, and results are too high."""
    n_seeds: int = 1
    """Number of evaluation seeds, counted up from these two; results are means over them."""
    mc_k: int = 1
    """Number of draws per shape that are averaged into its embedding."""
    ablate_point_xyz: bool = False
    """Set the coordinates of point tokens to zero."""
    ablate_point_dist: bool = False
    """Set the distances of point tokens to zero."""
    max_files: int = 0
    """Use only this many shapes, the first by sorted path; 0: all."""
    chunk: int = 256
    """Sequences per forward pass, and queries per block of similarities."""
    num_workers: int = 2
    """Threads that prefetch shapes; 0: shapes are read between the forward passes."""
    voxel_grid: int = 64
    """Side of the grid of the voxel view, in cells."""
    voxel_dilate: int = 1
    """Rounds of dilation of that grid."""
    voxel_max_steps: int = 0
    """Largest number of cells that a ray visits; 0: three times voxel_grid."""
    pooling: Pooling = "eos"
    """Embedding: the last token, or the mean of the answers, questions, predicted answers, or all tokens."""
    representation: Representation = "h"
    """Hidden state h or predicted embedding z_hat."""
    rank_rule: Literal["expected", "strict"] = "expected"
    """Tied items share their ranks, or count as wins (strict, as in the original: a collapsed encoder scores 1)."""
    device: str = "auto"
    """auto (a GPU if there is one), cpu or cuda."""
    precision: Precision = "float32"
    """Precision of matrix products; bf16 is faster on a GPU and changes results a little."""
    out_json: str = ""
    """File to write the results and settings to; empty: none."""


@dataclass(frozen=True)
class View:
    """One way to look at every shape."""

    backend: str
    settings: SampleSettings
    seed: int


@dataclass(frozen=True)
class Embeddings:
    """Both views of every readable shape, as unit vectors (N, D) in one order."""

    probe: Probe
    queries: NDArray[np.float64]
    gallery: NDArray[np.float64]
    raw_queries: NDArray[np.float64]  # (N, RAW_CELLS^3), the answers themselves, seen by no model
    raw_gallery: NDArray[np.float64]
    paths: list[str]

    def without(self, failed: dict[str, str]) -> Embeddings:
        """Those of the other shapes; ``ValueError`` if there is none."""
        rows = [row for row, path in enumerate(self.paths) if path not in failed]
        if not rows:
            raise ValueError(f"none of {len(self.paths)} shapes could be read; first: {next(iter(failed.values()))}")
        queries, gallery, raw_queries, raw_gallery = (
            x[rows] for x in (self.queries, self.gallery, self.raw_queries, self.raw_gallery)
        )
        return Embeddings(self.probe, queries, gallery, raw_queries, raw_gallery, [self.paths[row] for row in rows])


def retrieve(config: Config) -> dict[str, Any]:
    """Embed, rank and score: figures, settings, and what names the protocol. Bad input is ``ValueError``.

    With several seeds a query's values are means over them, and the intervals resample queries. A shape that cannot be
    read under one of them is left out under all.
    """
    _check(config)
    failed: dict[str, str] = {}
    embedded = [embed_views(seeded, failed) for seeded in _seeded(config)]
    found = [_rank(embeddings.without(failed), config) for embeddings in embedded]
    first = found[0].embeddings
    values = {name: np.mean([ranked.values[name] for ranked in found], axis=0) for name in found[0].values}
    by_seed = [{name: float(v.mean()) for name, v in ranked.values.items()} for ranked in found]
    tied = float(np.mean([ranked.tied for ranked in found]))
    result = {
        **{name: float(value.mean()) for name, value in values.items()},
        "median_rank": float(np.median(values["mean_rank"])),
        "interval": {name: interval(value[:, None]) for name, value in values.items()},
        "by_seed": by_seed,
        **_settings_report(config, first.probe),
        "n_files": len(first.paths),
        **_protocol_report(config),
        "tied_fraction": tied,
        "collapsed": len(first.paths) > 1 and tied >= COLLAPSED_FROM,
        "query_spread": ranking.spread(first.queries),
        "gallery_spread": ranking.spread(first.gallery),
        "chance": ranking.chance_metrics(len(first.paths)),
        "raw_distances": {name: float(np.mean([ranked.raw[name] for ranked in found])) for name in found[0].raw},
        "items": {"path": first.paths, "mAP": list(values["mAP"]), **_picture(first, config)},
        "failed": [{"path": path, "reason": reason} for path, reason in failed.items()],
    }
    _warn(result)
    return result


def _picture(embeddings: Embeddings, config: Config) -> dict[str, Any]:
    """What a report draws of one seed: each query's best gallery items, and its place among the queries."""
    top = ranking.best_items(embeddings.queries, embeddings.gallery, TOP, chunk=config.chunk)
    return {"top": top.tolist(), "map": ranking.plane(embeddings.queries).round(5).tolist()}


def _seeded(config: Config) -> list[Config]:
    """The same for every seed; the gallery's are counted up beside the queries'."""
    gallery = _gallery_seed(config)
    return [
        replace(config, eval_seed=config.eval_seed + i, eval_seed_gallery=gallery + i) for i in range(config.n_seeds)
    ]


@dataclass(frozen=True)
class Ranked:
    """One seed's outcome: values (N,) a query by figure, the part of tied items, and figures without a model."""

    embeddings: Embeddings
    values: dict[str, NDArray[np.float64]]
    tied: float
    raw: dict[str, float]


def _rank(embeddings: Embeddings, config: Config) -> Ranked:
    queries, gallery = embeddings.queries, embeddings.gallery
    ranks = ranking.rank_true_items(queries, gallery, chunk=config.chunk)
    scored = ranks
    if config.rank_rule == "strict":
        scored = ranking.rank_strictly(queries, gallery, chunk=config.chunk)
    answers = centred(embeddings.raw_queries), centred(embeddings.raw_gallery)
    raw = ranking.rank_true_items(*answers, chunk=config.chunk)
    tied = ranking.tied_fraction(ranks)
    return Ranked(embeddings, ranking.per_query(scored), tied, ranking.retrieval_metrics(raw))


def embed_views(config: Config, failed: dict[str, str]) -> Embeddings:
    """Embed every shape of the split through both backends; those that cannot be read are noted in ``failed``. Bad
    input is ``ValueError``."""
    probe = open_probe(probe_request(config))
    probe.require_length(sample_length(probe), "n_point, n_ray, qa_tokens and add_eos")
    paths = shapes_of(config.cache_root, config.split, config.max_files, "max_files")
    settings = sample_settings(config, probe)
    views = (
        View(config.query_backend, settings, config.eval_seed),
        View(config.gallery_backend, settings, _gallery_seed(config)),
    )
    (queries, raw_queries), (gallery, raw_gallery) = (embed(config, probe, paths, view, failed) for view in views)
    return Embeddings(probe, queries, gallery, raw_queries, raw_gallery, paths).without(failed)


def command(config: Config) -> int:
    """Retrieve, print the table, write the JSON; the exit status says whether any shape failed."""
    result = retrieve(config)
    return conclude(result, _table(result), config.out_json)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m nepa3d.analysis.retrieval_ucpr``."""
    return cli.run(Config, command, argv, output="out_json")


def _check(config: Config) -> None:
    for flag in ("query_backend", "gallery_backend"):
        require_backend(getattr(config, flag), flag)
    for flag in ("mc_k", "chunk", "n_seeds"):
        if getattr(config, flag) < 1:
            raise ValueError(f"{flag}: expected at least 1, got {getattr(config, flag)}")
    for flag in ("n_point", "n_ray"):
        if getattr(config, flag) < -1:
            raise ValueError(f"{flag}: expected at least 0, or -1 (as trained), got {getattr(config, flag)}")


def probe_request(config: Config) -> ProbeRequest:
    """The checkpoint and what to override of its settings."""
    return ProbeRequest(
        ckpt=config.ckpt,
        add_eos=config.add_eos,
        qa_tokens=config.qa_tokens,
        n_point=config.n_point,
        n_ray=config.n_ray,
        device=config.device,
        precision=config.precision,
    )


def sample_settings(config: Config, probe: Probe) -> SampleSettings:
    """How a shape becomes a sequence."""
    voxel = VoxelSettings(config.voxel_grid, config.voxel_dilate, config.voxel_max_steps)
    return SampleSettings(probe.n_point, probe.n_ray, qa=probe.qa, eos=probe.eos, voxel=voxel)


def embed(
    config: Config, probe: Probe, paths: list[str], view: View, failed: dict[str, str]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Embeddings (N, D) of ``paths``, and their answers as they are (N, RAW_CELLS^3); an unreadable shape is noted in
    ``failed``, its rows mean nothing."""
    requests = [Request(path, view.backend, view.settings) for path in paths]
    threads = max(1, config.num_workers)

    def read(number: int) -> tuple[int, NDArray[np.float32], NDArray[np.int64], NDArray[np.int64], dict[int, str]]:
        """The number of samples asked for; features and types of the good ones and their rows; why not the others."""
        chunk, resample = divmod(number, config.mc_k)
        rows = range(len(paths))[chunk * config.chunk : (chunk + 1) * config.chunk]
        asked = requests[rows.start : rows.stop]
        features, types, faults = evaluation_samples(asked, view.seed, resample, threads=threads)
        good = np.setdiff1d(np.arange(len(rows)), [row for row, _ in faults])
        if faults:
            features, types = features[good], types[good]
        raw[rows.start + good] += raw_distances(features, types) / config.mc_k  # no two calls at a time
        return len(rows), features, types, rows.start + good, {rows[row]: fault for row, fault in faults}

    numbers = range(math.ceil(len(paths) / config.chunk) * config.mc_k)
    vectors: NDArray[np.float64] | None = None
    raw = np.zeros((len(paths), RAW_CELLS**3))
    with progress_bar(total=len(paths) * config.mc_k, desc=f"embed {view.backend}", unit="sample") as progress:
        for count, features, types, good, faults in (
            prefetch(read, numbers) if config.num_workers else map(read, numbers)
        ):
            for row, fault in faults.items():
                failed.setdefault(paths[row], f"{view.backend}: {fault}")
            if len(good):
                embedded = ranking.normalize(_pooled(config, probe, features, types))
                if vectors is None:
                    vectors = np.zeros((len(paths), embedded.shape[1]))
                vectors[good] += embedded
            progress.update(count)
    if vectors is None:
        return np.empty((len(paths), 0)), raw
    return ranking.normalize(vectors), raw


def raw_distances(features: NDArray[np.float32], types: NDArray[np.int64]) -> NDArray[np.float64]:
    """A shape's mean answered distance in each of RAW_CELLS^3 cells (B, cells), the shape's mean where none was asked.

    What retrieval makes of this is owed to the answers alone: a model has to do better.
    """
    asked = np.isin(types, (TokenType.POINT, TokenType.Q_POINT))
    answered = np.isin(types, (TokenType.POINT, TokenType.A_POINT))
    samples = len(types)
    if not asked.any():
        return np.zeros((samples, RAW_CELLS**3))
    points = features[asked][:, XYZ].reshape(samples, -1, 3)
    distances = features[answered][:, POINT_DISTANCE].reshape(samples, -1).astype(np.float64)
    place = np.clip(((points + 1) / 2 * RAW_CELLS).astype(np.int64), 0, RAW_CELLS - 1)
    cell = np.ravel_multi_index(tuple(np.moveaxis(place, -1, 0)), 3 * (RAW_CELLS,))
    cell += np.arange(samples)[:, None] * RAW_CELLS**3
    sums = np.bincount(cell.ravel(), distances.ravel(), samples * RAW_CELLS**3).reshape(samples, -1)
    counts = np.bincount(cell.ravel(), minlength=samples * RAW_CELLS**3).reshape(samples, -1)
    return np.where(counts > 0, sums / np.maximum(counts, 1), distances.mean(1, keepdims=True))


def centred(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Vectors (N, D) less their mean: cosines of distances, which are all positive, would be near 1 otherwise."""
    return vectors - vectors.mean(0)


def _pooled(
    config: Config, probe: Probe, features: NDArray[np.float32], types: NDArray[np.int64]
) -> NDArray[np.float32]:
    if config.ablate_point_xyz:
        features[np.isin(types, (TokenType.POINT, TokenType.Q_POINT)), XYZ] = 0.0
    if config.ablate_point_dist:
        features[np.isin(types, (TokenType.POINT, TokenType.A_POINT)), POINT_DISTANCE] = 0.0
    representation = "z_hat" if config.pooling == "mean_zhat" else config.representation
    vectors: NDArray[np.float32] = pooled_states(probe, features, types, config.pooling, representation).cpu().numpy()
    return vectors


def _gallery_seed(config: Config) -> int:
    return config.eval_seed if config.eval_seed_gallery == -1 else config.eval_seed_gallery


def _settings_report(config: Config, probe: Probe) -> dict[str, Any]:
    taken = ("cache_root", "split", "ckpt", "query_backend", "gallery_backend", "mc_k", "eval_seed", "n_seeds")
    more = ("ablate_point_xyz", "ablate_point_dist", "max_files", "pooling", "representation", "precision")
    voxel = ("voxel_grid", "voxel_dilate", "voxel_max_steps")
    return {
        **{name: getattr(config, name) for name in (*taken, *more, *voxel)},
        "eval_seed_gallery": _gallery_seed(config),
        "n_point": probe.n_point,
        "n_ray": probe.n_ray,
        "add_eos": probe.eos,
        "qa_tokens": probe.qa,
    }


def _protocol_report(config: Config) -> dict[str, Any]:
    shared = _draw_seeds(config.eval_seed, config.mc_k) & _draw_seeds(_gallery_seed(config), config.mc_k)
    return {"probe": "ucpr", "tie_rule": ranking.TIE_RULES[config.rank_rule], "shared_draws": bool(shared)}


def _draw_seeds(first: int, resamples: int) -> set[int]:
    return {resample_seed(first, i) for i in range(resamples)}


def _warn(result: dict[str, Any]) -> None:
    if result["shared_draws"]:
        print(
            "warning: queries and gallery draw the very same coordinates (equal eval seeds), which flatters "
            "the figures; give another --eval_seed_gallery for independent draws",
            file=sys.stderr,
        )
    if result["collapsed"]:
        print(
            f"warning: collapsed gallery: on average {result['tied_fraction']:.0%} of its items cannot be "
            f"told from the true one (spread {result['gallery_spread']:.1e}); tied items share their places, "
            "so the figures are near chance",
            file=sys.stderr,
        )
    for failure in result["failed"]:
        print(f"failed: {failure['path']}: {failure['reason']}", file=sys.stderr)


def _table(result: dict[str, Any]) -> str:
    names = ("r@1", "r@5", "r@10", "mAP", "mean_rank", "median_rank")
    title = f"{result['query_backend']} -> {result['gallery_backend']}, {result['n_files']} shapes"
    figures: dict[str, dict[str, Any]] = {title: result, "95 % over shapes": result["interval"]}
    if result["n_seeds"] > 1:
        seeds = result["by_seed"]
        figures["standard deviation over seeds"] = {k: float(np.std([seed[k] for seed in seeds])) for k in seeds[0]}
    figures |= {"plain distances, no model": result["raw_distances"], "chance": result["chance"]}
    digits = [1 if name.endswith("rank") else 4 for name in names]
    rows = [
        [what, *(cell(found[name], n) if name in found else "" for name, n in zip(names, digits, strict=True))]
        for what, found in figures.items()
    ]
    heads = ["", "R@1", "R@5", "R@10", "mAP", "mean rank", "median rank"]
    table = tabulate(rows, heads, colalign=("left", *6 * ("right",)), disable_numparse=True)
    spread = f"query {result['query_spread']:.4f}, gallery {result['gallery_spread']:.4f}"
    return f"{table}\nspread of the embeddings (0: all alike): {spread}"


if __name__ == "__main__":
    raise SystemExit(main())
