"""The extensions of GLB files: decoded, harmless, or refused by their names."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from nepa3d.shapes.glb import UnsupportedError
from tests.shapes.glb_files import (
    FIELD,
    TETRAHEDRON,
    TETRAHEDRON_FACES,
    Scene,
    area,
    pack,
    read,
    tetrahedron,
)

# Extensions


def draco(**more: Any) -> Scene:
    DracoPy = pytest.importorskip("DracoPy")  # noqa: N806
    x, y = np.meshgrid(np.arange(6.0), np.arange(5.0))
    points = np.stack([x, y, x * y / 7], axis=-1).reshape(-1, 3)
    corners = (np.arange(4)[:, None] * 6 + np.arange(5)).reshape(-1, 1)
    faces = np.concatenate([corners + np.array(of) for of in ((0, 1, 6), (1, 7, 6))])
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
        # DracoPy answers with a point cloud
        (lambda s: setattr(s, "binary", b"DRACO\2\2\1" + bytes(len(s.binary) - 8)), "holds no mesh"),
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
    with pytest.raises(UnsupportedError, match=r"has no numbers, and .* has ANY_compression"):
        read(scene.pack())
    primitive["attributes"] = {}
    with pytest.raises(UnsupportedError, match="has no POSITION but ANY_compression"):
        read(scene.pack())
    del primitive["extensions"]
    assert read(scene.pack())[1].tolist() == []
