"""Indexes of shapes with damaged files, killed, written by two at once, on damaged disks."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("lancedb", reason="needs nepa3d[search]")

from nepa3d import cli
from nepa3d.inference import build_index, search
from nepa3d.inference.embedder import IndexSettings
from nepa3d.inference.index import ShapeIndex
from nepa3d.models.encoder import load
from tests.conftest import GOLDEN
from tests.data.corpus import TETRAHEDRON

CKPT = GOLDEN / "nepa_v1.pt"
UPDATE = """
import os, signal, sys
from nepa3d.inference.embedder import Embedder
from nepa3d.inference.index import ShapeIndex
from nepa3d.inference.table import ShapeTable
method, at, what = {{"vectors": Embedder, "put": ShapeTable}}[{name!r}], {at}, signal.Signals[{what!r}]
original, calls = getattr(method, {name!r}), []
def counted(*arguments):
    calls.append(1)
    if len(calls) == at:
        os.kill(os.getpid(), what)
    return original(*arguments)
setattr(method, {name!r}, counted)
ShapeIndex.open({index!r}).update(batch=1, workers=1)
"""


def update_until(index: ShapeIndex, name: str, at: int, what: str) -> subprocess.Popen[bytes]:
    """A process that updates shape by shape, and sends itself a signal when it begins to embed or write one."""
    return subprocess.Popen([sys.executable, "-c", UPDATE.format(index=f"{index.path}", name=name, at=at, what=what)])


def put(path: Path, size: float) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(TETRAHEDRON.format(size), encoding="utf-8")
    return path


def make(root: Path, count: int) -> Path:
    for number in range(count):
        put(root / "shapes" / "a" / f"{number:02d}.obj", 1 + number)
    return root / "shapes"


def empty_index(root: Path, shapes: Path) -> ShapeIndex:
    return ShapeIndex.create(root / "s.lance", shapes, load(CKPT), IndexSettings(draws=1), ckpt=f"{CKPT}")


def test_damaged_files_are_listed_and_the_rest_is_indexed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """N01: also a cloud of one place, a cut cache, a name that is no UTF-8, a link to nothing."""
    shapes = make(tmp_path, 3)
    (shapes / "a" / "empty.stl").touch()
    (shapes / "a" / "junk.glb").write_bytes(b"glTF" + bytes(20))
    (shapes / "a" / "cut.npz").write_bytes(b"PK\x03\x04")
    cloud = (
        "ply\nformat ascii 1.0\nelement vertex 2\nproperty float x\nproperty float y\nproperty float z\nend_header\n"
    )
    (shapes / "a" / "point.ply").write_text(cloud + "1 1 1\n1 1 1\n", encoding="utf-8")
    os.rename(put(shapes / "a" / "odd.obj", 2), os.fsencode(shapes / "a") + b"/\xff.obj")  # noqa: PTH104
    (shapes / "a" / "lost.obj").symlink_to("nothing")
    flags = [f"{shapes}", "--out", f"{tmp_path / 's.lance'}", "--ckpt", f"{CKPT}", "--draws", "1"]
    for expected in ("3 added, 6 failed", "3 unchanged, 6 failed"):
        assert build_index.main(flags) == cli.EXIT_SOME_FAILED
        said = capsys.readouterr().out.splitlines()
        assert said[0] == f"{tmp_path / 's.lance'}: 3 shapes: {expected}"
        for line, (name, told) in zip(
            said[1:7],
            (
                ("cut.npz", "npz"),
                ("empty.stl", "empty_file"),
                ("junk.glb", "unsupported"),
                ("lost.obj", "No such file"),
                ("point.ply", "zero_extent"),
                ("", "the name is not UTF-8"),
            ),
            strict=True,
        ):
            assert line.startswith(f"  a/{name}") and told in line
    (shapes / "a" / "00.obj").write_text("v 0 0 0\n", encoding="utf-8")  # was sound
    assert build_index.main(flags) == cli.EXIT_SOME_FAILED
    assert "2 shapes: 1 removed, 2 unchanged, 7 failed" in capsys.readouterr().out
    assert ShapeIndex.open(tmp_path / "s.lance").entries().paths == ["a/01.obj", "a/02.obj"]


def test_a_shape_that_cannot_be_embedded_costs_only_itself(tmp_path: Path) -> None:
    """N02: a cache that is whole, but whose distances are not finite."""
    shapes = make(tmp_path, 2)
    with np.load(GOLDEN / "cache" / "train" / "kitchen" / "Blend_Swap_CC_0_stool.npz") as stored:
        arrays = dict(stored)
    np.savez(shapes / "a" / "nan.npz", **(arrays | {"pt_dist_pool": np.full_like(arrays["pt_dist_pool"], np.nan)}))
    index = empty_index(tmp_path, shapes)
    done = index.update()
    assert done.added == ["a/00.obj", "a/01.obj"]
    assert list(done.failed) == ["a/nan.npz"] and "not finite" in done.failed["a/nan.npz"]


def test_a_kill_while_indexing_loses_nothing_that_was_embedded(tmp_path: Path) -> None:
    """N03: the table can be read after each kill, and the next update does the rest."""
    shapes = make(tmp_path, 6)
    index = empty_index(tmp_path, shapes)
    for name, expected in (("vectors", 2), ("put", 3)):  # the second finds 2 shapes there, and writes 1
        process = update_until(index, name, 3 if name == "vectors" else 2, "SIGKILL")
        assert process.wait() == -signal.SIGKILL
        entries = ShapeIndex.open(index.path).entries()
        assert len(entries.paths) == expected
        np.testing.assert_allclose(np.linalg.norm(entries.vectors, axis=1), 1, atol=1e-6)
    before = dict(zip(entries.paths, entries.vectors, strict=True))
    done = ShapeIndex.open(index.path).update()
    assert (len(done.added), done.unchanged) == (3, 3)
    after = ShapeIndex.open(index.path).entries()
    assert len(after.paths) == len(set(after.paths)) == 6
    for path, vector in before.items():
        np.testing.assert_array_equal(after.vectors[after.paths.index(path)], vector)


def test_the_second_of_two_writers_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """N04: while an update runs; a search meanwhile sees what is written."""
    shapes = make(tmp_path, 4)
    index = empty_index(tmp_path, shapes)
    process = update_until(index, "vectors", 3, "SIGSTOP")  # in the midst of it
    assert os.WIFSTOPPED(os.waitpid(process.pid, os.WUNTRACED)[1])
    try:
        assert build_index.main([f"{shapes}", "--out", f"{index.path}"]) == cli.EXIT_USAGE
        told = capsys.readouterr().err
        assert told.startswith(f"error: {index.path}: process {process.pid} on ")
        assert told.endswith("is writing to this index; run it again afterwards\n")
        assert search.main([f"{index.path}", f"{shapes / 'a' / '03.obj'}", "-k", "1"]) == cli.EXIT_OK
    finally:
        process.send_signal(signal.SIGCONT)
    assert process.wait() == 0
    assert len(ShapeIndex.open(index.path)) == 4
    assert ShapeIndex.open(index.path).update().unchanged == 4  # the lock went with its process


def test_a_folder_that_is_gone_or_empty_empties_no_index(tmp_path: Path) -> None:
    """N05: as a disk that is not mounted looks."""
    shapes = make(tmp_path, 2)
    index = empty_index(tmp_path, shapes)
    index.update()
    shapes.rename(tmp_path / "away")
    with pytest.raises(ValueError, match="is not a folder"):
        index.update()
    shapes.mkdir()
    with pytest.raises(ValueError, match="no shape below"):
        index.update()
    assert len(ShapeIndex.open(index.path)) == 2


def test_a_damaged_table_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """N06: one line, status 74."""
    shapes = make(tmp_path, 2)
    index = empty_index(tmp_path, shapes)
    index.update()
    shutil.copytree(index.path, tmp_path / "t.lance")
    for file in (index.path / "data").iterdir():
        file.write_bytes(file.read_bytes()[:20])
    for file in (tmp_path / "t.lance" / "_versions").glob("*.manifest"):
        file.write_bytes(b"junk")
    for path in (index.path, tmp_path / "t.lance"):
        assert search.main([f"{path}", f"{shapes / 'a' / '00.obj'}"]) == cli.EXIT_IO
        said = capsys.readouterr()
        assert said.err.startswith(f"error: {path}: the index cannot be read or written: ")
        assert said.err.count("\n") == 1 and said.out == ""
