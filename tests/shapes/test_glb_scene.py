"""Where the scene of a GLB file places its meshes: nodes, morph targets, skins, instances."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nepa3d.shapes.glb import OutOfRangeError, TooLargeError
from tests.shapes.glb_files import (
    TETRAHEDRON,
    TETRAHEDRON_FACES,
    Scene,
    read,
    skinned,
    tetrahedron,
    volume,
)

# Where meshes are placed


def box_of(scene: Scene) -> tuple[list[float], list[float]]:
    vertices, faces = read(scene.pack())
    assert volume(vertices, faces) > 0
    return vertices.min(0).tolist(), vertices.max(0).tolist()


def test_a_matrix_stands_by_columns() -> None:
    scene = tetrahedron()
    scene.document["nodes"][0]["matrix"] = [2, 0, 0, 0, 0, 3, 0, 0, 0, 0, 4, 0, 10, 20, 30, 1]
    assert box_of(scene) == ([10, 20, 30], [12, 23, 34])


def test_translation_rotation_and_scale() -> None:
    """Scaled, then turned by 90 degrees about z, then moved; the quaternion is brought to length 1."""
    scene = tetrahedron()
    scene.document["nodes"][0] |= {"translation": [10, 0, 0], "rotation": [0, 0, 3, 3], "scale": [2, 3, 4]}
    vertices, faces = read(scene.pack())
    np.testing.assert_allclose(vertices, [[10, 0, 0], [10, 2, 0], [7, 0, 0], [10, 0, 4]], atol=1e-12)
    assert volume(vertices, faces) == pytest.approx(4)


def test_transforms_are_composed() -> None:
    """In the order of the tree, at three levels, and each time that a mesh is named."""
    scene = tetrahedron()
    scene.document["nodes"] = [
        {"scale": [2, 2, 2], "children": [1, 3]},
        {"translation": [1, 0, 0], "children": [2]},
        {"mesh": 0, "translation": [0, 1, 0]},
        {"mesh": 0, "translation": [0, 0, 100]},
    ]
    vertices, _ = read(scene.pack())
    np.testing.assert_array_equal(
        vertices, np.concatenate([TETRAHEDRON * 2 + [2, 2, 0], TETRAHEDRON * 2 + [0, 0, 200]])
    )


@pytest.mark.parametrize("scale", [[-1, 1, 1], [-1, -1, -1], [1e-120, -1e-120, 1e-120]])
def test_mirrored_triangles_are_turned(scale: list[float]) -> None:
    scene = tetrahedron()
    scene.document["nodes"][0]["scale"] = scale
    vertices, faces = read(scene.pack())
    assert volume(vertices / np.abs(vertices).max(), faces) == pytest.approx(1 / 6)


def test_the_scene_that_is_shown() -> None:
    scene = tetrahedron()
    scene.document["nodes"] = [{"mesh": 0, "translation": [k, 0, 0]} for k in (10, 20)] + [{"mesh": 0, "children": [0]}]
    scene.document["scenes"] = [{"nodes": [1]}, {"nodes": [2]}, {}]
    seen = {}
    for name in (0, 1, 2, None):
        scene.document.pop("scene", None)
        if name is not None:
            scene.document["scene"] = name
        seen[name] = sorted({round(x) // 10 * 10 for x in read(scene.pack())[0][:, 0].tolist()})
    del scene.document["scenes"]
    assert seen == {0: [20], 1: [0, 10], 2: [], None: [20]}
    assert len(read(scene.pack())[1]) == 12  # all trees: 1, and 2 with 0


def test_a_node_that_is_not_visible() -> None:
    scene = tetrahedron()
    scene.document["nodes"] = [
        {"children": [1, 2], "mesh": 0},
        {"mesh": 0, "children": [3], "extensions": {"KHR_node_visibility": {"visible": False}}},
        {"mesh": 0, "extensions": {"KHR_node_visibility": {"visible": True}}},
        {"mesh": 0},
    ]
    scene.document["extensionsRequired"] = ["KHR_node_visibility"]
    assert len(read(scene.pack())[1]) == 8


@pytest.mark.parametrize(
    ("nodes", "said"),
    [
        ([{"children": [1]}, {"children": [0]}], "below themselves"),
        ([{"mesh": 0}] * 3 + [{"children": [0]}], r"scenes\[0\] names node 0, which is a child of node 3"),
        ([{"mesh": 0}, {"children": [1]}], "below themselves"),
        ([{"mesh": 0}, {"children": [2]}, {"children": [1]}], "below themselves"),
        ([{"children": [1, 2]}, {"children": [2]}, {}], "node 2 is a child of node 0 and of node 1"),
        ([{"children": [1, 1]}, {}], "node 1 is a child"),
        ([{"children": [1]}], "below 1"),
        ([{"mesh": 1}], "mesh is 1"),
        ([{"mesh": True}], "mesh is True"),
        ([{"matrix": [1] * 15}], "16 numbers"),
        ([{"matrix": [1] * 16}], "affine"),
        ([{"matrix": [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1], "scale": [1, 1, 1]}], "both a matrix"),
        ([{"scale": ["1", 1, 1]}], "finite numbers"),
        ([{"scale": [1e999, 1, 1]}], "finite numbers|no number"),
        ([{"scale": [10**400, 1, 1]}], "finite numbers"),
        ([[]], r"nodes\[0\] is a list"),
        ({}, "glTF.nodes is an object, not a list"),
    ],
)
def test_wrong_nodes(nodes: Any, said: str) -> None:
    scene = tetrahedron()
    scene.document["nodes"] = nodes
    with pytest.raises(ValueError, match=said):
        read(scene.pack())


def test_a_deep_tree() -> None:
    scene = tetrahedron()
    scene.document["nodes"] = [{"children": [k + 1], "translation": [1, 0, 0]} for k in range(5000)] + [{"mesh": 0}]
    assert box_of(scene)[0] == [5000, 0, 0]


# Morph targets, skins, instances


@pytest.mark.parametrize("of", ["mesh", "node"])
def test_morph_targets_by_their_weights(of: str) -> None:
    scene = tetrahedron()
    target = [{"NORMAL": 0}, {"POSITION": scene.add(TETRAHEDRON * 2, "f4")}]
    scene.document["meshes"][0]["primitives"][0]["targets"] = target
    assert box_of(scene)[1] == [1, 1, 1]
    scene.document["meshes"][0]["weights"] = [1, 0.5] if of == "mesh" else [9, 9]
    if of == "node":
        scene.document["nodes"][0]["weights"] = [1, 0.5]
    assert box_of(scene)[1] == [2, 2, 2]
    scene.document["meshes"][0]["weights"] = scene.document["nodes"][0]["weights"] = [1]
    with pytest.raises(ValueError, match="targets are 2, and there are 1 weights"):
        read(scene.pack())


def test_a_skin_is_posed_by_its_joints() -> None:
    """The node's own transform says nothing; weights are divided by their sum; without weights it is joint 0."""
    vertices, faces = read(skinned().pack())
    assert vertices.tolist() == [[100, 0, 0], [101, 0, 2.5], [100, 1, 0], [100, 0, 6]]
    assert faces.tolist() == TETRAHEDRON_FACES.tolist()


def test_mirrored_joints_turn_triangles() -> None:
    scene = skinned()
    scene.document["nodes"][0]["scale"] = [-1, 1, 1]
    assert read(scene.pack())[1].tolist() == TETRAHEDRON_FACES[:, ::-1].tolist()


def test_a_joint_that_there_is_not() -> None:
    scene = skinned()
    scene.document["skins"][0]["joints"].pop()
    with pytest.raises(OutOfRangeError, match="joint 1 is out of range"):
        read(scene.pack())


def test_a_skin_without_joints() -> None:
    scene = skinned()
    del scene.document["meshes"][0]["primitives"][0]["attributes"]["JOINTS_0"]
    with pytest.raises(ValueError, match="has a skin and no JOINTS_0"):
        read(scene.pack())


def test_instances() -> None:
    """Below the node's transform: moved, turned by normalised shorts, scaled, and one of them mirrored."""
    scene = tetrahedron()
    attributes = {
        "TRANSLATION": scene.add([[10, 0, 0], [0, 0, 0]], "f4"),
        "ROTATION": scene.add([[0, 0, 0, 32767], [0, 0, 23170, 23170]], "i2", normalized=True),
        "SCALE": scene.add([[1, 1, 1], [2, 2, -2]], "f4"),
        "_ID": scene.add([1, 2], "f4"),
    }
    extensions = {"EXT_mesh_gpu_instancing": {"attributes": attributes}}
    scene.document["nodes"][0] |= {"translation": [0, 1000, 0], "extensions": extensions}
    vertices, faces = read(scene.pack())
    moved = TETRAHEDRON * 2 @ np.array([[0, 1, 0], [-1, 0, 0], [0, 0, -1]])
    np.testing.assert_allclose(vertices[:4], TETRAHEDRON + np.array([10, 1000, 0]), atol=1e-12)
    np.testing.assert_allclose(vertices[4:], moved + np.array([0, 1000, 0]), atol=1e-12)
    assert volume(vertices, faces) == pytest.approx((1 + 8) / 6)
    scene.document["accessors"][attributes["SCALE"]]["count"] = 1
    with pytest.raises(ValueError, match=r"have \[1, 2\] elements"):
        read(scene.pack())


def test_instances_are_counted_before_they_are_made() -> None:
    """A thousand nodes of a thousand instances each, of a mesh with four triangles."""
    scene = tetrahedron()
    extensions = {"EXT_mesh_gpu_instancing": {"attributes": {"TRANSLATION": scene.add(np.zeros((1000, 3)), "f4")}}}
    scene.document["nodes"] = [{"mesh": 0, "extensions": extensions}] * 1000
    scene.document["scenes"][0]["nodes"] = list(range(1000))
    with pytest.raises(TooLargeError, match="4000000 triangles, at most 1000000 are wanted"):
        read(scene.pack())
    assert len(read(tetrahedron().pack(), max_faces=4)[1]) == 4
    with pytest.raises(TooLargeError, match="4 triangles, at most 3"):
        read(tetrahedron().pack(), max_faces=3)
