"""The nodes of a glTF scene and the places that they give to meshes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nepa3d.shapes.gltf_document import FLOATS, INSTANCING, VISIBILITY, Document, Item

_ROTATIONS = (5120, 5122, 5126)
_AFFINE_TOLERANCE = 1e-3


class Nodes:
    """The nodes of a document as trees. ``world`` is the transform (4, 4) of each, with those above it."""

    def __init__(self, document: Document) -> None:
        self._document = document
        nodes = [document.at("nodes", index) for index in range(document.count("nodes"))]
        self._children = [node.indices("children", len(nodes)) for node in nodes]
        self._parents: list[int | None] = [None] * len(nodes)
        for index, children in enumerate(self._children):
            for child in children:
                if self._parents[child] is not None:
                    raise ValueError(f"node {child} is a child of node {self._parents[child]} and of node {index}")
                self._parents[child] = index
        self.world = _locals(nodes)
        order = self._below([node for node, parent in enumerate(self._parents) if parent is None])
        if len(order) < len(nodes):
            raise ValueError("the nodes are no trees: some are below themselves")
        for index in order:
            parent = self._parents[index]
            if parent is not None:
                self.world[index] = self.world[parent] @ self.world[index]

    def of_scene(self) -> list[int]:
        """The visible nodes of the default scene, else of the first, else, without scenes, of all trees."""
        document = self._document
        if not document.count("scenes"):
            return self._below([node for node, parent in enumerate(self._parents) if parent is None], hidden=False)
        named = document.root.has("scene")
        scene = document.entry("scenes", document.root, "scene") if named else document.at("scenes", 0)
        roots = list(dict.fromkeys(scene.indices("nodes", len(self._parents))))
        for root in roots:
            if self._parents[root] is not None:
                raise ValueError(f"{scene.where} names node {root}, which is a child of node {self._parents[root]}")
        return self._below(roots, hidden=False)

    def _below(self, roots: list[int], *, hidden: bool = True) -> list[int]:
        """``roots`` and what is below them, each after its parent; without what is ``hidden`` by an extension."""
        found = []
        open_nodes = roots[::-1]
        while open_nodes:
            index = open_nodes.pop()
            visibility = None if hidden else self._document.at("nodes", index).extension(VISIBILITY)
            if visibility is None or visibility.flag("visible", True):
                found.append(index)
                open_nodes += self._children[index][::-1]
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


def _locals(nodes: list[Item]) -> NDArray[np.float64]:
    """The transform (N, 4, 4) of each node alone."""
    defaults = {"translation": [0.0, 0, 0], "rotation": [0.0, 0, 0, 1], "scale": [1.0, 1, 1]}
    parts = {part: np.tile(default, (len(nodes), 1)) for part, default in defaults.items()}
    for index, node in enumerate(nodes):
        for part, values in parts.items():
            if node.has(part):
                values[index] = node.numbers(part, values.shape[1])
    matrices = _composed(**parts)
    for index, node in enumerate(nodes):
        if not node.has("matrix"):
            continue
        if any(node.has(part) for part in parts):
            raise ValueError(f"{node.where} has both a matrix and a translation, rotation or scale")
        matrix = node.numbers("matrix", 16).reshape(4, 4).T
        if np.abs(matrix[3] - (0, 0, 0, 1)).max() > _AFFINE_TOLERANCE:
            node.fail("matrix", "affine")
        matrices[index, :3] = matrix[:3]
    return matrices


def _composed(
    translation: NDArray[np.float64], rotation: NDArray[np.float64], scale: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Transforms (N, 4, 4): the scale (N, 3), then the quaternion x, y, z, w (N, 4), then the translation (N, 3).

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
