"""A scan completed: the surface of the distances that a model predicts, in the frame and units of the scan.

Letters: N points of the cloud, M points asked, V vertices.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nepa3d.execution.progress_bar import progress_bar
from nepa3d.models.distances import PredictedField
from nepa3d.models.encoder import Encoder
from nepa3d.shapes.level_set import AskedField, field_near, level_set, require_marching_cubes
from nepa3d.shapes.placement import Placement
from nepa3d.shapes.shape import Shape
from nepa3d.shapes.view_table import require_backend

if TYPE_CHECKING:
    import trimesh

FLAT = 1e-5  # a cloud is flat whose thickness is less than this part of its length
COVERED = 0.8  # part of the scan's points that a surface encloses whose level is not given
TRIED = 512  # points of the scan at which that is looked up
SLOPE = 2.0  # distances change by at most 1 a unit; predicted ones are wrong


@dataclass(frozen=True)
class ScanCompletionSettings:
    """What is told, what is asked, and where the surface lies. Lengths are those of the normalised scan."""

    view: str = "pointcloud_noray"
    """View whose distances the model is told."""
    n_context: int | None = None
    """Points of the context; None: half of what the model takes."""
    resolution: int = 128
    """Cells a side of the grid."""
    level: float | None = None
    """Distance at which the surface is drawn; None: the least at which it encloses four fifths of the scan's points, by
    the prediction there, but at least a cell's side."""
    slope: float = SLOPE
    """Largest slope of the predicted distance: cells that a surface cannot reach are not asked. Infinite: all are."""
    seed: int = 0
    """Which points are the context."""
    batch: int = 16
    """Sequences a forward pass."""
    spline: bool = False
    """Whether the surface of the context's spline is made, too."""
    uncertainty: bool = False
    """Whether the error that the model expects is read at the surface."""

    def __post_init__(self) -> None:
        require_backend(self.view, "view")
        for name, least in (("resolution", 4), ("batch", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if self.level is not None and not 0 < self.level < math.inf:
            raise ValueError(f"level must be a distance above 0, got {self.level}")
        if not self.slope >= 1:
            raise ValueError(f"slope must be at least 1, which that of a distance is, got {self.slope}")

    def drawn_at(self, field: PredictedField, scan: Shape) -> float:
        """The level of the surface."""
        if self.level is not None:
            return self.level
        xyz = scan["pc_xyz"]
        tried = np.ascontiguousarray(xyz[:: -(-len(xyz) // TRIED)])
        return max(2.0 / self.resolution, float(np.quantile(field.distances(tried), COVERED)))


@dataclass(frozen=True)
class Completion:
    """A completed scan. Meshes lie in the frame and units of the scan."""

    surface: trimesh.Trimesh
    spline: trimesh.Trimesh | None
    """Of the context's spline; None if it was not asked for, or takes the level nowhere."""
    expected_error: NDArray[np.float32] | None
    """(V,) of the surface's vertices, in the units of the scan; None if it was not asked for."""
    context: NDArray[np.float32]
    """(C, 4) points told and their distances, of the normalised scan."""
    placement: Placement
    level: float
    """Distance at which the surface was drawn, of the normalised scan."""
    asked: int
    """Points at which the model was asked."""


def complete_scan(
    encoder: Encoder,
    scan: Shape,
    settings: ScanCompletionSettings = ScanCompletionSettings(),
    *,
    progress: bool = False,
) -> Completion:
    """The surface that ``encoder`` makes of a scan, which ``Shape.from_scan`` reads.

    The model is asked on a grid, near the surface only (``nepa3d.shapes.level_set.field_near``); where the answer to
    one question depends on the others, on the whole grid. Memory is that of the grid, four bytes a cell, and of one
    forward pass. Raises ``ValueError`` on a scan that lies in one plane, on one that does not say where it lay, where
    the model predicts no such distance, where it expects no error but is to say it, and without scikit-image.
    ``progress`` shows how many points are asked, of those known to be needed so far.
    """
    require_marching_cubes()
    if scan.placement is None:
        raise ValueError(f"scan: {scan.name} was read from a cache file, which does not say where the scan lay")
    require_solid(scan)
    if settings.uncertainty:
        require_expected_error(encoder)
    field = encoder.field(
        scan, view=settings.view, n_context=settings.n_context, seed=settings.seed, batch=settings.batch
    )
    level, slope = settings.drawn_at(field, scan), settings.slope if encoder.probe.asks_alone else math.inf
    with progress_bar(total=0, desc="ask", unit="point", disable=not progress) as bar:

        def ask(points: NDArray[np.float32]) -> NDArray[np.float32]:
            bar.total = bar.n + len(points)
            return field.distances(points, bar)

        grid = field_near(ask, settings.resolution, level, slope)
    surface = level_set(grid.values, level)
    if surface is None:
        raise ValueError(f"the predicted distance is {level:g} nowhere, {_range(grid)}: set another level")
    error = field.scales(surface.vertices.astype(np.float32)) * scan.placement.scale if settings.uncertainty else None
    spline = None
    if settings.spline:
        spline = level_set(field_near(field.spline, settings.resolution, level, settings.slope).values, level)
    for mesh in (surface, spline):
        if mesh is not None:
            mesh.vertices = scan.placement.restored(mesh.vertices)
    return Completion(
        surface=surface,
        spline=spline,
        expected_error=None if error is None else error.astype(np.float32),
        context=field.context,
        placement=scan.placement,
        level=level,
        asked=grid.asked,
    )


def require_solid(scan: Shape) -> None:
    """``ValueError`` if the points of a scan lie in one plane, or on one line."""
    xyz = scan["pc_xyz"].astype(np.float64)
    spread = np.linalg.eigvalsh(np.cov(xyz.T)) if len(xyz) > 1 else np.zeros(3)
    if not spread[0] > FLAT**2 * spread[2]:
        raise ValueError(f"{scan.name}: the {len(xyz)} points lie in one plane: there is no shape to complete")


def require_expected_error(encoder: Encoder) -> None:
    """``ValueError`` if a model was not trained to tell the error that it expects."""
    loss = encoder.probe.args.get("answer_loss", "l1") if encoder.probe.model.architecture.answer_head else "none"
    if loss != "laplace":
        raise ValueError(
            f"uncertainty: {encoder.probe.ckpt} does not tell the error it expects: it was trained with answer_loss "
            f"{loss}, expected laplace (nepa3d pretrain --answer_loss laplace)"
        )


def _range(field: AskedField) -> str:
    return f"it lies between {field.values.min():g} and {field.values.max():g}"
