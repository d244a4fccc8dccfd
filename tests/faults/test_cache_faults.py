"""Damaged cache files through every reader: each names file and fault, and takes no memory (docs/faults.md, rows C)."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nepa3d.execution.files import write_npz
from nepa3d.samples.dataset import SampleSettings
from nepa3d.samples.loader import Request, training_batch
from nepa3d.shapes.cache import CacheError, read_cache
from nepa3d.shapes.views import read_answers

SETTINGS = SampleSettings(n_point=8, n_ray=4, qa=True, eos=True)
USED = ("pt_xyz_pool", "pt_dist_pool", "ray_o_pool", "ray_d_pool", "ray_hit_pool", "ray_t_pool", "ray_n_pool")
READERS: dict[str, Callable[[str], object]] = {
    "read_cache": lambda path: read_cache(path, USED),
    "read_answers": lambda path: read_answers(path, "mesh"),
    "training_batch": lambda path: training_batch([Request(path, "mesh", SETTINGS)], 0, 0, [0]),
}
reader = pytest.mark.parametrize("read", READERS.values(), ids=READERS)


def arrays(points: int = 400, rays: int = 100) -> dict[str, np.ndarray]:
    rng = np.random.RandomState(0)
    scalar = lambda n: rng.uniform(0, 1, n).astype(np.float32)  # noqa: E731
    return {
        "pt_xyz_pool": rng.uniform(-1, 1, (points, 3)).astype(np.float32),
        "pt_dist_pool": scalar(points),
        "ray_o_pool": rng.uniform(-1, 1, (rays, 3)).astype(np.float32),
        "ray_d_pool": np.tile(np.float32([0, 0, 1]), (rays, 1)),
        "ray_hit_pool": np.ones(rays, np.float32),
        "ray_t_pool": scalar(rays),
        "ray_n_pool": np.tile(np.float32([0, 1, 0]), (rays, 1)),
    }


@pytest.fixture(params=["stored", "deflated"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    write_npz(tmp_path / "shape.npz", arrays(), deflate=request.param == "deflated")
    return f"{tmp_path / 'shape.npz'}"


def with_member(path: str, name: str, content: bytes, *, size: int | None = None) -> None:
    """The file with another content of one member; ``size``: what the zip says it holds."""
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    members[f"{name}.npy"] = content
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, data in members.items():
            archive.writestr(member, data)
    if size is not None:
        raw = bytearray(Path(path).read_bytes())
        for signature, offset in ((b"PK\3\4", 22), (b"PK\1\2", 24)):
            at = raw.find(f"{name}.npy".encode()) if signature == b"PK\3\4" else raw.rfind(f"{name}.npy".encode())
            start = raw.rfind(signature, 0, at)
            raw[start + offset : start + offset + 4] = struct.pack("<I", size)
        Path(path).write_bytes(raw)


def npy(array: np.ndarray, header: bytes | None = None) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, array, allow_pickle=True)
    data = file.getvalue()
    if header is None:
        return data
    header = header.ljust(118 - 1) + b"\n"
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header + data[128:]


def refused(read: Callable[[str], object], path: str, fault: str | None = None) -> None:
    with pytest.raises(CacheError, match=fault) as caught:
        read(path)
    assert caught.value.path == path


@reader
def test_cut_anywhere(path: str, read: Callable[[str], object]) -> None:
    """C01: at every kilobyte, and by a byte."""
    whole = Path(path).read_bytes()
    read(path)
    for length in [*range(0, len(whole), 1024), len(whole) - 1, 1, 21, 22]:
        Path(path).write_bytes(whole[:length])
        refused(read, path)


@reader
@pytest.mark.parametrize("content", [b"", b"garbage" * 500, b"PK\5\6" + bytes(18), b"PK\5\6" + b"\xff" * 18])
def test_no_npz(path: str, read: Callable[[str], object], content: bytes) -> None:
    """C02: empty, garbage, a zip of nothing, a zip that lies about its directory."""
    Path(path).write_bytes(content)
    refused(read, path)


@reader
def test_missing_files_and_folders(tmp_path: Path, read: Callable[[str], object]) -> None:
    """C03."""
    refused(read, f"{tmp_path / 'nowhere.npz'}", "no such file")
    refused(read, f"{tmp_path}", "not a file")
    os.mkfifo(tmp_path / "fifo.npz")
    refused(read, f"{tmp_path / 'fifo.npz'}", "not a file")
    (tmp_path / "loop.npz").symlink_to("loop.npz")
    refused(read, f"{tmp_path / 'loop.npz'}")


@reader
@pytest.mark.parametrize("key", USED)
def test_missing_keys(path: str, read: Callable[[str], object], key: str) -> None:
    """C04."""
    write_npz(path, {name: array for name, array in arrays().items() if name != key})
    refused(read, path, f"{key} is missing")


@reader
@pytest.mark.parametrize(
    ("key", "value", "fault"),
    [
        ("pt_dist_pool", np.zeros(399, np.float32), "P = 399"),
        ("ray_n_pool", np.zeros((99, 3), np.float32), "R = 99"),
        ("pt_xyz_pool", np.zeros((400, 2), np.float32), "shape"),
        ("pt_xyz_pool", np.zeros((3, 400), np.float32), "shape"),
        ("pt_xyz_pool", np.zeros(1200, np.float32), "shape"),
        ("ray_t_pool", np.float32(1), "shape"),
        ("pt_dist_pool", np.zeros(400, np.int64), "dtype"),
        ("pt_dist_pool", np.zeros(400, np.complex64), "dtype"),
        ("pt_dist_pool", np.array(["x"] * 400), "dtype"),
        ("pt_dist_pool", np.zeros(400, [("x", "<f4")]), "dtype|records"),
        ("pt_dist_pool", np.zeros(400, "M8[s]"), "dtype"),
        ("pt_dist_pool", np.array([None] * 400), "pickled"),
    ],
)
def test_other_shapes_and_dtypes(
    path: str, read: Callable[[str], object], key: str, value: np.ndarray, fault: str
) -> None:
    """C05, C06: disagreeing lengths, wrong ranks, wrong dtypes, pickles."""
    np.savez(path, allow_pickle=True, **(arrays() | {key: value}))
    refused(read, path, fault)


class Bomb:
    """What a pickle would run if it were loaded."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.canary,))


@reader
def test_no_pickle_is_run(path: str, read: Callable[[str], object], tmp_path: Path) -> None:
    """C06: the canary stays away."""
    np.savez(path, allow_pickle=True, **(arrays() | {"pt_dist_pool": np.array([Bomb(tmp_path / "canary")])}))
    refused(read, path, "pickled")
    assert not (tmp_path / "canary").exists()


@reader
@pytest.mark.parametrize(
    "change",
    [
        lambda a: a.astype(">f4"),
        lambda a: a.astype("<f8"),
        lambda a: a.astype(">f8"),
        np.asfortranarray,
        lambda a: a.astype("<f4"),
    ],
    ids=["big-endian", "double", "big-endian double", "fortran", "as it is"],
)
def test_other_layouts_of_the_same_numbers_are_read(
    path: str, read: Callable[[str], object], change: Callable[[np.ndarray], np.ndarray]
) -> None:
    """C07."""
    whole = training_batch([Request(path, "mesh", SETTINGS)], 0, 0, [0])[0]
    np.savez(path, **{key: change(array) for key, array in arrays().items()})
    read(path)
    np.testing.assert_array_equal(training_batch([Request(path, "mesh", SETTINGS)], 0, 0, [0])[0], whole)


@reader
@pytest.mark.parametrize(
    "header",
    [
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (4000000000,), }",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296, 4294967296), }",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (18446744073709551616,), }",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (399,), }",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (400.0,), }",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (400,",
        b"{'descr': '<f4', 'fortran_order': False}",
        b"{'descr': '<f0', 'fortran_order': False, 'shape': (400,), }",
        b"{'descr': '|O', 'fortran_order': False, 'shape': (400,), }",
        b"__import__('os').abort()",
        b"",
    ],
)
def test_headers_that_lie(path: str, read: Callable[[str], object], header: bytes) -> None:
    """C08: sizes that do not fit or overflow, and headers that are none."""
    with_member(path, "pt_dist_pool", npy(arrays()["pt_dist_pool"], header))
    refused(read, path)


@reader
@pytest.mark.parametrize("version", [(0, 0), (4, 0), (255, 255)])
def test_unknown_versions(path: str, read: Callable[[str], object], version: tuple[int, int]) -> None:
    """C08."""
    content = bytearray(npy(arrays()["pt_dist_pool"]))
    content[6:8] = bytes(version)
    with_member(path, "pt_dist_pool", bytes(content))
    refused(read, path)


@reader
def test_members_there_twice(path: str, read: Callable[[str], object]) -> None:
    """C09."""
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("pt_dist_pool.npy", npy(np.zeros(400, np.float32)))
    refused(read, path, "twice")


@reader
def test_names_that_climb_out_are_names(path: str, read: Callable[[str], object], tmp_path: Path) -> None:
    """C10: nothing is ever extracted."""
    before = sorted(p.name for p in tmp_path.rglob("*"))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("../climbed.npy", npy(np.zeros(3)))
    read(path)
    assert sorted(p.name for p in tmp_path.rglob("*")) == before
    assert not (tmp_path.parent / "climbed.npy").exists()


@reader
@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compressions_and_encryption(path: str, read: Callable[[str], object], method: int) -> None:
    """C11: read by Python's readers, refused by name by the compiled one; encrypted ones by all."""
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    if read is READERS["training_batch"]:
        refused(read, path, "method")
    else:
        read(path)
    raw = bytearray(Path(path).read_bytes())
    for signature, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        at = raw.find(signature)
        while at >= 0:
            raw[at + offset] |= 1
            at = raw.find(signature, at + 1)
    Path(path).write_bytes(raw)
    refused(read, path)


@reader
def test_flipped_bits_end_in_a_fault_or_other_numbers(path: str, read: Callable[[str], object]) -> None:
    """C12: never in anything else. Deflated data and what Python reads are checked against their checksums."""
    whole = Path(path).read_bytes()
    rng = np.random.RandomState(0)
    for _ in range(150):
        raw = bytearray(whole)
        raw[rng.randint(len(raw))] ^= 1 << rng.randint(8)
        Path(path).write_bytes(raw)
        try:
            read(path)
        except CacheError as error:
            assert error.path == path


def bomb(path: str) -> None:
    """A member of a gigabyte that takes a megabyte."""
    header = np.lib.format.header_data_from_array_1_0(np.zeros(1, np.float32)) | {"shape": (250_000_000,)}
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, header)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, array in arrays().items():
            if name != "pt_dist_pool":
                archive.writestr(f"{name}.npy", npy(array))
        with archive.open("pt_dist_pool.npy", "w", force_zip64=True) as member:
            member.write(file.getvalue())
            for _ in range(1000):
                member.write(bytes(1_000_000))


@pytest.mark.parametrize("name", READERS)
def test_bombs_take_no_memory(tmp_path: Path, name: str) -> None:
    """C13: refused by what the header says, before a byte is inflated."""
    path = tmp_path / "bomb.npz"
    bomb(f"{path}")
    assert path.stat().st_size < 6_000_000
    script = (
        "import resource, sys\nfrom tests.faults.test_cache_faults import READERS, CacheError\n"
        "used = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\nbefore = used()\n"
        f"try: READERS[{name!r}](sys.argv[1])\nexcept CacheError as error: print(error)\n"
        "print((used() - before) // 1024)"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([f"{Path(__file__).parents[2]}", *sys.path])}
    done = subprocess.run([sys.executable, "-c", script, f"{path}"], capture_output=True, text=True, env=environment)
    fault, grown = done.stdout.splitlines()
    assert f"{path}: " in fault
    assert int(grown) < 64, done.stderr


@reader
def test_a_zip_that_says_less_than_the_member_holds(path: str, read: Callable[[str], object]) -> None:
    """C14: the directory's sizes are lies."""
    for size in (10, 0, 2**31):
        write_npz(path, arrays())
        with_member(path, "pt_dist_pool", npy(arrays()["pt_dist_pool"]), size=size)
        refused(read, path)


@reader
def test_values_that_are_not_finite(path: str, read: Callable[[str], object]) -> None:
    """C15: refused where they become a sample."""
    for value in (np.nan, np.inf, -np.inf):
        write_npz(path, arrays() | {"pt_dist_pool": np.full(400, value, np.float32)})
        if read is READERS["training_batch"]:
            refused(read, path, "not finite")
        else:
            read(path)


@reader
def test_empty_pools(path: str, read: Callable[[str], object]) -> None:
    """C16."""
    write_npz(path, arrays(points=0))
    if read is READERS["training_batch"]:
        refused(read, path, "n_point is 8, but the pool is empty")
    else:
        read(path)


@reader
def test_a_reader_during_rewrites_sees_the_old_or_the_new(tmp_path: Path, read: Callable[[str], object]) -> None:
    """C17: 300 reads while the file is rewritten."""
    path = tmp_path / "shape.npz"
    write_npz(path, arrays())
    done = threading.Event()

    def rewrite() -> None:
        while not done.is_set():
            write_npz(path, arrays(points=400), deflate=False)

    writer = threading.Thread(target=rewrite)
    writer.start()
    try:
        for _ in range(300):
            read(f"{path}")
    finally:
        done.set()
        writer.join()
