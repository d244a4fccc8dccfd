"""What a result depends on beside the code: the machine, the compiler, and everybody's versions."""

from __future__ import annotations

import platform
import re
import subprocess
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

from nepa3d import _core
from nepa3d.execution.provenance import cpu_model, usable_cores
from nepa3d.ops import instruction_set

PACKAGES = (
    *("numpy", "scipy", "pykdtree", "open3d", "point-cloud-utils", "libigl"),
    *("trimesh", "embreex", "edt", "numba", "triton", "lancedb"),
)


def describe() -> dict[str, Any]:
    """Machine, commit, date and versions of a run."""
    return {
        "machine": {
            "cpu": cpu_model(),
            "cores": usable_cores(),
            "os": platform.platform(),
            "instruction_set": instruction_set(),
        },
        "commit": commit(),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "versions": {"python": platform.python_version(), "compiler": compiler(), **package_versions()},
    }


def slug() -> str:
    """A file name for this machine."""
    return re.sub(r"[^a-z0-9]+", "-", f"{cpu_model()} {usable_cores()} cores".lower()).strip("-")


def commit() -> str:
    """The commit of this tree, with -dirty if it has changes; "unknown" outside a repository."""
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty"],
            cwd=Path(__file__).parent,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
        )
    except FileNotFoundError:
        return "unknown"
    return done.stdout.strip() or "unknown"


def compiler() -> str:
    """The compiler that built the core, from the comment it left in the file; "unknown" if it left none."""
    found = re.search(rb"GCC: \([^)]*\) [\d.]+|clang version [\d.]+", Path(_core.__file__).read_bytes())
    return found.group().decode() if found else "unknown"


def package_versions() -> dict[str, str]:
    """Version of each peer, or "not installed"."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions
