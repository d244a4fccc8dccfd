"""The pictures of the report, each a matplotlib figure by itself; and how one becomes part of a page or a PNG.

Letters: N points, T tokens.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nepa3d.execution.files import atomic_open
from nepa3d.models.attention_maps import AttentionMap
from nepa3d.probes.drawings import Dot
from nepa3d.probes.ray_quality import RayAgreement
from nepa3d.report import panels
from nepa3d.report.fewshot import Row
from nepa3d.report.panels import FAINT, INK, OTHER, PALETTE
from nepa3d.shapes.cache import ShapeCache
from nepa3d.train.diagnostics import Diagnosis

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Text
    from matplotlib.transforms import Bbox

Array = NDArray[Any]

RIGHT = PALETTE[2]  # the frame of the right item
COLOURED_CLASSES = len(PALETTE)
GALLERY_ROWS = 6
THUMBNAIL_POINTS = 1500  # of a mesh or a grid; more take longer to draw and cannot be told apart
SHOWN_TOKENS = 160  # of a mask, so that its single edges can be seen
MAP_CELLS = 256  # of an attention map's side
CHANCE, MARKERS = "|", "Ds^vP*"  # of what results are compared with
WIDE = 10.4  # inches, of what has a row of the page to itself
FULL_NAME = "full name: "  # before the name in the identity of a text that was cut
PIXELS_A_POINT = 1.12  # of a page, so that letters are of one size


def colors_of(names: Sequence[str]) -> dict[str, str]:
    """A colour a model, the same in every figure."""
    return {name: PALETTE[i % len(PALETTE)] for i, name in enumerate(dict.fromkeys(names))}


def losses(curves: Mapping[str, tuple[Array, Array]], colors: Mapping[str, str]) -> Figure:
    """Training loss by step of every run."""
    figure, axes = _figure(7.2, 4.2)
    panels.loss_curves(axes, curves, colors)
    return figure


def diagnostics(runs: Mapping[str, Sequence[Diagnosis]], colors: Mapping[str, str]) -> Figure:
    """What says whether the loss means anything, by step."""
    shown = {
        "loss": ("loss; dashed: from position and type", "position_type_loss"),
        "gap": ("gap: cosine to next - to previous", None),
        "spread": ("spread: 1 - cosine of two shapes", None),
        "effective_rank": ("effective rank of predictions", None),
    }
    figure, grid = _figure(7.2, 5.6, rows=2, columns=2)
    for axes, (name, (title, beside)) in zip(grid.flat, shown.items(), strict=True):
        for run, diagnoses in runs.items():
            step = [diagnosis.step for diagnosis in diagnoses]
            axes.plot(step, [getattr(d, name) for d in diagnoses], color=colors[run], lw=2, marker=".", label=run)
            if beside:
                axes.plot(step, [getattr(d, beside) for d in diagnoses], color=colors[run], lw=1.4, ls="--")
        axes.set_title(title, fontsize=9.5, loc="left", fontweight="normal")
        axes.grid(axis="y", color=FAINT, lw=0.6)
        if name in ("loss", "spread"):
            axes.set_yscale("log")
    for axes in grid[-1]:
        axes.set_xlabel("optimiser step")
    if len(runs) > 1:
        grid[0, 0].legend(fontsize=9)
    return figure


def dots(rows: Sequence[Dot], label: str, colors: Mapping[str, str]) -> Figure:
    """A figure with its interval a row, and what it is compared with as marks of their own."""
    figure, axes = _figure(WIDE, 1.3 + 0.42 * len(rows))
    named: set[str] = set()
    others = dict.fromkeys(name for row in rows for name in row.references if name != "chance")
    markers = {name: MARKERS[place % len(MARKERS)] for place, name in enumerate(others)}
    for y, row in enumerate(rows):
        color = colors[row.model]
        if row.interval:
            axes.plot(row.interval, [y, y], color=color, lw=6, alpha=0.3, solid_capstyle="butt")
        axes.plot(row.value, y, "o", color=color, ms=8)
        for name, value in row.references.items():
            marker = CHANCE if name == "chance" else markers[name]
            text = {} if name in named else {"label": name}
            axes.plot(value, y, marker, color=INK, ms=14 if marker == CHANCE else 6, mfc="none", mew=1.6, ls="", **text)
            named.add(name)
    axes.set_yticks(range(len(rows)), [_cut(row.label, 44) for row in rows])
    for tick, row in zip(axes.get_yticklabels(), rows, strict=True):
        _keep(tick, row.label)
    axes.set(ylim=(len(rows) - 0.4, -0.6), xlabel=label)
    axes.set_xlim(left=0)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color=FAINT, lw=0.6)
    axes.set_axisbelow(True)
    if named:
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=len(named), fontsize=10, handletextpad=0.2)
    return figure


def fewshot(rows: Sequence[Row], chance: float | None, majority: float | None) -> Figure:
    """Accuracy by the number of training shapes a class; all of them at the right end."""
    figure, axes = _figure(WIDE, 4.2)
    shots = sorted({row.shots for row in rows if row.shots})
    ticks = [*shots, *([0] if any(row.shots == 0 for row in rows) else [])]
    place = {count: number for number, count in enumerate(ticks)}
    colors = colors_of([row.method for row in rows])
    for number, method in enumerate(colors):
        own = sorted((place[row.shots], row.mean, row.deviation) for row in rows if row.method == method)
        at, mean, deviation = (np.array(column, float) for column in zip(*own, strict=True))
        at = at + 0.04 * (number - (len(colors) - 1) / 2)  # equal figures stay visible
        axes.errorbar(at, mean, deviation, color=colors[method], lw=2, marker="o", ms=6, capsize=3, label=method)
    for value, name, style in ((chance, "chance", ":"), (majority, "the commonest class", "--")):
        if value is not None:
            axes.axhline(value, color=INK, lw=1.2, ls=style, label=name)
    axes.set_xticks(range(len(ticks)), [str(count or "all") for count in ticks])
    axes.set(xlabel="training shapes a class", ylabel="test accuracy", ylim=(0, None), xlim=(-0.5, len(ticks) - 0.5))
    axes.grid(axis="y", color=FAINT, lw=0.6)
    axes.legend(loc="upper left", bbox_to_anchor=(-0.02, -0.17), fontsize=10, ncols=3)
    return figure


def gallery(
    paths: Sequence[str], top: Sequence[Sequence[int]], ranks: Sequence[float], views: tuple[str, str], up: str
) -> Figure:
    """Six queries in their view, the shapes found for each in the other view, best first, and the right one, framed.

    ``top`` has the numbers of the shapes found for each of ``paths``, and ``ranks`` where the right one came.
    """
    chosen = np.unique(np.linspace(0, len(paths) - 1, min(GALLERY_ROWS, len(paths))).round().astype(int))
    columns = 2 + max(len(top[query]) for query in chosen)
    figure, grid = _figure(1.5 * columns, 1.66 * len(chosen) + 0.4, rows=len(chosen), columns=columns)
    grid = np.atleast_2d(grid)
    for row, query in zip(grid, chosen, strict=True):
        thumbnail(row[0], paths[query], views[0], up)
        for axes, item in zip(row[1:-1], top[query], strict=False):
            thumbnail(axes, paths[item], views[1], up)
            if item == query:
                _frame(axes, RIGHT, 3.0)
        for axes in row[1 + len(top[query]) : -1]:
            axes.set_axis_off()
        thumbnail(row[-1], paths[query], views[1], up)
        row[-1].set_xlabel(f"rank {ranks[query]:.3g} of {len(paths)}", fontsize=9)
        _frame(row[-1], RIGHT, 3.0)
    titles = ["query", *(f"{place}." for place in range(1, columns - 1)), "the right one"]
    for axes, title in zip(grid[0], titles, strict=True):
        axes.set_title(title, fontsize=10)
    return figure


def thumbnail(axes: Axes, path: str, view: str, up: str) -> None:
    """One shape as a view has it: shaded samples of a mesh, a few points of a cloud, cells near a grid's surface."""
    with ShapeCache(path) as cache:
        points, normals = cache["pc_xyz"], cache["pc_n"]
        grid = cache["udf_grid"].astype(np.float32) if view == "udfgrid" else None
    if grid is not None:
        cell = 2 / len(grid)
        flat = np.random.default_rng(0).permutation(np.flatnonzero(grid <= cell))[:THUMBNAIL_POINTS]
        near = np.unravel_index(flat, grid.shape)
        slope = np.moveaxis(np.array(np.gradient(grid)), 0, -1)[near]
        slope /= np.linalg.norm(slope, axis=1, keepdims=True) + 1e-9
        points = (np.stack(near, 1) + 0.5) * cell - 1
        panels.cloud(axes, points, panels.surface_shades(slope, up), up, size=7)
    elif view.startswith("pointcloud"):
        few = points[:: max(1, len(points) // 400)]
        panels.cloud(axes, few, panels.depth_shades(few, up), up, size=5)
    else:
        points, normals = points[:THUMBNAIL_POINTS], normals[:THUMBNAIL_POINTS]  # they are in random order
        panels.cloud(axes, points, panels.surface_shades(normals, up), up, size=7)
    axes.set(xlim=(-1.15, 1.15), ylim=(-1.15, 1.15), aspect="equal", xticks=[], yticks=[])
    name = Path(path).stem.replace("_", " ")
    _keep(axes.set_xlabel(_cut(name, 22), fontsize=7.5, color=OTHER), name)
    _frame(axes, FAINT, 0.8)


def embedding_map(paths: Sequence[str], plane: Array, title: str) -> Figure:
    """Query embeddings (N, 2) on their first two principal axes, coloured by class."""
    classes = [Path(path).parent.name for path in paths]
    often = sorted(dict.fromkeys(classes), key=lambda name: (-classes.count(name), name))[:COLOURED_CLASSES]
    figure, axes = _figure(5.2, 4.8)
    for name, color in [*([("others", OTHER)] if set(classes) - {*often} else []), *zip(often, PALETTE, strict=False)]:
        own = np.array([known == name or (name == "others" and known not in often) for known in classes])
        axes.scatter(*plane[own].T, s=26, color=color, label=name, alpha=0.6 if name == "others" else 1, linewidths=0)
    axes.set(xlabel="first principal axis", ylabel="second", title=title)
    axes.legend(loc="upper left", bbox_to_anchor=(-0.02, -0.15), fontsize=9, ncols=3, handletextpad=0.1)
    axes.ticklabel_format(scilimits=(-2, 3))
    return figure


def masks(edges: Mapping[str, Array], near: Mapping[str, str]) -> Figure:
    """Which edges (T, T) remain of causal attention in one training step of each run."""
    from matplotlib.colors import ListedColormap

    figure, grid = _figure(3.6 * len(edges), 4.1, rows=1, columns=len(edges))
    for axes, (name, bits) in zip(np.atleast_1d(grid).flat, edges.items(), strict=True):
        few = bits[:SHOWN_TOKENS, :SHOWN_TOKENS].astype(int)
        few = few + np.tri(len(few), dtype=int)  # 0 later, 1 dropped, 2 kept
        colors = ListedColormap(["#00000000", "#e0782f66", PALETTE[0]])
        axes.imshow(few, cmap=colors, vmin=0, vmax=2, interpolation="nearest")
        axes.set_title(name, fontsize=10)
        axes.set(xlabel=f"attended token\n{near[name]}", ylabel="token")
    return figure


def attention(maps: Mapping[str, Sequence[AttentionMap]]) -> Figure:
    """Mean weights of the first, middle and last layer of each model, and how far back each head looks."""
    from matplotlib.colors import LogNorm

    figure, grid = _figure(WIDE, 2.9 * len(maps) + 0.3, rows=len(maps), columns=4)
    for row, (name, layers) in zip(np.atleast_2d(grid), maps.items(), strict=True):
        for axes, number in zip(row, (0, (len(layers) - 1) // 2, len(layers) - 1), strict=False):
            length = len(layers[number].weights)
            weights = _coarse(layers[number].weights) * length  # 1: as much as an even look at all tokens
            weights[weights == 0] = np.nan
            norm = LogNorm(1e-1, 1e1)
            image = axes.imshow(
                weights, cmap="viridis", norm=norm, interpolation="nearest", extent=(0, length, length, 0)
            )
            axes.set_title(f"{name}: layer {number + 1} of {len(layers)}", fontsize=10)
            axes.set(xlabel="attended token")
        row[0].set_ylabel("token")
        reach = row[3]
        for number, layer in enumerate(layers, 1):
            reach.scatter(np.full(len(layer.reach), number), layer.reach, s=22, color=PALETTE[0], linewidths=0)
        reach.set(xlabel="layer", title="tokens looked back, a dot a head", ylim=(0, None))
        reach.title.set_fontsize(10)
        reach.set_xticks(range(1, len(layers) + 1))
        reach.grid(axis="y", color=FAINT, lw=0.6)
        bar = figure.colorbar(image, ax=list(row[:3]), shrink=0.8, pad=0.02, extend="both")
        bar.set_label("weight, even look = 1")
        bar.outline.set_visible(False)
    return figure


def ray_quality(rows: Sequence[RayAgreement]) -> Figure:
    """How well voxel rays agree with the mesh's, by the side of the grid."""
    figure, (hits, errors) = _figure(WIDE, 3.6, rows=1, columns=2)
    grids = [row.grid for row in rows]
    for name, values, color in (
        ("hit or miss as the mesh", [row.hit_agreement for row in rows], PALETTE[0]),
        ("the mesh's misses that hit", [row.false_hits for row in rows], PALETTE[1]),
        ("the mesh's hits that miss", [row.missed_hits for row in rows], PALETTE[3]),
    ):
        hits.plot(grids, values, color=color, marker="o", lw=2, label=name)
    hits.set(ylim=(0, 1.02), ylabel="part of the rays")
    cells = [2 / grid for grid in grids]
    for name, found, style in (
        ("median", [row.t_error for row in rows], "-"),
        ("95th percentile", [row.t_error_95 for row in rows], "--"),
    ):
        errors.plot(
            grids, [np.nan if v is None else v for v in found], PALETTE[0], ls=style, marker="o", lw=2, label=name
        )
    errors.plot(grids, cells, color=INK, lw=1.2, ls=":", label="a cell's side")
    errors.set(ylabel="error of t (shape units)", yscale="log")
    for axes in (hits, errors):
        axes.set_xscale("log", base=2)
        axes.set_xticks(grids, [str(grid) for grid in grids])
        axes.set_xlabel("cells a side of the voxel grid")
        axes.grid(axis="y", color=FAINT, lw=0.6)
        axes.legend(loc="upper left", bbox_to_anchor=(-0.02, -0.2), fontsize=9)
    return figure


def lay_out(figure: Figure) -> Bbox:
    """Place the parts of a figure, which takes longer than drawing them, once for both of its forms; what of it is
    to be seen, in inches."""
    figure.draw_without_rendering()
    figure.set_layout_engine(None)
    return figure.get_tightbbox().padded(0.1)


def write_png(figure: Figure, path: Path, seen: Bbox) -> None:
    """The figure on white, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_open(path) as file:
        figure.savefig(file, format="png", dpi=130, bbox_inches=seen)


def as_svg(figure: Figure, name: str, described: str, seen: Bbox) -> str:
    """The figure as an element of a page: its ink and faint lines take the page's colours, its ground is clear."""
    import matplotlib

    text = io.StringIO()
    metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(text, format="svg", transparent=True, dpi=130, bbox_inches=seen, metadata=metadata)
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r' (width|height)="[\d.]+pt"', "", svg, count=2)
    svg = svg.replace("<svg ", f'<svg role="img" aria-label="{escape(described)}" ', 1)
    svg = re.sub(rf'<g id="{FULL_NAME}([^"]*)">', r"<g><title>\1</title>", svg)
    return svg.replace(INK, "var(--ink)").replace(FAINT, "var(--faint)").replace(OTHER, "var(--quiet)")


def width_of(svg: str) -> int:
    """Width in pixels at which a picture's letters are of the page's size."""
    found = re.search(r'viewBox="0 0 ([\d.]+) ', svg)
    if found is None:
        raise ValueError("svg must have a viewBox, got none")
    return round(float(found.group(1)) * PIXELS_A_POINT)


def _figure(width: float, height: float, *, rows: int = 1, columns: int = 1) -> tuple[Figure, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    return figure, figure.subplots(rows, columns)


def _cut(name: str, limit: int) -> str:
    """``name`` with its end cut off when longer than ``limit`` characters."""
    return name if len(name) <= limit else f"{name[: limit - 1]}…"


def _keep(text: Text, name: str) -> None:
    """Let a page have the whole ``name`` as a tooltip where ``text`` is only its beginning."""
    if text.get_text() != name:
        text.set_gid(f"{FULL_NAME}{name}")


def _frame(axes: Axes, color: str, width: float) -> None:
    for spine in axes.spines.values():
        spine.set(visible=True, color=color, linewidth=width)


def _coarse(weights: Array) -> Array:
    """(T, T) as means over blocks, at most MAP_CELLS a side."""
    length = len(weights)
    if length <= MAP_CELLS:
        return weights.copy()
    edge = np.linspace(0, length, MAP_CELLS + 1).astype(int)[:-1]
    size = np.diff([*edge, length])
    total = np.add.reduceat(np.add.reduceat(weights, edge, 0), edge, 1)
    return total / np.outer(size, size)
