"""The container of GLB files, its buffers, and any bytes in its place."""

from __future__ import annotations

import base64
import io
import json
import resource
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nepa3d.shapes.glb import UnsupportedError
from tests.shapes.glb_files import (
    TETRAHEDRON,
    TETRAHEDRON_FACES,
    Scene,
    area,
    corpus,
    mutated,
    pack,
    read,
    tetrahedron,
    triangles,
    volume,
)

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


def test_any_bytes_are_read_or_refused() -> None:
    files = corpus()
    rng = np.random.default_rng(0)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outcomes = {"read": 0, "refused": 0}
    for k in range(4000):
        content = mutated(files[k % len(files)], rng)
        try:
            read(content, max_faces=10_000)
            outcomes["read"] += 1
        except ValueError:
            outcomes["refused"] += 1
    assert min(outcomes.values()) > 300
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64_000  # kB
