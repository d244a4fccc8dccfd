"""Completion (CPAC-UDF): can a linear head predict the distance field from the states of query tokens?

The frozen model sees a context of points with distances, then query points without. A ridge head, fitted on other
shapes, predicts the distance at each query from the state of its token. The result is reported beside a control
without a model, which copies the distance of the nearest context point.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tabulate import tabulate

from nepa3d.models.embedding import Probe
from nepa3d.models.encoder import Encoder, ShapeLike
from nepa3d.models.ridge import predict
from nepa3d.probes.distance_errors import ERROR_FIGURES, DistanceErrors, error_metrics
from nepa3d.probes.distance_head import Plan, Reading, batch_of, batches, fit_head, query_states
from nepa3d.probes.drawings import Bar, BarChart, Dots, Drawing, dot
from nepa3d.probes.embedding import in_memory, require_read, voxel_report
from nepa3d.probes.intervals import cell, interval
from nepa3d.probes.judged import Compared, Judged, Outcome, figure_text, outcome
from nepa3d.probes.kind import Named, ProbeKind, Section
from nepa3d.probes.result import Json, Result
from nepa3d.probes.tables import Row, Table, failures_note, figure_cell, interval_cell, unusual
from nepa3d.samples.completion import SequenceSettings
from nepa3d.samples.completion_loader import CompletionBatch
from nepa3d.samples.schema import sequence_length

TEST_SEED_OFFSET = 999
FIGURES = ("mae", "rmse", "iou@tau")


@dataclass(frozen=True)
class CompletionSettings:
    """How the head is fitted, and by what it is scored."""

    tau: float = 0.03
    """Points with a distance of at most this count as surface."""
    ridge_lambda: float = 1e-3
    """Ridge penalty; it includes the bias."""
    seed: int = 0
    n_seeds: int = 1
    """Number of seeds of the draws, counted up from ``seed``."""
    reading: Reading = field(default_factory=Reading)


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


def run(
    encoder: Encoder,
    shapes: Sequence[ShapeLike],
    settings: CompletionSettings | None = None,
    *,
    view: str = "pointcloud_noray",
) -> Result:
    """Errors of the distances that ``encoder.complete`` predicts at points of each shape's pool that the context does
    not hold, against its distance field. The control copies the distance of the nearest context point.

    Fit the head on other shapes first (``Encoder.fit_distance_head``); else the built-in corpus is what it knows.
    ``ValueError`` names a shape that cannot be read.
    """
    if not shapes:
        raise ValueError("shapes must not be empty")
    settings = settings or CompletionSettings(reading=Reading(progress=False))
    sequence, weights = encoder.sequence(view, query_source="pool_disjoint"), encoder.distance_head()
    failed: dict[str, str] = {}
    known = in_memory(shapes)
    found = [
        score(encoder.probe, known, sequence, weights, settings, seed, failed)
        for seed in range(settings.seed, settings.seed + settings.n_seeds)
    ]
    require_read(failed)
    return _result(found, _settings(encoder.probe, sequence, settings), failed)


def complete(probe: Probe, plan: Plan, settings: CompletionSettings) -> Result:
    """Fit the head and score it. Shapes that cannot be read are listed, other bad input is ``ValueError``.

    With several seeds a shape's errors are those of all its draws, and the intervals resample shapes. A shape that
    cannot be read under one of them is left out under all.
    """
    require_room(probe, plan.test_settings, "n_context, n_query, qa_tokens and add_eos")
    failed: dict[str, str] = {}
    found = []
    for seed in range(settings.seed, settings.seed + settings.n_seeds):
        weights, n_train = fit_head(probe, plan, settings.ridge_lambda, seed, settings.reading, failed)
        asked = seed + TEST_SEED_OFFSET
        found.append(score(probe, plan.test, plan.test_settings, weights, settings, asked, failed))
    told = _settings(probe, plan.test_settings, settings) | {
        "head_train_backend": plan.train_settings.context_backend,
        "test_seed": settings.seed + TEST_SEED_OFFSET,
        "n_shapes_total": plan.n_total,
        "n_shapes_head_train": n_train,
    }
    return _result(found, told, failed)


def require_room(probe: Probe, sequence: SequenceSettings, flags: str) -> None:
    """``ValueError`` naming ``flags`` if a sequence is longer than the model takes."""
    points = sequence.n_query + (0 if sequence.context == "absent" else sequence.n_context)
    probe.require_length(sequence_length(points, 0, qa=probe.qa, eos=probe.eos), flags)


def score(
    probe: Probe,
    shapes: Sequence[ShapeLike],
    sequence: SequenceSettings,
    weights: NDArray[np.float64],
    settings: CompletionSettings,
    seed: int,
    failed: dict[str, str],
) -> Errors:
    """Errors of a head's ``weights`` (D + 1,) and of the nearest copy on ``shapes``; others are noted in ``failed``."""
    if sequence.context == "mismatched" and len(shapes) < 2:
        raise ValueError("context 'mismatched' needs at least two shapes to complete")
    reading = settings.reading
    model, copy = DistanceErrors(settings.tau), DistanceErrors(settings.tau)
    scored: list[str] = []

    def read(rows: range) -> tuple[CompletionBatch, dict[str, str]]:
        some = [shapes[row] for row in rows]
        others = [shapes[(row + 1) % len(shapes)] for row in rows] if sequence.context == "mismatched" else None
        return batch_of(some, sequence, seed, others, threads=max(1, reading.threads))

    for batch in batches(len(shapes), "complete", read, reading, failed):
        scored.extend(batch.paths)
        predicted = predict(weights, query_states(probe, batch, reading.representation))
        for distances, target in zip(predicted, batch.target, strict=True):
            model.add(distances, target)
        if batch.nearest_copy is not None:
            for distances, target in zip(batch.nearest_copy, batch.target, strict=True):
                copy.add(distances, target)
    if not scored:
        raise ValueError(f"no shape to complete could be read; first: {next(iter(failed.values()))}")
    return Errors(scored, model.sums(), copy.sums())


def _result(found: Sequence[Errors], settings: Json, failed: dict[str, str]) -> Result:
    """The figures over all seeds, of the shapes that could be read under each."""
    shared = [path for path in found[0].paths if all(path in errors.paths for errors in found)]
    if not shared:
        raise ValueError("n_seeds: no shape could be read under every seed")
    if any(errors.paths != shared for errors in found):
        found = [errors.of(shared) for errors in found]
    sums = np.mean([errors.model for errors in found], axis=0)
    copies = np.mean([errors.copy for errors in found], axis=0)
    return Result(
        probe="cpac_udf",
        figures={**error_metrics(sums)},
        controls={"nearest_copy": {**error_metrics(copies)} if len(copies) else None},
        intervals={name: interval(sums, figure) for name, figure in ERROR_FIGURES.items()},
        by_seed=[{**error_metrics(errors.model)} for errors in found],
        settings=settings | {"n_shapes_head_test": len(shared)},
        items={"path": shared, "mae": list(sums[:, 1] / sums[:, 0])},
        failed=failed,
    )


def _settings(probe: Probe, sequence: SequenceSettings, settings: CompletionSettings) -> Json:
    target = "mesh_distance_exact" if sequence.mesh_root else "mesh_distance_probe"
    return {
        "ckpt": probe.ckpt,
        "precision": probe.precision,
        "add_eos": probe.eos,
        "qa_tokens": probe.qa,
        "context_backend": sequence.context_backend,
        "n_context": sequence.n_context,
        "n_query": sequence.n_query,
        "query_source": sequence.query_source,
        "queries_may_repeat_context": sequence.query_source == "pool" and sequence.context != "absent",
        "context": sequence.context,
        "target": "udfgrid_distance_probe" if sequence.target == "udf" else target,
        "mesh_root": sequence.mesh_root,
        **voxel_report(sequence.voxel),
        "seed": settings.seed,
        "n_seeds": settings.n_seeds,
        "ridge_lambda": settings.ridge_lambda,
        "tau": settings.tau,
        "representation": settings.reading.representation,
    }


def text(result: Result) -> str:
    """The result with its control as a table for the terminal."""
    settings, copy = result.settings, result.controls["nearest_copy"]
    title = f"{settings['context_backend']} -> {settings['target']}, {settings['n_shapes_head_test']} shapes"
    if settings["context"] != "own":
        title += f", context {settings['context']}"
    figures: dict[str, list[Any]] = {title: [result.figures[name] for name in FIGURES]}
    figures["95 % over shapes"] = [result.intervals[name] for name in FIGURES]
    if len(result.by_seed) > 1:
        spread = [[found[name] for found in result.by_seed] for name in FIGURES]
        figures["standard deviation over seeds"] = [None if None in x else float(np.std(x)) for x in spread]
    if copy:
        figures["copy of the nearest context point"] = [copy[name] for name in FIGURES]
    rows = [[what, *map(cell, values)] for what, values in figures.items()]
    heads = ["", "MAE", "RMSE", f"IoU@{settings['tau']:g}"]
    return tabulate(rows, heads, colalign=("left", *3 * ("right",)), disable_numparse=True)


def _recognises(content: Json) -> bool:
    return {*FIGURES, "tau"} <= content.keys()


def _setting_notes(result: Result) -> list[str]:
    context = result.settings.get("context", "own")
    return ([] if context == "own" else [f"context {context}"]) + unusual(result, {"query_source": "pool"})


def _notes(result: Result) -> str:
    """What one must know beside the figures."""
    settings = result.settings
    split = settings.get("head_train_split", "-")
    head = "transductive" if settings.get("legacy_transductive") else f"head fitted on {split}"
    rare = unusual(result, {"representation": "h", "precision": "float32"})
    return "; ".join([head, *_setting_notes(result), *rare, *failures_note(result)])


def _document_table(results: Sequence[Named]) -> Table:
    taus = {r.settings["tau"] for _, r in results}
    iou = f"IoU@{next(iter(taus)):g}" if len(taus) == 1 else "IoU@tau"
    rows: list[Row] = []
    baselines: list[Row] = []
    for tag, r in results:
        settings, copy = r.settings, r.controls.get("nearest_copy")
        target = "mesh" if str(settings.get("target", "")).startswith("mesh") else "udf"
        pair = f"`{settings.get('context_backend', '-')} -> {target}`"
        where = [f"`{settings.get('eval_split', '-')}`", str(settings.get("n_shapes_head_test", "-"))]
        tau_note = [f"tau {settings['tau']:g}"] if len(taus) > 1 else []
        figures = [cell(r.figures[name]) for name in FIGURES]
        note = "; ".join([*tau_note, _notes(r)])
        rows.append([f"`{tag}`", f"`{settings.get('ckpt', '-')}`", pair, *where, *figures, note])
        if copy:
            note = "; ".join([*tau_note, "distance of the nearest context point", *_setting_notes(r)])
            baseline = ["nearest copy", "-", pair, *where, *(cell(copy[name]) for name in FIGURES), note]
            if baseline not in baselines:
                baselines.append(baseline)
    heads = ("Tag", "CKPT", "Context -> Target", "Split", "max_shapes", "MAE", "RMSE", iou, "Note")
    return Table("CPAC-UDF", heads, rows + baselines, first_figure=4)


def _report_table(results: Sequence[Named]) -> Table:
    """With interval and the nearest copy."""
    heads = ("Model", "Context", "Shapes", "MAE", "MAE, 95 %", "RMSE", "IoU@τ", "Copy: MAE", "Copy: IoU@τ", "Notes")
    rows = []
    for _, r in results:
        settings, copy, errors = r.settings, r.controls.get("nearest_copy"), r.figures
        head = [r.model, settings.get("context_backend", "?"), str(settings.get("n_shapes_head_test", "-"))]
        figures = [cell(errors["mae"]), interval_cell(r.intervals, "mae", 4), cell(errors["rmse"])]
        beside = [figure_cell(copy, "mae", 4), figure_cell(copy, "iou@tau")]
        rows.append([*head, *figures, cell(errors["iou@tau"], 3), *beside, _notes(r)])
    return Table("Completion of the distance field (CPAC)", heads, rows, first_figure=2)


def _drawings(results: Sequence[Named]) -> list[Drawing]:
    rows = [
        dot(tag.removeprefix("cpac_"), r, "mae", {"nearest copy": r.controls.get("nearest_copy")}) for tag, r in results
    ]
    caption = "Mean absolute error (shape units, less is better) with its 95 % interval, beside copying the nearest "
    return [Dots("completion", caption + "point.", "MAE", rows)]


def _bars(results: Sequence[Named]) -> list[BarChart]:
    def rows(name: str, labelled: bool) -> list[Bar]:
        return [
            Bar(
                tag.removeprefix("cpac_") if labelled else "",
                r.settings.get("context_backend", "?"),
                r.settings.get("ckpt", ""),
                (r.figures[name],),
                ((r.controls.get("nearest_copy") or {}).get(name),),
            )
            for tag, r in results
        ]

    taus = {f"{r.settings['tau']:g}" for _, r in results}
    iou = f"CPAC IoU@{taus.pop() if len(taus) == 1 else 'τ'} ↑"
    copy = "nearest-point copy"
    return [
        BarChart("CPAC MAE ↓", ("MAE",), copy, "shape units", rows("mae", labelled=True)),
        BarChart(iou, ("IoU",), copy, "share of the union", rows("iou@tau", labelled=False)),
    ]


def _doubts(result: Result) -> list[str]:
    copy, mean = result.controls.get("nearest_copy"), result.figures["mae"]
    if not copy or result.settings.get("context", "own") != "own" or mean < copy["mae"]:
        return []
    return [f"MAE {mean:.4f} is no better than copying the nearest context point ({copy['mae']:.4f})"]


def _judged(result: Result) -> list[Judged]:
    """Runs that are controls themselves, with another context, are left out."""
    if result.settings.get("context", "own") != "own":
        return []
    mean, between, copy = result.figures["mae"], result.intervals.get("mae"), result.controls.get("nearest_copy")
    found: Outcome = "missing"
    if copy:
        found = outcome(copy["mae"] - mean, copy["mae"] - between[1] if between else None)
    compared = Compared("the nearest-context copy", copy["mae"] if copy else None, found, digits=4)
    figure = f"MAE {figure_text(mean, between, 4)}"
    return [Judged(result.model, result.settings.get("context_backend", "?"), figure, (compared,))]


COMPLETION = ProbeKind(
    name="Completion",
    recognises=_recognises,
    figures=FIGURES,
    controls=("nearest_copy",),
    protocol=(
        *("eval_split", "context_backend", "target", "n_seeds", "seed", "query_source", "context"),
        *("head_train_split", "precision"),
    ),
    item_figures=("mae",),
    table=_document_table,
    section=Section(
        "completion",
        "Completion of the distance field",
        "From a few points with distances, a linear head on the frozen model reads the distance at other points.",
    ),
    report_table=_report_table,
    drawings=_drawings,
    bars=_bars,
    doubts=_doubts,
    judged=_judged,
)
