"""How files of shapes become vectors that can be compared: the model, the view and the draws.

Letters: N shapes, D width.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nepa3d.execution.checks import require_choice
from nepa3d.execution.files import content_hash
from nepa3d.inference.shape_files import ReadShape, read_shape
from nepa3d.models.encoder import Encoder
from nepa3d.shapes.cache import CacheError
from nepa3d.shapes.rotation import Up
from nepa3d.shapes.shape import Shape
from nepa3d.shapes.views import VoxelSettings, require_backend

Float = NDArray[np.float32]
LATER_PARTS = ("pulled_points",)  # of a model, that came after the first indexes


@dataclass(frozen=True)
class IndexSettings:
    """What decides a vector, beside the model and the file."""

    view: str = "mesh"
    """View of the shapes; a cloud is seen as pointcloud_noray whatever this is, unless it is voxel."""
    draws: int = 4
    """Draws of a shape's queries whose embeddings are averaged."""
    seed: int = 0
    """Seed of these draws."""
    up: Up = "y"
    """Axis of the meshes and clouds that points up; they are turned so that it is y."""

    def __post_init__(self) -> None:
        require_backend(self.view, "view")
        if self.draws < 1:
            raise ValueError(f"draws must be at least 1, got {self.draws}")
        require_choice("up", self.up, Up)


class Embedder:
    """A model with the settings of an index. A vector is a function of the file's content and of these."""

    def __init__(self, encoder: Encoder, settings: IndexSettings) -> None:
        self.encoder, self.settings = encoder, settings

    def read(self, path: Path, sha256: str, view: str | None = None, up: Up | None = None) -> ReadShape:
        """The shape of a file of that content, as ``view`` sees it, standing on ``up`` (left out: those of the
        settings). ``ValueError`` or ``OSError`` naming the file."""
        probe, settings = self.encoder.probe, self.settings
        wanted, up = view or settings.view, up or settings.up
        return read_shape(path, wanted, sha256, n_point=probe.n_point, n_ray=probe.n_ray, up=up)

    def vectors(self, shapes: Sequence[ReadShape]) -> Float:
        """Vectors (N, D) of length 1. ``ValueError`` on a shape that cannot be used."""
        found = np.empty((len(shapes), self.encoder.width), np.float32)
        for view in sorted({read.view for read in shapes}):
            rows = [row for row, read in enumerate(shapes) if read.view == view]
            some = [shapes[row].shape for row in rows]
            found[rows] = self.encoder.embed(some, view, draws=self.settings.draws, seed=self.settings.seed)
        return found

    def seen(self, query: str | os.PathLike[str] | Shape, view: str | None = None, up: Up | None = None) -> ReadShape:
        """A query as ``vector`` sees it: a file (mesh, cloud or cache), which stands on ``up``, or a ``Shape``."""
        if isinstance(query, Shape):
            return ReadShape(query, require_backend(view or self.settings.view, "view"))
        path = Path(query)
        if not path.is_file():
            raise ValueError(f"query: expected the file of a shape, there is none at {os.fspath(query)!r}")
        return self.read(path, content_hash(path), view, up)

    def vector(
        self, query: str | os.PathLike[str] | Shape | ReadShape, view: str | None = None, up: Up | None = None
    ) -> Float:
        """The vector (D,) of a file (mesh, cloud or cache), of a ``Shape``, or of what ``seen`` gave."""
        read = query if isinstance(query, ReadShape) else self.seen(query, view, up)
        try:
            return self.vectors([read])[0]
        except CacheError as error:  # what the view needs and the cache lacks; the shape is named by its content
            raise CacheError(read.file or error.path, error.fault) from error


def fingerprint(encoder: Encoder) -> str:
    """A hash of all that decides what a model makes of a sample: weights, parts, and how many queries it takes.

    A part that came later counts where a model has it, so that older indexes stay those of their model.
    """
    probe = encoder.probe
    model = probe.model
    parts = asdict(model.architecture)
    parts = {name: value for name, value in parts.items() if value or name not in LATER_PARTS}
    about = {"architecture": parts, "heads": probe.args.get("heads"), "qa": probe.qa}
    about |= {"eos": probe.eos, "n_point": probe.n_point, "n_ray": probe.n_ray}
    if encoder.voxel != VoxelSettings():
        about["voxel"] = asdict(encoder.voxel)
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for name, tensor in sorted(model.state_dict().items()):
        values = tensor.detach().cpu().contiguous().numpy()
        digest.update(f"\0{name}\0{values.dtype}\0{values.shape}\0".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()
