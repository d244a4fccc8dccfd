"""The unpaired corpus: who goes where, and the view on disk."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nepa3d import cli
from nepa3d.corpora.shape_list import list_shapes
from nepa3d.data import preprocess_shapenet_unpaired, shapenet_unpaired_split
from nepa3d.data.preprocess_shapenet_unpaired import Config, materialize
from nepa3d.data.shapenet_unpaired_split import thirds

RATIOS = (0.34, 0.33, 0.33)


def test_split_command_writes_the_recorded_assignment(golden: Path, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "split.json"
    flags = ["--cache_root", "cache", "--out_json", str(out), "--seed", "11", "--ratios", "0.34", "0.33", "0.33"]
    assert shapenet_unpaired_split.main([*flags, "--train_split", "train", "--eval_split", "test"]) == cli.EXIT_OK
    assert json.loads(out.read_text()) == json.loads(Path("split.json").read_text())


@pytest.mark.parametrize(
    ("n", "ratios", "expected"),
    [
        (0, RATIOS, [0, 0, 0]),
        (1, RATIOS, [0, 0, 1]),
        (2, RATIOS, [1, 1, 0]),
        (3, RATIOS, [1, 1, 1]),
        (100, RATIOS, [34, 33, 33]),
        (200, (34, 33, 33), [68, 66, 66]),
        (3, (1, 0, 0), [1, 1, 1]),
        (5, (0.9, 0.1, 0), [3, 1, 1]),
        (3, (0.5, 0.5, 0), [1, 1, 1]),
    ],
)
def test_counts_add_up_and_leave_no_part_empty(n: int, ratios: tuple[float, float, float], expected: list[int]) -> None:
    assert thirds(n, ratios) == expected


def test_ratios_out_of_range_end_the_command(golden: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    flags = ["--cache_root", "cache", "--out_json", str(tmp_path / "s.json"), "--ratios", "0", "0", "0"]
    assert shapenet_unpaired_split.main(flags) == cli.EXIT_USAGE
    assert "ratios must not be negative, nor all 0" in capsys.readouterr().err
    assert not (tmp_path / "s.json").exists()


def config(golden: Path, out_root: Path, **changes: Any) -> Config:
    return Config(
        **{"src_cache_root": golden / "cache", "split_json": golden / "split.json", "out_root": out_root, **changes}
    )


def content(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*.npz"))}


@pytest.mark.parametrize("mode", ["symlink", "hardlink", "copy"])
def test_view_holds_each_shape_once_under_its_part(golden: Path, tmp_path: Path, mode: Any) -> None:
    source = tmp_path / "source"  # a hard link cannot leave the file system
    shutil.copytree(golden / "cache", source)
    out = tmp_path / "elsewhere" / "view"
    summary = materialize(config(golden, out, src_cache_root=source, link_mode=mode))
    assert content(out) == content(golden / "unpaired")
    assert summary["counts"] == {"created": 32, "skipped": 0, "missing": 0}
    assert json.loads((out / "_meta" / "split_source.json").read_text()) == summary
    example = Path(list_shapes(out, "eval")[0])
    assert example.is_symlink() == (mode == "symlink")
    assert (example.stat().st_nlink == 2) == (mode == "hardlink")


def test_links_work_from_relative_roots_and_after_both_roots_move(
    golden: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = tmp_path / "old"
    shutil.copytree(golden / "cache", old / "data" / "cache")
    monkeypatch.chdir(old)
    materialize(config(golden, Path("views/one"), src_cache_root=Path("data/cache")))
    (tmp_path / "old").rename(tmp_path / "new")
    assert content(tmp_path / "new" / "views" / "one") == content(golden / "unpaired")


def test_second_run_changes_nothing_and_overwrite_makes_all_anew(golden: Path, tmp_path: Path) -> None:
    materialize(config(golden, tmp_path))
    example = Path(list_shapes(tmp_path, "eval")[0])
    before = example.lstat().st_ino
    assert materialize(config(golden, tmp_path))["counts"] == {"created": 0, "skipped": 32, "missing": 0}
    assert example.lstat().st_ino == before
    again = materialize(config(golden, tmp_path, overwrite=True, link_mode="copy", splits=("eval",)))
    assert again["counts"] == {"created": 12, "skipped": 0, "missing": 0}
    assert not example.is_symlink()
    assert not list(tmp_path.rglob(".tmp-*"))


def test_broken_links_are_made_again_and_leftovers_go(golden: Path, tmp_path: Path, orphan_prefix: str) -> None:
    materialize(config(golden, tmp_path))
    example = Path(list_shapes(tmp_path, "eval")[0])
    example.unlink()
    example.symlink_to("gone.npz")
    (example.parent / f"{orphan_prefix}killed").mkdir()
    assert materialize(config(golden, tmp_path))["counts"] == {"created": 1, "skipped": 31, "missing": 0}
    np.load(example, allow_pickle=False).close()
    assert not list(tmp_path.rglob(".tmp-*"))


def test_missing_sources_are_listed_and_the_rest_is_laid_out(
    golden: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    source = tmp_path / "source"
    shutil.copytree(golden / "cache", source)
    gone = Path(list_shapes(source, "test")[0])
    gone.unlink()
    flags = ["--src_cache_root", str(source), "--split_json", str(golden / "split.json"), "--link_mode", "symlink"]
    flags += ["--out_root", str(tmp_path / "view"), "--splits", "train_mesh", "train_pc", "train_udf", "eval"]
    assert preprocess_shapenet_unpaired.main(flags) == cli.EXIT_SOME_FAILED
    printed = capsys.readouterr().out
    assert "31 created, 0 skipped, 1 missing" in printed
    assert f"missing: {gone}" in printed
    assert len(content(tmp_path / "view")) == 31


def test_files_of_another_assignment_are_told(golden: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    stray = tmp_path / "train_pc" / "kitchen" / "stray.npz"
    stray.parent.mkdir(parents=True)
    stray.touch()
    preprocess_shapenet_unpaired.command(config(golden, tmp_path))
    assert "warning: 1 file" in capsys.readouterr().out
    summary = json.loads((tmp_path / "_meta" / "split_source.json").read_text())
    assert summary["strangers"] == ["train_pc/kitchen/stray.npz"]


RECORD = {"key": "a/b", "split": "eval", "src_relpath": "test/a/b.npz"}


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("{", "not readable as JSON"),
        ("[]", "list `records`"),
        (json.dumps({"records": [RECORD, 3]}), "record 1"),
        (json.dumps({"records": [{**RECORD, "key": "../../x"}]}), "record 0"),
        (json.dumps({"records": [{**RECORD, "src_relpath": "/etc/passwd"}]}), "record 0"),
        (json.dumps({"records": [{"key": "a/b", "split": "eval"}]}), "record 0"),
    ],
)
def test_unsound_assignment_is_refused_before_anything_is_written(tmp_path: Path, text: str, fault: str) -> None:
    (tmp_path / "s.json").write_text(text)
    with pytest.raises(ValueError, match=fault) as caught:
        materialize(Config(tmp_path, tmp_path / "s.json", tmp_path / "view"))
    assert "s.json" in str(caught.value)
    assert not (tmp_path / "view").exists()


def test_unknown_part_is_refused(golden: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="train_mush"):
        materialize(config(golden, tmp_path / "view", splits=("train_mush",)))
