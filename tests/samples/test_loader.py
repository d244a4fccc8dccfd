"""The compiled samples are the plain ones, bit for bit; and what is wrong with a file is said."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nepa3d.corpora.shape_list import list_shapes
from nepa3d.execution.files import write_npz
from nepa3d.samples.dataset import SampleSettings, evaluation_sample, training_sample
from nepa3d.samples.draws import TrainingDraws, philox
from nepa3d.samples.loader import Request, evaluation_batch, prefetch, training_batch
from nepa3d.shapes.cache import KEYS, CacheError
from nepa3d.shapes.views import BACKENDS, VoxelSettings

SETTINGS = SampleSettings(n_point=24, n_ray=10, qa=True, eos=True)


def arrays_of(path: str) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as archive:
        return {key: archive[key] for key in archive.files}


def requests(backend: str, settings: SampleSettings = SETTINGS) -> list[Request]:
    return [Request(path, backend, settings) for path in list_shapes("cache", "test")]


@pytest.fixture
def shape(golden: Path, tmp_path: Path) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """Where to write a changed copy of a cache file, and its arrays."""
    yield str(tmp_path / "changed.npz"), arrays_of(list_shapes("cache", "test")[0])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("qa", "eos"), [(False, True), (True, False)])
def test_batches_are_the_plain_samples(golden: Path, backend: str, qa: bool, eos: bool) -> None:
    settings = replace(SETTINGS, qa=qa, eos=eos, drop_ray_prob=0.3, voxel=VoxelSettings(32, 2, 20))
    asked = requests(backend, settings)
    indices = [(7 * i) % 50 for i in range(len(asked))]
    features, types = training_batch(asked, 3, 2, indices, threads=2)
    for row, (request, index) in enumerate(zip(asked, indices, strict=True)):
        wanted = training_sample(request.path, backend, settings, 3, 2, index)
        np.testing.assert_array_equal(features[row], wanted[0])
        np.testing.assert_array_equal(types[row], wanted[1])
    features, types = evaluation_batch(asked, 5, 2, threads=2)
    for row, request in enumerate(asked):
        wanted = evaluation_sample(request.path, backend, settings, 5, 2)
        np.testing.assert_array_equal(features[row], wanted[0])
        np.testing.assert_array_equal(types[row], wanted[1])


@pytest.mark.parametrize("backend", ["mesh", "pointcloud", "voxel"])
def test_rays_without_a_direction_are_refused(shape: tuple[str, dict[str, np.ndarray]], backend: str) -> None:
    """The caches of scans, which have no rays, hold zeros."""
    path, arrays = shape
    write_npz(
        Path(path), {key: np.zeros_like(value) if key.startswith("ray_") else value for key, value in arrays.items()}
    )
    fault = "ray_d_pool has directions of length 0, as that of a scan, which has no rays: choose pointcloud_noray"
    with pytest.raises(CacheError, match=fault):
        training_batch([Request(path, backend, SETTINGS)], 0, 0, [0], threads=1)
    with pytest.raises(CacheError, match=fault):
        training_sample(path, backend, SETTINGS, 0, 0, 0)
    for settings in (replace(SETTINGS, n_ray=0), replace(SETTINGS, force_missing_ray=True)):
        assert training_batch([Request(path, backend, settings)], 0, 0, [0], threads=1)[0].any()


@pytest.mark.parametrize("n", [1, 600, 700])
def test_draws_of_any_part_of_the_pool_agree(golden: Path, n: int) -> None:
    settings = replace(SETTINGS, n_point=n, n_ray=n)
    asked = requests("mesh", settings)[:2]
    for row, request in enumerate(asked):
        trained = training_sample(request.path, "mesh", settings, 2**40 + 1, 1, row)
        np.testing.assert_array_equal(training_batch(asked, 2**40 + 1, 1, [0, 1])[0][row], trained[0])
        evaluated = evaluation_sample(request.path, "mesh", settings, 0)
        np.testing.assert_array_equal(evaluation_batch(asked, 0)[0][row], evaluated[0])


def test_philox_gives_the_published_words() -> None:
    """The known answers of the authors' Random123 distribution."""
    assert philox((0, 0, 0, 0), (0, 0)) == (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)
    ones = 0xFFFFFFFF
    assert philox((ones,) * 4, (ones,) * 2) == (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)
    pi = (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344)
    assert philox(pi, (0xA4093822, 0x299F31D0)) == (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1)


def test_rows_are_drawn_once_and_evenly() -> None:
    counts = np.zeros(10, int)
    for index in range(3000):
        rows = TrainingDraws(0, 0, index).rows(10, 4)
        assert len(set(rows.tolist())) == 4
        counts[rows] += 1
    assert abs(counts / 3000 - 0.4).max() < 0.05
    assert sorted(TrainingDraws(0, 0, 0).rows(6, 6).tolist()) == list(range(6))


def test_distances_marked_invalid_are_computed_again(shape: tuple[str, dict[str, np.ndarray]]) -> None:
    path, arrays = shape
    for bad in (-1, np.nan):
        arrays["pt_dist_pc_pool"][5] = bad
        write_npz(path, arrays)
        request = Request(path, "pointcloud_noray", SETTINGS)
        wanted = training_sample(path, "pointcloud_noray", SETTINGS, 0, 0, 0)
        np.testing.assert_array_equal(training_batch([request], 0, 0, [0])[0][0], wanted[0])


@pytest.mark.parametrize("backend", BACKENDS)
def test_older_files_lack_keys_and_are_deflated(shape: tuple[str, dict[str, np.ndarray]], backend: str) -> None:
    path, arrays = shape
    recent = [key for key in arrays if "_pc_" in key or "udf" in key]
    write_npz(path, {key: array for key, array in arrays.items() if key not in recent}, deflate=True)
    wanted = training_sample(path, backend, SETTINGS, 0, 0, 0)
    np.testing.assert_array_equal(training_batch([Request(path, backend, SETTINGS)], 0, 0, [0])[0][0], wanted[0])


@pytest.mark.parametrize("form", ["<f2", "<f8", ">f4", ">f8", "fortran"])
def test_any_plain_float_is_read(shape: tuple[str, dict[str, np.ndarray]], form: str) -> None:
    path, arrays = shape
    floats = {key: array for key, array in arrays.items() if array.dtype == np.float32}
    for key, array in floats.items():
        arrays[key] = np.asfortranarray(array) if form == "fortran" else array.astype(form)
    arrays["ray_hit_pool"] = arrays["ray_hit_pool"].astype(np.uint8 if form == "<f2" else ">i8")
    np.savez(path, **arrays)
    for backend in ("mesh", "voxel"):
        wanted = training_sample(path, backend, SETTINGS, 0, 0, 0)
        np.testing.assert_array_equal(training_batch([Request(path, backend, SETTINGS)], 0, 0, [0])[0][0], wanted[0])


def test_half_floats_keep_every_value(tmp_path: Path, golden: Path) -> None:
    """Subnormal, negative and large ones, read as point distances."""
    bits = np.random.RandomState(0).permutation(2**16)[:4000].astype(np.uint16)
    values = bits.view(np.float16)
    values = values[np.isfinite(values)]
    rays = {
        key: np.zeros((1, 3) if width == 2 else 1, np.float32)
        for key, width in (
            ("ray_o_pool", 2),
            ("ray_d_pool", 2),
            ("ray_hit_pool", 1),
            ("ray_t_pool", 1),
            ("ray_n_pool", 2),
        )
    }
    path = str(tmp_path / "half.npz")
    write_npz(path, {"pt_xyz_pool": np.zeros((len(values), 3), np.float32), "pt_dist_pool": values, **rays})
    settings = SampleSettings(n_point=len(values), n_ray=0, qa=False, eos=False)
    features, _ = training_batch([Request(path, "mesh", settings)], 0, 0, [0])
    np.testing.assert_array_equal(np.sort(features[0, 1:, 10]), np.sort(values.astype(np.float32)))


def damaged(arrays: dict[str, np.ndarray], key: str, value: np.ndarray | None) -> dict[str, np.ndarray]:
    return {k: value if k == key else v for k, v in arrays.items() if not (k == key and value is None)}


@pytest.mark.parametrize(
    ("key", "value", "fault"),
    [
        ("pt_dist_pool", None, "pt_dist_pool is missing"),
        ("ray_t_pool", np.zeros(3, np.float32), "ray_t_pool has R = 3"),
        ("pt_dist_pool", np.zeros(3, np.float32), "pt_dist_pool has P = 3"),
        ("pt_xyz_pool", np.zeros((600, 2), np.float32), "must have shape"),
        ("pt_xyz_pool", np.zeros((600, 3), np.int32), "dtype of kind f"),
        ("pt_xyz_pool", np.full((600, 3), np.nan, np.float32), "not finite"),
        ("pt_dist_pool", np.full(600, np.inf, np.float32), "not finite"),
        ("pt_dist_pool", np.array([None] * 600), "pickled"),
        ("pt_dist_pool", np.array(["a"] * 600), "no plain number"),
        ("pt_dist_pool", np.zeros(600, [("a", "<f4")]), "records"),
        ("pt_dist_pool", np.zeros((1, 1, 1, 600), np.float32), "more than 3 axes"),
    ],
)
def test_faults_name_file_and_array(
    shape: tuple[str, dict[str, np.ndarray]], key: str, value: np.ndarray | None, fault: str
) -> None:
    path, arrays = shape
    np.savez(path, allow_pickle=True, **damaged(arrays, key, value))
    good = Request(list_shapes("cache", "test")[0], "mesh", SETTINGS)
    with pytest.raises(CacheError, match=fault) as caught:
        training_batch([good, Request(path, "mesh", SETTINGS), good], 0, 0, [0, 1, 2], threads=2)
    assert caught.value.path == path


def test_the_first_of_several_faults_is_raised(golden: Path, tmp_path: Path) -> None:
    asked = [Request(str(tmp_path / f"{i}.npz"), "mesh", SETTINGS) for i in range(8)]
    for _ in range(10):
        with pytest.raises(CacheError, match=r"0\.npz: there is no such file"):
            training_batch(asked, 0, 0, range(8), threads=2)


def test_samples_of_different_length_make_no_batch(golden: Path) -> None:
    path = list_shapes("cache", "test")[0]
    asked = [Request(path, "mesh", SETTINGS), Request(path, "mesh", replace(SETTINGS, eos=False))]
    with pytest.raises(ValueError, match="same length"):
        training_batch(asked, 0, 0, [0, 1])


def test_every_backend_is_known_to_both_languages(golden: Path) -> None:
    assert set(KEYS) >= {"pt_xyz_pool"}
    for backend in BACKENDS:
        training_batch(requests(backend)[:1], 0, 0, [0])
    with pytest.raises(ValueError, match="backend"):
        training_batch(requests("cloud")[:1], 0, 0, [0])


class TestPrefetch:
    def test_keeps_the_order_and_runs_before_it_is_asked(self) -> None:
        made, second = [], threading.Event()

        def make(n: int) -> int:
            made.append(n)
            if n == 2:
                second.set()
            return n * n

        squares = prefetch(make, range(6), depth=2)
        assert next(squares) == 0
        assert second.wait(10)  # 1 and 2 are made though nobody asked for them
        assert [*squares] == [1, 4, 9, 16, 25]
        assert made == list(range(6))

    def test_an_error_comes_where_its_batch_would(self) -> None:
        def make(n: int) -> int:
            if n == 1:
                raise ValueError("one")
            return n

        results = prefetch(make, range(4))
        assert next(results) == 0
        with pytest.raises(ValueError, match="one"):
            next(results)

    def test_nothing_is_made_after_it_is_closed(self) -> None:
        made = []
        results = prefetch(lambda n: made.append(n), range(1000), depth=2)
        next(results)
        results.close()
        assert len(made) <= 4
