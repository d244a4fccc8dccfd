"""Run a command with flags from the environment, as wrappers and ``qsub -v NAME=value`` give them.

``python -m nepa3d.cli.from_environment nepa3d.data.preprocess_shapenet [FLAGS]``: every variable that is a flag of the
command in upper case (PT_POOL: --pt_pool) becomes that flag; an empty one counts as not given. Flags after the module's
name come last and win. The command is printed before it runs.
"""

from __future__ import annotations

import difflib
import importlib
import os
import shlex
import sys
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from nepa3d import cli
from nepa3d.cli import commands, flags

SWITCH = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}


def flags_from(config_type: type[Any], environment: Mapping[str, str]) -> list[str]:
    """The flags of a command's dataclass that ``environment`` gives. ``ValueError``: a switch neither on nor off."""
    words: list[str] = []
    for flag in flags.flags(config_type).values():
        name, value = flag.name.upper(), environment.get(flag.name.upper(), "")
        if not value:
            continue
        if flag.type is bool and flag.spelled is flags.AS_IT_IS:
            if value.lower() not in SWITCH:
                raise ValueError(f"{name} must be one of {', '.join(SWITCH)}, got {value!r}")
            words += [f"--{flag.name}"] if SWITCH[value.lower()] else []
        elif typing.get_origin(flag.type) in (list, tuple):
            words += [f"--{flag.name}", *shlex.split(value)]
        else:
            words.append(f"--{flag.name}={value}")
    return words


def command_module(name: str) -> Any:
    """The module of a command. ``ValueError`` if there is none of that name."""
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):  # of what it imports
            raise ValueError(f"{name} cannot be loaded: {error}") from error
        known = [of_command for of_command, _ in commands.COMMANDS.values()]
        near = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean {near[0]}?" if near else "nepa3d --help lists the commands"
        raise ValueError(f"there is no module {name}, {hint}") from error
    if not (hasattr(module, "Config") and hasattr(module, "main")):
        raise ValueError(f"{name} is no command, expected a module such as nepa3d.data.preprocess_shapenet")
    return module


def main(argv: Sequence[str] | None = None, environment: Mapping[str, str] = os.environ) -> int:
    """Run the module named first."""
    cli.settle_encodings(argv)
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or not arguments[0].startswith("nepa3d."):
        print("error: name a module of nepa3d first, such as nepa3d.data.preprocess_shapenet", file=sys.stderr)
        return cli.EXIT_USAGE
    try:
        module = command_module(arguments[0])
        words = [*flags_from(module.Config, environment), *arguments[1:]]
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return cli.EXIT_USAGE
    print(f"python -m {arguments[0]} {shlex.join(words)}", flush=True)
    status: int = module.main(words)
    return status


if __name__ == "__main__":
    raise SystemExit(main())
