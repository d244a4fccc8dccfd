"""Files of shapes drawn side by side, each under its name."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from nepa3d.execution.files import atomic_open
from nepa3d.inference.index import Neighbour
from nepa3d.inference.shape_files import drawn_points
from nepa3d.report import panels
from nepa3d.shapes.rotation import Up

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = 5
MARKED = "#b8457d"  # colour of the name of a query, or of a wrong class


class Named(NamedTuple):
    """A file to draw, the two lines over it, their colour, and the axis of the shape that points up."""

    path: Path
    head: str
    detail: str
    color: str = panels.INK
    up: Up = "y"


def draw_neighbours(
    file: str | os.PathLike[str],
    query: Path,
    folder: Path,
    found: Sequence[Neighbour],
    *,
    up: Up = "y",
    query_up: Up = "y",
) -> None:
    """Write a PNG with the query first and its neighbours after it, the most alike first, see ``draw_shapes``."""
    named = [Named(query, "query", query.name, MARKED, query_up)]
    for number, near in enumerate(found, 1):
        name = near.id.removeprefix(f"{near.class_name}/")
        named.append(Named(folder / near.path, f"{number}. {near.similarity:.3f} {near.class_name}", name, up=up))
    draw_shapes(file, named)


def draw_shapes(file: str | os.PathLike[str], named: Sequence[Named]) -> None:
    """Write a PNG of shapes in lines of five.

    A shape that cannot be read any more has its reason in its place. ``ValueError`` without matplotlib.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise ValueError("the picture needs matplotlib: pip install 'nepa3d[search]'") from error
    from matplotlib.figure import Figure

    columns = min(COLUMNS, len(named))
    lines = math.ceil(len(named) / columns)
    with matplotlib.rc_context(panels.STYLE):
        figure = Figure(figsize=(2.6 * columns, 2.8 * lines), dpi=120, facecolor="white")
        figure.set_layout_engine("constrained", h_pad=0.12)  # inches, so that no name touches the shape over it
        axes = figure.subplots(lines, columns, squeeze=False).ravel()
        for panel, shape in zip(axes[: len(named)], named, strict=True):
            _draw(panel, shape.path, shape.up)
            lines_over = f"{panels.shortened(shape.head, 30)}\n{panels.shortened(shape.detail, 30)}"
            panel.set_title(lines_over, fontsize=9, fontweight="normal", color=shape.color)
        for panel in axes[len(named) :]:
            panel.set_axis_off()
        with atomic_open(file) as opened:
            figure.savefig(opened, format="png")


def _draw(axes: Axes, path: Path, up: Up) -> None:
    """The surface samples or points of a file, shaded, in which y points up once they are read."""
    axes.set(xlim=(-1.05, 1.05), ylim=(-1.05, 1.05), aspect="equal")
    axes.set_axis_off()
    try:
        points, normals = drawn_points(path, up=up)
    except (ValueError, OSError) as error:
        panels.note(axes, panels.shortened(str(error), 40))
        return
    colors: Any = panels.surface_shades(normals, "y") if normals.any() else panels.depth_shades(points, "y")
    panels.cloud(axes, points, colors, "y", size=panels.point_size(len(points)))
