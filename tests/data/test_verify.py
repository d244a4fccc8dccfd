"""A tree of caches with one fault of each kind: all are found, and nothing else."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import numpy as np
import pytest

from nepa3d import cli
from nepa3d.data import preprocess_shapenet, verify
from nepa3d.execution.files import write_npz
from nepa3d.execution.processes import Outcome
from nepa3d.shapes.cache import ShapeCache
from tests.data.corpus import SMALL, TETRAHEDRON, make_corpus, write_mesh


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


def test_what_is_deleted_is_made_anew(
    tree: Path, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = change(tree, "pt_dist_pool", None)
    gone = sorted(tree.glob("train/*/*.npz"))[1]
    gone.unlink()
    (tree / "train" / ".tmp-host-1-x").touch()
    assert check(tree, "--list_file", f"{tmp_path}/list.txt", "--delete") == cli.EXIT_INTEGRITY
    assert "3 files, 1 deleted, 1 missing: preprocess again" in capsys.readouterr().out
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


LAYOUTS = {
    "*/*/models/model_normalized.obj": "{}/{}/models/model_normalized.obj",
    "*/*/model.obj": "{}/{}/model.obj",
    "*/*.obj": "{}/{}.obj",
    "**/*.obj": "{}/{}/some/where/mesh.obj",
    "*/*/*.[op]*": "{}/{}/mesh.off.obj",
}


@pytest.mark.parametrize("mesh_glob", LAYOUTS)
@pytest.mark.parametrize("with_keys", [True, False])
def test_every_layout_of_meshes_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mesh_glob: str, with_keys: bool
) -> None:
    """Also from within its folders, and of caches from before keys were listed where the pattern tells them."""
    monkeypatch.chdir(tmp_path)
    for number in range(2):
        path = tmp_path / "meshes" / LAYOUTS[mesh_glob].format("chair", f"m{number}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(TETRAHEDRON.format(1 + number), encoding="utf-8")
    (tmp_path / "cache").mkdir()
    monkeypatch.chdir(tmp_path / "meshes")
    command = ["--shapenet_root", ".", "--out_root", "../cache", "--mesh_glob", mesh_glob, *SMALL, "--workers", "1"]
    assert preprocess_shapenet.main(command) == cli.EXIT_OK
    monkeypatch.chdir(tmp_path / "cache")
    if not with_keys:
        for path in Path("_splits").glob("*_keys.json"):
            path.unlink()
        if "**" in mesh_glob:
            pytest.skip("such a list of meshes does not tell where their root is")
    assert verify.main([".", "--workers", "1"]) == cli.EXIT_OK
    gone = sorted(Path("train").glob("*/*.npz"))[0]
    gone.unlink()
    assert verify.main([".", "--workers", "1"]) == cli.EXIT_INTEGRITY
    assert json.loads(Path("_meta/verify.json").read_text())["absent"] == [f"{gone}"]


def test_a_split_that_is_gone_is_missed(tree: Path, made: Path) -> None:
    command = ["--shapenet_root", f"{made}/meshes", "--out_root", f"{tree}", *SMALL, "--workers", "1"]
    path = sorted(tree.glob("train/*/*.npz"))[0]
    (tree / "other" / "chair").mkdir(parents=True)
    path.rename(tree / "other" / "chair" / "x.npz")
    for rest in tree.glob("train/*/*.npz"):
        rest.unlink()
    (tree / "train" / "chair").rmdir()
    (tree / "train").rmdir()
    assert check(tree) == cli.EXIT_INTEGRITY
    assert len(json.loads((tree / "_meta" / "verify.json").read_text())["absent"]) == 4
    assert preprocess_shapenet.main(command) == cli.EXIT_OK
    assert check(tree) == cli.EXIT_OK


@pytest.mark.parametrize("shards", [1, 2])
def test_bad_input_is_known_and_not_to_be_rebuilt(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], shards: int
) -> None:
    make_corpus(tmp_path / "meshes", chair=3)
    bad = write_mesh(tmp_path / "meshes", "chair/bad", "")
    cache = tmp_path / "cache"
    command = ["--shapenet_root", f"{tmp_path}/meshes", "--out_root", f"{cache}", *SMALL, "--workers", "1"]

    def build() -> list[int]:
        parts = [["--num_shards", f"{shards}", "--shard_index", f"{index}"] for index in range(shards)]
        return [preprocess_shapenet.main([*command, *part]) for part in parts]

    assert cli.EXIT_SOME_FAILED in build()
    listed = tmp_path / "list.txt"
    assert check(cache, "--list_file", f"{listed}") == cli.EXIT_OK
    said = capsys.readouterr().out
    assert "known bad input (not to be rebuilt)" in said
    assert "3 files, all good" in said
    report = json.loads((cache / "_meta" / "verify.json").read_text())
    assert (report["absent"], report["bad_input"]) == ([], [f"{cache}/train/chair/bad.npz"])
    assert listed.read_text() == ""
    gone = cache / "train" / "chair" / "m01.npz"
    gone.unlink()
    assert check(cache, "--list_file", f"{listed}") == cli.EXIT_INTEGRITY
    assert listed.read_text() == f"{gone}\n"
    bad.write_text(TETRAHEDRON.format(2), encoding="utf-8")
    assert set(build()) == {cli.EXIT_OK}
    (cache / "train" / "chair" / "bad.npz").unlink()
    assert check(cache) == cli.EXIT_INTEGRITY


def test_what_cannot_be_read_now_is_no_damage_and_is_kept(
    tree: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As when the worker was killed, or too many files were open: the file may be sound."""
    bad, *others = sorted(tree.glob("train/*/*.npz"))
    bad.write_bytes(b"damaged")
    outcomes = [Outcome(f"{bad}", "bad_input", "not readable"), Outcome(f"{others[0]}", "oom", "killed by SIGKILL")]
    monkeypatch.setattr(verify, "run_tasks", lambda *_: outcomes)
    assert check(tree, "--delete") == cli.EXIT_INTEGRITY
    said = capsys.readouterr().out
    assert "1 could not be checked and are kept: verify again; 1 deleted, 0 missing: preprocess again" in said
    assert f"{others[0]}: killed by SIGKILL" in said
    assert not bad.exists() and others[0].exists()
    outcomes[:] = outcomes[1:]
    monkeypatch.setattr(verify, "_promised", lambda _: [])
    assert check(tree, "--delete") == cli.EXIT_IO
    assert others[0].exists()


def test_too_many_open_files_are_no_damage(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = sorted(tree.glob("train/*/*.npz"))[0]

    def refused(*_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files", f"{path}")

    monkeypatch.setattr(Path, "open", refused)
    with pytest.raises(OSError, match="Too many open files"):
        ShapeCache(path)
