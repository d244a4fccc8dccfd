"""Completion (CPAC-UDF): can a linear head predict the distance field from the states of query tokens?

The frozen model sees a context of points with distances, then query points without. A ridge head, fitted on other
shapes, predicts the distance at each query from the state of its token. The result is reported beside controls: two
without a model, which copy the distance of the nearest context point or fit a spline to the context, and, if asked for,
an untrained model. What is shown of it is in ``completion_tables``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tabulate import tabulate

from nepa3d.execution.checks import require_at_least, require_positive
from nepa3d.models.embedding import Probe
from nepa3d.models.encoder import Encoder, ShapeLike, shape_name
from nepa3d.probes.completion_tables import (
    CONTROLS,
    COPY,
    FIGURES,
    LOCAL,
    SPLINE,
    UNTRAINED,
    bars,
    document_table,
    doubts,
    drawings,
    judged,
    report_table,
)
from nepa3d.probes.distance_errors import ERROR_FIGURES, DistanceErrors, error_metrics
from nepa3d.probes.distance_head import (
    TARGET_VIEWS,
    Headed,
    Plan,
    Reading,
    batch_of,
    batches,
    fit_head,
    training_batches,
)
from nepa3d.probes.embedding import in_memory, require_read, require_several, untrained, voxel_report
from nepa3d.probes.intervals import cell, interval
from nepa3d.probes.kind import ProbeKind, Section
from nepa3d.probes.local_regression import MOST_SHAPES, LocalRegression, fit_local_regression, require_sklearn
from nepa3d.probes.point_answers import point_answers
from nepa3d.probes.result import Json, Result, first_failure
from nepa3d.probes.spline import FEWEST, require_scipy, splines
from nepa3d.probes.tables import unmeasured
from nepa3d.samples.completion import SequenceSettings
from nepa3d.samples.completion_loader import CompletionBatch
from nepa3d.samples.schema import XYZ, sequence_length

TEST_SEED_OFFSET = 999
MODEL = "model"


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
    spline: bool = True
    """Whether a spline of the context is a control; it needs SciPy."""
    untrained: bool = False
    """Whether an untrained model of the same sizes is a control, with a head of its own. ``run`` takes one instead."""
    local_regression: bool = False
    """Whether gradient boosting of local features is a control; it is fitted on the head's shapes and needs
    scikit-learn. Not for ``run``, which has none."""
    reading: Reading = field(default_factory=Reading)

    def __post_init__(self) -> None:
        require_positive(tau=self.tau, ridge_lambda=self.ridge_lambda)
        require_at_least(1, n_seeds=self.n_seeds)


@dataclass(frozen=True)
class Errors:
    """Sums of ``DistanceErrors`` (shapes, 5) of the model and each control; why another control has none."""

    paths: list[str]
    sums: dict[str, NDArray[np.float64]]
    missing: dict[str, str]

    def of(self, paths: Sequence[str]) -> Errors:
        """Those of these shapes."""
        place = {path: row for row, path in enumerate(self.paths)}
        rows = [place[path] for path in paths]
        return Errors([*paths], {name: sums[rows] for name, sums in self.sums.items()}, self.missing)


def run(
    encoder: Encoder,
    shapes: Sequence[ShapeLike],
    settings: CompletionSettings | None = None,
    *,
    view: str = "pointcloud_noray",
    untrained: Encoder | None = None,
) -> Result:
    """Errors of the distances that the encoder predicts at points of each shape's pool that the context does not hold,
    against its distance field, of which a model with several answer views predicts the grid's.

    Controls copy the distance of the nearest context point and fit a spline to the context; a third is the encoder
    ``untrained``, see ``nepa3d.probes.embedding.untrained_encoder``.
    Fit the heads on other shapes first (``Encoder.fit_distance_head``); else the built-in corpus is what they know.
    ``ValueError`` names a shape that cannot be read, and says what to install where SciPy is missing.
    """
    require_several(shapes)
    if not shapes:
        raise ValueError("shapes must not be empty")
    settings = settings or CompletionSettings(reading=Reading(progress=False))
    if settings.reading.representation != "h":
        raise ValueError(f"representation: the encoder's head reads h, got {settings.reading.representation}")
    if settings.local_regression:
        raise ValueError("local_regression: it is fitted on a head's shapes, and here are none")
    sequence = encoder.sequence(view, query_source="pool_disjoint")
    encoders = {MODEL: encoder} | ({} if untrained is None else {UNTRAINED: untrained})
    models = {
        name: Headed(one.probe, one.distance_head(TARGET_VIEWS[sequence.target])) for name, one in encoders.items()
    }
    failed: dict[str, str] = {}
    known = in_memory(shapes)
    found = [
        score(models, known, sequence, settings, seed, failed)
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
    if settings.local_regression:
        require_sklearn()
        if plan.own or plan.test_settings.context != "own":
            raise ValueError(
                "local_regression 1 needs shapes to be fitted on and a context: not with head_train_split "
                "own, nor with another context"
            )
    failed: dict[str, str] = {}
    found = []
    for seed in range(settings.seed, settings.seed + settings.n_seeds):
        probes = {MODEL: probe} | ({UNTRAINED: untrained(probe, seed)} if settings.untrained else {})
        models, n_train = dict[str, Headed | LocalRegression](), 0
        for name, one in probes.items():
            weights, n_train = fit_head(one, plan, settings.ridge_lambda, seed, settings.reading, failed)
            models[name] = Headed(one, weights)
        if settings.local_regression:
            some = replace(plan, train=plan.train[:: math.ceil(len(plan.train) / MOST_SHAPES)])
            told = training_batches(some, seed, settings.reading, failed, "fit local regression")
            models[LOCAL] = fit_local_regression(told, seed)
        asked = seed + TEST_SEED_OFFSET
        found.append(score(models, plan.test, plan.test_settings, settings, asked, failed))
    how = _settings(probe, plan.test_settings, settings) | {
        "head_train_backend": plan.train_settings.context_backend,
        "test_seed": settings.seed + TEST_SEED_OFFSET,
        "n_shapes_total": plan.n_total,
        "n_shapes_head_train": n_train,
    }
    return _result(found, how, failed)


def require_room(probe: Probe, sequence: SequenceSettings, flags: str) -> None:
    """``ValueError`` naming ``flags`` if a sequence is longer than the model takes."""
    points = sequence.n_query + (0 if sequence.context == "absent" else sequence.n_context)
    probe.require_length(sequence_length(points, 0, qa=probe.qa, eos=probe.eos), flags)


def score(
    models: Mapping[str, Headed | LocalRegression],
    shapes: Sequence[ShapeLike],
    sequence: SequenceSettings,
    settings: CompletionSettings,
    seed: int,
    failed: dict[str, str],
) -> Errors:
    """Errors of ``models`` by name, of the nearest copy and of the spline on ``shapes``; others are noted in
    ``failed``."""
    if sequence.context == "mismatched" and len(shapes) < 2:
        raise ValueError("context 'mismatched' needs at least two shapes to complete")
    reading, threads = settings.reading, max(1, settings.reading.threads)
    missing = _missing(sequence, settings)
    errors = {name: DistanceErrors(settings.tau) for name in (*models, COPY, SPLINE) if name not in missing}
    scored: list[str] = []

    def read(rows: range) -> tuple[CompletionBatch, dict[str, str]]:
        some = [shapes[row] for row in rows]
        others = [shapes[(row + 1) % len(shapes)] for row in rows] if sequence.context == "mismatched" else None
        return batch_of(some, sequence, seed, others, threads=threads)

    def add(name: str, predicted: Iterable[NDArray[np.floating]], batch: CompletionBatch) -> None:
        for distances, target in zip(predicted, batch.target, strict=True):
            errors[name].add(distances, target)

    with ThreadPoolExecutor(threads, thread_name_prefix="spline") as pool:
        for batch in batches(len(shapes), "complete", read, reading, failed):
            scored.extend(batch.paths)
            splined = splines(pool, *_told_and_asked(batch)) if SPLINE not in missing else iter(())
            for name, one in models.items():
                add(name, one.distances(batch, reading.representation), batch)
            if batch.nearest_copy is not None:
                add(COPY, batch.nearest_copy, batch)
            known = [*splined]  # by the threads, while the models ran
            for path, values in zip(batch.paths if known else (), known, strict=True):
                if isinstance(values, str):
                    missing.setdefault(SPLINE, f"{path}: {values}")
            if SPLINE not in missing:
                add(SPLINE, [one for one in known if not isinstance(one, str)], batch)
    if not scored:
        first = first_failure(failed, map(shape_name, shapes))
        raise ValueError(f"no shape to complete could be read; first: {first}")
    return Errors(scored, {name: of.sums() for name, of in errors.items() if name not in missing}, missing)


def _missing(sequence: SequenceSettings, settings: CompletionSettings) -> dict[str, str]:
    """The controls that cannot be, and why. ``ValueError`` that says what to install where SciPy is asked for."""
    if sequence.context == "absent":
        return dict.fromkeys((COPY, SPLINE), "there is no context")
    if not settings.spline:
        return {SPLINE: "left out"}
    if sequence.n_context < FEWEST:
        return {SPLINE: f"it takes at least {FEWEST} context points, there are {sequence.n_context}"}
    require_scipy()
    return {}


def _told_and_asked(batch: CompletionBatch) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Context points (B, C, 3), their distances (B, C), and query points (B, Q, 3)."""
    end = batch.query_tokens[0]
    return *point_answers(batch.features[:, :end], batch.types[:, :end]), batch.features[:, batch.query_tokens, XYZ]


def _result(found: Sequence[Errors], settings: Json, failed: dict[str, str]) -> Result:
    """The figures over all seeds, of the shapes that could be read under each."""
    shared = [path for path in found[0].paths if all(path in errors.paths for errors in found)]
    if not shared:
        raise ValueError("n_seeds: no shape could be read under every seed")
    if any(errors.paths != shared for errors in found):
        found = [errors.of(shared) for errors in found]
    missing = {name: why for errors in found for name, why in errors.missing.items()}
    means = {
        name: np.mean([errors.sums[name] for errors in found], axis=0) for name in found[0].sums if name not in missing
    }
    sums = means.pop(MODEL)
    figures = error_metrics(sums)
    controls = {name: {**error_metrics(means[name])} if name in means else None for name in (COPY, SPLINE, *means)}
    return Result(
        probe="cpac_udf",
        figures={**figures},
        controls=controls,
        intervals={name: interval(sums, figure) for name, figure in ERROR_FIGURES.items() if figures[name] is not None},
        by_seed=[{**error_metrics(errors.sums[MODEL])} for errors in found],
        settings=settings | {"n_shapes_head_test": len(shared)},
        diagnostics={"missing_controls": missing} if missing else {},
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
        "questions": sequence.questions,
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
    """The result with its controls as a table for the terminal."""
    settings = result.settings
    title = f"{settings['context_backend']} -> {settings['target']}, {settings['n_shapes_head_test']} shapes"
    if settings["context"] != "own":
        title += f", context {settings['context']}"
    figures: dict[str, list[Any]] = {title: [result.figures[name] for name in FIGURES]}
    figures["95 % over shapes"] = [result.intervals.get(name) for name in FIGURES]
    if len(result.by_seed) > 1:
        spread = [[found[name] for found in result.by_seed] for name in FIGURES]
        figures["standard deviation over seeds"] = [None if None in x else float(np.std(x)) for x in spread]
    for control in CONTROLS:
        if found := result.controls.get(control.key):
            figures[control.title] = [found[name] for name in FIGURES]
    rows = [[what, *map(cell, values)] for what, values in figures.items()]
    heads = ["", "MAE", "RMSE", f"IoU@{settings['tau']:g}"]
    table = tabulate(rows, heads, colalign=("left", *3 * ("right",)), disable_numparse=True)
    return "\n".join([table, *unmeasured(result)])


COMPLETION = ProbeKind(
    name="Completion",
    recognises=lambda content: {*FIGURES, "tau"} <= content.keys(),
    figures=FIGURES,
    controls=tuple(control.key for control in CONTROLS),
    diagnostics=("missing_controls",),
    protocol=(
        *("eval_split", "context_backend", "target", "n_seeds", "seed", "query_source", "context", "questions"),
        *("head_train_split", "precision", "n_context", "n_query", "tau"),
    ),
    item_figures=("mae",),
    table=document_table,
    section=Section(
        "completion",
        "Completion of the distance field",
        "From a few points with distances, a linear head on the frozen model reads the distance at other points.",
    ),
    report_table=report_table,
    drawings=drawings,
    bars=bars,
    doubts=doubts,
    judged=judged,
)
