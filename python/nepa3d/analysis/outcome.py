"""How a probe ends: its table on the terminal, its result in a file, its failures in the exit status."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from nepa3d import cli
from nepa3d.execution.files import write_json
from nepa3d.probes.result import Result


def conclude(result: Result, table: str, out_json: str, warnings: Sequence[str] = ()) -> int:
    """Print warnings, failed shapes and ``table``, write ``result`` to ``out_json`` unless that is empty; 3 if any
    shape failed, else 0."""
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    for path, reason in result.failed.items():
        print(f"failed: {path}: {reason}", file=sys.stderr)
    print(table)
    if out_json:
        write_json(out_json, result.to_json())
        print(f"wrote {out_json}")
    return cli.EXIT_SOME_FAILED if result.failed else cli.EXIT_OK
