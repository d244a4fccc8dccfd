"""Whether a model's figure beats its controls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from nepa3d.probes.intervals import cell

Outcome = Literal["surely", "unsure", "no", "missing"]


@dataclass(frozen=True)
class Compared:
    """A result beside one control."""

    control: str
    value: float | None  # the control's figure; None where the result lacks the control
    outcome: Outcome  # better with 95 % confidence, better, no better
    digits: int = 3

    def __str__(self) -> str:
        if self.value is None:
            return f"{self.control}: missing from the result"
        said = {"surely": "surely better than", "unsure": "not surely better than", "no": "no better than"}
        return f"{said[self.outcome]} {self.control} ({cell(self.value, self.digits)})"


@dataclass(frozen=True)
class Judged:
    """One figure of a result, and what the controls say of it."""

    model: str
    setting: str
    figure: str
    compared: tuple[Compared, ...]
    flaw: str = ""  # for which it counts as no better, whatever its figure

    @property
    def beats(self) -> Outcome:
        """The worst of the outcomes."""
        outcomes = {compared.outcome for compared in self.compared}
        order: tuple[Outcome, ...] = ("no", "unsure", "missing", "surely")
        return "no" if self.flaw else next(outcome for outcome in order if outcome in outcomes)

    def __str__(self) -> str:
        said = ", ".join([*map(str, self.compared), *filter(None, [self.flaw])])
        return f"{self.model}, {self.setting}: {self.figure}: {said}"


def outcome(better_by: float, at_least: float | None) -> Outcome:
    """``at_least``: the lower end of the interval of how much better it is; None where that is not known."""
    if better_by <= 0:
        return "no"
    return "surely" if at_least is not None and at_least > 0 else "unsure"


def figure_text(value: float, interval: Sequence[float] | None, digits: int = 3) -> str:
    """A figure and its interval."""
    if interval is None:
        return f"{cell(value, digits)} (no interval)"
    low, high = interval
    return f"{cell(value, digits)} ({cell((low, high), digits)})"
