"""What make wheels checks is found where it is wrong; the versions of Python are the same wherever they are named."""

from __future__ import annotations

import re
import shutil
import zipfile
from pathlib import Path

import pytest
import yaml

from tests.packaging import build_wheels, check_wheel

ROOT = Path(__file__).parents[2]
NAME = "nepa3d-0.1.0-cp312-cp312-manylinux_2_27_x86_64.manylinux_2_28_x86_64.whl"
FILES = ["__init__.py", "py.typed", "models/pretrained/model.safetensors"]
MODULES = [f"_core.cpython-312-{check_wheel.ARCHITECTURE}.so", f"_cuda_host.cpython-312-{check_wheel.ARCHITECTURE}.so"]
LICENCE = "nepa3d-0.1.0.dist-info/licenses/LICENSE"
METADATA = """Metadata-Version: 2.4
Name: nepa3d
Requires-Dist: numpy>=1.26
Requires-Dist: torch>=2.10
Requires-Dist: open3d>=0.18; extra == 'viz'
"""


def wheel(folder: Path, files: list[str], name: str = NAME) -> Path:
    """A wheel of empty files, with entries for folders, as auditwheel writes them."""
    with zipfile.ZipFile(folder / name, "w") as archive:
        archive.writestr("nepa3d/", "")
        for file in files:
            archive.writestr(file, "")
        archive.writestr("nepa3d-0.1.0.dist-info/METADATA", METADATA)
    return folder / name


def sound() -> list[str]:
    return [f"nepa3d/{name}" for name in (*FILES, *MODULES)] + [LICENCE]


def test_a_sound_wheel_has_no_faults(tmp_path: Path) -> None:
    assert check_wheel.content_faults(wheel(tmp_path, sound()), FILES) == []


@pytest.mark.parametrize("missing", sound())
def test_a_missing_file_is_named(tmp_path: Path, missing: str) -> None:
    files = [name for name in sound() if name != missing]
    named = "the licence" if missing == LICENCE else missing
    assert check_wheel.content_faults(wheel(tmp_path, files), FILES) == [f"{named} is missing"]


@pytest.mark.parametrize(
    "further",
    ["nepa3d/_cuda.cpython-312-x86_64-linux-gnu.so", "nepa3d.libs/libz.so.1", "tests/conftest.py", "csrc/bvh.cpp"],
)
def test_what_does_not_belong_into_a_wheel_is_named(tmp_path: Path, further: str) -> None:
    faults = check_wheel.content_faults(wheel(tmp_path, [*sound(), further]), FILES)
    assert faults == [f"{further} does not belong into it"]


def test_a_wheel_for_this_machine_alone_or_of_another_project_is_refused(tmp_path: Path) -> None:
    name = "nepa3d-0.1.0-cp312-cp312-linux_x86_64.whl"
    assert check_wheel.content_faults(wheel(tmp_path, sound(), name), FILES) == ["linux_x86_64 is no manylinux tag"]
    pure = check_wheel.content_faults(wheel(tmp_path, sound(), "nepa3d-0.1.0-py3-none-any.whl"), FILES)
    assert pure == ["its name is not that of a wheel of nepa3d for one version of CPython"]


def test_a_large_wheel_is_refused(tmp_path: Path) -> None:
    path = wheel(tmp_path, sound())
    with path.open("ab") as file:
        file.truncate(check_wheel.LARGEST)
    assert check_wheel.size_faults(path) == []
    with path.open("ab") as file:
        file.write(b"\0" * 2**20)
    assert check_wheel.size_faults(path) == ["21.0 MiB are more than 20"]


def test_the_tag_and_the_libraries_are_those_that_auditwheel_finds() -> None:
    shown = {"external_libs": {}, "overall_tag": "manylinux_2_27_x86_64"}
    assert check_wheel.policy_faults(Path(NAME), shown) == []
    shown = {"external_libs": {"libgomp.so.1": None}, "overall_tag": "manylinux_2_35_x86_64"}
    assert check_wheel.policy_faults(Path(NAME), shown) == [
        "needs libgomp.so.1, which the policy does not allow",
        "is named otherwise, but auditwheel finds manylinux_2_35_x86_64",
    ]


def test_requirements_are_those_without_extras(tmp_path: Path) -> None:
    assert check_wheel.requirements(wheel(tmp_path, sound())) == ["numpy>=1.26", "torch>=2.10"]


def test_the_files_of_the_package_are_its_sources_and_its_data() -> None:
    files = check_wheel.package_files()
    assert {"__init__.py", "_core.pyi", "configs/query.yaml", "py.typed", "report/page.html"} <= set(files)


def test_what_was_compiled_beside_the_sources_is_not_expected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_core.cpython-312-x86_64-linux-gnu.so", "ops/__pycache__/bvh.pyc", "models/pretrained/small.bin"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    monkeypatch.setattr(check_wheel, "PACKAGE", tmp_path)
    assert check_wheel.package_files() == ["models/pretrained/small.bin"]


def test_an_interpreter_that_cannot_build_is_left_out_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = tmp_path / "python3.98"
    python.write_text("#!/bin/sh\necho 'python3.98: command not found' >&2\nexit 127\n", encoding="utf-8")
    python.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert build_wheels.fault_of("python3.98") == "python3.98: command not found"
    assert build_wheels.fault_of("python3.99") == "not on the path"


def test_programs_beside_the_interpreter_are_found_without_activation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As make calls it: .venv/bin/python, while .venv/bin is not on the path."""
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    for name in ("python", "a-patchelf"):
        (tmp_path / name).write_text("#!/bin/sh\n", encoding="utf-8")
        (tmp_path / name).chmod(0o755)
    assert shutil.which("a-patchelf") is None
    environment = build_wheels.with_programs_of(f"{tmp_path / 'python'}")
    assert shutil.which("a-patchelf", path=environment["PATH"]) == f"{tmp_path / 'a-patchelf'}"
    assert environment["PATH"].endswith(":/usr/bin:/bin")


def test_every_version_that_a_wheel_is_built_for_is_installed_before_it_is_published() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "wheels.yml").read_text(encoding="utf-8"))
    jobs = workflow["jobs"]
    built = [f"3.{minor}" for minor in build_wheels.versions()]
    assert jobs["install"]["strategy"]["matrix"]["python"] == built
    assert set(jobs["publish"]["needs"]) == jobs.keys() - {"publish"}
    oldest = re.search(r'^requires-python = ">=(.*)"$', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.M)
    assert oldest is not None
    assert built[0] == oldest[1]
