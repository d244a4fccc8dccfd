"""Bootstrap intervals against what theory says of means, and the comparison of two results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nepa3d import cli
from nepa3d.analysis import classification_probes, compare, completion_cpac_udf, retrieval_ucpr
from nepa3d.probes.classifiers import SETTINGS
from nepa3d.probes.distance_errors import ERROR_FIGURES, DistanceErrors, error_metrics
from nepa3d.probes.held_out import HeldOut
from nepa3d.probes.intervals import (
    grouped_interval,
    interval,
    paired_difference,
    resampled_means,
    share_interval,
)
from nepa3d.probes.result import Result
from nepa3d.report.compare import compare as compare_results

RETRIEVAL = ["--cache_root", "unpaired", "--query_backend", "mesh", "--gallery_backend", "udfgrid"]


def test_the_interval_of_a_mean_is_that_of_the_normal_law() -> None:
    values = np.random.default_rng(1).normal(3, 2, (400, 1))
    low, high = interval(values)
    error = values.std() / 20
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.15 * error)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.15 * error)


def test_values_of_a_group_are_drawn_together() -> None:
    """Each value four times over is no more known than once; on its own it would seem so."""
    values = np.random.default_rng(2).normal(size=60)
    low, high = grouped_interval(np.repeat(values, 4), list(np.repeat(np.arange(60), 4)))
    assert (low, high) == pytest.approx(interval(values[:, None]))
    alone = grouped_interval(np.repeat(values, 4), list(range(240)))
    assert alone[1] - alone[0] < 0.7 * (high - low)


def test_shares_that_are_all_alike_have_the_exact_interval() -> None:
    """Of 8 shapes that are all wrong every resample is wrong, and yet another shape may be right."""
    bound = 0.025 ** (1 / 8)
    assert share_interval(np.zeros(8)) == pytest.approx((0, 1 - bound))
    assert share_interval(np.ones(8)) == pytest.approx((bound, 1))
    groups = ["a", "a", "a", "b"]
    assert share_interval(np.zeros(4), groups) == pytest.approx((0, 1 - 0.025 ** (1 / 2)))
    assert share_interval(np.ones(4), groups) == pytest.approx((0.025 ** (1 / 2), 1))
    mixed = np.array([0.0, 1, 1, 0.5])
    assert share_interval(mixed) == interval(mixed[:, None])
    assert share_interval(mixed, groups) == grouped_interval(mixed, groups)


def test_the_exact_interval_is_that_of_the_beta_law() -> None:
    beta = pytest.importorskip("scipy.stats").beta
    for n in (1, 5, 83):
        assert share_interval(np.zeros(n)) == pytest.approx((0, beta.ppf(0.975, 1, n)))
        assert share_interval(np.ones(n)) == pytest.approx((beta.ppf(0.025, n, 1), 1))


def test_errors_that_are_all_alike_have_no_width() -> None:
    """What is no share has no such bound."""
    assert interval(np.zeros((8, 1))) == (0, 0)
    assert grouped_interval(np.ones(4), [0, 0, 1, 1]) == (1, 1)


@pytest.mark.parametrize("right", [0.0, 1.0])
def test_accuracies_that_are_all_alike_have_the_interval_of_their_objects(right: float) -> None:
    held_out = HeldOut([], np.repeat([0, 1], 6), np.arange(12) // 3, ["a", "b"])
    wanted = (0, 1 - 0.025 ** (1 / 4)) if right == 0 else (0.025 ** (1 / 4), 1)
    found = held_out.intervals(np.full(12, right))
    assert found["accuracy"] == found["balanced_accuracy"] == pytest.approx(wanted)


def test_resamples_do_not_depend_on_the_block() -> None:
    values = np.arange(12.0).reshape(6, 2)
    many = resampled_means(values, resamples=250)
    assert many.shape == (250, 2)
    assert (many >= values.min(0)).all()
    assert (many <= values.max(0)).all()
    np.testing.assert_array_equal(many, resampled_means(values, resamples=250))
    with pytest.raises(ValueError, match=r"values must have shape \(n, k\)"):
        resampled_means(np.zeros((0, 1)))


def test_pairs_tell_what_the_figures_alone_cannot() -> None:
    rng = np.random.default_rng(2)
    a = rng.normal(0, 1, 200)
    better = paired_difference(a, a + 0.05 + rng.normal(0, 0.1, 200))
    assert better["low"] > 0
    assert better["other_sign"] < 0.01
    same = paired_difference(a, a + rng.normal(0, 0.1, 200))
    assert same["low"] < 0 < same["high"]


def test_pairs_of_one_group_are_drawn_together() -> None:
    rng = np.random.default_rng(4)
    a, b = np.zeros(60), np.repeat(rng.normal(0, 1, 6), 10)
    alone, together = paired_difference(a, b), paired_difference(a, b, [f"object {i // 10}" for i in range(60)])
    assert alone["difference"] == together["difference"] == pytest.approx(b.mean())
    of_objects = paired_difference(a[::10], b[::10])
    assert (together["low"], together["high"]) == pytest.approx((of_objects["low"], of_objects["high"]))
    assert together["high"] - together["low"] > 2 * (alone["high"] - alone["low"])


def test_errors_over_shapes() -> None:
    errors = DistanceErrors(0.1)
    rng = np.random.default_rng(3)
    for _ in range(50):
        true = rng.uniform(0, 0.3, 20)
        errors.add(true + rng.normal(0, 0.02, 20), true)
    found = error_metrics(errors.sums())
    for name, figure in ERROR_FIGURES.items():
        low, high = interval(errors.sums(), figure)
        assert low < found[name] < high  # type: ignore[operator]
    assert found["mae"] == pytest.approx(0.016, rel=0.1)


def result(tmp_path: Path, checkpoint: str, *more: str) -> dict[str, Any]:
    out = tmp_path / f"{checkpoint}.json"
    assert retrieval_ucpr.main([*RETRIEVAL, "--ckpt", checkpoint, "--out_json", f"{out}", *more]) == cli.EXIT_OK
    found: dict[str, Any] = json.loads(out.read_text())
    return found


def test_several_seeds_are_the_mean_of_each(golden: Path, tmp_path: Path) -> None:
    seeds = ["--eval_seed", "3", "--eval_seed_gallery", "50"]
    both = result(tmp_path, "mae_v1.pt", *seeds, "--n_seeds", "2")
    first = result(tmp_path, "mae_v1.pt", *seeds)
    second = result(tmp_path, "mae_v1.pt", "--eval_seed", "4", "--eval_seed_gallery", "51")
    for name in ("r@1", "mAP", "mean_rank"):
        assert both[name] == pytest.approx((first[name] + second[name]) / 2)
        assert [seed[name] for seed in both["by_seed"]] == pytest.approx([first[name], second[name]])
        low, high = both["interval"][name]
        assert low <= both[name] <= high


def test_plain_distances_beat_chance_where_draws_are_shared(golden: Path, tmp_path: Path) -> None:
    """Without a model: the same view and the same draws are the same answers; other draws are still of the shape."""
    shared = result(tmp_path, "mae_v1.pt", "--gallery_backend", "mesh")
    assert shared["raw_distances"]["r@1"] == 1.0
    other = result(tmp_path, "mae_v1.pt", "--gallery_backend", "mesh", "--eval_seed_gallery", "9", "--n_seeds", "8")
    assert other["raw_distances"]["mAP"] > other["chance"]["mAP"]
    assert other["raw_distances"]["r@1"] < 1.0


def test_two_checkpoints_are_compared_shape_by_shape(
    golden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result(tmp_path, "mae_v1.pt")
    result(tmp_path, "nepa_v1.pt")
    paths = ["--first", f"{tmp_path / 'mae_v1.pt.json'}", "--second", f"{tmp_path / 'nepa_v1.pt.json'}"]
    capsys.readouterr()
    assert compare.main([*paths, "--out_json", f"{tmp_path / 'out.json'}"]) == cli.EXIT_OK
    assert "12 shapes" in capsys.readouterr().out
    (found,) = json.loads((tmp_path / "out.json").read_text())["figures"]
    assert (found["figure"], found["shapes"]) == ("mAP", 12)
    assert found["difference"] == pytest.approx(found["second"] - found["first"])
    assert compare.main([*paths[:3], paths[1]]) == cli.EXIT_OK
    assert "no difference can be told" in capsys.readouterr().out
    result(tmp_path, "nepa_v1.pt", "--eval_seed", "5")
    assert compare.main(paths) == cli.EXIT_USAGE
    assert "different protocols: eval_seed 0 and 5" in capsys.readouterr().err


def probed(tmp_path: Path, checkpoint: str, *more: str) -> Path:
    pytest.importorskip("sklearn")
    out = tmp_path / f"{checkpoint}.json"
    flags = ["--cache_root", "cache", "--ckpt", checkpoint, "--random_init", "0", "--out_json", f"{out}"]
    assert classification_probes.main([*flags, *more]) == cli.EXIT_OK
    return out


def test_two_checkpoints_are_compared_probe_by_probe(
    golden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = (probed(tmp_path, name, "--n_seeds", "2") for name in ("mae_v1.pt", "nepa_v1.pt"))
    paths = ["--first", f"{first}", "--second", f"{second}"]
    capsys.readouterr()
    assert compare.main([*paths, "--out_json", f"{tmp_path / 'out.json'}"]) == cli.EXIT_OK
    lines = capsys.readouterr().out.splitlines()
    assert "12 shapes" in lines[0] and "95 % over objects" in lines[0]
    assert [line.split()[0] for line in lines[2:5]] == list(SETTINGS)
    results = [json.loads(path.read_text()) for path in (first, second)]
    for found in json.loads((tmp_path / "out.json").read_text())["figures"]:
        means = [result[found["figure"]]["accuracy"] for result in results]
        assert [found["first"], found["second"]] == pytest.approx(means)
        assert found["low"] <= found["difference"] <= found["high"]
    for name, value in (("--backend", "mesh"), ("--fewshot_k", "2"), ("--val_ratio", "0.4"), ("--group_by", "file")):
        probed(tmp_path, "nepa_v1.pt", "--n_seeds", "2", name, value)
        assert compare.main(paths) == cli.EXIT_USAGE
        said = capsys.readouterr().err
        assert f"of different protocols: {name.removeprefix('--')} " in said and f" and {value}" in said


def test_the_scans_of_an_object_are_compared_together() -> None:
    paths, values = [f"{i}.npz" for i in range(40)], [float(i % 3 == 0) for i in range(10) for _ in range(4)]
    first = Result("classification", {}, items={"path": paths, "knn": [0.0] * 40})
    second = Result("classification", {}, items={"path": paths[::-1], "knn": values[::-1]})
    apart = compare_results(first, second)[0]
    for result in (first, second):
        result.settings["group_by"] = "object"
    with pytest.raises(ValueError, match="whose scans its files are"):
        compare_results(first, second)
    first.items["object"] = [i // 4 for i in range(40)]
    second.items["object"] = first.items["object"][::-1]
    together = compare_results(first, second)[0]
    assert apart["difference"] == together["difference"] == pytest.approx(np.mean(values))
    assert together["high"] - together["low"] > 1.5 * (apart["high"] - apart["low"])


def test_what_cannot_be_compared_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = Result("classification", {}, items={"path": ["a.npz"], "svm": [1.0]})
    for items in ({}, {"path": ["a.npz"], "mAP": [1.0]}):
        other = Result("classification", {}, items=items)
        for pair in ((whole, other), (other, whole)):
            with pytest.raises(ValueError, match="items: a result has no values shape by shape"):
                compare_results(*pair)
    with pytest.raises(ValueError, match="share no shape"):
        compare_results(whole, Result("classification", {}, items={"path": ["b.npz"], "svm": [1.0]}))
    with pytest.raises(ValueError, match="different protocols: probe ucpr and classification"):
        compare_results(Result("ucpr", {}), whole)
    (tmp_path / "other.json").write_text("{}")
    assert compare.main(["--first", f"{tmp_path / 'other.json'}", "--second", f"{tmp_path / 'other.json'}"]) == 2
    assert "other.json: expected a result of ucpr, cpac_udf" in capsys.readouterr().err


def test_completion_over_seeds(golden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--cache_root", "unpaired", "--ckpt", "mae_v1.pt", "--n_context", "16", "--n_query", "8", "--seed", "2"]
    out = tmp_path / "out.json"
    assert completion_cpac_udf.main([*flags, "--n_seeds", "2", "--out_json", f"{out}"]) == cli.EXIT_OK
    assert "standard deviation over seeds" in capsys.readouterr().out
    found = json.loads(out.read_text())
    assert found["mae"] == pytest.approx(np.mean([seed["mae"] for seed in found["by_seed"]]))
    assert found["mae"] == pytest.approx(np.mean(found["items"]["mae"]))
    low, high = found["interval"]["mae"]
    assert low < found["mae"] < high
