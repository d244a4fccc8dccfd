"""The layout of ShapeNet: <class>/<shape>/models/model_normalized.obj, or any pattern that begins with these two."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePath

from nepa3d.corpora.mesh_files import CorpusMesh, by_key
from nepa3d.execution.files import is_macos_metadata

MESH_GLOB = "*/*/models/model_normalized.obj"


def shapenet(root: Path) -> Iterator[CorpusMesh]:
    """The meshes of ShapeNet; ShapeNet has no division into training and test shapes."""
    return (CorpusMesh(key, path) for key, path in find_meshes(root, MESH_GLOB).items())


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
