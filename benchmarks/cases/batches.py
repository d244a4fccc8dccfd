"""Batches of training samples from cache files that lie in memory, of each view and both forms of file."""

from __future__ import annotations

import atexit
import tempfile
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.agreement import same_tokens
from benchmarks.cases.grids import compile_walk, with_normals
from benchmarks.cases.ordering import numpy_morton_order
from benchmarks.harness import Contender, Row, case
from benchmarks.inputs import Float, Inputs
from nepa3d import ops
from nepa3d.execution.files import write_npz
from nepa3d.samples import schema, tokenizer
from nepa3d.samples.dataset import SampleSettings
from nepa3d.samples.draws import TrainingDraws
from nepa3d.samples.loader import Batch, Request, training_batch
from nepa3d.shapes.answers import with_stored_rays, without_rays
from nepa3d.shapes.mesh import load_mesh
from nepa3d.shapes.query_pools import PoolSettings, build_pools
from nepa3d.shapes.views import ShapeAnswers

SHAPES = 32
SHAPES_VOXEL = 4  # a plain one takes a quarter of a second
SETTINGS = SampleSettings(n_point=256, n_ray=256, qa=True, eos=True)
GRID = SETTINGS.voxel.grid

Arrays = dict[str, NDArray]
View = Callable[[Arrays], ShapeAnswers]


def batch_row(backend: str, inputs: Inputs, threads: int, *, deflate: bool = False) -> Row:
    """``training_batch`` beside reading every member, making the view of whole pools, and sampling it in NumPy."""
    paths = cache_files(inputs.file.path, deflate)[: SHAPES_VOXEL if backend == "voxel" else SHAPES]
    requests = [Request(path, backend, SETTINGS) for path in paths]
    peers = {"numpy": lambda: Contender(lambda: plain_batch(paths, PLAIN[backend]))}
    if backend == "voxel":
        peers["numba+scipy"] = lambda: Contender(partial(plain_batch, paths, partial(voxel_view, compile_walk())))
    return Row(
        size={"samples": len(paths), "tokens": SETTINGS.length},
        ours=Contender(lambda: training_batch(requests, 0, 0, range(len(paths)), threads=threads)),
        peers=peers,
        compare=same_tokens,
    )


@case("batch, mesh view", threaded=True)
def mesh_batch(inputs: Inputs, threads: int) -> Row:
    return batch_row("mesh", inputs, threads)


@case("batch, mesh view, deflated files", threaded=True)
def deflated_batch(inputs: Inputs, threads: int) -> Row:
    return batch_row("mesh", inputs, threads, deflate=True)


@case("batch, point cloud without rays", threaded=True)
def cloud_batch(inputs: Inputs, threads: int) -> Row:
    return batch_row("pointcloud_noray", inputs, threads)


@case("batch, distance field view", threaded=True)
def field_batch(inputs: Inputs, threads: int) -> Row:
    return batch_row("udfgrid", inputs, threads)


@case("batch, voxel view", threaded=True)
def voxel_batch(inputs: Inputs, threads: int) -> Row:
    return batch_row("voxel", inputs, threads)


@lru_cache
def cache_files(mesh_file: Path, deflate: bool) -> list[str]:
    """Cache files of one mesh at the default settings, each with samples of its own, until the process ends."""
    folder = tempfile.TemporaryDirectory(prefix="nepa3d-bench-")
    atexit.register(folder.cleanup)
    mesh = load_mesh(mesh_file)
    paths = [f"{folder.name}/{seed:03d}.npz" for seed in range(SHAPES)]
    for seed, path in enumerate(paths):
        write_npz(path, build_pools(mesh, PoolSettings(), seed, "bench"), deflate=deflate)
    return paths


def plain_batch(paths: list[str], view: View) -> Batch:
    """The same samples the plain way."""
    features = np.zeros((len(paths), SETTINGS.length, schema.FEATURE_DIM), np.float32)
    types = np.empty((len(paths), SETTINGS.length), np.int64)
    for i, path in enumerate(paths):
        with np.load(path, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
        answers = view(arrays)
        draws = known_draws(len(paths), len(answers.point_xyz), len(answers.ray_t))[i]
        features[i], types[i] = plain_tokens(answers, *draws)
    return features, types


@lru_cache
def known_draws(samples: int, points: int, rays: int) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """The rows of each sample, drawn once: drawing them is no part of the plain way's time."""
    drawn = []
    for index in range(samples):
        draws = TrainingDraws(0, 0, index)
        draws.uniform()
        rows = draws.rows(points, SETTINGS.n_point)
        drawn.append((rows, draws.rows(rays, SETTINGS.n_ray) if rays else np.zeros(SETTINGS.n_ray, np.int64)))
    return drawn


def plain_tokens(
    answers: ShapeAnswers, point_rows: NDArray[np.int64], ray_rows: NDArray[np.int64]
) -> tuple[Float, NDArray[np.int64]]:
    """The tokens of the rows, ordered by NumPy."""
    point_rows = point_rows[numpy_morton_order(answers.point_xyz[point_rows])]
    if answers.rays_available:
        x, y, z = answers.ray_direction[ray_rows].astype(np.float64).T
        ray_rows = ray_rows[np.lexsort((np.arccos(z.clip(-1, 1)), np.arctan2(y, x)))]
    return tokenizer.layout(answers, point_rows, ray_rows, qa=SETTINGS.qa, eos=SETTINGS.eos)


def voxel_view(first_hit: Callable, arrays: Arrays) -> ShapeAnswers:
    """The voxel view of whole pools with SciPy's distance transform and tree, and a walk of one's own."""
    from scipy.ndimage import binary_dilation, distance_transform_edt
    from scipy.spatial import cKDTree

    points, queries = arrays["pc_xyz"], arrays["pt_xyz_pool"]
    origins, directions = arrays["ray_o_pool"], arrays["ray_d_pool"]
    occupancy = np.zeros((GRID, GRID, GRID), bool)
    occupancy[tuple(cells_of(points).T)] = True
    occupancy = binary_dilation(occupancy, iterations=SETTINGS.voxel.dilate)
    distance = distance_transform_edt(~occupancy, sampling=2 / GRID).astype(np.float32)
    hit, t = first_hit(occupancy.astype(np.uint8), origins, directions)
    _, nearest = cKDTree(points).query((origins + t[:, None] * directions)[hit])
    rays = with_normals(hit, t, arrays["pc_n"][nearest])
    return ShapeAnswers(queries, distance[tuple(cells_of(queries).T)], origins, directions, *rays, True)


def cells_of(points: Float) -> NDArray[np.int64]:
    """The cell (N, 3) of each point (N, 3)."""
    return np.floor((points + np.float32(1)) / np.float32(2 / GRID)).clip(0, GRID - 1).astype(np.int64)


PLAIN: dict[str, View] = {
    "mesh": lambda arrays: with_stored_rays(arrays, arrays["pt_dist_pool"], "pool"),
    "pointcloud_noray": lambda arrays: without_rays(arrays["pt_xyz_pool"], arrays["pt_dist_pc_pool"]),
    "udfgrid": lambda arrays: without_rays(arrays["pt_xyz_pool"], arrays["pt_dist_udf_pool"]),
    "voxel": partial(voxel_view, ops.reference.voxel_first_hit),
}
