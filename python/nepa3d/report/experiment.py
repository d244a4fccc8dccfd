"""What the commands left in the folders of an experiment, found by what the files hold."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nepa3d.cli import configuration
from nepa3d.execution.yaml_file import read_yaml
from nepa3d.probes.kind import Named
from nepa3d.probes.result import Json, Result
from nepa3d.probes.table import result_of
from nepa3d.report.fewshot import FewShotRun, read_runs


@dataclass
class Experiment:
    """Everything to report, each part in the order of its paths."""

    folders: tuple[Path, ...]
    pretrainings: list[Path] = field(default_factory=list)  # folders with a loss.jsonl
    results: dict[str, list[tuple[Path, Result]]] = field(default_factory=dict)  # by the probe's name
    finetunings: list[FewShotRun] = field(default_factory=list)
    finetuned: list[tuple[Path, Json]] = field(default_factory=list)  # their result.json
    configurations: list[tuple[Path, Json]] = field(default_factory=list)

    def of(self, probe: str) -> list[Named]:
        """The results of a probe, each with the name of its file."""
        return [(path.stem, result) for path, result in self.results.get(probe, [])]


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
    if not (found.pretrainings or found.results or found.finetunings):
        named = ", ".join(f"{folder}" for folder in folders)
        raise ValueError(f"run_dir: no losses and no results below {named}, expected what pretrain and probes write")
    return found


def files_below(folder: Path) -> Iterator[Path]:
    """Every file below but arrays (``.npz``), in order of path; hidden folders are left out."""
    for at, inner, names in os.walk(folder):
        inner[:] = sorted(name for name in inner if not name.startswith((".", "_")))
        yield from (Path(at, name) for name in sorted(names) if not name.endswith(".npz"))


def _take(found: Experiment, path: Path) -> None:
    if path.name == "loss.jsonl":
        found.pretrainings.append(path.parent)
    elif path.name.endswith(configuration.SUFFIX):
        content = read_yaml(path)
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
    result = result_of(content)
    if result is not None:
        found.results.setdefault(result.probe, []).append((path, result))
    elif path.name == "result.json" and "test_acc" in content:
        found.finetuned.append((path, content))
