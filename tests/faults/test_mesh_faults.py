"""Bad meshes beside good ones in one run: each ends in its state, the rest is made (docs/faults.md, rows M)."""

from __future__ import annotations

import json
import math
import os
import resource
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from nepa3d import cli, ops
from nepa3d.data import preprocess_shapenet
from nepa3d.shapes.mesh import BadShapeError, load_mesh
from tests.data.corpus import SMALL

CORNERS = ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1))
FACES = ((0, 2, 1), (0, 1, 3), (0, 3, 2), (1, 2, 3))


def obj(vertices: object = CORNERS, faces: object = FACES) -> bytes:
    lines = [f"v {x} {y} {z}" for x, y, z in vertices] + [f"f {a + 1} {b + 1} {c + 1}" for a, b, c in faces]
    return "\n".join(lines).encode() + b"\n"


def off() -> bytes:
    lines = ["OFF", "4 4 0", *(f"{x} {y} {z}" for x, y, z in CORNERS), *(f"3 {a} {b} {c}" for a, b, c in FACES)]
    return "\n".join(lines).encode() + b"\n"


def ply(form: str = "ascii", vertices: int = 4, faces: int = 4, extra: str = "") -> bytes:
    head = f"ply\nformat {form} 1.0\n{extra}element vertex {vertices}\n"
    head += "".join(f"property float {axis}\n" for axis in "xyz")
    head += f"element face {faces}\nproperty list uchar int vertex_indices\nend_header\n"
    if form == "ascii":
        body = "".join(f"{x} {y} {z}\n" for x, y, z in CORNERS) + "".join(f"3 {a} {b} {c}\n" for a, b, c in FACES)
        return (head + body).encode()
    points = b"".join(struct.pack("<3f", *corner) for corner in CORNERS)
    return head.encode() + points + b"".join(struct.pack("<B3i", 3, *face) for face in FACES)


def stl(count: int = 4) -> bytes:
    triangles = [struct.pack("<12fH", 0, 0, 0, *(x for i in face for x in CORNERS[i]), 0) for face in FACES]
    return bytes(80) + struct.pack("<I", count) + b"".join(triangles)


def glb(declared: int = 4) -> bytes:
    points = b"".join(struct.pack("<3f", *corner) for corner in CORNERS)
    indices = b"".join(struct.pack("<3I", *face) for face in FACES)
    document = {
        "asset": {"version": "2.0"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0}, "indices": 1}]}],
        "accessors": [
            {"bufferView": 0, "componentType": 5126, "count": declared, "type": "VEC3"},
            {"bufferView": 1, "componentType": 5125, "count": 12, "type": "SCALAR"},
        ],
        "bufferViews": [
            {"buffer": 0, "byteLength": len(points)},
            {"buffer": 0, "byteOffset": len(points), "byteLength": len(indices)},
        ],
        "buffers": [{"byteLength": len(points) + len(indices)}],
    }
    text = json.dumps(document).encode()
    text += b" " * (-len(text) % 4)
    data = struct.pack("<I4s", len(text), b"JSON") + text
    data += struct.pack("<I4s", len(points) + len(indices), b"BIN\0") + points + indices
    return b"glTF" + struct.pack("<II", 2, 12 + len(data)) + data


def wrl(faces: object = FACES) -> bytes:
    points = ", ".join(f"{x} {y} {z}" for x, y, z in CORNERS)
    index = ", ".join(f"{a}, {b}, {c}, -1" for a, b, c in faces)
    face_set = f"IndexedFaceSet {{\n coord Coordinate {{ point [ {points} ] }}\n coordIndex [ {index} ]\n}}"
    return f"#VRML V2.0 utf8\nShape {{ geometry {face_set} }}\n".encode()


WHOLE = {
    "obj": obj(),
    "off": off(),
    "ply": ply("binary_little_endian"),
    "stl": stl(),
    "glb": glb(),
    "wrl": wrl(),
}
BILLION = 10**9


def scaled(factor: float, offset: float = 0.0) -> bytes:
    return obj([tuple(repr(factor * x + offset) for x in corner) for corner in CORNERS])


def with_vertex(*values: str, at: int = 3) -> bytes:
    return obj([values if i == at else corner for i, corner in enumerate(CORNERS)])


@dataclass(frozen=True)
class Row:
    """A mesh file and what becomes of it: a state, and what its reason says."""

    suffix: str
    content: bytes
    state: str
    reason: str = ""


ROWS: dict[str, Row] = {
    **{f"M01-empty-{kind}": Row(kind, b"", "bad_input", "empty_file: the file has 0 bytes") for kind in WHOLE},
    **{f"M02-garbage-{kind}": Row(kind, bytes(range(1, 256)) * 4, "bad_input") for kind in WHOLE},
    "M03-claims-off": Row("off", b"OFF\n1000000000 1000000000 0\n0 0 0\n", "bad_input", "more than the file can hold"),
    "M03-claims-ply-ascii": Row("ply", ply("ascii", BILLION, BILLION), "bad_input"),
    "M03-claims-ply-binary": Row("ply", ply("binary_little_endian", BILLION, BILLION), "bad_input", "unreadable"),
    "M03-claims-stl": Row("stl", stl(2**32 - 1), "bad_input"),
    "M03-claims-glb": Row("glb", glb(BILLION), "bad_input", "too_large"),
    "M04-one-nan": Row("obj", with_vertex("nan", "0", "0"), "ok_repaired", "3 nonfinite faces"),
    "M04-one-infinite": Row("obj", with_vertex("0", "-inf", "1e999"), "ok_repaired", "nonfinite"),
    "M05-all-nan": Row("obj", obj([("nan",) * 3] * 4), "bad_input", "nonfinite_vertices"),
    "M06-index-V": Row("obj", obj(faces=[(0, 1, 4)]), "bad_input", "index_out_of_range: line 5"),
    "M06-index-zero": Row("obj", obj() + b"f 0 1 2\n", "bad_input", "index_out_of_range: line 9"),
    "M06-index-before-start": Row("obj", obj() + b"f -1 -2 -5\n", "bad_input", "index_out_of_range: line 9"),
    "M06-index-2-31": Row("obj", obj() + b"f 1 2 2147483648\n", "bad_input", "index_out_of_range"),
    "M06-index-2-64": Row("obj", obj() + b"f 1 2 18446744073709551617\n", "bad_input", "index_out_of_range"),
    "M06-index-off": Row("off", off().replace(b"3 1 2 3", b"3 1 2 4"), "bad_input", "index_out_of_range"),
    "M06-index-ply": Row("ply", ply().replace(b"3 1 2 3", b"3 1 2 -4"), "bad_input", "index_out_of_range"),
    "M06-index-wrl": Row("wrl", wrl([(0, 1, 4)]), "bad_input", "index_out_of_range: line 5"),
    "M06-index-wrl-2-64": Row("wrl", wrl([(0, 1, 2**64)]), "bad_input", "index_out_of_range: line 4"),
    "M07-relative": Row("obj", obj(faces=[]) + b"f -4 -2 -3\nf -4 -3 -1\n", "ok"),
    "M08-no-faces": Row("obj", obj(faces=[]), "bad_input", "no_faces: 4 vertices"),
    "M08-one-point": Row("obj", b"v 1 2 3\n", "bad_input", "no_faces"),
    "M08-comments": Row("obj", b"# nothing\n" * 10, "bad_input", "no_faces"),
    "M09-all-degenerate": Row("obj", obj(faces=[(0, 0, 1), (2, 2, 2)]), "bad_input", "all_degenerate"),
    "M09-collinear": Row("obj", obj([(i, i, i) for i in range(3)], [(0, 1, 2)]), "bad_input", "all_degenerate"),
    "M10-half-degenerate": Row("obj", obj(faces=[*FACES, (0, 0, 1)]), "ok_repaired", "1 degenerate faces"),
    "M10-duplicates": Row("obj", obj(faces=[*FACES, *FACES]), "ok_repaired", "4 duplicate faces"),
    "M36-mostly-degenerate": Row("obj", obj(faces=[*FACES, *[(0, 0, 1)] * 5]), "suspicious", "5 degenerate faces"),
    "M34-bytes-after": Row("stl", stl() + bytes(17), "ok_repaired", "17 bytes after the last triangle"),
    "M11-one-triangle": Row("obj", obj(CORNERS[:3], [(0, 1, 2)]), "ok"),
    "M11-crossing": Row(
        "obj", obj([*CORNERS, (0.2, 0.2, -1), (0.3, 0.2, 2), (0.2, 0.4, 2)], [*FACES, (4, 5, 6)]), "ok"
    ),
    **{f"M12-scale-{scale:g}": Row("obj", scaled(scale), "ok") for scale in (1e-300, 1e-30, 1e-6, 1e6, 1e30, 1e300)},
    "M12-offset-1e8": Row("obj", scaled(1, 1e8), "ok"),
    "M13-ngon": Row(
        "obj",
        b"".join(b"v %.12f %.12f 0\n" % (math.cos(i / 3e3), math.sin(i / 3e3)) for i in range(18000))
        + b"f "
        + b" ".join(b"%d" % (i + 1) for i in range(18000))
        + b"\n",
        "ok",
    ),
    "M14-long-line": Row("obj", b"# " + b"x" * 1_000_000 + b"\n" + obj(), "ok"),
    "M14-crlf-bom": Row("obj", b"\xef\xbb\xbf" + obj().replace(b"\n", b"\r\n"), "ok"),
    "M14-no-last-line-end": Row("obj", obj().rstrip(), "ok"),
    "M14-nul-bytes": Row("obj", obj().replace(b"v 0 1 0", b"v 0\0 1 0"), "bad_input", "line 3: a vertex"),
    "M15-material": Row("obj", b"mtllib ../../../../etc/passwd\nusemtl a\n" + obj(), "ok"),
    "M15-texture": Row("ply", ply(extra="comment TextureFile ../../../../etc/passwd\n"), "ok"),
    "M16-unknown-suffix": Row("xyz", b"0 0 0\n", "bad_input", "unsupported: no reader for .xyz"),
    "M16-archive": Row("zip", b"PK\3\4", "bad_input", "unsupported"),
    "M17-too-many-faces": Row("obj", obj(faces=[FACES[i % 4] for i in range(40000)]), "bad_input", "too_large: 40000"),
    **{f"M00-whole-{kind}": Row(kind, content, "ok") for kind, content in WHOLE.items()},
}
NAMES = {
    "M18-unicode": "Stühle \u6905\u5b50",
    "M18-spaces": " a b ",
    "M18-line-end": "a\nb",
    "M18-dash": "-rf",
    "M18-long": "x" * 250,
}
NOT_UTF8 = os.fsdecode(b"caf\xe9")


@dataclass(frozen=True)
class Run:
    """The run over all rows: its exit status, output and report, and where it wrote."""

    status: int
    printed: str
    report: dict
    corpus: Path
    out: Path

    def outcome(self, key: str) -> tuple[str, str]:
        for listed in ("failures", "repaired", "suspicious"):
            for entry in self.report[listed]:
                if entry["key"] == key:
                    return entry["state"], entry["reason"]
        return "ok", ""

    def file(self, key: str) -> Path:
        found = [self.out / split / f"{key}.npz" for split in ("train", "test")]
        return next((path for path in found if path.exists()), found[0])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    folder = tmp_path_factory.mktemp("mesh_faults")
    corpus = folder / "meshes"
    for name, row in ROWS.items():
        path = corpus / "shape" / name / "models" / f"model_normalized.{row.suffix}"
        path.parent.mkdir(parents=True)
        path.write_bytes(row.content)
    for name in [*NAMES.values(), NOT_UTF8]:
        path = corpus / "name" / name / "models" / "model_normalized.obj"
        path.parent.mkdir(parents=True)
        path.write_bytes(obj())
    odd = corpus / "odd"
    for name in ("fifo", "loop", "folder", "huge"):
        (odd / name / "models").mkdir(parents=True)
    os.mkfifo(odd / "fifo" / "models" / "model_normalized.obj")
    (odd / "loop" / "models" / "model_normalized.obj").symlink_to("model_normalized.obj")
    (odd / "folder" / "models" / "model_normalized.obj").mkdir()
    with (odd / "huge" / "models" / "model_normalized.obj").open("wb") as file:
        file.truncate(5 << 30)  # takes no space
    out = folder / "cache"
    command = [sys.executable, "-m", "nepa3d.data.preprocess_shapenet", "--shapenet_root", f"{corpus}"]
    command += ["--out_root", f"{out}", "--mesh_glob", "*/*/models/model_normalized.*", *SMALL, "--workers", "2"]
    done = subprocess.run([*command, "--max_faces", "30000"], capture_output=True, timeout=300)
    assert b"Traceback" not in done.stderr, done.stderr.decode()
    report = json.loads((out / "_meta" / "preprocess_all.json").read_text())
    yield Run(done.returncode, done.stdout.decode(errors="replace"), report, corpus, out)


@pytest.mark.parametrize("name", ROWS)
def test_a_bad_mesh_ends_in_its_state(run: Run, name: str) -> None:
    row = ROWS[name]
    key = f"shape/{name}"
    state, reason = run.outcome(key)
    assert (state, row.reason in reason) == (row.state, True), reason
    assert run.file(key).exists() == (row.state != "bad_input")
    if row.state == "suspicious":
        assert f"  {key}: suspicious: most of it could not be used: " in run.printed
    if row.state == "bad_input":
        assert f"{run.corpus / 'shape' / name}" in reason
        assert f"  {key}: bad_input: " in run.printed


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if row.state != "bad_input"])
def test_what_is_made_is_finite_and_in_the_unit_sphere(run: Run, name: str) -> None:
    with np.load(run.file(f"shape/{name}")) as arrays:
        for key in arrays.files:
            assert np.isfinite(arrays[key]).all(), key
        assert np.linalg.norm(arrays["pc_xyz"], axis=1).max() <= 1 + 1e-6


@pytest.mark.parametrize("name", [*NAMES, "M18-not-utf-8"])
def test_any_name_is_a_name(run: Run, name: str) -> None:
    assert run.file(f"name/{NAMES.get(name, NOT_UTF8)}").is_file()


@pytest.mark.parametrize("name", ["fifo", "loop", "folder", "huge"])
def test_what_is_no_mesh_file_blocks_nothing(run: Run, name: str) -> None:
    state, reason = run.outcome(f"odd/{name}")
    assert state == "bad_input"
    wanted = {"fifo": "unsupported", "loop": "no such file", "folder": "unsupported", "huge": "too_large"}
    assert wanted[name] in reason


def test_the_rest_is_made_and_the_exit_status_tells(run: Run) -> None:
    assert run.status == cli.EXIT_SOME_FAILED
    made = sum(row.state != "bad_input" for row in ROWS.values()) + len(NAMES) + 1
    assert len(list(run.out.glob("*/*/*.npz"))) == made
    assert not list(run.out.rglob(".tmp-*"))


@pytest.mark.parametrize("kind", WHOLE)
def test_a_file_cut_anywhere_is_read_or_refused(tmp_path: Path, kind: str) -> None:
    """M19: every sixteenth of its length."""
    path = tmp_path / f"cut.{kind}"
    for part in range(16):
        path.write_bytes(WHOLE[kind][: len(WHOLE[kind]) * part // 16])
        try:
            mesh = load_mesh(path)
        except BadShapeError as error:
            assert f"{path}" in str(error)
        else:
            assert np.isfinite(mesh.vertices).all()


def test_scale_and_place_do_not_matter(run: Run) -> None:
    """M12: distances of the same random samples, to 1e-4; at 1e8 float64 input keeps eight digits."""
    vertices, faces = load_mesh(_mesh(run, "M00-whole-obj")).vertices, np.array(FACES)
    queries = np.random.RandomState(0).uniform(-1, 1, (200, 3)).astype(np.float32)
    wanted = ops.closest_point(vertices, faces, queries).distance
    for name in ROWS:
        if name.startswith("M12"):
            mesh = load_mesh(_mesh(run, name))
            np.testing.assert_allclose(
                ops.closest_point(mesh.vertices, mesh.faces, queries).distance, wanted, atol=1e-4
            )


def _mesh(run: Run, name: str) -> Path:
    return run.corpus / "shape" / name / "models" / f"model_normalized.{ROWS[name].suffix}"


@pytest.mark.parametrize("name", [name for name in ROWS if name.startswith(("M01", "M02", "M03", "M15"))])
def test_no_other_file_is_opened(run: Run, name: str) -> None:
    """M15: neither a material nor a texture, wherever it is said to lie."""
    path = _mesh(run, name)
    script = (
        "import sys; from nepa3d.shapes.mesh import load_mesh; import trimesh, trimesh.exchange.ply; opened = []\n"
        "sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == 'open' else None)\n"
        "try: load_mesh(sys.argv[1])\nexcept ValueError: pass\n"
        "print([name for name in opened if 'passwd' in name or name.endswith(('.mtl', '.png', '.jpg'))])"
    )
    done = subprocess.run([sys.executable, "-c", script, f"{path}"], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


@pytest.mark.parametrize("name", [name for name in ROWS if name.startswith("M03")])
def test_claims_take_no_memory(run: Run, name: str) -> None:
    """M03: what a file says it holds is not allocated before it is there."""
    script = (
        "import resource, sys; from nepa3d.shapes.mesh import load_mesh; import trimesh\n"
        "used = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\nbefore = used()\n"
        "try: load_mesh(sys.argv[1])\nexcept ValueError: pass\nprint((used() - before) // 1024)"
    )
    done = subprocess.run([sys.executable, "-c", script, f"{_mesh(run, name)}"], capture_output=True, text=True)
    assert int(done.stdout) < 64, done.stderr


def test_a_mesh_that_takes_all_memory_costs_only_itself(tmp_path: Path) -> None:
    """M20: under a limit of address space; the shape is out of memory or its worker dies, the others are made."""
    for name, content in (("big", obj(faces=[])[:-1] + b"\nf 1 2 3" * 14_000_000), ("good", obj())):
        path = tmp_path / "meshes" / "shape" / name / "models" / "model_normalized.obj"
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
    command = [sys.executable, "-m", "nepa3d.data.preprocess_shapenet", "--shapenet_root", f"{tmp_path}/meshes"]
    command += ["--out_root", f"{tmp_path}/cache", *SMALL, "--workers", "1", "--chunk_size", "2"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, preexec_fn=_limit(resource.RLIMIT_AS, 900 << 20)
    )
    assert done.returncode == cli.EXIT_SOME_FAILED, done.stderr
    assert "shape/big: oom" in done.stdout
    assert (tmp_path / "cache" / "train" / "shape" / "good.npz").is_file()


def _limit(what: int, value: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(what, (value, value))


def test_the_twin_command_agrees_on_wrong_requests(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """M21: a corpus that is not there ends in a line, before anything is written."""
    flags = ["--shapenet_root", f"{tmp_path}/nowhere", "--out_root", f"{tmp_path}/cache"]
    assert preprocess_shapenet.main(flags) == cli.EXIT_USAGE
    assert "nowhere is not a folder" in capsys.readouterr().err
    assert not (tmp_path / "cache").exists()
