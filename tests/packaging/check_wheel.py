"""Check wheels before they are published: their content, and whether they install and work without a compiler.

    python tests/packaging/check_wheel.py content dist/*.whl     # needs auditwheel
    python tests/packaging/check_wheel.py install dist/*.whl     # needs the interpreters on the path

Runs from a checkout with Python's standard library alone, so that it can be used in a bare container.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).resolve().parents[2] / "python" / "nepa3d"
MODULES = ("_core", "_cuda_host")  # not _cuda: it would add megabytes that serve one version of CUDA
ARCHITECTURE = "x86_64-linux-gnu"
LARGEST = 20 * 2**20  # bytes
NAME = re.compile(r"nepa3d-[^-]+-cp3(?P<minor>\d+)-cp3(?P=minor)-(?P<platforms>[\w.]+)\.whl")
COMPILERS = ("cc", "c++", "gcc", "g++", "clang", "clang++", "nvcc")

EXAMPLE = """
import json, time
start = time.perf_counter()
import nepa3d
imported = time.perf_counter()
corners = [(x, y, z) for x in (-1.0, 1.0) for y in (-1.0, 1.0) for z in (-1.0, 1.0)]
faces = [(0, 1, 3), (0, 3, 2), (4, 6, 7), (4, 7, 5), (0, 4, 5), (0, 5, 1), (2, 3, 7), (2, 7, 6), (0, 2, 6), (0, 6, 4),
         (1, 5, 7), (1, 7, 3)]
shape = nepa3d.Shape.from_mesh((corners, faces))
made = time.perf_counter()
found = nepa3d.ops.closest_point(corners, faces, [(3.0, 0.0, 0.5), (0.0, 0.0, 0.25)])
print(json.dumps({
    "distances": [float(x) for x in found.distance],
    "queries": list(shape.view("mesh").point_xyz.shape),
    "instruction set": nepa3d.ops.instruction_set(),
    "import s": round(imported - start, 2),
    "Shape s": round(made - imported, 2),
}))
"""


def content_faults(wheel: Path, expected: Iterable[str]) -> list[str]:
    """What is wrong with the name and the files of a wheel; ``expected`` are the package's files apart from
    its compiled modules, relative to its folder.
    """
    named = NAME.fullmatch(wheel.name)
    if named is None:
        return ["its name is not that of a wheel of nepa3d for one version of CPython"]
    faults = [f"{tag} is no manylinux tag" for tag in named["platforms"].split(".") if not tag.startswith("manylinux")]
    with zipfile.ZipFile(wheel) as archive:
        files = {name for name in archive.namelist() if ".dist-info/" not in name and not name.endswith("/")}
        licensed = any(name.endswith(".dist-info/licenses/LICENSE") for name in archive.namelist())
    compiled = {f"nepa3d/{module}.cpython-3{named['minor']}-{ARCHITECTURE}.so" for module in MODULES}
    wanted = {f"nepa3d/{name}" for name in expected} | compiled
    faults += [f"{name} is missing" for name in sorted(wanted - files)]
    faults += [f"{name} does not belong into it" for name in sorted(files - wanted)]
    return faults if licensed else [*faults, "the licence is missing"]


def size_faults(wheel: Path) -> list[str]:
    """Whether a wheel is larger than the limit."""
    size = wheel.stat().st_size / 2**20
    return [f"{size:.1f} MiB are more than {LARGEST / 2**20:.0f}"] if wheel.stat().st_size > LARGEST else []


def policy_faults(wheel: Path, shown: dict[str, Any]) -> list[str]:
    """Where what auditwheel shows of a wheel, as JSON, disagrees with the wheel's tags."""
    faults = [f"needs {library}, which the policy does not allow" for library in sorted(shown["external_libs"])]
    if shown["overall_tag"] not in wheel.stem.rpartition("-")[2].split("."):
        faults.append(f"is named otherwise, but auditwheel finds {shown['overall_tag']}")
    return faults


def package_files() -> list[str]:
    """The files of the package in this checkout that every wheel has."""
    paths = (path.relative_to(PACKAGE) for path in PACKAGE.rglob("*") if path.is_file())
    return [path.as_posix() for path in paths if path.suffix != ".so" and "__pycache__" not in path.parts]


def content(wheel: Path) -> list[str]:
    """The faults of a wheel's content, and of what it needs of the system."""
    audit = [sys.executable, "-m", "auditwheel", "show", "--json", str(wheel)]
    shown = json.loads(subprocess.run(audit, check=True, capture_output=True, encoding="utf-8").stdout)
    faults = size_faults(wheel) + content_faults(wheel, package_files()) + policy_faults(wheel, shown)
    print(f"{wheel.name}: {wheel.stat().st_size / 1e6:.2f} MB, {shown['overall_tag']}, {len(faults)} faults")
    return faults


def install(wheel: Path, without_torch: bool, options: list[str]) -> list[str]:
    """The faults of a wheel in a new environment on whose path there is no compiler."""
    minor = re.findall(r"-cp3(\d+)-", wheel.name)[0]
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([f"python3.{minor}", "-m", "venv", folder], check=True)
        programs = Path(folder) / "bin"
        start = time.perf_counter()
        pip = [str(programs / "python"), "-m", "pip", "install", "--quiet", "--only-binary=:all:", *options]
        if without_torch:
            subprocess.run([*pip, *(name for name in requirements(wheel) if not name.startswith("torch"))], check=True)
            subprocess.run([*pip, "--no-deps", str(wheel)], check=True)
        else:
            subprocess.run([*pip, str(wheel)], check=True)
        installed = time.perf_counter() - start
        faults = [f"{name} is on the path" for name in COMPILERS if shutil.which(name, path=str(programs))]
        environment = {**os.environ, "PATH": str(programs)}
        environment.pop("PYTHONPATH", None)

        def output(*command: str) -> str:
            shown = subprocess.run(
                command, cwd=folder, env=environment, check=True, capture_output=True, encoding="utf-8"
            )
            return shown.stdout

        nepa3d = str(programs / "nepa3d")
        if "doctor" not in output(nepa3d, "--help"):
            faults.append("nepa3d --help does not list its commands")
        modules = json.loads(output(nepa3d, "doctor", "--json"))["modules"]
        expected = {f"nepa3d.{module}": "built" for module in MODULES} | {"nepa3d._cuda": None}
        if modules != expected:
            faults.append(f"nepa3d doctor finds the modules {modules}")
        answers = json.loads(output(str(programs / "python"), "-I", "-c", EXAMPLE))
        if answers["distances"] != [2.0, 0.75]:
            faults.append(f"the distances from a cube are {answers['distances']}, expected [2.0, 0.75]")
    print(f"{wheel.name}: installed in {installed:.1f} s, {answers}, {len(faults)} faults")
    return faults


def requirements(wheel: Path) -> list[str]:
    """What a wheel asks for without its extras."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        lines = archive.read(name).decode("utf-8").splitlines()
    asked = [line.removeprefix("Requires-Dist: ") for line in lines if line.startswith("Requires-Dist: ")]
    return [line for line in asked if "extra ==" not in line]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["content", "install"])
    parser.add_argument("wheels", nargs="+", type=Path)
    parser.add_argument(
        "--without-torch",
        action="store_true",
        help="install the other requirements only: an index may have CUDA's alone",
    )
    parser.add_argument("--constraint", type=Path, help="a file of versions for pip")
    arguments = parser.parse_args(argv)
    options = ["--constraint", str(arguments.constraint.resolve())] if arguments.constraint else []
    faulty = False
    for wheel in arguments.wheels:
        if arguments.what == "content":
            faults = content(wheel)
        else:
            faults = install(wheel.resolve(), arguments.without_torch, options)
        for fault in faults:
            print(f"{wheel.name}: {fault}", file=sys.stderr)
            faulty = True
    return int(faulty)


if __name__ == "__main__":
    raise SystemExit(main())
