"""Print a script with which a shell completes ``nepa3d``'s commands and flags.

Usage: nepa3d completion bash > ~/.local/share/bash-completion/completions/nepa3d
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from nepa3d import cli
from nepa3d.cli.commands import COMMANDS


@dataclass(frozen=True)
class Config:
    """Print a script that completes commands and flags in a shell; save it where the shell looks for completions.

    Example: nepa3d completion bash > ~/.local/share/bash-completion/completions/nepa3d
    """

    shell: Annotated[Literal["bash", "zsh"], tyro.conf.Positional]
    """The shell; zsh looks for a file _nepa3d in the folders of its $fpath."""


def command(config: Config) -> None:
    """Print the script."""
    configs = {name: importlib.import_module(module).Config for name, (module, _) in COMMANDS.items()}
    try:
        tyro.extras.subcommand_cli_from_dict(
            configs,
            prog="nepa3d",
            args=["--tyro-print-completion", config.shell],
            use_underscores=True,
            config=cli.markers(),
        )
    except SystemExit as printed:
        if printed.code:
            raise


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``nepa3d completion``."""
    return cli.run(Config, command, argv)


if __name__ == "__main__":
    raise SystemExit(main())
