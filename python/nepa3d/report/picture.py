"""One picture of an experiment: the data as the model sees it, how training went, what the probes say."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from nepa3d import cli
from nepa3d.corpora.shape_list import list_shapes
from nepa3d.execution.files import atomic_open
from nepa3d.probes.drawings import Bar, BarChart
from nepa3d.probes.result import name_of
from nepa3d.probes.table import PROBES, read_result
from nepa3d.report import panels
from nepa3d.shapes.cache import ShapeCache
from nepa3d.shapes.packed import exists

if TYPE_CHECKING:
    from matplotlib.figure import Figure, FigureBase, SubFigure

SHAPE_KEYS = ("pc_xyz", "pc_n", "pt_xyz_pool", "pt_dist_pool")
RAY_KEYS = ("ray_o_pool", "ray_d_pool", "ray_hit_pool", "ray_t_pool", "ray_n_pool")
MAX_DRAWN = 4000  # points or rays drawn of a pool
COLUMN_TITLES = (
    "Surface samples",
    "Point queries, by distance",
    "Ray hits, by normal",
    "Distance field, central slice",
)

Array = NDArray[Any]
Curve = tuple[NDArray[np.float64], NDArray[np.float64]]


@dataclass(frozen=True)
class Config:
    """Draw shapes, loss curves and probe results of an experiment into one PNG.

    Example: python -m nepa3d.report.picture --cache_root data/demo_cache --split eval
    --runs runs/demo_nepa runs/demo_mae --results results/*.json --out_png results/demo.png
    """

    cache_root: str
    """Cache folder holding <split>/<class>/<id>.npz."""
    out_png: str
    """Where to write the picture."""
    split: str = "eval"
    """Split the shapes are taken from."""
    runs: tuple[str, ...] = ()
    """Pretraining folders; the loss is read from <run>/loss.jsonl."""
    results: tuple[str, ...] = ()
    """UCPR and CPAC result files."""
    shapes: tuple[str, ...] = ()
    """Shapes to draw, as class/id; none: the first of each of n_shapes classes, evenly chosen."""
    n_shapes: int = 3
    """Shapes to draw when none are named."""
    up: Literal["y", "z"] = "y"
    """Axis of the meshes that points up."""
    title: str = "Shapes as answers to queries"
    """Heading of the picture."""


def draw(config: Config) -> Figure:
    """The figure of ``config`` (not yet written). Bad input raises ``ValueError``."""
    matplotlib = _matplotlib()
    paths = choose_shapes(config)
    shapes = [read_shape(path) for path in paths]
    curves = {_run_name(run): read_losses(run) for run in config.runs}
    charts = read_charts(config.results)
    colors = {name: panels.PALETTE[i % len(panels.PALETTE)] for i, name in enumerate(curves)}

    with matplotlib.rc_context(panels.STYLE):
        from matplotlib.figure import Figure
        from matplotlib.layout_engine import ConstrainedLayoutEngine

        n_bars = max((len(chart.rows) for chart in charts), default=0)
        upper = 3.5 * len(shapes) + 0.6
        lower = max(4.2, 1.6 + 0.62 * n_bars) if curves or charts else 0.0
        layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.08)
        figure = Figure(figsize=(16, upper + lower + 0.7), dpi=150, layout=layout, facecolor="white")
        figure.suptitle(config.title, fontsize=18, fontweight="bold", x=0.012, ha="left")
        if not lower:
            _draw_shapes(figure, paths, shapes, config.up)
            return figure
        top, bottom = _pair(figure, upper, lower)
        _draw_shapes(top, paths, shapes, config.up)
        _draw_figures(bottom, curves, colors, charts)
        return figure


def picture(config: Config) -> str:
    """Draw and write the PNG, whole or not at all; returns its path."""
    figure = draw(config)
    with _matplotlib().rc_context(panels.STYLE), atomic_open(config.out_png) as file:
        figure.savefig(file, format="png")
    return config.out_png


def command(config: Config) -> None:
    """Write the picture and say where."""
    print(f"wrote {picture(config)}")


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m nepa3d.report.picture``."""
    return cli.run(Config, command, argv, output="out_png")


def choose_shapes(config: Config) -> list[str]:
    """Paths of the shapes to draw: those named, else the first of evenly chosen classes."""
    split = Path(config.cache_root, config.split)
    if config.shapes:
        named = [split / f"{shape}.npz" for shape in config.shapes]
        missing = [str(path) for path in named if not exists(path)]
        if missing:
            raise ValueError(f"shapes: there is no cached shape at {missing[0]!r}")
        return [str(path) for path in named]
    if config.n_shapes < 1:
        raise ValueError(f"n_shapes: expected at least 1, got {config.n_shapes}")
    first: dict[str, str] = {}
    for path in list_shapes(config.cache_root, config.split):
        first.setdefault(Path(path).parent.name, path)
    classes = sorted(first)
    chosen = np.unique(np.linspace(0, len(classes) - 1, min(config.n_shapes, len(classes))).round().astype(int))
    return [first[classes[i]] for i in chosen]


def read_shape(path: str) -> dict[str, Array]:
    """The arrays of a cached shape to draw, by cache key; a missing one raises ``ValueError``."""
    with ShapeCache(path) as cache:
        shape = {key: cache[key] for key in (*SHAPE_KEYS, *RAY_KEYS)}
        return {**shape, "udf_grid": cache["udf_grid"] if "udf_grid" in cache else np.zeros((1, 1, 1), np.float16)}


def read_losses(run: str) -> Curve:
    """Steps and losses of ``<run>/loss.jsonl``; a step logged again after a resume counts as last logged."""
    path = Path(run) / "loss.jsonl"
    if not path.is_file():
        raise ValueError(f"runs: expected a loss log at {str(path)!r}, there is none")
    losses: dict[int, float] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            record = json.loads(line)
            losses[int(record["step"])] = float(record["loss"])
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise ValueError(f"{path}:{number}: expected {{'step', 'epoch', 'loss'}}, got {line!r}") from error
    if not losses:
        raise ValueError(f"{path}: is empty")
    steps = sorted(losses)
    return np.array(steps, float), np.array([losses[step] for step in steps])


def read_charts(paths: Sequence[str]) -> list[BarChart]:
    """The bar charts of the results at ``paths``; what is no result is left out."""
    found = [(Path(path).stem, result) for path in paths if (result := read_result(path)) is not None]
    charts: list[BarChart] = []
    for name, kind in PROBES.items():
        own = [(tag, result) for tag, result in found if result.probe == name]
        charts += kind.bars(own) if own else []
    return charts


def _matplotlib() -> Any:
    try:
        import matplotlib
    except ImportError as error:
        raise ValueError("the picture needs matplotlib: pip install 'nepa3d[demo]'") from error
    return matplotlib


def _pair(figure: Figure, upper: float, lower: float) -> tuple[SubFigure, SubFigure]:
    grid = figure.add_gridspec(2, 1, height_ratios=[upper, lower])
    return figure.add_subfigure(grid[0]), figure.add_subfigure(grid[1])


def _run_name(run: str) -> str:
    return Path(run).name


def _draw_shapes(figure: FigureBase, paths: list[str], shapes: list[dict[str, Array]], up: str) -> None:
    grid = figure.subplots(len(shapes), 4, squeeze=False)
    top = max(float(np.quantile(shape["pt_dist_pool"], 0.98)) for shape in shapes)
    scatters = []
    for row, (path, shape) in enumerate(zip(paths, shapes, strict=True)):
        first, points, rays, field = grid[row]
        panels.surface(first, shape["pc_xyz"], shape["pc_n"], up)
        few = _thinned(len(shape["pt_xyz_pool"]))
        scatters.append(panels.point_queries(points, shape["pt_xyz_pool"][few], shape["pt_dist_pool"][few], up, top))
        few = _thinned(len(shape["ray_o_pool"]))
        names = ("origin", "direction", "hit", "t", "normal")
        panels.ray_hits(rays, {n: shape[key][few] for n, key in zip(names, RAY_KEYS, strict=True)}, up)
        panels.field_slice(field, shape["udf_grid"], up, top)
        panels.row_label(first, Path(path).parent.name, panels.shortened(Path(path).stem, 34))
        panels.below(first, f"{len(shape['pc_xyz'])} points; cube: [-1, 1]³ shape units")
        panels.below(points, f"{len(shape['pt_xyz_pool'])} in the pool")
    for axes, title in zip(grid[0], COLUMN_TITLES, strict=True):
        axes.set_title(title, pad=8)
    bar = figure.colorbar(scatters[0], ax=list(grid[:, 3]), shrink=0.75, aspect=30, extend="max", pad=0.03)
    bar.set_label("distance (shape units)")
    bar.outline.set_visible(False)


def _thinned(count: int) -> NDArray[np.int64]:
    return np.unique(np.linspace(0, max(0, count - 1), min(count, MAX_DRAWN)).astype(np.int64))


def _draw_figures(
    figure: FigureBase, curves: dict[str, Curve], colors: dict[str, str], charts: Sequence[BarChart]
) -> None:
    widths = [1.7] * bool(curves) + [chart.width for chart in charts]
    left = list(np.ravel(figure.subplots(1, len(widths), width_ratios=widths, squeeze=False)))
    if curves:
        panels.loss_curves(left.pop(0), curves, colors)
    for axes, chart in zip(left, charts, strict=True):
        rows = [panels.Bars(_label(row), _color(row, colors), row.values, row.references) for row in chart.rows]
        panels.bars(axes, rows, chart.names, chart.title, chart.reference)
        axes.set_xlabel(chart.axis)


def _label(row: Bar) -> str:
    return f"{panels.shortened(row.label, 26)}\n{panels.shortened(row.detail, 28)}" if row.label else ""


def _color(row: Bar, colors: dict[str, str]) -> str:
    """The colour of the run a result's checkpoint lies in, so that curves and bars agree."""
    return colors.get(name_of(row.ckpt), panels.OTHER)


if __name__ == "__main__":
    raise SystemExit(main())
