"""Files that appear whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from nepa3d.execution import files


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
