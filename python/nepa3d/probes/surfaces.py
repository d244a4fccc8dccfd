"""Completion one can see: the distance field a model reads off a few points, as a surface beside the true one.

A frozen model sees a context of points with distances and is asked for the distance at every cell of a grid, a chunk of
cells at a time; a ridge head fitted on other shapes reads its states. The surface is where that field takes a small
value, found by marching cubes (Lorensen and Cline, 1987). Letters: G grid side, V vertices, F faces.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from tabulate import tabulate

from nepa3d import ops
from nepa3d.execution.checks import require_at_least, require_positive
from nepa3d.execution.files import atomic_open
from nepa3d.execution.progress_bar import progress_bar
from nepa3d.models.distances import distances_at
from nepa3d.models.embedding import Probe
from nepa3d.probes.completion import TEST_SEED_OFFSET
from nepa3d.probes.distance_head import Headed, Plan, Reading, fit_head
from nepa3d.probes.embedding import untrained
from nepa3d.probes.intervals import cell
from nepa3d.probes.kind import Named, ProbeKind, Section
from nepa3d.probes.result import Json, Result, failures, first_failure
from nepa3d.probes.spline import spline_distances
from nepa3d.probes.tables import Table, once, unmeasured, unusual
from nepa3d.samples.completion import SequenceSettings, query_answers
from nepa3d.samples.questions import asked_of
from nepa3d.samples.tokenizer import draw_rows, evaluation_rng
from nepa3d.shapes.cache import CacheError, ShapeCache
from nepa3d.shapes.cells import cell_centres
from nepa3d.shapes.level_set import level_set
from nepa3d.shapes.views import read_answers

if TYPE_CHECKING:
    import trimesh

Field = NDArray[np.float32]  # (G, G, G) distances at cell centres over [-1, 1]^3
MODEL, UNTRAINED, COPY, SPLINE, TRUE = WAYS = ("model", "untrained", "nearest copy", "spline", "true field")
AGAINST = {COPY: "copy of the nearest point", SPLINE: "spline", UNTRAINED: "untrained model"}
SAMPLES = 10_000  # points on a surface by which it is scored
FIGURES = ("chamfer", "f_score", "normal_consistency")

Meshes = Mapping[str, "trimesh.Trimesh | None"]  # by way; None where there is no surface


@dataclass(frozen=True)
class SurfaceSettings:
    """The grid, where its surface lies, and how surfaces are scored and saved."""

    resolution: int = 32
    """Cells a side of the grid."""
    level: float | None = None
    """Distance at which the surface is drawn; None: a cell's side."""
    tau: float = 0.1
    """Two surfaces agree at a point when they are at most this apart there (F-score)."""
    max_shapes: int = 4
    """Complete only so many shapes, evenly spread; 0: all."""
    formats: tuple[str, ...] = ("ply",)
    """Files of the surfaces: ply, glb."""
    ridge_lambda: float = 1e-3
    seed: int = 0
    spline: bool = True
    """Whether a spline of the context is a control; it needs SciPy."""
    untrained: bool = False
    """Whether an untrained model of the same sizes is a control, with a head of its own."""
    reading: Reading = field(default_factory=Reading)

    def __post_init__(self) -> None:
        require_at_least(4, resolution=self.resolution)
        require_positive(tau=self.tau, ridge_lambda=self.ridge_lambda, level=self.drawn_at)
        require_at_least(0, max_shapes=self.max_shapes)

    @property
    def drawn_at(self) -> float:
        """The level of the surface."""
        return 2.0 / self.resolution if self.level is None else self.level


class SurfaceResult(Result):
    """The scores of completed surfaces; their file has the mean of each way, and every shape."""

    def to_json(self) -> Json:
        """As one object of plain values."""
        mean = {MODEL: self.figures, **self.controls}
        shapes = [
            {"path": path, "scores": scores, "context": context}
            for path, scores, context in zip(*(self.items[key] for key in ("path", "scores", "context")), strict=True)
        ]
        said = {**self.settings, **self.diagnostics}
        return {**said, "mean": mean, "shapes": shapes, "failed": failures(self.failed)}

    @classmethod
    def from_json(
        cls,
        content: Json,
        probe: str,
        figures: Sequence[str],
        controls: Sequence[str] = (),
        diagnostics: Sequence[str] = (),
    ) -> SurfaceResult:
        """The result of a scores.json."""
        shapes, mean = content["shapes"], content["mean"]
        known = ("mean", "shapes", "failed", *diagnostics)
        return cls(
            probe=probe,
            figures=mean[MODEL],
            controls={way: found for way, found in mean.items() if way != MODEL},
            settings={name: value for name, value in content.items() if name not in known},
            diagnostics={name: content[name] for name in diagnostics if name in content},
            items={
                "path": [shape["path"] for shape in shapes],
                "scores": [shape["scores"] for shape in shapes],
                "context": [shape.get("context", []) for shape in shapes],
            },
            failed={failure["path"]: failure["reason"] for failure in content.get("failed", [])},
        )


@dataclass(frozen=True)
class Completed:
    """One shape: what was told of it, its fields by way, and the true surface samples and normals (N, 3)."""

    path: str
    context: NDArray[np.float32]  # (C, 4) points and their distances
    fields: dict[str, Field]
    points: NDArray[np.float32]
    normals: NDArray[np.float32]
    no_spline: str
    """Why there is none, where one was asked for."""


def fields_of(
    path: str, models: Mapping[str, Headed], sequence: SequenceSettings, settings: SurfaceSettings
) -> Completed:
    """The distance fields of a shape as ``models`` by way, the nearest context point, a spline of the context and the
    cache's own grid have them. ``CacheError`` where the shape cannot be read."""
    with ShapeCache(path) as cache:
        query_answers(cache, sequence)  # that it has a grid to compare with
        grid = np.ascontiguousarray(cache["udf_grid"].astype(np.float32))
        points, normals = cache["pc_xyz"], cache["pc_n"]
    rng = evaluation_rng(path, settings.seed + TEST_SEED_OFFSET)
    context = asked_of(read_answers(path, sequence.context_backend, sequence.voxel), sequence.questions, path)
    if not len(context.point_xyz):
        raise CacheError(path, "pt_xyz_pool is empty")
    context_rows = draw_rows(len(context.point_xyz), sequence.n_context, rng)
    points_told, distances_told = context.point_xyz[context_rows], context.point_distance[context_rows]
    if not all(np.isfinite(values).all() for values in (points_told, distances_told, grid, points, normals)):
        raise CacheError(path, "the shape has values that are not finite")
    side = settings.resolution
    centres = cell_centres(side)
    batch = settings.reading.batch
    found = dict[str, NDArray[np.floating]]()
    for way, one in models.items():
        found[way], found[COPY] = distances_at(centres, context, context_rows, one.probe, one.weights, sequence, batch)
    missing = ""
    if settings.spline:
        try:
            found[SPLINE] = spline_distances(points_told, distances_told, centres)
        except ValueError as error:
            missing = f"{path}: {error}"
    found[TRUE] = ops.trilinear_sample(grid, centres)
    fields = {way: found[way].reshape(3 * (side,)).astype(np.float32) for way in WAYS if way in found}
    return Completed(path, np.column_stack([points_told, distances_told]), fields, points, normals, missing)


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


def complete_surfaces(
    probe: Probe, plan: Plan, settings: SurfaceSettings, out_root: Path
) -> tuple[SurfaceResult, list[tuple[Completed, Meshes]]]:
    """Complete and score every shape, and save its surfaces as ``<out_root>/<class>/<shape>/<way>``.

    The result, which lists the shapes that cannot be read, and each other shape with its surfaces. ``ValueError`` if
    none can be read.
    """
    failed: dict[str, str] = {}
    sequence = plan.test_settings
    probes = {MODEL: probe} | ({UNTRAINED: untrained(probe, settings.seed)} if settings.untrained else {})
    models, n_train = dict[str, Headed](), 0
    for name, one in probes.items():
        weights, n_train = fit_head(one, plan, settings.ridge_lambda, settings.seed, settings.reading, failed)
        models[name] = Headed(one, weights)
    missing = {} if settings.spline else {SPLINE: "left out"}
    count = min(settings.max_shapes or len(plan.test), len(plan.test))
    chosen = [plan.test[i * len(plan.test) // count] for i in range(count)]
    items = Items([], [], [])
    drawn: list[tuple[Completed, Meshes]] = []
    for path in progress_bar(chosen, desc="surfaces", unit="shape"):
        try:
            completed = fields_of(path, models, sequence, settings)
        except CacheError as error:
            failed.setdefault(path, error.fault)
            continue
        if completed.no_spline:
            missing.setdefault(SPLINE, completed.no_spline)
        meshes = {way: level_set(values, settings.drawn_at) for way, values in completed.fields.items()}
        seed = int.from_bytes(hashlib.sha256(path.encode("utf-8", "surrogateescape")).digest()[:8], "little")
        scores = {way: score(m, completed.points, completed.normals, settings.tau, seed) for way, m in meshes.items()}
        for way, mesh in meshes.items():
            if mesh is not None:
                stem = out_root / Path(path).parent.name / Path(path).stem / way.replace(" ", "_")
                write_mesh(stem, mesh, settings.formats)
        items.path.append(path)
        items.scores.append(scores)
        items.context.append(completed.context.astype(np.float64).round(4).tolist())
        drawn.append((completed, meshes))
    if not drawn:
        raise ValueError(f"no shape to complete could be read; first: {first_failure(failed, chosen)}")
    ways = [way for way in drawn[0][0].fields if way not in missing]
    mean = {way: _mean([scores[way] for scores in items.scores]) for way in ways}
    result = SurfaceResult(
        probe="surfaces",
        figures=mean.pop(MODEL),
        controls={**mean},
        settings={
            "ckpt": probe.ckpt,
            "precision": probe.precision,
            "level": settings.drawn_at,
            "resolution": settings.resolution,
            "tau": settings.tau,
            "n_context": sequence.n_context,
            "context_backend": sequence.context_backend,
            "n_shapes_head_train": n_train,
            "seed": settings.seed,
            "questions": sequence.questions,
        },
        diagnostics={"missing_controls": missing} if missing else {},
        items={**vars(items)},
        failed=failed,
    )
    return result, drawn


@dataclass
class Items:
    """Shape by shape: its scores by way, and its context (C, 4)."""

    path: list[str]
    scores: list[dict[str, dict[str, float] | None]]
    context: list[list[list[float]]]


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


def text(result: Result) -> str:
    """The mean scores of each way as a table for the terminal."""
    rows = [
        [way, *(cell(found[name]) for name in FIGURES), str(found["without_surface"])]
        for way, found in _ways(result).items()
    ]
    tau = result.settings["tau"]
    heads = [f"{len(result.items['path'])} shapes", "Chamfer", f"F@{tau:g}", "normals", "without a surface"]
    table = tabulate(rows, heads, colalign=("left", *4 * ("right",)), disable_numparse=True)
    return "\n".join([table, *unmeasured(result)])


def _ways(result: Result) -> dict[str, Any]:
    return {MODEL: result.figures, **result.controls}


def _report_table(results: Sequence[Named]) -> Table:
    """Completed surfaces, then those that need no model."""
    heads = ("Model", "Surface", "Chamfer", "F-score", "Normals", "Without a surface", "Notes")
    rows: list[list[str]] = []
    for _, r in results:
        note = "; ".join(unusual(r, {"questions": "pool"}))
        for way, mean in _ways(r).items():
            figures = [cell(mean[name], 3) for name in FIGURES]
            who = r.model if way in (MODEL, UNTRAINED) else "no model"
            rows.append([who, way, *figures, f"{mean['without_surface']} of {len(r.items['path'])}", note])
    ordered = sorted(once(rows), key=lambda row: row[0] == "no model")
    return Table("Completed surfaces", heads, ordered, first_figure=2)


def _doubts(result: Result) -> list[str]:
    """Controls whose surfaces are as good, by F-score."""
    own = result.figures["f_score"]
    if own is None:
        return ["the model's field has no surface at that level in any shape"]
    return [
        f"F-score {own:.3f} is no better than that of the {AGAINST[way]} ({known['f_score']:.3f})"
        for way in AGAINST
        if (known := result.controls.get(way)) and known["f_score"] is not None and own <= known["f_score"]
    ]


SURFACES = ProbeKind(
    name="Surfaces",
    recognises=lambda content: {"mean", "shapes", "ckpt"} <= content.keys(),
    figures=FIGURES,
    controls=(UNTRAINED, COPY, SPLINE, TRUE),
    diagnostics=("missing_controls",),
    result=SurfaceResult,
    table=_report_table,
    section=Section(
        "surfaces",
        "Completions to turn",
        "Surfaces of predicted distance fields, beside those of the nearest context point, a spline and the true one.",
    ),
    report_table=_report_table,
    doubts=_doubts,
)
