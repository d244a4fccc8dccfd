"""Layouts of mesh corpora: keys, what is left out, and a new one as a function and a row."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from nepa3d import cli
from nepa3d.corpora.folder import folder
from nepa3d.corpora.layouts import LAYOUTS
from nepa3d.corpora.mesh_files import CorpusMesh
from nepa3d.data import preprocess_meshes, preprocess_shapenet
from tests.data.corpus import SMALL, TETRAHEDRON


def put(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(TETRAHEDRON.format(1), encoding="utf-8")
    return path


def test_keys_of_a_folder_are_its_paths(tmp_path: Path) -> None:
    for name in ("lone.obj", "chair/a.OBJ", "chair/old/deep/b.obj", "table/a.obj"):
        put(tmp_path / name)
    for name in (".git/c.obj", "chair/._a.obj", "chair/readme.txt", "chair/.hidden.obj"):
        put(tmp_path / name)
    found = {mesh.key: mesh for mesh in folder(tmp_path)}
    assert sorted(found) == ["chair/a", "chair/old--deep--b", "table/a", "unsorted/lone"]
    assert found["chair/a"].path == tmp_path / "chair" / "a.OBJ"
    assert not any(mesh.split for mesh in found.values())


def test_a_folder_refuses_what_would_be_lost(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not a folder"):
        list(folder(tmp_path / "none"))
    with pytest.raises(ValueError, match="no mesh below"):
        list(folder(tmp_path))
    put(tmp_path / "chair" / "a.obj")
    put(tmp_path / "chair" / "a.ply")
    with pytest.raises(ValueError, match=r"both shape chair/a.*a\.obj.*a\.ply"):
        list(folder(tmp_path))


def test_the_cache_of_a_folder_is_that_of_the_same_keys(tmp_path: Path) -> None:
    """The same bytes as the command for ShapeNet's layout gives a mesh of that key."""
    for number in range(4):
        put(tmp_path / "plain" / "chair" / f"m{number}.obj")
        put(tmp_path / "shapenet" / "chair" / f"m{number}" / "models" / "model_normalized.obj")
    common = ["--workers", "1", "--test_ratio", "0.25", *SMALL]
    plain = ["--mesh_root", f"{tmp_path / 'plain'}", "--out_root", f"{tmp_path / 'a'}", *common]
    known = ["--shapenet_root", f"{tmp_path / 'shapenet'}", "--out_root", f"{tmp_path / 'b'}", *common]
    assert preprocess_meshes.main(plain) == cli.EXIT_OK
    assert preprocess_shapenet.main(known) == cli.EXIT_OK
    assert preprocess_meshes.main(plain) == cli.EXIT_OK  # resumes
    made = {path.relative_to(tmp_path / "a"): path.read_bytes() for path in (tmp_path / "a").glob("*/*/*.npz")}
    same = {path.relative_to(tmp_path / "b"): path.read_bytes() for path in (tmp_path / "b").glob("*/*/*.npz")}
    assert len(made) == 4
    assert made == same


def test_a_layout_is_a_function_and_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def parts(root: Path) -> Iterator[CorpusMesh]:
        for path in sorted(root.glob("*/*/*.obj")):
            yield CorpusMesh(f"{path.parent.name}/{path.stem}", path, path.parts[-3])

    monkeypatch.setitem(LAYOUTS, "parts", parts)
    put(tmp_path / "parts" / "train" / "bolt" / "one.obj")
    put(tmp_path / "parts" / "test" / "bolt" / "two.obj")
    flags = ["--mesh_root", f"{tmp_path / 'parts'}", "--out_root", f"{tmp_path / 'cache'}", "--layout", "parts"]
    assert preprocess_meshes.main([*flags, "--workers", "1", *SMALL]) == cli.EXIT_OK
    made = sorted(path.relative_to(tmp_path / "cache").as_posix() for path in (tmp_path / "cache").glob("*/*/*.npz"))
    assert made == ["test/bolt/two.npz", "train/bolt/one.npz"]


def test_a_layout_that_is_not_known(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--mesh_root", f"{tmp_path}", "--out_root", f"{tmp_path / 'cache'}", "--layout", "other"]
    with pytest.raises(SystemExit) as ended:
        preprocess_meshes.main(flags)
    assert ended.value.code == cli.EXIT_USAGE
    assert "layout must be one of folder, shapenet, modelnet40" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("layout", sorted(LAYOUTS))
def test_a_root_that_is_no_folder_is_named_by_its_flag(
    layout: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--mesh_root", f"{tmp_path / 'none'}", "--out_root", f"{tmp_path / 'cache'}", "--layout", layout]
    assert preprocess_meshes.main(flags) == cli.EXIT_USAGE
    assert capsys.readouterr().err == f"error: mesh_root: {tmp_path / 'none'} is not a folder\n"
