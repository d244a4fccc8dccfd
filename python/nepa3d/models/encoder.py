"""A trained model as a library calls it: embeddings of shapes, distances at any points, surfaces.

Letters: N shapes, M points, D model width.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from nepa3d.corpora.procedural import FAMILIES, procedural_shape
from nepa3d.execution.checks import require_at_least, require_positive
from nepa3d.execution.progress_bar import progress_bar
from nepa3d.models.distances import PredictedField, own_view, own_weights
from nepa3d.models.embedding import (
    Pooling,
    Precision,
    Probe,
    Representation,
    pick_device,
    pooled_states,
    probe_of,
    question_states,
)
from nepa3d.models.ridge import RidgeSums
from nepa3d.models.stored import read_model, save_model
from nepa3d.models.vectors import normalize
from nepa3d.samples.completion import QuerySource, SequenceSettings, sample_of_cache
from nepa3d.samples.dataset import Sample, SampleSettings, sample_of_answers
from nepa3d.samples.loader import Request, evaluation_samples
from nepa3d.samples.tokenizer import draw_rows, evaluation_rng
from nepa3d.shapes.cache import CacheError
from nepa3d.shapes.cells import cell_centres
from nepa3d.shapes.query_pools import PoolSettings
from nepa3d.shapes.shape import Shape
from nepa3d.shapes.views import VoxelSettings, require_backend

if TYPE_CHECKING:
    import trimesh

ShapeLike: TypeAlias = "Shape | str | os.PathLike[str]"

BUILT_IN = 64  # procedural shapes that a head is fitted on where none are given
BUILT_IN_POOLS = PoolSettings(pt_pool=4000, ray_pool=0, no_pc_rays=True)
OUTSIDE = 1.0001  # largest coordinate of a query, rounding included
GRID = 32  # cells a side where a surface is asked for


def load(source: str | os.PathLike[str], *, device: str = "auto", precision: Precision = "float32") -> Encoder:
    """The encoder of a checkpoint (``.pt``), of a folder that ``Encoder.save`` wrote or that holds a ``last.pt``, of a
    model that comes with the package (``furniture-small``), or of a repository of the Hugging Face hub
    (``hf://user/name``, with huggingface_hub installed).

    ``device`` "auto" is a GPU where there is one. ``precision`` "bf16" computes products in bfloat16. Raises
    ``ValueError`` naming the file and the fault; no code in a file is run.
    """
    on = pick_device(device)
    checkpoint, head = read_model(source, on)
    return Encoder(probe_of(checkpoint, on, precision), head)


class Encoder:
    """A frozen model. ``load`` makes one.

    ```python
    encoder = nepa3d.load("runs/nepa_qa/last.pt")
    encoder.embed(["chair.obj", "table.npz"], view="pointcloud_noray").shape  # (2, 384)
    ```
    """

    def __init__(self, probe: Probe, head: NDArray[np.float64] | None = None) -> None:
        self.probe = probe
        self._head = head
        self._head_is_built_in = False

    @property
    def width(self) -> int:
        """D, the length of an embedding."""
        return self.probe.model.width

    @property
    def voxel(self) -> VoxelSettings:
        """How the view ``voxel`` is made, as in training."""
        return voxel_of(self.probe.args)

    def embed(
        self,
        shapes: ShapeLike | Iterable[ShapeLike],
        view: str = "mesh",
        *,
        draws: int = 1,
        seed: int = 0,
        pooling: Pooling = "eos",
        representation: Representation = "h",
        batch: int = 64,
        progress: bool = False,
    ) -> NDArray[np.float32]:
        """Embeddings (N, D) of shapes as ``view`` sees them, each of length 1.

        A shape is a ``Shape``, a cache file (``.npz``), or a file of a mesh or a point cloud. ``draws`` samples of its
        queries are embedded, brought to length 1 and averaged; they depend on the shape's name (its path as spelt, if
        it is a cache file) and on ``seed``, as those of ``nepa3d.probes.retrieval`` do. Raises ``ValueError`` naming a
        shape that cannot be used.
        """
        require_backend(view, "view")
        require_at_least(1, draws=draws, batch=batch)
        wanted = listed_shapes(shapes)
        found = np.zeros((len(wanted), self.width))
        with progress_bar(total=len(wanted) * draws, desc="embed", unit="sample", disable=not progress) as bar:
            for begin in range(0, len(wanted), batch):
                some = [shape if is_cache(shape) else as_shape(shape) for shape in wanted[begin : begin + batch]]
                for draw in range(draws):
                    features, types = self.samples(some, view, seed, draw)
                    states = pooled_states(self.probe, features, types, pooling, representation)
                    found[begin : begin + len(some)] += normalize(states.cpu().numpy())
                    bar.update(len(some))
        return normalize(found).astype(np.float32)

    def samples(self, shapes: Sequence[ShapeLike], view: str, seed: int = 0, draw: int = 0) -> Sample:
        """Features (N, T, 15) and types (N, T) of one draw of each shape's queries, as ``embed`` takes them."""
        require_backend(view, "view")
        probe = self.probe
        settings = SampleSettings(probe.n_point, probe.n_ray, qa=probe.qa, eos=probe.eos, voxel=self.voxel)
        features, types, faults = draw_samples(shapes, view, settings, seed, draw, threads=os.cpu_count() or 1)
        for row, fault in faults:
            raise CacheError(shape_name(shapes[row]), fault)
        return features, types

    def fit_distance_head(
        self,
        shapes: ShapeLike | Iterable[ShapeLike] | None = None,
        *,
        view: str = "pointcloud_noray",
        ridge_lambda: float = 1e-3,
        seed: int = 0,
        batch: int = 16,
        progress: bool = False,
    ) -> None:
        """Fit the linear head through which ``complete`` reads distances off the model's states, by ridge regression
        towards the distance fields of ``shapes``, whose other points are the context, seen as ``view``.

        Shapes must have a distance field, as those of meshes have. Without shapes, 64 of the built-in procedural corpus
        serve; the first call of ``complete`` does so if no head is there and the model predicts no distances itself.
        """
        require_at_least(1, batch=batch)
        require_positive(ridge_lambda=ridge_lambda)
        settings = self.sequence(view)
        sums = RidgeSums(self.width, self.probe.device)
        wanted = _procedural(BUILT_IN) if shapes is None else [as_shape(shape) for shape in listed_shapes(shapes)]
        if not wanted:
            raise ValueError("shapes must not be empty")
        with progress_bar(total=len(wanted), desc="fit head", unit="shape", disable=not progress) as bar:
            for begin in range(0, len(wanted), batch):
                some = wanted[begin : begin + batch]
                samples = [sample_of_cache(shape, settings, seed) for shape in some]
                features, types = np.stack([s.features for s in samples]), np.stack([s.types for s in samples])
                states = question_states(self.probe, features, types, samples[0].query_tokens)
                target = torch.from_numpy(np.stack([s.target for s in samples])).to(states.device)
                sums.add(states.flatten(0, 1), target.flatten())
                bar.update(len(some))
        self._head, self._head_is_built_in = sums.solve(ridge_lambda), shapes is None

    def complete(
        self,
        shape: ShapeLike,
        queries: ArrayLike,
        *,
        view: str = "pointcloud_noray",
        n_context: int | None = None,
        seed: int = 0,
        batch: int = 16,
    ) -> NDArray[np.float32]:
        """Distances (M,) to the surface that the model predicts at ``queries`` (M, 3), points of [-1, 1]^3 in the
        coordinates of the normalised shape (centre of its box at the origin, farthest point at distance 1).

        The model is told the distances that ``view`` answers at ``n_context`` random point queries of the shape (left
        out: half of what it takes). The distances are the model's own predictions if it makes any and no head was
        fitted; else they are read through a linear head, see ``fit_distance_head``.
        """
        points = np.ascontiguousarray(queries, np.float32)
        if points.ndim != 2 or points.shape[1] != 3 or not np.isfinite(points).all():
            raise ValueError(f"queries must be finite and have shape (M, 3), got {points.shape}")
        farthest = np.abs(points).max(initial=0.0)
        if farthest > OUTSIDE:
            raise ValueError(
                "queries must lie in [-1, 1]^3, the coordinates of the normalised shape, got one with a coordinate of "
                f"{farthest:g}"
            )
        return self.field(shape, view=view, n_context=n_context, seed=seed, batch=batch).distances(points)

    def field(
        self,
        shape: ShapeLike,
        *,
        view: str = "pointcloud_noray",
        n_context: int | None = None,
        seed: int = 0,
        batch: int = 16,
    ) -> PredictedField:
        """The distance field that ``complete`` reads, of one shape and one context; it may be asked many times."""
        settings = self.sequence(view, n_context)
        own = as_shape(shape)
        context = own.view(view, self.voxel)
        if settings.n_context > len(context.point_xyz):
            raise ValueError(
                f"n_context must be at most {len(context.point_xyz)}, the points at which {own.name} has distances, "
                f"got {settings.n_context}"
            )
        rows = draw_rows(len(context.point_xyz), settings.n_context, evaluation_rng(own.name, seed))
        return PredictedField(self.probe, self.distance_head(), context, rows, settings, batch)

    def surface(
        self,
        shape: ShapeLike,
        *,
        resolution: int = GRID,
        level: float | None = None,
        view: str = "pointcloud_noray",
        n_context: int | None = None,
        seed: int = 0,
        batch: int = 16,
    ) -> trimesh.Trimesh:
        """The mesh on which the predicted distance is ``level`` (left out: a cell's side), found by marching cubes in a
        grid of ``resolution`` cells a side. The other arguments are those of ``complete``.

        Raises ``ValueError`` where the predicted distance takes that value nowhere. Needs scikit-image
        (``nepa3d[surfaces]``).
        """
        from nepa3d.shapes.level_set import level_set, require_marching_cubes

        require_marching_cubes()
        require_at_least(1, resolution=resolution)
        drawn_at = 2.0 / resolution if level is None else level
        predicted = self.field(shape, view=view, n_context=n_context, seed=seed, batch=batch)
        field = predicted.distances(cell_centres(resolution)).reshape(3 * (resolution,))
        found = level_set(field, drawn_at)
        if found is None:
            raise ValueError(
                f"the predicted distance is {drawn_at:g} nowhere: it lies between {field.min():g} and {field.max():g}"
            )
        return found

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write ``model.safetensors`` (the weights, and the distance head if there is one) and ``config.json`` (what
        the model was trained with) into ``folder``, for ``load``. Each file is written whole or not at all."""
        tokens = {"qa_tokens": int(self.probe.qa), "add_eos": int(self.probe.eos)}
        args = {**self.probe.args, **tokens} | {"n_point": self.probe.n_point, "n_ray": self.probe.n_ray}
        save_model(Path(folder), self.probe.model.state_dict(), args, self._head)

    def export_onnx(
        self, path: str | os.PathLike[str], *, pooling: Pooling = "eos", representation: Representation = "h"
    ) -> None:
        """Write the model as ONNX, see ``nepa3d.models.onnx_model.export_onnx``: features (N, T, 15) and types (N, T)
        to embeddings (N, D), with N and T free. Needs onnx and onnxscript (``nepa3d[onnx]``). ``ValueError`` if the
        encoder was loaded with another precision than float32, which is that of the file."""
        if self.probe.precision != "float32":
            raise ValueError(f"precision must be float32, which an ONNX file is in, got {self.probe.precision!r}")
        from nepa3d.models.onnx_model import export_onnx

        export_onnx(self.probe, path, pooling, representation)

    def sequence(self, view: str, n_context: int | None = None, query_source: QuerySource = "pool") -> SequenceSettings:
        """The settings of a completion sequence: a context seen as ``view``, half of what the model takes unless
        ``n_context`` is given, and as many queries as it takes beside it."""
        require_backend(view, "view")
        room = (self.probe.max_len - 1 - int(self.probe.eos)) // (2 if self.probe.qa else 1)
        if self.probe.model.max_len is None:  # then it is as in training, unless more is asked for
            room = max(2 * self.probe.n_point, 2 * (n_context or 0))
        told = room // 2 if n_context is None else n_context
        if not 1 <= told < room:
            raise ValueError(f"n_context must be from 1 to {room - 1} for this model, got {told}")
        tokens = self.probe.qa, self.probe.eos
        return SequenceSettings(view, told, room - told, *tokens, query_source, voxel=self.voxel)

    @property
    def distances_by(self) -> str:
        """What reads the distances of ``complete``, in words; fits the head that it would be."""
        self.distance_head()
        if self._head is None:
            return "the model's own predictions"
        return f"a head fitted on {BUILT_IN} built-in shapes" if self._head_is_built_in else "a fitted head"

    def distance_head(self, view: str = "") -> NDArray[np.float64]:
        """Weights (D + 1,) of the head that reads distances off hidden states, bias last. If none was fitted, it is the
        model's own prediction of the distance that ``view`` answers, by default the mesh's if it makes that; of a
        model that makes none, a head fitted on the built-in corpus."""
        if self._head is None and self.probe.model.architecture.answer_head:
            return own_weights(self.probe, view or own_view(self.probe))
        if self._head is None:
            self.fit_distance_head()
        assert self._head is not None
        return self._head


def voxel_of(args: Mapping[str, Any]) -> VoxelSettings:
    """How the view ``voxel`` is made, of the flags that a model was trained with."""
    names = {"grid": "voxel_grid", "dilate": "voxel_dilate", "max_steps": "voxel_max_steps"}
    return VoxelSettings(**{name: int(args[flag]) for name, flag in names.items() if flag in args})


def require_shape(shape: object) -> None:
    """``ValueError`` unless it is a ``Shape`` or a path."""
    if not isinstance(shape, (Shape, str, os.PathLike)):
        raise ValueError(
            f"expected a shape, which is a Shape or a path, got {type(shape).__name__}; Shape.from_cloud and "
            "Shape.from_mesh make a Shape of arrays"
        )


def as_shape(shape: ShapeLike) -> Shape:
    """A shape from a ``Shape``, a cache file (``.npz``), or another file, see ``Shape.from_file``. ``ValueError`` on
    what is none of them."""
    require_shape(shape)
    if isinstance(shape, Shape):
        return shape
    return Shape.from_cache(shape) if is_cache(shape) else Shape.from_file(shape)


def draw_samples(
    shapes: Sequence[ShapeLike], view: str, settings: SampleSettings, seed: int, draw: int, *, threads: int
) -> tuple[NDArray[np.float32], NDArray[np.int64], list[tuple[int, str]]]:
    """Features (N, T, 15) and types (N, T) of one draw of each shape's queries; numbers and faults of the cache files
    that could not be read, whose rows mean nothing. ``ValueError`` naming another shape that cannot be used."""
    if all(is_cache(shape) for shape in shapes):  # by the compiled loader
        requests = [Request(shape_name(shape), view, settings) for shape in shapes]
        return evaluation_samples(requests, seed, draw, threads=threads)
    samples = [
        sample_of_answers(shape.name, shape.view(view, settings.voxel), settings, seed, draw)
        for shape in map(as_shape, shapes)
    ]
    return np.stack([features for features, _ in samples]), np.stack([types for _, types in samples]), []


def shape_name(shape: ShapeLike) -> str:
    """What a shape is listed as: its path, or its key."""
    return shape.name if isinstance(shape, Shape) else os.fspath(shape)


def is_cache(shape: ShapeLike) -> bool:
    """Whether it is the path of a cache file."""
    return not isinstance(shape, Shape) and Path(shape).suffix == ".npz"


def _procedural(count: int) -> list[Shape]:
    """Shapes of the built-in corpus, of each class in turn."""
    names = [(name, index) for index in range(math.ceil(count / len(FAMILIES))) for name in FAMILIES][:count]
    return [
        Shape.from_mesh(tuple(procedural_shape(name, index, 0)), key=f"{name}/{index}", settings=BUILT_IN_POOLS)
        for name, index in names
    ]


def listed_shapes(shapes: ShapeLike | Iterable[ShapeLike]) -> Sequence[ShapeLike]:
    """The shapes as a sequence, also where there is one by itself. ``ValueError`` on what is no shape."""
    if isinstance(shapes, (Shape, str, os.PathLike)):
        return [shapes]
    if not isinstance(shapes, Iterable):
        require_shape(shapes)
    listed = [*shapes]
    for shape in listed:
        require_shape(shape)
    return listed
