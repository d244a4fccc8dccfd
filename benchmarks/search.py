"""Search among very many vectors: every one compared, or an approximate index and the share of neighbours it finds."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tabulate import tabulate

from benchmarks import machine
from benchmarks.run import RESULTS
from nepa3d import cli
from nepa3d.execution.files import write_json
from nepa3d.inference.table import Row, ShapeTable

K = 10
GROUPS = 1000
SPREAD = 0.5  # of a group, where its centre has length 1
PART = 100_000  # rows written at once

Float = NDArray[np.float32]


@dataclass(frozen=True)
class Config:
    """Time single queries among N unit vectors in a table of an index, exactly and with the approximate index.

    Example: python -m benchmarks search --sizes 100000
    """

    sizes: tuple[int, ...] = (100_000, 1_000_000)
    """Numbers of vectors."""
    width: int = 128
    """Width of a vector."""
    queries: int = 50
    """Queries, one at a time."""
    probes: tuple[int, ...] = (0, 10, 40)
    """Cells that the approximate index looks into; 0: LanceDB's choice."""
    work: Path = Path("data/bench")
    """Folder in which a temporary one holds the tables."""
    results: Path = RESULTS
    """Folder for search-<machine>.json."""

    def __post_init__(self) -> None:
        for name in ("sizes", "probes"):
            least = 1000 if name == "sizes" else 0
            if not getattr(self, name) or min(getattr(self, name)) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")


@dataclass(frozen=True)
class Line:
    """One way to search one table. Times are seconds of the wall and of this process's processors, a query."""

    vectors: str
    count: int
    way: str
    median: float
    slowest: float
    cpu: float
    recall: float
    build: float
    """Seconds to write the table, or to make the index."""


def random_vectors(count: int, width: int, rng: np.random.Generator) -> Float:
    """Unit vectors (count, width), uniform in direction."""
    return _unit(rng.standard_normal((count, width), np.float32))


def grouped_vectors(count: int, width: int, rng: np.random.Generator) -> Float:
    """Unit vectors (count, width) about centres that are uniform in direction."""
    centres = random_vectors(GROUPS, width, rng)
    found = centres[rng.integers(GROUPS, size=count)]
    found += rng.standard_normal((count, width), np.float32) * np.float32(SPREAD / np.sqrt(width))
    return _unit(found)


KINDS: dict[str, Callable[[int, int, np.random.Generator], Float]] = {
    "random": random_vectors,
    "in groups": grouped_vectors,
}


def measure(kind: str, count: int, config: Config, folder: Path) -> list[Line]:
    """The lines of one table. ``ValueError`` where exact answers are not those of NumPy."""
    rng = np.random.default_rng(0)
    everything = KINDS[kind](count + config.queries, config.width, rng)
    vectors, queries = everything[:count], everything[count:]
    table = ShapeTable.create(folder / f"{kind.replace(' ', '-')}-{count}.lance", config.width, {}, {})
    begin = time.perf_counter()
    for start in range(0, count, PART):
        rows = [Row(f"{row:07d}", f"{row:07d}", "", "", 0, 0) for row in range(start, min(count, start + PART))]
        table.put(rows, vectors[start : start + PART])
    table.tidy()
    written = time.perf_counter() - begin
    truth = [exact(vectors, query) for query in queries]
    lines = [Line(kind, count, "NumPy, in memory", *timed(lambda query: exact(vectors, query), queries), 1.0, 0.0)]

    def found(query: Float, probes: int | None) -> list[int]:
        hits = table.nearest(query[None], K, approximate=probes is not None, probes=probes or 0)
        return [int(row.path) for row in hits.rows[0]]

    for query, near in zip(queries, truth, strict=True):
        ours = found(query, None)
        if not np.allclose(vectors[ours] @ query, vectors[near] @ query, atol=1e-5):
            raise ValueError(f"ANSWERS DIFFER: {kind}, {count}: {ours} and {near}")
    lines.append(Line(kind, count, "exact", *timed(lambda query: found(query, None), queries), 1.0, written))
    begin = time.perf_counter()
    table.train()
    made = time.perf_counter() - begin
    for probes in config.probes:
        shares = [len({*found(query, probes)} & {*near}) / K for query, near in zip(queries, truth, strict=True)]
        times = timed(lambda query, probes=probes: found(query, probes), queries)  # type: ignore[misc]
        way = f"approximate, {probes or 'LanceDB chooses'} cells"
        lines.append(Line(kind, count, way, *times, float(np.mean(shares)), made))
    return lines


def exact(vectors: Float, query: Float) -> list[int]:
    """The rows of the K largest cosines, the largest first."""
    cosines = vectors @ query
    top = np.argpartition(-cosines, K)[:K]
    return [int(row) for row in top[np.argsort(-cosines[top])]]


def timed(search: Callable[[Float], object], queries: Float) -> tuple[float, float, float]:
    """Median and largest time of a query, and mean time of the processors, in seconds."""
    seconds = []
    cpu = time.process_time()
    for query in queries:
        begin = time.perf_counter()
        search(query)
        seconds.append(time.perf_counter() - begin)
    return float(np.median(seconds)), max(seconds), (time.process_time() - cpu) / len(queries)


def cells(lines: Sequence[Line]) -> list[tuple[str, ...]]:
    """The table's cells."""
    return [
        (
            line.vectors,
            f"{line.count:,}",
            line.way,
            f"{line.median * 1e3:.1f}",
            f"{line.cpu * 1e3:.1f}",
            f"{line.recall:.3f}",
            f"{line.build:.1f}" if line.build else "",
        )
        for line in lines
    ]


def command(config: Config) -> None:
    """Measure, print the table, write JSON; see ``Config``."""
    config.work.mkdir(parents=True, exist_ok=True)
    lines: list[Line] = []
    for count in config.sizes:
        for kind in KINDS:
            with tempfile.TemporaryDirectory(dir=config.work) as folder:
                lines += measure(kind, count, config, Path(folder))
            heads = ("vectors", "number", "way", "ms a query", "CPU ms", "recall@10", "s to make")
            print(tabulate(cells(lines), heads, disable_numparse=True), flush=True)
    path = config.results / f"search-{machine.slug()}.json"
    write_json(path, {**machine.describe(), "width": config.width, "k": K, "lines": [asdict(line) for line in lines]})
    print(f"wrote {path}")


def _unit(vectors: Float) -> Float:
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m benchmarks search``."""
    return cli.run(Config, command, argv)
