"""GLB files: each right, or refused by the name of what is not read."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from nepa3d.shapes.glb import OutOfRangeError, TooLargeError, UnsupportedError
from tests.shapes.glb_files import (
    FIELD,
    TETRAHEDRON,
    TETRAHEDRON_FACES,
    Scene,
    area,
    read,
    shared_vertices,
    sparse,
    tetrahedron,
    triangles,
    volume,
)


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
        "import resource\nfrom nepa3d.shapes.glb import parse_glb\n"
        "from tests.shapes.glb_files import pack, shared_vertices\n"
        "import json, struct\ncontent = shared_vertices(3000, 200)\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "assert len(parse_glb(content, max_faces=10**6)[1]) == 6000\n"
        "(length,) = struct.unpack_from('<I', content, 12)\ndocument = json.loads(content[20:20 + length])\n"
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
