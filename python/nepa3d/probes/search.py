"""What is searched in what: queries, a gallery, and the object that each shape of them is of.

Letters: Q queries, M gallery items.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nepa3d.corpora.objects import objects_of
from nepa3d.corpora.shape_list import list_shapes
from nepa3d.models.encoder import ShapeLike, shape_name
from nepa3d.probes.embedding import require_several


@dataclass(frozen=True)
class Search:
    """Q queries and the M gallery items they are sought in. Several queries may be of one object, gallery items not.

    ``ValueError`` names a query whose object is not in the gallery, and an object that is there twice.
    """

    queries: Sequence[ShapeLike]
    query_objects: Sequence[str]
    gallery: Sequence[ShapeLike]
    gallery_objects: Sequence[str]

    def __post_init__(self) -> None:
        for name in ("queries", "gallery"):
            shapes, objects = getattr(self, name), getattr(self, _OBJECTS[name])
            require_several(shapes, name)
            if len(shapes) != len(objects):
                raise ValueError(f"{_OBJECTS[name]} must name {len(shapes)} objects, got {len(objects)}")
        if not self.queries or len(self.gallery) < 2:
            raise ValueError(
                f"queries and gallery must be at least 1 and 2 shapes, got {len(self.queries)} and {len(self.gallery)}"
            )
        place: dict[str, int] = {}
        for row, name in enumerate(self.gallery_objects):
            if name in place:
                twice = [shape_name(self.gallery[at]) for at in (place[name], row)]
                raise ValueError(f"gallery: {name} is there twice: {twice[0]} and {twice[1]}")
            place[name] = row
        absent = [row for row, name in enumerate(self.query_objects) if name not in place]
        if absent:
            first = absent[0]
            raise ValueError(
                f"queries: the gallery of {len(place)} shapes lacks the object of {len(absent)} of "
                f"{len(self.queries)}; first: {shape_name(self.queries[first])} is of {self.query_objects[first]}"
            )

    @property
    def truth(self) -> NDArray[np.int64]:
        """The number (Q,) of each query's object in the gallery."""
        place = {name: row for row, name in enumerate(self.gallery_objects)}
        return np.array([place[name] for name in self.query_objects], np.int64)

    def without(self, objects: Collection[str]) -> Search:
        """The search without some objects, which neither are sought nor stand in the gallery."""
        return self._keep([name not in objects for name in self.query_objects], set(self.gallery_objects) - {*objects})

    def without_distractors(self) -> Search:
        """The search in a gallery of the queries' objects alone."""
        return self._keep([True] * len(self.queries), set(self.query_objects))

    def _keep(self, queries: Sequence[bool], objects: Collection[str]) -> Search:
        rows = [row for row, kept in enumerate(queries) if kept]
        items = [row for row, name in enumerate(self.gallery_objects) if name in objects]
        return Search(
            [self.queries[row] for row in rows],
            [self.query_objects[row] for row in rows],
            [self.gallery[row] for row in items],
            [self.gallery_objects[row] for row in items],
        )


_OBJECTS = {"queries": "query_objects", "gallery": "gallery_objects"}


def search_of_caches(
    query_root: str | Path,
    query_split: str,
    gallery_root: str | Path,
    gallery_splits: Sequence[str],
) -> Search:
    """The files of one split, each sought among those of other splits by its object (``nepa3d.corpora.objects``).

    ``ValueError`` as ``Search``'s, and naming a split without files or listed twice.
    """
    if not gallery_splits or len(set(gallery_splits)) < len(gallery_splits):
        raise ValueError(f"gallery_splits must be different splits, at least one, got {' '.join(gallery_splits)!r}")
    queries = list_shapes(query_root, query_split)
    gallery, names = list[str](), list[str]()
    for split in gallery_splits:
        paths = list_shapes(gallery_root, split)
        gallery += paths
        names += objects_of(gallery_root, split, paths)
    return Search(queries, objects_of(query_root, query_split, queries), gallery, names)


def read_names(path: Path, flag: str) -> list[str]:
    """The objects that a text file lists, one a line; empty lines and those that start with # count for nothing.

    ``ValueError`` naming the ``flag`` and a file that cannot be read or lists none.
    """
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{flag}: {path} cannot be read: {error}") from error
    names = [line for line in lines if line and not line.startswith("#")]
    if not names:
        raise ValueError(f"{flag}: {path} lists no object")
    return names
