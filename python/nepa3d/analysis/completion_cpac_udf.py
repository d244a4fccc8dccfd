"""Completion (CPAC-UDF): can a linear head predict the distance field from the states of query tokens?

The frozen model sees a context of points with distances, then query points without. A ridge head, fitted on other
shapes, predicts the distance at each query from the state of its token. The result is reported beside a control
without a model, which copies the distance of the nearest context point.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from tabulate import tabulate

from nepa3d import cli
from nepa3d.analysis.outcome import conclude
from nepa3d.execution.progress_bar import progress_bar
from nepa3d.models.embedding import (
    Precision,
    Probe,
    ProbeRequest,
    Representation,
    hidden_states,
    open_probe,
    shapes_of,
)
from nepa3d.models.ridge import ERROR_FIGURES, DistanceErrors, RidgeSums, error_metrics, predict
from nepa3d.probes.intervals import cell, interval
from nepa3d.samples.completion import MESH_FILE, Context, QuerySource, SequenceSettings, Target
from nepa3d.samples.completion_loader import CompletionBatch, completion_batch
from nepa3d.samples.loader import prefetch
from nepa3d.samples.schema import sequence_length
from nepa3d.shapes.views import VoxelSettings, require_backend

TRANSDUCTIVE = "none"
TEST_SEED_OFFSET = 999


@dataclass(frozen=True)
class Config:
    """Predict distances at query points from a context, with a ridge head on the states of a frozen model.

    Example: python -m nepa3d.analysis.completion_cpac_udf --cache_root data/shapenet_unpaired_cache_v1
    --split eval --ckpt runs/eccv_upmix_nepa_s0/ckpt_ep049.pt --context_backend pointcloud_noray
    --head_train_split train_udf --max_shapes 800 --out_json results/cpac_pc2udf.json
    """

    cache_root: str
    """Cache folder holding <split>/<class>/<id>.npz; the draws depend on how this path is spelled."""
    ckpt: str
    """Checkpoint to probe."""
    split: str = "eval"
    """Split whose shapes are completed."""
    context_backend: str = "pointcloud_noray"
    """View of the context points."""
    n_context: int = 256
    """Context points per shape."""
    n_query: int = 256
    """Query points per shape."""
    add_eos: Literal[-1, 0, 1] = -1
    """End sequences with an EOS token; -1: as in pretraining."""
    qa_tokens: Literal[-1, 0, 1] = -1
    """Encode a question and its answer as two tokens; -1: as in pretraining."""
    seed: int = 0
    """Seed of the draws (and of the shuffle of a transductive split)."""
    n_seeds: int = 1
    """Number of seeds of the draws, counted up from seed; results are over all of them."""
    head_train_split: str = "train_udf"
    """Split that the head is fitted on; 'none': part of the evaluated split (transductive)."""
    head_train_backend: str = "udfgrid"
    """View of the context while the head is fitted (context_backend if transductive)."""
    head_train_ratio: float = 0.2
    """Transductive only: share of the shapes that the head is fitted on."""
    head_train_n: int = 0
    """Transductive only: number of shapes that the head is fitted on; 0: use head_train_ratio."""
    head_train_max_shapes: int = 0
    """Use only this many shapes of head_train_split, the first by sorted path; 0: all."""
    ridge_lambda: float = 1e-3
    """Ridge penalty; it includes the bias."""
    tau: float = 0.03
    """Points with a distance of at most this count as surface (IoU)."""
    max_shapes: int = 0
    """Use only this many shapes of the split, the first by sorted path; 0: all."""
    voxel_grid: int = 64
    """Side of the grid of the voxel view, in cells."""
    voxel_dilate: int = 1
    """Rounds of dilation of that grid."""
    voxel_max_steps: int = 0
    """Largest number of cells that a ray visits; 0: three times voxel_grid."""
    query_source: QuerySource = "pool"
    """Query points: the pool of the context, that pool without the context, or cells of the distance grid."""
    target: Target = "udf"
    """True distances: of the distance grid, or of the mesh (as cached, or exact with mesh_root)."""
    mesh_root: str = ""
    """Folder with <class>/<id>/<mesh_file> of each shape; target 'mesh' is then the exact distance to its triangles."""
    mesh_file: str = MESH_FILE
    """Path of a mesh below <mesh_root>/<class>/<id>."""
    context: Context = "own"
    """Control: the shape's own context, that of another shape (mismatched), or none (absent)."""
    representation: Representation = "h"
    """Hidden state h or predicted embedding z_hat."""
    batch: int = 64
    """Sequences per forward pass."""
    num_workers: int = 2
    """Threads that prefetch shapes; 0: shapes are read between the forward passes."""
    device: str = "auto"
    """auto (a GPU if there is one), cpu or cuda."""
    precision: Precision = "float32"
    """Precision of matrix products; bf16 is faster on a GPU and changes results a little."""
    out_json: str = ""
    """File to write the results and settings to; empty: none."""


@dataclass(frozen=True)
class Plan:
    """Which shapes fit the head, which are completed, and how their sequences are made."""

    train: list[str]
    test: list[str]
    train_settings: SequenceSettings
    test_settings: SequenceSettings
    n_total: int


@dataclass(frozen=True)
class Errors:
    """Sums of ``DistanceErrors`` (shapes, 5), of the head and of the nearest-context copy; the latter may be empty."""

    paths: list[str]
    model: NDArray[np.float64]
    copy: NDArray[np.float64]

    def of(self, paths: Sequence[str]) -> Errors:
        """Those of these shapes."""
        place = {path: row for row, path in enumerate(self.paths)}
        rows = [place[path] for path in paths]
        return Errors([*paths], self.model[rows], self.copy[rows] if len(self.copy) else self.copy)


def complete(config: Config) -> dict[str, Any]:
    """Fit the head and score it: figures, settings, what names the protocol. Bad input is ``ValueError``.

    With several seeds a shape's errors are those of all its draws, and the intervals resample shapes. A shape that
    cannot be read under one of them is left out under all.
    """
    check(config)
    precision = config.precision
    request = ProbeRequest(config.ckpt, config.add_eos, config.qa_tokens, device=config.device, precision=precision)
    probe = open_probe(request)
    n_points = config.n_query + (0 if config.context == "absent" else config.n_context)
    length = sequence_length(n_points, 0, qa=probe.qa, eos=probe.eos)
    probe.require_length(length, "n_context, n_query, qa_tokens and add_eos")
    plan = plan_shapes(config, probe)
    failed: dict[str, str] = {}
    found = []
    for seed in range(config.seed, config.seed + config.n_seeds):
        seeded = replace(config, seed=seed)
        weights, n_train = fit_head(seeded, probe, plan, failed)
        found.append(_score(seeded, probe, plan, weights, failed))
    shared = [path for path in found[0].paths if all(path in errors.paths for errors in found)]
    if not shared:
        raise ValueError("n_seeds: no shape could be read under every seed")
    found = [errors.of(shared) for errors in found]
    sums = np.mean([errors.model for errors in found], axis=0)
    copies = np.mean([errors.copy for errors in found], axis=0)
    by_seed = [error_metrics(errors.model) for errors in found]
    result = {
        **error_metrics(sums),
        "interval": {name: interval(sums, figure) for name, figure in ERROR_FIGURES.items()},
        "by_seed": by_seed,
        **_settings_report(config, probe),
        "n_shapes_total": plan.n_total,
        "n_shapes_head_train": n_train,
        "n_shapes_head_test": len(shared),
        **_protocol_report(config),
        "nearest_copy": error_metrics(copies) if len(copies) else None,
        "items": {"path": shared, "mae": list(sums[:, 1] / sums[:, 0])},
        "failed": [{"path": path, "reason": reason} for path, reason in failed.items()],
    }
    for path, reason in failed.items():
        print(f"failed: {path}: {reason}", file=sys.stderr)
    return result


def command(config: Config) -> int:
    """Complete, print the table, write the JSON; the exit status says whether any shape failed."""
    result = complete(config)
    return conclude(result, _table(result), config.out_json)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m nepa3d.analysis.completion_cpac_udf``."""
    return cli.run(Config, command, argv, output="out_json")


def check(config: Config) -> None:
    """``ValueError`` naming a flag that no completion can mean."""
    for flag in ("context_backend", "head_train_backend"):
        require_backend(getattr(config, flag), flag)
    for flag in ("n_context", "n_query", "batch", "n_seeds"):
        if getattr(config, flag) < 1:
            raise ValueError(f"{flag}: expected at least 1, got {getattr(config, flag)}")
    for flag in ("ridge_lambda", "tau"):
        if not getattr(config, flag) > 0:
            raise ValueError(f"{flag}: expected a positive number, got {getattr(config, flag)}")
    if not 0 < config.head_train_ratio < 1:
        raise ValueError(f"head_train_ratio: expected a number in (0, 1), got {config.head_train_ratio}")
    if config.head_train_n < 0:
        raise ValueError(f"head_train_n: expected at least 0, got {config.head_train_n}")
    if config.head_train_n and config.head_train_split != TRANSDUCTIVE:
        raise ValueError("head_train_n goes with head_train_split 'none'; else use head_train_max_shapes")
    if config.num_workers < 0:
        raise ValueError(f"num_workers: expected at least 0, got {config.num_workers}")
    _check_meshes(config)


def _check_meshes(config: Config) -> None:
    if config.mesh_root and config.target != "mesh":
        raise ValueError(f"mesh_root goes with target 'mesh', got target {config.target!r}")
    if config.mesh_root and not Path(config.mesh_root).is_dir():
        raise ValueError(f"mesh_root: expected a folder of meshes, there is none at {config.mesh_root!r}")
    if config.query_source == "grid" and config.target == "mesh" and not config.mesh_root:
        raise ValueError(
            "query_source 'grid' with target 'mesh' needs mesh_root: caches have mesh distances at pool points only"
        )


def plan_shapes(config: Config, probe: Probe) -> Plan:
    """The shapes of the flags, and how their sequences are made."""
    shapes = shapes_of(config.cache_root, config.split, config.max_shapes, "max_shapes")
    voxel = VoxelSettings(config.voxel_grid, config.voxel_dilate, config.voxel_max_steps)

    def settings(backend: str) -> SequenceSettings:
        return SequenceSettings(
            context_backend=backend,
            n_context=config.n_context,
            n_query=config.n_query,
            qa=probe.qa,
            eos=probe.eos,
            query_source=config.query_source,
            target=config.target,
            context=config.context,
            mesh_root=config.mesh_root,
            mesh_file=config.mesh_file,
            voxel=voxel,
        )

    test_settings = settings(config.context_backend)
    if config.head_train_split != TRANSDUCTIVE:
        limit = config.head_train_max_shapes
        train = shapes_of(config.cache_root, config.head_train_split, limit, "head_train_max_shapes")
        return Plan(train, shapes, settings(config.head_train_backend), test_settings, len(shapes))
    shuffled = list(shapes)
    np.random.RandomState(config.seed).shuffle(shuffled)
    n_train = config.head_train_n or round(config.head_train_ratio * len(shuffled))
    if not 0 < n_train < len(shuffled):
        raise ValueError(
            f"head_train_n / head_train_ratio: {n_train} of {len(shuffled)} shapes would fit the head; "
            "at least one must fit it and one remain"
        )
    return Plan(shuffled[:n_train], shuffled[n_train:], test_settings, test_settings, len(shapes))


def fit_head(config: Config, probe: Probe, plan: Plan, failed: dict[str, str]) -> tuple[np.ndarray, int]:
    """Weights (D + 1,) of the ridge head, and the number of shapes it was fitted on; others are noted in ``failed``."""
    sums: RidgeSums | None = None

    def take(batch: CompletionBatch) -> None:
        nonlocal sums
        features = _query_states(probe, batch, config.representation).flatten(0, 1)
        sums = sums or RidgeSums(features.shape[1], features.device)
        sums.add(features, torch.from_numpy(batch.target).flatten())

    def read(rows: range) -> tuple[CompletionBatch, dict[str, str]]:
        paths = [plan.train[row] for row in rows]
        return completion_batch(paths, plan.train_settings, config.seed, threads=max(1, config.num_workers))

    n_read = _stream(config, len(plan.train), "fit head", read, take, failed)
    if sums is None:
        raise ValueError(f"no shape to fit the head on could be read; first: {next(iter(failed.values()))}")
    return sums.solve(config.ridge_lambda), n_read


def _score(config: Config, probe: Probe, plan: Plan, weights: np.ndarray, failed: dict[str, str]) -> Errors:
    shapes = len(plan.test)
    if config.context == "mismatched" and shapes < 2:
        raise ValueError("context 'mismatched' needs at least two shapes to complete")
    model, copy = DistanceErrors(config.tau), DistanceErrors(config.tau)
    scored: list[str] = []

    def take(batch: CompletionBatch) -> None:
        scored.extend(batch.paths)
        predicted = predict(weights, _query_states(probe, batch, config.representation))
        for distances, target in zip(predicted, batch.target, strict=True):
            model.add(distances, target)
        if batch.nearest_copy is not None:
            for distances, target in zip(batch.nearest_copy, batch.target, strict=True):
                copy.add(distances, target)

    def read(rows: range) -> tuple[CompletionBatch, dict[str, str]]:
        paths = [plan.test[row] for row in rows]
        others = [plan.test[(row + 1) % shapes] for row in rows] if config.context == "mismatched" else None
        seed, threads = config.seed + TEST_SEED_OFFSET, max(1, config.num_workers)
        return completion_batch(paths, plan.test_settings, seed, others, threads=threads)

    if not _stream(config, shapes, "complete", read, take, failed):
        raise ValueError(f"no shape to complete could be read; first: {next(iter(failed.values()))}")
    return Errors(scored, model.sums(), copy.sums())


def _stream(
    config: Config,
    shapes: int,
    title: str,
    read: Callable[[range], tuple[CompletionBatch, dict[str, str]]],
    take: Callable[[CompletionBatch], None],
    failed: dict[str, str],
) -> int:
    """Hand ``take`` the readable shapes in batches, read ahead, and note the others in ``failed``; the number read."""

    def rows_of(begin: int) -> range:
        return range(begin, min(begin + config.batch, shapes))

    def read_batch(begin: int) -> tuple[int, CompletionBatch, dict[str, str]]:
        return len(rows_of(begin)), *read(rows_of(begin))

    begins = range(0, shapes, config.batch)
    n_read = 0
    with progress_bar(total=shapes, desc=title, unit="shape") as progress:
        for count, batch, faults in prefetch(read_batch, begins) if config.num_workers else map(read_batch, begins):
            for path, fault in faults.items():
                failed.setdefault(path, fault)
            if len(batch):
                take(batch)
            n_read += len(batch)
            progress.update(count)
    return n_read


def _query_states(probe: Probe, batch: CompletionBatch, representation: Representation) -> torch.Tensor:
    """States (B, Q, D) at the query tokens, on the probe's device."""
    return hidden_states(probe, batch.features, batch.types, representation, batch.query_tokens)


def _settings_report(config: Config, probe: Probe) -> dict[str, Any]:
    transductive = config.head_train_split == TRANSDUCTIVE
    taken = ("cache_root", "ckpt", "context_backend", "n_context", "n_query", "seed", "n_seeds", "ridge_lambda", "tau")
    more = ("max_shapes", "head_train_ratio", "head_train_max_shapes", "representation", "precision", "mesh_root")
    voxel = ("voxel_grid", "voxel_dilate", "voxel_max_steps")
    return {
        **{name: getattr(config, name) for name in (*taken, *more, *voxel)},
        "target": _target_name(config),
        "eval_split": config.split,
        "head_train_split": "legacy_transductive" if transductive else config.head_train_split,
        "head_train_backend": config.context_backend if transductive else config.head_train_backend,
        "legacy_transductive": transductive,
        "add_eos": probe.eos,
        "qa_tokens": probe.qa,
    }


def _target_name(config: Config) -> str:
    if config.target == "udf":
        return "udfgrid_distance_probe"
    return "mesh_distance_exact" if config.mesh_root else "mesh_distance_probe"


def _protocol_report(config: Config) -> dict[str, Any]:
    return {
        "probe": "cpac_udf",
        "query_source": config.query_source,
        "queries_may_repeat_context": config.query_source == "pool" and config.context != "absent",
        "context": config.context,
        "test_seed": config.seed + TEST_SEED_OFFSET,
    }


def _table(result: dict[str, Any]) -> str:
    title = f"{result['context_backend']} -> {result['target']}, {result['n_shapes_head_test']} shapes"
    if result["context"] != "own":
        title += f", context {result['context']}"
    figures: dict[str, list[Any]] = {title: [result[name] for name in ERROR_FIGURES]}
    figures["95 % over shapes"] = [result["interval"][name] for name in ERROR_FIGURES]
    if result["n_seeds"] > 1:
        spread = [[found[name] for found in result["by_seed"]] for name in ERROR_FIGURES]
        figures["standard deviation over seeds"] = [None if None in x else float(np.std(x)) for x in spread]
    if result["nearest_copy"]:
        figures["copy of the nearest context point"] = [result["nearest_copy"][name] for name in ERROR_FIGURES]
    rows = [[what, *map(cell, values)] for what, values in figures.items()]
    heads = ["", "MAE", "RMSE", f"IoU@{result['tau']:g}"]
    return tabulate(rows, heads, colalign=("left", *3 * ("right",)), disable_numparse=True)


if __name__ == "__main__":
    raise SystemExit(main())
