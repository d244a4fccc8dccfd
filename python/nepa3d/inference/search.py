"""The command that seeks shapes in an index; see ``nepa3d.inference.index``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from tabulate import tabulate

from nepa3d import cli
from nepa3d.execution.files import write_json
from nepa3d.inference.index import RECALL_QUERIES, Neighbour, ShapeIndex
from nepa3d.inference.shapes_picture import draw_neighbours
from nepa3d.models.encoder import load


@dataclass(frozen=True, kw_only=True)
class HowToSearch:
    """How the index is searched: by comparing all shapes, or with the approximate index."""

    approximate: bool = False
    """Use the approximate index, which nepa3d index --approximate makes."""
    probes: int = 0
    """Cells of the approximate index to look into: more find more and take longer; 0: as many as LanceDB chooses."""
    recall: bool = False
    """Also print how many of the exact neighbours the approximate index finds, for shapes of the index."""

    def __post_init__(self) -> None:
        if self.probes < 0:
            raise ValueError(f"probes must be at least 0, got {self.probes}")
        if self.probes and not (self.approximate or self.recall):
            raise ValueError(f"probes goes with approximate or recall, got {self.probes}")


@dataclass(frozen=True, kw_only=True)
class Config:
    """Find the shapes of an index that are most like a mesh, a point cloud or a cached shape.

    Shapes are compared by the cosine of their embeddings, which is 1 for the same file. Compare the values of one query
    with each other only: no fixed threshold separates similar from different shapes.

    Example: nepa3d search shapes.lance chair.obj -k 5 --picture neighbours.png
    """

    index: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="INDEX")]
    """The index, as nepa3d index makes it."""
    query: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="QUERY")]
    """File of the shape: a mesh (OBJ, OFF, PLY, STL, GLB, VRML), a cloud (PLY without faces, NPZ, NPY, XYZ and other
    text), or a cache file (.npz)."""
    k: Annotated[int, tyro.conf.arg(aliases=["-k"])] = 10
    """Number of shapes to find."""
    view: str = ""
    """View of the query; left out: that of the index, for point clouds pointcloud_noray."""
    ckpt: str = ""
    """The model of the index; left out: from where it was when the index was made."""
    how: HowToSearch = HowToSearch()
    out_json: str = ""
    """File to write the shapes to, as JSON."""
    picture: str = ""
    """PNG file to draw the query and the shapes into."""
    up: Literal["", "x", "y", "z"] = ""
    """Axis of the query that points up; left out: as of the shapes of the index."""

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError(f"k must be at least 1, got {self.k}")


def command(config: Config) -> None:
    """Print the table; write JSON and picture where asked."""
    index = ShapeIndex.open(config.index, load(config.ckpt) if config.ckpt else None)
    how = config.how
    query = index.embedder.seen(config.query, config.view or None, config.up or None)
    vector = index.embedder.vector(query)
    found = index.search(vector, config.k, approximate=how.approximate, probes=how.probes)
    rows = [(number, f"{near.similarity:.3f}", near.id, near.path) for number, near in enumerate(found, 1)]
    print(tabulate(rows, ("", "similarity", "shape", "file"), disable_numparse=True))
    if query.shape.doubt:
        print(f"suspicious: {config.query}: {query.shape.doubt}", file=sys.stderr)
    share = index.recall(config.k, probes=how.probes) if how.recall else None
    if share is not None:
        print(
            f"recall: the approximate index finds {share:.1%} of the {config.k} nearest shapes "
            f"({min(RECALL_QUERIES, len(index))} queries of the index)"
        )
    if config.out_json:
        write_json(
            config.out_json, to_json(config, index, query.view, found) | ({} if share is None else {"recall": share})
        )
        print(f"wrote {config.out_json}")
    if config.picture:
        up = index.settings.up
        draw_neighbours(config.picture, config.query, index.folder, found, up=up, query_up=config.up or up)
        print(f"wrote {config.picture}")


def to_json(config: Config, index: ShapeIndex, view: str, found: Sequence[Neighbour]) -> dict[str, Any]:
    """The shapes, and what they were sought with."""
    return {
        "index": f"{index.path}",
        "folder": f"{index.folder}",
        "query": f"{config.query}",
        "view": view,
        "approximate": config.how.approximate,
        "neighbours": [
            {"id": near.id, "path": near.path, "class": near.class_name, "similarity": near.similarity}
            for near in found
        ],
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``nepa3d search``."""
    return cli.run(Config, command, argv)


if __name__ == "__main__":
    raise SystemExit(main())
