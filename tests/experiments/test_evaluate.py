"""The matrix of probes: every job, what is done is skipped, and the document's tables from whatever is there."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from nepa3d import cli
from nepa3d.cli import flags
from nepa3d.execution.files import read_json, write_json
from nepa3d.experiments import evaluate
from nepa3d.experiments.evaluate import Config, plan, side_by_side
from nepa3d.probes.classifiers import SETTINGS

SIZES = ["--cache_root", "unpaired", "--n_context", "12", "--n_query", "8", "--n_seeds", "2", "--slots", "cpu*2"]
SIZES += ["--uniform", "0"]  # the recorded cache is of another program


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
    jobs = {job.name: job for job in plan(Config(ckpts=(checkpoint,)))}
    assert len(jobs) == 4 + 3 + 6
    for name in ("ucpr_a_pc2udf_uniform", "cpac_a_pc2udf_nontrans_uniform"):
        assert "--questions uniform" in " ".join(jobs[name].command)
    assert sum("uniform" in " ".join(job.command) for job in jobs.values()) == 2
    assert len(plan(Config(ckpts=(checkpoint,), uniform=False))) == 4 + 2 + 5
    retrieval = " ".join(jobs["ucpr_a_mesh2udf"].command)
    assert retrieval.startswith("nepa3d.analysis.retrieval_ucpr --cache_root data/shapenet_unpaired_cache_v1 ")
    assert f"--ckpt {checkpoint} " in retrieval
    assert "--query_backend mesh --gallery_backend udfgrid" in retrieval
    assert "--eval_seed_gallery 999 --n_seeds 3 --max_files 1000" in retrieval
    assert flags.values(jobs["ucpr_a_mesh2udf"].config)["eval_seed"] == 0
    for name in ("ucpr_a_mesh2udf", "cpac_a_pc2udf_nontrans", "cpac_a_pc2udf_nontrans_grid"):
        found = flags.values(jobs[name].config)
        assert found["spline"] and found["random_init"]
    for name in ("ucpr_a_pc2udf_ablate_xyz", "cpac_a_pc2udf_nontrans_absent", "cpac_a_pc2udf_nontrans_mismatched"):
        found = flags.values(jobs[name].config)  # a control itself
        assert not found["spline"] and not found["random_init"] and not found.get("lipschitz", False)
    plainest = {job.name: job for job in plan(Config(ckpts=(checkpoint,), spline=False, random_init=False))}
    assert not {"spline", "random_init"} & {k for k, v in flags.values(plainest["ucpr_a_mesh2udf"].config).items() if v}
    assert "--ablate_point_xyz" in jobs["ucpr_a_pc2udf_ablate_xyz"].command
    assert "--ablate_point_dist" in jobs["ucpr_a_pc2udf_ablate_dist"].command
    completion = flags.values(jobs["cpac_a_pc2udf_nontrans"].config)
    wanted = {"head_train_split": "train_udf", "head_train_backend": "udfgrid", "max_shapes": 800, "context": "own"}
    assert completion | wanted == completion
    assert " ".join(jobs["cpac_a_pc2udf_nontrans_absent"].command).count("--context absent") == 1
    config = Config(ckpts=(checkpoint,), labelled_root="scans", labelled_backend="mesh")
    more = {job.name: job for job in plan(config) if job.name not in jobs}
    assert list(more) == ["probe_cls_a"]
    assert more["probe_cls_a"].module == "nepa3d.analysis.classification_probes"
    found = flags.values(more["probe_cls_a"].config)
    wanted = {"cache_root": "scans", "backend": "mesh", "ckpt": f"{checkpoint}", "n_seeds": 3}
    assert found | wanted | {"out_json": "results/probe_cls_a.json"} == found
    splits = ("test", "b")
    config = Config(ckpts=(checkpoint,), scan_root="scans", scan_gallery_root="meshes", scan_gallery_splits=splits)
    more = {job.name: flags.values(job.config) for job in plan(config) if job.name not in jobs}
    assert list(more) == ["scans_a", "scans_a_turned"]
    same = {"gallery_root": "meshes", "gallery_splits": splits, "gallery_backend": "mesh", "query_split": "test"}
    same |= {"ckpt": f"{checkpoint}", "n_seeds": 3, "mc_k": 4}
    for name, wanted in (
        ("scans_a", {"query_root": "scans", "query_backend": "pointcloud_noray", "turn_queries": False}),
        ("scans_a_turned", {"query_root": "meshes", "query_backend": "mesh", "turn_queries": True}),
    ):
        assert more[name] | same | wanted | {"out_json": f"results/{name}.json"} == more[name]
    with pytest.raises(ValueError, match="scan_root and scan_gallery_root must be given together"):
        Config(ckpts=(checkpoint,), scan_root="scans")
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
    assert text.count("| mae_v1") == 2 + 1 + 5  # columns trained and not, its row of ablations, and a row a control
    assert (
        "mae_v1, untrained" in text
        and "Lipschitz violation, no model" in text
        and "MAE of the spline" in text
        and "MAE of the untrained model" in text
    )
    assert "plain distances, no model" in text
    (tmp_path / "results" / "ucpr_mae_v1_mesh2udf.json").unlink()
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "results").glob("*.json")}
    assert evaluate.main(flags) == cli.EXIT_OK
    assert capsys.readouterr().out.count("done before") == 10
    assert (tmp_path / "results" / "evaluation.md").read_text() == text
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items())


def test_classes_of_frozen_features_stand_beside_their_controls(
    golden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("sklearn")
    planned = evaluate.plan
    wanted = ["probe_cls_mae_v1", "probe_cls_nepa_v1"]
    monkeypatch.setattr(evaluate, "plan", lambda config: [job for job in planned(config) if job.name in wanted])
    flags = ["--ckpts", *runs(tmp_path, "mae_v1", "nepa_v1"), *SIZES, "--labelled_root", "cache"]
    flags += ["--results", f"{tmp_path / 'results'}", "--logs", f"{tmp_path / 'logs'}"]
    assert evaluate.main(flags) == cli.EXIT_OK, capsys.readouterr()
    text = (tmp_path / "results" / "evaluation.md").read_text()
    assert text.count("## ") == 1  # no tables of the document's: none of its probes is done
    table = text[text.index("| Accuracy/balanced accuracy") :].split("\n\n")[0].splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table]
    assert cells[0][1:] == list(SETTINGS)
    models = ["mae_v1", "mae_v1, untrained", "nepa_v1", "nepa_v1, untrained"]
    assert [row[0] for row in cells[2:]] == [*models, "plain distances, no model", "commonest class of train", "chance"]
    result = read_json(f"{tmp_path / 'results' / 'probe_cls_nepa_v1.json'}")
    for row, kinds in ((cells[4], result), (cells[5], result["random_init"]), (cells[6], result["raw_distances"])):
        assert row[1:] == [f"{kinds[k]['accuracy']:.4f} / {kinds[k]['balanced_accuracy']:.4f}" for k in SETTINGS]
    assert cells[8][1:] == ["0.2500 / 0.2500"] * 3
    capsys.readouterr()
    wanted.append("ucpr_mae_v1_mesh2udf")
    assert evaluate.main(flags) == cli.EXIT_OK
    assert capsys.readouterr().out.count("done before") == 2
    more = (tmp_path / "results" / "evaluation.md").read_text()
    assert "\n".join(table) in more and "## UCPR" in more


def test_meshes_found_by_scans_stand_beside_their_controls(
    golden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = evaluate.plan
    wanted = ["scans_nepa_qa", "scans_nepa_qa_turned"]
    monkeypatch.setattr(evaluate, "plan", lambda config: [job for job in planned(config) if job.name in wanted])
    flags = ["--ckpts", *runs(tmp_path, "nepa_qa"), *SIZES, "--scan_root", "cache", "--scan_gallery_root", "cache"]
    flags += ["--results", f"{tmp_path / 'results'}", "--logs", f"{tmp_path / 'logs'}"]
    assert evaluate.main(flags) == cli.EXIT_OK, capsys.readouterr()
    text = (tmp_path / "results" / "evaluation.md").read_text()
    assert "## Retrieval by scans" in text
    table = text[text.index("| Query -> gallery") :].split("\n\n")[0].splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table]
    controls = ("random_init", "raw_distances", "lipschitz", "chance")
    heads = ["untrained model", "plain distances, no model", "Lipschitz violation, no model", "chance"]
    assert cells[0][1:] == ["Model", "trained", *heads]
    for row, said, tag in ((cells[2], "scan -> mesh", wanted[0]), (cells[3], "mesh, turned -> mesh", wanted[1])):
        result = read_json(f"{tmp_path / 'results' / tag}.json")
        figures = [" / ".join(f"{x[k]:.4f}" for k in ("r@1", "r@5", "r@10", "mAP")) for x in map(result.get, controls)]
        assert row[:2] == [said, "nepa_qa"] and row[3:] == figures
        assert row[2].startswith(f"{result['r@1']:.4f} / ")
    assert len(cells) == 4


def test_a_probe_without_an_untrained_model_has_no_row_of_it(tmp_path: Path) -> None:
    figures = {"accuracy": 0.5, "balanced_accuracy": 0.4}
    result = dict.fromkeys(SETTINGS, figures) | {"random_init": None, "raw_distances": dict.fromkeys(SETTINGS, figures)}
    write_json(tmp_path / "probe_cls_a.json", result | {"majority": figures, "chance": figures})
    text = side_by_side(Config(ckpts=(tmp_path / "a" / "x.pt", tmp_path / "b" / "x.pt"), results=tmp_path))
    assert "| a " in text and "0.5000 / 0.4000" in text
    assert "untrained" not in text


def test_tables_of_what_is_there(tmp_path: Path) -> None:
    config = Config(ckpts=(tmp_path / "a" / "x.pt", tmp_path / "b" / "x.pt"), results=tmp_path)
    lines = side_by_side(config).splitlines()
    assert [cell.strip() for cell in lines[2].split("|")[1:-1]] == ["`mesh -> udfgrid`", *6 * ["-"]]
