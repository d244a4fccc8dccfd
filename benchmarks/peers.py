"""The libraries that ours is compared with: one that is installed must also load."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec

MODULES = ("edt", "embreex", "igl", "numba", "open3d", "point_cloud_utils", "pykdtree", "scipy", "trimesh")
SYSTEM_PACKAGES = {"open3d": "libusb-1.0-0 libgl1 libgomp1"}  # of Debian and Ubuntu


def require_loadable() -> None:
    """Raise ``ValueError`` naming the peers that are installed but cannot be loaded, and what to install for them.

    Each is imported in a process of its own. Without this, a table could leave out its strongest peer.
    """
    broken = []
    for module in MODULES:
        if find_spec(module) is None:
            continue
        done = subprocess.run([sys.executable, "-c", f"import {module}"], capture_output=True, encoding="utf-8")
        if done.returncode == 0:
            continue
        reason = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        packages = SYSTEM_PACKAGES.get(module)
        remedy = (
            f"on Debian and Ubuntu: apt install {packages}" if packages else f"pip install --force-reinstall {module}"
        )
        broken.append(f"{module} is installed but cannot be loaded ({reason}); {remedy}")
    if broken:
        raise ValueError("; ".join(broken))
