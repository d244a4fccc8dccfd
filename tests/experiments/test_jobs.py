"""Job tables: what is done is skipped, what fails stops nothing, an interrupted table is completed."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from nepa3d import cli
from nepa3d.analysis import fewshot_table, retrieval_ucpr
from nepa3d.analysis.flag_groups import SampleModelFlags
from nepa3d.cli import flags
from nepa3d.data import preprocess_shapenet, procedural
from nepa3d.experiments import m1_pretrains, m1_table
from nepa3d.experiments.job_flags import JobFlags, slots_from
from nepa3d.experiments.jobs import Finished, Job, Processes, run_jobs, running
from nepa3d.models.checkpoint import Checkpoint, save_checkpoint, write_tensors
from nepa3d.report.fewshot import FewShotRun, markdown, read_runs, rows_of


def made(tmp_path: Path, name: str) -> Job:
    """A job that succeeds quickly."""
    out = tmp_path / name
    return Job(name, procedural.Config(out_root=out, per_class=1), out, tmp_path / "logs" / f"{name}.log")


def failing(tmp_path: Path) -> Job:
    config = preprocess_shapenet.Config(shapenet_root=Path("nowhere"), out_root=tmp_path / "x")
    return Job("bad", config, tmp_path / "x", tmp_path / "logs" / "bad.log")


def test_a_failure_stops_no_other_and_what_is_done_is_skipped(tmp_path: Path) -> None:
    jobs = [made(tmp_path, "a"), failing(tmp_path), made(tmp_path, "b")]
    first = {finished.job.name: finished for finished in run_jobs(jobs, ["cpu", "cpu"])}
    assert {name: f.state for name, f in first.items()} == {"a": "ok", "bad": "failed", "b": "ok"}
    assert first["bad"].status == cli.EXIT_USAGE
    assert "nowhere is not a folder" in first["bad"].job.log.read_text()
    assert "see " in first["bad"].line
    again = {finished.job.name: finished.state for finished in run_jobs(jobs, ["cpu"])}
    assert again == {"a": "done before", "bad": "failed", "b": "done before"}
    assert not running(tmp_path / "logs")


def test_a_result_of_other_settings_is_not_taken_for_this_jobs(tmp_path: Path) -> None:
    job = made(tmp_path, "a")
    assert run_jobs([job], ["cpu"])[0].state == "ok"
    other = replace(job, config=replace(job.config, per_class=2))
    with pytest.raises(ValueError, match=r"a was made with other settings \(per_class 1 -> 2\): delete it"):
        run_jobs([made(tmp_path, "b"), other], ["cpu"])
    assert not (tmp_path / "b").exists()  # it is said before any work
    allowed = replace(other, harmless=(*other.harmless, "per_class"))
    assert run_jobs([allowed], ["cpu"])[0].state == "done before"
    (tmp_path / "a" / "procedural.config.yaml").unlink()  # it does not say
    assert run_jobs([other], ["cpu"])[0].state == "done before"


def test_a_result_of_an_earlier_state_of_its_checkpoint_is_not_taken_for_this_jobs(tmp_path: Path) -> None:
    result, checkpoint = tmp_path / "a.json", tmp_path / "last.pt"
    views = {"query_backend": "mesh", "gallery_backend": "udfgrid"}
    config = retrieval_ucpr.Config(cache_root="cache", model=SampleModelFlags(ckpt=f"{checkpoint}"), **views)
    job = Job("a", config, result)
    for path, seconds in ((checkpoint, 1), (result, 2)):
        path.touch()
        os.utime(path, (seconds, seconds))
    assert run_jobs([job], ["cpu"])[0].state == "done before"
    os.utime(checkpoint, (3, 3))
    with pytest.raises(ValueError, match=r"a\.json was made of .*last\.pt, which was written since: delete it"):
        run_jobs([job], ["cpu"])


def test_a_job_waits_for_the_one_that_makes_its_checkpoint(tmp_path: Path) -> None:
    maker = made(tmp_path, "weights")
    config = retrieval_ucpr.Config(
        cache_root="cache",
        model=SampleModelFlags(ckpt=f"{maker.result}"),
        query_backend="mesh",
        gallery_backend="udfgrid",
    )
    uses = Job("uses", config, tmp_path / "uses.json", tmp_path / "logs" / "uses.log")
    finished = run_jobs([uses, maker, made(tmp_path, "other")], ["cpu", "cpu", "cpu"])
    assert {done.job.name: done.state for done in finished} == {"weights": "ok", "other": "ok", "uses": "failed"}
    assert [done.job.name for done in finished if done.job.name != "other"] == ["weights", "uses"]
    (used,) = (done for done in finished if done.job.name == "uses")
    assert "weights" in used.output_end  # it was begun, and says that this is no checkpoint
    late = [uses, replace(maker, config=failing(tmp_path).config)]
    shutil.rmtree(tmp_path / "weights")
    assert [done.job.name for done in run_jobs(late, ["cpu"], stop_at_failure=True)] == ["weights"]


def test_jobs_beside_each_other_share_the_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str | None] = []

    def start(_: object, command: object, log: object, environment: dict[str, str]) -> subprocess.Popen[bytes]:
        told.append(environment.get("OMP_NUM_THREADS"))
        return subprocess.Popen([sys.executable, "-c", ""])

    monkeypatch.setattr(Processes, "start", start)
    monkeypatch.setattr("nepa3d.experiments.jobs.usable_cores", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    for count in (1, 3, 9):
        run_jobs([made(tmp_path, "a")], ["cpu"] * count)
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    run_jobs([made(tmp_path, "a")], ["cpu", "cpu"])
    assert told == [None, "2", "1", "5"]


def test_a_pid_file_is_running_only_while_its_process_can_write(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and is not waited for yet
    numbers = {"own": f"{os.getpid()}", "ended": f"{ended.pid}", "large": "9" * 30, "damaged": "\x00", "zero": "0"}
    for name, number in numbers.items():
        (tmp_path / f"{name}.pid").write_text(f"{number}\n")
    states = {path.stem: lives for path, _, lives in running(tmp_path)}
    ended.wait()
    assert states == {"own": True, "ended": False, "large": False, "damaged": False, "zero": False}


def test_a_job_that_ends_well_without_its_result_has_failed(tmp_path: Path) -> None:
    config = procedural.Config(out_root=tmp_path / "out", per_class=1)
    job = Job("no result", config, tmp_path / "result", tmp_path / "job.log")
    assert [finished.state for finished in run_jobs([job], ["cpu"])] == ["failed"]


def test_slots() -> None:
    assert slots_from("0,1") == ["0", "1"]
    assert slots_from("cpu*2, 3") == ["cpu", "cpu", "3"]
    for wrong in ("", "gpu0", "0*x", "-1"):
        with pytest.raises(ValueError, match="slots must"):
            slots_from(wrong)


def test_pretrainings_are_the_documents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    jobs = m1_pretrains.plan(m1_pretrains.Config())
    assert [job.name for job in jobs] == ["shapenet_mesh_udf_nepa_s0", "shapenet_mix_nepa_s0", "shapenet_mix_mae_s0"]
    assert jobs[1].result == Path("runs/shapenet_mix_nepa_s0/ckpt_ep049.pt")
    assert jobs[1].log == Path("logs/pretrain/m1/shapenet_mix_nepa_s0.log")
    found = flags.values(jobs[1].config)
    wanted = {"resume": "runs/shapenet_mix_nepa_s0/last.pt", "drop_ray_prob": 0.3, "objective": "nepa", "epochs": 50}
    assert found | wanted | {"batch": 32, "save_every": 10, "n_point": 256, "n_ray": 256} == found
    assert "--drop_ray_prob 0.3" in " ".join(jobs[1].command)
    more = m1_pretrains.plan(m1_pretrains.Config(extra="--d_model 128 --epochs 3"))[0]
    assert flags.values(more.config) | {"d_model": 128, "epochs": 3} == flags.values(more.config)
    with pytest.raises(ValueError, match="methods"):
        m1_pretrains.Config(methods="other")


def test_table_jobs_are_the_documents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"runs/shapenet_mix_mae_s0/last\.pt"):
        m1_table.plan(m1_table.Config())
    for name in m1_table.PRETRAINED.values():
        if name:
            (tmp_path / "runs" / f"{name}_s0").mkdir(parents=True)
            for epoch in (9, 49):
                (tmp_path / "runs" / f"{name}_s0" / f"ckpt_ep{epoch:03d}.pt").touch()
    jobs = {job.name: job for job in m1_table.plan(m1_table.Config())}
    assert len(jobs) == 75
    job = jobs["scan_shapenet_mix_nepa_k5_s2"]
    found = flags.values(job.config)
    wanted = {"ckpt": "runs/shapenet_mix_nepa_s0/ckpt_ep049.pt", "fewshot_k": 5, "fewshot_seed": 2, "n_point": None}
    assert found | wanted | {"val_seed": 0, "eval_seed": 0, "mc_eval_k_val": 1, "mc_eval_k_test": 4} == found
    assert job.result == Path("runs/scan_shapenet_mix_nepa_k5_s2/last.pt")
    assert job.log == Path("logs/finetune/scan_m1_table/jobs/scan_shapenet_mix_nepa_k5_s2.log")
    scratch = flags.values(jobs["scan_scratch_k0_s2"].config)
    assert scratch | {"fewshot_k": 0, "fewshot_seed": 0, "ckpt": "", "n_point": 256, "seed": 2} == scratch


def test_an_unfinished_pretraining_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not a finished one, nor one that no job is left for."""
    monkeypatch.chdir(tmp_path)

    def keep(method: str, epoch: int, epochs: int) -> Path:
        path = Path("runs") / f"{method}_s0" / f"ckpt_ep{epoch:03d}.pt"
        save_checkpoint(path, Checkpoint({}, {}, None, {"epochs": epochs}, epoch, 0))
        return path

    begun = keep("shapenet_mesh_nepa", 9, 50)
    keep("shapenet_mix_nepa", 49, 50)
    config = m1_table.Config(methods="scratch shapenet_nepa shapenet_mix_nepa", shots="0 1", seeds="0")
    told = f"{begun}: the pretraining is not finished, it has done 10 of 50 epochs"
    assert m1_table.unfinished(m1_table.plan(config)) == [told]
    for job in m1_table.plan(config):
        assert job.result is not None
        write_tensors(job.result, {"test_acc": 0.5})
    assert m1_table.unfinished(m1_table.plan(config)) == []
    last = Path("runs/scan_shapenet_nepa_k0_s0/last.pt")
    last.unlink()
    monkeypatch.setattr(JobFlags, "run", lambda _, jobs: [])
    assert m1_table.command(config) == cli.EXIT_OK
    assert f"warning: {told}\n" in capsys.readouterr().err
    begun.write_bytes(b"half")
    with pytest.raises(ValueError, match=f"^{begun}: not a readable checkpoint"):
        m1_table.command(config)


@pytest.mark.xdist_group("ray")
@pytest.mark.filterwarnings("default")
def test_jobs_on_a_ray_cluster(tmp_path: Path) -> None:
    """As here: the failure stops no other, what is done is skipped, each has its log."""
    pytest.importorskip("ray")
    jobs = [made(tmp_path, "a"), failing(tmp_path), made(tmp_path, "b")]
    made(tmp_path, "b").result.mkdir()
    states = {finished.job.name: finished for finished in JobFlags(slots="cpu*2", engine="ray").run(jobs)}
    assert {name: f.state for name, f in states.items()} == {"a": "ok", "bad": "failed", "b": "done before"}
    assert states["bad"].status == cli.EXIT_USAGE
    assert "nowhere is not a folder" in states["bad"].job.log.read_text()
    assert not running(tmp_path / "logs")


@pytest.mark.parametrize("engine", ["local", pytest.param("ray", marks=pytest.mark.xdist_group("ray"))])
def test_an_interrupted_table_is_completed(golden: Path, tmp_path: Path, engine: str) -> None:
    """Four jobs of a tiny model; the launcher is ended while it works, and called again."""
    pytest.importorskip("ray" if engine == "ray" else "torch")
    command = [
        sys.executable,
        "-m",
        "nepa3d.experiments.m1_table",
        "--cache_root",
        f"{golden}/cache",
        "--slots",
        "cpu*2",
    ]
    command += ["--runs_root", "runs", "--methods", "scratch", "--shots", "0 2", "--seeds", "0 1", "--epochs", "2"]
    command += ["--n_point", "8", "--n_ray", "0", "--scratch_extra=--d_model 16 --layers 1 --heads 2"]
    command += ["--engine", engine]
    launcher = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("runs/*/last.pt")) and time.monotonic() < deadline:
        time.sleep(0.05)
    launcher.send_signal(signal.SIGTERM)
    launcher.communicate(timeout=30)
    assert launcher.returncode == 143
    done = {path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/*/last.pt")}
    assert 1 <= len(done) < 4
    assert not any(lives for _, _, lives in running(tmp_path / "logs"))
    again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert again.returncode == cli.EXIT_OK, again.stderr
    assert len(list(tmp_path.glob("runs/scan_scratch_k*_s*/last.pt"))) == 4
    assert all(path.stat().st_mtime_ns == time_ns for path, time_ns in done.items())
    table = (tmp_path / "results" / "m1_table.md").read_text()
    assert table.count("`scratch`") == 2
    assert len(list(tmp_path.glob("logs/finetune/scan_m1_table/jobs/*.log"))) == 4


class TestTable:
    RUNS = (
        FewShotRun("shapenet_mix_mae", 5, 0, 0.25, 0.2, ""),
        FewShotRun("scratch", 10, 0, 0.1115, 0.0667, "collapsed"),
        FewShotRun("scratch", 10, 1, 0.1315, 0.08, ""),
        FewShotRun("scratch", 1, 0, 0.2, None, ""),
    )

    def test_mean_and_population_deviation_in_the_documents_order(self) -> None:
        rows = rows_of(self.RUNS)
        assert [(row.method, row.shots, row.count) for row in rows] == [
            ("scratch", 1, 1),
            ("scratch", 10, 2),
            ("shapenet_mix_mae", 5, 1),
        ]
        assert rows[1].mean == pytest.approx(0.1215)
        assert rows[1].deviation == pytest.approx(0.01)
        assert rows[0].balanced is None
        lines = markdown(rows).splitlines()
        assert "| `scratch`" in lines[3]
        assert "0.1215 +- 0.0100" in lines[3]
        assert lines[2].split("|")[4].strip() == "0.2000"  # one seed has no deviation
        assert "1 of 2 no better than one class" in lines[3]

    def test_files_of_partial_tables(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        for method, shots, seed in (("scratch", 0, 0), ("shapenet_nepa", 20, 2), ("furniture-small", 5, 0)):
            folder = tmp_path / "runs" / f"scan_{method}_k{shots}_s{seed}"
            write_tensors(folder / "last.pt", {"test_acc": 0.5, "args": {}})
        (tmp_path / "runs" / "scan_scratch_k1_s0").mkdir()  # under way
        flags = ["--runs_root", f"{tmp_path}/runs", "--results", f"{tmp_path}/results"]
        assert fewshot_table.main(flags) == cli.EXIT_OK
        assert "`shapenet_nepa`" in capsys.readouterr().out
        with (tmp_path / "results" / "m1_table.csv").open() as file:
            assert sorted(row["k"] for row in csv.DictReader(file)) == ["0", "20", "5"]
        content = json.loads((tmp_path / "results" / "m1_table.json").read_text())
        assert len(content["runs"]) == 3

    def test_runs_of_other_settings_are_not_averaged(self, tmp_path: Path) -> None:
        for seed, epochs in ((0, 100), (1, 100), (2, 50)):
            args = {"seed": seed, "save_dir": f"{seed}", "epochs": epochs, "lr": 1e-4}
            write_tensors(tmp_path / f"scan_scratch_k0_s{seed}" / "last.pt", {"test_acc": 0.5, "args": args})
        with pytest.raises(ValueError, match="runs of one row must have the same flags, got epochs 100 and 50"):
            read_runs(tmp_path)
        (tmp_path / "scan_scratch_k0_s2").rename(tmp_path / "scan_scratch_k5_s2")  # a row of its own
        assert len(read_runs(tmp_path)) == 3

    def test_damaged_and_missing_runs(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        flags = ["--runs_root", f"{tmp_path}/runs", "--results", f"{tmp_path}/results"]
        assert fewshot_table.main(flags) == cli.EXIT_USAGE
        path = tmp_path / "runs" / "scan_scratch_k0_s0" / "last.pt"
        write_tensors(path, {"args": {}})
        with pytest.raises(ValueError, match="has no test_acc"):
            read_runs(tmp_path / "runs")
        path.write_bytes(b"half")
        assert fewshot_table.main(flags) == cli.EXIT_USAGE
        assert f"{path}" in capsys.readouterr().err


def test_lines() -> None:
    job = made(Path("x"), "a")
    assert Finished(job, "done before").line == "a: done before"
    assert Finished(job, "ok", 61.4).line == "a: ok, 61 s"
    assert os.sep in Finished(job, "failed", 1, 2).line
