"""loss.jsonl and diagnostics.jsonl of a run: a line a step, cut back to the steps that a resumed run has behind it."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nepa3d.execution.files import write_text

NAMES = ("loss.jsonl", "diagnostics.jsonl")


def append_lines(path: Path, lines: Sequence[dict[str, Any]]) -> None:
    """Write lines, each with its ``step``, and sync them."""
    with path.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)
        file.flush()
        os.fsync(file.fileno())


def keep_steps(folder: Path, steps: int) -> None:
    """Cut the logs to the steps before ``steps``, and off half a line that a killed run left.

    ``ValueError`` naming a file that is no such log.
    """
    for path in (folder / name for name in NAMES):
        if not path.exists():
            continue
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
        try:
            kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] < steps]
        except (ValueError, LookupError, TypeError) as error:
            raise ValueError(f"{path}: not a loss log, move it away: {error}") from error
        if kept != lines:
            write_text(path, "".join(kept))


class Curves:
    """TensorBoard's curves of a run; nothing where they are not asked for. ``ValueError`` if it is not installed."""

    def __init__(self, folder: Path, step: int, *, wanted: bool) -> None:
        self.writer = None
        if wanted:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError as error:
                raise ValueError("tensorboard: is not installed: pip install 'nepa3d[tensorboard]'") from error
            self.writer = SummaryWriter(f"{folder / 'tensorboard'}", purge_step=step)

    def add(self, line: dict[str, Any]) -> None:
        """Every number of a line under its name, those of a part under the part's."""
        if self.writer is None:
            return
        for name, value in line.items():
            values = {f"{name}/{key}": v for key, v in value.items()} if isinstance(value, dict) else {name: value}
            for key, number in values.items():
                if key != "step":
                    self.writer.add_scalar(key, number, line["step"])

    def flush(self) -> None:
        """Write what there is."""
        if self.writer is not None:
            self.writer.flush()
