"""GLB files for the tests, made of a document and arrays."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

CODES = {"i1": 5120, "u1": 5121, "i2": 5122, "u2": 5123, "u4": 5125, "f4": 5126}
TYPES = {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4", 16: "MAT4"}

TETRAHEDRON = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], "f4")  # volume 1/6
TETRAHEDRON_FACES = np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]], "u2")


def pack(document: Any, binary: bytes | None = b"", *, version: int = 2, pad: bool = True) -> bytes:
    """A GLB file of a document (bytes as they stand) and its binary chunk."""
    text = document if isinstance(document, bytes) else json.dumps(document).encode()
    chunks = [(b"JSON", text + b" " * (-len(text) % 4 if pad else 0))]
    if binary is not None:
        chunks.append((b"BIN\0", binary + b"\0" * (-len(binary) % 4 if pad else 0)))
    body = b"".join(struct.pack("<I4s", len(data), kind) + data for kind, data in chunks)
    return struct.pack("<4sII", b"glTF", version, 12 + len(body)) + body


class Scene:
    """A glTF document that grows: ``add`` arrays, edit ``document``, ``pack`` it."""

    def __init__(self) -> None:
        self.binary = b""
        self.document: dict[str, Any] = {
            "asset": {"version": "2.0"},
            "scene": 0,
            "scenes": [{"nodes": [0]}],
            "nodes": [{"mesh": 0}],
            "meshes": [{"primitives": []}],
            "accessors": [],
            "bufferViews": [],
        }

    def view(self, data: bytes, **more: Any) -> int:
        self.binary += b"\0" * (-len(self.binary) % 4)
        views = self.document["bufferViews"]
        views.append({"buffer": 0, "byteOffset": len(self.binary), "byteLength": len(data), **more})
        self.binary += data
        return len(views) - 1

    def add(self, array: Any, dtype: str, **more: Any) -> int:
        """An accessor of the rows of ``array``."""
        rows = np.asarray(array).astype(dtype)
        rows = rows if rows.ndim == 2 else rows[:, None]
        kind = TYPES[rows.shape[1]]
        found = {"bufferView": self.view(rows.tobytes()), "componentType": CODES[dtype], "count": len(rows)}
        self.document["accessors"].append({**found, "type": kind, **more})
        return len(self.document["accessors"]) - 1

    def primitive(self, position: int, indices: int | None = None, mesh: int = 0, **more: Any) -> dict[str, Any]:
        primitive: dict[str, Any] = {"attributes": {"POSITION": position}, **more}
        if indices is not None:
            primitive["indices"] = indices
        self.document["meshes"][mesh]["primitives"].append(primitive)
        return primitive

    def pack(self) -> bytes:
        return pack({**self.document, "buffers": [{"byteLength": len(self.binary)}]}, self.binary)


def tetrahedron() -> Scene:
    """A scene of one tetrahedron of volume 1/6, accessors 0 and 1."""
    scene = Scene()
    scene.primitive(scene.add(TETRAHEDRON, "f4"), scene.add(TETRAHEDRON_FACES.reshape(-1), "u2"))
    return scene


def shared_vertices(primitives: int, side: int = 60) -> bytes:
    """A plane of side x side vertices, of which each primitive of two triangles names the one array."""
    x, y = np.meshgrid(np.arange(side), np.arange(side))
    scene = Scene()
    position = scene.add(np.stack([x, y, 0 * x], axis=-1).reshape(-1, 3), "f4")
    for k in range(primitives):
        a = k % (side - 1) + k // (side - 1) % (side - 1) * side
        scene.primitive(position, scene.add([a, a + 1, a + side, a + 1, a + side + 1, a + side], "u2"))
    return scene.pack()


def area(vertices: NDArray[Any], faces: NDArray[Any]) -> float:
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    return float(np.linalg.norm(np.cross(b - a, c - a), axis=1).sum() / 2)


def volume(vertices: NDArray[Any], faces: NDArray[Any]) -> float:
    """Above 0 where the triangles' normals are outward."""
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    return float((a * np.cross(b, c)).sum() / 6)
