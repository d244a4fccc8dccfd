"""Saved configurations, and ``--config``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
import yaml

from nepa3d import cli
from nepa3d.cli import configuration
from nepa3d.execution import provenance


@dataclass(frozen=True)
class Config:
    """Do something.

    Example: something --out made
    """

    out: Path
    """Folder."""
    names: tuple[str, ...] = ("a",)
    """Names."""
    ratios: tuple[float, float] = (0.5, 0.5)
    """Ratios."""
    form: Literal["x", "y"] = "x"
    """Form."""
    times: Literal[0, 1] = 0
    """Times."""
    rate: float = 1e-3
    """Rate."""
    quick: bool = False
    """Quick."""
    maybe: Path | None = None
    """Maybe."""

    def __post_init__(self) -> None:
        if self.rate <= 0:
            raise ValueError(f"rate must be positive, got {self.rate}")


MODULE = Config.__module__
FLAGS = ["--names", "b", "c", "--ratios", "1", "2", "--form", "y", "--times", "1", "--rate", "3", "--quick"]


def run(argv: list[str], *, ends: BaseException | None = None, status: int = 0) -> tuple[int, list[Config]]:
    seen: list[Config] = []

    def command(config: Config) -> int:
        seen.append(config)
        if not isinstance(ends, ValueError):
            config.out.mkdir(exist_ok=True)
        if ends:
            raise ends
        return status

    return cli.run(Config, command, argv, output="out"), seen


def saved(tmp_path: Path) -> Path:
    return tmp_path / "made" / f"{MODULE.rpartition('.')[2]}.config.yaml"


def test_what_is_saved_is_what_is_read(tmp_path: Path) -> None:
    flags = ["--out", str(tmp_path / "made"), *FLAGS, "--maybe", "there"]
    _, first = run(flags)
    content = yaml.safe_load(saved(tmp_path).read_text())
    assert content["command"] == MODULE
    assert {name: content["run"][name] for name in ("nepa3d", "commit")} == {
        name: provenance.describe()[name] for name in ("nepa3d", "commit")
    }
    for again in (["--config", str(saved(tmp_path))], [f"--config={saved(tmp_path)}"]):
        assert run(again) == (0, first)
    _, changed = run(["--form", "x", "--config", str(saved(tmp_path)), "--rate", "4"])
    assert (changed[0].form, changed[0].rate, changed[0].names) == ("x", 4.0, ("b", "c"))


def test_a_file_beside_a_file(tmp_path: Path) -> None:
    assert configuration.beside(tmp_path / "r" / "ucpr.json", "a.b") == tmp_path / "r" / "ucpr.config.yaml"
    assert configuration.beside(tmp_path / "r" / "z.npz", "a.b") == tmp_path / "r" / "z.npz.config.yaml"
    assert configuration.beside(tmp_path, "a.b") == tmp_path / "b.config.yaml"


@pytest.mark.parametrize(
    ("ends", "status", "kept"),
    [
        (None, cli.EXIT_SOME_FAILED, True),
        (cli.Interrupted("later"), cli.EXIT_RESUMABLE, True),
        (KeyboardInterrupt(), cli.EXIT_INTERRUPTED, True),
        (ValueError("no"), cli.EXIT_USAGE, False),
        (OSError("full"), cli.EXIT_IO, False),
        (MemoryError(), cli.EXIT_MEMORY, False),
    ],
)
def test_kept_when_something_was_written(tmp_path: Path, ends: BaseException | None, status: int, kept: bool) -> None:
    assert run(["--out", str(tmp_path / "made")], ends=ends, status=status)[0] == status
    assert saved(tmp_path).exists() == kept


def test_kept_when_told_to_end(tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        run(["--out", str(tmp_path / "made")], ends=SystemExit(cli.EXIT_TERMINATED))
    assert saved(tmp_path).exists()


def test_a_refused_run_leaves_the_earlier_file(tmp_path: Path) -> None:
    run(["--out", str(tmp_path / "made")])
    before = saved(tmp_path).read_bytes()
    run(["--out", str(tmp_path / "made"), "--rate", "9"], ends=ValueError("no"))
    assert saved(tmp_path).read_bytes() == before


def test_what_a_file_leaves_out_is_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "part.yaml").write_text("flags: {rate: 2}\n")
    with pytest.raises(SystemExit):
        run(["--config", str(tmp_path / "part.yaml")])
    assert "--out" in capsys.readouterr().err
    _, seen = run(["--config", str(tmp_path / "part.yaml"), "--out", str(tmp_path / "made")])
    assert seen == [Config(tmp_path / "made", rate=2.0)]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("{", "not readable as YAML: "),
        ("flags: {rate: 1, rate: 2}", "rate is given twice"),
        ("[1]", "has no flags"),
        ("flags: 3", "has no flags"),
        ("{command: nepa3d.other, flags: {}}", f"is of the command nepa3d.other, expected {MODULE}"),
        ("flags: {ratee: 1}", "there is no flag 'ratee', did you mean rate?"),
        ("flags: {rate: fast}", "rate must be float, got 'fast'"),
        ("flags: {rate: true}", "rate must be float, got True"),
        ("flags: {times: true}", "times must be Literal[0, 1], got True"),
        ("flags: {form: z}", "form must be Literal['x', 'y'], got 'z'"),
        ("flags: {names: a}", "names must be tuple[str, ...], got 'a'"),
        ("flags: {ratios: [1]}", "ratios must be tuple[float, float], got [1]"),
        ("flags: {out: null}", "out must be Path, got None"),
        ("flags: {quick: 1}", "quick must be bool, got 1"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, text: str, fault: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    assert run(["--config", str(path)])[0] == cli.EXIT_USAGE
    shown = capsys.readouterr().err
    assert str(path) in shown and fault in shown


def test_a_missing_file_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--config", "nowhere.yaml"])[0] == cli.EXIT_USAGE
    assert "nowhere.yaml" in capsys.readouterr().err
    assert run(["--config"])[0] == cli.EXIT_USAGE
    assert "must be followed by a file" in capsys.readouterr().err


def test_values_of_a_file_are_checked_like_flags(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("flags: {out: made, rate: -1}")
    with pytest.raises(SystemExit):
        run(["--config", str(path)])
    assert "rate must be positive" in capsys.readouterr().err
