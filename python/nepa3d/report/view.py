"""One cached shape: what its file holds, as a table, and its queries and answers, as a picture."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro
from tabulate import tabulate

from nepa3d import cli
from nepa3d.report import panels, picture
from nepa3d.shapes.cache import ShapeCache
from nepa3d.shapes.interop import open3d, open3d_cloud
from nepa3d.shapes.shape import Shape


@dataclass(frozen=True)
class Config:
    """Show a cached shape.

    Example: nepa3d view data/shapenet_cache_v0/train/chair/one.npz
    """

    cache: Annotated[Path, tyro.conf.Positional]
    """Cache file of the shape, <split>/<class>/<id>.npz."""
    out_png: str = ""
    """Where to write the picture; empty: <id>.png in the working directory."""
    up: Literal["y", "z"] = "y"
    """Axis of the mesh that points up."""
    window: bool = False
    """Also show the cloud, and the queries coloured by distance, in a window of Open3D (nepa3d[viz])."""


def contents(path: Path) -> list[tuple[str, str, str, str, str]]:
    """Name, shape, type, least and greatest value of every array. Raises ``CacheError``."""
    rows = []
    with ShapeCache(path) as cache:
        for name in cache:
            array = cache[name]
            finite = array[np.isfinite(array)]
            ends = (f"{finite.min():.4g}", f"{finite.max():.4g}") if finite.size else ("-", "-")
            rows.append((name, " x ".join(map(str, array.shape)), f"{array.dtype}", *ends))
    return rows


def command(config: Config) -> None:
    """Print the table, write the picture, show the window where it is asked for."""
    if config.window:
        require_window()
    path = config.cache.absolute()
    print(tabulate(contents(path), ("array", "shape", "type", "least", "greatest"), disable_numparse=True))
    split = path.parent.parent
    drawn = picture.Config(
        cache_root=f"{split.parent}",
        split=split.name,
        shapes=(f"{path.parent.name}/{path.stem}",),
        out_png=config.out_png or f"{path.stem}.png",
        up=config.up,
        title=path.stem,
    )
    print(f"wrote {picture.picture(drawn)}")
    if config.window:
        show(Shape.from_cache(path), path.stem)


def require_window() -> None:
    """``ValueError`` if there is no display, or Open3D cannot be imported."""
    if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise ValueError(
            "window: there is no display (DISPLAY and WAYLAND_DISPLAY are not set); the picture needs none"
        )
    try:
        open3d()
    except ValueError as error:
        raise ValueError(f"window: {error}") from error


def show(shape: Shape, title: str) -> None:
    """Show the cloud of a shape, and its point queries coloured by distance, until the window is closed.
    ``ValueError`` if no window can be opened."""
    from matplotlib import colormaps

    cloud = shape.to_open3d()
    if not cloud.has_colors():
        cloud.paint_uniform_color(panels.SURFACE)
    distance = shape["pt_dist_pool"]
    colors = colormaps[panels.DISTANCE_MAP](panels.distance_norm(float(distance.max()))(distance))[:, :3]
    queries = open3d_cloud(shape["pt_xyz_pool"], None, colors.astype(np.float32))
    viewer = open3d().visualization.Visualizer()
    if not viewer.create_window(title, 1024, 768):
        raise ValueError("window: Open3D could open none on this display, for which it needs OpenGL 3.3")
    for geometry in (cloud, queries):
        viewer.add_geometry(geometry)
    viewer.run()
    viewer.destroy_window()


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(Config, command, argv, output="out_png")


if __name__ == "__main__":
    raise SystemExit(main())
