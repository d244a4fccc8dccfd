"""Any folder of meshes, however deep: the class of a mesh is the first folder below the root."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from nepa3d.corpora.mesh_files import CorpusMesh, by_key
from nepa3d.execution.files import is_macos_metadata
from nepa3d.shapes.mesh import READERS

UNSORTED = "unsorted"  # class of the meshes that lie in the root itself


def folder(root: Path) -> Iterator[CorpusMesh]:
    """The meshes of the formats that nepa3d reads, sorted by path; hidden files and folders are left out.

    The key of a mesh is its path below the root without the ending, its folders below the class joined by "--". So
    adding a file changes no other key. Two files that differ in the ending only are refused.
    """
    if not root.is_dir():
        raise ValueError(f"mesh_root: {root} is not a folder")
    paths = sorted(path for path in root.rglob("*") if _is_mesh(path, root))
    if not paths:
        raise ValueError(f"mesh_root: no mesh below {root}, expected files that end in {', '.join(sorted(READERS))}")
    for key, path in by_key((shape_key(path, root), path) for path in paths).items():
        yield CorpusMesh(key, path)


def shape_key(path: Path, root: Path) -> str:
    """ "class/id" of a mesh below ``root``."""
    *folders, name = path.relative_to(root).with_suffix("").parts
    return f"{folders[0] if folders else UNSORTED}/{'--'.join([*folders[1:], name])}"


def _is_mesh(path: Path, root: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.relative_to(root).parts)
    return (
        path.suffix.lower().removeprefix(".") in READERS
        and not hidden
        and not is_macos_metadata(path)
        and path.is_file()
    )
