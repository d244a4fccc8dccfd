"""The check of a GPU: parts are kept as they come, names of failing tests too, and finished ones are not run again."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import gpu_check
from benchmarks.gpu_check import CUT, FAILED, PASSED, UNDONE, Config, Part, check, parts
from nepa3d import cli

ABOUT = {"commit": "abc", "device": "none"}
TESTS = """
import time
def test_well(): pass
def test_badly(): assert False
class TestMore:
    def test_slow(self): raise OSError
    def test_stuck(self): time.sleep(60)
"""


def script(name: str, code: str, seconds: float = 60) -> Part:
    return Part(name, (sys.executable, "-c", code), seconds)


def test_what_became_of_each_part_is_kept(tmp_path: Path) -> None:
    config, counted = Config(out=tmp_path / "out"), tmp_path / "runs"
    count = f"open({f'{counted}'!r}, 'a').write('x')"
    todo = [script("good", f"{count}; print('said')"), script("bad", f"{count}; raise SystemExit(3)")]
    todo += [script("long", f"{count}; import time; print('begun', flush=True); time.sleep(60)", 1)]
    found = check(config, todo, ABOUT)
    assert [found[part.name].state for part in todo] == [PASSED, FAILED, CUT]
    assert found["bad"].status == 3 and found["long"].seconds < 30
    assert (tmp_path / "out" / "good.log").read_text() == "said\n"
    assert (tmp_path / "out" / "long.log").read_text() == "begun\n"
    kept = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert kept["commit"] == "abc" and kept["parts"]["long"]["state"] == CUT
    assert check(config, todo, ABOUT)["long"].state == CUT  # only this one is run again
    assert counted.read_text() == "xxxx"
    for other in ("abd", "abc-dirty"):  # another tree is checked anew
        check(config, todo[:1], {**ABOUT, "commit": other})
    assert counted.read_text() == "xxxxxx"


def test_what_the_time_does_not_allow_is_not_begun(tmp_path: Path) -> None:
    todo = [script("first", "import time; time.sleep(60)"), script("second", "")]
    found = check(Config(out=tmp_path, minutes=0.01), todo, ABOUT)
    assert (found["first"].state, found["second"].state) == (CUT, UNDONE)


def test_names_of_failing_tests_survive_a_cut(tmp_path: Path) -> None:
    (tmp_path / "test_some.py").write_text(TESTS)
    command = (sys.executable, "-u", "-m", "pytest", "-v", "-p", "no:cacheprovider", "--rootdir", f"{tmp_path}")
    found = check(Config(out=tmp_path / "out"), [Part("tests", (*command, f"{tmp_path}/test_some.py"), 8)], ABOUT)
    assert found["tests"].state == CUT
    assert [name.split("::", 1)[1] for name in found["tests"].failures] == ["test_badly", "TestMore::test_slow"]


def test_every_file_with_tests_of_a_gpu_is_a_part() -> None:
    names = [part.name for part in parts(Config())]
    assert {"tests/test_gpu", "tests/cuda/test_gpu", "tests/ops/test_attention_kernel"} <= set(names)
    assert len(set(names)) == len(names)
    assert names[-6:] == ["attention", "meshes", "geometry", "caches", "training", "evaluation"]
    assert names.index("meshes") > names.index("tests/test_gpu")


def test_requests_that_cannot_be(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu_check.main([]) == cli.EXIT_USAGE
    assert "there is no GPU that torch can use" in capsys.readouterr().err
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert gpu_check.main(["--parts", "atention"]) == cli.EXIT_USAGE
    assert "parts must be of" in capsys.readouterr().err
