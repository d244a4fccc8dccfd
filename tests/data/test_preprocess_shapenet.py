"""Meshes in ShapeNet's layout to caches: names, splits, faults, settings, independence, and being killed."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from nepa3d import cli
from nepa3d.corpora import preprocessing
from nepa3d.corpora.splits import mesh_test_split
from nepa3d.data import preprocess_shapenet
from nepa3d.execution.files import TEMPORARY_PREFIX
from nepa3d.execution.processes import Batched
from nepa3d.samples.mesh_batches import compute_shapes
from tests.commands import status_of
from tests.data.corpus import SMALL, TETRAHEDRON, cache_bytes, make_corpus, write_mesh

FLAGS = [*SMALL, "--workers", "2"]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return make_corpus(tmp_path / "meshes", chair=12, table=3)


def run(corpus: Path, out: Path, *more: str) -> int:
    """The exit status of the command, whether it returns or, on wrong flags, exits."""
    flags = ["--shapenet_root", f"{corpus}", "--out_root", f"{out}", *FLAGS, *more]
    return status_of(preprocess_shapenet.main, flags)


def digests(root: Path) -> dict[str, str]:
    """A digest of each cache file's arrays, by key."""
    found = {}
    for path in sorted(root.glob("*/*/*.npz")):
        digest = hashlib.sha256()
        with np.load(path) as arrays:
            for name in sorted(arrays.files):
                digest.update(name.encode() + arrays[name].tobytes())
        found[f"{path.parent.name}/{path.stem}"] = digest.hexdigest()
    return found


def test_layout_split_and_report(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "cache"
    assert run(corpus, out) == cli.EXIT_OK
    train = (out / "_splits" / "train.txt").read_text().splitlines()
    test = (out / "_splits" / "test.txt").read_text().splitlines()
    assert sorted(train + test) == sorted(f"{p}" for p in corpus.glob("*/*/models/*.obj"))
    assert [Path(p).parts[-4] for p in test] == ["chair"]
    for part, paths in (("train", train), ("test", test)):
        for path in paths:
            synset, model = Path(path).parts[-4:-2]
            assert (out / part / synset / f"{model}.npz").is_file()
    report = json.loads((out / "_meta" / "preprocess_all.json").read_text())
    assert report["counts"] == {"ok": 15}
    assert report["failures"] == []
    assert report["settings"]["pt_pool"] == 100


def test_batches_of_the_operators_for_a_gpu_write_the_same_files(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the CPU's twins of a GPU's threads, with a damaged mesh and one that needs a repair in a batch."""
    write_mesh(corpus, "chair/damaged", "v 0 0 0\nf 1 2 3\n")
    write_mesh(corpus, "chair/repaired", TETRAHEDRON.format(1) + "f 1 1 2\n")
    assert run(corpus, tmp_path / "one") == cli.EXIT_SOME_FAILED
    batched = Batched(partial(compute_shapes, device="cpu"))
    monkeypatch.setattr(preprocess_shapenet, "work_on", lambda device: batched)
    assert run(corpus, tmp_path / "batch", "--chunk_size", "5") == cli.EXIT_SOME_FAILED
    assert cache_bytes(tmp_path / "one") == cache_bytes(tmp_path / "batch")
    assert len(cache_bytes(tmp_path / "one")) == 16
    reports = [json.loads((tmp_path / out / "_meta" / "preprocess_all.json").read_text()) for out in ("one", "batch")]
    for name in ("counts", "failures", "repaired", "settings"):
        assert reports[0][name] == reports[1][name]


def test_a_gpu_that_is_not_there_is_refused_before_anything_is_read(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert run(corpus, tmp_path / "cache", "--device", "cuda") == cli.EXIT_USAGE
    assert (
        "device: there is no GPU that torch can use (nepa3d doctor says what is there), got cuda"
        in capsys.readouterr().err
    )
    assert not list(tmp_path.glob("cache/*/*/*.npz"))


def test_outputs_do_not_depend_on_workers_order_or_other_shapes(corpus: Path, tmp_path: Path) -> None:
    assert run(corpus, tmp_path / "a") == cli.EXIT_OK
    more = ["--workers", "1", "--chunk_size", "5", "--max_tasks_per_child", "1", "--split_seed", "3"]
    assert run(corpus, tmp_path / "b", *more) == cli.EXIT_OK
    reference = digests(tmp_path / "a")
    assert digests(tmp_path / "b") == reference
    for path in list(corpus.glob("*/m0[1-9]")):
        (path / "models" / "model_normalized.obj").unlink()
    assert run(corpus, tmp_path / "c") == cli.EXIT_OK
    alone = digests(tmp_path / "c")
    assert len(alone) == 4
    assert alone.items() <= reference.items()


def test_bad_shapes_are_listed_and_the_rest_is_done(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_mesh(corpus, "lamp/empty", "")
    write_mesh(corpus, "lamp/index", "v 0 0 0\nf 1 2 3\n")
    write_mesh(corpus, "lamp/line", "v 0 0 0\nv 1 0 0\nv 2 0 0\nf 1 2 3\n")
    write_mesh(corpus, "lamp/repaired", TETRAHEDRON.format(1) + "f 1 1 2\n")
    out = tmp_path / "cache"
    assert run(corpus, out) == cli.EXIT_SOME_FAILED
    report = json.loads((out / "_meta" / "preprocess_all.json").read_text())
    assert report["counts"] == {"ok": 15, "ok_repaired": 1, "bad_input": 3}
    reasons = {failure["key"]: failure["reason"] for failure in report["failures"]}
    assert "empty_file" in reasons["lamp/empty"]
    assert "vertex index 2 is out of range" in reasons["lamp/index"] or "index 3" in reasons["lamp/index"]
    assert "all_degenerate" in reasons["lamp/line"]
    assert report["repaired"][0] == {"key": "lamp/repaired", "state": "ok_repaired", "reason": "1 degenerate faces"}
    assert f"lamp/empty: bad_input: {corpus}/lamp/empty/models/model_normalized.obj" in capsys.readouterr().out
    assert len(digests(out)) == 16


def test_second_call_skips(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "cache"
    assert run(corpus, out) == cli.EXIT_OK
    before = {path: path.stat().st_mtime_ns for path in out.glob("*/*/*.npz")}
    next(iter(before)).unlink()
    assert run(corpus, out) == cli.EXIT_OK
    assert "14 skipped, 1 ok" in capsys.readouterr().out
    kept = {path: path.stat().st_mtime_ns for path in out.glob("*/*/*.npz")}
    assert set(kept) == set(before)
    assert sum(kept[path] == before[path] for path in before) == 14


def test_other_settings_are_refused(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "cache"
    assert run(corpus, out) == cli.EXIT_OK
    before = digests(out)
    assert run(corpus, out, "--pt_pool", "120", "--seed", "1") == cli.EXIT_USAGE
    assert "pt_pool 100 -> 120; seed 0 -> 1" in capsys.readouterr().err
    assert digests(out) == before
    assert run(corpus, out, "--seed", "1", "--overwrite") == cli.EXIT_OK
    assert digests(out).keys() == before.keys()
    assert all(digests(out)[key] != before[key] for key in before)


def test_a_shape_is_in_one_split_only(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "cache"
    assert run(corpus, out) == cli.EXIT_OK
    before = digests(out)
    keys = [f"{path.parent.name}/{path.stem}" for path in out.glob("*/*/*.npz")]
    other = next(seed for seed in range(1, 99) if mesh_test_split(keys, 0.1, seed) != mesh_test_split(keys, 0.1, 0))
    for flags in (["--split_seed", f"{other}"], ["--test_ratio", "0.4"]):
        assert run(corpus, out, *flags) == cli.EXIT_USAGE
        assert run(corpus, out, *flags, "--overwrite") == cli.EXIT_USAGE
        assert "this shape now belongs to" in capsys.readouterr().err
    assert digests(out) == before


def test_an_interrupted_exchange_of_settings_is_not_passed_over(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "cache"
    assert run(corpus, out) == cli.EXIT_OK

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(preprocessing, "run_tasks", interrupted)
        assert run(corpus, out, "--seed", "1", "--split", "test", "--overwrite") == cli.EXIT_INTERRUPTED
    capsys.readouterr()
    for seed in ("0", "1"):
        assert run(corpus, out, "--seed", seed, "--split", "test") == cli.EXIT_USAGE
        assert "preprocess_settings_test.json: an earlier --overwrite run did not finish" in capsys.readouterr().err
    assert run(corpus, out, "--split", "train") == cli.EXIT_OK
    assert run(corpus, out, "--seed", "1", "--split", "test", "--overwrite") == cli.EXIT_OK
    assert run(corpus, out, "--seed", "1", "--split", "test") == cli.EXIT_OK


def test_an_old_file_of_a_failed_shape_keeps_the_exchange_open(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "cache"
    assert run(corpus, out) == cli.EXIT_OK
    mesh = next(corpus.glob("*/*/models/*.obj"))
    whole = mesh.read_text()
    mesh.write_text("v 0 0\n")
    assert run(corpus, out, "--seed", "1", "--overwrite") == cli.EXIT_SOME_FAILED
    assert run(corpus, out, "--seed", "1") == cli.EXIT_USAGE
    mesh.write_text(whole)
    assert run(corpus, out, "--seed", "1", "--overwrite") == cli.EXIT_OK


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--mesh_glob", "nothing/*.obj"], "no mesh matches nothing/"),
        (["--pc_points", "0"], "pc_points must be at least 1, got 0"),
        (["--test_ratio", "1.5"], "test_ratio must"),
        (["--workers", "0"], "workers must be at least 1"),
    ],
)
def test_wrong_requests(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], message: str
) -> None:
    assert run(corpus, tmp_path / "cache", *flags) == cli.EXIT_USAGE
    assert message in capsys.readouterr().err


def test_two_meshes_of_one_name(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (corpus / "chair" / "m00" / "models" / "other.obj").write_text(TETRAHEDRON.format(1))
    assert run(corpus, tmp_path / "cache", "--mesh_glob", "*/*/models/*.obj") == cli.EXIT_USAGE
    assert "two meshes are both shape chair/m00" in capsys.readouterr().err
    assert not (tmp_path / "cache" / "train").exists()


def test_other_layouts(corpus: Path, tmp_path: Path) -> None:
    (corpus / "lamp").mkdir()
    (corpus / "lamp" / "a.obj").write_text(TETRAHEDRON.format(1))
    assert run(corpus, tmp_path / "cache", "--mesh_glob", "lamp/*.obj") == cli.EXIT_OK
    assert (tmp_path / "cache" / "train" / "lamp" / "a.npz").is_file()


def test_no_such_root(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path / "missing", tmp_path / "cache") == cli.EXIT_USAGE
    assert "missing is not a folder" in capsys.readouterr().err


def test_sigkill_at_any_moment_loses_nothing(corpus: Path, tmp_path: Path) -> None:
    assert run(corpus, tmp_path / "calm") == cli.EXIT_OK
    expected = digests(tmp_path / "calm")
    out = tmp_path / "cache"
    command = [sys.executable, "-m", "nepa3d.data.preprocess_shapenet", "--shapenet_root", f"{corpus}"]
    command += ["--out_root", f"{out}", *SMALL]
    finished = 0
    for attempt in range(6):
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        deadline = time.monotonic() + 30
        while len(list(out.glob("*/*/*.npz"))) < min(15, finished + 1 + attempt) and time.monotonic() < deadline:
            if process.poll() is not None:
                break
            time.sleep(0.002)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        partial = digests(out)  # every file under a final name loads
        assert partial.items() <= expected.items()
        assert len(partial) >= finished
        finished = len(partial)
    assert subprocess.run(command, capture_output=True).returncode == cli.EXIT_OK
    assert digests(out) == expected
    assert not list(out.rglob(f"{TEMPORARY_PREFIX}*"))


def test_files_of_shapes_that_are_gone_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever reads the folder reads them, too; their settings may be older ones."""
    corpus, out = make_corpus(tmp_path / "meshes", chair=4), tmp_path / "cache"
    command = ["--shapenet_root", f"{corpus}", "--out_root", f"{out}", *SMALL, "--workers", "1", "--test_ratio", "0"]
    assert preprocess_shapenet.main(command) == cli.EXIT_OK
    assert "warning" not in capsys.readouterr().out
    (corpus / "chair").rename(corpus / "sofa")
    more = ["--overwrite", "--ray_pool", "48"]
    assert preprocess_shapenet.main([*command, *more]) == cli.EXIT_OK
    said = " ".join(capsys.readouterr().out.split())
    assert f"warning: 4 files are of no shape of this run, such as {out}/train/chair/m00" in said
    assert preprocess_shapenet.main([*command, "--ray_pool", "48"]) == cli.EXIT_USAGE
    assert "files with two settings are mixed" in capsys.readouterr().err


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_ends_at_once_and_with_its_workers(
    corpus: Path, tmp_path: Path, number: signal.Signals, status: int
) -> None:
    out = tmp_path / "cache"
    command = [sys.executable, "-m", "nepa3d.data.preprocess_shapenet", "--shapenet_root", f"{corpus}"]
    command += ["--out_root", f"{out}", *SMALL, "--pt_pool", "3000000", "--workers", "2", "--chunk_size", "1"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)
    deadline = time.monotonic() + 60
    while not list(out.glob("*/*/*.npz")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(number)
    _, said = process.communicate(timeout=10)
    assert process.returncode == status
    assert b"Traceback" not in said
    finished = len(list(out.glob("*/*/*.npz")))
    assert 0 < finished < 15
    time.sleep(1)
    assert len(list(out.glob("*/*/*.npz"))) == finished  # no worker is left
