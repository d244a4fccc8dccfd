"""What a click points at: rays of the scene against the dots of a map, balls and shapes.

A quaternion is (w, x, y, z). Letters: N dots.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nepa3d import ops
from nepa3d.inference.explore.subject import Form

Up = Literal["y", "z"]
Place = tuple[float, float, float]
Quaternion = tuple[float, float, float, float]
NEAR_POINT = 0.05  # from a point of a cloud, within which a ray hits it


class Ray(NamedTuple):
    """A ray of the scene. ``ray`` checks one."""

    origin: NDArray[np.float64]
    """(3,)"""
    direction: NDArray[np.float64]
    """(3,), of length 1."""


def ray(origin: ArrayLike | None, direction: ArrayLike | None) -> Ray | None:
    """A ray of what a client sent; None if that is none."""
    if origin is None or direction is None:
        return None
    start, along = np.asarray(origin, np.float64), np.asarray(direction, np.float64)
    if start.shape != (3,) or along.shape != (3,) or not (np.abs([start, along]) < 1e6).all():
        return None
    length = np.linalg.norm(along)
    return Ray(start, along / length) if length > 1e-9 else None


def nearest_dot(of: Ray, places: NDArray[np.float32], within: float = 0.06) -> int | None:
    """The number of the dot of ``places`` (N, 2), in the plane z = 0, that is nearest to where a ray meets that plane;
    None if all are farther than ``within``, or it does not meet the plane."""
    if of.direction[2] == 0:
        return None
    t = -of.origin[2] / of.direction[2]
    if t <= 0 or len(places) == 0:
        return None
    away = np.linalg.norm(places - (of.origin + t * of.direction)[:2], axis=1)
    nearest = int(away.argmin())
    return nearest if away[nearest] <= within else None


def met(of: Ray, centres: Sequence[Place], radius: float) -> int | None:
    """The number of the first ball of ``radius`` that a ray meets; None if it meets none."""
    first, found = math.inf, None
    for number, centre in enumerate(centres):
        to = np.asarray(centre) - of.origin
        along = float(to @ of.direction)
        if 0 < along < first and float(to @ to) - along**2 <= radius**2:
            first, found = along, number
    return found


def hit(of: Ray, form: Form) -> NDArray[np.float32] | None:
    """Where (3,) a ray first hits the triangles of ``form``; of a cloud, the first of its points that it passes within
    0.05 of. None if it misses."""
    if len(form.faces):
        found = ops.cast_rays(form.vertices, form.faces, of.origin[None].astype(np.float32), of.direction[None])
        t = float(found.t[0])
        return (of.origin + t * of.direction).astype(np.float32) if math.isfinite(t) and t >= 0 else None
    to = form.vertices - of.origin
    along = to @ of.direction
    near = (along > 0) & ((to**2).sum(1) - along**2 <= NEAR_POINT**2)
    rows = np.flatnonzero(near)
    return form.vertices[rows[along[rows].argmin()]] if len(rows) else None


def about_z(angle: float) -> Quaternion:
    """The turn about z by ``angle`` degrees."""
    half = math.radians(angle) / 2
    return math.cos(half), 0.0, 0.0, math.sin(half)


def upright(up: Up) -> Quaternion:
    """The turn that brings the axis ``up`` of a shape to z."""
    return (math.sqrt(0.5), math.sqrt(0.5), 0.0, 0.0) if up == "y" else (1.0, 0.0, 0.0, 0.0)


def into_body(of: Ray, place: Place, angle: float, up: Up) -> Ray:
    """A ray of the scene in the coordinates of a shape that stands at ``place``, was brought upright and turned about
    z by ``angle`` degrees."""
    c, s = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    turn = np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])
    stand = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]]) if up == "y" else np.eye(3)
    to_scene = turn @ stand
    return Ray((of.origin - np.asarray(place)) @ to_scene, of.direction @ to_scene)
