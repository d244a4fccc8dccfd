"""The table of probes: each is a file of this folder, and a row here."""

from __future__ import annotations

from pathlib import Path

from nepa3d.execution.files import read_json
from nepa3d.probes.classification import CLASSIFICATION
from nepa3d.probes.completion import COMPLETION
from nepa3d.probes.kind import ProbeKind
from nepa3d.probes.result import Json, Result
from nepa3d.probes.retrieval import RETRIEVAL
from nepa3d.probes.scan_retrieval import SCAN_RETRIEVAL
from nepa3d.probes.surfaces import SURFACES

PROBES: dict[str, ProbeKind] = {
    "ucpr": RETRIEVAL,
    "cpac_udf": COMPLETION,
    "surfaces": SURFACES,
    "classification": CLASSIFICATION,
    "scan_retrieval": SCAN_RETRIEVAL,
}


def result_of(content: Json) -> Result | None:
    """The result that a JSON object is; None if it is of no probe of the table."""
    for name, kind in PROBES.items():
        if kind.recognises(content):
            return kind.result.from_json(content, name, kind.figures, kind.controls, kind.diagnostics)
    return None


def read_result(path: str | Path) -> Result | None:
    """The result in a file, or None; ``ValueError`` naming the file when it is not a JSON object."""
    return result_of(read_json(path))
