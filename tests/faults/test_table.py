"""The table of docs/faults.md and the tests name each other."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
ROW = re.compile(r"^\| ([MSCRTEN]\d\d) \|.*\| (\S+)::(\w+) \|$", re.MULTILINE)


def rows() -> list[tuple[str, str, str]]:
    return ROW.findall((TESTS.parent / "docs" / "faults.md").read_text(encoding="utf-8"))


def test_every_row_names_a_test_that_is_there() -> None:
    for row, file, name in rows():
        assert f"def {name}(" in (TESTS / file).read_text(encoding="utf-8"), row


def test_rows_are_many_and_each_there_once() -> None:
    names = [row for row, _, _ in rows()]
    assert len(set(names)) == len(names) >= 40


def test_every_test_of_a_fault_has_its_row() -> None:
    known = {row for row, _, _ in rows()}
    for file in (TESTS / "faults").glob("test_*_faults.py"):
        named = set(re.findall(r'"""([MCRTEN]\d\d)', file.read_text(encoding="utf-8")))
        named |= set(re.findall(r'f?"([M]\d\d)-', file.read_text(encoding="utf-8"))) - {"M00"}
        assert named <= known, file
