"""Scans to caches: layout, content, provenance, and h5 files of every wrong kind."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from nepa3d import cli, ops
from nepa3d.corpora.objects import objects_of
from nepa3d.corpora.shape_list import list_shapes
from nepa3d.data import preprocess_scanobjectnn
from nepa3d.data.preprocess_scanobjectnn import split_of
from nepa3d.samples.dataset import SampleSettings
from nepa3d.samples.loader import Request, training_batch
from nepa3d.shapes.cache import CacheError
from nepa3d.shapes.views import BACKENDS, view_row
from tests.data.corpus import cache_bytes

FLAGS = ["--pt_pool", "200", "--ray_pool", "16", "--workers", "1"]


def clouds(count: int, points: int = 50, seed: int = 0) -> np.ndarray:
    return np.random.RandomState(seed).normal(3, 2, (count, points, 3)).astype(np.float32)


def write_scans(path: Path, **datasets: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for name, values in datasets.items():
            file[name] = values
    return path


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """Four training and two test scans of three classes."""
    root = tmp_path / "main_split"
    write_scans(root / "training_objectdataset.h5", data=clouds(4), label=np.array([0, 2, 2, 14], np.uint8))
    write_scans(root / "test_objectdataset.h5", data=clouds(2, seed=1), label=np.array([2, 0], np.int64))
    return root


def run(scans: Path, out: Path, *flags: str) -> int:
    return preprocess_scanobjectnn.main(["--scan_root", f"{scans}", "--out_root", f"{out}", *FLAGS, *flags])


def test_layout_and_provenance(scans: Path, tmp_path: Path) -> None:
    out = tmp_path / "cache"
    assert run(scans, out) == cli.EXIT_OK
    found = sorted(f"{path.relative_to(out)}" for path in out.glob("*/*/*.npz"))
    assert found == [
        "test/class_000/test_objectdataset_000001.npz",
        "test/class_002/test_objectdataset_000000.npz",
        "train/class_000/training_objectdataset_000000.npz",
        "train/class_002/training_objectdataset_000001.npz",
        "train/class_002/training_objectdataset_000002.npz",
        "train/class_014/training_objectdataset_000003.npz",
    ]
    lines = (out / "_meta" / "scanobjectnn_train_source.txt").read_text().splitlines()
    assert lines == [
        f"scan_root={scans}",
        "split=train",
        "seed=0",
        "pt_pool=200",
        "ray_pool=16",
        "pt_surface_ratio=0.5",
        "pt_surface_sigma=0.02",
        "variant=plain",
        "h5_folder=main_split",
        "h5_count=1",
        f"{scans / 'training_objectdataset.h5'}",
    ]


def test_the_objects_of_scans_are_kept(scans: Path, tmp_path: Path) -> None:
    names = [b"chair/a", b"chair/b", b"chair/b", b"lamp/\xc3\xa4"]
    with h5py.File(scans / "training_objectdataset.h5", "a") as file:
        file["object"] = np.array(names, h5py.string_dtype())
    write_scans(scans / "more_train.h5", data=clouds(1, seed=4), label=np.array([0]))
    assert run(scans, tmp_path / "cache") == cli.EXIT_OK
    assert not (tmp_path / "cache" / "_meta" / "objects_test.json").exists()
    paths = list_shapes(tmp_path / "cache", "train")
    found = objects_of(tmp_path / "cache", "train", paths)
    assert found == ["class_000/more_train_000000", "chair/a", "chair/b", "chair/b", "lamp/ä"]


def test_wrong_objects_are_named_before_anything_is_written(
    scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with h5py.File(scans / "training_objectdataset.h5", "a") as file:
        file["object"] = np.arange(4)
    assert run(scans, tmp_path / "cache") == cli.EXIT_USAGE
    assert "training_objectdataset.h5: object must have 4 names" in capsys.readouterr().err
    assert not list((tmp_path / "cache").glob("*/*/*.npz"))


def test_content_of_a_cache_file(scans: Path, tmp_path: Path) -> None:
    assert run(scans, tmp_path / "cache") == cli.EXIT_OK
    path = tmp_path / "cache" / "train" / "class_002" / "training_objectdataset_000002.npz"
    with np.load(path) as file:
        arrays = {key: file[key] for key in file.files}
    raw = clouds(4)[2].astype(np.float64)
    centred = raw - raw.mean(0)
    np.testing.assert_allclose(arrays["pc_xyz"], centred / np.linalg.norm(centred, axis=1).max(), atol=1e-6)
    queries = arrays["pt_xyz_pool"]
    assert queries.shape == (200, 3)
    assert np.abs(queries).max() <= 1
    distance = ops.reference.nearest_distance(arrays["pc_xyz"], queries).distance
    np.testing.assert_allclose(arrays["pt_dist_pool"], distance, atol=1e-6)
    np.testing.assert_array_equal(arrays["pt_dist_pc_pool"], arrays["pt_dist_pool"])
    assert np.median(distance[100:]) < 0.1 < np.median(distance[:100])
    for key, shape in (("ray_o_pool", (16, 3)), ("ray_t_pool", (16,)), ("ray_hit_pool", (16,)), ("pc_n", (50, 3))):
        assert arrays[key].shape == shape
        assert not arrays[key].any()


def test_every_view_of_a_scan_becomes_tokens(scans: Path, tmp_path: Path) -> None:
    assert run(scans, tmp_path / "cache") == cli.EXIT_OK
    paths = list_shapes(tmp_path / "cache", "train")
    for backend in BACKENDS:
        for n_ray in (0, 5):
            settings = SampleSettings(n_point=12, n_ray=n_ray, qa=True, eos=True)
            requests = [Request(path, backend, settings) for path in paths]
            if n_ray and (view_row(backend).rays or view_row(backend).voxels):  # it has none
                with pytest.raises(CacheError, match="choose pointcloud_noray, or n_ray 0"):
                    training_batch(requests, 0, 0, range(4))
            else:
                features, _ = training_batch(requests, 0, 0, range(4))
                assert features[:, 2:25:2, 10].any(), backend


def test_workers_do_not_change_the_files_and_what_exists_is_skipped(scans: Path, tmp_path: Path) -> None:
    assert run(scans, tmp_path / "a") == cli.EXIT_OK
    assert run(scans, tmp_path / "b", "--workers", "2", "--chunk_size", "1", "--split", "test") == cli.EXIT_OK
    assert run(scans, tmp_path / "b", "--workers", "2", "--chunk_size", "1") == cli.EXIT_OK
    assert cache_bytes(tmp_path / "b") == cache_bytes(tmp_path / "a")
    report = json.loads((tmp_path / "b" / "_meta" / "preprocess_all.json").read_text())
    assert report["counts"] == {"skipped": 2, "ok": 4}


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("training_objectdataset.h5", "train"),
        ("Test_Set.h5", "test"),
        ("TRAIN/part.h5", "train"),
        ("test/train_0.h5", "train"),
        ("train/test_0.h5", "test"),
        ("test/train_test.h5", "test"),
        ("other/part.h5", None),
        ("train/other/part.h5", None),
    ],
)
def test_names_tell_the_split(name: str, split: str | None) -> None:
    assert split_of(Path("root") / name) == split


def test_two_files_of_one_name_stop_before_anything_is_written(
    scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    twin = write_scans(scans / "more" / "training_objectdataset.h5", data=clouds(1, seed=3), label=np.array([0]))
    assert run(scans, tmp_path / "cache") == cli.EXIT_USAGE
    error = capsys.readouterr().err
    assert f"{twin}" in error
    assert f"{scans / 'training_objectdataset.h5'}" in error
    assert not (tmp_path / "cache").exists()
    assert run(scans, tmp_path / "cache", "--allow_duplicate_stems") == cli.EXIT_OK
    made = sorted(path.name for path in (tmp_path / "cache" / "train" / "class_000").iterdir())
    assert made == ["more_training_objectdataset_000000.npz", "training_objectdataset_000000.npz"] or len(made) == 2
    assert len(list((tmp_path / "cache").glob("train/*/*.npz"))) == 5


@pytest.mark.parametrize(
    ("datasets", "fault"),
    [
        ({"label": np.zeros(2)}, "has no dataset 'data'"),
        ({"data": clouds(2)}, "has no dataset 'label'"),
        ({"data": clouds(2), "label": np.zeros(3)}, "data holds 2 scans, label 3"),
        ({"data": clouds(2)[..., :2], "label": np.zeros(2)}, r"shape \(S, N, 3\)"),
        ({"data": clouds(2)[:, :0], "label": np.zeros(2)}, r"shape \(S, N, 3\)"),
        ({"data": clouds(2)[0], "label": np.zeros(50)}, "data must have 3 axes"),
        ({"data": clouds(2).astype(int), "label": np.zeros(2)}, "data must have 3 axes of numbers"),
        ({"data": clouds(2), "label": np.array([0, -1])}, "label -1 of scan 1"),
        ({"data": clouds(2), "label": np.array([255000, 1])}, "label 255000 of scan 0"),
        ({"data": clouds(2), "label": np.array([0.5, 1])}, r"label 0\.5"),
        ({"data": clouds(2), "label": np.array([np.nan, 1])}, "label nan"),
    ],
)
def test_wrong_files_are_named_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], datasets: dict[str, np.ndarray], fault: str
) -> None:
    path = write_scans(tmp_path / "scans" / "train.h5", **datasets)
    assert run(tmp_path / "scans", tmp_path / "cache", "--split", "train") == cli.EXIT_USAGE
    with pytest.raises(ValueError, match=fault) as caught:
        preprocess_scanobjectnn.read_labels(path)
    assert f"{path}" in str(caught.value)
    assert f"{path}" in capsys.readouterr().err
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("content", [b"", b"not h5", None])
def test_unreadable_files_are_named(
    scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes | None
) -> None:
    path = scans / "test_objectdataset.h5"
    path.write_bytes(path.read_bytes()[:300] if content is None else content)
    assert run(scans, tmp_path / "cache") == cli.EXIT_USAGE
    assert f"error: {path}" in capsys.readouterr().err


def test_bad_scans_are_listed_and_the_rest_is_done(scans: Path, tmp_path: Path) -> None:
    data = clouds(4)
    data[1, 3, 2] = np.nan
    data[2] = 7
    data[3] = 1e30 * data[3]
    write_scans(scans / "training_objectdataset.h5", data=data, label=np.zeros(4))
    assert run(scans, tmp_path / "cache", "--split", "train") == cli.EXIT_SOME_FAILED
    report = json.loads((tmp_path / "cache" / "_meta" / "preprocess_train.json").read_text())
    assert report["counts"] == {"ok": 2, "bad_input": 2}
    reasons = [failure["reason"] for failure in report["failures"]]
    assert "training_objectdataset.h5[1]: nonfinite_vertices: 1 points" in reasons[0]
    assert "training_objectdataset.h5[2]: zero_extent" in reasons[1]


def test_a_root_without_scans_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path / "nowhere", tmp_path / "cache") == cli.EXIT_USAGE
    (tmp_path / "scans").mkdir()
    assert run(tmp_path / "scans", tmp_path / "cache") == cli.EXIT_USAGE
    assert "'train' in its or its folder's name" in capsys.readouterr().err


VARIANTS = ("plain", "augmented25_norot", "augmented25rot", "augmentedrot", "augmentedrot_scale75")


@pytest.fixture
def distributed(tmp_path: Path) -> Path:
    """A folder as ScanObjectNN's archive has it: five variants, each of a training and a test file."""
    root = tmp_path / "h5_files" / "main_split"
    for seed, variant in enumerate(VARIANTS):
        end = "" if variant == "plain" else f"_{variant}"
        write_scans(root / f"training_objectdataset{end}.h5", data=clouds(2, seed=seed), label=np.array([0, 1]))
        write_scans(root / f"test_objectdataset{end}.h5", data=clouds(1, seed=seed + 9), label=np.array([1]))
    return root


def stems(out: Path) -> set[str]:
    return {path.stem.rpartition("_")[0] for path in out.glob("*/*/*.npz")}


@pytest.mark.parametrize("split", ["all", "train"])
def test_several_variants_are_not_mixed(
    distributed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], split: str
) -> None:
    assert run(distributed, tmp_path / "cache", "--split", split) == cli.EXIT_USAGE
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "--variant" in error
    assert all(variant in error for variant in VARIANTS)
    assert not (tmp_path / "cache").exists()


def test_a_training_file_of_one_variant_and_a_test_file_of_another(
    scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (scans / "test_objectdataset.h5").rename(scans / "test_objectdataset_augmentedrot.h5")
    assert run(scans, tmp_path / "cache") == cli.EXIT_USAGE
    assert "2 variants of ScanObjectNN (plain, augmentedrot)" in capsys.readouterr().err
    assert run(scans, tmp_path / "cache", "--variant", "plain") == cli.EXIT_USAGE
    assert "no *.h5 of the variant plain" in capsys.readouterr().err
    assert run(scans, tmp_path / "cache", "--variant", "augmented25rot") == cli.EXIT_USAGE
    assert "only plain, augmentedrot" in capsys.readouterr().err


@pytest.mark.parametrize("variant", VARIANTS)
def test_one_variant_is_chosen_and_noted(distributed: Path, tmp_path: Path, variant: str) -> None:
    out = tmp_path / "cache"
    assert run(distributed, out, "--variant", variant) == cli.EXIT_OK
    end = "" if variant == "plain" else f"_{variant}"
    assert stems(out) == {f"training_objectdataset{end}", f"test_objectdataset{end}"}
    settings = json.loads((out / "_meta" / "preprocess_settings_train.json").read_text())
    assert settings["variant"] == variant
    assert f"variant={variant}\n" in (out / "_meta" / "scanobjectnn_test_source.txt").read_text()


def test_a_cache_of_another_variant_is_refused(
    distributed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "cache"
    assert run(distributed, out, "--variant", "plain", "--split", "train") == cli.EXIT_OK
    listed = (out / "_meta" / "scanobjectnn_train_source.txt").read_text()
    for more in (["--split", "train"], ["--split", "test"], ["--overwrite"]):
        assert run(distributed, out, "--variant", "augmentedrot", *more) == cli.EXIT_USAGE
        assert "variant (plain -> augmentedrot): choose another out_root" in capsys.readouterr().err
    assert (out / "_meta" / "scanobjectnn_train_source.txt").read_text() == listed
    assert stems(out) == {"training_objectdataset"}


def test_with_and_without_background_are_not_mixed(
    scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "cache"
    assert run(scans, out) == cli.EXIT_OK
    without = scans.rename(tmp_path / "main_split_nobg")
    assert run(without, out) == cli.EXIT_USAGE
    assert "h5_folder main_split -> main_split_nobg" in capsys.readouterr().err
    (tmp_path / "both" / "main_split").mkdir(parents=True)
    (without / "test_objectdataset.h5").rename(tmp_path / "both" / "main_split" / "test_objectdataset.h5")
    without.rename(tmp_path / "both" / "main_split_nobg")
    assert run(tmp_path / "both", tmp_path / "other") == cli.EXIT_USAGE
    assert "several folders of ScanObjectNN (main_split, main_split_nobg)" in capsys.readouterr().err


def test_a_cache_from_before_variants_were_noted_goes_on(
    distributed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "cache"
    assert run(distributed, out, "--variant", "augmentedrot") == cli.EXIT_OK
    for split in ("train", "test"):
        path = out / "_meta" / f"preprocess_settings_{split}.json"
        settings = json.loads(path.read_text())
        path.write_text(json.dumps({key: settings[key] for key in settings.keys() - {"variant", "h5_folder"}}))
    assert run(distributed, out, "--variant", "plain") == cli.EXIT_USAGE
    assert "variant (augmentedrot -> plain)" in capsys.readouterr().err
    assert run(distributed, out, "--variant", "augmentedrot") == cli.EXIT_OK
    assert "3 skipped" in capsys.readouterr().out


def test_what_is_neither_train_nor_test_is_named(
    scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = {"data": clouds(1, seed=5), "label": np.array([0])}
    left_out = [write_scans(scans / name, **one) for name in ("val.h5", "train/objects_val.h5", "other.h5")]
    upper = write_scans(scans / "TRAIN_MORE.H5", **one)
    (scans / "._training_objectdataset.h5").write_bytes(b"\0\5\x16\7")
    assert run(scans, tmp_path / "cache") == cli.EXIT_OK
    error = capsys.readouterr().err
    for path in left_out:
        assert f"left out {path}: neither 'train' nor 'test'" in error
    assert "._training" not in error
    assert stems(tmp_path / "cache") == {"training_objectdataset", "test_objectdataset", upper.stem}
    assert run(scans, tmp_path / "chosen", "--variant", "plain") == cli.EXIT_OK
    assert f"left out {upper}: its name tells no variant" in capsys.readouterr().err


def test_labels_in_a_column_are_labels(scans: Path, tmp_path: Path) -> None:
    write_scans(scans / "training_objectdataset.h5", data=clouds(3), label=np.array([[3], [1], [3]]))
    assert run(scans, tmp_path / "cache", "--split", "train") == cli.EXIT_OK
    assert sorted(path.parent.name for path in (tmp_path / "cache").glob("train/*/*.npz")) == [
        "class_001",
        "class_003",
        "class_003",
    ]
