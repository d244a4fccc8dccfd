"""Progress of long work where no terminal shows a bar."""

from __future__ import annotations

import sys

import pytest
from tqdm import tqdm

from nepa3d.execution.progress_bar import INTERVAL, ProgressLines, duration, progress_bar


class Clock:
    """Moves only when told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_line_every_interval_and_one_at_the_end(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressLines[int](unit="shape", total=52000, desc="preprocess", clock=clock) as progress:
        progress.update(100)
        clock.now += INTERVAL - 1
        progress.update(200)
        assert capsys.readouterr().err == ""
        clock.now += 1
        progress.update(900)
        assert capsys.readouterr().err == "preprocess: 1200/52000 shapes, 40.0 shapes/s, 21 min 10 s left\n"
        progress.update(100)
        clock.now += INTERVAL
        progress.set_postfix(failed=3, refresh=False)
        progress.update(1100)
        said = capsys.readouterr()
        assert said.err == "preprocess: 2400/52000 shapes, 40.0 shapes/s, 20 min 40 s left, failed 3\n"
        assert said.out == ""
        clock.now += 1240
        progress.update(49600)
        assert capsys.readouterr().err == ""  # the last one is left to the end
    assert (
        capsys.readouterr().err == "preprocess: 52000/52000 shapes, 40.0 shapes/s, ended after 21 min 40 s, failed 3\n"
    )


def test_short_work_is_silent(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressLines[int](unit="job", total=2, clock=clock) as progress:
        clock.now += INTERVAL - 1
        progress.update(2)
        progress.write("a: ok")
    assert capsys.readouterr() == ("a: ok\n", "")


def test_work_that_was_begun_before_or_has_no_known_end(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressLines[int](unit="epoch", total=10, initial=4, clock=clock) as progress:
        clock.now += 60
        progress.update(2)
        assert capsys.readouterr().err == "6/10 epochs, 30.0 s/epoch, 2 min 00 s left\n"
    capsys.readouterr()
    seen = []
    for item in ProgressLines(iter("ab"), unit="scan", clock=clock):
        clock.now += INTERVAL
        seen.append(item)
    assert seen == ["a", "b"]
    lines = ["1 scans, 30.0 s/scan", "2 scans, 30.0 s/scan", "2 scans, 30.0 s/scan, ended after 1 min 00 s"]
    assert capsys.readouterr().err.splitlines() == lines


def test_what_ends_in_an_error_says_how_far_it_came(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="bad"), ProgressLines[int](unit="shape", total=3, clock=clock):
        clock.now += 40
        raise ValueError("bad")
    assert capsys.readouterr().err == "0/3 shapes, 0.0 shapes/s, ended after 40 s\n"


def test_a_terminal_has_a_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    lines = progress_bar([1, 2], unit="shape", leave=False)
    assert isinstance(lines, ProgressLines) and lines.total == 2 and list(lines) == [1, 2]
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    bar = progress_bar([1, 2], unit="shape", leave=False)
    assert isinstance(bar, tqdm) and list(bar) == [1, 2]
    assert "0/2" in capsys.readouterr().err


@pytest.mark.parametrize("terminal", [False, True])
def test_both_can_be_silenced(
    terminal: bool, clock: Clock, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TQDM_DISABLE", "1")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    monkeypatch.setattr("nepa3d.execution.progress_bar.INTERVAL", 0.0)
    for disable in (False, True):
        assert list(progress_bar([1, 2], unit="shape", disable=disable)) == [1, 2]
    monkeypatch.delenv("TQDM_DISABLE")
    assert list(progress_bar([1, 2], unit="shape", disable=True)) == [1, 2]
    assert capsys.readouterr().err == ""
    assert list(progress_bar([1, 2], unit="shape")) == [1, 2]
    assert "2/2" in capsys.readouterr().err


def test_durations() -> None:
    assert [duration(seconds) for seconds in (45.2, 200, 3720)] == ["45 s", "3 min 20 s", "1 h 02 min"]
