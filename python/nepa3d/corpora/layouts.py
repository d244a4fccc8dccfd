"""The table of corpora of meshes: a layout is one function in a file of its own, and one row here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from nepa3d.corpora.folder import folder
from nepa3d.corpora.listed import listed
from nepa3d.corpora.mesh_files import CorpusMesh, Layout, by_key
from nepa3d.corpora.modelnet40 import modelnet40
from nepa3d.corpora.shapenet import shapenet
from nepa3d.corpora.splits import mesh_test_split, stable_test_split

SPLITS = ("train", "test")
LAYOUTS: dict[str, Layout] = {"folder": folder, "shapenet": shapenet, "modelnet40": modelnet40, "listed": listed}


def require_layout(name: str) -> Layout:
    """The layout of that name, or ``ValueError`` if there is none."""
    if name not in LAYOUTS:
        raise ValueError(f"layout must be one of {', '.join(LAYOUTS)}, got {name!r}")
    return LAYOUTS[name]


def meshes_below(root: Path, layout: str) -> list[CorpusMesh]:
    """The meshes of the folder ``root``, as the layout finds them."""
    if not root.is_dir():
        raise ValueError(f"mesh_root: {root} is not a folder")
    return list(require_layout(layout)(root))


def divided(
    meshes: Iterable[CorpusMesh], layout: str, test_ratio: float, split_seed: int, *, stable: bool = False
) -> Mapping[str, list[CorpusMesh]]:
    """The meshes of each split, sorted by key: as the layout says, else ``test_ratio`` of each class for the test.

    With ``stable`` the split of a mesh depends on no other mesh, see ``stable_test_split``. ``ValueError`` on two
    meshes of one key, or a split that is neither.
    """
    files = sorted(meshes, key=lambda mesh: mesh.key)
    by_key((file.key, file.path) for file in files)
    test_split = stable_test_split if stable else mesh_test_split
    test = set(test_split([file.key for file in files if not file.split], test_ratio, split_seed))
    splits: dict[str, list[CorpusMesh]] = {split: [] for split in SPLITS}
    for file in files:
        split = file.split or ("test" if file.key in test else "train")
        if split not in splits:
            raise ValueError(f"{file.path}: layout {layout} says split {split!r}, expected train or test")
        splits[split].append(file)
    return splits
