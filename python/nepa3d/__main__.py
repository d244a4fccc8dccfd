"""The ``nepa3d`` command."""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Sequence

from nepa3d import cli
from nepa3d.cli.commands import COMMANDS


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command named first."""
    cli.settle_encodings(argv)
    name, *flags = (sys.argv[1:] if argv is None else argv) or ["--help"]
    if name in ("-h", "--help"):
        print("usage: nepa3d NAME [FLAGS], nepa3d NAME --help\n")
        for known, (_, what) in COMMANDS.items():
            print(f"  {known:<25}{what}")
        print("\nExample: nepa3d view data/shapenet_cache_v0/train/chair/one.npz")
        return cli.EXIT_OK
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, 1)
        hint = f"did you mean {near[0]}?" if near else "nepa3d --help lists them"
        print(f"error: there is no command {name!r}, {hint}", file=sys.stderr)
        return cli.EXIT_USAGE
    status: int = importlib.import_module(COMMANDS[name][0]).main(flags)
    return status


if __name__ == "__main__":
    raise SystemExit(main())
