"""Wrappers: variables become flags, from any folder and under PBS; flags given by hand win."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from nepa3d import cli
from nepa3d.__main__ import COMMANDS
from nepa3d.cli import from_environment
from nepa3d.cli.from_environment import flags_from
from tests.data.corpus import SMALL, make_corpus

SCRIPTS = Path(__file__).parents[1] / "scripts"
SMALL_VARIABLES = {
    name.removeprefix("--").upper(): value for name, value in zip(SMALL[::2], SMALL[1::2], strict=True)
} | {"WORKERS": "1"}


@dataclass
class Config:
    """Flags of every kind."""

    root: Path
    seed: int = 0
    overwrite: bool = False
    keep: bool = False
    ratios: tuple[float, float] = (0.5, 0.5)
    name: str = ""


def test_variables_become_flags() -> None:
    given = {"ROOT": "a b", "SEED": "-1", "OVERWRITE": "1", "KEEP": "False", "RATIOS": "0.3 0.7", "NAME": "", "X": "y"}
    assert flags_from(Config, given) == ["--root=a b", "--seed=-1", "--overwrite", "--ratios", "0.3", "0.7"]
    with pytest.raises(ValueError, match="OVERWRITE must be one of 1, true"):
        flags_from(Config, {"OVERWRITE": "maybe"})


def test_wrong_requests_end_in_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert from_environment.main([]) == cli.EXIT_USAGE
    wrong = {"OVERWRITE": "maybe"}
    assert from_environment.main(["nepa3d.data.preprocess_shapenet"], wrong) == cli.EXIT_USAGE
    assert capsys.readouterr().err.count("error:") == 2


def bash(script: Path, folder: Path, *flags: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a wrapper whose ``python3`` is this one."""
    tools = folder / "tools"
    tools.mkdir(exist_ok=True)
    python = tools / "python3"
    if not python.exists():
        python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
        python.chmod(0o755)
    paths = {"PATH": f"{tools}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = ["bash", f"{script}", *flags]
    return subprocess.run(command, cwd=folder, env=paths | variables, capture_output=True, text=True, timeout=120)


def test_the_documents_way_of_calling(tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path / "meshes", chair=3)
    done = bash(
        SCRIPTS / "preprocess" / "preprocess_shapenet.sh",
        tmp_path,
        "--seed=3",
        **SMALL_VARIABLES,
        SHAPENET_ROOT="meshes",
        OUT_ROOT="cache",
        SEED="9",
    )
    assert done.returncode == cli.EXIT_OK, done.stderr
    assert done.stdout.startswith("python -m nepa3d.data.preprocess_shapenet --")
    assert len(list((tmp_path / "cache").glob("train/chair/*.npz"))) == len(list(corpus.glob("*/*")))
    report = json.loads((tmp_path / "cache" / "_meta" / "preprocess_all.json").read_text())
    assert report["settings"]["seed"] == 3


def test_a_pbs_job_runs_a_copy_of_the_script_from_home(tmp_path: Path) -> None:
    project = tmp_path / "project"
    shutil.copytree(SCRIPTS, project / "scripts")
    make_corpus(project / "meshes", chair=3)
    spool = tmp_path / "spool"
    spool.mkdir()
    script = Path(shutil.copy(SCRIPTS / "preprocess" / "preprocess_shapenet.sh", spool))
    job = {"PBS_O_WORKDIR": f"{project}", "SHAPENET_ROOT": "meshes", "OUT_ROOT": "cache"}
    done = bash(script, spool, **SMALL_VARIABLES, **job)
    assert done.returncode == cli.EXIT_OK, done.stderr
    assert len(list((project / "cache").glob("train/chair/*.npz"))) == 3


def test_every_wrapper_names_a_command_and_reaches_it(tmp_path: Path) -> None:
    wrappers = sorted(SCRIPTS.glob("preprocess/*.sh"))
    assert {path.stem for path in wrappers} >= {
        "preprocess_shapenet",
        "preprocess_scanobjectnn",
        "migrate_add_pt_dist_pc_pool",
    }
    for path in wrappers:
        done = bash(path, tmp_path)  # nothing is there to work on
        assert done.returncode == cli.EXIT_USAGE, path
        assert done.stderr.count("error: ") == 1, path


def test_the_wrappers_of_evaluation(tmp_path: Path) -> None:
    views = {"QUERY_BACKEND": "mesh", "GALLERY_BACKEND": "udfgrid"}
    for name, more in (("nepa3d_ucpr", views), ("nepa3d_cpac_udf", {})):
        script = SCRIPTS / "analysis" / f"{name}.sh"
        done = bash(script, tmp_path, CACHE_ROOT="data", CKPT="none.pt", SPLIT="eval", **more)
        assert done.returncode == cli.EXIT_USAGE
        assert "none.pt" in done.stderr


@pytest.mark.parametrize("module", sorted({module for module, _ in COMMANDS.values()}))
def test_every_command_can_be_called_so(module: str) -> None:
    assert flags_from(importlib.import_module(module).Config, {}) == []


def test_the_status_of_nothing_is_nothing(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "old.pid").write_text("999999999\n")
    shown = bash(SCRIPTS / "logs" / "show_pipeline_status.sh", tmp_path)
    assert shown.returncode == cli.EXIT_OK, shown.stderr
    assert "old: exited without cleanup" in shown.stdout
    assert (tmp_path / "logs" / "old.pid").exists()
    assert bash(SCRIPTS / "logs" / "cleanup_stale_pids.sh", tmp_path).returncode == cli.EXIT_OK
    assert not (tmp_path / "logs" / "old.pid").exists()
