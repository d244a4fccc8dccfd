"""Files that hold another kind than their names say, and files of no kind that is read."""

from __future__ import annotations

from pathlib import Path

import pytest

from nepa3d import Shape
from nepa3d.shapes.cache import CacheError
from nepa3d.shapes.file_kinds import other_kind
from nepa3d.shapes.mesh import BadShapeError, Reason, load_mesh, read_mesh
from nepa3d.shapes.scan_files import read_cloud

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 20
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
PAGE = b"\xef\xbb\xbf\n <!DOCTYPE HTML>\n<html><body>1 2 3</body></html>\n"
KINDS = {
    "a PNG image": PNG,
    "a JPEG image": b"\xff\xd8\xff\xe0\0\x10JFIF\0",
    "a GIF image": b"GIF89a\1\0\1\0",
    "a PDF document": b"%PDF-1.7\n",
    "a ZIP archive": b"PK\3\4\x14\0",
    "data compressed with gzip": b"\x1f\x8b\x08\0",
    "HDF5 data": b"\x89HDF\r\n\x1a\n",
    "an HTML page": PAGE,
    "a Git LFS pointer, `git lfs pull` fetches what it stands for": POINTER,
}
MESHES = ("obj", "off", "ply", "stl", "glb", "wrl")


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_is_told_by_its_first_bytes(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path / "a.obj", KINDS[kind])
    assert other_kind(path) == f"the file holds {kind}"
    with pytest.raises(BadShapeError) as caught:
        load_mesh(path)
    assert caught.value.detail == f"the file holds {kind}"


@pytest.mark.parametrize("content", [b"", b"v 0 0 0\n", b"ply\n", b"solid html\n"])
def test_other_bytes_tell_nothing(tmp_path: Path, content: bytes) -> None:
    assert other_kind(write(tmp_path / "a.obj", content)) == ""
    assert other_kind(tmp_path / "nowhere") == ""


@pytest.mark.parametrize("suffix", MESHES)
@pytest.mark.parametrize(("content", "told"), [(PNG, "PNG image"), (POINTER, "git lfs pull"), (PAGE, "HTML page")])
def test_no_mesh_but_another_kind(tmp_path: Path, suffix: str, content: bytes, told: str) -> None:
    path = write(tmp_path / f"a.{suffix}", content)
    with pytest.raises(BadShapeError, match=f"the file holds a.*{told}") as caught:
        read_mesh(path)
    assert caught.value.reason in (Reason.UNREADABLE, Reason.NO_FACES)


@pytest.mark.parametrize("suffix", ["ply", "xyz", "csv", "npy", "npz"])
@pytest.mark.parametrize(("content", "told"), [(PNG, "PNG image"), (POINTER, "git lfs pull"), (PAGE, "HTML page")])
def test_no_cloud_but_another_kind(tmp_path: Path, suffix: str, content: bytes, told: str) -> None:
    path = write(tmp_path / f"a.{suffix}", content)
    with pytest.raises(ValueError, match=f"a.{suffix}: .*the file holds a.*{told}"):
        read_cloud(path)


def test_archives_as_arrays(tmp_path: Path) -> None:
    """An .npz is a ZIP archive itself; one that is cut is not told to be one."""
    cut = KINDS["a ZIP archive"]
    with pytest.raises(BadShapeError, match="the file holds a ZIP archive"):
        read_cloud(write(tmp_path / "a.npy", cut))
    with pytest.raises(CacheError, match=r"a\.npz: not a readable \.npz"):
        read_cloud(write(tmp_path / "a.npz", cut))


def test_endings_of_meshes_and_clouds_are_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.pcd", b"# .PCD v0.7\n")
    told = r"a\.pcd: unsupported: no reader for \.pcd, only obj, .* wrl of meshes and ply, npz, .* csv, asc of clouds$"
    for read in (Shape.from_scan, Shape.from_file):
        with pytest.raises(BadShapeError, match=told):
            read(path)
    with pytest.raises(BadShapeError, match="there is no such file"):
        Shape.from_scan(tmp_path / "nowhere.pcd")
    with pytest.raises(BadShapeError, match="empty_file"):
        Shape.from_scan(write(tmp_path / "empty.pcd", b""))
