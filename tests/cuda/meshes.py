"""Meshes and queries on which rounding and ties decide: whoever takes another way through them is found out."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from tests.ops.test_geometry import cloud, icosphere, soup

Mesh = tuple[np.ndarray, np.ndarray]


def box(cells: int = 6) -> Mesh:
    """A cube whose sides are squares of two triangles, with vertices on a lattice: every side is flat."""
    vertices: list[np.ndarray] = []
    faces: list[list[int]] = []
    for axis, side in itertools.product(range(3), (-0.5, 0.5)):
        first = len(vertices)
        for i, j in itertools.product(range(cells + 1), repeat=2):
            vertices.append(np.roll([side, i / cells - 0.5, j / cells - 0.5], axis))
        for i, j in itertools.product(range(cells), repeat=2):
            a = first + i * (cells + 1) + j
            faces += [[a, a + 1, a + cells + 2], [a, a + cells + 2, a + cells + 1]]
    return np.array(vertices, np.float32), np.array(faces)


def turned(mesh: Mesh, seed: int = 1) -> Mesh:
    rotation, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    return (mesh[0] @ rotation).astype(np.float32), mesh[1]


def repeated(mesh: Mesh, times: int = 3) -> Mesh:
    """The same faces several times: of equal answers the lowest face counts."""
    vertices, faces = mesh
    return np.tile(vertices, (times, 1)), np.concatenate([faces + i * len(vertices) for i in range(times)])


def needles(count: int = 300) -> Mesh:
    vertices, faces = soup(count, 2)
    return vertices * np.float32([1, 1e-3, 1]), faces


MESHES: dict[str, Mesh] = {
    "sphere": icosphere(2),
    "soup": soup(400),
    "box": box(),
    "turned box": turned(box()),
    "repeated": repeated(box()),
    "repeated, turned": repeated(turned(box())),
    "one face": soup(1),
    "two faces": soup(2),
    "in one place": (np.zeros((3, 3), np.float32), np.tile(np.arange(3), (40, 1))),
    "needles": needles(),
    "tiny": (icosphere(1)[0] * np.float32(1e-6), icosphere(1)[1]),
    "far": (icosphere(1)[0] + np.float32(1000), icosphere(1)[1]),
}


class Rays(NamedTuple):
    """Origins and directions (R, 3)."""

    origins: np.ndarray
    directions: np.ndarray


def on_faces(mesh: Mesh, count: int, seed: int) -> np.ndarray:
    """Points (N, 3) on corners, edges and middles of faces."""
    rng = np.random.default_rng(seed)
    vertices, faces = mesh
    weights = rng.integers(0, 3, (count, 3)) + np.eye(3)[rng.integers(3, size=count)] * 1e-9
    corners = vertices[faces[rng.integers(len(faces), size=count)]].astype(np.float64)
    return (corners * (weights / weights.sum(1, keepdims=True))[:, :, None]).sum(1).astype(np.float32)


def rays(mesh: Mesh, count: int, seed: int = 0) -> Rays:
    """Aimed at corners and edges, along the axes, along lattice directions, and some that do not point anywhere."""
    places, rng = on_faces(mesh, count, seed), np.random.default_rng(seed + 1)
    around = mesh[0].mean(0) + 2 * cloud(count, seed + 2)
    axis = np.eye(3, dtype=np.float32)[rng.integers(3, size=count)]
    lattice = np.round(4 * cloud(count, seed + 3))
    origins = np.concatenate([around, places - 2 * axis, np.round(8 * around) / 8, around])
    return Rays(origins, np.concatenate([places - around, axis, lattice, cloud(count, seed + 4)]))


def points(mesh: Mesh, count: int, seed: int = 0) -> np.ndarray:
    """Queries on the surface, above it, on a lattice, near vertices, and anywhere."""
    places, rng = on_faces(mesh, count, seed), np.random.default_rng(seed + 1)
    around = mesh[0].mean(0) + 2 * cloud(count, seed + 2)
    axis = np.eye(3, dtype=np.float32)[rng.integers(3, size=count)]
    outward = np.float32(1.5) * mesh[0][rng.integers(len(mesh[0]), size=count)]
    return np.concatenate([places, places + np.float32(0.3) * axis, np.round(8 * around) / 8, outward, around])


def joined(rows: list[np.ndarray], device: str = "cpu") -> tuple[Tensor, Tensor]:
    """The rows of all shapes, and their offsets."""
    offsets = np.cumsum([0, *map(len, rows)]).astype(np.int32)
    return torch.from_numpy(np.concatenate(rows)).to(device), torch.from_numpy(offsets).to(device)


def parts(values: Tensor, rows: list[np.ndarray]) -> list[np.ndarray]:
    """A result for joined rows, shape by shape."""
    return np.split(values.cpu().numpy(), np.cumsum([len(row) for row in rows])[:-1])
