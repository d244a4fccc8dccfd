"""GLB files: each right, or refused by the name of what is not read."""

from __future__ import annotations

import base64
import json
import resource
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from nepa3d.data.glb import OutOfRangeError, TooLargeError, UnsupportedError, parse_glb
from tests.data.glb_files import (
    TETRAHEDRON,
    TETRAHEDRON_FACES,
    Scene,
    area,
    pack,
    shared_vertices,
    tetrahedron,
    volume,
)

FIELD = Path(__file__).parents[1] / "fixtures" / "field"


def read(content: bytes, max_faces: int = 10**6) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    vertices, faces = parse_glb(content, max_faces=max_faces)
    assert vertices.dtype == np.float64 and vertices.shape[1:] == (3,)
    assert faces.dtype == np.int64 and faces.shape[1:] == (3,)
    assert not len(faces) or (faces.min() >= 0 and faces.max() < len(vertices))
    return vertices, faces


def triangles(content: bytes) -> list[list[list[float]]]:
    vertices, faces = read(content)
    return vertices[faces].tolist()


@pytest.mark.parametrize(
    ("name", "count", "surface", "low", "high"),
    [
        ("glb_fan0", 7, 5.407555, (0, 0, 0), (2, 1, 1.2)),
        ("glb_gpu_instancing", 36, 32.625, (1.5, 0.5, 0.25), (6, 6.75, 3)),
        ("glb_noscene", 12, 10.875, (1.5, 0.5, 0.25), (2, 1.75, 3)),
        ("glb_quant_two", 24, 21.750195, (1.5, 0.5, 0.25), (6, 1.75, 3)),
    ],
)
def test_field_files(name: str, count: int, surface: float, low: tuple[float, ...], high: tuple[float, ...]) -> None:
    vertices, faces = read((FIELD / f"{name}.glb").read_bytes())
    assert len(faces) == count
    assert area(vertices, faces) == pytest.approx(surface, rel=1e-6)
    np.testing.assert_allclose(vertices.min(0), low, atol=1e-6)
    np.testing.assert_allclose(vertices.max(0), high, atol=1e-6)


@pytest.mark.parametrize(("name", "said"), [("glb_external", "side.bin"), ("glb_meshopt", "EXT_meshopt_compression")])
def test_field_files_that_are_refused(name: str, said: str) -> None:
    with pytest.raises(UnsupportedError, match=said):
        read((FIELD / f"{name}.glb").read_bytes())


# Triangles of a primitive


@pytest.mark.parametrize("dtype", ["u1", "u2", "u4"])
def test_indices_of_each_type(dtype: str) -> None:
    scene = Scene()
    scene.primitive(scene.add(TETRAHEDRON, "f4"), scene.add(TETRAHEDRON_FACES.reshape(-1), dtype))
    vertices, faces = read(scene.pack())
    assert volume(vertices, faces) == pytest.approx(1 / 6)


@pytest.mark.parametrize("dtype", ["i1", "i2", "f4"])
def test_indices_of_other_types(dtype: str) -> None:
    scene = Scene()
    scene.primitive(scene.add(TETRAHEDRON, "f4"), scene.add([0, 1, 2], dtype))
    with pytest.raises(ValueError, match="componentType"):
        read(scene.pack())


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        (4, [[0, 1, 2]]),
        (5, [[0, 1, 2], [1, 3, 2], [2, 3, 4]]),  # 3.7.2.1: every second one is turned
        (6, [[1, 2, 0], [2, 3, 0], [3, 4, 0]]),
        (0, []),
        (1, []),
        (2, []),
        (3, []),
    ],
)
@pytest.mark.parametrize("indexed", [False, True])
def test_modes(mode: int, expected: list[list[int]], indexed: bool) -> None:
    points = np.arange(15).reshape(5, 3)
    scene = Scene()
    scene.primitive(scene.add(points, "f4"), scene.add(range(5), "u1") if indexed else None, mode=mode)
    assert triangles(scene.pack()) == points[np.array(expected, int).reshape(-1, 3)].tolist()


def test_strips_and_fans_of_fewer_than_three() -> None:
    for mode in (4, 5, 6):
        for count in (0, 1, 2):
            scene = Scene()
            scene.primitive(scene.add(TETRAHEDRON, "f4"), scene.add(np.zeros((count, 1)), "u1"), mode=mode)
            assert triangles(scene.pack()) == []


def test_a_mode_that_there_is_not() -> None:
    scene = tetrahedron()
    scene.document["meshes"][0]["primitives"][0]["mode"] = 7
    with pytest.raises(ValueError, match=r"meshes\[0\].primitives\[0\].mode is 7"):
        read(scene.pack())


@pytest.mark.parametrize(("dtype", "index"), [("u1", 255), ("u2", 65535), ("u4", 2**32 - 1), ("u2", 4)])
def test_indices_out_of_range(dtype: str, index: int) -> None:
    scene = Scene()
    scene.primitive(scene.add(TETRAHEDRON, "f4"), scene.add([0, 1, index], dtype))
    with pytest.raises(OutOfRangeError, match=f"index {index} is out of range"):
        read(scene.pack())


def test_a_restart_value_is_no_vertex() -> None:
    scene = Scene()
    scene.primitive(scene.add(np.zeros((256, 3)), "f4"), scene.add([0, 1, 255], "u1"))
    with pytest.raises(OutOfRangeError, match="255"):
        read(scene.pack())


def test_vertices_that_no_triangle_uses_are_left_out() -> None:
    scene = Scene()
    position = scene.add(np.arange(3000).reshape(1000, 3), "f4")
    scene.primitive(position, scene.add([7, 5, 999], "u2"))
    scene.primitive(position, scene.add([5, 999, 8], "u2"))
    vertices, faces = read(scene.pack())
    assert vertices[:, 0].tolist() == [15, 21, 24, 2997]
    assert faces.tolist() == [[1, 0, 3], [0, 3, 2]]


def test_primitives_share_an_array_of_vertices() -> None:
    vertices, faces = read(shared_vertices(3000))
    assert len(vertices) <= 3600 and len(faces) == 6000
    assert area(vertices, faces) == pytest.approx(3000)


def test_shared_arrays_take_no_memory() -> None:
    """3000 primitives, and 3000 meshes of accessors of their own, on one array of 40,000 vertices: 3 GB if copied."""
    grow = (
        "import resource, sys\nfrom nepa3d.data.glb import parse_glb\nfrom tests.data.glb_files import shared_vertices\n"
        "import json, struct\ncontent = shared_vertices(3000, 200)\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "assert len(parse_glb(content, max_faces=10**6)[1]) == 6000\n"
        "(length,) = struct.unpack_from('<I', content, 12)\ndocument = json.loads(content[20:20 + length])\n"
        "from tests.data.glb_files import pack\n"
        "document['meshes'] = [{'primitives': [p]} for p in document['meshes'][0]['primitives']]\n"
        "document['nodes'] = [{'mesh': k} for k in range(3000)]\ndocument['scenes'] = [{'nodes': list(range(3000))}]\n"
        "document['accessors'] += [document['accessors'][0]] * 3000\n"
        "for k, mesh in enumerate(document['meshes']):\n"
        "    mesh['primitives'][0]['attributes']['POSITION'] = 3001 + k\n"
        "content = pack(document, content[28 + length:])\n"
        "assert len(parse_glb(content, max_faces=10**6)[1]) == 6000\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    done = subprocess.run([sys.executable, "-c", grow], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 100_000  # kB


# Accessors


@pytest.mark.parametrize(
    ("dtype", "stored", "normalized", "expected"),
    [
        ("i1", [-128, -127, 127], True, [-1, -1, 1]),
        ("u1", [0, 51, 255], True, [0, 0.2, 1]),
        ("i2", [-32768, -32767, 32767], True, [-1, -1, 1]),
        ("u2", [0, 13107, 65535], True, [0, 0.2, 1]),
        ("i1", [-128, 0, 127], False, [-128, 0, 127]),
        ("u1", [0, 51, 255], False, [0, 51, 255]),
        ("i2", [-32768, 0, 32767], False, [-32768, 0, 32767]),
        ("u2", [0, 13107, 65535], False, [0, 13107, 65535]),
    ],
)
def test_quantized_positions(dtype: str, stored: list[int], normalized: bool, expected: list[float]) -> None:
    scene = Scene()
    scene.primitive(scene.add(np.tile(np.array(stored)[:, None], (1, 3)), dtype, normalized=normalized))
    assert triangles(scene.pack()) == [[[value] * 3 for value in expected]]


def test_positions_of_32_bits_are_no_positions() -> None:
    scene = Scene()
    scene.primitive(scene.add(TETRAHEDRON, "u4"))
    with pytest.raises(ValueError, match="componentType is 5125"):
        read(scene.pack())


def test_strides_and_offsets() -> None:
    """Positions between normals, from the second vertex on."""
    rows = np.arange(24, dtype="f4").reshape(4, 6)
    scene = Scene()
    scene.document["accessors"].append(
        {
            "bufferView": scene.view(b"ab" * 2 + rows.tobytes(), byteStride=24),
            "byteOffset": 4 + 24,
            "componentType": 5126,
            "count": 3,
            "type": "VEC3",
        }
    )
    scene.primitive(0)
    assert triangles(scene.pack()) == [rows[1:, :3].tolist()]


@pytest.mark.parametrize(("member", "value"), [("byteStride", 8), ("byteLength", 40), ("byteOffset", 10**9)])
def test_views_that_do_not_hold_their_accessor(member: str, value: int) -> None:
    scene = tetrahedron()
    scene.document["bufferViews"][0][member] = value
    with pytest.raises(ValueError, match=r"accessors\[0\]|bufferViews\[0\]"):
        read(scene.pack())


def sparse(scene: Scene, places: list[int], values: Any) -> dict[str, Any]:
    indices = {"bufferView": scene.view(np.array(places, "u1").tobytes()), "componentType": 5121}
    return {
        "count": len(places),
        "indices": indices,
        "values": {"bufferView": scene.view(np.array(values, "f4").tobytes())},
    }


@pytest.mark.parametrize("based", [False, True])
@pytest.mark.parametrize("filler", [0, 100])
def test_sparse_positions(based: bool, filler: int) -> None:
    """``filler`` more vertices: with them only some rows are read."""
    scene = Scene()
    points = np.ones((3 + filler, 3)) if based else np.zeros((3 + filler, 3))
    position = scene.add(points, "f4", sparse=sparse(scene, [1, 2], [[5, 6, 7], [8, 9, 10]]))
    if not based:
        del scene.document["accessors"][position]["bufferView"]
    scene.primitive(position, scene.add([0, 1, 2], "u1"))
    assert triangles(scene.pack()) == [[[int(based)] * 3, [5, 6, 7], [8, 9, 10]]]


def test_sparse_places_out_of_range() -> None:
    scene = Scene()
    scene.primitive(scene.add(np.zeros((3, 3)), "f4", sparse=sparse(scene, [3], [[5, 6, 7]])))
    with pytest.raises(OutOfRangeError, match="index 3 is out of range"):
        read(scene.pack())


@pytest.mark.parametrize("member", ["indices", "POSITION"])
def test_counts_without_bytes_are_refused(member: str) -> None:
    """2.9 million triangles of a file of a kilobyte, by an accessor of zeros: fewer than are wanted."""
    scene = tetrahedron()
    primitive = scene.document["meshes"][0]["primitives"][0]
    if member == "POSITION":
        del primitive["indices"]
    accessor = scene.document["accessors"][member == "indices"]
    del accessor["bufferView"]
    accessor["count"] = 2_999_997
    with pytest.raises(TooLargeError, match="declares 2999997 elements"):
        read(scene.pack())


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


def skinned() -> Scene:
    """A tetrahedron whose last vertex follows joint 1 (moved by z 5), another both joints, all below a node at x 100."""
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
    np.testing.assert_allclose(vertices, np.concatenate([TETRAHEDRON + [10, 0, 0], moved]) + [0, 1000, 0], atol=1e-12)
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


# Extensions


def draco(**more: Any) -> Scene:
    DracoPy = pytest.importorskip("DracoPy")  # noqa: N806
    x, y = np.meshgrid(np.arange(6.0), np.arange(5.0))
    points = np.stack([x, y, x * y / 7], axis=-1).reshape(-1, 3)
    corners = (np.arange(4)[:, None] * 6 + np.arange(5)).reshape(-1, 1)
    faces = np.concatenate([corners + [0, 1, 6], corners + [1, 7, 6]])
    normals = np.tile([0.0, 0, 1], (30, 1))
    stream = DracoPy.encode(points, faces, quantization_bits=16, normals=normals, **more)
    ids = {attribute["attribute_type"]: attribute["unique_id"] for attribute in DracoPy.decode(stream).attributes}
    scene = Scene()
    bounds = {"min": points.min(0).tolist(), "max": points.max(0).tolist()}
    scene.document["accessors"] = [
        {"componentType": 5126, "count": 30, "type": "VEC3", **bounds},
        {"componentType": 5123, "count": 120, "type": "SCALAR"},
    ]
    extension = {"bufferView": scene.view(stream), "attributes": {"POSITION": ids[0], "NORMAL": ids[1]}}
    scene.primitive(0, 1, extensions={"KHR_draco_mesh_compression": extension})
    scene.document["extensionsRequired"] = ["KHR_draco_mesh_compression"]
    return scene


def extension_of(scene: Scene) -> dict[str, Any]:
    return scene.document["meshes"][0]["primitives"][0]["extensions"]["KHR_draco_mesh_compression"]


def test_the_field_file_of_draco() -> None:
    pytest.importorskip("DracoPy")
    vertices, faces = read((FIELD / "glb_draco_box.glb").read_bytes())
    assert len(faces) == 12
    assert area(vertices, faces) == pytest.approx(10.875, rel=1e-3)
    np.testing.assert_allclose(vertices.min(0), [1.5, 0.5, 0.25], atol=1e-3)
    np.testing.assert_allclose(vertices.max(0), [2, 1.75, 3], atol=1e-3)


@pytest.mark.parametrize("options", [{}, {"preserve_order": True}, {"compression_level": 10}])
def test_draco_of_both_methods(options: dict[str, Any]) -> None:
    scene = draco(**options)
    scene.document["nodes"][0]["translation"] = [0, 0, 10]
    vertices, faces = read(scene.pack())
    assert len(faces) == 40
    np.testing.assert_allclose(vertices[:, 2] - 10, vertices[:, 0] * vertices[:, 1] / 7, atol=1e-3)
    assert (np.cross(*(vertices[faces[:, k]] - vertices[faces[:, 0]] for k in (1, 2)))[:, 2] > 0).all()


def test_a_draco_part_beside_a_plain_one() -> None:
    scene = draco()
    del scene.document["extensionsRequired"]
    scene.primitive(scene.add(TETRAHEDRON, "f4"), scene.add(TETRAHEDRON_FACES.reshape(-1), "u2"))
    assert len(read(scene.pack())[1]) == 44


def test_draco_with_a_plain_fallback_needs_no_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = tetrahedron()
    extension = {"bufferView": 0, "attributes": {"POSITION": 0}}
    scene.document["meshes"][0]["primitives"][0]["extensions"] = {"KHR_draco_mesh_compression": extension}
    monkeypatch.setitem(sys.modules, "DracoPy", None)
    assert len(read(scene.pack())[1]) == 4
    with pytest.raises(UnsupportedError, match=r"pip install nepa3d\[draco\]"):
        read((FIELD / "glb_draco_box.glb").read_bytes())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: s.document["accessors"][0].update(count=29), "has 40 triangles and 30 vertices"),
        (lambda s: s.document["accessors"][0].update(count=31), "holds 30 x 3 numbers, accessors"),
        (lambda s: s.document["accessors"][1].update(count=117), "40 triangles"),
        (lambda s: s.document["accessors"][1].update(count=123), "holds 120 indices"),
        (lambda s: s.document["accessors"][0].update(max=[50, 4, 3], min=[40, 0, 0]), "declares"),
        (lambda s: s.document["accessors"][0].update(componentType=5123), "not of the type"),
        (lambda s: extension_of(s)["attributes"].update(POSITION=9), "POSITION is 9, not one of"),
        (lambda s: extension_of(s).update(attributes={}), "POSITION is None"),
        (lambda s: s.document["bufferViews"][0].update(byteLength=60), "the Draco stream cannot be read"),
        (lambda s: s.document["bufferViews"][0].update(byteLength=10), "no header"),
    ],
)
def test_draco_that_is_not_as_declared(change: Callable[[Scene], None], said: str) -> None:
    scene = draco(preserve_order=True)
    change(scene)
    with pytest.raises(ValueError, match=said):
        read(scene.pack())


def test_draco_positions_by_their_id() -> None:
    """Normals are no positions, though they are three numbers a vertex."""
    scene = draco()
    ids = extension_of(scene)["attributes"]
    ids["POSITION"] = ids["NORMAL"]
    with pytest.raises(ValueError, match="declares"):
        read(scene.pack())


def test_a_draco_header_of_billions() -> None:
    scene = draco(preserve_order=True)
    stream = bytearray(scene.binary)
    stream[11:13] = b"\xff\xff\xff\xff\x0f\xff\xff\xff\xff\x0f"
    scene.binary = bytes(stream)
    scene.document["bufferViews"][0]["byteLength"] = len(stream)
    with pytest.raises(ValueError, match="has 4294967295 triangles and 4294967295 vertices"):
        read(scene.pack())


@pytest.mark.parametrize(
    ("name", "fine"),
    [
        ("KHR_materials_unlit", True),
        ("KHR_materials_variants", True),
        ("KHR_texture_transform", True),
        ("KHR_texture_basisu", True),
        ("EXT_texture_webp", True),
        ("KHR_lights_punctual", True),
        ("KHR_xmp_json_ld", True),
        ("KHR_mesh_quantization", True),
        ("EXT_mesh_gpu_instancing", True),
        ("KHR_meshopt_compression", False),
        ("CESIUM_RTC", False),
        ("ANY\n_thing\ud800", False),
    ],
)
def test_extensions_that_are_required(name: str, fine: bool) -> None:
    scene = tetrahedron()
    scene.document["extensionsRequired"] = [name]
    if fine:
        assert len(read(scene.pack())[1]) == 4
        return
    with pytest.raises(UnsupportedError, match="is needed, which is not read") as caught:
        read(scene.pack())
    assert ascii(name)[1:-1] in str(caught.value)


def test_meshopt_that_is_used_and_not_required() -> None:
    """Where the view's own buffer has the bytes, they are read; where it has none, the extension is named."""
    scene = tetrahedron()
    packed = {"EXT_meshopt_compression": {"buffer": 0, "byteOffset": 0, "byteLength": 8, "byteStride": 12, "count": 4}}
    scene.document["bufferViews"][0]["extensions"] = packed
    assert len(read(scene.pack())[1]) == 4
    scene.document["bufferViews"][0]["buffer"] = 1
    fallback = {"byteLength": 48, "extensions": {"EXT_meshopt_compression": {"fallback": True}}}
    scene.document["buffers"] = [{"byteLength": len(scene.binary)}, fallback]
    with pytest.raises(UnsupportedError, match="compressed by EXT_meshopt_compression"):
        read(pack(scene.document, scene.binary))


def test_unknown_extensions_that_hold_the_positions() -> None:
    scene = tetrahedron()
    primitive = scene.document["meshes"][0]["primitives"][0]
    primitive["extensions"] = {"KHR_materials_variants": {}}
    assert len(read(scene.pack())[1]) == 4
    primitive["extensions"] = {"ANY_compression": {}}
    del scene.document["accessors"][0]["bufferView"]
    with pytest.raises(UnsupportedError, match="has no numbers, and .* has ANY_compression"):
        read(scene.pack())
    primitive["attributes"] = {}
    with pytest.raises(UnsupportedError, match="has no POSITION but ANY_compression"):
        read(scene.pack())
    del primitive["extensions"]
    assert read(scene.pack())[1].tolist() == []


# The container


def test_buffers_in_the_json() -> None:
    scene = tetrahedron()
    uri = "data:application/octet-stream;base64," + base64.b64encode(scene.binary).decode()
    document = {**scene.document, "buffers": [{"byteLength": len(scene.binary), "uri": uri}]}
    assert triangles(pack(document, None)) == triangles(scene.pack())
    for wrong, error, said in (
        (uri[:-7] + "?" + uri[-6:], ValueError, "base64 cannot be read"),
        (uri[:-8], ValueError, "should have"),
        ("data:,abc", UnsupportedError, "only base64"),
        ("https://example.org/a.bin", UnsupportedError, "only buffers inside"),
    ):
        document["buffers"][0]["uri"] = wrong
        with pytest.raises(error, match=said):
            read(pack(document, None))


def test_no_other_file_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = tetrahedron()
    (tmp_path / "side.bin").write_bytes(scene.binary)
    monkeypatch.chdir(tmp_path)
    for uri in ("side.bin", str(tmp_path / "side.bin"), (tmp_path / "side.bin").as_uri()):
        with pytest.raises(UnsupportedError, match=r"only buffers inside"):
            read(pack({**scene.document, "buffers": [{"byteLength": len(scene.binary), "uri": uri}]}, scene.binary))


def test_containers_that_are_read() -> None:
    scene = tetrahedron()
    plain = scene.pack()
    expected = triangles(plain)
    (length,) = struct.unpack_from("<I", plain, 12)
    text, rest = plain[20 : 20 + length], plain[20 + length :]
    extra = struct.pack("<I4s", 4, b"ABCD") + b"1234"
    document = json.loads(text)

    def made(body: bytes) -> bytes:
        return struct.pack("<4sII", b"glTF", 2, 12 + len(body)) + body

    chunk = struct.pack("<I4s", length, b"JSON") + text
    assert triangles(plain + b"trailing") == expected
    assert triangles(made(chunk + extra + rest)) == expected
    assert triangles(made(chunk + rest + extra)) == expected
    assert triangles(pack(b"\xef\xbb\xbf" + text, scene.binary)) == expected
    assert triangles(pack(text + b"\0\0\0\0", scene.binary)) == expected
    for blanks in range(4):  # chunks of any length, with and without bytes to the next multiple of four
        odd = text.rstrip() + b" " * blanks
        assert triangles(pack(odd, scene.binary, pad=False)) == expected
        head = struct.pack("<I4s", len(odd), b"JSON")
        assert triangles(made(head + odd + b" " * (-len(odd) % 4) + rest)) == expected
    assert triangles(pack({**document, "asset": {"version": "2.1", "minVersion": "2.0"}}, scene.binary)) == expected


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        (lambda b: b[:-1], ValueError, "truncated"),
        (lambda b: b[:11], ValueError, "not a GLB file"),
        (lambda b: b"", ValueError, "not a GLB file"),
        (lambda b: b"gltf" + b[4:], ValueError, "not a GLB file"),
        (lambda b: b[:4] + struct.pack("<I", 1) + b[8:], UnsupportedError, "version 1"),
        (lambda b: b[:4] + struct.pack("<I", 3) + b[8:], UnsupportedError, "version 3"),
        (lambda b: b[:8] + struct.pack("<I", 40) + b[12:], ValueError, "truncated: the chunk at byte 12"),
        (lambda b: b[:8] + struct.pack("<I", 12) + b[12:], ValueError, "no JSON chunk"),
        (lambda b: b[:16] + b"BIN\0" + b[20:], ValueError, "first chunk"),
        (lambda b: pack(b"[]"), ValueError, "a list of 0, not an object"),
        (lambda b: pack(b"{"), ValueError, "JSON chunk cannot be read"),
        (lambda b: pack(b'{"a": NaN}'), ValueError, "NaN is no number"),
        (lambda b: pack(b'{"a": "\xff"}'), ValueError, "JSON chunk cannot be read"),
        (lambda b: pack(b"[" * 200_000), ValueError, "nested too deeply"),
        (lambda b: pack(b'{"a": ' + b"9" * 5000 + b"}"), ValueError, "cannot be read"),
        (lambda b: pack({}), ValueError, "glTF.asset.version is None"),
        (lambda b: pack({"asset": {"version": "1.0"}}), UnsupportedError, "version '1.0' of glTF"),
        (lambda b: pack({"asset": {"version": "2.9", "minVersion": "2.9"}}), UnsupportedError, "'2.9' is needed"),
        (lambda b: pack({"asset": {"version": "2.0"}, "scenes": [{"nodes": [0]}]}), ValueError, "below 0"),
        (lambda b: pack(json.loads(b[20 : 20 + struct.unpack_from("<I", b, 12)[0]]), None), ValueError, "no bytes"),
        (
            lambda b: pack(json.loads(b[20 : 20 + struct.unpack_from("<I", b, 12)[0]]), b"1234"),
            ValueError,
            "should have",
        ),
    ],
)
def test_containers_that_are_refused(change: Callable[[bytes], bytes], error: type[ValueError], said: str) -> None:
    with pytest.raises(error, match=said):
        read(change(tetrahedron().pack()))


def test_positions_that_are_not_finite_pass_through() -> None:
    points = TETRAHEDRON.copy()
    points[1, 0], points[2, 1] = np.nan, np.inf
    scene = Scene()
    scene.primitive(scene.add(points, "f4"), scene.add(TETRAHEDRON_FACES.reshape(-1), "u2"))
    np.testing.assert_array_equal(read(scene.pack())[0], points)
    scene.document["nodes"][0]["scale"] = [2, 3, 4]
    vertices, faces = read(scene.pack())
    assert len(faces) == 4 and not np.isfinite(vertices).all()
    np.testing.assert_array_equal(vertices[[0, 3]], [[0, 0, 0], [0, 0, 4]])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("shape", ["box", "icosphere", "annulus"])
def test_as_trimesh_reads_it(shape: str) -> None:
    import io

    import trimesh

    made = {
        "box": lambda: trimesh.creation.box((1, 2, 3)),
        "icosphere": lambda: trimesh.creation.icosphere(3),
        "annulus": lambda: trimesh.creation.annulus(1, 2, 3),
    }[shape]()
    scene = trimesh.Scene()
    for k in range(3):
        turned = trimesh.transformations.rotation_matrix(k, [1, 2, 3])
        turned[:3, 3] = k
        scene.add_geometry(made, node_name=str(k), transform=turned)
    content = scene.export(file_type="glb")
    theirs = trimesh.load_mesh(io.BytesIO(content), file_type="glb", process=False)
    vertices, faces = read(content)
    assert len(faces) == len(theirs.faces) == 3 * len(made.faces)
    np.testing.assert_allclose([vertices.min(0), vertices.max(0)], theirs.bounds, atol=1e-6)
    assert area(vertices, faces) == pytest.approx(theirs.area, rel=1e-6)
    assert volume(vertices, faces) == pytest.approx(theirs.volume, rel=1e-6)


# Any bytes


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
    choice, value = rng.integers(5), VALUES[rng.integers(len(VALUES))]
    if choice == 0:
        del node[key]
    elif choice == 1 and isinstance(node, dict):
        node[KEYS[rng.integers(len(KEYS))]] = value
    elif choice == 2 and isinstance(node, list):
        node.append(value if rng.random() < 0.5 else node[key])
    else:
        node[key] = value


def corpus() -> list[bytes]:
    scene = tetrahedron()
    scene.primitive(scene.add(TETRAHEDRON, "f4", sparse=sparse(scene, [1], [[5, 6, 7]])), mode=5)
    target = [{"POSITION": scene.add(TETRAHEDRON * 2, "f4")}]
    scene.primitive(0, 1, targets=target, mode=6)
    scene.document["meshes"][0]["weights"] = [0.5]
    return [*(path.read_bytes() for path in sorted(FIELD.glob("*.glb"))), scene.pack(), skinned().pack()]


def test_any_bytes_are_read_or_refused() -> None:
    files = corpus()
    rng = np.random.default_rng(0)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outcomes = {"read": 0, "refused": 0}
    for k in range(4000):
        try:
            read(mutated(files[k % len(files)], rng), max_faces=10_000)
            outcomes["read"] += 1
        except ValueError:
            outcomes["refused"] += 1
    assert min(outcomes.values()) > 300
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64_000  # kB
