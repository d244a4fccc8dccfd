"""The layout of ModelNet40: <class>/<split>/<shape>.off."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from nepa3d.corpora.mesh_files import CorpusMesh, by_key
from nepa3d.execution.files import is_macos_metadata

SPLITS = ("train", "test")


def modelnet40(root: Path) -> Iterator[CorpusMesh]:
    """The meshes of both splits."""
    for split in SPLITS:
        for key, path in find_meshes(root, split).items():
            yield CorpusMesh(key, path, split)


def find_meshes(root: Path, split: str) -> dict[str, Path]:
    """The meshes of a split by key. ``ValueError`` if there are none."""
    if not root.is_dir():
        raise ValueError(f"modelnet_root: {root} is not a folder")
    found = root.glob(f"*/{split}/*")
    paths = sorted(path for path in found if path.suffix.lower() == ".off" and not is_macos_metadata(path))
    if not paths:
        raise ValueError(f"no mesh matches */{split}/*.off below {root}")
    return by_key((f"{path.parts[-3]}/{path.stem}", path) for path in paths)
