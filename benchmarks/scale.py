"""What lists, indexes and tables take at a million shapes and more: the memory and time of each, measured alone."""

from __future__ import annotations

import json
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tabulate import tabulate

from benchmarks import machine
from benchmarks.run import RESULTS
from nepa3d import cli
from nepa3d.corpora import shape_list
from nepa3d.corpora.objects import objects_of
from nepa3d.corpora.packing import ShardJob, write_index
from nepa3d.corpora.preprocess_meshes import ShapeJob
from nepa3d.corpora.shape_list import list_shapes, open_shapes
from nepa3d.corpora.splits import mesh_test_split, stratified_validation
from nepa3d.execution.files import read_json, write_json, write_npz
from nepa3d.execution.processes import Task
from nepa3d.probes.ranking import rank_true_items
from nepa3d.samples.dataset import SampleSettings
from nepa3d.samples.mixes import draw_mixture
from nepa3d.shapes.packed import DIGEST_BYTES, FORMAT, INDEX, compiled_places, pack_of
from nepa3d.shapes.query_pools import PoolSettings
from nepa3d.train.corpus import Corpus, Part

CLASSES = 1000
IN_A_SHARD = 280  # of 1.83 MB in 512 MB
WIDTH = 384
QUERIES = 64
FORK = multiprocessing.get_context("fork")
SETTINGS = SampleSettings(n_point=256, n_ray=256, qa=True, eos=True)

Work = Callable[[int, Path], dict[str, float]]


@dataclass(frozen=True)
class Config:
    """Make lists of simulated shapes ("class/32 hexadecimal digits") and measure what the package's tables take.

    Each table is made in a process of its own. Memory is what that process grew by at its peak while it made the
    table; seconds are of a processor.

    Example: python -m benchmarks scale --shapes 1000000
    """

    shapes: tuple[int, ...] = (100_000, 1_000_000, 10_000_000)
    """Numbers of shapes."""
    only: str = ""
    """A part of the names of the tables to measure; empty: all."""
    memory_gb: float = 12.0
    """Address space of a process, above which its table ends."""
    minutes: float = 5.0
    """Time after which a table ends."""
    results: Path = RESULTS
    """Folder for scale-<machine>.json."""


def names_of(count: int) -> list[str]:
    """Simulated shapes "class/id", sorted: a class of 5 characters and 32 hexadecimal digits."""
    return [f"c{i * CLASSES // count:04d}/{i:032x}" for i in range(count)]


def name_bytes(count: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The same with ".npz" as one block of bytes (B,) and the ends of the names (N,)."""
    digits = np.frombuffer(b"0123456789abcdef", np.uint8)
    block = np.full((count, len("c0000/") + 32 + len(".npz")), ord("0"), np.uint8)
    block[:, 0], block[:, 5], block[:, -4:] = ord("c"), ord("/"), np.frombuffer(b".npz", np.uint8)
    number = np.arange(count)
    for place in range(4):
        block[:, 4 - place] = digits[number * CLASSES // count // 10**place % 10]
    for place in range(8):
        block[:, 37 - place] = digits[number >> 4 * place & 15]
    return block.reshape(-1), np.arange(1, count + 1) * block.shape[1]


def clock(work: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    """What ``work`` gives, the seconds of a processor it took, and by how much the process grew at its peak."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # from here on, the peak is that of the work
    before, begin = status_mb("VmRSS"), time.process_time()
    made = work()
    seconds = time.process_time() - begin
    return made, {"peak_MB": status_mb("VmHWM") - before, "seconds": seconds}


def status_mb(key: str) -> float:
    """A size of this process, in MB: VmRSS, or VmHWM, which is its peak."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(key)) * 1024 / 1e6


def shape_index(count: int, folder: Path) -> dict[str, float]:
    """The list of a split of files, as it is kept and mapped."""
    names, ends = name_bytes(count)
    classes = [f"c{i:04d}" for i in range(CLASSES)]
    for name in classes:
        (folder / "train" / name).mkdir(parents=True)
    times = shape_list._times(f"{folder / 'train'}", classes)
    assert times is not None
    index = folder / "_meta" / "index_train.npz"
    arrays: dict[str, NDArray] = {"names": names, "ends": ends, "times": times, "made": times[:1] + 10**13}
    write_npz(index, arrays | {"classes": np.frombuffer("\0".join(classes).encode(), np.uint8)})
    found, row = clock(lambda: open_shapes(folder, "train"))
    rows = np.random.default_rng(0).integers(0, count, 1000)
    _, lookups = clock(lambda: [found[int(row)] for row in rows])
    return {**row, "us_each": lookups["seconds"] * 1e3, "file_MB": index.stat().st_size / 1e6}


def mapped_list(count: int, folder: Path) -> dict[str, float]:
    """What a training process holds of a packed split: the index, mapped, and the places of a batch."""
    split = simulated_pack(count, folder)
    shapes, row = clock(lambda: open_shapes(folder, "train"))
    rows = np.random.default_rng(0).integers(0, count, 1000)
    _, lookups = clock(lambda: compiled_places([shapes[int(row)] for row in rows]))
    return {**row, "us_each": lookups["seconds"] * 1e3, "file_MB": (split / "pack.npz").stat().st_size / 1e6}


def simulated_pack(count: int, folder: Path) -> Path:
    """The index of a packed split of ``count`` shapes, without shards."""
    names, ends = name_bytes(count)
    number = np.arange(count)
    size = 1_832_494
    arrays: dict[str, NDArray] = {
        "format": np.array([FORMAT]),
        "names": names,
        "ends": ends,
        "shard": (number // IN_A_SHARD).astype(np.int32),
        "offset": 512 + number % IN_A_SHARD * (size + 978),
        "size": np.full(count, size),
        "modified": number,
        "digest": np.zeros((count, DIGEST_BYTES), np.uint8),
        "shard_size": np.full(-(-count // IN_A_SHARD), 512 + IN_A_SHARD * (size + 978)),
    }
    write_npz(folder / "train" / INDEX, arrays)
    return folder / "train"


def pack_index(count: int, folder: Path) -> dict[str, float]:
    """What ``nepa3d pack`` holds: every member with its size and time, its listings, and the index."""
    split = folder / "train"
    split.mkdir(parents=True, exist_ok=True)

    def packed() -> None:
        times = range(1_700_000_000_000_000_000, 1_700_000_000_000_000_000 + count)
        members = [(f"{name}.npz", 1_832_494, time) for name, time in zip(names_of(count), times, strict=True)]
        jobs: list[ShardJob] = []
        for begin in range(0, count, IN_A_SHARD):
            own = tuple(members[begin : begin + IN_A_SHARD])
            job = ShardJob(f"{split}", split / f"shard-{len(jobs):05d}.tar", own)
            offsets = [512 + 1_833_472 * i for i in range(len(own))]
            total = offsets[-1] + 1_833_472
            job.listing.write_text(
                json.dumps({"offsets": offsets, "digests": ["00" * 32] * len(own), "bytes": total}), encoding="utf-8"
            )
            jobs.append(job)
        write_index(split, jobs)

    _, row = clock(packed)
    return {**row, "file_MB": (split / "pack.npz").stat().st_size / 1e6}


def plain_list(count: int, folder: Path) -> dict[str, float]:
    """The paths of a packed split as Python strings, which probes and `verify` take."""
    simulated_pack(count, folder)
    paths, row = clock(lambda: list_shapes(folder, "train"))
    assert pack_of(folder / "train") is not None and len(paths) == count
    return row


def preprocessing_jobs(count: int, folder: Path) -> dict[str, float]:
    """The jobs of one process of `preprocess-meshes`, before it starts its workers."""
    settings = PoolSettings()

    def made() -> list[Any]:
        jobs = [
            ShapeJob(name, Path("/meshes", f"{name}.glb"), folder / f"{name}.npz", settings, 0, 20_000_000)
            for name in names_of(count)
        ]
        return [Task(job.key, job) for job in jobs]

    _, row = clock(made)
    return row


def test_split(count: int, folder: Path) -> dict[str, float]:
    """The test split by hashes."""
    names = names_of(count)
    _, row = clock(lambda: mesh_test_split(names, 0.1, 0))
    return row


def validation(count: int, folder: Path) -> dict[str, float]:
    """The stratified validation set of fine-tuning."""
    names = [f"/cache/train/{name}.npz" for name in names_of(count)]
    _, row = clock(lambda: stratified_validation(names, 0.1, 0))
    return row


def objects(count: int, folder: Path) -> dict[str, float]:
    """The list of the objects of a split, read."""
    names = names_of(count)
    file = folder / "_meta" / "objects_train.json"
    write_json(file, {name: name for name in names})
    paths = [f"{folder}/train/{name}.npz" for name in names]
    _, row = clock(lambda: objects_of(folder, "train", paths))
    return {**row, "file_MB": file.stat().st_size / 1e6}


def epoch_order(count: int, folder: Path) -> dict[str, float]:
    """The order of an epoch of one corpus."""
    corpus = Corpus((Part("train", range(count), "mesh", SETTINGS),), 0)  # type: ignore[arg-type]
    _, row = clock(lambda: corpus.epoch(1))
    return row


def mixed_epoch(count: int, folder: Path) -> dict[str, float]:
    """As many draws from a mix of three parts, with replacement."""
    _, row = clock(lambda: np.asarray(draw_mixture([count // 3] * 3, [1.0] * 3, count, 0, 1, replacement=True)))
    return row


def mixed_epoch_without(count: int, folder: Path) -> dict[str, float]:
    """The same without replacement."""
    sizes = [-(-count // 3)] * 3
    _, row = clock(lambda: np.asarray(draw_mixture(sizes, [1.0] * 3, count, 0, 1, replacement=False)))
    return row


def retrieval(count: int, folder: Path) -> dict[str, float]:
    """The ranks of 64 queries among embeddings of width 384."""
    gallery = np.random.default_rng(0).standard_normal((count, WIDTH), np.float32)
    truth = np.arange(QUERIES, dtype=np.int64)
    _, row = clock(lambda: rank_true_items(gallery[:QUERIES], gallery, truth))
    return {**row, "us_each": row["seconds"] / QUERIES * 1e6, "file_MB": gallery.nbytes / 1e6}


TABLES: dict[str, Work] = {
    "list of files (mapped index)": shape_index,
    "packed index (mapped) and places": mapped_list,
    "nepa3d pack: members and index": pack_index,
    "list of paths as strings": plain_list,
    "preprocessing: jobs of a process": preprocessing_jobs,
    "test split by hashes": test_split,
    "validation set": validation,
    "objects (JSON)": objects,
    "order of an epoch": epoch_order,
    "draws of a mix": mixed_epoch,
    "draws of a mix without replacement": mixed_epoch_without,
    "retrieval: ranks of 64 queries": retrieval,
}


def alone(name: str, count: int, memory_gb: float, out: Path) -> None:
    """Measure one table in this process and write the row as JSON."""
    limit = round(memory_gb * 1e9)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    with tempfile.TemporaryDirectory() as folder:
        try:
            row: dict[str, Any] = TABLES[name](count, Path(folder))
        except (MemoryError, ValueError):  # the latter where an index could not be made
            row = {"ended_at_GB": memory_gb}
    write_json(out, {"table": name, "shapes": count, **row})


def measured(name: str, count: int, config: Config) -> dict[str, Any]:
    """A table's row, from a process of its own, which has the imports of this one."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "row.json")
        process = FORK.Process(target=alone, args=(name, count, config.memory_gb, out))
        process.start()
        process.join(60 * config.minutes)
        if process.is_alive():
            process.kill()
            process.join()
            return {"table": name, "shapes": count, "ended_after_minutes": config.minutes}
        return read_json(out) if out.exists() else {"table": name, "shapes": count, "ended_at_GB": config.memory_gb}


def command(config: Config) -> None:
    """Measure each table at each size, print them and write JSON; see ``Config``."""
    rows = []
    for name in (name for name in TABLES if config.only in name):
        for count in config.shapes:
            rows.append(measured(name, count, config))
            print(f"  {rows[-1]}", file=sys.stderr, flush=True)
            if not {"ended_at_GB", "ended_after_minutes"}.isdisjoint(rows[-1]):
                break
    print(tabulate(rows, headers="keys", floatfmt=".3g"))
    path = config.results / f"scale-{machine.slug()}{'-partial' if config.only else ''}.json"
    write_json(path, {**machine.describe(), "rows": rows})
    print(f"wrote {path}")


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(Config, command, argv)
