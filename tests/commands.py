"""A command as a user calls it: its exit status and what it says."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest


def status_of(main: Callable[[Sequence[str]], int], argv: Sequence[str]) -> int:
    """The exit status, also where a flag is refused while it is parsed, which ends the process."""
    try:
        return main(argv)
    except SystemExit as stopped:
        assert isinstance(stopped.code, int)
        return stopped.code


def errors(capsys: pytest.CaptureFixture[str]) -> str:
    """What was said on stderr as one line, without the box around refused flags."""
    return " ".join(capsys.readouterr().err.replace("│", " ").split())
