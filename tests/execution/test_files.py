"""Files that appear whole or not at all."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest

from nepa3d.execution import files, npz


def test_a_failed_write_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    files.write_text(path, "before")

    def interrupted() -> None:
        with files.atomic_open(path) as file:
            file.write(b"half of the new con")
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        interrupted()
    assert path.read_text() == "before"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_nothing_shows_before_the_end(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.bin"
    with files.atomic_open(path) as file:
        file.write(b"x")
        file.flush()
        assert not path.exists()
    assert path.read_bytes() == b"x"


def test_json_and_npz(tmp_path: Path) -> None:
    files.write_json(tmp_path / "a.json", {"a": [1, 2]})
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": [1, 2]}
    for deflate in (False, True):
        files.write_npz(tmp_path / "a.npz", {"x": np.arange(5)}, deflate=deflate)
        with np.load(tmp_path / "a.npz", allow_pickle=False) as arrays:
            np.testing.assert_array_equal(arrays["x"], np.arange(5))


def test_npz_of_every_shape_is_mapped_in_place(tmp_path: Path) -> None:
    arrays = {
        "scalar": np.array(3.5),
        "empty": np.zeros((0, 3), np.float32),
        "half": np.arange(24, dtype=np.float16).reshape(2, 3, 4),
        "ä": np.arange(3, dtype=">i4"),
        "transposed": np.arange(6).reshape(2, 3).T,
        "strided": np.arange(10)[::3],
    }
    path = tmp_path / "a.npz"
    files.write_npz(path, arrays)
    with np.load(path, allow_pickle=False) as stored:
        assert list(stored) == list(arrays)
        for name, array in arrays.items():
            assert stored[name].dtype == array.dtype
            np.testing.assert_array_equal(stored[name], array)
    assert path.read_bytes().index(arrays["half"].tobytes()) % 64 == 0


@pytest.mark.parametrize("names", [[], ["x"], ["ä", "x", "y"]])
def test_the_layout_is_that_of_the_standard_library(names: list[str]) -> None:
    arrays: dict[str, np.ndarray] = {name: np.arange(5.0)[::2] for name in names}
    if names:
        record = np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")])
        arrays |= {"": np.array(3.5), "none": np.zeros((0, 3)), "turned": np.ones((2, 3)).T, "record": record}
    ours, theirs = io.BytesIO(), io.BytesIO()
    npz.save_npz(ours, arrays)
    npz.save_npz_by_zipfile(theirs, arrays)
    assert ours.getvalue() == theirs.getvalue()


def test_large_archives_are_left_to_the_standard_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(npz, "LARGEST", 1000)
    monkeypatch.setattr(npz, "save_npz_by_zipfile", lambda file, arrays: file.write(b"large"))
    file = io.BytesIO()
    npz.save_npz(file, {"x": np.zeros(1000, np.uint8)})
    assert file.getvalue() == b"large"


def write(content: bytes) -> Callable[[BinaryIO], None]:
    def fill(file: BinaryIO) -> None:
        file.write(content)

    return fill


def test_files_that_are_finished_together(tmp_path: Path) -> None:
    """None shows before all are synced; one that cannot be put in place costs no other, and leaves nothing."""
    (tmp_path / "b").mkdir()
    pending = [files.write_pending(tmp_path / name, write(name.encode())) for name in ("a", "b", "new/c", "d")]
    assert {path.name for path in tmp_path.iterdir() if not path.name.startswith(".tmp-")} == {"b", "new"}
    (tmp_path / "d").write_bytes(b"before")
    failed = files.finish(pending)
    assert [file.path.name for file in failed] == ["b"]
    assert isinstance(failed[pending[1]], IsADirectoryError)
    for name in ("a", "new/c", "d"):
        assert (tmp_path / name).read_bytes() == name.encode()
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b", "new", "d"}


def test_every_file_is_synced_before_any_is_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[tuple[str, str]] = []
    replace, sync = Path.replace, files.sync

    def noted_replace(old: Path, new: Path) -> Path:
        steps.append(("rename", new.name))
        return replace(old, new)

    def noted_sync(path: Path) -> None:
        steps.append(("sync", path.name))
        sync(path)

    monkeypatch.setattr(Path, "replace", noted_replace)
    monkeypatch.setattr(files, "sync", noted_sync)
    pending = [files.write_pending(tmp_path / name, write(b"x")) for name in ("a", "b")]
    assert steps == []
    assert files.finish(pending) == {}
    temporary = [("sync", file.temporary.name) for file in pending]
    assert steps == [*temporary, ("rename", "a"), ("rename", "b"), ("sync", tmp_path.name)]


def test_a_folder_that_vanishes_and_one_that_cannot_be_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pending = [files.write_pending(tmp_path / name, write(b"x")) for name in ("gone/a", "kept/b")]
    shutil.rmtree(tmp_path / "gone")
    failed = files.finish(pending)
    assert [file.path.name for file in failed] == ["a"]
    assert (tmp_path / "kept" / "b").read_bytes() == b"x"
    pending = [files.write_pending(tmp_path / "kept" / "c", write(b"x"))]
    sync = files.sync

    def refuse(path: Path) -> None:
        if path.is_dir():
            raise OSError(5, "Input/output error")
        sync(path)

    monkeypatch.setattr(files, "sync", refuse)
    (error,) = files.finish(pending).values()
    assert error.filename == f"{tmp_path / 'kept'}"


def test_a_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def fail(file: BinaryIO) -> None:
        file.write(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match=r"No space left on device: '.*a\.npz'"):
        files.write_pending(tmp_path / "a.npz", fail)
    assert not list(tmp_path.iterdir())


def test_reading_ahead_blocks_on_nothing_and_raises_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 5000)
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "file", tmp_path / "pipe", tmp_path / "missing", tmp_path):
        files.read_ahead(path)


def test_leftovers_are_removed(tmp_path: Path, orphan_prefix: str) -> None:
    folder = tmp_path / "deep"
    folder.mkdir()
    (folder / f"{orphan_prefix}x1.npz").write_bytes(b"half")
    (folder / f"{orphan_prefix}x2").mkdir()
    elsewhere = orphan_prefix.replace(files.TEMPORARY_PREFIX, f"{files.TEMPORARY_PREFIX}not-")
    kept = {f"{files.temporary_prefix()}x", f"{elsewhere}x", "kept.npz"}
    for name in kept:
        (folder / name).write_bytes(b"whole")
    assert files.remove_temporaries(tmp_path) == 2
    assert {path.name for path in folder.iterdir()} == kept


def test_stored_arrays_are_mapped(tmp_path: Path) -> None:
    arrays = {
        "a": np.arange(12, dtype=np.float32).reshape(4, 3),
        "b": np.asfortranarray(np.arange(6).reshape(2, 3)),
        "empty": np.zeros((0, 3)),
    }
    files.write_npz(tmp_path / "a.npz", arrays)
    mapped = files.map_npz(tmp_path / "a.npz")
    assert mapped.keys() == arrays.keys()
    for key, array in arrays.items():
        np.testing.assert_array_equal(mapped[key], array)
        assert not mapped[key].flags.writeable
    files.write_npz(tmp_path / "deflated.npz", arrays, deflate=True)
    for name, content in (("deflated", None), ("empty", b""), ("other", b"PK something else")):
        if content is not None:
            (tmp_path / f"{name}.npz").write_bytes(content)
        with pytest.raises(ValueError, match=name):
            files.map_npz(tmp_path / f"{name}.npz")


def test_a_hash_is_of_the_content(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert files.content_hash(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_file_belongs_to_the_process_that_puts_it_in_place(tmp_path: Path) -> None:
    """The one that wrote it may have ended: another run's sweep leaves it alone all the same."""
    written = (
        "import os, sys; from nepa3d.execution import files; "
        "print(files.write_pending(sys.argv[1], lambda file: file.write(b'x'), int(sys.argv[2])).temporary)"
    )
    process = [sys.executable, "-c", written, f"{tmp_path / 'a.npz'}", f"{os.getpid()}"]
    temporary = subprocess.run(process, check=True, capture_output=True, encoding="utf-8").stdout.strip()
    assert files.remove_temporaries(tmp_path) == 0
    assert files.finish([files.PendingFile(tmp_path / "a.npz", Path(temporary))]) == {}
    assert (tmp_path / "a.npz").read_bytes() == b"x"
