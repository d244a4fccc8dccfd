"""The harness itself: what it says of peers that agree, differ or are absent. No test looks at a time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import harness, peers, report, run, worker
from benchmarks.agreement import same_integers
from benchmarks.harness import OURS, Case, Contender, Row, measure, selected
from benchmarks.inputs import Inputs, write_obj
from nepa3d import cli
from nepa3d.corpora.solids import box

PEERS = {"edt", "embreex", "igl", "numba", "open3d", "point_cloud_utils", "pykdtree", "scipy"}


def import_what_is_not_there() -> Contender:
    import no_such_library

    return no_such_library


def load_what_is_broken() -> Contender:
    raise ImportError("lib.so: cannot open shared object file")


def row(theirs: int = 1) -> Row:
    """We answer 1, the peer what it is told; two further peers cannot be imported."""
    return Row(
        size={"things": 3},
        ours=Contender(lambda: 1, np.array),
        peers={
            "peer": lambda: Contender(lambda: theirs, np.array),
            "absent": import_what_is_not_there,
            "broken": load_what_is_broken,
        },
        compare=same_integers,
    )


@pytest.fixture
def arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Flags of a run on a corpus of one box, in this process: "same" agrees, "other" differs."""

    def same(inputs: Inputs, threads: int) -> Row:
        return row()

    def other(inputs: Inputs, threads: int) -> Row:
        return row(theirs=2)

    cases = [Case("same", same, per_mesh=False, threaded=True), Case("other", other, per_mesh=True, threaded=False)]
    monkeypatch.setattr(worker, "CASES", cases)
    monkeypatch.setattr(run, "run_in_own_process", worker.run_job)
    monkeypatch.setattr(peers, "MODULES", ())
    write_obj(tmp_path / "corpus" / "box.obj", *box((0, 0, 0), (1, 1, 1)))
    folders = [("--corpus", "corpus"), ("--work", "work"), ("--results", "results")]
    return [*(text for flag, name in folders for text in (flag, f"{tmp_path / name}")), "--quick", "--threads", "1"]


def written(folder: Path) -> dict:
    (path,) = folder.glob("results/*.json")
    return json.loads(path.read_text())


def test_agreeing_peer_is_timed() -> None:
    result = measure(row(), "a row", threads=1, repeats=4, budget=60)
    assert not result.differs
    assert set(result.times) == {OURS, "peer"}
    assert all(times.runs == 4 and 0 < times.minimum <= times.median for times in result.times.values())
    assert result.fastest_peer == "peer"
    assert result.ratio == result.times["peer"].minimum / result.times[OURS].minimum


def test_differing_peer_leaves_no_times() -> None:
    result = measure(row(theirs=2), "a row", threads=1, repeats=4, budget=60)
    assert result.differs
    assert result.times == {}
    assert result.ratio is None
    line = report.table([result]).splitlines()[-1]
    assert "ANSWERS DIFFER" in line
    assert "1 of 1 values differ" in line


def test_absent_peers_are_named() -> None:
    result = measure(row(), "a row", threads=1, repeats=1, budget=60)
    assert report.absent_peers([result]) == [
        "peer absent is left out: no_such_library is not installed",
        "peer broken is left out: it cannot be loaded: lib.so: cannot open shared object file",
    ]


def test_slow_contender_leaves_early() -> None:
    times = harness.take_turns({"slow": Contender(lambda: None)}, repeats=10, budget=0)
    assert times["slow"].runs == harness.MIN_RUNS


def test_row_without_peers_has_no_ratio() -> None:
    alone = Row({"things": 1}, Contender(lambda: 1), {}, same_integers)
    result = measure(alone, "a row", threads=1, repeats=1, budget=60)
    assert result.ratio is None
    assert "no peer" in report.table([result])


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [("", True), ("ray", True), ("RAY CASTING", True), ("ray*10k", True), ("ray*1k", False), ("box", False)],
)
def test_selection_by_name(pattern: str, expected: bool) -> None:
    assert selected("ray casting, 10k faces", pattern) is expected


def test_a_peer_that_does_not_load_ends_the_run(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("broken_peer", "open3d"):
        (tmp_path / f"{name}.py").write_text("raise ImportError('libusb-1.0.so.0: cannot open shared object file')")
    monkeypatch.syspath_prepend(f"{tmp_path}")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.setattr(peers, "MODULES", ("json", "no_such_library", "broken_peer", "open3d"))
    assert run.main(arguments) == cli.EXIT_USAGE
    said = capsys.readouterr().err
    assert "broken_peer is installed but cannot be loaded (ImportError: libusb-1.0.so.0" in said
    assert "apt install libusb-1.0-0" in said
    assert "no_such_library" not in said


def test_status_and_json_of_agreement(arguments: list[str], tmp_path: Path) -> None:
    assert run.main([*arguments, "--only", "SAME"]) == cli.EXIT_OK
    about = written(tmp_path)
    assert {"machine", "commit", "date", "versions", "meshes", "rows"} <= set(about)
    assert {"cpu", "cores", "os"} <= set(about["machine"])
    assert {"python", "compiler", "numpy", "scipy"} <= set(about["versions"])
    assert set(about["meshes"].values()) == {"box.obj"}
    (line,) = about["rows"]
    assert (line["name"], line["threads"], line["size"]) == ("same", 1, {"things": 3})
    assert line["ratio"] > 0
    assert set(line["times"][OURS]) == {"minimum", "median", "spread", "runs"}


def test_status_and_json_of_difference(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run.main(arguments) == cli.EXIT_SOME_FAILED
    rows = written(tmp_path)["rows"]
    assert [line["name"] for line in rows] == ["same", "other, 1k faces", "other, 4k faces"]
    assert [line["differs"] for line in rows] == [False, True, True]
    assert rows[1]["ratio"] is None
    assert rows[1]["times"] == {}
    assert capsys.readouterr().out.count("ANSWERS DIFFER") == 2


def test_threads_are_for_cases_that_take_them(arguments: list[str], tmp_path: Path) -> None:
    run.main([*arguments, "2"])
    named = [(line["name"], line["threads"]) for line in written(tmp_path)["rows"]]
    assert named[-1] == ("same", 2)
    assert [name for name, threads in named if threads == 2] == ["same"]


def test_pattern_of_no_row_is_an_error(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main([*arguments, "--only", "nothing"]) == cli.EXIT_USAGE
    assert "'nothing'" in capsys.readouterr().err


def test_folder_without_meshes_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main(["--corpus", f"{tmp_path}", "--work", f"{tmp_path}"]) == cli.EXIT_USAGE
    assert "expected a folder with OBJ files" in capsys.readouterr().err


def test_a_row_in_its_own_process(tmp_path: Path) -> None:
    write_obj(tmp_path / "corpus" / "box.obj", *box((0, 0, 0), (1, 1, 1)))
    folders = [("--corpus", "corpus"), ("--work", "work"), ("--results", "results")]
    flags = [text for flag, name in folders for text in (flag, f"{tmp_path / name}")]
    before = dict(os.environ)
    assert run.main([*flags, "--quick", "--threads", "1", "--only", "Morton order"]) == cli.EXIT_OK
    assert dict(os.environ) == before  # the limits are for the row's process
    (line,) = written(tmp_path)["rows"]
    assert line["fastest_peer"] == "numpy"


def test_no_peer_is_imported_before_its_row() -> None:
    code = f"import sys, benchmarks.run, benchmarks.scaling; sys.exit(bool({PEERS} & set(sys.modules)))"
    root = Path(run.__file__).parents[1]
    assert subprocess.run([sys.executable, "-c", code], cwd=root).returncode == 0
