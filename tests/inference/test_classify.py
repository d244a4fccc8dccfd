"""A fine-tuned classifier is used as it was tested, on caches and on files; a damaged file costs only itself."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh

import nepa3d
from nepa3d import cli
from nepa3d.cli import flags
from nepa3d.inference import classify
from nepa3d.inference.batches import of_each
from nepa3d.models.checkpoint import read_tensors, write_tensors
from nepa3d.shapes.cache import CacheError
from nepa3d.train import finetune_cls
from tests.commands import errors, status_of
from tests.inference.small import PARTS, checkpoint

TRAINING = {"cache_root": "cache", "epochs": 1, "batch": 8, "num_workers": 0, "val_ratio": 0.25, "mc_eval_k_test": 3}


@pytest.fixture
def runs(golden: Path, tmp_path: Path) -> Path:
    """A classifier on the document's model, and one whose every part differs from the default."""
    checkpoint(tmp_path / "small.pt", wrong=0.1)
    own = {"readout": "mean", "standardize": 1, "eval_seed": 5}
    for name, given in {"plain": {"ckpt": "nepa_v1.pt"}, "parts": {"ckpt": f"{tmp_path / 'small.pt'}", **own}}.items():
        finetune_cls.finetune(flags.build(finetune_cls.Config, {**TRAINING, **given, "save_dir": f"{tmp_path / name}"}))
    return tmp_path


@pytest.mark.parametrize("name", ["plain", "parts"])
def test_shapes_of_the_test_split_are_classified_as_in_the_test(
    name: str, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, picture = runs / "out.json", runs / "out.png"
    command = [
        "cache",
        "--split",
        "test",
        "--ckpt",
        f"{runs / name}",
        "--out_json",
        f"{out}",
        "--picture",
        f"{picture}",
    ]
    assert classify.main([*command, "--batch", "5"]) == cli.EXIT_OK
    tested = json.loads((runs / name / "result.json").read_text())
    said = json.loads(out.read_text())
    assert said["scores"]["confusion"] == tested["confusion"]
    assert f"accuracy {tested['test_acc']:.4f}, balanced {tested['test_balanced_acc']:.4f}" in capsys.readouterr().out
    assert said["classes"] == tested["classes"] and said["draws"] == 3 and said["seed"] == (5 if name == "parts" else 0)
    for shape in said["shapes"]:
        assert sum(shape["probabilities"]) == pytest.approx(1)
        assert shape["class"] == said["classes"][int(np.argmax(shape["probabilities"]))]
        assert shape["label"] == Path(shape["file"]).parent.name
    assert picture.stat().st_size > 10_000
    classifier = nepa3d.load_classifier(runs / name / "last.pt", device="cpu")
    files = [shape["file"] for shape in said["shapes"]]
    again = classifier.probabilities(files)  # by the compiled loader
    np.testing.assert_allclose(again, [shape["probabilities"] for shape in said["shapes"]], atol=1e-6)
    parts = PARTS if name == "parts" else type(PARTS)()
    assert flags.spellings(classifier.model.backbone.architecture) == flags.spellings(parts)


def test_files_of_every_kind_and_one_that_is_damaged(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "mine"
    classes = nepa3d.load_classifier(runs / "plain", device="cpu").classes
    (folder / classes[0]).mkdir(parents=True)
    box = trimesh.creation.box((1, 2, 3))
    box.export(folder / "box.obj")
    np.savetxt(folder / classes[0] / "scan.xyz", box.sample(300, seed=1))
    shutil.copy(next(Path("cache/test").rglob("*.npz")), folder / "cached.npz")
    (folder / "broken.obj").write_text("v 1 2 3\nf 1 2 9\n")
    out = tmp_path / "out.json"
    command = ["--ckpt", f"{runs / 'plain'}", "--view", "mesh", "--draws", "1", "--out_json", f"{out}"]
    assert classify.main([f"{folder}", *command]) == cli.EXIT_SOME_FAILED
    said = capsys.readouterr()
    assert "broken.obj: index_out_of_range" in said.err and "(1 shapes of known class)" in said.out
    found = json.loads(out.read_text())
    names = {Path(shape["file"]).name: shape["label"] for shape in found["shapes"]}
    assert names == {"box.obj": "", "cached.npz": "", "scan.xyz": classes[0]}
    assert [*found["failed"]] == [f"{folder / 'broken.obj'}"] and (found["view"], found["draws"]) == ("mesh", 1)
    alone = nepa3d.load_classifier(runs / "plain", device="cpu").probabilities(
        nepa3d.Shape.from_mesh(folder / "box.obj", key=f"{folder / 'box.obj'}"), "pointcloud_noray"
    )
    assert alone.shape == (1, len(classes)) and alone.sum() == pytest.approx(1)
    assert classify.main([f"{folder / 'box.obj'}", *command]) == cli.EXIT_OK
    assert "known class" not in capsys.readouterr().out


def test_what_is_no_classifier_or_no_shape(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def said(argv: list[str]) -> str:
        assert status_of(classify.main, argv) == cli.EXIT_USAGE
        return errors(capsys)

    ckpt = f"{runs / 'plain'}"
    assert "there is none" in said(["x.ply", "--ckpt", f"{tmp_path / 'nothing'}"])
    assert "nepa_v1.pt: is not a classifier" in said(["x.ply", "--ckpt", "nepa_v1.pt"])
    best = said(["x.ply", "--ckpt", f"{runs / 'plain' / 'best.pt'}"])
    assert "best.pt: lacks classes: give the last.pt" in best
    assert "got none" in said(["--ckpt", ckpt])
    assert "expected files of shapes" in said(["x.ply", "--ckpt", ckpt])
    assert "draws must be at least 1, got 0" in said(["x.ply", "--ckpt", ckpt, "--draws", "0"])
    assert "root of a cache" in said(["a", "b", "--split", "test", "--ckpt", ckpt])
    (tmp_path / "empty.xyz").write_text("")
    assert "none of 1 files could be used" in said([f"{tmp_path / 'empty.xyz'}", "--ckpt", ckpt])
    content = read_tensors(runs / "plain" / "last.pt")
    content["model"]["head.bias"] = torch.zeros(99)
    write_tensors(tmp_path / "other.pt", content)
    assert "other.pt: does not fit" in said(["x.ply", "--ckpt", f"{tmp_path / 'other.pt'}"])
    assert status_of(finetune_cls.main, ["--cache_root", "cache", "--save_dir", "x", "--ckpt", ckpt]) == cli.EXIT_USAGE


def test_of_each_tries_them_one_by_one() -> None:
    def halves(numbers: list[int]) -> np.ndarray:
        if any(number % 2 for number in numbers):
            raise CacheError("a.npz", f"odd: {numbers}")
        return np.array(numbers)[:, None] / 2

    assert of_each(halves, []) == []
    assert np.array_equal(of_each(halves, [2, 4]), [[1], [2]])
    two, three, four = of_each(halves, [2, 3, 4])
    assert isinstance(three, CacheError) and (two, three.fault, four) == ([1], "odd: [3]", [2])
    with pytest.raises(ZeroDivisionError):  # what is no fault of a shape
        of_each(lambda numbers: numbers[0] / 0, [1, 2])
