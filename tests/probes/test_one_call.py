"""Probes as one call, and the torch Dataset."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import nepa3d
from nepa3d.analysis import completion_cpac_udf as cpac
from nepa3d.analysis import retrieval_ucpr as ucpr
from nepa3d.cli.flags import build
from nepa3d.models.encoder import draw_samples
from nepa3d.probes import classification, completion, retrieval
from nepa3d.probes.classification import ClassificationSettings
from nepa3d.probes.completion import CompletionSettings
from nepa3d.probes.distance_errors import DistanceErrors
from nepa3d.probes.distance_head import Reading
from nepa3d.probes.embedding import EmbeddingSettings
from nepa3d.probes.result import Result
from nepa3d.probes.retrieval import RETRIEVAL, RetrievalSettings
from nepa3d.probes.search import Search
from nepa3d.probes.surfaces import SurfaceSettings
from nepa3d.samples.dataset import SampleSettings, training_sample
from nepa3d.samples.loader import Request, evaluation_samples
from nepa3d.samples.torch_dataset import ShapeDataset
from nepa3d.shapes.query_pools import PoolSettings

CKPT = "nepa_qa.pt"


@pytest.fixture
def encoder(golden: Path) -> nepa3d.Encoder:
    return nepa3d.load(CKPT, device="cpu")


def shapes(split: str = "eval") -> list[str]:
    return sorted(f"{path}" for path in Path("unpaired", split).rglob("*.npz"))


def test_retrieval_is_the_commands(encoder: nepa3d.Encoder, capsys: pytest.CaptureFixture[str]) -> None:
    found = retrieval.run(encoder, shapes())
    assert capsys.readouterr() == ("", "")
    views = {"query_backend": "mesh", "gallery_backend": "udfgrid", "eval_seed_gallery": 999, "device": "cpu"}
    command = ucpr.retrieve(build(ucpr.Config, {"cache_root": "unpaired", "ckpt": CKPT, **views}))
    for name in ("r@1", "r@5", "r@10", "mAP", "mean_rank", "median_rank"):
        assert found.figures[name] == pytest.approx(command.figures[name])
        for control in ("raw_distances", "chance"):
            assert control_of(found, control)[name] == pytest.approx(control_of(command, control)[name])
    low, high = found.intervals["mAP"]
    assert low <= found.figures["mAP"] <= high
    assert "plain distances" in retrieval.text(found)
    assert found.to_json()["n_files"] == len(shapes())
    in_memory = retrieval.run(encoder, [nepa3d.Shape.from_cache(path) for path in shapes()])
    assert in_memory.figures == pytest.approx(found.figures)
    with pytest.raises(ValueError, match="gallery_seed must differ from query_seed, got 3 for both"):
        retrieval.run(encoder, shapes(), RetrievalSettings(query_seed=3, gallery_seed=3))
    with pytest.raises(ValueError, match="shapes must be at least 2, got 1"):
        retrieval.run(encoder, shapes()[:1])


def control_of(result: Result, name: str) -> dict[str, Any]:
    """The figures of a control that was measured."""
    found = result.controls[name]
    assert found is not None
    return found


@pytest.mark.parametrize("kept", ["cache", "memory"])
def test_retrieval_reads_each_shape_once_a_view(
    kept: str, encoder: nepa3d.Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model and the plain distances are of the same samples."""
    read: list[tuple[str, str]] = []

    def of_files(requests: Sequence[Request], *more: int, threads: int) -> Any:
        read.extend((request.path, request.backend) for request in requests)
        return evaluation_samples(requests, *more, threads=threads)

    def of_memory(shape: nepa3d.Shape, name: str, *more: Any) -> Any:
        read.append((shape.name, name))
        return view(shape, name, *more)

    view = nepa3d.Shape.view
    monkeypatch.setattr("nepa3d.models.encoder.evaluation_samples", of_files)
    monkeypatch.setattr(nepa3d.Shape, "view", of_memory)
    own = shapes() if kept == "cache" else [nepa3d.Shape.from_cache(path) for path in shapes()]
    retrieval.run(encoder, own)
    assert sorted(read) == sorted((path, name) for path in shapes() for name in ("mesh", "udfgrid"))


def test_a_shape_that_cannot_be_read_is_named(encoder: nepa3d.Encoder, tmp_path: Path) -> None:
    broken = tmp_path / "broken.npz"
    broken.write_bytes(b"no archive")
    with pytest.raises(ValueError, match=r"shapes: .*broken\.npz: mesh: "):
        retrieval.run(encoder, [*shapes(), broken])
    with pytest.raises(ValueError, match=r"shapes: .*broken\.npz: "):
        completion.run(encoder, [*shapes(), broken])


@pytest.mark.parametrize("batch", [1, 64])
def test_a_batch_that_cannot_be_read_stops_no_other(batch: int, encoder: nepa3d.Encoder, tmp_path: Path) -> None:
    broken = tmp_path / "broken.npz"
    broken.write_bytes(b"no archive")
    settings = RetrievalSettings(embedding=EmbeddingSettings(batch=batch))
    found = retrieval.retrieve(encoder.probe, [f"{broken}", *shapes()], settings, progress=False)
    assert list(found.failed) == [f"{broken}"]
    assert found.figures == pytest.approx(retrieval.run(encoder, shapes()).figures)


def test_the_first_of_shapes_none_of_which_can_be_read_is_named(encoder: nepa3d.Encoder, tmp_path: Path) -> None:
    broken = [tmp_path / f"{number}.npz" for number in range(3)]
    for path in broken:
        path.write_bytes(b"no archive")
    with pytest.raises(ValueError, match=r"none of 3 shapes could be read; first: .*/0\.npz: mesh: \w+"):
        retrieval.run(encoder, broken)
    with pytest.raises(ValueError, match=r"none of 4 shapes could be read; first: .*/0\.npz: pointcloud_noray: \w+"):
        classification.run(encoder, [broken[0]] * 3, [0, 0, 1], broken[2:], [0], classifiers=("knn",))
    with pytest.raises(ValueError, match=r"no shape to complete could be read; first: .*/0\.npz: \w+"):
        completion.run(encoder, broken)


def test_views_none_of_whose_shapes_can_be_read_together(
    encoder: nepa3d.Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One view of a shape, and the other view of another."""
    first, second = shapes()[:2]

    def draw(asked: Sequence[str], view: str, *more: Any, **named: Any) -> Any:
        features, types, _ = draw_samples(asked, view, *more, **named)
        return features, types, [(0, "torn") if view == "mesh" else (1, "worn")]

    monkeypatch.setattr("nepa3d.probes.embedding.draw_samples", draw)
    with pytest.raises(ValueError, match=rf"none of 2 shapes could be read; first: {first}: mesh: torn"):
        retrieval.run(encoder, [first, second])


@pytest.mark.parametrize("alone", ["folder", Path("folder")])
def test_a_folder_is_no_list_of_shapes(alone: Any, encoder: nepa3d.Encoder) -> None:
    message = r"must be a list of shapes, got .*'folder'\)? alone; the cache files of a folder are sorted\("
    with pytest.raises(ValueError, match=f"^shapes {message}"):
        retrieval.run(encoder, alone)
    with pytest.raises(ValueError, match=f"^shapes {message}"):
        completion.run(encoder, alone)
    with pytest.raises(ValueError, match=f"^train {message}"):
        classification.run(encoder, alone, [0], shapes(), [0])
    with pytest.raises(ValueError, match=f"^test {message}"):
        classification.run(encoder, shapes(), [0] * len(shapes()), alone, [0])
    with pytest.raises(ValueError, match=f"^gallery {message}"):
        Search(shapes(), shapes(), alone, ["folder"])
    with pytest.raises(ValueError, match=r"^shapes must be a list of shapes, got Shape\("):
        retrieval.run(encoder, nepa3d.Shape.from_cache(shapes()[0]))  # type: ignore[arg-type]


def test_an_array_is_no_shape_of_a_probe(encoder: nepa3d.Encoder) -> None:
    with pytest.raises(ValueError, match="expected a shape, which is a Shape or a path, got ndarray"):
        retrieval.run(encoder, [np.zeros((10, 3)), shapes()[0]])  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("settings", "given", "message"),
    [
        (RetrievalSettings, {"query_view": "photo"}, "query_view must be one of mesh, .*, got 'photo'"),
        (RetrievalSettings, {"rank_rule": "kind"}, "rank_rule must be one of expected, strict, got 'kind'"),
        (RetrievalSettings, {"n_seeds": 0}, "n_seeds must be at least 1, got 0"),
        (CompletionSettings, {"tau": -1.0}, "tau must be positive, got -1.0"),
        (CompletionSettings, {"ridge_lambda": float("nan")}, "ridge_lambda must be positive, got nan"),
        (CompletionSettings, {"n_seeds": 0}, "n_seeds must be at least 1, got 0"),
        (ClassificationSettings, {"view": "photo"}, "view must be one of mesh, .*, got 'photo'"),
        (ClassificationSettings, {"n_seeds": -1}, "n_seeds must be at least 1, got -1"),
        (SurfaceSettings, {"level": 0.0}, "level must be positive, got 0.0"),
        (SurfaceSettings, {"resolution": 1}, "resolution must be at least 4, got 1"),
        (Reading, {"batch": 0}, "batch must be at least 1, got 0"),
        (Reading, {"representation": "zhat"}, "representation must be one of h, z_hat, got 'zhat'"),
        (EmbeddingSettings, {"pooling": "cls"}, "pooling must be one of eos, .*, got 'cls'"),
        (EmbeddingSettings, {"questions": "cube"}, "questions must be one of pool, uniform, got 'cube'"),
        (PoolSettings, {"pt_dist_mode": "Mesh"}, "pt_dist_mode must be one of mesh, kdtree, got 'Mesh'"),
    ],
)
def test_settings_that_no_probe_can_mean(settings: type, given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        settings(**given)


@pytest.mark.parametrize(
    ("config", "given", "message"),
    [
        (ucpr.Config, {"query_backend": "photo"}, "query_backend must be one of"),
        (ucpr.Config, {"n_seeds": 0}, "n_seeds must be at least 1"),
        (ucpr.Config, {"mc_k": 0}, "mc_k must be at least 1"),
        (cpac.Config, {"tau": -1.0}, "tau must be positive"),
        (cpac.Config, {"head_train_ratio": 2.0}, r"head_train_ratio must lie in \(0, 1\), got 2"),
    ],
)
def test_a_command_refuses_where_it_is_planned(config: type, given: dict[str, Any], message: str) -> None:
    """Not hours later, where the job's turn comes."""
    views = {"query_backend": "mesh", "gallery_backend": "mesh"} if config is ucpr.Config else {}
    with pytest.raises(ValueError, match=message):
        build(config, {"cache_root": "unpaired", "ckpt": CKPT, **views, **given})


def test_completion(encoder: nepa3d.Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder.fit_distance_head(shapes("train_udf"), view="udfgrid")
    found = completion.run(encoder, shapes())
    assert set(found.figures) == {"mae", "rmse", "iou@tau"}
    assert found.figures["mae"] <= found.figures["rmse"]
    assert set(found.controls) == {"nearest_copy", "spline"}
    assert found.intervals["mae"][0] <= found.figures["mae"] <= found.intervals["mae"][1]
    assert completion.run(encoder, shapes()) == found
    assert "copy of the nearest context point" in completion.text(found)
    in_memory = completion.run(encoder, [nepa3d.Shape.from_cache(path) for path in shapes()])
    assert in_memory.figures == pytest.approx(found.figures)
    seeds = CompletionSettings(n_seeds=2, reading=Reading(batch=5, progress=False))
    assert completion.run(encoder, shapes(), seeds).by_seed[0] == pytest.approx(found.figures)
    with pytest.raises(ValueError, match="representation: the encoder's head reads h, got z_hat"):
        completion.run(encoder, shapes(), CompletionSettings(reading=Reading(representation="z_hat")))
    monkeypatch.setattr(completion, "DistanceErrors", lambda tau: DistanceErrors(-10))
    nowhere = completion.run(encoder, shapes())
    assert nowhere.figures["iou@tau"] is None, "no point is this near, and none is predicted to be"
    assert set(nowhere.intervals) == {"mae", "rmse"}
    assert "n/a" in completion.text(nowhere)
    with pytest.raises(ValueError, match="shapes must not be empty"):
        completion.run(encoder, [])


def test_classification(encoder: nepa3d.Encoder) -> None:
    train = [path for split in ("train_mesh", "train_pc", "train_udf") for path in shapes(split)]
    names = sorted({Path(path).parent.name for path in train})
    labels = {
        split: [names.index(Path(path).parent.name) for path in paths]
        for split, paths in (("train", train), ("test", shapes()))
    }
    few: dict[str, Any] = {"classifiers": ("knn",), "val_ratio": 0.3}
    found = classification.run(encoder, train, labels["train"], shapes(), labels["test"], **few)
    assert 0 <= found.figures["knn"]["accuracy"] <= 1
    assert [name for name, control in found.controls.items() if control] == ["raw_distances", "majority", "chance"]
    assert "plain distances, no model, knn" in classification.text(found)
    leaked = classification.run(encoder, train, labels["train"], train, labels["train"], **few)
    assert leaked.figures["knn"]["accuracy"] >= control_of(found, "majority")["accuracy"]
    settings = ClassificationSettings(view="mesh", n_seeds=2)
    several = classification.run(encoder, train, labels["train"], shapes(), labels["test"], settings, **few)
    assert len(several.figures["knn"]["by_seed"]) == 2 and several.settings["backend"] == "mesh"
    assert control_of(several, "random_init")["knn"]["by_seed"]
    for wrong in ([0], [0.5] * len(train)):
        with pytest.raises(ValueError, match=r"train_labels must be a whole number for each of the \d+ shapes, got"):
            classification.run(encoder, train, wrong, shapes(), labels["test"])
    far_apart = {split: np.where(np.asarray(own) == 0, -40, 99) for split, own in labels.items()}
    twice = classification.run(encoder, train, far_apart["train"], shapes(), far_apart["test"], **few)
    assert twice.settings["classes"] == ["-40", "99"]
    assert control_of(twice, "chance")["accuracy"] == 0.5
    with pytest.raises(ValueError, match="classifier must be one of knn, logistic, svm, got 'forest'"):
        classification.run(encoder, train, labels["train"], shapes(), labels["test"], classifiers=("forest",))


def test_views_that_share_their_distances_are_told(encoder: nepa3d.Encoder) -> None:
    """A shape without the grid's distances answers with the mesh's instead."""
    own = retrieval.run(encoder, shapes())
    assert own.settings["query_distances"] == "pt_dist_pool"
    assert own.settings["gallery_distances"] == "pt_dist_udf_pool"
    lacking = []
    for path in shapes():
        shape = nepa3d.Shape.from_cache(path)
        lacking.append(nepa3d.Shape({key: shape[key] for key in shape if key != "pt_dist_udf_pool"}, path))
    found = retrieval.run(encoder, lacking)
    assert found.settings["gallery_distances"] == "pt_dist_pool"
    doubt = "both views answer with pt_dist_pool of the cache"
    assert any(doubt in said for said in RETRIEVAL.doubts(found))
    assert not any(doubt in said for said in RETRIEVAL.doubts(own))


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


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on one core
def test_workers_that_live_on_draw_another_epoch(golden: Path) -> None:
    data = ShapeDataset("unpaired", "train_mesh", "mesh", SampleSettings(16, 8, qa=True, eos=True), seed=7)
    loader = DataLoader(data, batch_size=len(data), num_workers=1, persistent_workers=True)
    found = []
    for epoch in range(2):
        data.set_epoch(epoch)
        found += [features for features, _ in loader]
        assert data.epoch == epoch
        np.testing.assert_array_equal(found[-1][1], data[1][0])
    assert len(found) == 2 and not torch.equal(*found)
