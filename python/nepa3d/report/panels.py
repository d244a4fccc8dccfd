"""The panels of the picture: each draws one thing into one matplotlib axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = NDArray[Any]

INK = "#26323d"
FAINT = "#c9d1d8"
SURFACE = np.array([0.30, 0.50, 0.72])
PALETTE = ("#2f6db3", "#e0782f", "#2f9e7b", "#b8457d", "#7d63b8", "#b8932a")
OTHER = "#7f8c97"
DISTANCE_MAP = "viridis"
STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 11,
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}

_AZIMUTH, _ELEVATION = np.deg2rad(35.0), np.deg2rad(22.0)
_REACH = 1.5  # half side of the projected cube, with a margin


@dataclass(frozen=True)
class Bars:
    """One row of a bar chart."""

    label: str
    color: str
    values: tuple[float | None, ...]
    references: tuple[float | None, ...]  # chance, or a baseline without a model; one a value


def project(xyz: NDArray[np.floating], up: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Orthographic view from front right and above: (N, 2) positions and (N,) depths, larger is nearer."""
    x, y, z = np.asarray(xyz, np.float64).reshape(-1, 3).T
    side, back, height = (x, -z, y) if up == "y" else (x, y, z)
    right = np.cos(_AZIMUTH) * side + np.sin(_AZIMUTH) * back
    into = -np.sin(_AZIMUTH) * side + np.cos(_AZIMUTH) * back
    over = np.cos(_ELEVATION) * height + np.sin(_ELEVATION) * into
    near = np.sin(_ELEVATION) * height - np.cos(_ELEVATION) * into
    return np.stack([right, over], 1), near


def cloud(axes: Axes, xyz: Array, colors: Any, up: str, *, size: float, norm: Any = None) -> Any:
    """Points (N, 3), far ones first, in one colour, a colour each, or by ``norm`` of a value each; the scatter."""
    position, near = project(xyz, up)
    order = near.argsort()
    colors = colors[order] if isinstance(colors, np.ndarray) else colors
    x, y = position[order].T
    return axes.scatter(
        x, y, s=size, c=colors, linewidths=0, norm=norm, cmap=DISTANCE_MAP if norm else None, rasterized=True
    )


def box(axes: Axes, up: str) -> None:
    """The empty stage: the cube's outline and the three axes' names, no ticks."""
    corners = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], float)
    flat, _ = project(corners, up)
    for i in range(8):
        for j in range(i + 1, 8):
            if (corners[i] != corners[j]).sum() == 1:
                axes.plot(*flat[[i, j]].T, color=FAINT, lw=0.8, zorder=0)
    start = np.array([-1.0, -1.0, 1.0]) if up == "y" else np.array([-1.0, -1.0, -1.0])
    for axis, name in enumerate("xyz"):
        tip = start.copy()
        tip[axis] += 0.5 if start[axis] < 0 else -0.5
        line, _ = project(np.stack([start, tip]), up)
        axes.plot(*line.T, color=INK, lw=1.4, zorder=1)
        past, _ = project((tip + (tip - start) * 0.35)[None], up)
        axes.text(past[0, 0], past[0, 1], name, fontsize=10, ha="center", va="center", zorder=1)
    axes.set(xlim=(-_REACH, _REACH), ylim=(-_REACH, _REACH), aspect="equal")
    axes.set_axis_off()


def surface(axes: Axes, xyz: Array, normals: Array, up: str) -> None:
    """Surface samples, shaded by their normals where they have any."""
    box(axes, up)
    cloud(axes, xyz, surface_shades(normals, up), up, size=point_size(len(xyz)))


def surface_shades(normals: Array, up: str) -> Array:
    """Colours (N, 3) of surface samples by their normals (N, 3); one colour if these are all 0."""
    light = np.array([0.4, 0.8, 0.45]) if up == "y" else np.array([0.4, -0.45, 0.8])
    shade = np.abs(normals @ light) if np.any(normals) else np.full(len(normals), 0.6)
    return np.clip(SURFACE * (0.45 + 0.75 * shade[:, None]), 0, 1)


def depth_shades(xyz: Array, up: str) -> Array:
    """Colours (N, 3) of points, near ones darker."""
    _, near = project(xyz, up)
    return np.clip(SURFACE * (1.35 - 0.3 * near[:, None]), 0, 1)


def point_queries(axes: Axes, xyz: Array, distance: Array, up: str, top: float) -> Any:
    """Point queries coloured by distance from 0 to ``top``; returns the scatter, for a colour bar."""
    box(axes, up)
    size = point_size(len(xyz)) * 0.75
    return cloud(axes, xyz, distance, up, size=size, norm=distance_norm(top))


def ray_hits(axes: Axes, rays: Mapping[str, Array], up: str) -> None:
    """First hits coloured by their normals; misses as grey dots where they pass the centre closest."""
    box(axes, up)
    origin, direction = rays["origin"], rays["direction"]
    hit = rays["hit"] > 0.5
    if not hit.any():
        note(axes, "no ray hits in this cache")
        return
    closest = np.maximum(-(origin * direction).sum(1), 0.0)
    passing = (origin + closest[:, None] * direction)[~hit]
    inside = passing[(np.abs(passing) <= 1).all(1)]
    cloud(axes, inside, FAINT, up, size=3.0)
    where = (origin + rays["t"][:, None] * direction)[hit]
    colors = np.clip(rays["normal"][hit] * 0.5 + 0.5, 0, 1)
    cloud(axes, where, colors, up, size=point_size(len(where)))
    below(axes, f"{hit.mean():.0%} of {len(hit)} hit; grey: misses")


def field_slice(axes: Axes, grid: Array, up: str, top: float) -> Any | None:
    """Central slice of the UDF grid seen from the front, and the border of its occupied cells."""
    across = "y" if up == "y" else "z"
    axes.set(xlabel="x (shape units)", ylabel=f"{across} (shape units)", xticks=(-1, 0, 1), yticks=(-1, 0, 1))
    axes.tick_params(length=3)
    if grid.size == 1:
        note(axes, "no UDF grid in this cache")
        return None
    middle = grid.shape[0] // 2
    plane = grid[:, :, middle] if up == "y" else grid[:, middle, :]
    field = plane.T.astype(np.float32)
    image = axes.imshow(field, origin="lower", extent=(-1, 1, -1, 1), cmap=DISTANCE_MAP, norm=distance_norm(top))
    if field.min() <= 0 < field.max():
        occupied = np.kron(field <= 0, np.ones((8, 8)))  # finer, so that the border follows the cells
        axes.contour(
            occupied, levels=[0.5], extent=(-1, 1, -1, 1), colors="white", linewidths=max(0.4, 18 / len(field))
        )
    return image


def distance_norm(top: float) -> Any:
    """Colours of distances from 0 to ``top``, finer near the surface."""
    from matplotlib.colors import PowerNorm

    return PowerNorm(0.55, vmin=0.0, vmax=top)


def loss_curves(axes: Axes, curves: Mapping[str, tuple[Array, Array]], colors: Mapping[str, str]) -> None:
    """Loss by step of every run: faint as logged, strong as a running mean."""
    for name, (step, loss) in curves.items():
        smooth = running_mean(loss, max(1, len(loss) // 50))
        axes.plot(step, loss, color=colors[name], alpha=0.25, lw=1)
        axes.plot(step, smooth, color=colors[name], lw=2, label=name)
    finite = np.concatenate([loss[np.isfinite(loss)] for _, loss in curves.values()])
    if len(finite) and finite.min() > 0 and finite.max() > 30 * finite.min():
        axes.set_yscale("log")
    axes.set(xlabel="optimiser step", ylabel="training loss (no unit)", title="Pretraining loss")
    axes.grid(axis="y", color=FAINT, lw=0.6)
    axes.legend(loc="upper left", bbox_to_anchor=(-0.02, -0.17), fontsize=10, ncols=2 if len(curves) > 3 else 1)


def bars(axes: Axes, rows: Sequence[Bars], names: Sequence[str], title: str, reference: str) -> None:
    """Horizontal bars, one group a row and one bar a name; a dark tick marks the reference of each bar."""
    height = 0.76 / len(names)
    largest = max([v for row in rows for v in (*row.values, *row.references) if v is not None], default=1.0)
    for index, row in enumerate(rows):
        for part, (value, base) in enumerate(zip(row.values, row.references, strict=True)):
            y = index + (part - (len(names) - 1) / 2) * height
            axes.barh(y, value or 0.0, height * 0.9, color=row.color, alpha=1.0 if part == 0 else 0.5)
            text = "n/a" if value is None else f"{value:.3f}"
            if len(names) > 1:
                text = f"{names[part]} {text}"
            axes.text(max(value or 0.0, base or 0.0) + 0.025 * largest, y, text, va="center", fontsize=10)
            if base is not None:
                axes.plot([base, base], [y - height * 0.45, y + height * 0.45], color=INK, lw=2)
    if any(base is not None for row in rows for base in row.references):
        axes.plot([], [], color=INK, lw=2, label=reference)
        axes.legend(loc="upper left", bbox_to_anchor=(-0.02, -0.17), fontsize=10, handlelength=1)
    axes.set_yticks(range(len(rows)), [row.label for row in rows])
    axes.set(ylim=(len(rows) - 0.4, -0.6), xlim=(0, largest * (1.5 if len(names) > 1 else 1.3)), title=title)
    axes.tick_params(axis="y", length=0)
    axes.locator_params(axis="x", nbins=4)


def below(axes: Axes, text: str) -> None:
    """A caption at the foot of a panel without ticks."""
    axes.text(0.5, -0.02, text, transform=axes.transAxes, ha="center", va="top", fontsize=10)


def row_label(axes: Axes, name: str, detail: str) -> None:
    """Names a row of panels, upright at the left of its first one."""
    place: dict[str, Any] = {"transform": axes.transAxes, "rotation": 90, "ha": "center", "va": "center"}
    axes.text(-0.11, 0.5, name, fontsize=12, fontweight="bold", **place)
    axes.text(-0.03, 0.5, detail, fontsize=10, **place)


def note(axes: Axes, text: str) -> None:
    """Words in the middle of a panel with nothing to show."""
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=OTHER)


def point_size(count: int) -> float:
    """Marker area for a cloud of ``count`` points: fewer are drawn larger."""
    return float(np.clip(9000 / max(1, count), 3.0, 26.0))


def running_mean(values: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    """Mean over the finite ones among the last ``width`` values at each place; NaN where there are none."""
    finite = np.isfinite(values)
    total = np.concatenate([[0.0], np.cumsum(np.where(finite, values, 0.0))])
    count = np.concatenate([[0], np.cumsum(finite)])
    end = np.arange(1, len(values) + 1)
    begin = np.maximum(end - width, 0)
    rows = count[end] - count[begin]
    mean: NDArray[np.float64] = np.where(rows > 0, (total[end] - total[begin]) / np.maximum(rows, 1), np.nan)
    return mean


def shortened(text: str, limit: int) -> str:
    """``text`` with its middle cut out when longer than ``limit`` characters."""
    if len(text) <= limit:
        return text
    head = (limit - 1) // 2
    return f"{text[:head]}…{text[len(text) - (limit - 1 - head) :]}"
