"""Probes as one call, and the torch Dataset."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import nepa3d
from nepa3d import probes
from nepa3d.analysis import retrieval_ucpr as ucpr
from nepa3d.samples.dataset import SampleSettings, training_sample
from nepa3d.samples.torch_dataset import ShapeDataset

CKPT = "nepa_qa.pt"


@pytest.fixture
def encoder(golden: Path) -> nepa3d.Encoder:
    return nepa3d.load(CKPT, device="cpu")


def shapes(split: str = "eval") -> list[str]:
    return sorted(f"{path}" for path in Path("unpaired", split).rglob("*.npz"))


def test_retrieval_is_the_commands(encoder: nepa3d.Encoder, capsys: pytest.CaptureFixture[str]) -> None:
    found = probes.retrieval(encoder, shapes())
    assert capsys.readouterr() == ("", "")
    command = ucpr.retrieve(ucpr.Config("unpaired", CKPT, "mesh", "udfgrid", eval_seed_gallery=999, device="cpu"))
    for name in ("r@1", "r@5", "r@10", "mAP", "mean_rank", "median_rank"):
        assert found.figures[name] == pytest.approx(command[name])
        assert found.controls["plain distances"][name] == pytest.approx(command["raw_distances"][name])
        assert found.controls["chance"][name] == pytest.approx(command["chance"][name])
    low, high = found.intervals["mAP"]
    assert low <= found.figures["mAP"] <= high
    assert "plain distances" in found.table()
    assert found.to_json()["settings"]["n_shapes"] == len(shapes())
    in_memory = probes.retrieval(encoder, [nepa3d.Shape.from_cache(path) for path in shapes()])
    assert in_memory.figures == pytest.approx(found.figures)
    with pytest.raises(ValueError, match="gallery_seed must differ from seed, got 3 for both"):
        probes.retrieval(encoder, shapes(), seed=3, gallery_seed=3)
    with pytest.raises(ValueError, match="shapes must be at least 2, got 1"):
        probes.retrieval(encoder, shapes()[:1])


def test_completion(encoder: nepa3d.Encoder) -> None:
    encoder.fit_distance_head(shapes("train_udf"), view="udfgrid")
    found = probes.completion(encoder, shapes())
    assert set(found.figures) == {"mae", "rmse", "iou@tau"}
    assert found.figures["mae"] <= found.figures["rmse"]
    assert set(found.controls) == {"nearest copy"}
    assert found.intervals["mae"][0] <= found.figures["mae"] <= found.intervals["mae"][1]
    assert probes.completion(encoder, shapes()) == found
    with pytest.raises(ValueError, match="shapes must not be empty"):
        probes.completion(encoder, [])


def test_classification(encoder: nepa3d.Encoder) -> None:
    train = [path for split in ("train_mesh", "train_pc", "train_udf") for path in shapes(split)]
    names = sorted({Path(path).parent.name for path in train})
    labels = {
        split: [names.index(Path(path).parent.name) for path in paths]
        for split, paths in (("train", train), ("test", shapes()))
    }
    found = probes.classification(
        encoder, train, labels["train"], shapes(), labels["test"], classifier="knn", val_ratio=0.3
    )
    assert 0 <= found.figures["accuracy"] <= 1
    assert set(found.controls) == {"commonest class", "plain distances"}
    leaked = probes.classification(
        encoder, train, labels["train"], train, labels["train"], classifier="knn", val_ratio=0.3
    )
    assert leaked.figures["accuracy"] >= found.controls["commonest class"]["accuracy"]
    with pytest.raises(ValueError, match=r"train_labels must have a label for each of the \d+ shapes, got \(1,\)"):
        probes.classification(encoder, train, [0], shapes(), labels["test"])
    with pytest.raises(ValueError, match="classifier must be one of knn, logistic, svm, got 'forest'"):
        probes.classification(encoder, train, labels["train"], shapes(), labels["test"], classifier="forest")


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on one core
@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_dataset_gives_the_loops_samples(golden: Path, num_workers: int) -> None:
    settings = SampleSettings(16, 8, qa=True, eos=True)
    data = ShapeDataset("unpaired", "train_mesh", "mesh", settings, seed=7)
    data.set_epoch(3)
    batches = list(DataLoader(data, batch_size=4, num_workers=num_workers))
    features, types = torch.cat([batch[0] for batch in batches]), torch.cat([batch[1] for batch in batches])
    for index, path in enumerate(data.paths):
        expected, expected_types = training_sample(path, "mesh", settings, 7, 3, index)
        np.testing.assert_array_equal(features[index], expected)
        np.testing.assert_array_equal(types[index], expected_types)
    one, _ = data[2]
    assert torch.equal(one, features[2])
    with pytest.raises(IndexError, match="index must be from 0 to"):
        data[len(data)]
    with pytest.raises(ValueError, match="view must be one of"):
        ShapeDataset("unpaired", "train_mesh", "sdf")
