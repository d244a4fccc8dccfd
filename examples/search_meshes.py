"""Embed a folder of meshes and list the nearest neighbours of one of them.

python examples/search_meshes.py --ckpt runs/nepa_qa/last.pt --folder meshes --query meshes/chair.obj
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro
from tabulate import tabulate

import nepa3d

SUFFIXES = (".obj", ".off", ".ply", ".stl", ".glb", ".wrl")


@dataclass(frozen=True)
class Config:
    """Embed a folder of meshes and list the nearest neighbours of one of them."""

    ckpt: Path
    """Checkpoint, or a folder written by Encoder.save."""
    folder: Path
    """Folder of OBJ, OFF, PLY, STL, GLB and VRML files, searched with its subfolders."""
    query: Path
    """Mesh file to find the neighbours of."""
    view: str = "pointcloud_noray"
    """What the model sees of a mesh."""
    draws: int = 4
    """Embeddings of a mesh that are averaged, each of other queries."""
    k: int = 10
    """Neighbours to list."""


def main(config: Config) -> None:
    """Print a table of the most alike meshes."""
    files = sorted(path for path in config.folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not files:
        raise SystemExit(f"{config.folder} holds no {', '.join(SUFFIXES)} file")
    encoder = nepa3d.load(config.ckpt)
    gallery = encoder.embed(files, config.view, draws=config.draws, progress=True)
    query = encoder.embed(config.query, config.view, draws=config.draws, seed=1)
    cosine = gallery @ query[0]
    rows = [(files[i], cosine[i]) for i in cosine.argsort()[::-1][: config.k]]
    print(tabulate(rows, headers=["mesh", "cosine"], floatfmt=".3f"))


if __name__ == "__main__":
    main(tyro.cli(Config))
