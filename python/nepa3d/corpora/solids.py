"""Closed, outward-oriented solids to build shapes from; ``y`` is up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


class Solid(NamedTuple):
    """Triangles: ``vertices`` (V,3) and ``faces`` (F,3), counter-clockwise from outside."""

    vertices: Array
    faces: NDArray[np.int64]


def union(parts: Sequence[Solid]) -> Solid:
    """The parts as one mesh; they may overlap."""
    offsets = np.cumsum([0] + [len(part.vertices) for part in parts[:-1]])
    faces = np.concatenate([part.faces + offset for part, offset in zip(parts, offsets, strict=True)])
    return Solid(np.concatenate([part.vertices for part in parts]), faces)


def box(center: ArrayLike, size: ArrayLike, cells: int = 3) -> Solid:
    """A box with ``cells`` x ``cells`` squares a side: 12 * cells^2 triangles."""
    steps = np.arange(cells + 1)
    u, v = (axis.ravel() for axis in np.meshgrid(steps, steps, indexing="ij"))
    corners: list[NDArray[np.int64]] = []
    quads: list[NDArray[np.int64]] = []
    square = np.arange((cells + 1) ** 2).reshape(cells + 1, cells + 1)
    for axis in range(3):
        for end in (0, cells):
            points = np.empty((len(u), 3), dtype=np.int64)
            points[:, axis], points[:, axis - 2], points[:, axis - 1] = end, u, v
            around = (square[:-1, :-1], square[1:, :-1], square[1:, 1:], square[:-1, 1:])
            quad = np.stack(around, axis=-1).reshape(-1, 4) + len(corners) * len(u)
            quads.append(quad if end else quad[:, ::-1])
            corners.append(points)
    lattice, index = np.unique(np.concatenate(corners), axis=0, return_inverse=True)
    quad = index.reshape(-1)[np.concatenate(quads)]
    vertices = np.asarray(center) + (lattice / cells - 0.5) * np.asarray(size)
    return Solid(vertices, np.concatenate([quad[:, [0, 1, 2]], quad[:, [0, 2, 3]]]))


def skin(rings: Array, ends: Array | None = None) -> Solid:
    """Stitch closed ``rings`` (A,B,3) in order; close with fans to ``ends`` (2,3), or last to first."""
    count, around = rings.shape[:2]
    index = np.arange(count * around).reshape(count, around)
    index = np.concatenate([index, index[:, :1]], axis=1)
    if ends is None:
        index = np.concatenate([index, index[:1]])
    a, b, c, d = index[:-1, :-1], index[1:, :-1], index[1:, 1:], index[:-1, 1:]
    faces = [np.stack(three, axis=-1).reshape(-1, 3) for three in ((a, b, c), (a, c, d))]
    vertices = rings.reshape(-1, 3)
    if ends is not None:
        first, last = np.full(around, len(vertices)), np.full(around, len(vertices) + 1)
        faces.append(np.stack([first, index[0, :-1], index[0, 1:]], axis=-1))
        faces.append(np.stack([last, index[-1, 1:], index[-1, :-1]], axis=-1))
        vertices = np.concatenate([vertices, ends])
    solid = Solid(vertices, np.concatenate(faces))
    return solid if volume(solid) > 0 else Solid(vertices, solid.faces[:, ::-1])


def volume(solid: Solid) -> float:
    """Signed volume; positive for an outward-oriented closed mesh."""
    a, b, c = (solid.vertices[solid.faces[:, corner]] for corner in range(3))
    return float(np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6)


def revolve(profile: ArrayLike, segments: int = 32) -> Solid:
    """Turn ``profile`` (n,2), rows (radius, y) with first and last radius 0, about the y axis."""
    points = np.asarray(profile, dtype=np.float64)
    angle = np.arange(segments) * (2 * np.pi / segments)
    radius, y = points[1:-1, :1], points[1:-1, 1:]
    rings = np.stack([radius * np.cos(angle), np.broadcast_to(y, (len(y), segments)), radius * np.sin(angle)], -1)
    return skin(rings, np.array([[0, points[0, 1], 0], [0, points[-1, 1], 0]]))


def tube(path: ArrayLike, radius: ArrayLike, segments: int = 12, *, closed: bool = False) -> Solid:
    """A round tube along ``path`` (n,3) with a radius (scalar or (n,)); ``closed`` joins its ends."""
    points = np.asarray(path, dtype=np.float64)
    tangents = np.roll(points, -1, axis=0) - np.roll(points, 1, axis=0) if closed else np.gradient(points, axis=0)
    tangents /= np.linalg.norm(tangents, axis=1, keepdims=True)
    normals = _transported_normals(tangents)
    turn = np.zeros(len(points))
    if closed:  # spread the angle by which the frame misses itself after one round
        last = _reject(normals[-1], tangents[0])
        missed = np.arctan2(np.cross(last, normals[0]) @ tangents[0], last @ normals[0])
        turn = missed * np.arange(len(points)) / len(points)
    angle = np.arange(segments) * (2 * np.pi / segments) + turn[:, None]
    binormals = np.cross(tangents, normals)
    across = np.cos(angle)[..., None] * normals[:, None] + np.sin(angle)[..., None] * binormals[:, None]
    rings = points[:, None] + np.broadcast_to(np.asarray(radius), len(points))[:, None, None] * across
    return skin(rings, None if closed else points[[0, -1]])


def _transported_normals(tangents: Array) -> Array:
    normals = np.empty_like(tangents)
    normals[0] = _reject(np.eye(3)[np.argmin(np.abs(tangents[0]))], tangents[0])
    for row in range(1, len(tangents)):
        normals[row] = _reject(normals[row - 1], tangents[row])
    return normals


def _reject(vector: Array, unit: Array) -> Array:
    """The direction of what ``vector`` has across ``unit``."""
    across: Array = vector - (vector @ unit) * unit
    across /= np.linalg.norm(across)
    return across


def rod(start: ArrayLike, end: ArrayLike, radius: float | tuple[float, float]) -> Solid:
    """A straight round rod, tapered if two radii are given."""
    first, last = radius if isinstance(radius, tuple) else (radius, radius)
    ends = np.asarray(start, dtype=np.float64), np.asarray(end, dtype=np.float64)
    return tube(np.linspace(*ends, 4), np.linspace(first, last, 4))


def smooth(knots: ArrayLike, rows: int) -> Array:
    """``rows`` points of a cosine-eased curve through ``knots`` (n,2), rows (radius, y) with rising y."""
    points = np.asarray(knots, dtype=np.float64)
    y = np.linspace(points[0, 1], points[-1, 1], rows)
    left = np.clip(np.searchsorted(points[:, 1], y, side="right") - 1, 0, len(points) - 2)
    along = (y - points[left, 1]) / (points[left + 1, 1] - points[left, 1])
    ease = (1 - np.cos(np.pi * along)) / 2
    return np.stack([points[left, 0] + ease * (points[left + 1, 0] - points[left, 0]), y], axis=1)


def vessel(outside: Array, wall: float, floor: float) -> Solid:
    """An open vessel: ``outside`` (n,2) from foot to rim, its sides ``wall`` and bottom ``floor`` thick."""
    inside = outside[outside[:, 1] > outside[0, 1] + floor][::-1] - (wall, 0)
    bottom, top = (0, outside[0, 1]), (0, inside[-1, 1])
    return revolve(np.concatenate([[bottom], outside, inside, [top]]))


def superellipsoid(sizes: tuple[float, ...], round_y: float, round_xz: float, segments: int) -> Solid:
    """|x|^(2/xz), ... solid of half-axes ``sizes`` (3,); exponents 0: box, 1: ellipsoid, 2: octahedron."""

    def power(value: Array, exponent: float) -> Array:
        return np.sign(value) * np.abs(value) ** exponent

    height = np.linspace(-np.pi / 2, np.pi / 2, segments // 2 + 1)[1:-1, None]
    angle = (np.arange(segments) + 0.5) * (2 * np.pi / segments)
    ring = power(np.cos(height), round_y)
    y = np.broadcast_to(power(np.sin(height), round_y), (len(height), segments))
    rings = np.stack([ring * power(np.cos(angle), round_xz), y, ring * power(np.sin(angle), round_xz)], axis=-1)
    return skin(rings * sizes, np.array([[0, -1, 0], [0, 1, 0]]) * sizes)
