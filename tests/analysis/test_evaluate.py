"""The matrix of probes: every job, what is done is skipped, and the document's tables from whatever is there."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from nepa3d import cli
from nepa3d.analysis import evaluate
from nepa3d.analysis.evaluate import Config, plan, side_by_side

SIZES = ["--cache_root", "unpaired", "--n_context", "12", "--n_query", "8", "--n_seeds", "2", "--slots", "cpu*2"]


def runs(tmp_path: Path, *checkpoints: str) -> list[str]:
    paths = []
    for name in checkpoints:
        path = tmp_path / "runs" / name / "last.pt"
        path.parent.mkdir(parents=True)
        shutil.copy(f"{name}.pt", path)
        paths.append(f"{path}")
    return paths


def test_the_jobs_are_the_documents_and_their_controls(tmp_path: Path) -> None:
    checkpoint = tmp_path / "a" / "last.pt"
    with pytest.raises(ValueError, match="there is no"):
        plan(Config(ckpts=(checkpoint,)))
    checkpoint.parent.mkdir()
    checkpoint.touch()
    jobs = {job.name: " ".join(job.flags) for job in plan(Config(ckpts=(checkpoint,)))}
    assert len(jobs) == 4 + 2 + 5
    retrieval = jobs["ucpr_a_mesh2udf"]
    assert "--query_backend mesh --gallery_backend udfgrid" in retrieval
    assert "--eval_seed 0 --eval_seed_gallery 999 --max_files 1000" in retrieval
    assert "--ablate_point_xyz" in jobs["ucpr_a_pc2udf_ablate_xyz"]
    assert (
        "--head_train_split train_udf --head_train_backend udfgrid --max_shapes 800" in jobs["cpac_a_pc2udf_nontrans"]
    )
    assert "--context absent" in jobs["cpac_a_pc2udf_nontrans_absent"]
    with pytest.raises(ValueError, match="folders of different names, got a, a"):
        Config(ckpts=(checkpoint, tmp_path / "b" / "a" / "last.pt"))


def test_the_matrix_is_finished_and_finished_again(
    golden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--ckpts", *runs(tmp_path, "mae_v1"), *SIZES]
    flags += ["--results", f"{tmp_path / 'results'}", "--logs", f"{tmp_path / 'logs'}"]
    assert evaluate.main(flags) == cli.EXIT_OK, capsys.readouterr()
    assert "| `pointcloud_noray -> udfgrid` |" in capsys.readouterr().out
    assert len(list((tmp_path / "results").glob("*.json"))) == 11
    text = (tmp_path / "results" / "evaluation.md").read_text()
    assert text.count("| mae_v1") == 1 + 1 + 5  # its column, its row of ablations, and a row a control
    assert "plain distances, no model" in text
    (tmp_path / "results" / "ucpr_mae_v1_mesh2udf.json").unlink()
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "results").glob("*.json")}
    assert evaluate.main(flags) == cli.EXIT_OK
    assert capsys.readouterr().out.count("done before") == 10
    assert (tmp_path / "results" / "evaluation.md").read_text() == text
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items())


def test_tables_of_what_is_there(tmp_path: Path) -> None:
    config = Config(ckpts=(tmp_path / "a" / "x.pt", tmp_path / "b" / "x.pt"), results=tmp_path)
    lines = side_by_side(config).splitlines()
    assert [cell.strip() for cell in lines[2].split("|")[1:-1]] == ["`mesh -> udfgrid`", *4 * ["-"]]
