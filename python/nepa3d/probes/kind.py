"""What tables, comparisons and the report have to know of a probe."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nepa3d.probes.drawings import BarChart, Drawing
from nepa3d.probes.judged import Judged
from nepa3d.probes.result import Json, Result
from nepa3d.probes.tables import Table

Named = tuple[str, Result]  # a result and what it is called: its file's name without the suffix


@dataclass(frozen=True)
class Section:
    """A part of the report's page."""

    id: str
    title: str
    said: str


def _nothing(_: object) -> list[object]:
    return []


@dataclass(frozen=True)
class ProbeKind:
    """One kind of probe, a row of ``nepa3d.probes.table.PROBES``. What is left out, it does not have."""

    name: str
    """Heading of its doubts."""
    recognises: Callable[[Json], bool]
    """Whether a JSON object is a result of it."""
    figures: tuple[str, ...]
    """Keys of the model's figures in its files."""
    controls: tuple[str, ...] = ()
    """Keys of its controls."""
    diagnostics: tuple[str, ...] = ()
    """Keys of ``Result.diagnostics``."""
    result: type[Result] = Result
    """Class of its results; one of its own where files are laid out in another way."""
    protocol: tuple[str, ...] = ()
    """Settings that two results must share to be compared."""
    item_figures: tuple[str, ...] = ()
    """Figures that its items hold shape by shape."""
    table: Callable[[Sequence[Named]], Table] | None = None
    """The table of ``nepa3d tables``."""
    section: Section | None = None
    """Where the report shows it; without one it is not shown."""
    report_table: Callable[[Sequence[Named]], Table] | None = None
    """The table of that section."""
    drawings: Callable[[Sequence[Named]], Sequence[Drawing]] = _nothing  # type: ignore[assignment]
    """The pictures of that section."""
    bars: Callable[[Sequence[Named]], Sequence[BarChart]] = _nothing  # type: ignore[assignment]
    """Its charts in the picture of an experiment."""
    doubts: Callable[[Result], Sequence[str]] = _nothing  # type: ignore[assignment]
    """What speaks against a result, a sentence each without its full stop."""
    judged: Callable[[Result], Sequence[Judged]] = _nothing  # type: ignore[assignment]
    """Its figures beside its controls."""
    judged_as: str = ""
    """Heading of its verdict, where that is not ``name``."""
