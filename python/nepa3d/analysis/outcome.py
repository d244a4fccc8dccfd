"""How a probe ends: its table on the terminal, its figures in a file, its failures in the exit status."""

from __future__ import annotations

from typing import Any

from nepa3d import cli
from nepa3d.execution.files import write_json


def conclude(result: dict[str, Any], table: str, out_json: str) -> int:
    """Print ``table``, write ``result`` to ``out_json`` unless that is empty; 3 if any shape failed, else 0."""
    print(table)
    if out_json:
        write_json(out_json, result)
        print(f"wrote {out_json}")
    return cli.EXIT_SOME_FAILED if result["failed"] else cli.EXIT_OK
