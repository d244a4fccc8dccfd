"""The token sequence of the completion probe: a context with its distances, then queries without.

The samples here are read whole file by whole file, in plain NumPy; ``nepa3d.samples.completion_loader`` gives the same
ones by the batch, fast.

BOS, context, queries, optional EOS; context and queries each in Morton order. In the Q/A form every point is
a question and an answer, the answers of the queries blank. Letters: T tokens, Q queries.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from nepa3d import ops
from nepa3d.execution.checks import require_choice
from nepa3d.samples.questions import Questions, asked_of
from nepa3d.samples.schema import POINT_DISTANCE, XYZ, TokenType
from nepa3d.samples.tokenizer import draw_rows, evaluation_rng, tokenize
from nepa3d.shapes.answers import without_rays
from nepa3d.shapes.cache import CacheError, ShapeArrays, ShapeCache
from nepa3d.shapes.cells import cell_centres
from nepa3d.shapes.mesh import load_mesh
from nepa3d.shapes.views import ShapeAnswers, VoxelSettings, read_answers, view

QuerySource = Literal["pool", "pool_disjoint", "grid"]
Target = Literal["udf", "mesh"]
Context = Literal["own", "mismatched", "absent"]

MESH_FILE = "models/model_normalized.obj"

_NO_ROWS = np.empty(0, np.int64)


@dataclass(frozen=True)
class SequenceSettings:
    """What a completion sequence is made of."""

    context_backend: str
    n_context: int
    n_query: int
    qa: bool
    eos: bool
    query_source: QuerySource = "pool"
    target: Target = "udf"
    context: Context = "own"
    mesh_root: str = ""  # of the meshes whose exact distances are the target; empty: what the cache has
    mesh_file: str = MESH_FILE
    voxel: VoxelSettings = field(default_factory=VoxelSettings)
    questions: Questions = "pool"  # which points of the pool the context and the queries are drawn from

    def __post_init__(self) -> None:
        require_choice("query_source", self.query_source, QuerySource)
        require_choice("target", self.target, Target)
        require_choice("context", self.context, Context)
        require_choice("questions", self.questions, Questions)


@dataclass(frozen=True)
class CompletionSample:
    """One sequence and what is asked of it."""

    features: NDArray[np.float32]  # (T, 15)
    types: NDArray[np.int64]  # (T,)
    query_tokens: NDArray[np.int64]  # (Q,) where the queries stand in the sequence
    target: NDArray[np.float32]  # (Q,) true distances
    nearest_copy: NDArray[np.float32] | None  # (Q,) distance answered at the nearest context point


def completion_sample(
    path: str, settings: SequenceSettings, seed: int, context_path: str | None = None
) -> CompletionSample:
    """The sequence of the shape at ``path``, its draws a function of (path, seed) alone.

    ``context_path`` takes the context from another shape. A cache without what ``settings`` ask for raises
    ``ValueError`` with the path.
    """
    with ShapeCache(path) as cache:
        context = None
        if context_path is not None:
            context = read_answers(context_path, settings.context_backend, settings.voxel)
        return sample_of_cache(cache, settings, seed, context)


def sample_of_cache(
    cache: ShapeArrays, settings: SequenceSettings, seed: int, context: ShapeAnswers | None = None
) -> CompletionSample:
    """``completion_sample`` of a cache at hand, its draws a function of (cache.path, seed) alone."""
    rng = evaluation_rng(cache.path, seed)
    if context is None:
        context = view(cache, settings.context_backend, settings.voxel)
    queries = query_answers(cache, settings)
    context = asked_of(context, settings.questions, cache.path)
    if settings.query_source != "grid":
        queries = asked_of(queries, settings.questions, cache.path)
    context_rows = draw_rows(len(context.point_xyz), settings.n_context, rng)
    query_rows = _draw_queries(queries, context_rows, settings, rng)
    if settings.mesh_root:
        queries, query_rows = with_exact_distances(queries, query_rows, cache.path, settings)
    if settings.context == "absent":
        context_rows = _NO_ROWS
    return assemble(context, context_rows, queries, query_rows, settings)


def assemble(
    context: ShapeAnswers,
    context_rows: NDArray[np.int64],
    queries: ShapeAnswers,
    query_rows: NDArray[np.int64],
    settings: SequenceSettings,
) -> CompletionSample:
    """The sequence of the given rows of the context's and the queries' points."""
    head, head_types = tokenize(context, context_rows, _NO_ROWS, qa=settings.qa, eos=False)
    tail, tail_types = tokenize(queries, query_rows, _NO_ROWS, qa=settings.qa, eos=settings.eos)
    tail, tail_types = tail[1:].copy(), tail_types[1:]  # its BOS
    answers = _rows_of(tail_types, TokenType.POINT, TokenType.A_POINT)
    questions = _rows_of(tail_types, TokenType.POINT, TokenType.Q_POINT)
    target = tail[answers, POINT_DISTANCE].copy()
    tail[:, POINT_DISTANCE] = 0.0
    features = np.concatenate([head, tail])
    if not (np.isfinite(features).all() and np.isfinite(target).all()):
        raise ValueError("the sample has values that are not finite")
    return CompletionSample(
        features=features,
        types=np.concatenate([head_types, tail_types]),
        query_tokens=len(head) + questions,
        target=target,
        nearest_copy=_nearest_copy(head, head_types, tail[questions, XYZ]),
    )


def query_answers(cache: ShapeArrays, settings: SequenceSettings) -> ShapeAnswers:
    """Where distances may be asked, with the true ones in ``point_distance``, unless a mesh is to give them."""
    if settings.query_source == "grid":
        grid = cache["udf_grid"]
        if grid.ndim != 3 or grid.size == 1:
            raise CacheError(cache.path, f"has no UDF grid to ask for, its udf_grid has shape {grid.shape}")
        return without_rays(cell_centres(grid.shape[0]), grid.reshape(-1).astype(np.float32))
    key = "pt_dist_udf_pool" if settings.target == "udf" else "pt_dist_pool"
    return without_rays(cache["pt_xyz_pool"], cache[key])


def with_exact_distances(
    queries: ShapeAnswers, rows: NDArray[np.int64], path: str, settings: SequenceSettings
) -> tuple[ShapeAnswers, NDArray[np.int64]]:
    """These rows (n,) of the queries alone, with their exact distances, and their numbers among themselves."""
    xyz = queries.point_xyz[rows]
    return replace(queries, point_xyz=xyz, point_distance=exact_distances(path, settings, xyz)), np.arange(len(rows))


def exact_distances(path: str, settings: SequenceSettings, xyz: NDArray[np.float32]) -> NDArray[np.float32]:
    """Distances (n,) of points (n, 3) to the triangles of the shape's own mesh, read and normalised as in
    preprocessing.

    ``BadShapeError`` where it cannot be used.
    """
    mesh = load_mesh(mesh_path(path, settings.mesh_root, settings.mesh_file))
    return ops.closest_point(mesh.vertices, mesh.faces, np.ascontiguousarray(xyz)).distance


def mesh_path(path: str, mesh_root: str, mesh_file: str = MESH_FILE) -> Path:
    """The mesh a cache file ``<split>/<class>/<id>.npz`` was made of: ``<mesh_root>/<class>/<id>/<mesh_file>``."""
    cache = Path(path)
    return Path(mesh_root) / cache.parent.name / cache.stem / mesh_file


def _draw_queries(
    queries: ShapeAnswers,
    context_rows: NDArray[np.int64],
    settings: SequenceSettings,
    rng: np.random.RandomState,
) -> NDArray[np.int64]:
    pool_size = len(queries.point_xyz)
    if settings.query_source != "pool_disjoint":
        return draw_rows(pool_size, settings.n_query, rng)
    free = np.setdiff1d(np.arange(pool_size), context_rows)
    if len(free) == 0:
        raise ValueError(f"the context takes all {pool_size} points of the pool, none is left to ask for")
    return free[draw_rows(len(free), settings.n_query, rng)]


def _nearest_copy(
    features: NDArray[np.float32], types: NDArray[np.int64], query_xyz: NDArray[np.float32]
) -> NDArray[np.float32] | None:
    questions = _rows_of(types, TokenType.POINT, TokenType.Q_POINT)
    answers = _rows_of(types, TokenType.POINT, TokenType.A_POINT)
    if len(questions) == 0:
        return None
    xyz = np.ascontiguousarray(features[questions, XYZ])
    nearest = ops.nearest_distance(xyz, np.ascontiguousarray(query_xyz)).index
    copied: NDArray[np.float32] = features[answers, POINT_DISTANCE][nearest]
    return copied


def _rows_of(types: NDArray[np.int64], *wanted: TokenType) -> NDArray[np.int64]:
    return np.flatnonzero(np.logical_or.reduce([types == kind for kind in wanted]))
