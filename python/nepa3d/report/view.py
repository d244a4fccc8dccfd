"""One cached shape: what its file holds, as a table, and its queries and answers, as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro
from tabulate import tabulate

from nepa3d import cli
from nepa3d.report import picture
from nepa3d.shapes.cache import ShapeCache


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
    """Print the table, write the picture."""
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


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(Config, command, argv, output="out_png")


if __name__ == "__main__":
    raise SystemExit(main())
