"""The migration of older caches: what it adds, what it leaves, and what an end at any moment leaves."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from nepa3d import cli
from nepa3d.corpora.shape_list import list_shapes
from nepa3d.data import migrate_add_pt_dist_pc_pool as migration
from nepa3d.data.migrate_add_pt_dist_pc_pool import FileJob
from nepa3d.execution.files import map_npz
from nepa3d.shapes.cache import read_cache

KEY = migration.KEY
DIE_WHEN_WRITTEN = """
import os, signal, sys
from nepa3d.data import migrate_add_pt_dist_pc_pool as migration
from nepa3d.execution import files
files.os.fsync = lambda descriptor: os.kill(os.getpid(), signal.SIGKILL)
migration.migrate_file(sys.argv[1])
"""


def strip(path: Path | str, **changes: NDArray) -> None:
    """Make a file an older one: without the cloud's distances, unless they are given."""
    with np.load(path) as file:
        arrays = {key: file[key] for key in file.files if key != KEY}
    np.savez_compressed(path, **{**arrays, **changes})


def load(path: Path | str) -> dict[str, NDArray]:
    with np.load(path) as file:
        return dict(file)


@pytest.fixture
def cache(golden: Path, tmp_path: Path) -> Path:
    """Six older files in two splits."""
    root = tmp_path / "cache"
    for split in ("train", "test"):
        for path in list_shapes("cache", split)[::5][:3]:
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, tmp_path / path)
            strip(tmp_path / path)
    return root


def distances(path: Path | str) -> NDArray:
    arrays = load(path)
    gaps = arrays["pt_xyz_pool"][:, None].astype(np.float64) - arrays["pc_xyz"]
    return np.linalg.norm(gaps, axis=2).min(1)


def run(root: Path, capsys: pytest.CaptureFixture, *flags: str) -> tuple[int, str]:
    status = migration.main(["--cache_root", str(root), "--workers", "2", *flags])
    return status, capsys.readouterr().out


@pytest.mark.parametrize("deflate", [False, True])
def test_file_gains_the_distances_and_keeps_all_else(cache: Path, deflate: bool) -> None:
    path = list_shapes(cache, "test")[0]
    before = {**load(path), "extra": np.arange(3, dtype=np.int16), "ray_hit_pool": load(path)["ray_hit_pool"] > 0}
    (np.savez_compressed if deflate else np.savez)(path, **before)
    assert not migration.is_migrated(path)
    migration.migrate_file(path)
    assert migration.is_migrated(path)
    after = load(path)
    assert set(after) == {*before, KEY}
    for key, array in before.items():
        np.testing.assert_array_equal(after[key], array)
        assert after[key].dtype == array.dtype
    np.testing.assert_allclose(after[KEY], distances(path), rtol=0, atol=1e-6)
    with zipfile.ZipFile(path) as file:
        assert {m.compress_type == zipfile.ZIP_DEFLATED for m in file.infolist()} == {deflate}


@pytest.mark.parametrize(
    "invalid", [np.full(600, -1), np.array([np.nan] * 600), np.zeros(5), np.zeros((600, 2)), np.array([None])]
)
def test_invalid_distances_are_made_anew(cache: Path, invalid: NDArray) -> None:
    path = list_shapes(cache, "test")[0]
    strip(path, **{KEY: invalid})
    assert migration.migrate_or_skip(FileJob(path)) == ""
    np.testing.assert_allclose(read_cache(path, [KEY])[KEY], distances(path), rtol=0, atol=1e-6)


def test_valid_files_are_skipped_unless_overwritten(cache: Path) -> None:
    path = list_shapes(cache, "test")[0]
    strip(path, **{KEY: np.full(600, 0.5, np.float32)})
    content = Path(path).read_bytes()
    assert migration.migrate_or_skip(FileJob(path)) == "skip"
    assert Path(path).read_bytes() == content
    assert migration.migrate_or_skip(FileJob(path, overwrite=True)) == ""
    np.testing.assert_allclose(load(path)[KEY], distances(path), rtol=0, atol=1e-6)


def test_deflated_files_are_stored_when_asked(cache: Path, capsys: pytest.CaptureFixture) -> None:
    path = list_shapes(cache, "test")[0]
    before = load(path)
    np.savez_compressed(path, **before)
    assert migration.main(["--cache_root", f"{cache}", "--workers", "1", "--stored"]) == 0
    after = map_npz(path)
    for key, array in before.items():
        np.testing.assert_array_equal(after[key], array)
    assert migration.migrate_or_skip(FileJob(path, stored=True)) == "skip"


def test_command_migrates_the_splits_and_then_has_nothing_to_do(cache: Path, capsys: pytest.CaptureFixture) -> None:
    assert run(cache, capsys, "--splits", "test", "--limit", "1") == (0, "done: ok=1 skip=0 fail=0 total=1\n")
    assert run(cache, capsys, "--splits", "train,test") == (0, "done: ok=5 skip=1 fail=0 total=6\n")
    assert run(cache, capsys, "--splits", "all", "--chunk", "4") == (0, "done: ok=0 skip=6 fail=0 total=6\n")
    assert all(KEY in load(path) for split in ("train", "test") for path in list_shapes(cache, split))


def test_view_of_links_migrates_their_targets(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture, orphan_prefix: str
) -> None:
    target = Path(list_shapes(cache, "test")[0])
    link = tmp_path / "view" / "eval" / "a" / "x.npz"
    link.parent.mkdir(parents=True)
    link.symlink_to(os.path.relpath(target, link.parent))
    killed = target.parent / f"{orphan_prefix}killed.npz"
    killed.touch()
    assert run(tmp_path / "view", capsys) == (0, "done: ok=1 skip=0 fail=0 total=1\n")
    assert link.is_symlink()
    assert KEY in load(target)
    assert not killed.exists()


def test_failures_are_listed_with_their_reasons(cache: Path, capsys: pytest.CaptureFixture) -> None:
    empty, bare, *rest = list_shapes(cache, "train") + list_shapes(cache, "test")
    Path(empty).write_bytes(b"")
    np.savez(bare, pt_xyz_pool=np.zeros((4, 3), np.float32))
    before = Path(bare).read_bytes()
    status, printed = run(cache, capsys)
    assert status == cli.EXIT_SOME_FAILED
    assert printed.endswith("done: ok=4 skip=0 fail=2 total=6\n")
    assert f"{empty}: the file has 0 bytes" in printed
    assert f"{bare}: pc_xyz is missing" in printed
    assert Path(bare).read_bytes() == before
    assert all(KEY in load(path) for path in rest)


def test_kill_before_the_new_file_is_in_place_leaves_the_old_one(cache: Path, capsys: pytest.CaptureFixture) -> None:
    path = Path(list_shapes(cache, "test")[0])
    before = path.read_bytes()
    killed = subprocess.run([sys.executable, "-c", DIE_WHEN_WRITTEN, str(path)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert path.read_bytes() == before
    assert len(list(path.parent.glob(".tmp-*"))) == 1
    assert run(cache, capsys)[1] == "done: ok=6 skip=0 fail=0 total=6\n"
    assert not list(cache.rglob(".tmp-*"))


def test_requests_that_make_no_sense_are_refused(cache: Path, capsys: pytest.CaptureFixture) -> None:
    assert run(cache, capsys, "--splits", ",")[0] == cli.EXIT_USAGE
    assert run(cache, capsys, "--splits", "nowhere")[0] == cli.EXIT_USAGE
    assert run(cache / "nowhere", capsys)[0] == cli.EXIT_USAGE
