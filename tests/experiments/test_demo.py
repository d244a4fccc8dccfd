"""The demo: its jobs in order, and what they hand to one another."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from nepa3d.cli import flags
from nepa3d.corpora.splits import mesh_test_split
from nepa3d.data import virtual_scanner
from nepa3d.experiments import demo_plan
from nepa3d.experiments.demo_plan import FULL, QUICK, Demo, Scale
from nepa3d.experiments.jobs import Job
from nepa3d.samples.mixes import load_mix

NAMES = ("nepa", "mae", "query")  # of the models that are trained
KEYS = [f"{kind}/{number}" for kind in ("chair", "table") for number in range(40)]


def jobs_of(some: Demo) -> dict[str, Job]:
    plans = (demo_plan.data_jobs, demo_plan.scan_jobs, demo_plan.model_jobs)
    jobs = [job for plan in plans for job in plan(some)]
    assert len({job.name for job in jobs}) == len(jobs)
    logs = [job.log for job in jobs if job.log is not None]
    assert len({*logs}) == len(logs)
    return {job.name: job for job in jobs}


@pytest.mark.parametrize("scale", [FULL, QUICK])
def test_every_model_seeks_the_test_meshes_by_scans_that_no_model_was_trained_on(tmp_path: Path, scale: Scale) -> None:
    jobs = jobs_of(Demo(tmp_path, scale, workers=1))
    order = list(jobs)
    bank, meshes = flags.values(jobs["bank"].config), flags.values(jobs["preprocess"].config)
    assert bank["seed"] != flags.values(jobs["scan"].config)["seed"]
    held_out = mesh_test_split(KEYS, meshes["test_ratio"], meshes["split_seed"])
    assert mesh_test_split(KEYS, bank["test_ratio"], bank["split_seed"]) == held_out
    for name in NAMES:
        job = jobs[f"scans_{name}"]
        found = flags.values(job.config)
        assert found["query_root"] == f"{flags.values(jobs['bank caches'].config)['out_root']}"
        assert found["gallery_root"] == f"{meshes['out_root']}"
        assert (found["query_split"], found["gallery_splits"]) == ("test", ("test",))
        assert found["ckpt"] == f"{jobs[f'pretrain {name}'].result}"
        assert found["out_json"] == f"{job.result}"
        assert order.index("bank caches") < order.index(f"pretrain {name}") < order.index(f"scans_{name}")


def test_the_scans_are_of_the_meshes_that_the_bank_is_paired_with(tmp_path: Path) -> None:
    for key in KEYS:
        path = tmp_path / "corpus" / key / "models" / "model_normalized.obj"
        path.parent.mkdir(parents=True)
        path.touch()
    some = Demo(tmp_path, replace(QUICK, test_ratio=0.3), workers=1)
    planned = virtual_scanner.plan(jobs_of(some)["bank"].config)
    scanned = {split: sorted({job.key.rpartition("_")[0] for job in jobs}) for split, jobs in planned.items()}
    held_out = mesh_test_split(KEYS, 0.3, 0)
    assert scanned == {"train": sorted(set(KEYS) - {*held_out}), "test": held_out}
    assert [len(planned[split]) for split in scanned] == [demo_plan.BANK * len(keys) for keys in scanned.values()]


def test_only_the_recipe_is_trained_on_pairs(tmp_path: Path) -> None:
    some = Demo(tmp_path, QUICK, workers=1)
    demo_plan.write_mixes(some)
    jobs = jobs_of(some)
    mixes = {name: load_mix(flags.values(jobs[f"pretrain {name}"].config)["mix_config"]) for name in NAMES}
    recipe = {part.name: part for part in mixes.pop("query").components}
    for mix in mixes.values():
        assert {part.name: part.weight for part in mix.components} == {
            "train_mesh": 0.34,
            "train_pc": 0.33,
            "train_udf": 0.33,
        }
        assert all(part.cache_root == f"{tmp_path / 'unpaired'}" and part.pair is None for part in mix.components)
    assert {part.split for part in recipe.values()} == {"train"}
    scan = recipe.pop("scan")
    assert (scan.cache_root, scan.weight) == (f"{tmp_path / 'bank_cache'}", demo_plan.SCANS)
    assert (scan.backend, scan.pair, scan.ask_pair) == ("pointcloud_noray", "mesh", False)
    assert {part.cache_root for part in recipe.values()} == {f"{tmp_path / 'cache'}"}
    assert recipe["mesh"].backend == "mesh" and recipe["grid"].backend == "udfgrid"
    drawn = {name: part for name, part in recipe.items() if part.weight}
    assert sum(part.weight for part in drawn.values()) == pytest.approx(1)
    for name, part in drawn.items():
        assert part.ask_pair and name == f"{part.backend}_{part.pair}".replace("pointcloud_noray", "cloud")


def test_the_packages_model_is_probed_and_fine_tuned_but_not_trained(tmp_path: Path) -> None:
    without, with_it = (jobs_of(Demo(tmp_path, FULL, workers=1, shipped=shipped)) for shipped in (False, True))
    added = [with_it[name] for name in with_it if name not in without]
    assert {name.split("_")[0].split()[0] for name in (job.name for job in added)} == {
        *("ucpr", "cpac", "surfaces", "scans", "probe", "fine-tune")
    }
    for job in added:
        given = flags.values(job.config)
        assert given["ckpt"] == demo_plan.SHIPPED
        assert given.get("n_ray", 0) == 0
    same = [name for name in without if without[name].config != with_it[name].config]
    assert not same


def test_the_tables_have_every_probe_of_results(tmp_path: Path) -> None:
    some = Demo(tmp_path, QUICK, workers=1)
    names = ["cpac_nepa_x", "scans_nepa", "ucpr_nepa_x", "probe_cls_nepa"]
    some.results.mkdir()
    for name in names:
        (some.results / f"{name}.json").touch()
    _, table, shown, _ = demo_plan.report_jobs(some)
    wanted = tuple(f"{some.results / name}.json" for name in names[:3])
    assert table.config.results == shown.config.results == wanted
