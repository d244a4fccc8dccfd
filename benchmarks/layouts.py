"""A shape cache as files, as tar shards, and as shards of MosaicML's streaming: size, random and sequential reads."""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from tabulate import tabulate

from benchmarks import machine
from benchmarks.run import RESULTS
from nepa3d import cli
from nepa3d.corpora.packing import plan, write_index, write_shard
from nepa3d.corpora.shape_list import list_shapes
from nepa3d.execution.files import write_json
from nepa3d.samples.dataset import SampleSettings
from nepa3d.samples.loader import Request, training_batch
from nepa3d.shapes.packed import locate, open_place

BATCH = 96
SETTINGS = SampleSettings(n_point=256, n_ray=256, qa=True, eos=True)


@dataclass(frozen=True)
class Config:
    """Time reads of one cache in several layouts, with the files in memory and after dropping them from it.

    MosaicML's streaming is measured where it is installed (`pip install mosaicml-streaming`, best in an environment of
    its own). Answers are compared first: every layout gives the same bytes.

    Example: python -m benchmarks layouts data/demo_cache
    """

    cache_root: Annotated[Path, tyro.conf.Positional]
    """Cache whose split train is read."""
    shard_mb: float = 128.0
    """Size of a shard."""
    rounds: int = 3
    """Times each way is measured; the least is reported."""
    results: Path = RESULTS
    """Folder for layouts-<machine>.json."""


@dataclass(frozen=True)
class Layout:
    """A way to store a split: its files, how to read a shape's bytes by number, how to read all in order, and the paths
    for the loader, if it reads this layout."""

    name: str
    files: list[Path]
    read: Callable[[int], bytes]
    stream: Callable[[], Iterator[bytes]]
    paths: list[str] | None = None


def folder_of_files(paths: list[str]) -> Layout:
    """The cache as it is."""
    return Layout(
        "a file per shape",
        [Path(path) for path in paths],
        lambda row: Path(paths[row]).read_bytes(),
        lambda: (Path(path).read_bytes() for path in paths),
        paths,
    )


def tar_shards(root: Path, paths: list[str], out: Path, shard_mb: float) -> Layout:
    """What ``nepa3d pack`` writes; in order it is read as any tar, without the index."""
    import tarfile

    jobs = plan(root, "train", out / "train", round(shard_mb * 1e6))
    (out / "train").mkdir(parents=True)
    for job in jobs:
        write_shard(job)
    write_index(out / "train", jobs)
    packed = list_shapes(out, "train")

    def read(row: int) -> bytes:
        place = locate(packed[row])
        assert place is not None
        with open_place(place) as file:
            return file.read()

    def stream() -> Iterator[bytes]:
        for job in jobs:
            with tarfile.open(job.shard, "r|") as archive:
                for member in archive:
                    file = archive.extractfile(member)
                    assert file is not None
                    yield file.read()

    return Layout("tar shards", sorted((out / "train").iterdir()), read, stream, packed)


def mds_shards(paths: list[str], out: Path, shard_mb: float) -> Layout:
    """Shards of MosaicML's streaming, whose samples are read whole."""
    streaming: Any = importlib.import_module("streaming")
    with streaming.MDSWriter(
        out=f"{out}", columns={"name": "str", "npz": "bytes"}, size_limit=round(shard_mb * 1e6), hashes=["sha1"]
    ) as writer:
        for path in paths:
            writer.write({"name": path, "npz": Path(path).read_bytes()})
    dataset = streaming.LocalDataset(local=f"{out}")
    in_order = lambda: (dataset[row]["npz"] for row in range(len(paths)))  # noqa: E731
    return Layout("MDS shards", sorted(out.iterdir()), lambda row: bytes(dataset[row]["npz"]), in_order)


def forget(files: Sequence[Path]) -> None:
    """Drop the files from the page cache; names and attributes stay in memory."""
    for path in files:
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def timed(work: Callable[[], object], rounds: int, before: Callable[[], None]) -> tuple[float, float]:
    """The least seconds of ``work``, and of a processor in it."""
    taken = []
    for _ in range(rounds):
        before()
        begin = time.perf_counter(), time.process_time()
        work()
        taken.append((time.perf_counter() - begin[0], time.process_time() - begin[1]))
    return min(wall for wall, _ in taken), min(cpu for _, cpu in taken)


def measure(layout: Layout, count: int, rounds: int) -> dict[str, Any]:
    """Bytes, and milliseconds a shape of each way of reading, warm and cold."""
    order = np.random.default_rng(0).permutation(count)
    ways: dict[str, Callable[[], object]] = {
        "one shape's bytes, at random": lambda: [layout.read(int(row)) for row in order],
        "all bytes in order": lambda: sum(len(data) for data in layout.stream()),
    }
    if layout.paths is not None:
        requests = [Request(layout.paths[row], "mesh", SETTINGS) for row in order]
        starts = range(0, count, BATCH)
        ways["training samples at random"] = lambda: [
            training_batch(requests[i : i + BATCH], 0, 0, range(i, min(i + BATCH, count)), threads=1) for i in starts
        ]
    row: dict[str, Any] = {
        "layout": layout.name,
        "files": len(layout.files),
        "bytes": sum(path.stat().st_size for path in layout.files),
    }
    for name, way in ways.items():
        for state, before in (("warm", lambda: None), ("cold", lambda: forget(layout.files))):
            print(f"  {layout.name}: {name}, {state}", file=sys.stderr, flush=True)
            wall, cpu = timed(way, rounds, before)
            row[f"{name}, {state}"], row[f"{name}, {state}, processor"] = wall / count * 1e3, cpu / count * 1e3
    return row


def command(config: Config) -> None:
    """Write the layouts beside each other, compare and time them; see ``Config``."""
    paths = list_shapes(config.cache_root, "train")
    with tempfile.TemporaryDirectory() as folder:
        layouts = [folder_of_files(paths), tar_shards(config.cache_root, paths, Path(folder, "tar"), config.shard_mb)]
        if importlib.util.find_spec("streaming"):
            layouts.append(mds_shards(paths, Path(folder, "mds"), config.shard_mb))
        os.sync()  # what is not on disk cannot be dropped from memory
        for row in (0, len(paths) // 2, len(paths) - 1):
            if len({layout.read(row) for layout in layouts}) > 1:
                raise ValueError(f"{paths[row]}: the layouts give different bytes")
        rows = [measure(layout, len(paths), config.rounds) for layout in layouts]
    names = list(dict.fromkeys(name for row in rows for name in row))
    print(
        tabulate(
            [[name, *(row.get(name, "-") for row in rows)] for name in names[1:]],
            ["", *(r["layout"] for r in rows)],
            floatfmt=".3g",
        )
    )
    path = config.results / f"layouts-{machine.slug()}.json"
    write_json(path, {**machine.describe(), "shapes": len(paths), "unit": "ms a shape", "rows": rows})
    print(f"wrote {path}")


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(Config, command, argv)
