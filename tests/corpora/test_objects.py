"""The list of which files are of one object."""

from __future__ import annotations

from pathlib import Path

import pytest

from nepa3d.corpora.objects import list_path, objects_of, write_objects

PATHS = ["cache/train/chair/a_0.npz", "cache/train/chair/a_1.npz", "cache/train/lamp/b.npz"]


def test_as_listed_or_each_file_its_own(tmp_path: Path) -> None:
    assert objects_of(tmp_path, "train", PATHS) == ["chair/a_0", "chair/a_1", "lamp/b"]
    write_objects(tmp_path, "train", {"chair/a_0": "a", "chair/a_1": "a", "lamp/b": "b", "lamp/c": "c"})
    assert objects_of(tmp_path, "train", PATHS) == ["a", "a", "b"]
    assert objects_of(tmp_path, "test", PATHS[:1]) == ["chair/a_0"]


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ('{"chair/a_0": "a", "chair/a_1": "a"}', "1 are missing; first: lamp/b"),
        ('{"chair/a_0": 1, "chair/a_1": "a", "lamp/b": "b"}', "expected a JSON object of names"),
        ('["a"]', "expected a JSON object of names"),
        ('{"chair', "expected a JSON object of names, got"),
    ],
)
def test_a_list_that_is_wrong_is_named(tmp_path: Path, content: str, fault: str) -> None:
    file = list_path(tmp_path, "train")
    file.parent.mkdir()
    file.write_text(content)
    with pytest.raises(ValueError, match=fault) as caught:
        objects_of(tmp_path, "train", PATHS)
    assert f"{file}" in str(caught.value)
