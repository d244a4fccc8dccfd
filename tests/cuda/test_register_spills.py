"""Registers that the kernels spill to memory: none, but for the bytes recorded here, as nvcc says for an H100."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "csrc" / "cuda").glob("*.cu"))
KERNELS = [source for source in SOURCES if source.stem != "runtime"]
SPILLED = {"voxel": 16}  # bytes of stores and loads of a file's kernels, where there are some
_SPILLS = re.compile(r"(\d+) bytes spill stores, (\d+) bytes spill loads")


def nvcc() -> str | None:
    """The compiler that cmake/cuda.cmake would find."""
    wheel = ROOT / "build" / "cuda_wheels" / "nvidia" / "cu13" / "bin" / "nvcc"
    return os.environ.get("CUDACXX") or shutil.which("nvcc") or (f"{wheel}" if wheel.is_file() else None)


def compile_flags() -> list[str]:
    """Those of the build for CUDA sources."""
    found = re.search(r"COMPILE_LANGUAGE:CUDA>:(.*?)>", (ROOT / "cmake" / "cuda.cmake").read_text("utf-8"))
    assert found is not None
    return found.group(1).replace(";", " ").split()


def spilled_bytes(said: str) -> int:
    """What ptxas says of all kernels of a file, summed."""
    found = _SPILLS.findall(said)
    assert found, f"ptxas names no kernel:\n{said}"
    return sum(int(stores) + int(loads) for stores, loads in found)


def test_spills_are_counted() -> None:
    said = "\n".join(
        [
            "ptxas info    : Compiling entry function '_Z1av' for 'sm_90'",
            "    8 bytes stack frame, 12 bytes spill stores, 20 bytes spill loads",
            "ptxas info    : Compiling entry function '_Z1bv' for 'sm_90'",
            "    0 bytes stack frame, 0 bytes spill stores, 4 bytes spill loads",
        ]
    )
    assert spilled_bytes(said) == 36
    with pytest.raises(AssertionError, match="ptxas names no kernel"):
        spilled_bytes("ptxas info    : 0 bytes gmem")


def test_the_build_compiles_these_files_with_these_flags() -> None:
    built = re.findall(r"csrc/cuda/(\w+\.cu)\b", (ROOT / "cmake" / "cuda.cmake").read_text("utf-8"))
    assert sorted(built) == [source.name for source in SOURCES]
    assert {"-fmad=false", "-Xptxas=-v", "--expt-relaxed-constexpr"} <= set(compile_flags())


@pytest.mark.skipif(nvcc() is None, reason="needs nvcc: make cuda")
@pytest.mark.parametrize("source", KERNELS, ids=lambda path: path.stem)
def test_kernels_keep_their_registers(source: Path, tmp_path: Path) -> None:
    target = ("-arch=sm_90", "-std=c++20", "-O3", "-DNDEBUG", "-DNEPA3D_ISA=one_lane", f"-I{ROOT / 'csrc'}")
    command = [f"{nvcc()}", "-cubin", "-o", f"{tmp_path / 'kernels.cubin'}", *target, *compile_flags(), f"{source}"]
    plain = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}  # nvcc dies under sanitizers
    done = subprocess.run(command, env=plain, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert spilled_bytes(done.stderr) <= SPILLED.get(source.stem, 0), done.stderr
