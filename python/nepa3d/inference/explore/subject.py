"""A shape that is looked at: what is drawn of it, what a model is told of it, and its true distances.

Letters: V vertices, F faces, N points, M queries.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nepa3d import ops
from nepa3d.inference.shape_files import read_content, read_shape
from nepa3d.shapes.mesh import prepare_mesh
from nepa3d.shapes.rotation import Up
from nepa3d.shapes.scan_files import CloudFile
from nepa3d.shapes.scans import normalize_scan
from nepa3d.shapes.shape import Shape

MOST_FACES = 2_000_000  # of a mesh that is looked at
DRAWN_FACES = 300_000  # more are drawn as points
DRAWN_POINTS = 20_000
Float = NDArray[np.float32]


@dataclass(frozen=True)
class Form:
    """What is drawn of a shape, in the unit sphere. ``form`` reads one."""

    vertices: Float
    """(V, 3) of the mesh, or the points (N, 3) of a cloud or cache."""
    faces: NDArray[np.int64]
    """(F, 3), none of a cloud or cache."""

    def true_distance(self, points: Float) -> Float:
        """Distances (M,) of points (M, 3) to the triangles or, where there are none, to the nearest point."""
        queries = np.ascontiguousarray(points, np.float32)
        if len(self.faces):
            return ops.closest_point(self.vertices, self.faces, queries).distance
        return ops.nearest_distance(self.vertices, queries).distance

    def points(self, count: int = DRAWN_POINTS) -> Float:
        """About ``count`` points (N, 3) to draw in place of faces."""
        if len(self.faces) == 0:
            return self.vertices[:: max(1, -(-len(self.vertices) // count))]
        uniform = np.random.default_rng(0).random((count, 3), np.float32)
        return ops.sample_surface(self.vertices, self.faces, uniform).point

    @property
    def drawn_as_mesh(self) -> bool:
        """Whether there are faces, and few enough to be drawn."""
        return 0 < len(self.faces) <= DRAWN_FACES


@dataclass(frozen=True)
class Subject:
    """A shape to look at. ``subject`` reads one."""

    name: str
    """What it is called on the page."""
    form: Form
    shape: Shape
    """What a model is told of it."""
    view: str
    """View under which the index compares it."""


def form(path: Path, up: Up = "y") -> Form:
    """What is drawn of a mesh, cloud or cache file, turned so that its axis ``up`` is y. ``ValueError`` naming the
    fault, or ``OSError``."""
    no_faces = np.empty((0, 3), np.int64)
    content = read_content(path, max_faces=MOST_FACES, up=up)
    if isinstance(content, Shape):
        return Form(content["pc_xyz"], no_faces)
    if isinstance(content, CloudFile):
        return Form(normalize_scan(content.xyz, path.name), no_faces)
    mesh = prepare_mesh(content.vertices, content.faces, path, max_faces=MOST_FACES)
    return Form(mesh.vertices, mesh.faces)


def subject(path: Path, view: str, key: str, name: str, *, n_point: int, n_ray: int, up: Up = "y") -> Subject:
    """The shape of a mesh, cloud or cache file as an index of ``view`` and ``up`` reads it; ``key`` is what its draws
    depend on.

    ``ValueError`` naming the fault, or ``OSError``.
    """
    drawn = form(path, up)
    read = read_shape(path, view, key, n_point=n_point, n_ray=n_ray, up=up)
    return Subject(name, drawn, read.shape, read.view)
