"""Show what nepa3d finds on this machine: compilers, GPU, compiled modules, optional packages.

Usage: nepa3d doctor
"""

from __future__ import annotations

import importlib
import json
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from tabulate import tabulate

from nepa3d import _core, cli
from nepa3d.execution import provenance

MODULES = {
    "nepa3d._core": "the geometry on the CPU",
    "nepa3d._cuda": "the geometry on a GPU",
    "nepa3d._cuda_host": "its threads on the CPU, for tests",
}
COMPILERS = ("c++", "g++", "clang++")
CUDA_COMPILERS = ("nvcc", "/usr/local/cuda/bin/nvcc")
NEEDED = ("numpy", "torch", "triton")


@dataclass(frozen=True)
class Config:
    """Show compilers, driver and GPU, which compiled modules work, and which optional packages are installed.

    Example: nepa3d doctor --json
    """

    json: bool = False
    """Print JSON instead of a table."""


def examine() -> dict[str, Any]:
    """What is there, by section; None stands for what is not."""
    about = provenance.describe()
    return {
        "nepa3d": {"version": about["nepa3d"], "commit": about["commit"], "instruction set": _core.instruction_set()},
        "machine": {**about["machine"], "python": platform.python_version()},
        "packages": {name: _version(name) for name in NEEDED},
        "compilers": {
            "C++": _compiler(os.environ.get("CXX"), *COMPILERS),
            "CUDA": _compiler(os.environ.get("CUDACXX"), *CUDA_COMPILERS),
        },
        "NVIDIA": {"driver": _ask_nvidia("driver_version"), "GPU": _ask_nvidia("name,compute_cap,memory.total")},
        "modules": {name: _state(name) for name in MODULES},
        "extras": {extra: {name: _version(name) for name in names} for extra, names in _extras().items()},
    }


def table(found: dict[str, Any]) -> str:
    """The findings as rows: section, what, and what was found."""
    rows = []
    for section, entries in found.items():
        for name, value in entries.items():
            if section == "modules":
                value = f"{value or 'not built'} ({MODULES[name]})"
            elif section == "extras":
                missing = [package for package, version in value.items() if version is None]
                value = f"without {', '.join(missing)}" if missing else "complete"
            rows.append((section, name, "not found" if value is None else f"{value}"))
    return str(tabulate(rows, disable_numparse=True, tablefmt="plain"))


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _extras() -> dict[str, list[str]]:
    """The packages of each optional part of nepa3d, as its installation lists them."""
    try:
        requirements = metadata.requires("nepa3d") or []
    except metadata.PackageNotFoundError:  # run from its sources
        return {}
    found: dict[str, list[str]] = {}
    for requirement in requirements:
        extra = re.search(r"""extra == ["']([\w-]+)["']""", requirement)
        package = re.match(r"[\w.-]+", requirement)
        if extra and package:
            found.setdefault(extra[1], []).append(package[0])
    return found


def _compiler(*names: str | None) -> str | None:
    """The first of these that is on the path, and the line in which it tells its version."""
    path = next((path for name in names if name and (path := shutil.which(name))), None)
    if path is None:
        return None
    lines = [line for line in _output([path, "--version"]).splitlines() if re.search(r"\d\.\d", line)]
    return f"{path}: {lines[0].strip() if lines else 'does not tell its version'}"


def _ask_nvidia(fields: str) -> str | None:
    """What the driver's nvidia-smi says of each GPU."""
    if not shutil.which("nvidia-smi"):
        return None
    answer = _output(["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader"])
    return "; ".join(dict.fromkeys(line.strip() for line in answer.splitlines() if line.strip())) or None


def _output(command: list[str]) -> str:
    finished = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", check=False, timeout=60)
    return finished.stdout if finished.returncode == 0 else ""


def _state(module: str) -> str | None:
    """None where a compiled module was not built, else whether it works."""
    try:
        loaded = importlib.import_module(module)
    except ModuleNotFoundError:
        return None
    except ImportError as error:
        return f"cannot be loaded: {error}"
    if module != "nepa3d._cuda":
        return "built"
    try:
        devices = loaded.devices()
    except RuntimeError as error:
        return f"built, but no GPU can be used: {error}"
    names = [f"{name} ({major}.{minor}, {memory / 2**30:.0f} GiB)" for name, major, minor, memory in devices]
    return f"built, sees {', '.join(names) or 'no GPU'}"


def command(config: Config) -> None:
    """Print the findings."""
    found = examine()
    print(json.dumps(found, indent=1) if config.json else table(found))


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``nepa3d doctor``."""
    return cli.run(Config, command, argv)


if __name__ == "__main__":
    raise SystemExit(main())
