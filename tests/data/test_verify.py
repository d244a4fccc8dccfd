"""A tree of caches with one fault of each kind: all are found, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from nepa3d import cli
from nepa3d.data import preprocess_shapenet, verify
from nepa3d.data.files import write_npz
from tests.data.corpus import SMALL, make_corpus


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("verify")
    make_corpus(folder / "meshes", chair=4)
    command = ["--shapenet_root", f"{folder}/meshes", "--out_root", f"{folder}/cache", *SMALL, "--workers", "1"]
    assert preprocess_shapenet.main(command) == cli.EXIT_OK
    return folder


@pytest.fixture
def tree(made: Path, tmp_path: Path) -> Path:
    """A copy of four good shapes."""
    root = tmp_path / "cache"
    for path in (made / "cache").rglob("*"):
        if path.is_file():
            target = root / path.relative_to(made / "cache")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    return root


def check(root: Path, *flags: str) -> int:
    return verify.main([f"{root}", "--workers", "1", *flags])


def change(root: Path, key: str, value: np.ndarray | None) -> Path:
    """Another value of one array in the first file; ``None`` leaves it out."""
    path = sorted(root.glob("train/*/*.npz"))[0]
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files if name != key}
    write_npz(path, arrays | ({key: value} if value is not None else {}))
    return path


def test_a_good_tree_is_good(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(tree) == cli.EXIT_OK
    assert "4 files, all good" in capsys.readouterr().out


def test_older_and_scan_caches_are_good(tree: Path) -> None:
    path = change(tree, "pt_dist_pc_pool", None)
    change(tree, "pt_dist_udf_pool", None)
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    for key in ("ray_o_pool", "ray_d_pool", "ray_n_pool", "pc_n"):
        arrays[key] = np.zeros_like(arrays[key])
    np.savez_compressed(path, **arrays)
    assert check(tree) == cli.EXIT_OK


@pytest.mark.parametrize(
    ("key", "value", "fault"),
    [
        ("pt_dist_pool", None, "missing: pt_dist_pool"),
        ("ray_t_pool", None, "missing: ray_t_pool"),
        ("pt_dist_pool", np.zeros(7, np.float32), "unreadable: pt_dist_p"),
        ("pt_xyz_pool", np.full((100, 3), np.nan, np.float32), "not finite: pt_xyz_pool"),
        ("pt_xyz_pool", np.full((100, 3), 1.5, np.float32), "out of range: pt_xyz_pool"),
        ("pc_xyz", np.full((64, 3), 1.0, np.float32), "out of range: pc_xyz"),
        ("ray_d_pool", np.full((40, 3), 0.5, np.float32), "out of range: ray_d_pool"),
        ("ray_hit_pool", np.full(40, 0.5, np.float32), "out of range: ray_hit_pool"),
        ("ray_t_pool", np.full(40, -1, np.float32), "out of range: ray_t_pool"),
        ("udf_grid", np.full((8, 8, 8), np.inf, np.float16), "not finite: udf_grid"),
        ("pt_dist_pc_pool", np.full(100, 0.5, np.float32), "other distances: pt_dist_pc_pool"),
        ("pt_dist_udf_pool", np.full(100, 9.0, np.float32), "other distances: pt_dist_udf_pool"),
    ],
)
def test_each_fault_is_found_and_named(
    tree: Path, key: str, value: np.ndarray | None, fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = change(tree, key, value)
    assert check(tree) == cli.EXIT_INTEGRITY
    report = json.loads((tree / "_meta" / "verify.json").read_text())
    assert list(report["faults"]) == [f"{path}"]
    assert fault in report["faults"][f"{path}"]
    assert "1 to rebuild" in capsys.readouterr().out


def test_a_flipped_bit_is_found_by_the_checksum(tree: Path) -> None:
    path = sorted(tree.glob("train/*/*.npz"))[0]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 16
    path.write_bytes(content)
    assert check(tree) == cli.EXIT_INTEGRITY


def test_what_is_deleted_is_made_anew(tree: Path, made: Path, tmp_path: Path) -> None:
    path = change(tree, "pt_dist_pool", None)
    gone = sorted(tree.glob("train/*/*.npz"))[1]
    gone.unlink()
    (tree / "train" / ".tmp-host-1-x").touch()
    assert check(tree, "--list_file", f"{tmp_path}/list.txt", "--delete") == cli.EXIT_INTEGRITY
    assert (tmp_path / "list.txt").read_text() == f"{path}\n{gone}\n"
    assert not path.exists()
    report = json.loads((tree / "_meta" / "verify.json").read_text())
    assert report["absent"] == [f"{gone}"]
    assert report["temporaries"] == [f"{tree}/train/.tmp-host-1-x"]
    command = ["--shapenet_root", f"{made}/meshes", "--out_root", f"{tree}", *SMALL, "--workers", "1"]
    assert preprocess_shapenet.main(command) == cli.EXIT_OK
    assert check(tree) == cli.EXIT_OK


def test_folders_without_caches_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(tmp_path / "nowhere") == cli.EXIT_USAGE
    assert check(tmp_path) == cli.EXIT_USAGE
    assert "holds no splits" in capsys.readouterr().err
