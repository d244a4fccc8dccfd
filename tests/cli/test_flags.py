"""Flags of a dataclass: nested groups, spellings that differ from values, and the way back."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import pytest
import tyro

from nepa3d import cli
from nepa3d.cli import configuration, flags
from nepa3d.cli.commands import COMMANDS
from nepa3d.cli.from_environment import command_module, flags_from
from nepa3d.cli.spellings import OptionalCount, OptionalSwitch, Switch


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """What a sample holds."""

    n_point: OptionalCount = None
    """Points."""
    add_eos: Switch = True
    """Closing token."""
    qa_tokens: OptionalSwitch = None
    """Two tokens a query."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """A command."""

    root: Annotated[Path, tyro.conf.Positional]
    """Folder."""
    tokens: Tokens = field(default_factory=Tokens)
    names: tuple[str, ...] = ()
    """Names."""
    quick: bool = False
    """Quick."""


def test_groups_are_flat_and_spelled_as_the_document_does() -> None:
    config = cli.parse(Config, ["here", "--n_point", "7", "--add_eos", "0", "--names", "a", "b c"])
    assert config == Config(root=Path("here"), tokens=Tokens(n_point=7, add_eos=False), names=("a", "b c"))
    assert flags.spellings(config) == {
        "root": "here",
        "n_point": 7,
        "add_eos": 0,
        "qa_tokens": -1,
        "names": ["a", "b c"],
        "quick": False,
    }
    assert flags.values(config)["qa_tokens"] is None


@pytest.mark.parametrize("words", [[], ["--add_eos", "1"], ["--qa_tokens", "-1", "--n_point", "-1"]])
def test_spelled_defaults_are_the_defaults(words: list[str]) -> None:
    assert cli.parse(Config, ["here", *words]) == Config(root=Path("here"))


@pytest.mark.parametrize("words", [["--add_eos", "2"], ["--add_eos", "-1"], ["--qa_tokens", "2"], ["--n_point", "x"]])
def test_other_spellings_are_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.parse(Config, ["here", *words])
    assert ended.value.code == cli.EXIT_USAGE
    assert words[0] in capsys.readouterr().err


@pytest.mark.parametrize(
    "config",
    [
        Config(root=Path("here")),
        Config(root=Path("a b"), quick=True, names=("x",)),
        Config(root=Path("c"), tokens=Tokens(n_point=0, add_eos=False, qa_tokens=False)),
        Config(root=Path("c"), tokens=Tokens(qa_tokens=True)),
    ],
)
def test_a_configuration_comes_back_from_words_and_from_a_file(config: Config, tmp_path: Path) -> None:
    assert cli.parse(Config, flags.command_line(config)) == config
    configuration.save(tmp_path / "x.config.yaml", "a.module", config)
    given = configuration.load(tmp_path / "x.config.yaml", "a.module", Config)
    assert given == flags.values(config)
    spelled = {name: Path(value) if name == "root" else value for name, value in flags.spellings(config).items()}
    spelled["names"] = tuple(spelled["names"])
    assert flags.build(Config, spelled) == config


@pytest.mark.parametrize("wrong", ["add_eos: 2", "add_eos: true", "qa_tokens: yes please", "n_point: 1.5"])
def test_a_file_with_another_spelling_is_refused(wrong: str, tmp_path: Path) -> None:
    path = tmp_path / "x.config.yaml"
    path.write_text(f"command: a.module\nflags:\n  {wrong}\n", encoding="utf-8")
    with pytest.raises(ValueError, match=wrong.partition(":")[0]):
        configuration.load(path, "a.module", Config)


def test_words_from_the_environment() -> None:
    assert flags_from(Config, {"ADD_EOS": "0", "QUICK": "yes", "NAMES": "a 'b c'"}) == [
        *("--add_eos=0", "--names", "a", "b c", "--quick"),
    ]


def test_build_names_what_is_wrong() -> None:
    with pytest.raises(ValueError, match="root must be given"):
        flags.build(Config, {})
    with pytest.raises(ValueError, match="points is no flag of Config"):
        flags.build(Config, {"root": Path("x"), "points": 3})


def test_two_groups_with_one_flag_are_refused() -> None:
    @dataclass(frozen=True)
    class Twice:
        one: Tokens = field(default_factory=Tokens)
        other: Tokens = field(default_factory=Tokens)

    Twice.__annotations__ = {"one": Tokens, "other": Tokens}
    with pytest.raises(ValueError, match="two flags n_point"):
        flags.flags(Twice)


@pytest.mark.parametrize("module", sorted({module for module, _ in COMMANDS.values()}))
def test_every_command_has_sound_flags_and_help(module: str, capsys: pytest.CaptureFixture[str]) -> None:
    config_type = command_module(module).Config
    assert flags.flags(config_type)
    with pytest.raises(SystemExit) as ended:
        cli.parse(config_type, ["--help"])
    assert not ended.value.code
    assert "Example:" in capsys.readouterr().out
