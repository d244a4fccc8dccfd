"""Completion one can see: the distance field a model reads off a few points, as a surface beside the true one.

A frozen model sees a context of points with distances and is asked for the distance at every cell of a grid, a chunk of
cells at a time; a ridge head fitted on other shapes reads its states. The surface is where that field takes a small
value, found by marching cubes (Lorensen and Cline, 1987). Letters: G grid side, V vertices, F faces.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import trimesh
from numpy.typing import NDArray
from tabulate import tabulate

from nepa3d import cli, ops
from nepa3d.analysis import completion_cpac_udf as cpac
from nepa3d.execution.files import atomic_open, require_writable, write_json
from nepa3d.execution.progress_bar import progress_bar
from nepa3d.models.distances import distances_at
from nepa3d.models.embedding import Precision, Probe, ProbeRequest, open_probe, shapes_of
from nepa3d.probes.intervals import cell
from nepa3d.samples.completion import SequenceSettings, cell_centres, query_answers
from nepa3d.samples.schema import sequence_length
from nepa3d.samples.tokenizer import draw_rows, evaluation_rng
from nepa3d.shapes.cache import ShapeCache
from nepa3d.shapes.level_set import level_set
from nepa3d.shapes.views import read_answers

Field = NDArray[np.float32]  # (G, G, G) distances at cell centres over [-1, 1]^3
WAYS = ("model", "nearest copy", "true field")
FEWEST = 3  # shapes of which a fifth, rounded, is one to fit the head on
SAMPLES = 10_000  # points on a surface by which it is scored
FIGURES = ("chamfer", "f_score", "normal_consistency")


@dataclass(frozen=True)
class Config:
    """Complete shapes as surfaces: a mesh a shape and way, scores beside two that need no model, a picture.

    Example: nepa3d surfaces --cache_root data/unpaired --ckpt runs/nepa_qa/last.pt --out_root results/surfaces
    """

    cache_root: str
    """Cache with the splits."""
    ckpt: str
    """Checkpoint."""
    out_root: Path
    """Folder of <class>/<shape>/<way>.ply or .glb, scores.json and surfaces.png."""
    split: str = "eval"
    """Split whose shapes are completed."""
    context_backend: str = "pointcloud_noray"
    """View that answers the context points."""
    n_context: int = 256
    """Context points a shape."""
    n_query: int = 256
    """Cells asked for at a time."""
    head_train_split: str = "train_udf"
    """Split the head is fitted on; 'none': a fifth of the completed split, the others are completed."""
    head_train_backend: str = "udfgrid"
    """View of the context while it is fitted."""
    head_train_max_shapes: int = 0
    """Use only the first so many shapes of it; 0: all."""
    ridge_lambda: float = 1e-3
    """Ridge penalty."""
    resolution: int = 32
    """Cells a side of the grid."""
    level: float = 0.0
    """Distance at which the surface is drawn; 0: a cell's side."""
    tau: float = 0.1
    """Two surfaces agree at a point when they are at most this apart there (F-score)."""
    max_shapes: int = 4
    """Complete only so many shapes, evenly spread over the split; 0: all."""
    format: Literal["ply", "glb", "both"] = "ply"
    """Files of the surfaces: PLY, GLB (for web viewers and slides), or both."""
    seed: int = 0
    """Seed of the draws."""
    batch: int = 16
    """Sequences a forward pass."""
    device: str = "auto"
    """auto (a GPU where there is one), cpu, or cuda."""
    precision: Precision = "float32"
    """Of the model's products; bf16 is faster on a GPU and moves figures a little."""

    def __post_init__(self) -> None:
        if self.resolution < 4:
            raise ValueError(f"resolution must be at least 4, got {self.resolution}")
        if not 0 <= self.level < np.inf:
            raise ValueError(f"level must be a distance, or 0, got {self.level}")
        if not 0 < self.tau < np.inf:
            raise ValueError(f"tau must be a distance above 0, got {self.tau}")
        if self.max_shapes < 0:
            raise ValueError(f"max_shapes must be at least 0, got {self.max_shapes}")

    @property
    def drawn_at(self) -> float:
        """The level of the surface."""
        return self.level or 2.0 / self.resolution

    def probe_config(self) -> cpac.Config:
        """The completion probe whose head is used, fitted on cells of the distance grids."""
        names = ("cache_root", "ckpt", "split", "context_backend", "n_context", "n_query", "ridge_lambda", "seed")
        more = ("head_train_split", "head_train_backend", "head_train_max_shapes", "batch", "device", "precision")
        return cpac.Config(query_source="grid", **{name: getattr(self, name) for name in (*names, *more)})


@dataclass(frozen=True)
class Completed:
    """One shape: what was told of it, its fields by way, and the true surface samples and normals (N, 3)."""

    path: str
    context: NDArray[np.float32]  # (C, 4) points and their distances
    fields: dict[str, Field]
    points: NDArray[np.float32]
    normals: NDArray[np.float32]


def fields_of(
    path: str, probe: Probe, weights: NDArray[np.float64], settings: SequenceSettings, config: Config
) -> Completed:
    """The distance fields of a shape as the model, the nearest context point and the cache's own grid have them."""
    rng = evaluation_rng(path, config.seed + cpac.TEST_SEED_OFFSET)
    context = read_answers(path, settings.context_backend, settings.voxel)
    context_rows = draw_rows(len(context.point_xyz), settings.n_context, rng)
    side = config.resolution
    centres = cell_centres(side)
    predicted, copied = distances_at(centres, context, context_rows, probe, weights, settings, config.batch)
    with ShapeCache(path) as cache:
        grid = np.ascontiguousarray(cache["udf_grid"].astype(np.float32))
        points, normals = cache["pc_xyz"], cache["pc_n"]
    true = ops.trilinear_sample(grid, centres)
    shape = 3 * (side,)
    fields = {way: values.reshape(shape) for way, values in zip(WAYS, (predicted, copied, true), strict=True)}
    told = np.column_stack([context.point_xyz[context_rows], context.point_distance[context_rows]])
    return Completed(path, told, fields, points, normals)


def score(
    mesh: trimesh.Trimesh | None,
    points: NDArray[np.float32],
    normals: NDArray[np.float32],
    tau: float,
    seed: int,
) -> dict[str, float] | None:
    """Chamfer distance (mean of both directions' mean distances, world units), F-score at ``tau`` (Tatarchenko et al.,
    arXiv 1905.03678) and normal consistency (mean |cosine| of nearest points' normals, both directions) of a surface
    against samples (N, 3) of the true one with normals. None where there is no surface."""
    if mesh is None:
        return None
    uniforms = np.random.default_rng(seed).random((SAMPLES, 3))
    found = ops.sample_surface(mesh.vertices.astype(np.float32), mesh.faces, uniforms)
    there = ops.nearest_distance(found.point, points)
    back = ops.nearest_distance(points, found.point)
    precision, recall = float((back.distance <= tau).mean()), float((there.distance <= tau).mean())
    alike = [
        np.abs((normals * found.normal[there.index]).sum(1)),
        np.abs((found.normal * normals[back.index]).sum(1)),
    ]
    return {
        "chamfer": float((there.distance.mean() + back.distance.mean()) / 2),
        "f_score": 2 * precision * recall / (precision + recall) if precision + recall else 0.0,
        "normal_consistency": float(np.mean([values.mean() for values in alike])),
    }


def complete_surfaces(config: Config) -> dict[str, Any]:
    """Complete, save and score every shape; returns what scores.json holds."""
    probing = config.probe_config()
    cpac.check(probing)
    require_writable(config.out_root / "scores.json", "out_root")
    probe = open_probe(ProbeRequest(config.ckpt, device=config.device, precision=config.precision))
    length = sequence_length(config.n_context + config.n_query, 0, qa=probe.qa, eos=probe.eos)
    probe.require_length(length, "n_context and n_query")
    if config.head_train_split == cpac.TRANSDUCTIVE and len(shapes_of(config.cache_root, config.split)) < FEWEST:
        raise ValueError(f"head_train_split 'none' takes part of the split {config.split!r}, which has too few shapes")
    plan = cpac.plan_shapes(probing, probe)
    failed: dict[str, str] = {}
    weights, n_train = cpac.fit_head(probing, probe, plan, failed)
    count = min(config.max_shapes or len(plan.test), len(plan.test))
    chosen = [plan.test[i * len(plan.test) // count] for i in range(count)]
    formats = ("ply", "glb") if config.format == "both" else (config.format,)
    shapes, panels = [], []
    for path in progress_bar(chosen, desc="surfaces", unit="shape"):
        with ShapeCache(path) as cache:
            query_answers(cache, plan.test_settings)  # that it has a grid to compare with
        completed = fields_of(path, probe, weights, plan.test_settings, config)
        meshes = {way: level_set(field, config.drawn_at) for way, field in completed.fields.items()}
        seed = int.from_bytes(hashlib.sha256(path.encode("utf-8", "surrogateescape")).digest()[:8], "little")
        scores = {way: score(m, completed.points, completed.normals, config.tau, seed) for way, m in meshes.items()}
        folder = config.out_root / Path(path).parent.name / Path(path).stem
        for way, mesh in meshes.items():
            if mesh is not None:
                write_mesh(folder / way.replace(" ", "_"), mesh, formats)
        shapes.append(
            {"path": path, "scores": scores, "context": completed.context.astype(np.float64).round(4).tolist()}
        )
        panels.append((completed, meshes))
    draw(panels, config.out_root / "surfaces.png")
    result = {
        "ckpt": config.ckpt,
        "precision": config.precision,
        "level": config.drawn_at,
        "resolution": config.resolution,
        "tau": config.tau,
        "n_context": config.n_context,
        "context_backend": config.context_backend,
        "n_shapes_head_train": n_train,
        "mean": {way: _mean([shape["scores"][way] for shape in shapes]) for way in WAYS},
        "shapes": shapes,
        "failed": [{"path": path, "reason": reason} for path, reason in failed.items()],
    }
    write_json(config.out_root / "scores.json", result)
    return result


def _mean(scores: Sequence[dict[str, float] | None]) -> dict[str, Any]:
    """Over the shapes that have a surface, and how many do not."""
    there = [score for score in scores if score is not None]
    means = {name: float(np.mean([s[name] for s in there])) if there else None for name in FIGURES}
    return {**means, "without_surface": len(scores) - len(there)}


def write_mesh(stem: Path, mesh: trimesh.Trimesh, formats: Sequence[str]) -> None:
    """Write a mesh as binary ``<stem>.ply`` and ``<stem>.glb``, as ``formats`` say, each whole or not at all."""
    for kind in formats:
        with atomic_open(stem.with_name(f"{stem.name}.{kind}")) as file:
            mesh.export(file, file_type=kind)


def draw(shapes: Sequence[tuple[Completed, dict[str, trimesh.Trimesh | None]]], path: Path) -> None:
    """A row a shape: its samples, then the surface of each way."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3 * (1 + len(WAYS)), 3 * len(shapes)), layout="constrained")
    axes = figure.subplots(len(shapes), 1 + len(WAYS), subplot_kw={"projection": "3d"}, squeeze=False)
    for row, (completed, meshes) in zip(axes, shapes, strict=True):
        x, y, z = completed.points.T  # the corpora have y upwards
        row[0].scatter(x, -z, y, c=y, s=1.5, cmap="viridis")
        row[0].set_title(Path(completed.path).stem[:28], fontsize=8)
        for panel, way in zip(row[1:], WAYS, strict=True):
            mesh = meshes[way]
            panel.set_title(way if mesh is not None else f"{way}: nowhere", fontsize=8)
            if mesh is not None:
                a, b, c = mesh.vertices.T
                panel.plot_trisurf(a, -c, b, triangles=mesh.faces, color="#7fa3cf", lw=0)
    for panel in axes.flat:
        panel.set(xlim=(-0.8, 0.8), ylim=(-0.8, 0.8), zlim=(-0.8, 0.8), box_aspect=(1, 1, 1))
        panel.set_axis_off()
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_open(path) as file:
        figure.savefig(file, format="png", dpi=110)


def command(config: Config) -> int:
    """Complete, print the table; 3 if a shape for the head could not be read, else 0."""
    result = complete_surfaces(config)
    rows = [
        [way, *(cell(found[name]) for name in FIGURES), str(found["without_surface"])]
        for way, found in result["mean"].items()
    ]
    heads = [f"{len(result['shapes'])} shapes", "Chamfer", f"F@{config.tau:g}", "normals", "without a surface"]
    print(tabulate(rows, heads, colalign=("left", *4 * ("right",)), disable_numparse=True))
    print(f"surfaces, scores.json and surfaces.png: {config.out_root}")
    for failure in result["failed"]:
        print(f"failed: {failure['path']}: {failure['reason']}", file=sys.stderr)
    return cli.EXIT_SOME_FAILED if result["failed"] else cli.EXIT_OK


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(Config, command, argv, output="out_root")


if __name__ == "__main__":
    raise SystemExit(main())
