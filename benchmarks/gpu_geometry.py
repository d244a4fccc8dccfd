"""The geometry on a GPU over batches of shapes: microseconds a shape, of answers that were compared first."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from tabulate import tabulate
from torch import Tensor

from benchmarks import machine
from benchmarks.gpu_peers import PEERS
from benchmarks.inputs import Inputs, MeshFile, inputs_of, subdivide
from benchmarks.run import RESULTS
from nepa3d import cli, ops
from nepa3d.execution.files import write_json
from nepa3d.ops import cuda, cuda_grids, cuda_orders
from nepa3d.shapes.mesh import Mesh, load_mesh
from nepa3d.shapes.query_pools import PoolSettings

MAY_DIFFER = 1e-3  # of a peer's answers: rays that graze an edge
Answer = tuple[Any, ...]  # of tensors
Ragged = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Config:
    """Time every operation of nepa3d.ops.cuda over a batch of shapes, where its answers have the bits of the CPU's.

    Ends with status 3 if an answer differs. On the CPU the same thread functions run one after the other, which shows
    that the command works and nothing about speed.

    Example: python -m benchmarks gpu_geometry --meshes demo/full/corpus
    """

    meshes: Path
    """Folder with OBJ files."""
    device: Literal["cuda", "cpu"] = "cuda"
    """Where to run."""
    shapes: int = 64
    """Shapes of a batch."""
    faces: tuple[int, ...] = (1_000, 10_000, 60_000)
    """Least triangles of the meshes of a batch; smaller ones are subdivided."""
    points: int = 8192
    """Points of a cloud."""
    queries: int = 20_000
    """Queries of a shape."""
    rays: int = 8000
    """Rays of a shape."""
    grid: int = 64
    """Side of the grids, in cells."""
    rounds: int = 20
    """Timed calls of each operation."""
    peers: bool = True
    """Time other libraries, too, those that can be imported."""
    results: Path = RESULTS
    """Folder for gpu_geometry-<device>.json."""

    def __post_init__(self) -> None:
        for name in ("shapes", "points", "queries", "rays", "grid", "rounds"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not self.faces or min(self.faces) < 1:
            raise ValueError(f"faces must be one or more positive numbers, got {self.faces}")


@dataclass(frozen=True)
class Case:
    """One operation over a batch."""

    name: str
    run: Callable[[], Answer]
    """The batch's answer: tensors by row, or by shape."""
    expected: Callable[[Inputs], tuple[np.ndarray, ...]]
    """The core's answer for one shape."""
    counts: Sequence[int]
    """Rows of each shape."""
    peer: tuple[str, tuple[Ragged, ...]] | None = None
    """What other libraries are asked, a key of ``gpu_peers.PEERS``, and of which arrays."""


@dataclass(frozen=True)
class Row:
    """What was found of one operation; no times where its answer differs."""

    name: str
    equal: bool
    microseconds: list[float]
    """A shape, by round."""
    peers: dict[str, float | str]
    """Median of each peer's microseconds a shape, or why there are none."""

    @property
    def median(self) -> float | None:
        return statistics.median(self.microseconds) if self.microseconds else None


def joined(rows: Sequence[np.ndarray], device: str) -> Ragged:
    """The rows of all shapes, and where each shape's begin."""
    offsets = torch.tensor([0, *itertools.accumulate(map(len, rows))], dtype=torch.int32)
    return torch.from_numpy(np.concatenate(rows)).to(device), offsets.to(device)


def find_meshes(config: Config) -> list[Mesh]:
    """The first meshes of the folder; fewer than a batch's shapes take turns."""
    files = sorted(config.meshes.rglob("*.obj"))[: config.shapes]
    if not files:
        raise ValueError(f"meshes: expected a folder with OBJ files, got {config.meshes}")
    found = [load_mesh(path) for path in files]
    return [found[i % len(found)] for i in range(config.shapes)]


def make_batch(config: Config, meshes: Sequence[Mesh], faces: int) -> list[Inputs]:
    """What is asked of each mesh, subdivided until it has ``faces`` triangles."""
    settings = PoolSettings(
        pt_pool=config.queries, ray_pool=config.rays, dist_ref_points=config.points, df_grid=config.grid
    )
    batch = []
    for number, mesh in enumerate(meshes):
        vertices, triangles = mesh.vertices.astype(np.float64), mesh.faces
        while len(triangles) < faces:
            vertices, triangles = subdivide(vertices, triangles)
        finer = Mesh(vertices.astype(np.float32), triangles, mesh.dropped)
        batch.append(inputs_of(MeshFile(f"{number}", Path(), len(triangles)), finer, settings))
    return batch


def mesh_cases(batch: Sequence[Inputs], device: str, label: str) -> list[Case]:
    """The operations whose time depends on the meshes."""
    vertices = joined([shape.mesh.vertices for shape in batch], device)
    faces = joined([shape.mesh.faces.astype(np.int32) for shape in batch], device)
    queries = joined([shape.queries for shape in batch], device)
    origins = joined([shape.origins for shape in batch], device)
    directions = joined([shape.directions for shape in batch], device)
    numbers = [np.random.default_rng(i).random((len(shape.reference), 3), np.float32) for i, shape in enumerate(batch)]
    drawn = {id(shape): uniforms for shape, uniforms in zip(batch, numbers, strict=True)}
    uniforms = joined(numbers, device)
    built = cuda.build_meshes(*vertices, *faces)

    def tree(shape: Inputs) -> ops.TriangleBvh:
        return ops.TriangleBvh(shape.mesh.vertices, shape.mesh.faces)

    asked = [len(shape.queries) for shape in batch]
    return [
        Case(f"trees, {label}", lambda: cuda.build_bvh(*vertices, *faces)[:0], lambda shape: (), asked),
        Case(
            f"closest points, {label}",
            lambda: tuple(built.closest_point(*queries)),
            lambda shape: tuple(tree(shape).closest_point(shape.queries)),
            asked,
            ("closest points", (vertices, faces, queries)),
        ),
        Case(
            f"first hits, {label}",
            lambda: tuple(built.cast_rays(origins[0], *directions)),
            lambda shape: tuple(tree(shape).cast_rays(shape.origins, shape.directions)),
            [len(shape.origins) for shape in batch],
            ("first hits", (vertices, faces, origins, directions)),
        ),
        Case(
            f"surface samples, {label}",
            lambda: cuda.surface_samples(*vertices, *faces, *uniforms)[:3],
            lambda shape: tuple(ops.sample_surface(shape.mesh.vertices, shape.mesh.faces, drawn[id(shape)])),
            [len(part) for part in numbers],
        ),
    ]


def cloud_cases(batch: Sequence[Inputs], device: str, config: Config) -> list[Case]:
    """The operations whose time does not depend on the meshes."""
    queries = joined([shape.queries for shape in batch], device)
    reference = joined([shape.reference for shape in batch], device)
    surface = joined([shape.surface for shape in batch], device)
    origins = joined([shape.origins for shape in batch], device)
    directions = joined([shape.directions for shape in batch], device)
    occupied = torch.from_numpy(np.stack([shape.occupancy for shape in batch])).to(device)
    distance = torch.from_numpy(np.stack([shape.distance for shape in batch])).to(device)
    asked, rays, each = [len(shape.queries) for shape in batch], [len(s.origins) for s in batch], [1] * len(batch)
    side, spacing = config.grid, 2 / config.grid

    def nearest(name: str, search: Callable[..., Answer], points: Ragged, field: str) -> Case:
        return Case(
            f"nearest, {name}",
            lambda: tuple(search(*points, *queries)),
            lambda shape: tuple(ops.nearest_distance(getattr(shape, field), shape.queries)),
            asked,
            ("nearest", (points, queries)),
        )

    return [
        nearest(f"{config.points} points", cuda.nearest_distance, reference, "reference"),
        nearest(f"{config.points} points, one by one", cuda.nearest, reference, "reference"),
        nearest("surface", cuda.nearest_distance, surface, "surface"),
        nearest("surface, one by one", cuda.nearest, surface, "surface"),
        Case(
            "voxelize and dilate",
            lambda: (cuda_grids.voxelize(*surface, side, 1),),
            lambda shape: (ops.voxelize(shape.surface, side, 1)[None],),
            each,
        ),
        Case(
            "distance transform",
            lambda: (cuda_grids.distance_transform(occupied, spacing),),
            lambda shape: (ops.distance_transform(shape.occupancy, spacing)[None],),
            each,
        ),
        Case(
            "trilinear",
            lambda: (cuda_grids.trilinear_sample(distance, *queries),),
            lambda shape: (ops.trilinear_sample(shape.distance, shape.queries),),
            asked,
        ),
        Case(
            "voxel walk",
            lambda: tuple(cuda_grids.voxel_first_hit(occupied, origins[0], *directions)),
            lambda shape: tuple(ops.voxel_first_hit(shape.occupancy, shape.origins, shape.directions)),
            rays,
        ),
        Case(
            "Morton order",
            lambda: (cuda_orders.morton_order(*queries),),
            lambda shape: (ops.morton_order(shape.queries),),
            asked,
        ),
        Case(
            "ray order",
            lambda: (cuda_orders.ray_direction_order(*directions),),
            lambda shape: (ops.ray_direction_order(shape.directions),),
            rays,
        ),
    ]


def is_equal(case: Case, batch: Sequence[Inputs]) -> bool:
    """Whether the batch's answer has the core's bits, shape by shape."""
    ends = np.cumsum(case.counts)[:-1]
    found = [np.split(values.cpu().numpy(), ends) for values in case.run()]
    for number, shape in enumerate(batch):
        expected = case.expected(shape)
        parts = [values[number] for values in found]
        if len(parts) != len(expected):
            return False
        for part, wanted in zip(parts, expected, strict=True):
            if (part.shape, part.dtype) != (wanted.shape, wanted.dtype) or part.tobytes() != wanted.tobytes():
                return False
    return True


def time_calls(run: Callable[[], Any], rounds: int, shapes: int, device: str) -> list[float]:
    """Microseconds a shape of each call, to the end of what it launched; the first two calls do not count."""
    wait: Callable[[], None] = torch.cuda.synchronize if device == "cuda" else lambda: None
    taken = []
    for _ in range(rounds + 2):
        wait()
        begin = time.perf_counter()
        run()
        wait()
        taken.append(1e6 * (time.perf_counter() - begin) / shapes)
    return taken[2:]


def measure(case: Case, batch: Sequence[Inputs], config: Config) -> Row:
    """Compare, then time; a peer's answer is compared by its distances."""
    if not is_equal(case, batch):
        return Row(case.name, False, [], {})
    taken = time_calls(case.run, config.rounds, len(batch), config.device)
    peers: dict[str, float | str] = {}
    if case.peer and config.peers:
        kind, arrays = case.peer
        ours = case.run()[0]
        for name, make in PEERS[kind].items():
            try:
                run = make(*arrays)
            except ImportError as error:
                peers[name] = f"{error}"
                continue
            wrong = differing(run(), ours)
            if wrong > MAY_DIFFER:
                peers[name] = f"differs in {wrong:.2%} of the answers"
            else:
                peers[name] = statistics.median(time_calls(run, min(config.rounds, 3), len(batch), config.device))
    return Row(case.name, True, taken, peers)


def differing(found: Tensor, ours: Tensor) -> float:
    """The share of distances that are not the same to 1e-4; infinite ones, of rays that hit nothing, are equal."""
    return float(((found - ours).abs() > 1e-4).logical_or(found.isfinite() != ours.isfinite()).float().mean())


def command(config: Config) -> int:
    """``measure`` for every operation, a table, and the results' file, which is written after each; see ``Config``."""
    if config.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device: there is no GPU that torch can use (nepa3d doctor says what is there), got cuda")
    device = torch.cuda.get_device_name() if config.device == "cuda" else "cpu"
    path = config.results / f"gpu_geometry-{device.lower().replace(' ', '-')}.json"
    used = {name: value for name, value in asdict(config).items() if name not in ("results", "meshes")}
    about = {"device": device, "torch": torch.__version__, **machine.describe(), "config": used}
    meshes, rows = find_meshes(config), list[Row]()
    for number, faces in enumerate(config.faces):
        batch = make_batch(config, meshes, faces)
        cases = mesh_cases(batch, config.device, f"{faces} faces")
        for case in [*([] if number else cloud_cases(batch, config.device, config)), *cases]:
            rows.append(measure(case, batch, config))
            print(line(rows[-1]), flush=True)
            write_json(path, {**about, "rows": [{**asdict(row), "median": row.median} for row in rows]})
    print(tabulate([(row.name, told(row), *row.peers.items()) for row in rows], ("operation", "us a shape", "peers")))
    print(f"{device}, commit {about['commit']}, batches of {config.shapes}: {path}")
    return cli.EXIT_OK if all(row.equal for row in rows) else cli.EXIT_SOME_FAILED


def told(row: Row) -> str:
    return "ANSWERS DIFFER" if row.median is None else f"{row.median:.2f}"


def line(row: Row) -> str:
    return f"{row.name}: {told(row)} us a shape{''.join(f', {name} {value}' for name, value in row.peers.items())}"


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(Config, command, argv)
