"""Meshes of any layout become shape caches."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nepa3d import cli
from nepa3d.corpora.class_file import meshes_of_class_file
from nepa3d.corpora.layouts import divided, meshes_below, require_layout
from nepa3d.corpora.mesh_files import CorpusMesh
from nepa3d.corpora.objects import write_objects
from nepa3d.corpora.preprocess_meshes import MeshFlags, ShapeJob, preprocess_meshes, require_one_split, shape_jobs
from nepa3d.corpora.preprocessing import exit_status
from nepa3d.corpora.same_content import tell_same_content
from nepa3d.execution.processes import Report
from nepa3d.samples.mesh_batches import work_on


@dataclass(frozen=True, kw_only=True)
class Config(MeshFlags):
    """Preprocess a folder of meshes (OBJ, OFF, PLY, STL, GLB, VRML) into a shape cache.

    The meshes become <out_root>/<split>/<class>/<id>.npz. Existing files are skipped. Shapes that fail are listed at
    the end and in <out_root>/_meta/preprocess_all.json; the command then ends with status 3. Meshes whose files are the
    same are named, and listed in <out_root>/_meta/same_content.json.

    A shape's id follows from its path alone, and never changes when files are added. The split may: --test_ratio holds
    of each class, so that a new mesh can take another's place in it, which is then refused. With --stable_split from
    the first run on, the split of a shape never changes either.

    The folder may also come first, without its flag.

    Example: nepa3d preprocess-meshes my_meshes --out_root data/my_cache
    """

    mesh_root: Path
    """Folder of the meshes."""
    out_root: Path
    """Folder to write the cache to."""
    layout: str = "folder"
    """How the class and name of a mesh follow from its path: folder (of any depth; the first folder is the class),
    shapenet, modelnet40, or listed (a folder with lists of its splits, as import-kicad writes them)."""
    classes: str = ""
    """CSV file with the columns path (below mesh_root) and class, for layout folder: gives the classes instead of the
    folders. Meshes that it does not list are left out."""
    test_ratio: float = 0.1
    """Share of each class that becomes the test split, if the layout has none."""
    split_seed: int = 0
    """Seed of the choice of the test split."""
    stable_split: bool = False
    """Choose the split of each shape by its id alone: adding files moves no shape, and test_ratio holds on average.
    pretrain --mesh_root knows neither this nor classes: train from the cache."""

    def __post_init__(self) -> None:
        require_layout(self.layout)
        if self.classes and self.layout != "folder":
            raise ValueError(f"classes needs layout folder, got {self.layout}")

    def content(self) -> dict[str, Any]:
        """Also which files there are; caches of before these flags have no entry for them."""
        chosen = {name: getattr(self, name) for name in ("layout", "test_ratio", "split_seed")}
        later = {"stable_split": self.stable_split or None, "classes": "of a file" if self.classes else None}
        return super().content() | chosen | later


def plan(config: Config, divided_meshes: Mapping[str, Sequence[CorpusMesh]]) -> dict[str, list[ShapeJob]]:
    """The jobs of each split, sorted by key."""
    return {
        split: shape_jobs(config, config.out_root, split, {mesh.key: mesh.path for mesh in meshes})
        for split, meshes in divided_meshes.items()
        if meshes
    }


def meshes_of(config: Config) -> list[CorpusMesh]:
    """The meshes of the folder, with the classes of the file where there is one."""
    if not config.classes:
        return meshes_below(config.mesh_root, config.layout)
    found, left_out = meshes_of_class_file(config.mesh_root, Path(config.classes))
    if left_out:
        print(f"{len(left_out)} meshes are not listed in {config.classes} and left out; first: {left_out[0]}")
    return found


def preprocess(config: Config) -> Report:
    """Build every missing cache file; see ``Config``."""
    files = meshes_of(config)
    of_splits = divided(files, config.layout, config.test_ratio, config.split_seed, stable=config.stable_split)
    splits = plan(config, of_splits)
    for split, of_split in splits.items():
        require_one_split(config.out_root, split, of_split)
    objects = {file.key: file.object for file in files if file.object}
    for split, of_split in splits.items():
        if objects:
            write_objects(config.out_root, split, {job.key: objects.get(job.key, job.key) for job in of_split})
    report = preprocess_meshes(
        config, config.out_root, splits, work_on(config.device), config.content(), "preprocess_all"
    )
    tell_same_content(of_splits, config.out_root)
    return report


def command(config: Config) -> int:
    """``preprocess`` with an exit status."""
    return exit_status(preprocess(config))


def main(argv: Sequence[str] | None = None) -> int:
    cli.settle_encodings(argv)
    words = list(sys.argv[1:] if argv is None else argv)
    if words and not words[0].startswith("-"):
        words.insert(0, "--mesh_root")
    return cli.run(Config, command, words, output="out_root")


if __name__ == "__main__":
    raise SystemExit(main())
