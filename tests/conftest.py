"""Fixtures shared by the tests."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from nepa3d.execution.files import TEMPORARY_PREFIX

GOLDEN = Path(__file__).parent / "fixtures" / "golden"


def pytest_configure(config: pytest.Config) -> None:
    """With ``-m gpu`` a GPU is used, if there is one; all other tests are of the CPU, as the recorded figures are."""
    if config.getoption("markexpr") != "gpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    if not torch.cuda.is_available():
        os.environ["TRITON_INTERPRET"] = "1"  # read when Triton is loaded: its kernels then run on the CPU
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # a shell's job in the background; commands would inherit it
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist, which reads the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With ``pytest -n N --dist loadgroup`` the tests of a file share a process, as they share fixtures; so do all that
    start Ray, whose clusters on one machine disturb each other."""
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(f"{item.path.relative_to(item.config.rootpath)}"))


@pytest.fixture(scope="session")
def orphan_prefix() -> str:
    """What the temporary files of a process begin with that does not live any more."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return f"{TEMPORARY_PREFIX}{socket.gethostname()}-{process.pid}-"


@pytest.fixture(scope="session")
def golden_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A writable copy of the recorded data with its unpaired view laid out beside it."""
    folder = tmp_path_factory.mktemp("golden") / "golden"
    shutil.copytree(GOLDEN, folder)
    for record in json.loads((folder / "split.json").read_text())["records"]:
        target = folder / "unpaired" / record["split"] / f"{record['key']}.npz"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / "cache" / record["src_relpath"], target)
    return folder


@pytest.fixture
def golden(golden_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The recorded data as working directory: evaluation draws hash paths as composed from it. Read only."""
    monkeypatch.chdir(golden_folder)
    return golden_folder
