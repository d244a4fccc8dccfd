"""Meshes of any layout become shape caches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nepa3d import cli
from nepa3d.corpora.layouts import divided, meshes_below, require_layout
from nepa3d.corpora.mesh_files import CorpusMesh
from nepa3d.corpora.objects import write_objects
from nepa3d.corpora.preprocess_meshes import MeshFlags, ShapeJob, preprocess_meshes, require_one_split, shape_jobs
from nepa3d.corpora.preprocessing import exit_status
from nepa3d.execution.processes import Report


@dataclass(frozen=True, kw_only=True)
class Config(MeshFlags):
    """Preprocess a folder of meshes (OBJ, OFF, PLY, STL, GLB, VRML) into a shape cache.

    The meshes become <out_root>/<split>/<class>/<id>.npz. Existing files are skipped. Shapes that fail are listed at
    the end and in <out_root>/_meta/preprocess_all.json; the command then ends with status 3.

    Example: nepa3d preprocess-meshes --mesh_root my_meshes --out_root data/my_cache
    """

    mesh_root: Path
    """Folder of the meshes."""
    out_root: Path
    """Folder to write the cache to."""
    layout: str = "folder"
    """How the class and name of a mesh follow from its path: folder (of any depth; the first folder is the class),
    shapenet, modelnet40, or listed (a folder with lists of its splits, as import-kicad writes them)."""
    test_ratio: float = 0.1
    """Share of each class that becomes the test split, if the layout has none."""
    split_seed: int = 0
    """Seed of the choice of the test split."""

    def __post_init__(self) -> None:
        require_layout(self.layout)

    def content(self) -> dict[str, Any]:
        """Also which files there are."""
        chosen = {name: getattr(self, name) for name in ("layout", "test_ratio", "split_seed")}
        return super().content() | chosen


def plan(config: Config, files: Sequence[CorpusMesh]) -> dict[str, list[ShapeJob]]:
    """The jobs of each split, sorted by key."""
    splits = divided(files, config.layout, config.test_ratio, config.split_seed)
    return {
        split: shape_jobs(config, config.out_root, split, {mesh.key: mesh.path for mesh in meshes})
        for split, meshes in splits.items()
        if meshes
    }


def preprocess(config: Config) -> Report:
    """Build every missing cache file; see ``Config``."""
    files = meshes_below(config.mesh_root, config.layout)
    splits = plan(config, files)
    for split, of_split in splits.items():
        require_one_split(config.out_root, split, of_split)
    objects = {file.key: file.object for file in files if file.object}
    for split, of_split in splits.items():
        if objects:
            write_objects(config.out_root, split, {job.key: objects.get(job.key, job.key) for job in of_split})
    return preprocess_meshes(config, config.out_root, splits, config.content(), "preprocess_all")


def command(config: Config) -> int:
    """``preprocess`` with an exit status."""
    return exit_status(preprocess(config))


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(Config, command, argv, output="out_root")


if __name__ == "__main__":
    raise SystemExit(main())
