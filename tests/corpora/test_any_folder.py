"""preprocess-meshes of any folder: classes of a CSV, copies that are named, ids and splits that stay."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nepa3d import cli
from nepa3d.__main__ import main
from nepa3d.corpora.class_file import meshes_of_class_file, read_classes
from nepa3d.corpora.mesh_files import CorpusMesh
from nepa3d.corpora.same_content import same_content
from nepa3d.corpora.splits import mesh_test_split, stable_test_split
from nepa3d.data import preprocess_meshes
from tests.data.corpus import SMALL, TETRAHEDRON


def put(path: Path, size: float = 1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(TETRAHEDRON.format(size), encoding="utf-8")
    return path


def made(cache: Path) -> list[str]:
    return sorted(path.relative_to(cache).with_suffix("").as_posix() for path in cache.glob("*/*/*.npz"))


def test_classes_of_a_file(tmp_path: Path) -> None:
    for name in ("a/one.obj", "a/b/two.stl", "three.obj", "four.obj"):
        put(tmp_path / "meshes" / name)
    listed = tmp_path / "classes.csv"
    listed.write_text("\ufeffclass,path,note\nchair,a/one.obj,x\ntable,a\\b/two.stl,\nchair,./three.obj,\n", "utf-8")
    found, left_out = meshes_of_class_file(tmp_path / "meshes", listed)
    assert {mesh.key: mesh.path.name for mesh in found} == {
        "chair/a--one": "one.obj",
        "table/a--b--two": "two.stl",
        "chair/three": "three.obj",
    }
    assert left_out == [tmp_path / "meshes" / "four.obj"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("file,class\n", r"expected the columns path and class, got \['file', 'class'\]"),
        ("", "expected the columns path and class, got None"),
        ("path,class\na.obj,\n", r"classes\.csv:2: expected a class that can name a folder, got ''"),
        ("path,class\na.obj,x/../y\n", r":2: expected a class that can name a folder"),
        ("path,class\na.obj,..\n", r":2: expected a class that can name a folder"),
        ("path,class\na.obj,x\n./a.obj,y\n", r":3: a\.obj is of class y, but x before"),
        ("path,class\nb.obj,x\n", r"lists b\.obj, which is no mesh below .* \(1 are not\)"),
        ('path,class\n"a.obj,x\n', "not readable as CSV"),
    ],
)
def test_a_file_that_is_no_list_of_classes(text: str, told: str, tmp_path: Path) -> None:
    put(tmp_path / "meshes" / "a.obj")
    (tmp_path / "classes.csv").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=told):
        meshes_of_class_file(tmp_path / "meshes", tmp_path / "classes.csv")


def test_no_file_of_classes(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="classes: expected a CSV file, there is none"):
        read_classes(tmp_path / "none.csv")


def test_meshes_of_one_content_are_found(tmp_path: Path) -> None:
    for name, size in (("a", 1), ("b", 2), ("c", 1), ("d", 2), ("e", 3), ("f", 11), ("g", 1)):
        put(tmp_path / f"{name}.obj", size)
    meshes = [CorpusMesh(f"x/{name}", tmp_path / f"{name}.obj") for name in "gfedcba"]
    assert same_content(meshes) == [["x/a", "x/c", "x/g"], ["x/b", "x/d"]]
    assert same_content(meshes[:1]) == []


def test_a_stable_split_moves_nothing_when_shapes_are_added() -> None:
    keys = [f"c{number % 3}/{number}" for number in range(3000)]
    few, all_of_them = stable_test_split(keys[:1000], 0.2, 1), stable_test_split(keys, 0.2, 1)
    assert few == sorted(set(all_of_them) & set(keys[:1000]))
    assert abs(len(all_of_them) / 3000 - 0.2) < 0.03
    assert stable_test_split(keys, 0, 1) == [] and stable_test_split(keys, 1, 1) == sorted(keys)
    assert stable_test_split(keys, 0.2, 2) != all_of_them
    before, after = (set(mesh_test_split(some, 0.2, 1)) & set(keys[:1000]) for some in (keys[:1000], keys))
    assert before != after  # the other rule moves some
    with pytest.raises(ValueError, match=r"test_ratio must lie in \[0, 1\], got 2"):
        stable_test_split(keys, 2, 0)


def test_a_folder_that_grows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The folder without its flag; a copy is named with its splits; ids and splits stay."""
    meshes, cache = tmp_path / "meshes", tmp_path / "cache"
    for number in range(6):
        put(meshes / "old" / f"m{number}.obj", 1 + number)
    flags = [f"{meshes}", "--out_root", f"{cache}", "--stable_split", "--test_ratio", "0.5", "--workers", "1", *SMALL]
    assert main(["preprocess-folder", *flags]) == cli.EXIT_OK
    before = made(cache)
    assert len(before) == 6 and {name.split("/")[0] for name in before} == {"train", "test"}
    assert "content of another" not in capsys.readouterr().out
    for number in range(6):
        put(meshes / "old" / f"a{number}.obj", 2 + number)  # a0 is m1, and so on
    assert preprocess_meshes.main(flags) == cli.EXIT_OK
    after = made(cache)
    assert set(before) < set(after) and len(after) == 12
    listed = json.loads((cache / "_meta" / "same_content.json").read_text(encoding="utf-8"))["same_content"]
    assert listed[0].keys() == {"old/a0", "old/m1"} and len(listed) == 5
    split_of = {name.partition("/")[2]: name.split("/")[0] for name in after}
    assert all(split_of[key] == split for group in listed for key, split in group.items())
    said = capsys.readouterr().out
    across = sum(len({*group.values()}) > 1 for group in listed)
    assert f"5 meshes have the content of another; {across} of 5 groups are in both splits" in said
    assert f"  old/a0 ({split_of['old/a0']}) = old/m1 ({split_of['old/m1']})" in said
    without = [flag for flag in flags if flag != "--stable_split"]
    assert preprocess_meshes.main(without) == cli.EXIT_USAGE  # of another split, whichever is noticed first
    said = capsys.readouterr().err
    assert "stable_split True -> None" in said or "this shape now belongs to" in said


def test_a_cache_with_classes_of_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("x/one.obj", "x/two.obj", "three.obj"):
        put(tmp_path / "meshes" / name)
    (tmp_path / "classes.csv").write_text("path,class\nx/one.obj,chair\nthree.obj,table\n", encoding="utf-8")
    flags = ["--mesh_root", f"{tmp_path / 'meshes'}", "--out_root", f"{tmp_path / 'cache'}", "--workers", "1", *SMALL]
    with_file = [*flags, "--classes", f"{tmp_path / 'classes.csv'}"]
    assert preprocess_meshes.main(with_file) == cli.EXIT_OK
    assert made(tmp_path / "cache") == ["train/chair/x--one", "train/table/three"]
    assert "1 meshes are not listed" in capsys.readouterr().out
    assert preprocess_meshes.main(flags) == cli.EXIT_USAGE
    assert "classes of a file -> None" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        preprocess_meshes.main([*with_file, "--layout", "shapenet"])
    assert "classes needs layout folder, got shapenet" in " ".join(capsys.readouterr().err.split())
