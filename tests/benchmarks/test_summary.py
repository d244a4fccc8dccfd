"""README's table of figures is what the result files say."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import summary
from benchmarks.run import RESULTS
from nepa3d import cli
from nepa3d.execution.files import write_json

ROOT = Path(__file__).parents[2]
ABOUT = {"machine": {"cpu": "Some(R) CPU", "cores": 2}, "commit": "abc1234"}


def kernel_row(name: str, threads: int, ratio: float | None, peer: str = "open3d") -> dict[str, object]:
    return {"name": name, "threads": threads, "ratio": ratio, "fastest_peer": peer}


def cells(folder: Path) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in summary.table(folder).splitlines()[2:]]


def test_readme_shows_the_newest_files() -> None:
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    assert summary.replaced(page, summary.table(RESULTS)) == page, "python -m benchmarks summary --readme README.md"


def test_ranges_are_over_rows_of_a_topic_and_partial_runs_do_not_count(tmp_path: Path) -> None:
    rows = [
        kernel_row("ray casting, 1k faces", 1, 1.5, "point-cloud-utils"),
        kernel_row("ray casting, 4k faces", 1, 2.04),
        kernel_row("ray casting, 60k faces", 1, 1.254),
        kernel_row("ray casting, 1k faces", 2, 0.75),
        kernel_row("ray casting, 4k faces", 2, None),  # answers differ, or no peer
        kernel_row("reading nothing", 1, 9.0),
    ]
    write_json(tmp_path / "b-2-cores.json", {**ABOUT, "date": "2026-02-02T00", "rows": rows})
    old = [kernel_row("ray casting, 1k faces", 1, 99.0)]
    write_json(tmp_path / "a-2-cores.json", {**ABOUT, "date": "2026-01-01T00", "rows": old})
    write_json(tmp_path / "c-2-cores-partial.json", {**ABOUT, "date": "2026-03-03T00", "rows": old})
    said = "1.25 to 2.0 times as fast as Open3D or point-cloud-utils (2 threads: 0.75)"
    source = "[abc1234, 2026-02-02](benchmarks/results/b-2-cores.json)"
    assert cells(tmp_path) == [["ray casting", said, "Some CPU, 2 cores", source]]


def test_a_line_of_every_kind(tmp_path: Path) -> None:
    about = {**ABOUT, "date": "2026-02-02T00", "device": ""}
    runs = [{"workers": 2, "shapes": 8, "seconds": 1.25}, {"workers": 1, "shapes": 8, "seconds": 2.5}]
    write_json(tmp_path / "shapes-x.json", {**about, "runs": runs})
    ways = {summary.PLAIN: [6.0, 4.0], "nepa3d": [2.0, 5.0], "nepa3d, missing rays left out": [1.0]}
    rows = [{"corpus": "mesh", "way": way, "seconds": seconds} for way, seconds in ways.items()]
    write_json(tmp_path / "training-x.json", {**about, "flags": {"batch": 8}, "rows": rows})
    write_json(tmp_path / "training-y.json", {**about, "device": "GPU", "flags": {"batch": 96}, "rows": rows[:2]})
    rows = [
        {"probe": probe, "model": "small", "way": way, "ratio": ratio}
        for probe, ratio in (("retrieval", 3.04), ("completion", 1.57))
        for way, ratio in ((summary.ONE_AT_A_TIME, 1.0), ("nepa3d", ratio))
    ]
    write_json(tmp_path / "evaluation-x.json", {**about, "rows": rows})
    times = {"nepa3d": 1.0, "SDPA with the mask": 2.0, "FlexAttention": 4.0, "SDPA, causal, no mask": 0.5}
    rows = [
        {"way": way, "length": length, "milliseconds": [9.0 * length, time * length]}
        for way, time in times.items()
        for length in (514, 1026)
    ]
    write_json(tmp_path / "attention-y.json", {**about, "device": "GPU", "rows": rows})
    write_json(tmp_path / "attention-x.json", {**about, "rows": [{}]})  # of attention_cpu
    found = {tuple(row[:3:2]): row[1] for row in cells(tmp_path)}
    cpu, steps = "Some CPU, 2 cores", f"2.0 times as fast as `{summary.PLAIN}`"
    assert found == {
        ("preprocessing 8 meshes, 2 workers", cpu): "done in 1.2 s (1 worker: 2.5 s)",
        ("pretraining step, batch 8", cpu): f"{steps}; 4.0 with missing rays left out",
        ("retrieval and completion, model small", cpu): "3.0 and 1.6 times as fast as one shape at a time",
        ("pretraining step, batch 96", "GPU"): steps,
        ("attention with the dual mask, 514 to 1026 tokens", "GPU"): (
            "2.0 times as fast as PyTorch's attention with that mask, 4.0 times as fast as FlexAttention; 0.50 times "
            "PyTorch's causal attention without the mask"
        ),
    }


def test_a_page_without_the_marks_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{summary.BEGIN}\nold\n{summary.END}\nafter\n", encoding="utf-8")
    write_json(
        tmp_path / "shapes-x.json", {**ABOUT, "date": "2026", "runs": [{"workers": 1, "shapes": 2, "seconds": 3}]}
    )
    words = ["--results", f"{tmp_path}", "--readme", f"{page}"]
    assert summary.main(words) == cli.EXIT_OK
    assert page.read_text(encoding="utf-8") == (
        f"before\n{summary.BEGIN}\n{summary.table(tmp_path)}\n{summary.END}\nafter\n"
    )
    page.write_text("nothing\n", encoding="utf-8")
    assert summary.main(words) == cli.EXIT_USAGE
    assert "expected the lines" in capsys.readouterr().err
    assert page.read_text(encoding="utf-8") == "nothing\n"
