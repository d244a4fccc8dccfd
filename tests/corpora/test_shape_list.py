"""Lists of the shapes of a split: their order and spelling, and the index of large ones."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest

from nepa3d.corpora import shape_list
from nepa3d.corpora.shape_list import ShapeList, list_shapes, open_shapes
from nepa3d.execution.files import map_npz, write_npz


def test_shapes_are_listed_sorted_and_spelt_from_the_root(golden: Path) -> None:
    names = sorted(str(path) for path in Path("cache/test").glob("*/*.npz"))
    assert list_shapes("cache", "test") == names
    assert list_shapes("./cache/", "test") == [f"./{name}" for name in names]
    assert list_shapes("cache/.", "test") == [name.replace("cache/", "cache/./") for name in names]


def test_links_are_listed_and_unfinished_files_are_not(tmp_path: Path) -> None:
    (tmp_path / "real" / "b").mkdir(parents=True)
    (tmp_path / "real" / "b" / "y.npz").touch()
    (tmp_path / "s" / "a").mkdir(parents=True)
    (tmp_path / "s" / "a" / "x.npz").symlink_to(tmp_path / "real" / "b" / "y.npz")
    (tmp_path / "s" / "b").symlink_to(tmp_path / "real" / "b")
    for name in ("a/.tmp-1.npz", "a/notes.txt", "flat.npz"):
        (tmp_path / "s" / name).touch()
    relative = [os.path.relpath(path, tmp_path) for path in list_shapes(tmp_path, "s")]
    assert relative == ["s/a/x.npz", "s/b/y.npz"]


@pytest.mark.parametrize(("split", "fault"), [("nowhere", "no such folder"), ("empty", "holds no")])
def test_folder_without_shapes_is_named(tmp_path: Path, split: str, fault: str) -> None:
    (tmp_path / "empty" / "class").mkdir(parents=True)
    with pytest.raises(ValueError, match=fault) as caught:
        list_shapes(tmp_path, split)
    assert str(tmp_path / split) in str(caught.value)


def test_a_list_is_a_sequence() -> None:
    names = ["a/x.npz", "b/\udcff.npz", "b/zebra \u00e9.npz"]
    shapes = ShapeList.of("root/s", names)
    paths = [f"root/s/{name}" for name in names]
    assert list(shapes) == paths
    assert (len(shapes), shapes[-1], shapes[1:]) == (3, paths[2], paths[1:])
    with pytest.raises(IndexError):
        shapes[3]


@pytest.fixture
def indexed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A split of three shapes whose index is written at once and trusted at once."""
    monkeypatch.setattr(shape_list, "INDEX_FROM", 2)
    monkeypatch.setattr(shape_list, "SETTLED_NS", 0)
    for name in ("a/x", "a/y", "b/z"):
        (tmp_path / "s" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "s" / f"{name}.npz").touch()
    open_shapes(tmp_path, "s")
    return tmp_path


def names(root: Path) -> list[str]:
    return [os.path.relpath(path, root / "s") for path in open_shapes(root, "s")]


def test_the_index_answers_without_reading_the_folders(indexed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shape_list, "_from_folders", None)
    assert names(indexed) == ["a/x.npz", "a/y.npz", "b/z.npz"]
    spelt = f"{indexed}/./"
    assert open_shapes(spelt, "s")[0] == f"{indexed}/./s/a/x.npz"


@pytest.mark.parametrize("change", ["added", "removed", "class added", "class removed"])
def test_a_changed_folder_is_read_again(indexed: Path, change: str) -> None:
    split = indexed / "s"
    if change == "added":
        (split / "b" / "new.npz").touch()
    elif change == "removed":
        (split / "a" / "x.npz").unlink()
    elif change == "class added":
        (split / "c").mkdir()
        (split / "c" / "new.npz").touch()
    else:
        (split / "b" / "z.npz").unlink()
        (split / "b").rmdir()
    wanted = sorted(os.path.relpath(path, split) for path in split.glob("*/*.npz"))
    assert names(indexed) == wanted
    assert names(indexed) == wanted  # from the new index


def test_a_folder_that_changed_just_before_may_have_changed_since(
    indexed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shape_list, "SETTLED_NS", 2_000_000_000)
    os.utime(indexed / "s" / "a", ns=(time.time_ns(), time.time_ns()))
    read = []
    folders = shape_list._from_folders
    monkeypatch.setattr(shape_list, "_from_folders", lambda *args: read.append(1) or folders(*args))
    names(indexed)
    names(indexed)
    assert len(read) == 2


@pytest.mark.parametrize("damage", [b"", b"PK nonsense", None])
def test_a_damaged_index_is_made_anew(indexed: Path, damage: bytes | None) -> None:
    index = indexed / "_meta" / "index_s.npz"
    if damage is None:
        write_npz(index, {"names": np.zeros(3, np.uint8)})
    else:
        index.write_bytes(damage)
    assert len(names(indexed)) == 3
    assert len(map_npz(index)["ends"]) == 3


def test_small_splits_are_not_indexed(tmp_path: Path) -> None:
    (tmp_path / "s" / "a").mkdir(parents=True)
    (tmp_path / "s" / "a" / "x.npz").touch()
    open_shapes(tmp_path, "s")
    assert not (tmp_path / "_meta").exists()
