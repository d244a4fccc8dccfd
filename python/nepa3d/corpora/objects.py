"""Which cache files are of one object: scans and views of it that must not stand on both sides of a split.

``<cache_root>/_meta/objects_<split>.json`` says so: ``{"class/id": "object", ...}`` with every file of the split. Where
there is no such list, each file is an object of its own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath

from nepa3d.corpora.splits import class_of
from nepa3d.execution.files import write_json


def list_path(cache_root: str | Path, split: str) -> Path:
    """Where the list of a split lies."""
    return Path(cache_root) / "_meta" / f"objects_{split}.json"


def write_objects(cache_root: str | Path, split: str, objects: Mapping[str, str]) -> None:
    """Write the object of each "class/id" of a split."""
    write_json(list_path(cache_root, split), dict(objects))


def objects_of(cache_root: str | Path, split: str, paths: Sequence[str]) -> list[str]:
    """The object of each cache file of ``split``: as listed, or "class/id" where there is no list.

    ``ValueError`` naming a list that is damaged or lacks one of ``paths``.
    """
    keys = [f"{class_of(path)}/{PurePath(path).stem}" for path in paths]
    file = list_path(cache_root, split)
    if not file.is_file():
        return keys
    try:
        listed = json.loads(file.read_text("utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{file}: expected a JSON object of names, got {error}") from error
    if not isinstance(listed, dict) or not all(isinstance(name, str) for name in listed.values()):
        raise ValueError(f"{file}: expected a JSON object of names by class/id, got something else")
    missing = [key for key in keys if key not in listed]
    if missing:
        raise ValueError(f"{file}: expected every file of the split, {len(missing)} are missing; first: {missing[0]}")
    return [listed[key] for key in keys]
