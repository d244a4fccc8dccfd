"""What is shown and said of retrieval: tables, drawings, doubts and verdicts, each beside its controls."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from nepa3d.probes import ranking
from nepa3d.probes.controls import Control
from nepa3d.probes.drawings import Bar, BarChart, Dots, Drawing, EmbeddingMap, Gallery, dot
from nepa3d.probes.intervals import cell
from nepa3d.probes.judged import Compared, Judged, figure_text, outcome
from nepa3d.probes.kind import Named
from nepa3d.probes.result import Result
from nepa3d.probes.tables import Row, Table, failures_note, figure_cell, interval_cell, once, unusual

IN_TABLES = ("r@1", "r@5", "r@10", "mAP")
RAW = "raw_distances"
CONTROLS = (
    Control(
        RAW,
        row="no model",
        title="plain distances, no model",
        against="plain distances without a model",
        judge="plain distances",
        note="mean distances in cells",
    ),
    Control(
        "lipschitz",
        row="Lipschitz",
        title="Lipschitz violation, no model",
        against="the pairwise Lipschitz violation, which needs no model",
        judge="the Lipschitz violation",
        note="pairwise Lipschitz violation of the answers",
    ),
    Control(
        "spline_field",
        row="spline field",
        title="field of a spline, no model",
        against="the field of a spline, which needs no model",
        judge="the spline's field",
        note="fields of splines at common points",
    ),
    Control(
        "random_init",
        row="untrained",
        title="untrained model",
        against="the untrained model",
        judge="the untrained model",
        note="same sizes, new weights",
        of_model=True,
    ),
)


def _pair(result: Result, unknown: str, arrow: str) -> str:
    settings = result.settings
    return f"{settings.get('query_backend', unknown)} {arrow} {settings.get('gallery_backend', unknown)}"


def _sample_notes(result: Result) -> list[str]:
    """How much was told of each shape."""
    settings = result.settings
    points = [f"{settings['n_point']} points"] if "n_point" in settings else []
    points += unusual(result, {"questions": "pool"})
    return [*points, *([f"mc_k {settings['mc_k']}"] if settings.get("mc_k", 1) > 1 else [])]


def _notes(result: Result) -> str:
    """What one must know beside the figures."""
    settings, notes = result.settings, []
    if result.diagnostics.get("collapsed"):
        notes.append("COLLAPSED gallery")
    if settings.get("tie_rule", "only strictly better").startswith("only strictly better"):
        notes.append("strict ranks: ties count as wins")
    if settings.get("shared_draws", settings.get("eval_seed") == settings.get("eval_seed_gallery")):
        notes.append("shared draws")
    notes += [name for name in ("ablate_point_xyz", "ablate_point_dist") if settings.get(name)]
    if settings.get("mc_k", 1) > 1:
        notes.append(f"mc_k {settings['mc_k']}")
    notes += unusual(result, {"pooling": "eos", "representation": "h", "precision": "float32", "questions": "pool"})
    return "; ".join(notes + failures_note(result))


def document_table(results: Sequence[Named]) -> Table:
    """The models, then their controls, each once, then chance."""
    rows, beside = list[Row](), list[Row]()
    for tag, r in results:
        names = (tag, r.settings.get("ckpt", "-"), _pair(r, "-", "->"), r.settings.get("split", "-"))
        figures = [cell(r.figures[name]) for name in IN_TABLES]
        rows.append([*(f"`{name}`" for name in names), str(r.settings["n_files"]), *figures, _notes(r)])
        for control in CONTROLS:
            if known := r.controls.get(control.key):
                who = [control.row, f"`{names[1]}`" if control.of_model else "-", *(f"`{name}`" for name in names[2:])]
                figures = [cell(known[name]) for name in IN_TABLES]
                note = "; ".join([control.note, *_sample_notes(r)])
                beside.append([*who, str(r.settings["n_files"]), *figures, note])
    rows += once(beside)
    for n in sorted({r.settings["n_files"] for _, r in results}):
        chance = ranking.chance_metrics(n)
        figures = [cell(chance[name]) for name in IN_TABLES]
        rows.append(["chance", "-", "-", "-", str(n), *figures, f"random order of {n}"])
    heads = ("Tag", "CKPT", "Query -> Gallery", "Split", "max_files", "R@1", "R@5", "R@10", "mAP", "Note")
    return Table("UCPR", heads, rows, first_figure=4)


def report_table(results: Sequence[Named]) -> Table:
    """With interval, chance and the baseline without a model."""
    heads = (
        "Model",
        "Query → gallery",
        "Shapes",
        "R@1",
        "R@5",
        "R@10",
        "mAP",
        "mAP, 95 %",
        "Chance",
        "No model",
        "Lipschitz",
        "Spline field",
        "Untrained",
        "Notes",
    )
    rows = [
        [
            *(r.model, _pair(r, "?", "→"), str(r.settings["n_files"])),
            *(cell(r.figures[name], 3) for name in IN_TABLES),
            interval_cell(r.intervals, "mAP"),
            figure_cell(r.controls.get("chance"), "mAP"),
            *(figure_cell(r.controls.get(control.key), "mAP") for control in CONTROLS),
            _notes(r),
        ]
        for _, r in results
    ]
    return Table("Cross-view retrieval (UCPR)", heads, rows, first_figure=2)


def drawings(results: Sequence[Named]) -> list[Drawing]:
    """mAP beside the controls; of each model its best result as a map and a gallery."""
    rows = [
        dot(
            tag.removeprefix("ucpr_"),
            r,
            "mAP",
            {"chance": r.controls.get("chance")} | {c.row: r.controls.get(c.key) for c in CONTROLS},
        )
        for tag, r in results
    ]
    caption = "mAP with its 95 % interval over shapes, beside chance and what needs no model, or none trained."
    maps, galleries = list[Drawing](), list[Drawing]()
    for name, r in _best_of_each([r for _, r in results if "top" in r.items]).items():
        items, views = r.items, (r.settings["query_backend"], r.settings["gallery_backend"])
        said = f"{name}: embeddings of the queries ({views[0]}), one point a shape."
        maps.append(EmbeddingMap(f"map_{name}", said, name, items["path"], np.array(items["map"])))
        ranks = [1 / value for value in items["mAP"]]  # with one right shape, precision is 1 / rank
        said = f"{name}: six queries ({views[0]}) and what is found first for each ({views[1]}); green: the right one."
        galleries.append(Gallery(f"gallery_{name}", said, name, items["path"], items["top"], ranks, views))
    return [Dots("retrieval", caption, "mAP", rows), *maps, *galleries]


def _best_of_each(results: Sequence[Result]) -> dict[str, Result]:
    """Each model's result of the highest mAP."""
    best: dict[str, Result] = {}
    for result in sorted(results, key=lambda result: -result.figures["mAP"]):
        best.setdefault(result.model, result)
    return dict(sorted(best.items()))


def bars(results: Sequence[Named]) -> list[BarChart]:
    """R@1 and mAP beside chance."""
    rows = []
    for tag, r in results:
        chance = ranking.chance_metrics(r.settings["n_files"])
        values, base = (r.figures["r@1"], r.figures["mAP"]), (chance["r@1"], chance["mAP"])
        rows.append(Bar(tag.removeprefix("ucpr_"), _pair(r, "?", "→"), r.settings.get("ckpt", ""), values, base))
    title, axis = "UCPR retrieval: R@1, mAP ↑", "share of queries; mean of 1/rank"
    return [BarChart(title, ("R@1", "mAP"), "chance", axis, rows, width=1.25)]


def doubts(result: Result) -> list[str]:
    """What speaks against a result, and controls that it does not beat."""
    found, mean = [], result.figures["mAP"]
    if result.diagnostics.get("collapsed"):
        tied = result.diagnostics["tied_fraction"]
        found.append(f"the gallery has collapsed: {tied:.0%} of it is tied with the true shape")
    if result.settings.get("shared_draws"):
        found.append("query and gallery share their draws, so equal questions alone make them alike")
    told = result.settings.get("query_distances")
    views = {result.settings.get(name) for name in ("query_backend", "gallery_backend")}
    if told and told == result.settings.get("gallery_distances") and len(views) > 1:
        found.append(f"both views answer with {told} of the cache, so that they differ in their rays at most")
    low = result.intervals.get("mAP", (math.inf, math.inf))[0]
    chance, raw = result.controls.get("chance"), result.controls.get("raw_distances")
    if chance and low <= chance["mAP"]:
        found.append(f"mAP {mean:.4f} is not above chance ({chance['mAP']:.4f}) with 95 % confidence")
    elif raw and mean <= raw["mAP"]:
        found.append(f"mAP {mean:.4f} is below that of plain distances without a model ({raw['mAP']:.4f})")
    for control in CONTROLS:
        known = result.controls.get(control.key)
        if control.key != RAW and known and mean <= known["mAP"]:
            found.append(f"mAP {mean:.4f} is no better than that of {control.against} ({known['mAP']:.4f})")
    return found


def judged(result: Result) -> list[Judged]:
    """Runs that are controls themselves, with a question changed, are left out; so are controls that a file of an
    older version does not name, plain distances and chance excepted."""
    if result.settings.get("ablate_point_xyz") or result.settings.get("ablate_point_dist"):
        return []
    mean, between = result.figures["mAP"], result.intervals.get("mAP")
    compared = []
    more = [(control.key, control.judge) for control in CONTROLS[1:] if control.key in result.controls]
    for name, title in ((RAW, CONTROLS[0].judge), ("chance", "chance"), *more):
        control = result.controls.get(name)
        if not control:
            compared.append(Compared(title, None, "missing"))
            continue
        value = control["mAP"]
        compared.append(Compared(title, value, outcome(mean - value, between[0] - value if between else None)))
    flaw = "the gallery has collapsed" if result.diagnostics.get("collapsed") else ""
    if result.settings.get("shared_draws"):
        flaw = "query and gallery share their draws"
    figure = f"mAP {figure_text(mean, between)}"
    return [Judged(result.model, _pair(result, "?", "→"), figure, tuple(compared), flaw)]
