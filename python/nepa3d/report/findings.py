"""What makes one distrust a figure of an experiment, a sentence each."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from nepa3d.probes.intervals import cell
from nepa3d.probes.kind import Named
from nepa3d.probes.table import PROBES
from nepa3d.probes.tables import Table
from nepa3d.report import fewshot
from nepa3d.report.experiment import Experiment
from nepa3d.train.diagnostics import Diagnosis


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
        **{
            kind.name: [doubt for tag, result in experiment.of(name) for doubt in _named(tag, kind.doubts(result))]
            for name, kind in PROBES.items()
        },
        "Fine-tuning": [d for path, r in experiment.finetuned for d in _named(path.parent.name, [r.get("alarm")])],
    }
    return {part: sentences for part, sentences in found.items() if sentences}


def _named(name: str, said: Sequence[str | None]) -> list[str]:
    return [f"{name}: {sentence}." for sentence in said if sentence]


def finetuning_table(experiment: Experiment) -> Table:
    """Fine-tuned classifiers by method and shots."""
    heads = ("Method", "Shots", "Seeds", "Accuracy", "± std", "Balanced", "Notes")
    rows = []
    methods = fewshot.rows_of(experiment.finetunings)
    order = list(dict.fromkeys(row.method for row in methods))
    for row in sorted(methods, key=lambda row: (order.index(row.method), row.shots == 0, row.shots)):
        note = f"{row.alarms} of {row.count} no better than one class" if row.alarms else ""
        figures = [cell(row.mean, 3), cell(row.deviation, 3), cell(row.balanced, 3)]
        rows.append([row.method, str(row.shots or "all"), str(row.count), *figures, note])
    return Table("Fine-tuned classifiers", heads, rows, first_figure=1)


def models(results: Sequence[Named]) -> list[str]:
    """The names of the checkpoints, in order of appearance."""
    return list(dict.fromkeys(result.model for _, result in results))
