"""A query and the shapes that were found for it, drawn side by side."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nepa3d.execution.files import atomic_open
from nepa3d.inference.index import Neighbour
from nepa3d.inference.shape_files import drawn_points
from nepa3d.report import panels

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = 5
QUERY = "#b8457d"  # colour of the query's name


def draw_neighbours(
    file: str | os.PathLike[str], query: Path, folder: Path, found: Sequence[Neighbour], *, up: str = "y"
) -> None:
    """Write a PNG with the query first and its neighbours after it, the most alike first.

    A shape of ``folder`` that cannot be read any more has its reason in its place. ``ValueError`` without matplotlib.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise ValueError("the picture needs matplotlib: pip install 'nepa3d[search]'") from error
    from matplotlib.figure import Figure

    columns = min(COLUMNS, len(found) + 1)
    lines = math.ceil((len(found) + 1) / columns)
    with matplotlib.rc_context(panels.STYLE):
        figure = Figure(figsize=(2.6 * columns, 2.8 * lines), dpi=120, facecolor="white")
        figure.set_layout_engine("constrained", h_pad=0.12)  # inches, so that no name touches the shape over it
        axes = figure.subplots(lines, columns, squeeze=False).ravel()
        _draw(axes[0], query, up)
        _name(axes[0], "query", query.name, QUERY)
        for number, (panel, near) in enumerate(zip(axes[1:], found, strict=False), 1):
            _draw(panel, folder / near.path, up)
            name = near.id.removeprefix(f"{near.class_name}/")
            _name(panel, f"{number}. {near.similarity:.3f} {near.class_name}", name, panels.INK)
        for panel in axes[len(found) + 1 :]:
            panel.set_axis_off()
        with atomic_open(file) as opened:
            figure.savefig(opened, format="png")


def _draw(axes: Axes, path: Path, up: str) -> None:
    """The surface samples or points of a file, shaded."""
    axes.set(xlim=(-1.05, 1.05), ylim=(-1.05, 1.05), aspect="equal")
    axes.set_axis_off()
    try:
        points, normals = drawn_points(path)
    except (ValueError, OSError) as error:
        panels.note(axes, panels.shortened(str(error), 40))
        return
    colors: Any = panels.surface_shades(normals, up) if normals.any() else panels.depth_shades(points, up)
    panels.cloud(axes, points, colors, up, size=panels.point_size(len(points)))


def _name(axes: Axes, head: str, detail: str, color: str) -> None:
    axes.set_title(
        f"{panels.shortened(head, 30)}\n{panels.shortened(detail, 30)}", fontsize=9, fontweight="normal", color=color
    )
