"""GLB files for the tests, made of a document and arrays."""

from __future__ import annotations

import copy
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nepa3d.shapes.glb import parse_glb

FIELD = Path(__file__).parents[1] / "fixtures" / "field"  # files with their right answers in test_glb.py
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


def read(content: bytes, max_faces: int = 10**6) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    vertices, faces = parse_glb(content, max_faces=max_faces)
    assert vertices.dtype == np.float64 and vertices.shape[1:] == (3,)
    assert faces.dtype == np.int64 and faces.shape[1:] == (3,)
    assert not len(faces) or (faces.min() >= 0 and faces.max() < len(vertices))
    return vertices, faces


def triangles(content: bytes) -> list[list[list[float]]]:
    vertices, faces = read(content)
    return vertices[faces].tolist()


def skinned() -> Scene:
    """A tetrahedron below a node at x 100; its last vertex follows joint 1, moved by z 5, and another both joints."""
    scene = tetrahedron()
    attributes = scene.document["meshes"][0]["primitives"][0]["attributes"]
    attributes["JOINTS_0"] = scene.add([[0, 9, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0]], "u1")
    attributes["WEIGHTS_0"] = scene.add([[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0]], "f4")
    bind = np.tile(np.eye(4), (2, 1, 1))
    bind[1, :3, 3] = [0, 0, -2]
    scene.document["nodes"] = [
        {"children": [1, 2, 3], "translation": [100, 0, 0]},
        {"mesh": 0, "skin": 0, "translation": [0, 50, 0], "scale": [-1, 1, 1]},
        {},
        {"translation": [0, 0, 7]},
    ]
    matrices = scene.add(bind.transpose(0, 2, 1).reshape(2, 16), "f4")
    scene.document["skins"] = [{"joints": [2, 3], "inverseBindMatrices": matrices}]
    return scene


def sparse(scene: Scene, places: list[int], values: Any) -> dict[str, Any]:
    indices = {"bufferView": scene.view(np.array(places, "u1").tobytes()), "componentType": 5121}
    return {
        "count": len(places),
        "indices": indices,
        "values": {"bufferView": scene.view(np.array(values, "f4").tobytes())},
    }


def corpus() -> list[bytes]:
    scene = tetrahedron()
    scene.primitive(scene.add(TETRAHEDRON, "f4", sparse=sparse(scene, [1], [[5, 6, 7]])), mode=5)
    target = [{"POSITION": scene.add(TETRAHEDRON * 2, "f4")}]
    scene.primitive(0, 1, targets=target, mode=6)
    scene.document["meshes"][0]["weights"] = [0.5]
    return [*(path.read_bytes() for path in sorted(FIELD.glob("*.glb"))), scene.pack(), skinned().pack()]


def mutated(content: bytes, rng: np.random.Generator) -> bytes:
    """A file with some bytes, a value of its JSON, or its length changed."""
    (length,) = struct.unpack_from("<I", content, 12)
    choice = rng.integers(8)
    if choice == 0:
        changed = bytearray(content)
        for at in rng.integers(0, len(content), rng.integers(1, 6)):
            changed[at] = rng.integers(256)
        return bytes(changed)
    if choice == 1:
        return content[: rng.integers(len(content))]
    document = json.loads(content[20 : 20 + length])
    for _ in range(rng.integers(1, 4)):
        change_a_value(document, rng)
    return pack(document, content[28 + length :])


VALUES: tuple[Any, ...] = (
    *(
        0,
        1,
        2,
        3,
        4,
        5,
        6,
        7,
        -1,
        255,
        10**6,
        2**31,
        2**32 - 1,
        2**63,
        10**30,
        0.5,
        -0.0,
        1e300,
        5120,
        5121,
        5123,
        5126,
    ),
    *(None, True, False, "", "VEC3", "SCALAR", "MAT4", "data:;base64,AAAA", [], [0], [0, 0, 0], [[]], {}),
    *({"POSITION": 0}, {"extensions": {"KHR_draco_mesh_compression": {"bufferView": 0}}}),
)
KEYS = (
    "bufferView",
    "byteOffset",
    "byteStride",
    "sparse",
    "normalized",
    "mode",
    "skin",
    "weights",
    "targets",
    "children",
)


def change_a_value(document: Any, rng: np.random.Generator) -> None:
    """Somewhere in the tree: a value replaced, a member dropped or added."""
    node = document
    while True:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        if not keys:
            return
        key = keys[rng.integers(len(keys))]
        if not isinstance(node[key], dict | list) or rng.random() < 0.15:
            break
        node = node[key]
    choice, value = rng.integers(5), copy.deepcopy(VALUES[rng.integers(len(VALUES))])
    if choice == 0:
        del node[key]
    elif choice == 1 and isinstance(node, dict):
        node[KEYS[rng.integers(len(KEYS))]] = value
    elif choice == 2 and isinstance(node, list):
        node.append(value if rng.random() < 0.5 else copy.deepcopy(node[key]))
    else:
        node[key] = value
