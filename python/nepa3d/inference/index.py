"""An index of the shapes of a folder: what a model makes of each, kept in a table, and the shapes most like a query.

The vector of a shape is a function of its file's content, the model and the settings. So a file that is renamed or
copied is not embedded again, and a file that is in the index finds itself with a similarity of 1.
Letters: N shapes, D width, K neighbours.
"""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nepa3d.execution.progress_bar import progress_bar
from nepa3d.inference.embedder import Embedder, IndexSettings, fingerprint
from nepa3d.inference.shape_files import shape_files
from nepa3d.inference.table import ShapeTable
from nepa3d.inference.update import TableUpdate, Update
from nepa3d.models.encoder import Encoder, load
from nepa3d.shapes.rotation import Up
from nepa3d.shapes.shape import Shape

FORMAT = 1
BATCH = 64  # shapes that are embedded together and then written
RECALL_QUERIES = 100


class Neighbour(NamedTuple):
    """A shape of the index that is like a query."""

    id: str
    """ "class/id"."""
    path: str
    """Below the folder of the index."""
    class_name: str
    similarity: float
    """Cosine of both vectors, at most 1."""


class Entries(NamedTuple):
    """Every shape of an index, sorted by path."""

    vectors: NDArray[np.float32]
    """(N, D), each of length 1."""
    ids: list[str]
    paths: list[str]
    classes: list[str]


class ShapeIndex:
    """An index that is open. Make one with ``create`` or ``open``.

    ```python
    index = ShapeIndex.open("shapes.lance")
    index.search("chair.obj", k=3)[0]  # Neighbour(id='chairs/one', path='chairs/one.obj', ..., similarity=0.93)
    ```
    """

    def __init__(self, table: ShapeTable, encoder: Encoder | None = None) -> None:
        self.table = table
        about = table.settings()
        if about.get("format") != FORMAT:
            raise ValueError(f"{table.path}: expected an index of format {FORMAT}, got {about.get('format')}")
        self.settings = IndexSettings(about["view"], about["draws"], about["seed"], about.get("up", "y"))
        self.layout: str = about["layout"]
        self.width: int = about["width"]
        self.model: str = about["model"]
        self._embedder = None if encoder is None else self._embedder_of(encoder, "that is given")

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        folder: str | os.PathLike[str],
        encoder: Encoder,
        settings: IndexSettings | None = None,
        *,
        layout: str = "folder",
        ckpt: str = "",
    ) -> ShapeIndex:
        """An index at ``path``, which must end in ``.lance``, of the shapes of ``folder``; ``update`` fills it.

        ``layout`` says which files there are and what their class is, see ``shape_files``; ``ckpt`` where the model can
        be loaded from later. ``ValueError`` if there is an index at ``path``, or no shape in ``folder``.
        """
        shape_files(Path(folder), layout)
        about = asdict(settings or IndexSettings()) | {"layout": layout, "width": encoder.width}
        about |= {"format": FORMAT, "model": fingerprint(encoder)}
        table = ShapeTable.create(Path(path), encoder.width, about, {"folder": _absolute(folder), "ckpt": ckpt})
        return cls(table, encoder)

    @classmethod
    def open(cls, path: str | os.PathLike[str], encoder: Encoder | None = None) -> ShapeIndex:
        """The index at ``path``. Unless it is given, its model is loaded when it is needed, from where it was.

        ``ValueError`` if there is no index, or if ``encoder`` is another model than that of the index.
        """
        return cls(ShapeTable.open(Path(path)), encoder)

    @property
    def path(self) -> Path:
        """Where the table lies."""
        return self.table.path

    @property
    def folder(self) -> Path:
        """The folder whose shapes these are."""
        return Path(self.table.state()["folder"])

    def __len__(self) -> int:
        return len(self.table)

    @property
    def embedder(self) -> Embedder:
        """What makes vectors. ``ValueError`` if the model is not where it was, or another one is there."""
        if self._embedder is None:
            ckpt = self.table.state()["ckpt"]
            if not ckpt:
                raise ValueError(f"{self.path} does not say where its model is: give it")
            self._embedder = self._embedder_of(load(ckpt), f"at {ckpt}")
        return self._embedder

    def entries(self) -> Entries:
        """Every shape with its vector, as arrays and lists."""
        rows, vectors = self.table.vectors()
        return Entries(vectors, [row.id for row in rows], [row.path for row in rows], [row.class_name for row in rows])

    def update(
        self,
        folder: str | os.PathLike[str] | None = None,
        *,
        moved: bool = False,
        workers: int = 2,
        batch: int = BATCH,
        progress: bool = False,
    ) -> Update:
        """Bring the index up to its folder: embed what is new or changed, remove what is gone.

        A file whose size and time are those of the table counts as unchanged; of another the content is compared. Every
        ``batch`` shapes are written as soon as they are embedded, so an update that was killed goes on from there.
        ``workers`` threads read files. A file that cannot be used is listed, and what the table had of it is removed.
        ``ValueError`` if ``folder`` is not that of the index (unless it ``moved`` there) or holds no shape, or if
        another process is writing.
        """
        for name, value in (("workers", workers), ("batch", batch)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        with self.table.locked():
            root = self._root(folder, moved=moved)
            files = shape_files(root, self.layout)
            with progress_bar(desc="embed", unit="shape", disable=not progress) as bar:
                return TableUpdate(self.table, root, self.embedder).run(files, bar, workers=workers, batch=batch)

    def search(
        self,
        query: ArrayLike | str | os.PathLike[str] | Shape,
        k: int = 10,
        *,
        view: str | None = None,
        up: Up | None = None,
        approximate: bool = False,
        probes: int = 0,
    ) -> list[Neighbour]:
        """The ``k`` shapes most like ``query``: a file (mesh, cloud or cache), a ``Shape``, or a vector (D,).

        ``view`` is how the query is seen, and ``up`` the axis of its file that points up; left out, as the index has
        them of its shapes. All shapes are compared, unless
        ``approximate`` asks for the approximate index, which looks into ``probes`` of its cells (0: as many as LanceDB
        chooses). ``ValueError`` naming what cannot be used.
        """
        for name, value, least in (("k", k, 1), ("probes", probes, 0)):
            if value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        if isinstance(query, (str, os.PathLike, Shape)):
            vector = self.embedder.vector(query, view, up)
        else:
            vector = np.asarray(query, np.float32)
            if vector.shape != (self.width,):
                raise ValueError(f"query: expected a finite vector of shape ({self.width},), got {vector.shape}")
            if not np.isfinite(vector).all():
                raise ValueError("query: expected a finite vector, got one with values that are not finite")
            if not vector.any():
                raise ValueError("query: expected a vector with a direction, got one of length 0")
            vector = vector / np.linalg.norm(vector.astype(np.float64))  # whose square may be too large for float32
        rows, similarity = self.table.nearest(vector[None], k, approximate=approximate, probes=probes)
        return [
            Neighbour(row.id, row.path, row.class_name, float(value))
            for row, value in zip(rows[0], similarity[0], strict=True)
        ]

    def make_approximate(self) -> None:
        """Make the approximate index of all shapes anew; later updates extend it."""
        with self.table.locked():
            self.table.train()

    def recall(self, k: int = 10, *, probes: int = 0, queries: int = RECALL_QUERIES, seed: int = 0) -> float:
        """The share of the ``k`` exact neighbours that the approximate index finds: the mean over ``queries`` shapes of
        the index, drawn with ``seed``, none of which counts as its own neighbour."""
        rows, vectors = self.table.vectors()
        drawn = np.random.default_rng(seed).permutation(len(rows))[:queries]
        exact, _ = self.table.nearest(vectors[drawn], k + 1)
        found, _ = self.table.nearest(vectors[drawn], k + 1, approximate=True, probes=probes)
        shares = []
        for own, near, maybe in zip(drawn, exact, found, strict=True):
            wanted = [row.path for row in near if row.path != rows[own].path][:k]
            shares.append(len({*wanted} & {row.path for row in maybe}) / max(1, len(wanted)))
        return float(np.mean(shares))

    def require_settings(self, settings: IndexSettings, layout: str) -> None:
        """``ValueError`` naming every setting that is not that of the index."""
        own, other = asdict(self.settings) | {"layout": self.layout}, asdict(settings) | {"layout": layout}
        differing = [f"{name} {own[name]} -> {other[name]}" for name in own if own[name] != other[name]]
        if differing:
            raise ValueError(f"{self.path} was made with other settings ({'; '.join(differing)}): choose another index")

    def _embedder_of(self, encoder: Encoder, which: str) -> Embedder:
        if fingerprint(encoder) != self.model:
            raise ValueError(f"{self.path} was made with another model than the one {which}: choose another index")
        return Embedder(encoder, self.settings)

    def _root(self, folder: str | os.PathLike[str] | None, *, moved: bool) -> Path:
        state = self.table.state()
        if folder is None or _absolute(folder) == state["folder"]:
            return Path(state["folder"])
        if not moved:
            raise ValueError(
                f"folder: {self.path} is of {state['folder']}, got {folder}; if that is the same folder at another "
                "place, say --moved, else choose another index"
            )
        shape_files(Path(folder), self.layout)  # refuses what holds no shape
        self.table.set_state(state | {"folder": _absolute(folder)})
        return Path(folder)


def _absolute(folder: str | os.PathLike[str]) -> str:
    return os.fspath(Path(folder).absolute())
