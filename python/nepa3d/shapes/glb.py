"""Reading GLB files (binary glTF 2.0): the triangles of the scene, where the scene places them.

What is read is the file's default scene as it stands: morph targets with their default weights, skinned meshes as the
joints' nodes pose them, no animation. What the file needs beyond that is refused by name. Section numbers are those of
https://registry.khronos.org/glTF/specs/2.0/glTF-2.0.html.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nepa3d.shapes.gltf_document import FLOATS, INDICES, POSITIONS, Accessor, Document, Item
from nepa3d.shapes.gltf_draco import DracoPrimitive, is_draco
from nepa3d.shapes.gltf_nodes import Nodes, instance_count, instances
from nepa3d.shapes.reading import OutOfRangeError, TooLargeError, UnsupportedError, merged

__all__ = ["OutOfRangeError", "TooLargeError", "UnsupportedError", "parse_glb"]

_TRIANGLES, _STRIP, _FAN = 4, 5, 6  # the modes of a primitive; those below are points and lines
_JOINTS = (5121, 5123)
_WEIGHTS = (5121, 5123, 5126)
_BLOCK = 65536  # vertices that are skinned at a time


def parse_glb(content: bytes, *, max_faces: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Vertices (V, 3) and triangles (F, 3) of the scene of a GLB file, in world coordinates, all parts merged.

    Vertices that no triangle uses are left out, positions that are not finite are kept, and triangles are turned where
    a transform mirrors them. Raises ``TooLargeError`` for more than ``max_faces`` triangles before memory is taken for
    them, ``UnsupportedError`` for what is not read, ``OutOfRangeError`` for indices of nothing, and any other
    ``ValueError`` for a file that cannot be read.
    """
    with np.errstate(all="ignore"):  # by positions and matrices that are not finite
        document = Document(content)
        nodes = Nodes(document)
        shapes = _shapes(document, nodes)
        total = _total_faces(document, shapes)
        if total > max_faces:
            raise TooLargeError(f"{total} triangles, at most {max_faces} are wanted")
        vertices, faces = merged(
            placed for shape, shown_by in shapes.items() for placed in _placed(document, shape, shown_by, nodes.world)
        )
    return vertices, np.ascontiguousarray(faces)


@dataclass(frozen=True)
class _Shape:
    """What nodes show that differ only in their place: a mesh, the weights of its morph targets, and its skin."""

    mesh: int
    weights: tuple[float, ...]
    skin: int | None


def _shapes(document: Document, nodes: Nodes) -> dict[_Shape, list[int]]:
    """What the scene shows, and by which nodes."""
    shapes: dict[_Shape, list[int]] = {}
    for index in nodes.of_scene():
        node = document.at("nodes", index)
        if not node.has("mesh"):
            continue
        mesh = node.index("mesh", document.count("meshes"))
        weighted = node if node.has("weights") else document.at("meshes", mesh)
        skin = node.index("skin", document.count("skins")) if node.has("skin") else None
        shapes.setdefault(_Shape(mesh, tuple(weighted.numbers("weights").tolist()), skin), []).append(index)
    return shapes


def _total_faces(document: Document, shapes: dict[_Shape, list[int]]) -> int:
    """The number of triangles that the scene declares; shapes without any are dropped from ``shapes``."""
    total = 0
    of_mesh: dict[int, int] = {}
    for shape, nodes in list(shapes.items()):
        if shape.mesh not in of_mesh:
            of_mesh[shape.mesh] = sum(
                _face_count(document, primitive) for primitive in document.at("meshes", shape.mesh).items("primitives")
            )
        if of_mesh[shape.mesh]:
            total += of_mesh[shape.mesh] * sum(instance_count(document, document.at("nodes", node)) for node in nodes)
        else:
            del shapes[shape]
    return total


def _face_count(document: Document, primitive: Item) -> int:
    mode = primitive.integer("mode", _TRIANGLES)
    if mode > _FAN:
        primitive.fail("mode", "one of 0 to 6")
    if mode < _TRIANGLES:
        return 0
    attributes = primitive.item("attributes")
    if not attributes.has("POSITION"):  # nothing to see (3.7.2.1), unless an extension has it
        if primitive.extensions():
            raise UnsupportedError(f"{primitive.where} has no POSITION but {primitive.extensions()}, which is not read")
        return 0
    of, key = (primitive, "indices") if primitive.has("indices") else (attributes, "POSITION")
    corners = document.entry("accessors", of, key).integer("count")
    return corners // 3 if mode == _TRIANGLES else max(corners - 2, 0)


def _placed(
    document: Document, shape: _Shape, nodes: list[int], world: NDArray[np.float64]
) -> Iterator[tuple[NDArray[np.float64], NDArray[np.int64]]]:
    """The shape's vertices and triangles in world coordinates, at each node."""
    joints = None if shape.skin is None else _joint_matrices(document, shape.skin, world)
    points, faces = merged(_part(document, part, shape.weights, joints) for part in _parts(document, shape.mesh))
    for index in nodes:
        if joints is not None:  # the joints say where it is, the node's transform does not (3.7.3.3)
            mirrored = 2 * int((_sign(joints) < 0).sum()) > len(joints)
            yield points, faces[:, ::-1] if mirrored else faces
            continue
        node = document.at("nodes", index)
        places = instances(document, node, world[index])
        for first in range(0, len(places), 1024):
            yield _moved(points, faces, places[first : first + 1024])


def _moved(
    points: NDArray[np.float64], faces: NDArray[np.int64], places: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Points (U, 3) and faces (F, 3) under each of the transforms ``places`` (N, 4, 4)."""
    if len(places) == 1 and np.array_equal(places[0], np.eye(4)):
        return points, faces
    moved = points @ places[:, :3, :3].transpose(0, 2, 1) + places[:, None, :3, 3]
    turned = np.where((_sign(places) < 0)[:, None, None], faces[:, ::-1], faces)
    turned += len(points) * np.arange(len(places))[:, None, None]
    return moved.reshape(-1, 3), turned.reshape(-1, 3)


def _sign(matrices: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of the determinants of transforms (N, 4, 4): below 0 where they mirror (3.7.4)."""
    return np.linalg.slogdet(matrices[:, :3, :3]).sign


@dataclass
class _Part:
    """Triangles of a mesh on one array of vertices: the primitives that share it."""

    primitive: Item
    draco: DracoPrimitive | None
    position: Accessor
    faces: list[NDArray[np.int64]]

    def attribute(self, document: Document, name: str, kind: str, components: tuple[int, ...]) -> Accessor:
        if self.draco is not None:
            found = self.draco.attribute(name, kind, components)
        else:
            found = document.accessor(self.primitive.item("attributes"), name, kind, components)
        return self.checked(found)

    def checked(self, accessor: Accessor) -> Accessor:
        if accessor.count != self.position.count:
            expected = f"{self.position.where} has {self.position.count}"
            raise ValueError(f"{self.primitive.where}: {accessor.where} has {accessor.count} elements, {expected}")
        return accessor


def _parts(document: Document, mesh: int) -> Iterator[_Part]:
    """The parts of a mesh, one for each array of vertices."""
    parts: dict[object, _Part] = {}
    for number, primitive in enumerate(document.at("meshes", mesh).items("primitives")):
        if not _face_count(document, primitive):
            continue
        extension = is_draco(document, primitive)
        if extension is not None:
            draco = DracoPrimitive(document, primitive, extension)
            position = draco.attribute("POSITION", "VEC3", POSITIONS)
            parts[number] = _Part(primitive, draco, position, [_in_range(draco.faces, position, primitive)])
            continue
        attributes = primitive.item("attributes")
        names = [name for name in attributes.members if name.startswith(("POSITION", "JOINTS_", "WEIGHTS_"))]
        targets = [
            target.integer("POSITION") if target.has("POSITION") else None for target in primitive.items("targets")
        ]
        key = (tuple((name, attributes.integer(name)) for name in sorted(names)), tuple(targets))
        if key not in parts:
            position = document.accessor(attributes, "POSITION", "VEC3", POSITIONS)
            if position.base is None and position.places is None and primitive.extensions():
                extensions = f"{primitive.where} has {primitive.extensions()}, which is not read"
                raise UnsupportedError(f"{position.where} has no numbers, and {extensions}")
            parts[key] = _Part(primitive, None, position, [])
        parts[key].faces.append(_faces(document, primitive, parts[key].position))
    yield from parts.values()


def _faces(document: Document, primitive: Item, position: Accessor) -> NDArray[np.int64]:
    """The triangles of a primitive, as indices (F, 3) into its vertices. Corners too many are left over (3.7.2.1)."""
    if primitive.has("indices"):
        accessor = document.accessor(primitive, "indices", "SCALAR", INDICES)
        stored = accessor.stored(None)[:, 0]
        restart = np.iinfo(accessor.dtype).max
        if len(stored) and stored.max() == restart:
            raise OutOfRangeError(f"{primitive.where}: index {restart} is out of range: it is kept for restarts")
        corners = stored.astype(np.int64)
    else:
        corners = np.arange(position.count)
    mode = primitive.integer("mode", _TRIANGLES)
    if mode == _TRIANGLES:
        return _in_range(corners[: len(corners) // 3 * 3].reshape(-1, 3), position, primitive)
    if mode == _FAN:
        first = np.broadcast_to(corners[:1], len(corners) - 2)
        return _in_range(np.stack([corners[1:-1], corners[2:], first], axis=1), position, primitive)
    faces = np.stack([corners[:-2], corners[1:-1], corners[2:]], axis=1)
    faces[1::2, 1:] = faces[1::2, :0:-1]
    return _in_range(faces, position, primitive)


def _in_range(faces: NDArray[np.int64], position: Accessor, primitive: Item) -> NDArray[np.int64]:
    if len(faces) and faces.max() >= position.count:
        found = f"index {faces.max()} is out of range, {position.where} has {position.count} vertices"
        raise OutOfRangeError(f"{primitive.where}: {found}")
    return faces


def _part(
    document: Document, part: _Part, weights: tuple[float, ...], joints: NDArray[np.float64] | None
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The vertices that a part's triangles use, under its morph targets and joints, and the triangles."""
    faces = part.faces[0] if len(part.faces) == 1 else np.concatenate(part.faces)
    rows, corners = _used(faces.reshape(-1), part.position.count)
    points = part.position.numbers(rows)
    targets = list(part.primitive.items("targets"))
    if any(weights) and targets and len(weights) != len(targets):
        raise ValueError(f"{part.primitive.where}.targets are {len(targets)}, and there are {len(weights)} weights")
    for target, weight in zip(targets, weights, strict=False):
        if weight and target.has("POSITION"):
            offsets = part.checked(document.accessor(target, "POSITION", "VEC3", POSITIONS))
            points += weight * offsets.numbers(rows)
    if joints is not None:
        points = _skinned(document, part, rows, points, joints)
    return points, corners.reshape(-1, 3)


def _used(corners: NDArray[np.int64], count: int) -> tuple[NDArray[np.int64] | None, NDArray[np.int64]]:
    """The vertices that ``corners`` name, ``None`` for all ``count`` of them, and the corners as indices into those."""
    if 4 * len(corners) < count:  # a small part of a large array
        return np.unique(corners, return_inverse=True)
    used = np.zeros(count, bool)
    used[corners] = True
    if used.all():
        return None, corners
    return np.flatnonzero(used), (np.cumsum(used) - 1)[corners]


def _joint_matrices(document: Document, skin: int, world: NDArray[np.float64]) -> NDArray[np.float64]:
    """What the joints of a skin do to a vertex (J, 4, 4)."""
    item = document.at("skins", skin)
    nodes = item.indices("joints", document.count("nodes"))
    if not nodes:
        item.fail("joints", "a list of nodes")
    matrices = world[nodes]
    if not item.has("inverseBindMatrices"):
        return matrices
    accessor = document.accessor(item, "inverseBindMatrices", "MAT4", FLOATS)
    if accessor.count < len(nodes):
        raise ValueError(f"{accessor.where} has {accessor.count} matrices, {item.where} {len(nodes)} joints")
    inverse = accessor.numbers(np.arange(len(nodes))).reshape(-1, 4, 4).transpose(0, 2, 1).copy()
    inverse[:, 3] = (0, 0, 0, 1)  # as it must be, and as rounding may not leave it
    return matrices @ inverse


def _skinned(
    document: Document,
    part: _Part,
    rows: NDArray[np.int64] | None,
    points: NDArray[np.float64],
    joints: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Points (U, 3) moved by the mean of their joints' matrices, in the world.

    Weights are divided by their sum, and a vertex without any follows joint 0, as in three.js.
    """
    attributes = part.primitive.item("attributes")
    sets = sum(name.startswith("JOINTS_") for name in attributes.members)
    if not sets:
        raise ValueError(f"{part.primitive.where} has a skin and no JOINTS_0")
    of = [part.attribute(document, f"JOINTS_{k}", "VEC4", _JOINTS).stored(rows) for k in range(sets)]
    by = [part.attribute(document, f"WEIGHTS_{k}", "VEC4", _WEIGHTS).numbers(rows) for k in range(sets)]
    joint, weight = np.concatenate(of, axis=1).astype(np.int64), np.concatenate(by, axis=1)
    total = weight.sum(1, keepdims=True)
    nothing = total[:, 0] == 0
    weight = np.where(nothing[:, None], 0, weight / total)
    joint[weight == 0] = 0  # a joint without weight may have any number
    weight[nothing, 0] = 1
    if joint.max(initial=0) >= len(joints):
        raise OutOfRangeError(f"{part.primitive.where}: joint {joint.max()} is out of range, there are {len(joints)}")
    moved = np.empty_like(points)
    for first in range(0, len(points), _BLOCK):
        block = slice(first, first + _BLOCK)
        matrices = np.zeros((len(points[block]), 3, 4))
        for k in range(joint.shape[1]):
            matrices += weight[block, k, None, None] * joints[joint[block, k], :3]
        moved[block] = np.einsum("uij,uj->ui", matrices[:, :, :3], points[block]) + matrices[:, :, 3]
    return moved
