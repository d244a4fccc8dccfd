"""Shapes in worker processes: a bad one costs only itself."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import BinaryIO

import pytest

from nepa3d.execution.processes import Batched, Outcome, Pool, Report, Task, Unwritten
from nepa3d.execution.tasks import run_tasks
from nepa3d.shapes.mesh import BadShapeError, Reason


def work(job: tuple[str, str]) -> str:
    what, folder = job
    if what == "bad mesh":
        raise BadShapeError("a.obj", Reason.NO_FACES, "3 vertices and no face")
    if what == "no space":
        raise OSError(28, "No space left on device", "b.npz")
    if what == "bug":
        raise ZeroDivisionError("division by zero")
    if what == "no memory":
        raise MemoryError
    if what == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    if what == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "endless":
        time.sleep(60)
    if what == "repaired":
        return "2 degenerate faces"
    Path(folder, what).touch()
    return ""


def run(tmp_path: Path, jobs: list[str], pool: Pool) -> dict[str, Outcome]:
    tasks = [Task(name, (name, f"{tmp_path}")) for name in jobs]
    outcomes = run_tasks(work, tasks, pool, "test")
    assert sorted(outcome.key for outcome in outcomes) == sorted(jobs)
    return {outcome.key: outcome for outcome in outcomes}


@pytest.mark.parametrize("chunk_size", [1, 4])
def test_every_fault_is_named_and_the_rest_goes_on(tmp_path: Path, chunk_size: int) -> None:
    good = [f"good {i}" for i in range(6)]
    faults = ["bad mesh", "no space", "bug", "no memory", "segfault", "killed", "endless", "repaired"]
    jobs = [job for pair in zip(faults, [*good, "good 6", "good 7"], strict=True) for job in pair]
    found = run(tmp_path, jobs, Pool(workers=2, chunk_size=chunk_size, time_limit=1.5))
    assert {key: outcome.state for key, outcome in found.items() if not key.startswith("good")} == {
        "bad mesh": "bad_input",
        "no space": "io_error",
        "bug": "error",
        "no memory": "oom",
        "segfault": "crash",
        "killed": "oom",
        "endless": "timeout",
        "repaired": "ok_repaired",
    }
    assert {outcome.state for key, outcome in found.items() if key.startswith("good")} == {"ok"}
    assert len(list(tmp_path.iterdir())) == 8
    assert "a.obj: no_faces: 3 vertices and no face" in found["bad mesh"].reason
    assert "SIGSEGV" in found["segfault"].reason
    assert found["bug"].reason == "ZeroDivisionError: division by zero"


def work_on_all(jobs: Sequence[tuple[str, str]]) -> list[str | Exception]:
    """``work`` of a batch, in which a bug stops all."""
    found: list[str | Exception] = []
    for job in jobs:
        try:
            found.append(work(job))
        except (ValueError, OSError, MemoryError) as error:
            found.append(error)
    return found


def test_a_fault_in_a_batch_costs_only_its_shape(tmp_path: Path) -> None:
    jobs = ["good 1", "bad mesh", "good 2", "repaired", "no space", "no memory", "good 3", "bug", "good 4", "killed"]
    tasks = [Task(name, (name, f"{tmp_path}")) for name in jobs]
    outcomes = run_tasks(Batched(work_on_all), tasks, Pool(workers=2, chunk_size=4, time_limit=20), "test")
    states = {outcome.key: outcome.state for outcome in outcomes}
    assert len(outcomes) == len(jobs)
    assert {key: state for key, state in states.items() if not key.startswith("good")} == {
        "bad mesh": "bad_input",
        "repaired": "ok_repaired",
        "no space": "io_error",
        "no memory": "oom",
        "bug": "error",
        "killed": "oom",
    }
    assert {state for key, state in states.items() if key.startswith("good")} == {"ok"}
    assert len(list(tmp_path.iterdir())) == 4


def test_the_time_limit_of_a_batch_is_that_of_its_shapes(tmp_path: Path) -> None:
    tasks = [Task(name, (name, f"{tmp_path}")) for name in ("good 1", "endless", "good 2")]
    outcomes = run_tasks(Batched(work_on_all), tasks, Pool(workers=1, chunk_size=3, time_limit=1.5), "test")
    assert {outcome.key: outcome.state for outcome in outcomes} == {
        "good 1": "ok",
        "endless": "timeout",
        "good 2": "ok",
    }


def compute(job: tuple[str, Path]) -> str | Unwritten:
    what, path = job
    if what in ("bad mesh", "killed"):
        return work((what, ""))
    if what == "no room":
        return Unwritten("", path, fail_to_write)
    return Unwritten("", path, partial(write_text, f"{path.name}"))


def write_text(text: str, file: BinaryIO) -> None:
    file.write(text.encode())


def fail_to_write(file: BinaryIO) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("chunk_size", [1, 5, 40])
def test_files_of_a_chunk_are_put_in_place_together_or_made_again(tmp_path: Path, chunk_size: int) -> None:
    """A worker that dies takes the files with it that it had not put in place; they are made again, whole."""
    names = [f"good {i}" for i in range(12)]
    names[2:2] = ["killed"]
    names[6:6] = ["bad mesh", "no room", "a folder"]
    names += [f"more {i}" for i in range(9)]
    (tmp_path / "a folder").mkdir()
    tasks = [Task(name, (name, tmp_path / name), tmp_path / name) for name in names]
    found = {o.key: o for o in run_tasks(compute, tasks, Pool(workers=2, chunk_size=chunk_size), "test")}
    assert sorted(found) == sorted(names)
    states = {name: found[name].state for name in names if found[name].state != "ok"}
    assert states == {"killed": "oom", "bad mesh": "bad_input", "no room": "io_error", "a folder": "io_error"}
    assert f"{tmp_path / 'no room'}" in found["no room"].reason
    for name, outcome in found.items():
        assert outcome.state != "ok" or (tmp_path / name).read_text() == name


def test_workers_are_replaced(tmp_path: Path) -> None:
    found = run(tmp_path, [f"good {i}" for i in range(5)], Pool(workers=1, max_tasks_per_child=2))
    assert {outcome.state for outcome in found.values()} == {"ok"}


def test_nothing_to_do(tmp_path: Path) -> None:
    assert run(tmp_path, [], Pool()) == {}


def test_report(capsys: pytest.CaptureFixture[str]) -> None:
    report = Report([Outcome("b", "ok"), Outcome("c", "timeout", "too long"), Outcome("a", "crash", "SIGSEGV")])
    assert report.counts() == {"ok": 1, "timeout": 1, "crash": 1}
    assert [failure.key for failure in report.failures()] == ["a", "c"]
    assert report.to_json()["failures"][0] == {"key": "a", "state": "crash", "reason": "SIGSEGV"}
    report.print_summary("3 shapes")
    assert "3 shapes: 1 ok, 1 timeout, 1 crash" in capsys.readouterr().out


@pytest.mark.parametrize(("name", "value"), [("workers", 0), ("chunk_size", 0), ("max_tasks_per_child", -1)])
def test_pool_is_checked(name: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"{name} must be at least"):
        Pool(**{name: value})
