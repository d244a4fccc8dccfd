"""What made a result: version, commit, machine, time."""

from __future__ import annotations

import os
import platform
import re
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from nepa3d import _core


def describe() -> dict[str, Any]:
    """Version and commit of this package, the machine, and the time (UTC)."""
    return {
        "nepa3d": _core.__version__,
        "commit": _core.commit(),
        "machine": {"cpu": cpu_model(), "cores": usable_cores(), "os": platform.platform()},
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def cpu_model() -> str:
    """The processor's name as the system gives it."""
    info = Path("/proc/cpuinfo")
    text = info.read_text(encoding="utf-8", errors="replace") if info.exists() else ""
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found.group(1).strip() if found else platform.processor() or platform.machine()


def usable_cores() -> int:
    """Processors this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
