"""``nepa3d doctor``: what is there is named, what is not is said plainly."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from nepa3d import __version__, cli
from nepa3d.__main__ import main
from nepa3d.cli import doctor


def found(capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, str]]:
    assert main(["doctor", "--json"]) == cli.EXIT_OK
    sections: dict[str, dict[str, str]] = json.loads(capsys.readouterr().out)
    return sections


def script(folder: Path, name: str, says: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\nprintf '%s\\n' {says}\n", encoding="utf-8")
    (folder / name).chmod(0o755)


def test_a_machine_with_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script(tmp_path, "nvcc", "'nvcc: NVIDIA (R) Cuda compiler driver' 'Cuda compilation tools, release 13.0'")
    script(tmp_path, "nvidia-smi", "'NVIDIA H100, 9.0, 81559 MiB' 'NVIDIA H100, 9.0, 81559 MiB'")
    monkeypatch.setenv("PATH", f"{tmp_path}", prepend=":")
    monkeypatch.delenv("CUDACXX", raising=False)
    module = ModuleType("nepa3d._cuda")
    module.devices = lambda: [("NVIDIA H100", 9, 0, 80 * 2**30)]  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "nepa3d._cuda", module)
    sections = found(capsys)
    assert sections["nepa3d"]["version"] == __version__
    assert sections["compilers"]["CUDA"] == f"{tmp_path}/nvcc: Cuda compilation tools, release 13.0"
    assert sections["NVIDIA"]["GPU"] == "NVIDIA H100, 9.0, 81559 MiB"
    assert sections["modules"]["nepa3d._cuda"] == "built, sees NVIDIA H100 (9.0, 80 GiB)"
    assert sections["modules"]["nepa3d._core"] == "built"


def test_a_machine_with_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}")
    monkeypatch.delenv("CUDACXX", raising=False)
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(doctor, "CUDA_COMPILERS", ("nvcc",))
    monkeypatch.setitem(sys.modules, "nepa3d._cuda", None)
    sections = found(capsys)
    assert sections["compilers"] == {"C++": None, "CUDA": None}
    assert sections["NVIDIA"] == {"driver": None, "GPU": None}
    assert sections["modules"]["nepa3d._cuda"] is None
    assert main(["doctor"]) == cli.EXIT_OK
    shown = capsys.readouterr().out
    assert "not built (the geometry on a GPU)" in shown
    assert "not found" in shown


def test_a_module_without_a_driver_says_which_call_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise RuntimeError("cudaGetDeviceCount: no driver (CUDA error 35)")

    module = ModuleType("nepa3d._cuda")
    module.devices = refuse  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "nepa3d._cuda", module)
    state = doctor.examine()["modules"]["nepa3d._cuda"]
    assert state == "built, but no GPU can be used: cudaGetDeviceCount: no driver (CUDA error 35)"


def test_extras_name_what_is_missing() -> None:
    sections = {"extras": {"demo": {"jinja2": "3.1", "plotly": None}, "hub": {"huggingface_hub": "1.0"}}}
    lines = [line.split() for line in doctor.table(sections).splitlines()]
    assert lines == [["extras", "demo", "without", "plotly"], ["extras", "hub", "complete"]]
