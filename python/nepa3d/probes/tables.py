"""Tables of text cells, and the cells and notes that the probes' tables share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tabulate import tabulate

from nepa3d.probes.intervals import cell
from nepa3d.probes.result import Json, Result

Row = list[str]


@dataclass(frozen=True)
class Table:
    """A titled table of text cells; the last column is a note."""

    title: str
    heads: tuple[str, ...]
    rows: list[Row]
    first_figure: int  # column from which cells are numbers, up to the note

    def text(self, style: str) -> str:
        """The table in a ``tabulate`` style."""
        n_notes = 1
        n_figures = len(self.heads) - self.first_figure - n_notes
        align = ("left",) * self.first_figure + ("right",) * n_figures + ("left",) * n_notes
        return tabulate(self.rows, self.heads, tablefmt=style, colalign=align, disable_numparse=True)


def once(rows: Sequence[Row]) -> list[Row]:
    """Rows without repetitions."""
    return [list(row) for row in dict.fromkeys(map(tuple, rows))]


def figure_cell(figures: Json | None, name: str, digits: int = 3) -> str:
    """A figure of a control, "-" where there is no such control."""
    return cell(figures[name], digits) if figures else "-"


def interval_cell(intervals: Mapping[str, Sequence[float]], name: str, digits: int = 3) -> str:
    """The interval of a figure, "-" where there is none."""
    found = intervals.get(name)
    return cell((found[0], found[1]), digits) if found else "-"


def unusual(result: Result, usual: Mapping[str, str]) -> list[str]:
    """A note on each setting that is not as usual."""
    settings = result.settings
    return [f"{name} {settings[name]}" for name, value in usual.items() if settings.get(name, value) != value]


def failures_note(result: Result) -> list[str]:
    """How many shapes could not be read, if any."""
    return [f"{len(result.failed)} shapes failed"] if result.failed else []


def unmeasured(result: Result) -> list[str]:
    """A line on each control that is missing, and why."""
    return [f"no {name}: {why}" for name, why in result.diagnostics.get("missing_controls", {}).items()]
