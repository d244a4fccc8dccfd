"""What a probe has drawn, as plain data: ``nepa3d.report`` makes the pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from nepa3d.probes.result import Interval, Json, Result


@dataclass(frozen=True)
class Dot:
    """One row of a dot plot: a figure of a model, its interval, and what it is compared with."""

    label: str
    model: str
    value: float
    interval: Interval | None
    references: Mapping[str, float]


@dataclass(frozen=True)
class Dots:
    """Figures with their intervals, a row a result."""

    name: str
    """Of the file."""
    caption: str
    axis: str
    rows: Sequence[Dot]


@dataclass(frozen=True)
class EmbeddingMap:
    """Embeddings (N, 2) of the shapes at ``paths`` in a plane."""

    name: str
    caption: str
    model: str
    paths: Sequence[str]
    plane: NDArray[np.float64]


@dataclass(frozen=True)
class Gallery:
    """Queries and what was found for each: ``top`` are numbers of ``paths``, ``ranks`` the right item's places."""

    name: str
    caption: str
    model: str
    paths: Sequence[str]
    top: Sequence[Sequence[int]]
    ranks: Sequence[float]
    views: tuple[str, str]


Drawing: TypeAlias = Dots | EmbeddingMap | Gallery


@dataclass(frozen=True)
class Bar:
    """One row of a bar chart: values of a checkpoint, each with what it is compared with."""

    label: str
    """Name of the result; empty where another chart beside it has it."""
    detail: str
    ckpt: str
    values: tuple[float | None, ...]
    references: tuple[float | None, ...]


@dataclass(frozen=True)
class BarChart:
    """Figures of several results as bars."""

    title: str
    names: tuple[str, ...]
    """Of the bars of a row."""
    reference: str
    axis: str
    rows: Sequence[Bar]
    width: float = 1.0
    """Beside other charts."""


def dot(label: str, result: Result, figure: str, references: Mapping[str, Json | None]) -> Dot:
    """The row of one figure, beside that of the controls there are."""
    known = {name: control[figure] for name, control in references.items() if control}
    return Dot(label, result.model, result.figures[figure], result.intervals.get(figure), known)
