"""A folder of meshes that comes with its split, as ``nepa3d import-kicad`` writes it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from nepa3d.corpora.folder import folder
from nepa3d.corpora.mesh_files import CorpusMesh
from nepa3d.corpora.objects import list_path, objects_of
from nepa3d.corpora.preprocess_meshes import keys_path
from nepa3d.execution.files import read_json

SPLITS = ("train", "test")


def listed(root: Path) -> Iterator[CorpusMesh]:
    """The meshes of ``folder`` that ``_splits/train_keys.json`` and ``_splits/test_keys.json`` list, and their split.

    Where ``_meta/objects_<split>.json`` is there, it says what their objects are. ``ValueError`` if a list is missing
    or damaged, lists a mesh that is not there, or the lists share one.
    """
    found = {mesh.key: mesh for mesh in folder(root)}
    seen: set[str] = set()
    for split in SPLITS:
        keys = _keys(root, split)
        missing = [key for key in keys if key not in found]
        if missing:
            raise ValueError(f"{keys_path(root, split)}: lists {missing[0]}, a mesh that is not below {root}")
        twice = [key for key in keys if key in seen]
        if twice:
            raise ValueError(f"{keys_path(root, split)}: lists {twice[0]}, which is listed before it")
        seen.update(keys)
        grouped = list_path(root, split).is_file()
        objects = objects_of(root, split, [f"{key}.npz" for key in keys]) if grouped else [""] * len(keys)
        for key, name in zip(keys, objects, strict=True):
            yield CorpusMesh(key, found[key].path, split, name)


def _keys(root: Path, split: str) -> list[str]:
    path = keys_path(root, split)
    if not path.is_file():
        raise ValueError(f"{path}: expected this list of a split's meshes, there is none")
    keys = read_json(path).get("keys")
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise ValueError(f'{path}: expected {{"keys": ["class/id", ...]}}, got something else')
    return keys
