"""What a probe found: figures beside those of its controls, and what they are of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

Json = dict[str, Any]
Interval = tuple[float, float]
AnyResult = TypeVar("AnyResult", bound="Result")


@dataclass(frozen=True)
class Result:
    """The result of one probe. Its file is one flat JSON object, ``to_json``."""

    probe: str
    """Name of the probe in ``nepa3d.probes.table.PROBES``."""
    figures: Json
    """Of the model, by name; a probe of several parts (classifiers) has a dict for each."""
    controls: dict[str, Json | None] = field(default_factory=dict)
    """The same figures of each control; None where it was not measured."""
    intervals: dict[str, Interval] = field(default_factory=dict)
    """The middle 95 % of the model's figures over resamples of shapes."""
    by_seed: list[Json] = field(default_factory=list)
    """The figures of each seed."""
    settings: Json = field(default_factory=dict)
    """What was measured, of what, and how."""
    diagnostics: Json = field(default_factory=dict)
    """What says whether the figures mean anything."""
    items: dict[str, Any] = field(default_factory=dict)
    """Values shape by shape, lists in the order of those in ``path``."""
    failed: dict[str, str] = field(default_factory=dict)
    """Shapes that could not be read, and why; no figure is of them."""
    alarms: list[str] | None = None
    """Sentences on what makes the figures mean little; None where the probe's file has none."""

    @property
    def model(self) -> str:
        """What the model is called: the name of its checkpoint's folder."""
        return name_of(self.settings.get("ckpt", ""))

    def with_settings(self: AnyResult, more: Mapping[str, Any]) -> AnyResult:
        """The same with more settings."""
        return replace(self, settings={**self.settings, **more})

    def to_json(self) -> Json:
        """As one object of plain values."""
        parts = {"interval": self.intervals, "by_seed": self.by_seed, "items": self.items}
        alarms = {} if self.alarms is None else {"alarms": self.alarms}
        return {
            "probe": self.probe,
            **self.figures,
            **{name: part for name, part in parts.items() if part},
            **self.settings,
            **self.diagnostics,
            **self.controls,
            "failed": failures(self.failed),
            **alarms,
        }

    @classmethod
    def from_json(
        cls: type[AnyResult],
        content: Json,
        probe: str,
        figures: Sequence[str],
        controls: Sequence[str] = (),
        diagnostics: Sequence[str] = (),
    ) -> AnyResult:
        """The result of a file, whose keys are named; what else it holds are settings, what it lacks is empty."""
        known = {*figures, *controls, *diagnostics, "probe", "interval", "by_seed", "items", "failed", "alarms"}

        def named(names: Sequence[str]) -> Json:
            return {name: content[name] for name in names if name in content}

        return cls(
            probe=probe,
            figures=named(figures),
            controls=named(controls),
            intervals={name: (low, high) for name, (low, high) in (content.get("interval") or {}).items()},
            by_seed=content.get("by_seed", []),
            settings={name: value for name, value in content.items() if name not in known},
            diagnostics=named(diagnostics),
            items=content.get("items", {}),
            failed={failure["path"]: failure["reason"] for failure in content.get("failed", [])},
            alarms=content.get("alarms"),
        )


def failures(failed: Mapping[str, str]) -> list[dict[str, str]]:
    """Shapes that could not be read, as result files list them."""
    return [{"path": path, "reason": reason} for path, reason in failed.items()]


def first_failure(failed: Mapping[str, str], names: Iterable[str]) -> str:
    """The first of the shapes ``names`` that could not be read, and why; there must be one."""
    name = next(name for name in names if name in failed)
    return f"{name}: {failed[name]}"


def name_of(ckpt: str) -> str:
    """How a checkpoint is called: its folder's name."""
    return Path(ckpt).parent.name or Path(ckpt).stem
