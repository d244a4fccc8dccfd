"""The ablation of the recipe: its jobs differ from the recipe in what they say, and its table is of what is done."""

from __future__ import annotations

from pathlib import Path

import pytest

from nepa3d import cli
from nepa3d.cli import flags
from nepa3d.execution.files import read_json, write_json
from nepa3d.experiments import ablation
from nepa3d.experiments.ablation import COLUMNS, RECIPE, VARIANTS, Config, draw, markdown, plan, rows_of
from nepa3d.train.pretrain import Config as Pretraining


def config(tmp_path: Path, variants: str, **fields: object) -> Config:
    folders = {name: tmp_path / name for name in ("runs_root", "results", "logs")}
    return Config(mix_config="mix.yaml", cache_root="unpaired", variants=variants, **folders, **fields)  # type: ignore[arg-type]


def test_every_variant_differs_from_the_recipe_in_what_it_says(tmp_path: Path) -> None:
    trainings = {}
    for name in VARIANTS:
        jobs = plan(config(tmp_path, name, recipe_seeds=(0,)))
        assert [job.name for job in jobs] == [f"{name}_s0"] + [f"{name}_s0_{column.result}" for column in COLUMNS]
        assert isinstance(jobs[0].config, Pretraining)
        trainings[name] = flags.spellings(jobs[0].config)
        for probe in jobs[1:]:
            found = flags.values(probe.config)
            assert found["ckpt"] == f"{jobs[0].result}" and not found["spline"] and not found["random_init"]
    recipe = trainings.pop(RECIPE)
    assert recipe["objective"] == "query" and recipe["d_model"] == 128
    for name, training in trainings.items():
        differing = {key for key in recipe if training[key] != recipe[key]} - {"save_dir"}
        assert differing == {word[2:] for word in VARIANTS[name].split() if word.startswith("--")}, name


def test_recipe_and_variants_have_seeds_of_their_own(tmp_path: Path) -> None:
    some = config(tmp_path, f"{RECIPE} laplace", seeds=(3,), recipe_seeds=(0, 1))
    assert some.trainings == [(RECIPE, 0), (RECIPE, 1), ("laplace", 3)]
    seeds = [flags.values(job.config)["seed"] for job in plan(some) if isinstance(job.config, Pretraining)]
    assert seeds == [0, 1, 3]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"variants": "recipe no_wings"}, "variants must be among recipe, .* got no_wings"),
        ({"variants": " "}, "got none"),
        ({"variants": "recipe", "seeds": ()}, "at least one seed"),
    ],
)
def test_what_is_refused(tmp_path: Path, fields: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Config(mix_config="mix.yaml", cache_root="unpaired", **fields)  # type: ignore[arg-type]


def write_results(folder: Path, tag: str, mae: float, precision: float) -> None:
    for column in COLUMNS:
        write_json(folder / f"{tag}_{column.result}.json", {column.key: mae if column.less_is_better else precision})


def test_the_table_tells_gains_from_losses(tmp_path: Path) -> None:
    some = config(tmp_path, f"{RECIPE} laplace adamw width_64")
    write_results(some.results, "recipe_s0", 0.03, 0.9)
    write_results(some.results, "recipe_s1", 0.04, 0.8)
    write_results(some.results, "laplace_s0", 0.030, 0.80)
    write_results(some.results, "adamw_s0", 0.045, 0.95)
    rows = {row.variant: row for row in rows_of(some)}
    assert rows["recipe"].mean(COLUMNS[0]) == pytest.approx(0.035)
    assert rows["width_64"].mean(COLUMNS[0]) is None
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in markdown(list(rows.values())).splitlines()]
    assert lines[2] == ["recipe", "", "0.0300 to 0.0400", "0.0300 to 0.0400", "0.800 to 0.900", "0.800 to 0.900"]
    assert lines[3][1:4] == ["`--answer_loss laplace`", "0.0300 (+0.0050)", "0.0300 (+0.0050)"]
    assert lines[3][4] == "0.800 (-0.050)"
    assert lines[4][2:5] == ["0.0450 (-0.0100)", "0.0450 (-0.0100)", "0.950 (+0.100)"]
    assert lines[5][2:] == ["-"] * 4
    pytest.importorskip("matplotlib")
    figure = draw(list(rows.values()))
    assert [axes.get_title() for axes in figure.axes] == [column.title for column in COLUMNS]
    dots = [tuple(line.get_xdata()) for line in figure.axes[2].lines]
    assert dots == [(0.9, 0.8), (0.8,), (0.95,), ()]


def test_a_training_is_probed_and_skipped_the_next_time(
    golden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    mix = tmp_path / "mix.yaml"
    part = "{name: a, cache_root: unpaired, split: train_mesh, backend: mesh, weight: 1}"
    mix.write_text(f"mix_seed: 0\nreplacement: true\ndatasets: [{part}]\n", encoding="utf-8")
    words = ["--mix_config", f"{mix}", "--cache_root", "unpaired", "--variants", "recipe", "--recipe_seeds", "0"]
    words += ["--samples", "4", "--epochs", "1", "--batch", "4", "--slots", "cpu"]
    small = "--d_model 16 --layers 1 --heads 2 --n_point 24 --blind 4 --context_min 8 --context_max 8"
    words += [f"--extra={small} --uniform_prob 0"]  # the recorded cache is of another program
    for name in ("runs_root", "results", "logs"):
        words += [f"--{name}", f"{tmp_path / name}"]
    assert ablation.main(words) == cli.EXIT_SOME_FAILED
    out = capsys.readouterr().out
    assert "recipe_s0: ok" in out and out.count(": failed") == 1 and "recipe_s0_ucpr_uniform: failed" in out
    assert [line.split("|")[-2].strip() for line in out.splitlines() if line.startswith("| recipe")] == ["-"]
    done = read_json(tmp_path / "results" / "recipe_s0_ucpr_pool.json")
    written = read_json(tmp_path / "results" / "ablation.json")
    assert written["rows"][0]["figures"]["mAP, points of the pool"] == [done["mAP"]]
    assert written["rows"][0]["figures"]["mAP, uniform points"] == [None]
    assert (tmp_path / "results" / "ablation.png").stat().st_size > 5000
    ablation.main(words)
    assert "recipe_s0: done before" in capsys.readouterr().out
