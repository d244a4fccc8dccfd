"""Meshes in ModelNet40's layout become shape caches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from nepa3d import cli
from nepa3d.corpora.modelnet40 import find_meshes
from nepa3d.corpora.preprocess_meshes import MeshFlags, ShapeJob, preprocess_meshes, shape_jobs
from nepa3d.corpora.preprocessing import exit_status
from nepa3d.execution.processes import Report
from nepa3d.samples.mesh_batches import work_on


@dataclass(frozen=True, kw_only=True)
class Config(MeshFlags):
    """Preprocess ModelNet40's meshes into a shape cache.

    Each <modelnet_root>/<class>/<split>/<id>.off becomes <out_root>/<split>/<class>/<id>.npz. Existing files are
    skipped. Shapes that fail are listed at the end and in <out_root>/_meta/preprocess_<split>.json; the command then
    ends with status 3.

    Example: python -m nepa3d.data.preprocess_modelnet40 --modelnet_root data/ModelNet40
    --out_root data/modelnet40_cache --split train
    """

    modelnet_root: Path
    """Folder that contains one folder per class."""
    out_root: Path
    """Folder to write the cache to."""
    split: Literal["train", "test"]
    """Which split to build."""
    pt_dist_mode: Literal["mesh", "kdtree"] = "mesh"
    """Measure point distances to the triangles (mesh) or to dist_ref_points surface samples (kdtree)."""


def plan(config: Config) -> list[ShapeJob]:
    """The jobs of the split, sorted by key. ``ValueError`` if there are none."""
    return shape_jobs(config, config.out_root, config.split, find_meshes(config.modelnet_root, config.split))


def preprocess(config: Config) -> Report:
    """Build every missing cache file of the split; see ``Config``."""
    split: str = config.split
    return preprocess_meshes(
        config, config.out_root, {split: plan(config)}, work_on(config.device), config.content(), f"preprocess_{split}"
    )


def command(config: Config) -> int:
    """``preprocess`` with an exit status."""
    return exit_status(preprocess(config))


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(Config, command, argv, output="out_root")


if __name__ == "__main__":
    raise SystemExit(main())
