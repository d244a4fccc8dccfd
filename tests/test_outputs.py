"""Output files that cannot be written are named before any work; help and commands do without docstrings."""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from nepa3d import cli
from nepa3d.__main__ import main
from nepa3d.cli.commands import COMMANDS, spelled
from nepa3d.execution.files import require_writable

PAIR = ("--query_backend", "pointcloud", "--gallery_backend", "udfgrid")
PROBE = ("--cache_root", "unpaired", "--ckpt", "nepa_v1.pt")
SEARCH = ("--query_root", "cache", "--gallery_root", "cache", "--turn_queries", "1")
FEW = ("--n_context", "16", "--n_query", "16")
WRITERS = {  # the flag that names a file, and flags of a run that would work
    "ucpr": ("out_json", *PROBE, *PAIR),
    "scan-retrieval": ("out_json", *PROBE[2:], *SEARCH),
    "cpac": ("out_json", *PROBE, *FEW),
    "probe-cls": ("out_json", "--cache_root", "cache", "--ckpt", "nepa_v1.pt"),
    "compare": ("out_json", "--first", "first.json", "--second", "first.json"),
    "unpaired-split": ("out_json", "--cache_root", "cache"),
    "tables": ("out_md", "--results", "first.json"),
    "view": ("out_png", "cache/test/kitchen"),
    "report": ("out_html", "."),
    "verify": ("list_file", "cache"),
    "search": ("out_json", "shapes.lance", "query.obj"),
    "classify": ("out_json", "scan.ply", "--ckpt", "runs/scan"),
    "complete": ("out_json", "scan.ply", "--out", "mesh.ply"),
    "near-duplicates": ("list_file", *PROBE[:1], "cache"),
}


def test_every_flag_of_an_output_file_is_known() -> None:
    named = set()
    for name, (module, _) in COMMANDS.items():
        flags = {field.name for field in dataclasses.fields(importlib.import_module(module).Config)}
        found = {flag for flag in flags if flag.startswith("out_") and flag != "out_root"} | flags & {"list_file"}
        assert found <= set(cli.OUTPUT_FILES), name
        named |= {(name, flag) for flag in found}
    assert named == {(name, flag) for name, (flag, *_) in WRITERS.items()}


@pytest.mark.parametrize("name", WRITERS)
def test_a_file_that_cannot_be_written_is_named_before_any_work(
    name: str, golden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """R17: in every command that writes a file; /proc refuses even root."""
    flag, *flags = WRITERS[name]
    (tmp_path / "file").write_text("kept", encoding="utf-8")
    for place in (tmp_path, tmp_path / "file" / "a.json", Path(os.devnull)):
        assert main([name, *flags, f"--{flag}", f"{place}"]) == cli.EXIT_USAGE
        said = capsys.readouterr()
        assert said.err.startswith(f"error: {flag}: ") and f"{place}" in said.err
        assert said.err.count("\n") == 1 and said.out == ""
    for place in (Path("/proc/a.json"), Path("/proc/a/b.json")):
        assert main([name, *flags, f"--{flag}", f"{place}"]) == cli.EXIT_IO
        said = capsys.readouterr()
        assert said.err.startswith(f"error: {place}: ")
        assert said.err.count("\n") == 1 and said.out == ""
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text(encoding="utf-8") == "kept"


def test_what_can_be_written_is_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "there.json").write_text("kept", encoding="utf-8")
    (tmp_path / "lost").symlink_to(tmp_path / "nowhere" / "at all")
    for name in ("new.json", "a/b/new.json", "there.json", "lost"):
        require_writable(tmp_path / name, "out_json")
    with pytest.raises(ValueError, match=r"out_json: expected a file to write to, got the folder '.*results/'"):
        require_writable(f"{tmp_path}/results/", "out_json")
    with pytest.raises(ValueError, match=r"out_json: .*it lies below .*lost, which is no folder"):
        require_writable(tmp_path / "lost" / "new.json", "out_json")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lost", "there.json"]
    assert (tmp_path / "there.json").read_text(encoding="utf-8") == "kept"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_where_nobody_may_write(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError, match=r"new.json"):
        require_writable(tmp_path / "new.json", "out_json")


HELP = """
from nepa3d.__main__ import COMMANDS, main
for name in COMMANDS:
    try:
        main([name, "--help"])
    except SystemExit as ended:
        assert not ended.code
    print("\\f")
"""


def without_docstrings(*arguments: str) -> str:
    """What a Python prints that leaves docstrings out; it must end well and without a warning."""
    environment = os.environ | {"PYTHONOPTIMIZE": "2"}
    command = [sys.executable, *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", env=environment)
    assert ended.returncode == cli.EXIT_OK and "Traceback" not in ended.stderr, ended.stderr
    return ended.stdout


def test_help_without_docstrings() -> None:
    """R18: of every command."""
    shown = without_docstrings("-c", HELP).split("\f\n")[:-1]
    for (name, (module, what)), text in zip(COMMANDS.items(), shown, strict=True):
        usage, purpose, *_ = (line for line in text.splitlines() if line)
        assert usage.startswith(f"usage: {spelled(module)} "), name
        assert purpose.startswith(f"{what} (PYTHONOPTIMIZE=2 ")
        assert "--config FILE" in text and "Config(" not in text


def test_commands_run_without_docstrings(golden: Path, tmp_path: Path) -> None:
    result = f"{tmp_path / 'a.json'}"
    without_docstrings("-m", "nepa3d", "ucpr", *PROBE, *PAIR, "--out_json", result)
    assert json.loads(Path(result).read_text(encoding="utf-8"))["failed"] == []
    without_docstrings("-m", "nepa3d", "procedural", "--out_root", f"{tmp_path / 'meshes'}", "--per_class", "1")
    assert "ucpr" in without_docstrings("-m", "nepa3d", "completion", "bash")
    assert "ucpr" in without_docstrings("-m", "nepa3d", "--help")
