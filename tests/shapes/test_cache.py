"""What a cache file gives, and that every damaged one is named."""

from __future__ import annotations

import pickle
import random
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from nepa3d.shapes import cache as cache_module
from nepa3d.shapes.cache import KEYS, CacheError, ShapeCache, needs_distances, read_cache

Arrays = dict[str, NDArray]


def arrays() -> Arrays:
    rng = np.random.default_rng(0)
    sizes = {"N": 4, "P": 6, "R": 5, "G": 2}
    dtypes = {"udf_grid": np.float16, "occ_grid": np.uint8, "df_grid": np.int32, "df_dilate": np.int32}
    return {
        key: rng.random([sizes.get(str(s), s) for s in field.shape]).astype(dtypes.get(key, np.float32))
        for key, field in KEYS.items()
    }


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "shape.npz"


def save(path: Path, deflate: bool = False, **changes: NDArray) -> None:
    (np.savez_compressed if deflate else np.savez)(path, **{**arrays(), **changes})


@pytest.mark.parametrize("deflate", [False, True])
def test_every_key_reads_as_it_was_written(path: Path, deflate: bool) -> None:
    save(path, deflate)
    with ShapeCache(path) as cache:
        assert set(cache) == set(KEYS)
        assert cache.is_deflated() == deflate
        for key, array in arrays().items():
            np.testing.assert_array_equal(cache[key], array)
            assert cache[key].dtype == array.dtype
            assert not cache[key].flags.writeable


def test_recorded_caches_have_the_schema(golden: Path) -> None:
    for file in sorted(Path("cache").rglob("*.npz")):
        with ShapeCache(file) as cache:
            assert {key for key in cache if cache[key].size} == set(KEYS)


def test_reads_no_more_than_asked(path: Path) -> None:
    save(path, pt_dist_pool=np.zeros((2, 2), np.float32))
    assert list(read_cache(path, ["pc_n", "pc_xyz"])) == ["pc_n", "pc_xyz"]
    with pytest.raises(CacheError, match="pt_dist_pool"):
        read_cache(path, ["pt_dist_pool"])


def test_pools_become_float32_and_stay_as_stored_on_request(path: Path) -> None:
    hit = np.array([1, 0, 1, 0, 1], np.uint8)
    save(path, ray_hit_pool=hit, pc_xyz=np.asfortranarray(arrays()["pc_xyz"].astype(">f8")))
    with ShapeCache(path) as cache:
        assert cache["ray_hit_pool"].dtype == np.float32
        assert cache.stored("ray_hit_pool").dtype == np.uint8
        np.testing.assert_array_equal(cache["pc_xyz"], arrays()["pc_xyz"])
        assert cache["pc_xyz"].dtype == np.float32


def _empty(path: Path) -> None:
    path.touch()


def _truncated(path: Path) -> None:
    save(path)
    path.write_bytes(path.read_bytes()[:-40])


def _text(path: Path) -> None:
    path.write_text("version https://git-lfs.github.com/spec/v1\n")


def _pickled(path: Path) -> None:
    path.write_bytes(pickle.dumps({"pc_xyz": [0.0]}))


def _plain_array(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.zeros(3))


def _folder(path: Path) -> None:
    path.mkdir()


def _dangling(path: Path) -> None:
    path.symlink_to("nowhere.npz")


@pytest.mark.parametrize(
    ("make", "fault"),
    [
        (lambda path: None, "no such file"),
        (_dangling, "no such file"),
        (_folder, "not a file"),
        (_empty, "0 bytes"),
        (_truncated, "not a readable .npz"),
        (_text, "not a readable .npz"),
        (_pickled, "not a readable .npz"),
        (_plain_array, "not a readable .npz"),
    ],
)
def test_unusable_file_is_named(path: Path, make: Callable[[Path], None], fault: str) -> None:
    make(path)
    with pytest.raises(CacheError, match=fault) as caught:
        ShapeCache(path)
    assert str(path) in str(caught.value)
    assert pickle.loads(pickle.dumps(caught.value)).fault == caught.value.fault


@pytest.mark.parametrize(
    ("key", "value", "fault"),
    [
        ("pc_xyz", np.zeros((4, 2), np.float32), r"shape \(N, 3\), got \(4, 2\)"),
        ("pt_dist_pool", np.zeros((6, 1), np.float32), r"shape \(P,\), got \(6, 1\)"),
        ("pt_dist_pool", np.zeros(7, np.float32), "P = 7, pt_xyz_pool has P = 6"),
        ("pt_dist_pool", np.zeros(6, np.int64), "kind f, got int64"),
        ("pt_dist_pool", np.array([None] * 6), "pickled"),
        ("udf_grid", np.zeros((2, 2, 3), np.float16), "G = 3"),
    ],
)
def test_unusable_member_is_named(path: Path, key: str, value: NDArray, fault: str) -> None:
    save(path, **{key: value})
    with ShapeCache(path) as cache:
        cache["pt_xyz_pool"]
        with pytest.raises(CacheError, match=fault) as caught:
            cache[key]
    assert str(path) in str(caught.value)
    assert key in str(caught.value)


def test_missing_key_is_named(path: Path) -> None:
    np.savez(path, pc_n=np.zeros((4, 3), np.float32))
    with pytest.raises(CacheError, match=r"shape.npz: pc_xyz is missing"):
        read_cache(path, ["pc_xyz"])


@pytest.mark.parametrize("deflate", [False, True])
def test_flipped_bit_in_the_data_is_caught(path: Path, deflate: bool) -> None:
    save(path, deflate)
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as file:
        info = file.getinfo("pt_xyz_pool.npy")
    content[info.header_offset + 30 + len(info.filename) + 20 + info.compress_size - 5] ^= 1
    path.write_bytes(content)
    with pytest.raises(CacheError, match="pt_xyz_pool cannot be read"):
        read_cache(path, ["pt_xyz_pool"])


def save_queries(path: Path, header: bytes, data: bytes = bytes(72)) -> None:
    """A file whose one member has this text as its header, and these bytes of data."""
    prefix = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header) + 1)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("pt_xyz_pool.npy", prefix + header + b"\n" + data)


@pytest.mark.parametrize("rows", [5, 7, 10**11, 10**30])
def test_header_that_does_not_fit_the_data_is_caught_and_allocates_nothing(path: Path, rows: int) -> None:
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, 3)}}".encode()
    save_queries(path, header)
    with pytest.raises(CacheError, match=r"shape.npz: pt_xyz_pool (says it holds over|does not hold)"):
        read_cache(path, ["pt_xyz_pool"])
    save_queries(path, header.replace(str(rows).encode(), b"6"))
    assert read_cache(path, ["pt_xyz_pool"])["pt_xyz_pool"].shape == (6, 3)


@pytest.mark.parametrize(
    "header",
    [
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (6, 3",
        b"{'descr': (), 'fortran_order': False, 'shape': (6, 3)}",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (-6, 3)}",
        b"{3: 4, 'descr': '<f4'}",
        b"[" * 5000,
        b" " * 20000,
        b"__import__('os').abort()",
    ],
)
def test_header_that_is_none_is_named(path: Path, header: bytes) -> None:
    save_queries(path, header)
    with pytest.raises(CacheError, match=r"shape.npz: pt_xyz_pool"):
        read_cache(path, ["pt_xyz_pool"])


def test_member_over_the_limit_is_refused_unread(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(path, deflate=True)
    monkeypatch.setattr(cache_module, "MAX_POOL_BYTES", 100)
    with pytest.raises(CacheError, match="pt_xyz_pool says it holds over 100 bytes"):
        read_cache(path, ["pt_xyz_pool"])


def test_no_bytes_lead_to_anything_but_a_named_fault(path: Path) -> None:
    """Bytes changed at random, near headers by preference: every file is read or refused with ``CacheError``."""
    rng = random.Random(0)
    originals = []
    for deflate in (False, True):
        save(path, deflate)
        originals.append(path.read_bytes())
    refused = 0
    for trial in range(400):
        content = bytearray(originals[trial % 2])
        for _ in range(rng.randint(1, 4)):
            start = content.find(rng.choice([b"PK", b"NUMPY", b"'descr'"]), rng.randrange(len(content)))
            at = (start if start >= 0 else rng.randrange(len(content))) + rng.randint(0, 60)
            content[min(at, len(content) - 1)] = rng.choice([0, 255, ord("("), ord("'"), rng.randrange(256)])
        path.write_bytes(content[: rng.randrange(len(content))] if trial % 10 == 9 else content)
        try:
            with ShapeCache(path) as cache:
                for key in cache:
                    cache[key]
        except CacheError as error:
            assert str(path) in str(error)
            refused += 1
    assert refused > 100


@pytest.mark.parametrize(("value", "expected"), [(0.0, False), (-1.0, True), (np.nan, True), (np.inf, True)])
def test_marked_distances_ask_to_be_recomputed(value: float, expected: bool) -> None:
    assert needs_distances(np.array([0.5, value], np.float32)) is expected


def test_a_member_that_is_there_twice_is_refused(path: Path) -> None:
    save(path)
    with zipfile.ZipFile(path, "a") as file, pytest.warns(UserWarning, match="Duplicate name"):
        file.writestr("pt_dist_pool.npy", b"other")
    with pytest.raises(CacheError, match=r"shape.npz: pt_dist_pool.npy is there twice"):
        ShapeCache(path)
