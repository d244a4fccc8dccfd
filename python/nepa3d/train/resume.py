"""Which checkpoint a pretraining run goes on from, and whether it may."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nepa3d.cli.spellings import Switch
from nepa3d.models.checkpoint import Checkpoint, load_checkpoint
from nepa3d.train.distributed import ProcessGroup


@dataclass(frozen=True, kw_only=True)
class ResumeFlags:
    """Checkpoint to resume an interrupted run from, and weights to start a new one from."""

    resume: str = ""
    """Checkpoint to resume from."""
    auto_resume: Switch = True
    """If resume is empty, resume from last.pt in save_dir, or from the newest checkpoint there if last.pt is damaged or
    missing; start a new run if there is none."""
    init: str = ""
    """Checkpoint, folder of a saved model, or model of the package (furniture-small) whose weights a new run starts
    from, with a new optimizer and schedule; the flags of the model must be its own, but pulled_points may be added. Not
    used when a run is resumed."""

    def __post_init__(self) -> None:
        if self.init and self.resume:
            raise ValueError(f"init and resume must not both be given, got {self.init} and {self.resume}")


def checkpoint_to_resume(folder: Path, flags: ResumeFlags, process_group: ProcessGroup) -> Checkpoint | None:
    """The one asked for, else last.pt of the run's folder, else the newest readable one there; None to start fresh.

    ``ValueError`` where that would overwrite a run, or where what was asked for is not there or cannot be read.
    """
    last = folder / "last.pt"
    path = Path(flags.resume or last)
    if not flags.resume and not flags.auto_resume:
        if kept := [*sorted(folder.glob("ckpt_ep*.pt")), *folder.glob("last.pt")]:
            raise ValueError(f"auto_resume: {kept[-1]} would be overwritten by a fresh run: choose another save_dir")
        return None
    if not path.exists():
        kept = sorted(folder.glob("*.pt"))
        if not flags.auto_resume or (kept and path.resolve() != last.resolve()):
            there = f", but {kept[-1]} would be overwritten by a fresh run" if kept else ""
            raise ValueError(f"resume: there is no {path}{there}")
        newest = _newest_readable(folder, process_group)
        if newest is None and kept:
            raise ValueError(f"{kept[-1]}: cannot be read and would be overwritten, move it away to start fresh")
        if newest is None:
            process_group.say(f"there is no {path}: starting fresh")
        return newest
    try:
        return load_checkpoint(path, process_group.device)
    except ValueError as error:
        if not flags.auto_resume or path.resolve() != last.resolve():
            raise
        process_group.say(f"{error}")
        older = _newest_readable(folder, process_group)
        if older is None:
            raise
        return older


def _newest_readable(folder: Path, process_group: ProcessGroup) -> Checkpoint | None:
    """The last of the checkpoints kept by epoch that can be read."""
    for path in sorted(folder.glob("ckpt_ep*.pt"), key=lambda path: (len(path.name), path.name), reverse=True):
        try:
            return load_checkpoint(path, process_group.device)
        except ValueError as error:
            process_group.say(f"{error}")
    return None


def require_same_model(
    asked: dict[str, Any],
    checkpoint: Checkpoint,
    process_group: ProcessGroup,
    *,
    kept: Container[str],
    harmless: Container[str],
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
        process_group.say(f"other settings than before: {'; '.join(differing.values())}")
