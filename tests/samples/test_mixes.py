"""Mix files, what is refused in them, and the draws of an epoch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from nepa3d.samples.mixes import draw_mixture, load_mix
from nepa3d.shapes.views import VoxelSettings

ENTRY = {"name": "a", "cache_root": "r", "split": "train", "backend": "mesh", "weight": 1}


def write(path: Path, content: Any) -> Path:
    path.write_text(yaml.safe_dump(content))
    return path


def test_draws_equal_the_recorded_ones(golden: Path) -> None:
    recorded = json.loads(Path("lists.json").read_text())["mixture"]
    starts = np.cumsum([0, *recorded["sizes"]])
    for name, expected in recorded["idx"].items():
        replacement, epoch = map(int, name.split("_"))
        drawn = draw_mixture(
            recorded["sizes"],
            recorded["weights"],
            recorded["num"],
            recorded["seed"],
            epoch,
            replacement=bool(replacement),
        )
        assert [int(starts[component]) + shape for component, shape in drawn] == expected


def test_draws_follow_the_weights_and_skip_a_weight_of_zero() -> None:
    drawn = draw_mixture([5, 5, 5], [3, 0, 1], 4000, 0, 0, replacement=True)
    counts = np.bincount([component for component, _ in drawn], minlength=3)
    assert counts[1] == 0
    assert abs(counts[0] / 4000 - 0.75) < 0.03
    assert {shape for _, shape in drawn} == set(range(5))


def test_without_replacement_no_shape_comes_twice() -> None:
    drawn = draw_mixture([3, 4], [1, 9], 7, 0, 0, replacement=False)
    assert sorted(drawn) == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (1, 3)]
    with pytest.raises(ValueError, match="8 of 7"):
        draw_mixture([3, 4], [1, 9], 8, 0, 0, replacement=False)


def test_recorded_mix_loads(golden: Path) -> None:
    mix = load_mix("mix.yaml")
    assert (mix.mix_seed, mix.mix_num_samples, mix.replacement) == (0, 256, True)
    assert [c.backend for c in mix.components] == ["mesh", "pointcloud_noray", "udfgrid"]
    assert [c.weight for c in mix.components] == [0.34, 0.33, 0.33]


def test_what_a_component_gives_replaces_the_commands_value(tmp_path: Path) -> None:
    entry = {
        **ENTRY,
        "drop_ray_prob": 0.5,
        "uniform_prob": 0.25,
        "force_missing_ray": 1,
        "add_eos": False,
        "voxel_grid": 32,
    }
    component = load_mix(write(tmp_path / "m.yaml", {"datasets": [entry]})).components[0]
    assert component.uniform_prob == 0.25
    assert (component.drop_ray_prob, component.force_missing_ray, component.add_eos) == (0.5, True, False)
    assert component.voxel(VoxelSettings(64, 2, 7)) == VoxelSettings(32, 2, 7)
    plain = load_mix(write(tmp_path / "m.yaml", {"datasets": [ENTRY]})).components[0]
    assert (plain.drop_ray_prob, plain.force_missing_ray, plain.add_eos) == (None, None, None)


@pytest.mark.parametrize(
    ("name", "views"),
    [
        ("shapenet_unpaired_mix", ["train_mesh:mesh", "train_pc:pointcloud_noray", "train_udf:udfgrid"]),
        ("shapenet_mesh_udf", ["train:mesh", "train:udfgrid"]),
        ("shapenet_mix", ["train:mesh", "train:udfgrid", "train:pointcloud_noray"]),
    ],
)
def test_documented_names_resolve_to_the_installed_mixes(
    name: str, views: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    mix = load_mix(f"nepa3d/configs/{name}.yaml")
    assert [f"{c.split}:{c.backend}" for c in mix.components] == views
    own = tmp_path / "nepa3d" / "configs" / f"{name}.yaml"
    own.parent.mkdir(parents=True)
    write(own, {"datasets": [ENTRY]})
    assert len(load_mix(f"nepa3d/configs/{name}.yaml").components) == 1


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ([], "expected a mapping"),
        ({"datasets": []}, "datasets must be a list"),
        ({"dataset": [ENTRY]}, "'dataset', did you mean datasets"),
        ({"datasets": [ENTRY], "mix_sed": 1}, "'mix_sed', did you mean mix_seed"),
        ({"datasets": [ENTRY], "mix_seed": "0"}, "mix_seed must be a count"),
        ({"datasets": [ENTRY], "mix_seed": 2**31}, "mix_seed must be a count of at least 0 and at most 2147483647"),
        ({"datasets": [ENTRY], "replacement": "no way"}, "replacement must be true or false"),
        ({"datasets": ["a"]}, r"datasets\[0\] must be a mapping"),
        (
            {"datasets": [ENTRY, {**ENTRY, "wieght": 2}]},
            r"datasets\[1\] has an unknown key 'wieght', did you mean weight",
        ),
        ({"datasets": [{**ENTRY, "split": 3}]}, r"datasets\[0\]: split must be text"),
        ({"datasets": [{"split": "train", "backend": "mesh"}]}, r"datasets\[0\] must give cache_root"),
        ({"datasets": [{**ENTRY, "backend": "mash"}]}, r"datasets\[0\]: backend must be one of mesh.*'mash'"),
        ({"datasets": [{**ENTRY, "weight": -1}]}, "weight must be a number of at least 0"),
        ({"datasets": [{**ENTRY, "weight": 0}]}, "at least one weight must be positive"),
        ({"datasets": [{**ENTRY, "weight": float("inf")}]}, "weight must be a number"),
        ({"datasets": [{**ENTRY, "uniform_prob": -1}]}, r"uniform_prob must be a number in \[0, 1\]"),
        ({"datasets": [{**ENTRY, "drop_ray_prob": 2}]}, r"drop_ray_prob must be a number in \[0, 1\]"),
        ({"datasets": [{**ENTRY, "add_eos": "yes please"}]}, "add_eos must be true or false"),
        ({"datasets": [{**ENTRY, "voxel_grid": 0}]}, "voxel_grid must be a count of at least 1"),
    ],
)
def test_what_is_wrong_in_a_mix_is_named(tmp_path: Path, content: Any, fault: str) -> None:
    path = write(tmp_path / "mix.yaml", content)
    with pytest.raises(ValueError, match=fault) as caught:
        load_mix(path)
    assert str(path) in str(caught.value)


def test_components_of_one_name_are_numbered(tmp_path: Path) -> None:
    """Losses are logged by name."""
    entries = [{**ENTRY, "name": name} for name in ("a", "b", "a")]
    entries += [{key: value for key, value in ENTRY.items() if key != "name"}]
    path = write(tmp_path / "mix.yaml", {"datasets": entries})
    assert [c.name for c in load_mix(path).components] == ["a#1", "b", "a#2", ENTRY["split"]]


def test_missing_and_unreadable_mixes_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere.yaml: there is no such file"):
        load_mix("nepa3d/configs/nowhere.yaml")
    (tmp_path / "m.yaml").write_text("datasets: [")
    with pytest.raises(ValueError, match=r"m.yaml: not readable as YAML"):
        load_mix(tmp_path / "m.yaml")
    (tmp_path / "m.yaml").write_text("datasets:\n- {cache_root: a, split: b, backend: mesh, weight: 1, weight: 2}")
    with pytest.raises(ValueError, match=r"m.yaml: not readable as YAML: weight is given twice .* line 2, column 55"):
        load_mix(tmp_path / "m.yaml")
    (tmp_path / "m.yaml").write_text("a: &a {split: b}\nc: {<<: *a, split: d}\ndatasets: []")  # a merge is no repeat
    with pytest.raises(ValueError, match="unknown key 'a'"):
        load_mix(tmp_path / "m.yaml")
