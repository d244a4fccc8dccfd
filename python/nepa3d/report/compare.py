"""Two results of the same probe on the same shapes: is one better, or are the shapes just others?"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nepa3d.probes.intervals import paired_difference
from nepa3d.probes.result import Json, Result
from nepa3d.probes.table import PROBES, read_result

BEFORE = {"precision": "float32", "questions": "pool"}  # of results that do not say


def read_comparable(path: Path) -> Result:
    """The result in a file; ``ValueError`` if it is of no probe."""
    result = read_result(path)
    if result is None:
        raise ValueError(f"{path}: expected a result of {', '.join(PROBES)}")
    return result


def compare(first: Result, second: Result) -> list[Json]:
    """For each figure the mean difference second - first over the shapes both have, with a paired bootstrap interval.

    Scans of one object are resampled together where the results are grouped so.
    ``ValueError`` where they are not of one protocol, or share no shape.
    """
    _require_one_protocol(first, second)
    items = [first.items, second.items]
    figures = [name for name in PROBES[first.probe].item_figures if all(name in found for found in items)]
    if not figures:
        raise ValueError("items: a result has no values shape by shape; make it again with --out_json")
    places = [{path: place for place, path in enumerate(found["path"])} for found in items]
    shared = [path for path in places[0] if path in places[1]]
    if not shared:
        raise ValueError("items: the results share no shape")
    rows = [[found[path] for path in shared] for found in places]
    grouped = first.settings.get("group_by") == "object"
    if grouped and not all("object" in found for found in items):
        raise ValueError("items: a result does not say whose scans its files are; make it again with --out_json")
    names = items[0]["object" if grouped else "path"]
    objects = [names[row] for row in rows[0]]
    found = []
    for figure in figures:
        a, b = (np.array(of[figure], np.float64)[taken] for of, taken in zip(items, rows, strict=True))
        means = {"first": float(a.mean()), "second": float(b.mean())}
        found.append({"figure": figure, "shapes": len(shared), **means, **paired_difference(a, b, objects)})
    return found


def _require_one_protocol(first: Result, second: Result) -> None:
    mine, theirs = ({"probe": result.probe, **BEFORE, **result.settings} for result in (first, second))
    names = ("probe", *PROBES[first.probe].protocol)
    told = [f"{name} {mine.get(name)} and {theirs.get(name)}" for name in names if mine.get(name) != theirs.get(name)]
    if first.probe != second.probe:
        told = told[:1]  # what else differs is of no interest
    if told:
        raise ValueError(f"the results are of different protocols: {'; '.join(told)}")
