"""Killed, starved, doubled and homeless runs: nothing finished is lost (docs/faults.md, rows R)."""

from __future__ import annotations

import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from nepa3d import cli
from nepa3d.data import preprocess_shapenet
from nepa3d.execution.files import write_npz
from tests.data.corpus import SMALL, cache_bytes, make_corpus

KILLS = 100


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_corpus(tmp_path_factory.mktemp("meshes"), chair=40, table=20)


@pytest.fixture(scope="module")
def calm(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What an undisturbed run writes."""
    out = tmp_path_factory.mktemp("calm")
    assert preprocess_shapenet.main(flags(corpus, out)) == cli.EXIT_OK
    return cache_bytes(out)


def flags(corpus: Path, out: Path, *more: str) -> list[str]:
    return ["--shapenet_root", f"{corpus}", "--out_root", f"{out}", *SMALL, "--workers", "1", *more]


def start(corpus: Path, out: Path, *more: str, **options: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "nepa3d.data.preprocess_shapenet", *flags(corpus, out, *more)]
    return subprocess.Popen(  # type: ignore[call-overload, no-any-return]
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True, **options
    )


def test_a_hundred_kills_lose_nothing(corpus: Path, tmp_path: Path, calm: dict[str, str]) -> None:
    """R01: the whole process group, at random moments; each rerun goes on; the end is that of an undisturbed run.

    Two thirds of the shapes are taken away again now and then, so that there is always work to be killed in.
    """
    rng = random.Random(0)
    out = tmp_path / "cache"
    for kill in range(KILLS):
        process = start(corpus, out)
        time.sleep(rng.uniform(0.25, 0.9))
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        there = cache_bytes(out)
        assert there.items() <= calm.items(), f"kill {kill}"
        if len(there) == len(calm):
            for name in rng.sample(sorted(there), 40):
                (out / name).unlink()
    process = start(corpus, out)
    process.communicate(timeout=120)
    assert process.returncode == cli.EXIT_OK
    assert cache_bytes(out) == calm
    assert not list(out.rglob(".tmp-*"))


def test_two_writers_on_one_root(corpus: Path, tmp_path: Path, calm: dict[str, str]) -> None:
    """R02: both end well, and the files are those of one."""
    writers = [start(corpus, tmp_path / "cache", *more) for more in ((), ("--chunk_size", "1"), ("--overwrite",))]
    for writer in writers:
        _, said = writer.communicate(timeout=120)
        assert writer.returncode == cli.EXIT_OK, said
    assert cache_bytes(tmp_path / "cache") == calm
    assert not list((tmp_path / "cache").rglob(".tmp-*"))


def test_full_disk(corpus: Path, tmp_path: Path, calm: dict[str, str]) -> None:
    """R03: no file may grow past 4000 bytes; each failure names its file, the status is 74, and later all is made."""
    small = (4000, 4000)
    limited = start(corpus, tmp_path / "cache", preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, small))
    printed, said = limited.communicate(timeout=120)
    assert limited.returncode == cli.EXIT_IO, said
    assert re.search(rf"error: {tmp_path}/cache/.*: File too large", printed + said)
    assert "Traceback" not in said
    assert not cache_bytes(tmp_path / "cache")
    assert not list((tmp_path / "cache").rglob(".tmp-*"))
    assert preprocess_shapenet.main(flags(corpus, tmp_path / "cache")) == cli.EXIT_OK
    assert cache_bytes(tmp_path / "cache") == calm


@pytest.mark.parametrize("place", ["a file", "under a file", "no permission"])
def test_folders_that_cannot_be_written(
    corpus: Path, tmp_path: Path, place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """R04: one line before any work, with status 2 where the flag names a file, else 74; /proc refuses even root."""
    (tmp_path / "file").write_text("kept")
    out = {
        "a file": tmp_path / "file",
        "under a file": tmp_path / "file" / "cache",
        "no permission": Path("/proc/cache"),
    }
    wanted = cli.EXIT_USAGE if place == "a file" else cli.EXIT_IO
    assert preprocess_shapenet.main(flags(corpus, out[place])) == wanted
    said = capsys.readouterr()
    assert said.err.startswith("error: ") and said.err.count("\n") == 1
    assert f"{out[place]}" in said.err
    assert "shape/s" not in said.err
    assert (tmp_path / "file").read_text() == "kept"


def test_an_output_folder_that_vanishes(corpus: Path, tmp_path: Path, calm: dict[str, str]) -> None:
    """R05: taken away while shapes are written; the run ends with a status, and the next one makes what is missing."""
    out = tmp_path / "cache"
    process = start(corpus, out, "--chunk_size", "1")
    while not cache_bytes(out) and process.poll() is None:
        time.sleep(0.005)
    shutil.rmtree(out, ignore_errors=True)
    _, said = process.communicate(timeout=120)
    assert process.returncode in (cli.EXIT_OK, cli.EXIT_IO)
    assert "Traceback" not in said
    assert preprocess_shapenet.main(flags(corpus, out)) == cli.EXIT_OK
    assert cache_bytes(out) == calm


def test_a_folder_where_a_file_belongs(corpus: Path, tmp_path: Path, calm: dict[str, str]) -> None:
    """R06: that shape fails, the rest is made."""
    name = sorted(calm)[3]
    (tmp_path / f"{name.removesuffix('.npz')}.npz" / "inside").mkdir(parents=True)
    status = preprocess_shapenet.main(flags(corpus, tmp_path, "--overwrite"))
    assert status == cli.EXIT_IO
    assert cache_bytes_of_files(tmp_path) == {key: value for key, value in calm.items() if key != name}


def cache_bytes_of_files(root: Path) -> dict[str, str]:
    aside = {path: path.with_suffix(".folder") for path in root.glob("*/*/*.npz") if path.is_dir()}
    for path, other in aside.items():
        path.rename(other)
    return cache_bytes(root)


def test_output_under_another_name_of_the_folder(corpus: Path, tmp_path: Path, calm: dict[str, str]) -> None:
    """R07: through a symbolic link, and a link that leads nowhere."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    assert preprocess_shapenet.main(flags(corpus, tmp_path / "link")) == cli.EXIT_OK
    assert cache_bytes(tmp_path / "real") == calm
    (tmp_path / "nowhere").symlink_to("missing")
    assert preprocess_shapenet.main(flags(corpus, tmp_path / "nowhere")) == cli.EXIT_IO


def test_files_are_not_open_after_a_run(corpus: Path, tmp_path: Path) -> None:
    """R08: three runs in one process leave no descriptor behind."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    for attempt in range(3):
        assert preprocess_shapenet.main(flags(corpus, tmp_path / f"{attempt}", "--split", "test")) == cli.EXIT_OK
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 2  # the server that forks workers stays


def test_threads_writing_one_file(tmp_path: Path) -> None:
    """R09: whoever is last wins, whole."""
    contents = [np.full(50_000, i, np.float32) for i in range(4)]
    threads = [threading.Thread(target=write_npz, args=(tmp_path / "a.npz", {"a": array})) for array in contents * 5]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with np.load(tmp_path / "a.npz") as file:
        assert len(set(file["a"].tolist())) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]
