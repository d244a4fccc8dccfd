"""What a page shows, apart from how: the shapes of an index and a model, for all clients of a server together.

Letters: N shapes of the index, K neighbours.
"""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nepa3d.execution.files import content_hash
from nepa3d.inference.explore.shape_map import Projection, class_colors, project
from nepa3d.inference.explore.subject import Form, Subject
from nepa3d.inference.explore.uploads import Reader, plain
from nepa3d.inference.index import Neighbour, ShapeIndex
from nepa3d.inference.shape_files import ReadShape
from nepa3d.models.distances import PredictedField
from nepa3d.models.encoder import Encoder
from nepa3d.shapes.level_set import field_near, level_set

if TYPE_CHECKING:
    import trimesh

KEPT = 64  # shapes whose geometry is kept in memory
SLOPE = 1.0  # of a distance; a predicted one may be steeper, and its surface then has holes: the page is to be quick
OUTSIDE = (125, 135, 150)  # colour of a shape that is not of the index


@dataclass(frozen=True)
class Limits:
    """What a page may ask for."""

    neighbours: int = 6
    """Neighbours that are shown."""
    resolution: int = 32
    """Cells a side of the grid in which a completed surface is found."""
    max_upload_mb: float = 64.0
    """Largest file that is taken, in MiB."""

    def __post_init__(self) -> None:
        if not 1 <= self.neighbours <= 9:
            raise ValueError(f"neighbours must be from 1 to 9, got {self.neighbours}")
        if self.resolution < 8 or self.resolution % 2:
            raise ValueError(f"resolution must be even and at least 8, got {self.resolution}")
        if not 0 < self.max_upload_mb <= 2048:
            raise ValueError(f"max_upload_mb must be above 0 and at most 2048, got {self.max_upload_mb}")

    @property
    def most_bytes(self) -> int:
        """Of an uploaded file."""
        return int(self.max_upload_mb * (1 << 20))


class Chosen(NamedTuple):
    """A shape that is looked at, and the shapes most like it."""

    subject: Subject
    row: int | None
    """Its number in the index; None of a file that was uploaded."""
    neighbours: list[Neighbour]


class Explorer:
    """The shapes of an index: places on a map, neighbours, completions. One model and one reader serve all clients."""

    def __init__(self, index: ShapeIndex, reader: Reader, limits: Limits, projection: Projection = "pca") -> None:
        """``ValueError`` if the index is empty, its model is not found, or scikit-learn is not installed."""
        self.index, self.reader, self.limits = index, reader, limits
        entries = index.entries()
        if not entries.ids:
            raise ValueError(f"{index.path} holds no shape: run nepa3d index FOLDER --out {index.path}")
        names = [plain(name) for name in entries.ids]
        count = Counter(names)  # two files may have one name, by another ending, for example
        self.ids = [
            f"{name} ({plain(path)})" if count[name] > 1 else name
            for name, path in zip(names, entries.paths, strict=True)
        ]
        self.classes, self.paths = [plain(name) for name in entries.classes], entries.paths
        self.vectors = entries.vectors
        self.folder = index.folder
        self.encoder = index.embedder.encoder
        self.places = project(entries.vectors, projection)
        self.palette = class_colors(self.classes)
        self.most_context = most_context(self.encoder)
        self._row_of = {path: row for row, path in enumerate(entries.paths)}
        self.model_lock = threading.Lock()
        """Held by whoever runs the model, so that one client's questions do not slow down those of all."""
        self._form = lru_cache(KEPT)(self.reader.form)

    @property
    def colors(self) -> NDArray[np.uint8]:
        """Colours (N, 3) of the dots, by class."""
        return np.array([self.palette[name] for name in self.classes], np.uint8)

    def choose(self, row: int) -> Chosen:
        """The shape of a row of the index. ``ValueError`` or ``OSError`` if its file cannot be read any more."""
        if not 0 <= row < len(self.ids):
            raise ValueError(f"row must be from 0 to {len(self.ids) - 1}, got {row}")
        path, probe = self.folder / self.paths[row], self.encoder.probe
        key = content_hash(path)
        view = self.index.settings.view
        read = self.reader.subject(path, view, key, self.ids[row], n_point=probe.n_point, n_ray=probe.n_ray)
        found = self.index.search(self.vectors[row], self.limits.neighbours + 1)
        others = [near for near in found if near.path != self.paths[row]]
        return Chosen(read, row, others[: self.limits.neighbours])

    def upload(self, filename: str, content: bytes) -> Chosen:
        """An uploaded file. ``ValueError`` with a message for the page if it cannot be used."""
        probe = self.encoder.probe
        view, most = self.index.settings.view, self.limits.most_bytes
        read = self.reader.upload(filename, content, view, most_bytes=most, n_point=probe.n_point, n_ray=probe.n_ray)
        with self.model_lock:
            vector = self.index.embedder.vectors([ReadShape(read.shape, read.view)])[0]
        return Chosen(read, None, self.index.search(vector, self.limits.neighbours))

    def form(self, path: str) -> Form:
        """What is drawn of a file of the index."""
        return self._form(Path(self.folder, path))

    def row_of(self, near: Neighbour) -> int | None:
        """The number of a neighbour; None of one that came into the index since."""
        return self._row_of.get(near.path)

    def color_of(self, row: int | None) -> tuple[int, int, int]:
        """Of a shape, by its class."""
        return OUTSIDE if row is None else self.palette[self.classes[row]]

    def field(self, of: Subject, n_context: int) -> PredictedField:
        """The field that the model predicts of ``n_context`` points of a shape. Ask it within ``model_lock``."""
        return self.encoder.field(of.shape, n_context=min(n_context, self.most_context), batch=1)

    def surface(self, field: PredictedField) -> trimesh.Trimesh | None:
        """The mesh on which the predicted distance is a cell's side; None if it is that nowhere. Ask for it within
        ``model_lock``."""
        return surface(field, self.limits.resolution)


def most_context(encoder: Encoder) -> int:
    """The most points that the slider offers: as many as the model had point queries in training, twice that where
    sequences may have any length."""
    probe = encoder.probe
    if probe.model.max_len is None:
        return 2 * probe.n_point
    room = (probe.max_len - 1 - int(probe.eos)) // (2 if probe.qa else 1)
    return max(1, min(probe.n_point, room - 1))


def surface(field: PredictedField, resolution: int) -> trimesh.Trimesh | None:
    """The mesh on which the predicted distance is a cell's side, in a grid of ``resolution`` cells a side, of which
    those near the surface are asked for; None if the distance is that nowhere."""
    level = 2.0 / resolution
    return level_set(field_near(field.distances, resolution, level, SLOPE, coarsest=resolution // 2).values, level)
