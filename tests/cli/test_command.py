"""The ``nepa3d`` command."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

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
