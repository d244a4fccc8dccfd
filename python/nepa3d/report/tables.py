"""The track document's tables, from result files, with chance and copy baselines."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from nepa3d.probes.kind import Named
from nepa3d.probes.table import PROBES, read_result
from nepa3d.probes.tables import Table


def collect(paths: Sequence[str]) -> list[Table]:
    """Tables of the results at ``paths``; unreadable JSON, or no result at all, raises ``ValueError``."""
    with_table = [name for name, kind in PROBES.items() if kind.table is not None]
    found: dict[str, list[Named]] = {name: [] for name in with_table}
    for path in paths:
        result = read_result(path)
        if result is None or result.probe not in found:
            print(f"left out {path}: no result of {' or '.join(with_table)}", file=sys.stderr)
            continue
        found[result.probe].append((Path(path).stem, result))
    tables = [kind.table(found[name]) for name, kind in PROBES.items() if kind.table is not None and found.get(name)]
    if not tables:
        raise ValueError(f"results: expected results of {' or '.join(with_table)}, found none among {len(paths)}")
    return tables
