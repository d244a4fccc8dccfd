"""What makes one distrust a figure of an experiment, a sentence each, and the tables with controls beside figures."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from nepa3d.analysis import fewshot_table
from nepa3d.analysis.tables import Table, completion_notes, retrieval_notes
from nepa3d.probes.intervals import cell
from nepa3d.report.experiment import Experiment, Json
from nepa3d.train.diagnostics import Diagnosis

PROBES = ("knn", "logistic", "svm")
UNTRAINED = ", untrained"


def name_of(ckpt: str) -> str:
    """How a checkpoint is called: its folder's name."""
    return Path(ckpt).parent.name or Path(ckpt).stem


def read_diagnostics(run: Path) -> list[Diagnosis]:
    """What pretraining measured beside the loss; empty where it did not. ``ValueError`` names a damaged line."""
    path = run / "diagnostics.jsonl"
    if not path.is_file():
        return []
    names = [field.name for field in fields(Diagnosis)]
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            record = json.loads(line)
            found.append(Diagnosis(**{name: record.get(name, math.nan) for name in names}))
        except (json.JSONDecodeError, AttributeError) as error:
            raise ValueError(f"{path}:{number}: expected an object of figures, got {line!r}") from error
    return found


def doubts(experiment: Experiment) -> dict[str, list[str]]:
    """By part of the experiment, a sentence for every figure that a control speaks against."""
    pretraining = []
    for run in experiment.pretrainings:
        if diagnoses := read_diagnostics(run):
            pretraining += _named(run.name, diagnoses[-1].alarms())
    found = {
        "Pretraining": pretraining,
        "Retrieval": [d for path, r in experiment.retrievals for d in _named(path.stem, retrieval_doubts(r))],
        "Completion": [d for path, r in experiment.completions for d in _named(path.stem, completion_doubts(r))],
        "Frozen features": [d for path, r in experiment.classifications for d in _named(path.stem, r["alarms"])],
        "Fine-tuning": [d for path, r in experiment.finetuned for d in _named(path.parent.name, [r.get("alarm")])],
    }
    return {part: sentences for part, sentences in found.items() if sentences}


def _named(name: str, said: Sequence[str | None]) -> list[str]:
    return [f"{name}: {sentence}." for sentence in said if sentence]


def retrieval_doubts(result: Json) -> list[str]:
    """What speaks against a UCPR result."""
    found = []
    if result.get("collapsed"):
        found.append(f"the gallery has collapsed: {result['tied_fraction']:.0%} of it is tied with the true shape")
    if result.get("shared_draws"):
        found.append("query and gallery share their draws, so equal questions alone make them alike")
    low = (result.get("interval") or {}).get("mAP", (math.inf,))[0]
    chance, raw = result.get("chance") or {}, result.get("raw_distances") or {}
    if chance and low <= chance["mAP"]:
        found.append(f"mAP {result['mAP']:.4f} is not above chance ({chance['mAP']:.4f}) with 95 % confidence")
    elif raw and result["mAP"] <= raw["mAP"]:
        found.append(f"mAP {result['mAP']:.4f} is below that of plain distances without a model ({raw['mAP']:.4f})")
    return found


def completion_doubts(result: Json) -> list[str]:
    """What speaks against a CPAC result."""
    copy = result.get("nearest_copy")
    if not copy or result.get("context", "own") != "own" or result["mae"] < copy["mae"]:
        return []
    return [f"MAE {result['mae']:.4f} is no better than copying the nearest context point ({copy['mae']:.4f})"]


def retrieval_table(experiment: Experiment) -> Table:
    """Cross-view retrieval with interval, chance and the baseline without a model."""
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
        "Notes",
    )
    rows = []
    for _, r in experiment.retrievals:
        pair = f"{r.get('query_backend', '?')} → {r.get('gallery_backend', '?')}"
        figures = [cell(r[name], 3) for name in ("r@1", "r@5", "r@10", "mAP")]
        rows.append(
            [
                name_of(r.get("ckpt", "")),
                pair,
                str(r["n_files"]),
                *figures,
                _interval(r, "mAP"),
                _figure(r.get("chance"), "mAP"),
                _figure(r.get("raw_distances"), "mAP"),
                retrieval_notes(r),
            ]
        )
    return Table("Cross-view retrieval (UCPR)", heads, rows, first_figure=2)


def completion_table(experiment: Experiment) -> Table:
    """Completion of the distance field with interval and the nearest copy."""
    heads = ("Model", "Context", "Shapes", "MAE", "MAE, 95 %", "RMSE", "IoU@τ", "Copy: MAE", "Copy: IoU@τ", "Notes")
    rows = []
    for _, r in experiment.completions:
        copy = r.get("nearest_copy")
        head = [name_of(r.get("ckpt", "")), r.get("context_backend", "?"), str(r.get("n_shapes_head_test", "-"))]
        figures = [cell(r["mae"]), _interval(r, "mae", 4), cell(r["rmse"]), cell(r["iou@tau"], 3)]
        rows.append([*head, *figures, _figure(copy, "mae", 4), _figure(copy, "iou@tau"), completion_notes(r)])
    return Table("Completion of the distance field (CPAC)", heads, rows, first_figure=2)


def surface_table(experiment: Experiment) -> Table:
    """Completed surfaces, then those that need no model."""
    heads = ("Model", "Surface", "Chamfer", "F-score", "Normals", "Without a surface", "Notes")
    rows: list[list[str]] = []
    for _, scores in experiment.surfaces:
        for way, mean in scores["mean"].items():
            figures = [cell(mean[name], 3) for name in ("chamfer", "f_score", "normal_consistency")]
            who = name_of(scores["ckpt"]) if way == "model" else "no model"
            rows.append([who, way, *figures, f"{mean['without_surface']} of {len(scores['shapes'])}", ""])
    ordered = sorted(_once(rows), key=lambda row: row[0] == "no model")
    return Table("Completed surfaces", heads, ordered, first_figure=2)


def finetuning_table(experiment: Experiment) -> Table:
    """Fine-tuned classifiers by method and shots."""
    heads = ("Method", "Shots", "Seeds", "Accuracy", "± std", "Balanced", "Notes")
    rows = []
    methods = fewshot_table.rows_of(experiment.finetunings)
    order = list(dict.fromkeys(row.method for row in methods))
    for row in sorted(methods, key=lambda row: (order.index(row.method), row.shots == 0, row.shots)):
        note = f"{row.alarms} of {row.count} no better than one class" if row.alarms else ""
        figures = [cell(row.mean, 3), cell(row.deviation, 3), cell(row.balanced, 3)]
        rows.append([row.method, str(row.shots or "all"), str(row.count), *figures, note])
    return Table("Fine-tuned classifiers", heads, rows, first_figure=1)


def probe_table(experiment: Experiment) -> Table:
    """Classifiers on frozen features by accuracy and balanced accuracy, then what needs no model, or none trained."""
    heads = ("Model", "Features", *(f"{kind}, accuracy" for kind in PROBES), *(f"{kind}, balanced" for kind in PROBES))
    rows: list[list[str]] = []
    for _, r in experiment.classifications:
        shots = f"{r['fewshot_k']} a class" if r["fewshot_k"] else "all of train"
        where = f"{r['backend']}, {r['pooling']}, {shots}"
        for who, kinds in _probed(r):
            collapsed = [
                f"{kind}: nearly all are {kinds[kind]['collapsed_to']}"
                for kind in PROBES
                if kinds[kind]["collapsed_to"]
            ]
            figures = [
                _with_interval(kinds[kind], name) for name in ("accuracy", "balanced_accuracy") for kind in PROBES
            ]
            rows.append([who, where, *figures, "; ".join(collapsed)])
        for who, name in (("the commonest class", "majority"), ("chance", "chance")):
            accuracy, balanced = cell(r[name]["accuracy"], 3), cell(r[name]["balanced_accuracy"], 3)
            rows.append([who, where, *[accuracy] * len(PROBES), *[balanced] * len(PROBES), ""])
    trained = {name_of(r["ckpt"]) for _, r in experiment.classifications}
    ordered = sorted(_once(rows), key=lambda row: (row[0] not in trained, not row[0].endswith(UNTRAINED)))
    return Table("Probes of frozen features", (*heads, "Notes"), ordered, first_figure=2)


def _probed(r: Json) -> list[tuple[str, Json]]:
    """Whose features were probed, and the figures by probe."""
    name = name_of(r["ckpt"])
    beside = [(f"{name}{UNTRAINED}", r.get("random_init")), ("plain distances, no model", r.get("raw_distances"))]
    return [(name, r), *((who, kinds) for who, kinds in beside if kinds)]


def _once(rows: Sequence[list[str]]) -> list[list[str]]:
    """Rows without repetitions."""
    return [list(row) for row in dict.fromkeys(map(tuple, rows))]


def _interval(result: Json, name: str, digits: int = 3) -> str:
    found = (result.get("interval") or {}).get(name)
    return cell(tuple(found), digits) if found else "-"


def _with_interval(result: Json, name: str) -> str:
    return f"{cell(result[name], 3)} ({_interval(result, name)})"


def _figure(baseline: dict[str, Any] | None, name: str, digits: int = 3) -> str:
    return cell(baseline[name], digits) if baseline else "-"


def models(results: Sequence[Json]) -> list[str]:
    """The names of the checkpoints, in order of appearance."""
    return list(dict.fromkeys(name_of(result.get("ckpt", "")) for result in results))
