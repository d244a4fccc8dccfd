"""Meshes in ShapeNet's layout become shape caches: surface samples, queries and their answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, Literal

from nepa3d import cli
from nepa3d.corpora.preprocess_meshes import MeshFlags, ShapeJob, by_key, preprocess_meshes, shape_jobs
from nepa3d.corpora.preprocessing import exit_status
from nepa3d.corpora.splits import mesh_test_split
from nepa3d.execution.files import is_macos_metadata
from nepa3d.execution.processes import Report


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
    mesh_glob: str = "*/*/models/model_normalized.obj"
    """Pattern of the mesh files below shapenet_root; the first two parts of a path are the synset and the model."""
    test_ratio: float = 0.1
    """Share of each synset that becomes the test split."""
    split_seed: int = 0
    """Seed of the choice of the test split."""

    def content(self) -> dict[str, Any]:
        """Also which files there are."""
        chosen = {name: getattr(self, name) for name in ("mesh_glob", "test_ratio", "split_seed")}
        return super().content() | chosen


def shape_key(mesh: Path, root: Path) -> str:
    """ "synset/model" of a mesh below ``root``."""
    parts = mesh.relative_to(root).parts
    if len(parts) < 2:
        raise ValueError(f"{mesh}: a mesh must lie in a synset's folder below {root}")
    return f"{parts[0]}/{parts[1] if len(parts) > 2 else mesh.stem}"


def find_meshes(root: Path, mesh_glob: str) -> dict[str, Path]:
    """The meshes below ``root`` by key. ``ValueError`` if there are none."""
    if not root.is_dir():
        raise ValueError(f"shapenet_root: {root} is not a folder")
    pattern = PurePath(mesh_glob)
    if pattern.is_absolute() or ".." in pattern.parts or not pattern.parts:
        raise ValueError(f"mesh_glob must be a pattern below {root}, got {mesh_glob!r}")
    try:
        paths = sorted(path for path in root.glob(mesh_glob) if not is_macos_metadata(path))
    except ValueError as error:
        raise ValueError(f"mesh_glob: {mesh_glob!r} is no pattern: {error}") from error
    meshes = by_key([(shape_key(path, root), path) for path in paths])
    if not meshes:
        raise ValueError(f"no mesh matches {mesh_glob} below {root}")
    return meshes


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
        _require_one_split(config.out_root, split, of_split)
    return preprocess_meshes(config, config.out_root, splits, config.content(), f"preprocess_{config.split}")


def _require_one_split(out_root: Path, split: str, jobs: Sequence[ShapeJob]) -> None:
    """Refuse to put a shape into both splits."""
    other = "test" if split == "train" else "train"
    for job in jobs:
        there = out_root / other / f"{job.key}.npz"
        if there.exists():
            raise ValueError(
                f"{there}: this shape now belongs to {split}, as meshes were added or the split's settings changed: "
                "choose another out_root, or delete it"
            )


def command(config: Config) -> int:
    """``preprocess`` with an exit status."""
    return exit_status(preprocess(config))


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(Config, command, argv, output="out_root")


if __name__ == "__main__":
    raise SystemExit(main())
