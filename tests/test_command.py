"""The ``nepa3d`` command."""

from __future__ import annotations

import importlib

import pytest

from nepa3d import cli
from nepa3d.__main__ import COMMANDS, main


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
