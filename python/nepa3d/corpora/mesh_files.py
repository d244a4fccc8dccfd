"""The files of a corpus of meshes, by shape."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple, TypeAlias


class CorpusMesh(NamedTuple):
    """One shape of a corpus."""

    key: str
    """Name of the shape, "class/id"; all random draws from it depend on this."""
    path: Path
    split: str = ""
    """"train" or "test" if the corpus says so; empty: the command divides each class."""
    object: str = ""
    """What the shape is a variant of, which must not stand on both sides of a split; empty: of itself."""


Layout: TypeAlias = Callable[[Path], Iterable[CorpusMesh]]
"""The meshes below a folder. Raises ``ValueError`` if it is none, or if there are no meshes."""


def by_key(keyed: Iterable[tuple[str, Path]]) -> dict[str, Path]:
    """Meshes by shape; two of one name would overwrite each other, and are refused."""
    found: dict[str, Path] = {}
    for key, path in keyed:
        if key in found:
            raise ValueError(f"two meshes are both shape {key}: {found[key]} and {path}")
        found[key] = path
    return found
