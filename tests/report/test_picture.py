"""The picture: which shapes it draws, how it reads loss logs, and that it is written whole."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from nepa3d.report import panels
from nepa3d.report.picture import Config as PictureConfig
from nepa3d.report.picture import choose_shapes, main, read_losses


def write_log(folder: Path, records: list[object]) -> str:
    folder.mkdir(parents=True)
    (folder / "loss.jsonl").write_text("".join(f"{json.dumps(record)}\n" for record in records))
    return str(folder)


def test_png_with_every_panel(golden: Path, tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    run = write_log(tmp_path / "run_a", [{"step": i, "epoch": 0, "loss": 1 / (i + 1)} for i in range(9)])
    evals = json.loads((golden / "evals.json").read_text())
    results = []
    for tag in ("ucpr|nepa_v1|mesh|udfgrid|", "cpac|nepa_v1|--head_train_split none --head_train_ratio 0.4"):
        results.append(tmp_path / f"{tag[:4]}.json")
        results[-1].write_text(json.dumps(evals[tag]["out"]))
    out = tmp_path / "out" / "picture.png"
    flags = ["--cache_root", "unpaired", "--n_shapes", "1", "--runs", run, "--out_png", str(out)]
    assert main([*flags, "--results", *map(str, results)]) == 0
    with image.open(out) as png:
        pixels = np.asarray(png.convert("L"))
    assert pixels.shape[1] == 2400
    thirds = np.array_split(pixels, 3, axis=0)
    assert all((part < 128).mean() > 0.005 for part in thirds)  # ink in the shapes and in the charts


def test_one_shape_a_class_evenly_chosen(golden: Path) -> None:
    base = PictureConfig(cache_root="unpaired", out_png="x.png")
    chosen = [Path(path).parent.name for path in choose_shapes(base)]
    assert len(set(chosen)) == 3 and chosen == sorted(chosen)
    many = PictureConfig(cache_root="unpaired", out_png="x.png", n_shapes=99)
    assert len(choose_shapes(many)) == 4
    named = PictureConfig(cache_root="unpaired", out_png="x.png", shapes=("kitchen/none",))
    with pytest.raises(ValueError, match=r"kitchen/none\.npz"):
        choose_shapes(named)
    with pytest.raises(ValueError, match="nowhere"):
        choose_shapes(PictureConfig(cache_root="nowhere", out_png="x.png"))


def test_losses_logged_twice_count_once(tmp_path: Path) -> None:
    log = [{"step": s, "epoch": 0, "loss": float(10 * r + s)} for r, s in ((0, 0), (0, 1), (0, 2), (1, 1))]
    steps, losses = read_losses(write_log(tmp_path / "run", log))
    assert steps.tolist() == [0, 1, 2]
    assert losses.tolist() == [0.0, 11.0, 2.0]


def test_bad_logs_are_named_with_their_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"loss\.jsonl"):
        read_losses(str(tmp_path))
    with pytest.raises(ValueError, match=r"loss\.jsonl:2"):
        read_losses(write_log(tmp_path / "a", [{"step": 0, "loss": 1.0}, {"step": 1}]))


def test_running_mean_skips_what_is_not_finite() -> None:
    mean = panels.running_mean(np.array([1.0, 3.0, np.nan, 5.0]), 2)
    assert mean.tolist() == [1.0, 2.0, 3.0, 5.0]
    assert panels.shortened("abcdefghij", 5) == "ab…ij"


def test_projection_keeps_up_upright() -> None:
    for up, high in (("y", [0.0, 1.0, 0.0]), ("z", [0.0, 0.0, 1.0])):
        position, _ = panels.project(np.array([high]), up)
        assert position[0, 0] == pytest.approx(0.0)
        assert position[0, 1] > 0.9
