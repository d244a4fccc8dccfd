"""Packed caches: the samples of the folder bit for bit, shards whole or not there, and damage that is named."""

from __future__ import annotations

import contextlib
import io
import os
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nepa3d import cli
from nepa3d.corpora.packing import plan, write_shard
from nepa3d.corpora.shape_list import list_shapes
from nepa3d.data import migrate_add_pt_dist_pc_pool as migrate
from nepa3d.data import pack, preprocess_shapenet, preprocess_shapenet_unpaired, verify
from nepa3d.execution.files import map_npz, write_npz
from nepa3d.report.picture import Config as PictureConfig
from nepa3d.report.picture import choose_shapes
from nepa3d.samples.completion import SequenceSettings, completion_sample
from nepa3d.samples.completion_loader import completion_batch
from nepa3d.samples.dataset import SampleSettings, evaluation_sample, training_sample
from nepa3d.samples.loader import Request, evaluation_batch, training_batch
from nepa3d.shapes.cache import CacheError, ShapeCache, read_cache
from nepa3d.shapes.packed import PackError, pack_of
from nepa3d.shapes.views import BACKENDS, VoxelSettings, read_answers
from nepa3d.train.corpus import CorpusFlags, EpochBatches, open_corpus
from nepa3d.train.distributed import ProcessGroup

SETTINGS = SampleSettings(n_point=24, n_ray=10, qa=True, eos=True, drop_ray_prob=0.3, voxel=VoxelSettings(16, 1, 20))
READERS: dict[str, Callable[[str], object]] = {
    "read_cache": lambda path: read_cache(path, ["pt_xyz_pool", "ray_t_pool"]),
    "read_answers": lambda path: read_answers(path, "mesh"),
    "training_batch": lambda path: training_batch([Request(path, "mesh", SETTINGS)], 0, 0, [0]),
}
reader = pytest.mark.parametrize("read", READERS.values(), ids=READERS)


def packed(root: Path, out: Path, *flags: str) -> int:
    return pack.main([f"{root}", "--out", f"{out}", "--shard_mb", "0.1", "--workers", "1", *flags])


@pytest.fixture(scope="module")
def twins(golden_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Folders of a folder cache and of its packed twin; both are called "cache"."""
    folder = tmp_path_factory.mktemp("twins")
    shutil.copytree(golden_folder / "cache", folder / "files" / "cache")
    (folder / "files" / "cache" / "_splits").mkdir(exist_ok=True)
    (folder / "files" / "cache" / "_splits" / "note.txt").write_text("kept", encoding="utf-8")
    assert packed(folder / "files" / "cache", folder / "packed" / "cache") == cli.EXIT_OK
    return folder / "files", folder / "packed"


@pytest.fixture
def damaged(twins: tuple[Path, Path], tmp_path: Path) -> Path:
    """A copy of the packed split "test" to damage."""
    shutil.copytree(twins[1] / "cache", tmp_path / "cache")
    return tmp_path / "cache" / "test"


def change_index(split: Path, **arrays: np.ndarray) -> None:
    kept = {key: np.array(array) for key, array in map_npz(split / "pack.npz").items()}
    write_npz(split / "pack.npz", kept | arrays)


def contents(root: Path) -> dict[str, bytes]:
    """Every file below a folder that is no record of a run."""
    return {
        f"{path.relative_to(root)}": path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and not path.name.endswith(".config.yaml")
    }


def names(root: Path) -> set[str]:
    """The files below a folder in which a process works."""
    return {f"{folder}/{file}" for folder, _, files in os.walk(root) for file in files}


def both(twins: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, read: Callable[[], Any]) -> tuple[Any, Any]:
    """What ``read`` gives of the files and of their packed twin, under one name: draws depend on it."""
    results = []
    for folder in twins:
        monkeypatch.chdir(folder)
        results.append(read())
    return results[0], results[1]


@pytest.mark.parametrize("backend", BACKENDS)
def test_samples_are_those_of_the_files(
    twins: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    def read() -> list[Any]:
        paths = list_shapes("cache", "test")
        requests = [Request(path, backend, SETTINGS) for path in paths]
        trained = training_batch(requests, 3, 1, range(len(paths)), threads=2)
        plain = [training_sample(path, backend, SETTINGS, 3, 1, i) for i, path in enumerate(paths)]
        evaluated = evaluation_batch(requests, 5, 1, threads=2)
        plainly = [evaluation_sample(path, backend, SETTINGS, 5, 1) for path in paths]
        for one, each in ((trained, plain), (evaluated, plainly)):
            np.testing.assert_array_equal(one[0], np.stack([features for features, _ in each]))
        return [paths, *trained, *evaluated]

    files, shards = both(twins, monkeypatch, read)
    assert files[0] == shards[0]
    assert not Path(shards[0][0]).exists()  # the working directory is the packed twin's
    for one, other in zip(files[1:], shards[1:], strict=True):
        np.testing.assert_array_equal(one, other)


def test_completions_are_those_of_the_files(twins: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    settings = SequenceSettings(n_context=16, n_query=12, qa=True, eos=True, context_backend="pointcloud_noray")

    def read() -> list[Any]:
        paths = list_shapes("cache", "test")
        batch, faults = completion_batch(paths, settings, 4, paths[::-1], threads=2)
        assert not faults
        plain = completion_sample(paths[0], settings, 4, paths[-1])
        np.testing.assert_array_equal(batch.features[0], plain.features)
        return [batch.features, batch.types, batch.target, batch.nearest_copy]

    for one, other in zip(*both(twins, monkeypatch, read), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_mix_of_both_layouts_is_that_of_the_files(
    twins: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lines = ["mix_num_samples: 12", "datasets:"]
    lines += [
        f"  - {{name: {n}, cache_root: {r}, split: train, backend: mesh}}"
        for n, r in (("a", "cache"), ("b", twins[0] / "cache"))
    ]
    (tmp_path / "mix.yaml").write_text("\n".join(lines), encoding="utf-8")

    def read() -> list[Any]:
        corpus = open_corpus(CorpusFlags(mix_config=f"{tmp_path / 'mix.yaml'}"), SETTINGS, 0)
        batches = EpochBatches(corpus, 0, 4, ProcessGroup(0, 1, torch.device("cpu")))
        return [batch.features for batch in batches] + [batch.shapes for batch in batches]

    for one, other in zip(*both(twins, monkeypatch, read), strict=True):
        np.testing.assert_array_equal(one, other)


def test_arrays_lists_and_pictures_are_those_of_the_files(
    twins: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def read() -> list[Any]:
        path = list_shapes("cache", "train")[0]
        with ShapeCache(path) as cache:
            arrays = {key: cache.stored(key).tobytes() for key in cache}
        name = "/".join(Path(path).with_suffix("").parts[-2:])
        return [arrays, choose_shapes(PictureConfig("cache", "none.png", split="train", shapes=(name,)))]

    files, shards = both(twins, monkeypatch, read)
    assert files == shards
    with pytest.raises(ValueError, match="there is no cached shape"):
        choose_shapes(PictureConfig("cache", "none.png", split="train", shapes=("no/shape",)))


def test_tar_unpacks_what_was_packed(twins: tuple[Path, Path], tmp_path: Path) -> None:
    shards = sorted((twins[1] / "cache").glob("*/shard-*.tar"))
    assert len(shards) > 2
    for shard in shards:
        subprocess.run(["tar", "xf", f"{shard}", "-C", f"{tmp_path}"], check=True)
    files = contents(twins[0] / "cache")
    assert contents(tmp_path) == {name: data for name, data in files.items() if name.endswith(".npz")}
    beside = {name: data for name, data in files.items() if name.startswith("_")}
    assert "_splits/note.txt" in beside and beside.items() <= contents(twins[1] / "cache").items()


def test_verify_reads_both_and_names_the_shape_whose_bytes_changed(
    damaged: Path, twins: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert verify.verify(verify.Config(damaged.parent, workers=1)).clean
    pack_ = pack_of(damaged)
    assert pack_ is not None
    place = pack_.place(1)
    with Path(place.shard).open("rb+") as file:  # a bit of a timestamp, which no reader looks at
        file.seek(place.offset + 10)
        file.write(b"\x99")
    path = f"{damaged / pack_.name(1)}"
    findings = verify.verify(verify.Config(damaged.parent, workers=1))
    assert findings.faults.keys() == {path} and "SHA-256" in findings.faults[path]
    read_cache(path, ["pc_xyz"])  # the arrays are whole
    assert verify.main([f"{damaged.parent}", "--workers", "1"]) == cli.EXIT_INTEGRITY
    assert path in capsys.readouterr().out


@reader
def test_a_shard_that_ends_early_or_is_not_there(damaged: Path, read: Callable[[str], object]) -> None:
    paths = list_shapes(damaged.parent, "test")
    last = damaged / "shard-00000.tar"
    index = pack_of(damaged)
    assert index is not None
    rows = np.flatnonzero(index.shard == 0)
    end = int(index.offset[rows[-1]] + index.size[rows[-1]])
    os.truncate(last, end)
    read(paths[rows[-1]])
    os.truncate(last, end - 1)
    with pytest.raises(CacheError, match=rf"shard-00000.tar: it has {end - 1} bytes and ends before") as error:
        read(paths[rows[-1]])
    assert error.value.path == paths[rows[-1]]
    if len(rows) > 1:
        read(paths[rows[0]])
    last.unlink()
    with pytest.raises(CacheError, match=r"shard-00000.tar: there is no such file"):
        read(paths[0])
    findings = verify.verify(verify.Config(damaged.parent, workers=1))
    assert {f"{last}", *(paths[row] for row in rows)} == findings.faults.keys()
    last.mkdir()
    with pytest.raises(CacheError, match=r"shard-00000.tar: not a file"):
        read(paths[0])


@reader
def test_an_index_that_points_elsewhere(damaged: Path, read: Callable[[str], object]) -> None:
    index = pack_of(damaged)
    assert index is not None
    offset, size = np.array(index.offset), np.array(index.size)
    size[0] //= 2
    change_index(damaged, size=size)
    path = list_shapes(damaged.parent, "test")[0]
    with pytest.raises(CacheError, match="truncated or of another kind"):
        read(path)
    change_index(damaged, size=np.array(index.size)[::-1], offset=offset[::-1], shard=np.array(index.shard)[::-1])
    read(path)  # it has another shape's bytes
    findings = verify.verify(verify.Config(damaged.parent, workers=1))
    assert "SHA-256" in findings.faults[path]
    assert "unlike the index" in findings.faults[f"{damaged / 'shard-00000.tar'}"]


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"shard": np.int32(7)}, "names a shard that is none of its"),
        ({"shard": np.int32(-1)}, "names a shard that is none of its"),
        ({"offset": np.int64(-512)}, "outside of its shard"),
        ({"size": np.int64(2**62)}, "outside of its shard"),
        ({"offset": np.int64(2**63 - 1)}, "outside of its shard"),
        ({"ends": np.int64(3)}, "names are damaged"),
        ({"format": np.array([2])}, "another version of nepa3d"),
        ({"digest": np.zeros((1, 31), np.uint8)}, "digest must be uint8 of shape"),
        ({"size": np.zeros(3, np.float64)}, "size must be int64 of shape"),
    ],
)
def test_an_index_of_what_cannot_be(damaged: Path, change: dict[str, np.ndarray], fault: str) -> None:
    kept = map_npz(damaged / "pack.npz")
    arrays = {k: np.full_like(kept[k], v) if np.ndim(v) == 0 else np.asarray(v) for k, v in change.items()}
    change_index(damaged, **arrays)
    with pytest.raises(PackError, match=fault) as error:
        list_shapes(damaged.parent, "test")
    assert f"{damaged / 'pack.npz'}" in f"{error.value}"


@pytest.mark.parametrize("content", [b"", b"PK nonsense", None])
def test_an_index_that_cannot_be_read(damaged: Path, content: bytes | None) -> None:
    index = damaged / "pack.npz"
    index.write_bytes(index.read_bytes()[:-30] if content is None else content)
    with pytest.raises(PackError, match=r"pack\.npz: not a readable index"):
        list_shapes(damaged.parent, "test")


@pytest.mark.parametrize(
    "name", ["../x.npz", "a/../x.npz", "/tmp/x.npz", "a/x.txt", "x.npz", "a/.x.npz", "a/.npz", "./x.npz"]
)
def test_names_that_climb_out_are_refused(damaged: Path, name: str) -> None:
    """Of the index; of a shard they are unlike the index, and tar's own refusal stays."""
    count = len(list_shapes(damaged.parent, "test"))
    every = [name] + [f"b/{i:03d}.npz" for i in range(count - 1)]
    ends = np.cumsum([len(each) for each in every])
    change_index(damaged, names=np.frombuffer("".join(every).encode(), np.uint8), ends=ends)
    with pytest.raises(PackError, match=r"not class/id\.npz|names are damaged"):
        list_shapes(damaged.parent, "test")


def test_a_shard_of_other_members_is_unlike_its_index(damaged: Path) -> None:
    shard = damaged / "shard-00000.tar"
    with tarfile.open(shard, "a") as archive:
        info = tarfile.TarInfo("../../climbs.npz")
        info.size = 3
        archive.addfile(info, io.BytesIO(b"abc"))
    change_index(damaged, shard_size=np.array([p.stat().st_size for p in sorted(damaged.glob("*.tar"))]))
    findings = verify.verify(verify.Config(damaged.parent, workers=1))
    assert findings.faults.keys() == {f"{shard}"}
    assert "holds ../../climbs.npz" in findings.faults[f"{shard}"] and "has nothing more" in findings.faults[f"{shard}"]


def test_folders_and_shards_in_one_split_are_refused(damaged: Path) -> None:
    (damaged / "chair").mkdir()
    with pytest.raises(ValueError, match=r"holds pack\.npz and the folder chair"):
        list_shapes(damaged.parent, "test")
    (damaged / "chair").rmdir()
    (damaged / "pack.npz").unlink()
    with pytest.raises(ValueError, match=r"shards without pack\.npz: pack it again"):
        list_shapes(damaged.parent, "test")


def test_those_who_write_cache_files_refuse_a_packed_cache(
    damaged: Path, tmp_path: Path, golden_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = f"{damaged.parent}"
    (tmp_path / "meshes").mkdir()
    writers: dict[str, Callable[[], int]] = {
        "cache_root": lambda: packed(damaged.parent, tmp_path / "again"),
        "cache_root: ": lambda: migrate.main(["--cache_root", root]),
        "delete": lambda: verify.main([root, "--workers", "1", "--delete"]),
        "src_cache_root": lambda: preprocess_shapenet_unpaired.main(
            [
                "--src_cache_root",
                root,
                "--split_json",
                f"{golden_folder / 'split.json'}",
                "--out_root",
                f"{tmp_path / 'u'}",
            ]
        ),
    }
    before = contents(damaged.parent)
    for flag, write in writers.items():
        assert write() == cli.EXIT_USAGE
        said = capsys.readouterr().err
        assert said.startswith(f"error: {flag}") and "packed" in said
    (tmp_path / "meshes" / "chair" / "m" / "models").mkdir(parents=True)
    (tmp_path / "meshes" / "chair" / "m" / "models" / "model_normalized.obj").write_text("v 0 0 0\n")
    command = ["--shapenet_root", f"{tmp_path / 'meshes'}", "--out_root", root, "--workers", "1"]
    assert preprocess_shapenet.main(command) == cli.EXIT_USAGE
    assert "is packed" in capsys.readouterr().err
    assert contents(damaged.parent).keys() - before.keys() <= {"_splits/test.txt", "_splits/train.txt"}


def test_what_an_earlier_run_wrote_is_kept(twins: tuple[Path, Path], tmp_path: Path) -> None:
    """A shard, and leftovers of a run with other shards."""
    root, out = twins[0] / "cache", tmp_path / "cache"
    first = plan(root, "train", out / "train", 100_000)[0]
    (out / "train").mkdir(parents=True)
    write_shard(first)
    for other in ("shard-00077.tar", "shard-00077.json"):
        (out / "train" / other).write_bytes(b"of another size")
    before = first.shard.stat()
    assert packed(root, out) == cli.EXIT_OK
    assert first.shard.stat() == before
    assert contents(out) == contents(twins[1] / "cache")
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*.tar")}
    first.listing.write_bytes(b"of a run that was killed after the index")
    assert packed(root, out) == cli.EXIT_OK
    assert not first.listing.exists()
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.tar")} == times


def test_a_pack_that_is_not_whole_or_cut_otherwise_is_not_called_there(
    twins: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, out = twins[0] / "cache", tmp_path / "cache"
    shutil.copytree(twins[1] / "cache", out)
    assert packed(root, out, "--shard_mb", "500") == cli.EXIT_USAGE
    assert "has shards of another size" in capsys.readouterr().err
    (out / "train" / "shard-00001.tar").unlink()
    assert packed(root, out) == cli.EXIT_USAGE
    assert f"{out / 'train' / 'shard-00001.tar'} is missing or damaged" in capsys.readouterr().err


def test_files_that_changed_since_are_not_passed_over(
    twins: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, out = tmp_path / "files", tmp_path / "packed"
    shutil.copytree(twins[0] / "cache", root)
    job = plan(root, "test", out / "test", 100_000)[0]
    (out / "test").mkdir(parents=True)
    write_shard(job)
    changed = Path(job.source, job.members[0][0])
    changed.write_bytes(changed.read_bytes()[::-1])
    os.utime(changed, ns=(0, 1))
    assert packed(root, out) == cli.EXIT_OK
    with tarfile.open(job.shard) as archive:
        member = archive.extractfile(f"test/{job.members[0][0]}")
        assert member is not None and member.read() == changed.read_bytes()
    os.utime(changed, ns=(0, 2))
    assert packed(root, out) == cli.EXIT_USAGE
    assert "of other files, or they changed since" in capsys.readouterr().err
    with pytest.raises(CacheError, match="had 1 bytes when it was listed"):
        write_shard(type(job)(job.source, tmp_path / "s.tar", ((job.members[0][0], 1, 0),)))
    assert not (tmp_path / "s.tar").exists()


def test_kills_lose_nothing(twins: tuple[Path, Path], tmp_path: Path) -> None:
    """The process group is killed at random moments; the end is that of an undisturbed run."""
    rng = random.Random(0)
    command = [sys.executable, "-m", "nepa3d.data.pack", f"{twins[0] / 'cache'}", "--out", f"{tmp_path / 'cache'}"]
    command += ["--shard_mb", "0.1", "--workers", "1"]
    wanted = contents(twins[1] / "cache")
    for _ in range(6):
        known = names(tmp_path)
        process = subprocess.Popen(
            command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True
        )
        while not names(tmp_path) - known and process.poll() is None:
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.03))
        with contextlib.suppress(ProcessLookupError):  # it may have ended just before
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        there = {
            name: data for name, data in contents(tmp_path).items() if name.endswith(".tar") and ".tmp-" not in name
        }
        assert {name.removeprefix("cache/"): data for name, data in there.items()}.items() <= wanted.items()
    assert subprocess.run(command, check=False, capture_output=True).returncode == cli.EXIT_OK
    assert contents(tmp_path / "cache") == wanted


@pytest.mark.parametrize(
    ("flags", "fault"),
    [
        (["--out", "{root}/packed"], "out: expected a folder beside"),
        (["--out", "{root}/.."], "out: expected a folder beside"),
    ],
)
def test_requests_that_make_no_sense(
    twins: tuple[Path, Path], tmp_path: Path, flags: list[str], fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    root = twins[0] / "cache"
    assert packed(root, tmp_path / "out", *(flag.format(root=root) for flag in flags)) == cli.EXIT_USAGE
    assert fault in capsys.readouterr().err
    assert packed(tmp_path / "nowhere", tmp_path / "out") == cli.EXIT_USAGE
    assert "is not a folder" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
