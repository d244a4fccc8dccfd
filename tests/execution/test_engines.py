"""The same files, byte for byte, from one worker, many, shards and a Ray cluster that loses a node."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from nepa3d import cli
from nepa3d.data import preprocess_shapenet, progress
from nepa3d.execution import shard_progress
from nepa3d.execution.processes import Pool, Report, Task
from nepa3d.execution.sharding import Shard, choose_shard
from nepa3d.execution.tasks import run_tasks
from tests.data.corpus import SMALL, cache_bytes, make_corpus, touch_or_die

SHAPES = {"chair": 14, "table": 7}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_corpus(tmp_path_factory.mktemp("meshes"), **SHAPES)


@pytest.fixture(scope="module")
def reference(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What one worker writes."""
    out = tmp_path_factory.mktemp("reference")
    assert run(corpus, out, "--workers", "1") == cli.EXIT_OK
    found = cache_bytes(out)
    assert len(found) == sum(SHAPES.values())
    return found


def run(corpus: Path, out: Path, *flags: str) -> int:
    return preprocess_shapenet.main(["--shapenet_root", f"{corpus}", "--out_root", f"{out}", *SMALL, *flags])


def test_two_workers_write_what_one_does(corpus: Path, reference: dict[str, str], tmp_path: Path) -> None:
    assert run(corpus, tmp_path, "--workers", "2", "--chunk_size", "3") == cli.EXIT_OK
    assert cache_bytes(tmp_path) == reference


def test_seven_shards_write_what_one_run_does(
    corpus: Path, reference: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for index in (6, 0, 3, 1, 2, 5):
        flags = ["--workers", "1", "--num_shards", "7", "--shard_index", f"{index}"]
        assert run(corpus, tmp_path, *flags) == cli.EXIT_OK
    assert len(cache_bytes(tmp_path)) == sum(SHAPES.values()) - 3
    assert progress.main(["--out_root", f"{tmp_path}"]) == cli.EXIT_OK
    assert "6 of 7 shards finished, 1 not begun" in capsys.readouterr().out
    assert run(corpus, tmp_path, "--workers", "1", "--num_shards", "7", "--shard_index", "4") == cli.EXIT_OK
    assert "7 of 7 shards finished" in capsys.readouterr().out
    assert cache_bytes(tmp_path) == reference
    reports = sorted((tmp_path / "_meta").glob("preprocess_all_shard*.json"))
    assert sum(json.loads(path.read_text())["counts"]["ok"] for path in reports) == sum(SHAPES.values())


def test_an_array_job_takes_its_part(
    corpus: Path, reference: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for index in ("1", "2", "3"):  # as `qsub -J 1-3` counts
        monkeypatch.setenv("PBS_ARRAY_INDEX", index)
        flags = ["--workers", "1", "--num_shards", "3", "--shard_array", "pbs"]
        assert run(corpus, tmp_path, *flags) == cli.EXIT_OK
    assert cache_bytes(tmp_path) == reference


def test_a_shard_does_not_exchange_settings(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(corpus, tmp_path, "--workers", "1") == cli.EXIT_OK
    before = cache_bytes(tmp_path)
    shard = ["--num_shards", "2", "--shard_index", "1", "--overwrite", "--seed", "5"]
    assert run(corpus, tmp_path, *shard) == cli.EXIT_USAGE
    assert "one shard of 2 cannot exchange" in capsys.readouterr().err
    assert cache_bytes(tmp_path) == before


class TestShards:
    @pytest.mark.parametrize("count", [1, 2, 7, 40])
    def test_are_disjoint_and_complete(self, count: int) -> None:
        items = list(range(30))
        parts = [Shard(index, count).select(items) for index in range(count)]
        assert sorted(item for part in parts for item in part) == items

    @pytest.mark.parametrize(("index", "count"), [(0, 0), (2, 2), (-1, 2)])
    def test_refuse_what_makes_no_sense(self, index: int, count: int) -> None:
        with pytest.raises(ValueError, match="shard"):
            Shard(index, count)

    def test_come_from_array_jobs(self) -> None:
        slurm = {"SLURM_ARRAY_TASK_ID": "14", "SLURM_ARRAY_TASK_MIN": "10", "SLURM_ARRAY_TASK_COUNT": "3"}
        assert choose_shard(0, 1, "slurm", slurm | {"SLURM_ARRAY_TASK_STEP": "2"}) == Shard(2, 3)
        assert choose_shard(0, 4, "pbs", {"PBS_ARRAYID": "4"}) == Shard(0, 4)
        assert choose_shard(1, 4, "none", slurm) == Shard(1, 4)

    @pytest.mark.parametrize(
        ("count", "array", "environment", "fault"),
        [
            (4, "pbs", {}, "no array job"),
            (4, "pbs", {"PBS_ARRAY_INDEX": "5"}, r"0\.\.4"),
            (4, "pbs", {"PBS_ARRAY_INDEX": "x"}, "whole number"),
            (1, "pbs", {"PBS_ARRAY_INDEX": "1"}, "num_shards must be given"),
            (1, "slurm", {"SLURM_ARRAY_TASK_MIN": "0"}, "no array job"),
            (
                5,
                "slurm",
                {"SLURM_ARRAY_TASK_MIN": "0", "SLURM_ARRAY_TASK_COUNT": "3", "SLURM_ARRAY_TASK_ID": "6"},
                r"0\.\.5",
            ),
        ],
    )
    def test_of_arrays_that_do_not_fit_are_refused(
        self, count: int, array: str, environment: dict[str, str], fault: str
    ) -> None:
        with pytest.raises(ValueError, match=fault):
            choose_shard(0, count, array, environment)  # type: ignore[arg-type]


class TestProgress:
    def test_tells_the_time_the_slowest_shard_needs(self) -> None:
        fast = shard_progress.Status(0, 3, 100, 20, 70, 0, 7.0, 0.0)
        slow = shard_progress.Status(1, 3, 100, 0, 10, 1, 60.0, 0.0)
        assert fast.seconds_left() == pytest.approx(1.0)
        assert shard_progress.summary([fast, slow]) == "0 of 3 shards finished, 1 not begun, about 9 min 00 s left"
        rows = shard_progress.table([fast, slow], now=100.0).splitlines()
        assert rows[2].endswith("silent for 1 min 40 s")
        assert shard_progress.table([slow], now=10.0).splitlines()[2].endswith("9 min 00 s left")

    def test_says_nothing_before_anything_is_known(self) -> None:
        begun = shard_progress.Status(0, 2, 10, 0, 0, 0, 0.0, 0.0)
        assert shard_progress.summary([begun]) == "0 of 2 shards finished, 1 not begun"
        assert shard_progress.Status(0, 2, 10, 10, 0, 0, 0.0, 0.0).seconds_left() == 0


ray = pytest.importorskip("ray", reason="ray is not installed")
cluster_utils = pytest.importorskip("ray.cluster_utils")


@pytest.mark.xdist_group("ray")
@pytest.mark.filterwarnings("default")
class TestRay:
    @pytest.fixture
    def cluster(self) -> Iterator[cluster_utils.Cluster]:
        """Two nodes of one processor each, on this machine."""
        cluster = cluster_utils.Cluster(
            initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False}
        )
        cluster.add_node(num_cpus=1, include_dashboard=False)
        cluster.wait_for_nodes()
        yield cluster
        ray.shutdown()
        cluster.shutdown()

    def test_a_cluster_that_loses_a_node_writes_every_file(
        self, cluster: cluster_utils.Cluster, corpus: Path, reference: dict[str, str], tmp_path: Path
    ) -> None:
        lost = next(node for node in cluster.list_all_nodes() if node is not cluster.head_node)

        def kill_node() -> None:
            while len(cache_bytes(tmp_path)) < 3:
                threading.Event().wait(0.05)
            cluster.remove_node(lost, allow_graceful=False)

        killer = threading.Thread(target=kill_node)
        killer.start()
        flags = ["--engine", "ray", "--ray_address", cluster.address, "--workers", "2", "--chunk_size", "2"]
        assert run(corpus, tmp_path, *flags) == cli.EXIT_OK
        killer.join()
        assert cache_bytes(tmp_path) == reference

    def test_a_crash_costs_one_shape(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # so that Ray's workers find this test's function
        names = [f"good {i}" for i in range(5)] + ["segfault"]
        tasks = [Task(name, (name, f"{tmp_path}")) for name in names]
        outcomes = run_tasks(touch_or_die, tasks, Pool(workers=2, chunk_size=3, engine="ray"), "ray")
        assert {o.key: o.state for o in outcomes} == dict.fromkeys(names[:5], "ok") | {"segfault": "crash"}
        assert sorted(path.name for path in tmp_path.iterdir()) == names[:5]

    def test_runs_that_fill_one_folder_are_told_apart(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        for name in ("preprocess_train", "preprocess_test"):
            shard_progress.ShardProgress(tmp_path, name, Shard(0, 2), total=4, skipped=4).finish(Report())
        capsys.readouterr()
        assert progress.main(["--out_root", f"{tmp_path}"]) == cli.EXIT_OK
        said = capsys.readouterr().out
        assert "preprocess_test:" in said and "preprocess_train:" in said
        assert said.count("1 of 2 shards finished, 1 not begun") == 2
