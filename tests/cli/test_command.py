"""The ``nepa3d`` command."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import trimesh

from nepa3d import cli
from nepa3d.__main__ import COMMANDS, main
from nepa3d.cli.commands import spelled


def test_every_name_is_a_command_with_help() -> None:
    for module, _ in COMMANDS.values():
        assert callable(importlib.import_module(module).main)


def test_help_lists_the_names(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["--help"]):
        assert main(arguments) == cli.EXIT_OK
        shown = capsys.readouterr().out
        assert all(name in shown for name in COMMANDS)


def test_a_name_leads_to_its_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "nowhere"]) == cli.EXIT_USAGE
    assert "nowhere is not a folder" in capsys.readouterr().err
    assert main(["verfy"]) == cli.EXIT_USAGE
    assert "did you mean verify?" in capsys.readouterr().err


def test_an_output_is_no_other_flags_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Once, ``complete scan.ply --out scan.ply`` replaced the scan."""
    scan = tmp_path / "scan.ply"
    trimesh.PointCloud(np.eye(4)[:, :3]).export(scan)
    before = scan.read_bytes()
    (tmp_path / "link.ply").symlink_to(scan)
    out = ["--out", f"{tmp_path / 'a.ply'}"]
    for argv, said in (
        ([f"{scan}", "--out", f"{tmp_path}/./scan.ply"], "out must be another file than that of scan"),
        ([f"{scan}", "--out", f"{tmp_path / 'link.ply'}"], "out must be another file than that of scan"),
        ([f"{scan}", *out, "--out_json", out[1]], "out_json must be another file than that of out"),
    ):
        assert main(["complete", *argv]) == cli.EXIT_USAGE
        assert said in capsys.readouterr().err
    assert scan.read_bytes() == before


def test_files_that_are_not_there_or_no_folders_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "a.txt"
    file.touch()
    for argv, said in (
        (["pretrain", "--config", "nope.yaml"], "config: there is no file nope.yaml"),
        (["pretrain", "--cache_root", "c", "--save_dir", f"{file}"], "save_dir: expected a folder to write to, "),
        (["preprocess-folder", f"{tmp_path}", "--out_root", f"{file}"], "out_root: expected a folder to write to, "),
    ):
        assert main(argv) == cli.EXIT_USAGE
        said_there = capsys.readouterr().err
        assert said_there.startswith(f"error: {said}") and said_there.count("\n") == 1


def test_help_fits_a_screen_and_gives_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    for name, (module, _) in COMMANDS.items():
        with pytest.raises(SystemExit):
            main([name, "--help"])
        shown = capsys.readouterr().out
        assert shown.startswith(f"usage: {spelled(module)} ")
        assert len(shown.splitlines()) <= {"pretrain": 100, "finetune": 80}.get(name, 66), name
        assert "Example: " in shown and "--config FILE" in shown
        assert spelled(module) in shown.partition("Example: ")[2] or module in shown


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_the_completion_knows_commands_and_flags(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == cli.EXIT_OK
    script = capsys.readouterr().out
    for word in ("preprocess-shapenet", "ucpr", "--dual_mask_near", "--query_backend"):
        assert word in script


def test_a_reader_who_leaves_is_no_error() -> None:
    command = [sys.executable, "-m", "nepa3d", "pretrain", "--help-verbose"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as shown:
        assert shown.stdout is not None and shown.stderr is not None
        shown.stdout.readline()
        shown.stdout.close()
        assert shown.stderr.read() == ""
        assert shown.wait() in (cli.EXIT_OK, cli.EXIT_PIPE)
