"""What a GPU has to show, part by part: tests, then benchmarks. Made for machines that are lent for minutes."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from tabulate import tabulate

from benchmarks import machine
from benchmarks.run import RESULTS
from nepa3d import cli
from nepa3d.execution.files import read_json, write_json

ROOT = Path(__file__).parent.parent
PASSED, FAILED, CUT, UNDONE = "passed", "failed", "cut off", "not begun"
_NOT_PASSED = re.compile(r"^(\S+::\S.*?) (?:FAILED|ERROR)\b", re.MULTILINE)  # as pytest -v writes them, one by one


@dataclass(frozen=True)
class Config:
    """Run the tests of the GPU and the benchmarks that need one, each within its share of the time.

    Every part writes to its own log as it goes, so that what was shown is kept if the machine is taken away. The same
    command goes on with the parts of this commit that are not finished. It ends with status 3 unless all passed.

    Example: python -m benchmarks gpu_check --minutes 12
    """

    out: Path = ROOT / "build" / "gpu_check"
    """Folder for <part>.log and summary.json."""
    results: Path = RESULTS
    """Folder for the benchmarks' results."""
    minutes: float = 12.0
    """Time for all parts together."""
    parts: tuple[str, ...] = ()
    """Only these parts; left out: all."""

    def __post_init__(self) -> None:
        if not self.minutes > 0:
            raise ValueError(f"minutes must be positive, got {self.minutes}")


@dataclass(frozen=True)
class Part:
    """One command, and the most seconds that it may take."""

    name: str
    command: tuple[str, ...]
    seconds: float


@dataclass(frozen=True)
class Outcome:
    """What became of a part."""

    state: str
    seconds: float = 0.0
    status: int | None = None
    failures: tuple[str, ...] = ()
    """Names of tests that failed, as far as it came."""


def parts(config: Config) -> list[Part]:
    """The tests of each file that has some of the GPU, then the benchmarks, in the order of what they are worth."""
    python, work = (sys.executable, "-u", "-m"), config.out / "work"
    pytest = (*python, "pytest", "-m", "gpu", "-v", "-rfE", "--tb=short", "-p", "no:cacheprovider", "-o", "addopts=")
    files = [path for path in sorted((ROOT / "tests").rglob("test_*.py")) if "mark.gpu" in path.read_text("utf-8")]
    tests = [Part(path.relative_to(ROOT).with_suffix("").as_posix(), (*pytest, f"{path}"), 150) for path in files]
    cache, results = f"{work / 'cache'}", ("--results", f"{config.results}")
    shapes = (*python, "nepa3d.data.procedural", "--out_root", f"{work / 'meshes'}", "--per_class", "12")
    caches = (*python, "nepa3d.data.preprocess_shapenet", "--shapenet_root", f"{work / 'meshes'}", "--out_root", cache)
    geometry = ("--meshes", f"{work / 'meshes'}", *results)
    training = ("--cache_root", cache, "--batch", "96", "--rounds", "8", "--no-compiled")
    evaluation = ("--document_shapes", "400", "--shapes", "0", "--per_class", "64", "--rounds", "1")
    return [
        *tests,
        Part("attention", (*python, "benchmarks", "attention", *results), 120),
        Part("meshes", shapes, 60),
        Part("geometry", (*python, "benchmarks", "gpu_geometry", *geometry), 180),
        Part("caches", (*caches, "--workers", f"{machine.usable_cores()}"), 60),
        Part("training", (*python, "benchmarks", "training", *training, *results), 120),
        Part("evaluation", (*python, "benchmarks", "evaluation", *evaluation, "--work", f"{work}", *results), 150),
    ]


def run_part(part: Part, log: Path, seconds: float) -> Outcome:
    """Run the command with ``seconds`` at most, its output in ``log`` line by line."""
    begin = time.monotonic()
    with log.open("w", encoding="utf-8") as file:
        try:
            done = subprocess.run(part.command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT, timeout=seconds)
        except subprocess.TimeoutExpired:
            return Outcome(CUT, time.monotonic() - begin, None, failed_tests(log))
    state = PASSED if done.returncode in (0, 5) else FAILED  # 5: a file whose tests this machine does not select
    return Outcome(state, time.monotonic() - begin, done.returncode, failed_tests(log))


def failed_tests(log: Path) -> tuple[str, ...]:
    """Names of the tests that a log of pytest says failed, also of a run that was cut off."""
    return tuple(_NOT_PASSED.findall(log.read_text("utf-8", "replace")))


def earlier(path: Path, commit: str) -> dict[str, Outcome]:
    """The finished parts that ``summary.json`` has of this commit."""
    if not path.is_file():
        return {}
    kept = read_json(path)
    if kept.get("commit") != commit or commit.endswith("-dirty"):
        return {}
    outcomes = {name: Outcome(**{**row, "failures": tuple(row["failures"])}) for name, row in kept["parts"].items()}
    return {name: outcome for name, outcome in outcomes.items() if outcome.state in (PASSED, FAILED)}


def check(config: Config, todo: Sequence[Part], about: Mapping[str, object]) -> dict[str, Outcome]:
    """Run the parts that are not finished, and keep the summary after each."""
    config.out.mkdir(parents=True, exist_ok=True)
    summary = config.out / "summary.json"
    outcomes = {part.name: Outcome(UNDONE) for part in todo} | earlier(summary, f"{about['commit']}")
    end = time.monotonic() + 60 * config.minutes
    for part in todo:
        left = end - time.monotonic()
        if outcomes[part.name].state == UNDONE and left > 0:
            print(f"{part.name}: {' '.join(part.command)}", flush=True)
            log = config.out / f"{part.name.replace('/', '.')}.log"
            outcomes[part.name] = run_part(part, log, min(part.seconds, left))
            rows = {name: asdict(outcome) for name, outcome in outcomes.items()}
            write_json(summary, {**about, "parts": rows})
    return outcomes


def command(config: Config) -> int:
    """``check``, then a table; see ``Config``."""
    if not torch.cuda.is_available():
        raise ValueError("there is no GPU that torch can use (nepa3d doctor says what is there)")
    todo = parts(config)
    unknown = set(config.parts) - {part.name for part in todo}
    if unknown:
        raise ValueError(f"parts must be of {', '.join(part.name for part in todo)}, got {', '.join(sorted(unknown))}")
    if config.parts:
        todo = [part for part in todo if part.name in config.parts]
    about = {"device": torch.cuda.get_device_name(), "torch": torch.__version__, **machine.describe()}
    outcomes = check(config, todo, about)
    rows = [(name, o.state, f"{o.seconds:.0f}", "\n".join(o.failures)) for name, o in outcomes.items()]
    print(tabulate(rows, ("part", "state", "seconds", "failed tests"), disable_numparse=True))
    print(f"{about['device']}, commit {about['commit']}: {config.out / 'summary.json'}")
    return cli.EXIT_OK if all(o.state == PASSED for o in outcomes.values()) else cli.EXIT_SOME_FAILED


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(Config, command, argv)
