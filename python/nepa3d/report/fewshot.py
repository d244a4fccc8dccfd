"""The few-shot table from whatever runs are done: mean and population standard deviation over seeds."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate

from nepa3d.execution.files import write_json, write_text
from nepa3d.models.checkpoint import read_tensors

OF_ONE_RUN = ("save_dir", "num_workers", "seed", "fewshot_seed")  # flags in which the runs of one row may differ
RUN = re.compile(r"scan_(?P<method>.+)_k(?P<shots>\d+)_s(?P<seed>\d+)")


@dataclass(frozen=True)
class FewShotRun:
    """One finished fine-tuning."""

    method: str
    shots: int
    seed: int
    accuracy: float
    balanced_accuracy: float | None  # runs of the original do not have it
    alarm: str


@dataclass(frozen=True)
class Row:
    """The runs of one method and number of shots."""

    method: str
    shots: int
    count: int
    mean: float
    deviation: float
    balanced: float | None
    alarms: int


def read_runs(root: Path) -> list[FewShotRun]:
    """The runs ``<root>/scan_<method>_k<K>_s<seed>`` that have a last.pt.

    ``ValueError`` naming one that is damaged, or that has other flags than another of its method and number of shots.
    """
    runs, first = [], dict[tuple[str, str], tuple[Path, dict[str, Any]]]()
    for path in sorted(root.glob("scan_*_k*_s*/last.pt")):
        name = RUN.fullmatch(path.parent.name)
        if name is None:
            continue
        content = read_tensors(path)
        if not isinstance(content, dict) or not isinstance(content.get("test_acc"), float):
            raise ValueError(f"{path}: has no test_acc")
        args = content.get("args", {})
        before, known = first.setdefault((name["method"], name["shots"]), (path, args))
        differing = [
            f"{key} {known[key]} and {args[key]}"
            for key in sorted(known.keys() & args.keys())
            if key not in OF_ONE_RUN and known[key] != args[key]
        ]
        if differing:
            raise ValueError(
                f"{before} and {path}: runs of one row must have the same flags, got {'; '.join(differing)}: "
                "move those of other settings to another folder"
            )
        balanced = content.get("test_balanced_acc")
        alarm = content.get("alarm", "")
        runs.append(
            FewShotRun(name["method"], int(name["shots"]), int(name["seed"]), content["test_acc"], balanced, alarm)
        )
    return runs


def rows_of(runs: Sequence[FewShotRun]) -> list[Row]:
    """A row a method and number of shots; methods in the order of the document, others after them."""
    order = ["scratch", "shapenet_nepa", "shapenet_mesh_udf_nepa", "shapenet_mix_nepa", "shapenet_mix_mae"]
    groups: dict[tuple[str, int], list[FewShotRun]] = {}
    for run in runs:
        groups.setdefault((run.method, run.shots), []).append(run)
    known = {method: place for place, method in enumerate(order)}
    rows = []
    for (method, shots), of in sorted(groups.items(), key=lambda g: (known.get(g[0][0], 99), g[0])):
        accuracies = np.array([run.accuracy for run in of])
        balanced = [run.balanced_accuracy for run in of if run.balanced_accuracy is not None]
        mean_balanced = float(np.mean(balanced)) if len(balanced) == len(of) else None
        alarms = sum(bool(run.alarm) for run in of)
        rows.append(
            Row(method, shots, len(of), float(accuracies.mean()), float(accuracies.std()), mean_balanced, alarms)
        )
    return rows


def markdown(rows: Sequence[Row]) -> str:
    """The table in the document's form, without a deviation where there is one seed, and beside it what makes a figure
    mean little."""
    cells = [
        (
            f"`{row.method}`",
            row.shots,
            row.count,
            f"{row.mean:.4f} +- {row.deviation:.4f}" if row.count > 1 else f"{row.mean:.4f}",
            "" if row.balanced is None else f"{row.balanced:.4f}",
            f"{row.alarms} of {row.count} no better than one class" if row.alarms else "",
        )
        for row in rows
    ]
    heads = ("Method", "K", "n(seed)", "test_acc mean +- std", "balanced", "alarms")
    return str(tabulate(cells, heads, tablefmt="pipe", disable_numparse=True)) + "\n"


def print_tables(runs: Sequence[FewShotRun]) -> None:
    """The table on the terminal."""
    print(markdown(rows_of(runs)) if runs else "no run is finished")


def write_tables(runs: Sequence[FewShotRun], folder: Path) -> None:
    """m1_table.md, .csv and .json; the JSON has the single runs too."""
    rows = rows_of(runs)
    write_text(folder / "m1_table.md", markdown(rows))
    text = io.StringIO(newline="")
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("method", "k", "n", "test_acc_mean", "test_acc_std", "balanced_acc_mean", "alarms"))
    table.writerows((r.method, r.shots, r.count, r.mean, r.deviation, r.balanced, r.alarms) for r in rows)
    write_text(folder / "m1_table.csv", text.getvalue())
    as_json = {"rows": [vars(row) for row in rows], "runs": [vars(run) for run in runs]}
    write_json(folder / "m1_table.json", as_json)
    print(f"wrote {folder / 'm1_table.md'}, .csv and .json")
