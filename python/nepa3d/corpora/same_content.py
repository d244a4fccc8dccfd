"""Meshes of a corpus whose files are the same, byte by byte."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from nepa3d.corpora.mesh_files import CorpusMesh
from nepa3d.execution.files import content_hash, write_json

SHOWN = 10  # groups that are printed


def same_content(meshes: Sequence[CorpusMesh]) -> list[list[str]]:
    """The keys of every group of meshes of one content, sorted; only files of equal size are read."""
    by_size: dict[int, list[CorpusMesh]] = defaultdict(list)
    for mesh in meshes:
        if mesh.path.is_file():
            by_size[mesh.path.stat().st_size].append(mesh)
    by_content: dict[str, list[str]] = defaultdict(list)
    for of_size in by_size.values():
        for mesh in of_size if len(of_size) > 1 else ():
            by_content[content_hash(mesh.path)].append(mesh.key)
    return sorted(sorted(keys) for keys in by_content.values() if len(keys) > 1)


def tell_same_content(splits: Mapping[str, Sequence[CorpusMesh]], out_root: Path) -> None:
    """Write the groups to ``<out_root>/_meta/same_content.json``, and print some where there are any."""
    split_of = {mesh.key: split for split, meshes in splits.items() for mesh in meshes}
    groups = same_content([mesh for meshes in splits.values() for mesh in meshes])
    path = out_root / "_meta" / "same_content.json"
    named = [{key: split_of[key] for key in keys} for keys in groups]
    write_json(path, {"same_content": named})
    if not groups:
        return
    across = sum(len({*group.values()}) > 1 for group in named)
    copies = sum(len(keys) - 1 for keys in groups)
    print(f"{copies} meshes have the content of another; {across} of {len(groups)} groups are in both splits: {path}")
    for group in sorted(named, key=lambda group: len({*group.values()}) == 1)[:SHOWN]:
        print("  " + " = ".join(f"{key} ({split})" for key, split in group.items()))
