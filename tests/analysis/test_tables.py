"""Result files become the document's tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nepa3d.analysis import tables
from nepa3d.probes.table import PROBES
from nepa3d.report.tables import collect

RETRIEVAL: dict[str, Any] = {
    "r@1": 0.127,
    "r@5": 0.293,
    "r@10": 0.398,
    "mAP": 0.2196,
    "n_files": 1000,
    "query_backend": "mesh",
    "gallery_backend": "udfgrid",
    "split": "eval",
    "ckpt": "runs/a/ckpt_ep049.pt",
    "eval_seed": 0,
    "eval_seed_gallery": 0,
}
COMPLETION: dict[str, Any] = {
    "mae": 0.102,
    "rmse": 0.1341,
    "iou@tau": None,
    "tau": 0.03,
    "context_backend": "pointcloud_noray",
    "eval_split": "eval",
    "head_train_split": "train_udf",
    "n_shapes_head_test": 800,
    "ckpt": "runs/a/ckpt_ep049.pt",
    "nearest_copy": {"mae": 0.05, "rmse": 0.07, "iou@tau": 0.4},
}


def write(folder: Path, **results: object) -> list[str]:
    paths = []
    for name, result in results.items():
        path = folder / f"{name}.json"
        path.write_text(json.dumps(result))
        paths.append(str(path))
    return paths


def test_rows_in_the_forms_of_the_document(tmp_path: Path) -> None:
    ours = {**RETRIEVAL, "tie_rule": "expected", "shared_draws": False, "collapsed": True}
    paths = write(tmp_path, ucpr_a=RETRIEVAL, ucpr_b=ours, cpac_a=COMPLETION, cpac_b={**COMPLETION, "mae": 0.2})
    ucpr, cpac = collect(paths)
    assert ucpr.rows[0] == [
        "`ucpr_a`",
        "`runs/a/ckpt_ep049.pt`",
        "`mesh -> udfgrid`",
        "`eval`",
        "1000",
        "0.1270",
        "0.2930",
        "0.3980",
        "0.2196",
        "strict ranks: ties count as wins; shared draws",
    ]
    assert ucpr.rows[1][-1] == "COLLAPSED gallery"
    assert ucpr.rows[2][:9] == ["chance", "-", "-", "-", "1000", "0.0010", "0.0050", "0.0100", "0.0075"]
    assert cpac.heads[7] == "IoU@0.03"
    assert cpac.rows[0][2:8] == ["`pointcloud_noray -> udf`", "`eval`", "800", "0.1020", "0.1341", "n/a"]
    assert [row[0] for row in cpac.rows] == ["`cpac_a`", "`cpac_b`", "nearest copy"]


def test_markdown_file_and_printed_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = write(tmp_path, ucpr_a=RETRIEVAL, summary={"acc": 1})
    out = tmp_path / "out" / "tables.md"
    assert tables.main(["--results", *paths, "--out_md", str(out)]) == 0
    lines = out.read_text().splitlines()
    assert lines[0] == "### UCPR"
    assert lines[2].startswith("| Tag") and lines[4].startswith("| `ucpr_a`")
    printed = capsys.readouterr()
    assert "0.2196" in printed.out and str(out) in printed.out
    assert "summary.json" in printed.err


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("nope.json", "results: there is no file {}"),
        ("folder", "results: expected result files, got the folder {}"),
    ],
)
def test_what_is_no_file_is_named(name: str, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "folder").mkdir()
    paths = [*write(tmp_path, ucpr_a=RETRIEVAL), f"{tmp_path / name}"]
    assert tables.main(["--results", *paths]) == 2
    assert capsys.readouterr() == ("", f"error: {told.format(paths[1])}\n")


def test_every_probe_has_its_table() -> None:
    assert all(kind.table is not None for kind in PROBES.values())


def test_what_is_no_result_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="found none among 1"):
        collect(write(tmp_path, summary={"acc": 1}))
    broken = tmp_path / "broken.json"
    broken.write_text("{")
    assert tables.main(["--results", str(broken)]) == 2
    assert "broken.json" in capsys.readouterr().err
