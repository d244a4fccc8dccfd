"""Meshes in ShapeNet's layout become shape caches: surface samples, queries and their answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from nepa3d import cli
from nepa3d.corpora.preprocess_meshes import MeshFlags, ShapeJob, preprocess_meshes, require_one_split, shape_jobs
from nepa3d.corpora.preprocessing import exit_status
from nepa3d.corpora.shapenet import MESH_GLOB, find_meshes
from nepa3d.corpora.splits import mesh_test_split
from nepa3d.execution.processes import Report
from nepa3d.samples.mesh_batches import work_on


@dataclass(frozen=True, kw_only=True)
class Config(MeshFlags):
    """Preprocess meshes into a shape cache.

    Each <shapenet_root>/<synset>/<model>/models/model_normalized.obj becomes <out_root>/<split>/<synset>/<model>.npz.
    Existing files are skipped. Shapes that fail are listed at the end and in <out_root>/_meta/preprocess_<split>.json;
    the command then ends with status 3.

    Example: python -m nepa3d.data.preprocess_shapenet --shapenet_root data/ShapeNetCore.v2
    --out_root data/shapenet_cache_v0 --workers 4
    """

    shapenet_root: Path
    """Folder that contains one folder per synset (class)."""
    out_root: Path
    """Folder to write the cache to."""
    split: Literal["train", "test", "all"] = "all"
    """Which split to build."""
    mesh_glob: str = MESH_GLOB
    """Pattern of the mesh files below shapenet_root; the first two parts of a path are the synset and the model."""
    test_ratio: float = 0.1
    """Share of each synset that becomes the test split."""
    split_seed: int = 0
    """Seed of the choice of the test split."""

    def content(self) -> dict[str, Any]:
        """Also which files there are."""
        chosen = {name: getattr(self, name) for name in ("mesh_glob", "test_ratio", "split_seed")}
        return super().content() | chosen


def plan(config: Config) -> dict[str, list[ShapeJob]]:
    """The jobs of each chosen split, sorted by key."""
    meshes = find_meshes(config.shapenet_root, config.mesh_glob)
    test = set(mesh_test_split(list(meshes), config.test_ratio, config.split_seed))
    wanted = ("train", "test") if config.split == "all" else (config.split,)
    return {
        split: shape_jobs(
            config, config.out_root, split, {k: path for k, path in meshes.items() if (k in test) == (split == "test")}
        )
        for split in wanted
    }


def preprocess(config: Config) -> Report:
    """Build every missing cache file of the chosen split; see ``Config``."""
    splits = plan(config)
    for split, of_split in splits.items():
        require_one_split(config.out_root, split, of_split)
    return preprocess_meshes(
        config, config.out_root, splits, work_on(config.device), config.content(), f"preprocess_{config.split}"
    )


def command(config: Config) -> int:
    """``preprocess`` with an exit status."""
    return exit_status(preprocess(config))


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(Config, command, argv, output="out_root")


if __name__ == "__main__":
    raise SystemExit(main())
