"""The command that makes and updates an index of shapes; see ``nepa3d.inference.index``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from nepa3d import cli
from nepa3d.cli.spellings import OptionalCount
from nepa3d.corpora.layouts import require_layout
from nepa3d.inference.embedder import IndexSettings
from nepa3d.inference.index import RECALL_QUERIES, ShapeIndex
from nepa3d.inference.table import is_table
from nepa3d.models.encoder import load
from nepa3d.shapes.views import require_backend

CKPT = "furniture-small"  # for a new index


@dataclass(frozen=True, kw_only=True)
class MadeWith:
    """Settings fixed when the index is created. If omitted, the index's own are used; a new index uses the defaults in
    parentheses."""

    ckpt: str = ""
    """Model (furniture-small): a checkpoint, a folder with one, or whatever else nepa3d.load takes."""
    view: str = ""
    """View of the shapes (mesh). Point clouds are seen as pointcloud_noray."""
    draws: OptionalCount = None
    """Draws of each shape's queries whose embeddings are averaged (4)."""
    seed: OptionalCount = None
    """Seed of the draws (0)."""
    up: Literal["", "x", "y", "z"] = ""
    """Axis of the meshes and clouds that points up (y); they are turned so that it is y, as models expect it."""
    layout: str = ""
    """Which files are shapes, and of what class (folder): folder takes meshes, clouds and caches of any depth, and the
    first folder is the class; shapenet, modelnet40 and listed take meshes as preprocess-meshes does."""

    def __post_init__(self) -> None:
        if self.view:
            require_backend(self.view, "view")
        if self.layout:
            require_layout(self.layout)
        if self.draws is not None and self.draws < 1:
            raise ValueError(f"draws must be at least 1, got {self.draws}")

    def settings(self, own: IndexSettings) -> IndexSettings:
        """The flags that are given, the others as in ``own``."""
        given = {name: getattr(self, name) for name in asdict(own) if getattr(self, name) not in ("", None)}
        return IndexSettings(**asdict(own) | given)


@dataclass(frozen=True, kw_only=True)
class Config:
    """Embed every shape of a folder into an index for nepa3d search, or bring an index up to its folder.

    OBJ, OFF, PLY, STL, GLB and VRML meshes, point clouds (PLY without faces) and cache files (.npz) are taken. New,
    changed and deleted files are detected by size and modification time, then by content; the others are not embedded
    again. Shapes are written in batches, and the same command resumes an interrupted run. Files that cannot be used are
    listed; the exit status is then 3.

    Example: nepa3d index my_meshes --out shapes.lance --ckpt runs/nepa_qa/last.pt
    """

    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")]
    """Folder of the shapes."""
    out: Path
    """The index, a LanceDB table: a folder whose name ends in .lance."""
    made_with: MadeWith = MadeWith()
    moved: bool = False
    """Accept FOLDER as the new location of the folder that the index was made of, instead of refusing it."""
    approximate: bool = False
    """Also make an approximate index anew, for search --approximate among very many shapes; its recall is printed."""
    workers: int = 2
    """Threads that read files."""
    batch: int = 64
    """Shapes embedded and written at a time."""

    def __post_init__(self) -> None:
        for name in ("workers", "batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")


def open_or_create(config: Config) -> ShapeIndex:
    """The index at ``out``, an empty one if there is none. ``ValueError`` if it was made with something else."""
    asked = config.made_with
    if not is_table(config.out):
        ckpt = asked.ckpt or CKPT
        settings = asked.settings(IndexSettings())
        layout = asked.layout or "folder"
        return ShapeIndex.create(config.out, config.folder, load(ckpt), settings, layout=layout, ckpt=_found(ckpt))
    index = ShapeIndex.open(config.out, load(asked.ckpt) if asked.ckpt else None)
    index.require_settings(asked.settings(index.settings), asked.layout or index.layout)
    return index


def command(config: Config) -> int:
    """Update the index, and print what was done."""
    index = open_or_create(config)
    done = index.update(config.folder, moved=config.moved, workers=config.workers, batch=config.batch, progress=True)
    print(f"{config.out}: {len(index)} shapes: {done.summary()}")
    for path, reason in sorted(done.failed.items()):
        print(f"  {path}: {reason}")
    for path, reason in sorted(done.suspicious.items()):
        print(f"  {path}: suspicious: {reason}")
    if config.approximate:
        index.make_approximate()
        k = 10
        share = index.recall(k)
        print(f"approximate index: finds {share:.1%} of the {k} nearest shapes ({RECALL_QUERIES} queries of the index)")
    return cli.EXIT_SOME_FAILED if done.failed else cli.EXIT_OK


def _found(ckpt: str) -> str:
    """``ckpt`` as it is found from any working directory."""
    return os.fspath(Path(ckpt).absolute()) if Path(ckpt).exists() else ckpt


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``nepa3d index``."""
    return cli.run(Config, command, argv)


if __name__ == "__main__":
    raise SystemExit(main())
