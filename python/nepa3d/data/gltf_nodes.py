"""The nodes of a glTF scene and the places that they give to meshes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nepa3d.data.gltf_document import FLOATS, INSTANCING, VISIBILITY, Document, Item

_ROTATIONS = (5120, 5122, 5126)
_AFFINE_TOLERANCE = 1e-3


def world_matrices(document: Document) -> list[NDArray[np.float64]]:
    """The transform (4, 4) of each node with those above it. Refuses nodes that are not trees."""
    count = document.count("nodes")
    parents = _parents(document)
    world = [np.eye(4)] * count
    open_nodes = [node for node in range(count) if parents[node] is None]
    done = 0
    while open_nodes:
        index = open_nodes.pop()
        done += 1
        node, parent = document.at("nodes", index), parents[index]
        above = np.eye(4) if parent is None else world[parent]
        local = _local(node)
        world[index] = above if local is None else above @ local
        open_nodes += node.indices("children", count)
    if done < count:
        raise ValueError("the nodes are no trees: some are below themselves")
    return world


def nodes_of_scene(document: Document) -> list[int]:
    """The visible nodes of the default scene, else of the first, else, without scenes, of all trees."""
    parents = _parents(document)
    if document.count("scenes"):
        named = document.root.has("scene")
        scene = document.entry("scenes", document.root, "scene") if named else document.at("scenes", 0)
        roots = list(dict.fromkeys(scene.indices("nodes", document.count("nodes"))))
        for root in roots:
            if parents[root] is not None:
                raise ValueError(f"{scene.where} names node {root}, which is a child of node {parents[root]}")
    else:
        roots = [node for node, parent in enumerate(parents) if parent is None]
    found = []
    open_nodes = roots[::-1]
    while open_nodes:
        index = open_nodes.pop()
        node = document.at("nodes", index)
        visibility = node.extension(VISIBILITY)
        if visibility is None or visibility.flag("visible", True):
            found.append(index)
            open_nodes += node.indices("children", document.count("nodes"))[::-1]
    return found


def instance_count(document: Document, node: Item) -> int:
    """How often a node shows its mesh."""
    instancing = node.extension(INSTANCING)
    if instancing is None:
        return 1
    if node.has("skin"):
        raise ValueError(f"{node.where} has both {INSTANCING} and a skin")
    attributes = instancing.item("attributes")
    counts = {document.entry("accessors", attributes, name).integer("count") for name in attributes.members}
    if len(counts) != 1:
        raise ValueError(f"{attributes.where} have {sorted(counts)} elements, not one number of them")
    return counts.pop()


def instances(document: Document, node: Item, world: NDArray[np.float64]) -> NDArray[np.float64]:
    """The transforms (N, 4, 4) at which a node shows its mesh; ``world`` is the node's."""
    instancing = node.extension(INSTANCING)
    if instancing is None:
        return world[None]
    attributes = instancing.item("attributes")
    count = instance_count(document, node)
    translation, rotation, scale = np.zeros((count, 3)), np.tile([0.0, 0, 0, 1], (count, 1)), np.ones((count, 3))
    if attributes.has("TRANSLATION"):
        translation = document.accessor(attributes, "TRANSLATION", "VEC3", FLOATS).numbers(None)
    if attributes.has("ROTATION"):
        rotation = document.accessor(attributes, "ROTATION", "VEC4", _ROTATIONS).numbers(None)
    if attributes.has("SCALE"):
        scale = document.accessor(attributes, "SCALE", "VEC3", FLOATS).numbers(None)
    return world @ _composed(translation, rotation, scale)


def _parents(document: Document) -> list[int | None]:
    count = document.count("nodes")
    parents: list[int | None] = [None] * count
    for index in range(count):
        for child in document.at("nodes", index).indices("children", count):
            if parents[child] is not None:
                raise ValueError(f"node {child} is a child of node {parents[child]} and of node {index}")
            parents[child] = index
    return parents


def _local(node: Item) -> NDArray[np.float64] | None:
    """The transform (4, 4) of a node alone, ``None`` where it has none."""
    parts = {"translation": 3, "rotation": 4, "scale": 3}
    if node.has("matrix"):
        if any(node.has(part) for part in parts):
            raise ValueError(f"{node.where} has both a matrix and a translation, rotation or scale")
        matrix = node.numbers("matrix", 16).reshape(4, 4).T
        if np.abs(matrix[3] - (0, 0, 0, 1)).max() > _AFFINE_TOLERANCE:
            node.fail("matrix", "affine")
        return np.vstack([matrix[:3], (0, 0, 0, 1)])
    if not any(node.has(part) for part in parts):
        return None
    defaults = {"translation": [0.0, 0, 0], "rotation": [0.0, 0, 0, 1], "scale": [1.0, 1, 1]}
    translation, rotation, scale = (
        node.numbers(part, size) if node.has(part) else np.array(defaults[part]) for part, size in parts.items()
    )
    return _composed(translation[None], rotation[None], scale[None])[0]


def _composed(
    translation: NDArray[np.float64], rotation: NDArray[np.float64], scale: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Transforms (N, 4, 4): first the scale (N, 3), then the quaternion (N, 4), x, y, z, w, then the translation (N, 3).

    Quaternions are brought to length 1; one of length 0 turns nothing.
    """
    largest = np.abs(rotation).max(1, keepdims=True)  # first, so that no square over- or underflows
    unit = np.where(largest == 0, (0, 0, 0, 1), rotation / largest)
    x, y, z, w = (unit / np.sqrt((unit**2).sum(1, keepdims=True))).T
    matrix = np.zeros((len(unit), 4, 4))
    matrix[:, 0, :3] = np.stack([1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)], axis=1)
    matrix[:, 1, :3] = np.stack([2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)], axis=1)
    matrix[:, 2, :3] = np.stack([2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)], axis=1)
    matrix[:, :3, :3] *= scale[:, None, :]
    matrix[:, :3, 3] = translation
    matrix[:, 3, 3] = 1
    return matrix
