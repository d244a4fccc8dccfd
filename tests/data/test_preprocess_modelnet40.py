"""ModelNet40's layout to caches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nepa3d import cli, ops
from nepa3d.data import preprocess_modelnet40
from nepa3d.shapes.mesh import load_mesh
from tests.data.corpus import SMALL

TETRAHEDRON = "OFF\n4 4 0\n0 0 0\n{0} 0 0\n0 1 0\n0 0 1\n3 0 2 1\n3 0 1 3\n3 0 3 2\n3 1 2 3\n"


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    root = tmp_path / "ModelNet40"
    for name, split, count in (("chair", "train", 3), ("chair", "test", 1), ("night_stand", "train", 2)):
        folder = root / name / split
        folder.mkdir(parents=True)
        for i in range(count):
            (folder / f"{name}_{i:04d}.off").write_text(TETRAHEDRON.format(1 + i))
    return root


def run(corpus: Path, out: Path, *flags: str) -> int:
    command = ["--modelnet_root", f"{corpus}", "--out_root", f"{out}", *SMALL, "--workers", "1"]
    return preprocess_modelnet40.main([*command, *flags])


def test_each_split_is_built_where_it_belongs(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "cache"
    assert run(corpus, out, "--split", "train") == cli.EXIT_OK
    assert run(corpus, out, "--split", "test") == cli.EXIT_OK
    found = sorted(f"{path.relative_to(out)}" for path in out.glob("*/*/*.npz"))
    assert found == [
        "test/chair/chair_0000.npz",
        *(f"train/chair/chair_{i:04d}.npz" for i in range(3)),
        *(f"train/night_stand/night_stand_{i:04d}.npz" for i in range(2)),
    ]
    manifest = (out / "_splits" / "test.txt").read_text().splitlines()
    assert manifest == [f"{corpus / 'chair' / 'test' / 'chair_0000.off'}"]


def test_distances_are_the_meshs_by_default(corpus: Path, tmp_path: Path) -> None:
    assert run(corpus, tmp_path, "--split", "test") == cli.EXIT_OK
    mesh = load_mesh(corpus / "chair" / "test" / "chair_0000.off")
    with np.load(tmp_path / "test" / "chair" / "chair_0000.npz") as arrays:
        wanted = ops.closest_point(mesh.vertices, mesh.faces, arrays["pt_xyz_pool"]).distance
        np.testing.assert_array_equal(arrays["pt_dist_pool"], wanted)


def test_a_root_without_meshes_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path / "nowhere", tmp_path, "--split", "train") == cli.EXIT_USAGE
    (tmp_path / "empty").mkdir()
    assert run(tmp_path / "empty", tmp_path, "--split", "train") == cli.EXIT_USAGE
    assert "no mesh matches */train/*.off" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        run(tmp_path / "empty", tmp_path)  # split has no default
