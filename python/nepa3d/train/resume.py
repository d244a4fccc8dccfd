"""Which checkpoint a pretraining run goes on from, and whether it may."""

from __future__ import annotations

from collections.abc import Container
from pathlib import Path
from typing import Any

from nepa3d.models.checkpoint import Checkpoint, load_checkpoint
from nepa3d.train.distributed import World


def checkpoint_to_resume(folder: Path, resume: str, auto_resume: bool, processes: World) -> Checkpoint | None:
    """The one asked for, else last.pt of the run's folder, else the newest readable one there; None to start fresh.

    ``ValueError`` where that would overwrite a run, or where what was asked for is not there or cannot be read.
    """
    last = folder / "last.pt"
    path = Path(resume or last)
    if not resume and not auto_resume:
        return None
    if not path.exists():
        kept = sorted(folder.glob("*.pt"))
        if not auto_resume or (kept and path.resolve() != last.resolve()):
            there = f", but {kept[-1]} would be overwritten by a fresh run" if kept else ""
            raise ValueError(f"resume: there is no {path}{there}")
        newest = _newest_readable(folder, processes)
        if newest is None and kept:
            raise ValueError(f"{kept[-1]}: cannot be read and would be overwritten, move it away to start fresh")
        if newest is None:
            processes.say(f"there is no {path}: starting fresh")
        return newest
    try:
        return load_checkpoint(path, processes.device)
    except ValueError as error:
        if not auto_resume or path.resolve() != last.resolve():
            raise
        processes.say(f"{error}")
        older = _newest_readable(folder, processes)
        if older is None:
            raise
        return older


def _newest_readable(folder: Path, processes: World) -> Checkpoint | None:
    """The last of the checkpoints kept by epoch that can be read."""
    for path in sorted(folder.glob("ckpt_ep*.pt"), key=lambda path: (len(path.name), path.name), reverse=True):
        try:
            return load_checkpoint(path, processes.device)
        except ValueError as error:
            processes.say(f"{error}")
    return None


def require_same_model(
    asked: dict[str, Any], checkpoint: Checkpoint, processes: World, *, kept: Container[str], harmless: Container[str]
) -> None:
    """Refuse to go on with another model or objective; say which other settings are new."""
    differing = {
        name: f"{name} {before} -> {asked[name]}"
        for name, before in checkpoint.args.items()
        if name in asked and name not in harmless and before != asked[name]
    }
    of_model = [change for name, change in differing.items() if name in kept]
    if of_model:
        raise ValueError(f"{checkpoint.path}: is of another model ({'; '.join(of_model)})")
    if differing:
        processes.say(f"other settings than before: {'; '.join(differing.values())}")
