"""What the commands left in the folders of an experiment, found by what the files hold."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from nepa3d.analysis.fewshot_table import FewShotRun, read_runs
from nepa3d.analysis.tables import probe_of
from nepa3d.cli import configuration

Json = dict[str, Any]


@dataclass
class Experiment:
    """Everything to report, each part in the order of its paths."""

    folders: tuple[Path, ...]
    pretrainings: list[Path] = field(default_factory=list)  # folders with a loss.jsonl
    retrievals: list[tuple[Path, Json]] = field(default_factory=list)
    completions: list[tuple[Path, Json]] = field(default_factory=list)
    classifications: list[tuple[Path, Json]] = field(default_factory=list)
    surfaces: list[tuple[Path, Json]] = field(default_factory=list)  # their scores.json
    finetunings: list[FewShotRun] = field(default_factory=list)
    finetuned: list[tuple[Path, Json]] = field(default_factory=list)  # their result.json
    configurations: list[tuple[Path, Json]] = field(default_factory=list)

    @property
    def results(self) -> list[Json]:
        """All results that name the shapes they are of."""
        return [result for _, result in (*self.retrievals, *self.completions)]


def read_experiment(folders: Sequence[Path]) -> Experiment:
    """Read what is below ``folders``; ``ValueError`` if one is none, or if there is nothing to report."""
    found = Experiment(tuple(folders))
    for folder in folders:
        if not folder.is_dir():
            raise ValueError(f"run_dir: {folder} is not a folder")
        for path in files_below(folder):
            _take(found, path)
    for root in sorted({path.parent.parent for path, _ in found.finetuned}):
        found.finetunings += read_runs(root)
    if not (found.pretrainings or found.results or found.classifications or found.surfaces or found.finetunings):
        named = ", ".join(f"{folder}" for folder in folders)
        raise ValueError(f"run_dir: no losses and no results below {named}, expected what pretrain and probes write")
    return found


def files_below(folder: Path) -> Iterator[Path]:
    """Every file below, in order of path; folders of cached shapes and hidden ones are left out."""
    for at, inner, names in os.walk(folder):
        if any(name.endswith(".npz") for name in names):
            inner.clear()
            continue
        inner[:] = sorted(name for name in inner if not name.startswith((".", "_")))
        yield from (Path(at, name) for name in sorted(names))


def _take(found: Experiment, path: Path) -> None:
    if path.name == "loss.jsonl":
        found.pretrainings.append(path.parent)
    elif path.name.endswith(configuration.SUFFIX):
        content = yaml.safe_load(path.read_text("utf-8"))
        if isinstance(content, dict) and isinstance(content.get("flags"), dict):
            found.configurations.append((path, content))
    elif path.suffix == ".json":
        _take_json(found, path)


def _take_json(found: Experiment, path: Path) -> None:
    try:
        content = json.loads(path.read_text("utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError):
        print(f"left out {path}: it is no JSON", file=sys.stderr)
        return
    if not isinstance(content, dict):
        return
    kind = probe_of(content)
    if kind == "ucpr":
        found.retrievals.append((path, content))
    elif kind == "cpac":
        found.completions.append((path, content))
    elif content.get("probe") == "classification":
        found.classifications.append((path, content))
    elif path.name == "scores.json" and {"mean", "shapes", "ckpt"} <= content.keys():
        found.surfaces.append((path, content))
    elif path.name == "result.json" and "test_acc" in content:
        found.finetuned.append((path, content))
