"""What is shown and said of completion: tables, drawings, doubts and verdicts, each beside its controls."""

from __future__ import annotations

from collections.abc import Sequence

from nepa3d.probes.controls import Control
from nepa3d.probes.distance_head import OWN
from nepa3d.probes.drawings import Bar, BarChart, Dots, Drawing, dot
from nepa3d.probes.intervals import cell
from nepa3d.probes.judged import Compared, Judged, Outcome, figure_text, outcome
from nepa3d.probes.kind import Named
from nepa3d.probes.result import Json, Result
from nepa3d.probes.tables import Row, Table, failures_note, figure_cell, interval_cell, unusual

USUAL = {"query_source": "pool", "questions": "pool"}
FIGURES = ("mae", "rmse", "iou@tau")


COPY, SPLINE, LOCAL, UNTRAINED = "nearest_copy", "spline", "local_regression", "random_init"
CONTROLS = (
    Control(
        COPY,
        row="nearest copy",
        title="copy of the nearest context point",
        against="copying the nearest context point",
        judge="the nearest-context copy",
        note="distance of the nearest context point",
    ),
    Control(
        SPLINE,
        row="spline",
        title="spline of the context, no model",
        against="a spline of the context",
        judge="the spline",
        note="thin-plate spline of the context, clipped",
    ),
    Control(
        LOCAL,
        row="local regression",
        title="gradient boosting of local features, no model",
        against="gradient boosting of local features",
        judge="the local regression",
        note="gradient boosting of the spline, its bounds and what is nearest, fitted on the head's shapes",
    ),
    Control(
        UNTRAINED,
        row="untrained",
        title="untrained model",
        against="the untrained model",
        judge="the untrained model",
        note="same sizes, new weights, a head of its own",
        of_model=True,
    ),
)


def document_table(results: Sequence[Named]) -> Table:
    """The models, then their controls, each once."""
    taus = {r.settings["tau"] for _, r in results}
    iou = f"IoU@{next(iter(taus)):g}" if len(taus) == 1 else "IoU@tau"
    rows: list[Row] = []
    baselines: list[Row] = []
    for tag, r in results:
        settings = r.settings
        target = "mesh" if str(settings.get("target", "")).startswith("mesh") else "udf"
        pair = f"`{settings.get('context_backend', '-')} -> {target}`"
        where = [f"`{settings.get('eval_split', '-')}`", str(settings.get("n_shapes_head_test", "-"))]
        tau_note = [f"tau {settings['tau']:g}"] if len(taus) > 1 else []
        figures = [cell(r.figures[name]) for name in FIGURES]
        note = "; ".join([*tau_note, _notes(r)])
        ckpt = f"`{settings.get('ckpt', '-')}`"
        rows.append([f"`{tag}`", ckpt, pair, *where, *figures, note])
        for control in CONTROLS:
            if not (known := r.controls.get(control.key)):
                continue
            note = "; ".join([*tau_note, control.note, *_setting_notes(r)])
            figures = [cell(known[name]) for name in FIGURES]
            baseline = [control.row, ckpt if control.of_model else "-", pair, *where, *figures, note]
            if baseline not in baselines:
                baselines.append(baseline)
    heads = ("Tag", "CKPT", "Context -> Target", "Split", "max_shapes", "MAE", "RMSE", iou, "Note")
    return Table("CPAC-UDF", heads, rows + baselines, first_figure=4)


def report_table(results: Sequence[Named]) -> Table:
    """With interval and the controls."""
    heads = ("Model", "Context", "Shapes", "MAE", "MAE, 95 %", "RMSE", "IoU@τ", "Copy: MAE", "Copy: IoU@τ")
    more = ("Spline: MAE", "Spline: IoU@τ", "Local regression: MAE", "Untrained: MAE", "Notes")
    rows = []
    for _, r in results:
        settings, controls, errors = r.settings, r.controls, r.figures
        head = [r.model, settings.get("context_backend", "?"), str(settings.get("n_shapes_head_test", "-"))]
        figures = [cell(errors["mae"]), interval_cell(r.intervals, "mae", 4), cell(errors["rmse"])]
        beside = [
            text
            for key in (COPY, SPLINE)
            for text in (figure_cell(controls.get(key), "mae", 4), figure_cell(controls.get(key), "iou@tau"))
        ]
        beside += [figure_cell(controls.get(key), "mae", 4) for key in (LOCAL, UNTRAINED)]
        rows.append([*head, *figures, cell(errors["iou@tau"], 3), *beside, _notes(r)])
    return Table("Completion of the distance field (CPAC)", (*heads, *more), rows, first_figure=2)


def _setting_notes(result: Result) -> list[str]:
    context = result.settings.get("context", "own")
    return ([] if context == "own" else [f"context {context}"]) + unusual(result, USUAL)


def _notes(result: Result) -> str:
    """What one must know beside the figures."""
    settings = result.settings
    split = settings.get("head_train_split", "-")
    head = "transductive" if settings.get("legacy_transductive") else f"head fitted on {split}"
    head = "the model's own prediction" if split == OWN else head
    rare = unusual(result, {"representation": "h", "precision": "float32"})
    return "; ".join([head, *_setting_notes(result), *rare, *failures_note(result)])


def drawings(results: Sequence[Named]) -> list[Drawing]:
    """MAE beside the controls."""
    rows = [
        dot(tag.removeprefix("cpac_"), r, "mae", {control.row: r.controls.get(control.key) for control in CONTROLS})
        for tag, r in results
    ]
    caption = "Mean absolute error (shape units, less is better) with its 95 % interval, beside copying the nearest "
    caption += (
        "point and, where they were measured, a spline of the context, gradient boosting of local features and an "
    )
    caption += "untrained model."
    return [Dots("completion", caption, "MAE", rows)]


def bars(results: Sequence[Named]) -> list[BarChart]:
    """MAE and IoU beside the spline where every result has it, else beside the copy."""
    key = SPLINE if all(r.controls.get(SPLINE) for _, r in results) else COPY
    reference = {SPLINE: "spline of the context", COPY: "nearest-point copy"}[key]

    def rows(name: str, labelled: bool) -> list[Bar]:
        return [
            Bar(
                tag.removeprefix("cpac_") if labelled else "",
                r.settings.get("context_backend", "?"),
                r.settings.get("ckpt", ""),
                (r.figures[name],),
                ((r.controls.get(key) or {}).get(name),),
            )
            for tag, r in results
        ]

    taus = {f"{r.settings['tau']:g}" for _, r in results}
    iou = f"CPAC IoU@{taus.pop() if len(taus) == 1 else 'τ'} ↑"
    return [
        BarChart("CPAC MAE ↓", ("MAE",), reference, "shape units", rows("mae", labelled=True)),
        BarChart(iou, ("IoU",), reference, "share of the union", rows("iou@tau", labelled=False)),
    ]


def doubts(result: Result) -> list[str]:
    """Controls that the model does not beat."""
    if result.settings.get("context", "own") != "own":
        return []
    mean = result.figures["mae"]
    return [
        f"MAE {mean:.4f} is no better than {control.against} ({known['mae']:.4f})"
        for control in CONTROLS
        if (known := result.controls.get(control.key)) and mean >= known["mae"]
    ]


def judged(result: Result) -> list[Judged]:
    """Runs that are controls themselves, with another context, are left out; so are controls that a file of an older
    version does not name, the copy excepted."""
    if result.settings.get("context", "own") != "own":
        return []
    mean, between = result.figures["mae"], result.intervals.get("mae")
    compared = tuple(
        _compared(control, result.controls.get(control.key), mean, between)
        for control in CONTROLS
        if control.key == COPY or control.key in result.controls
    )
    figure = f"MAE {figure_text(mean, between, 4)}"
    return [Judged(result.model, result.settings.get("context_backend", "?"), figure, compared)]


def _compared(control: Control, known: Json | None, mean: float, between: Sequence[float] | None) -> Compared:
    found: Outcome = "missing"
    if known:
        found = outcome(known["mae"] - mean, known["mae"] - between[1] if between else None)
    return Compared(control.judge, known["mae"] if known else None, found, digits=4)
