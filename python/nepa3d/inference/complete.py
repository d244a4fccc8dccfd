"""The command that completes a scan: from a cloud to a mesh in the scan's frame, see ``nepa3d.models.completion``."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import trimesh
import tyro
from tabulate import tabulate

from nepa3d import cli, ops
from nepa3d.execution.files import atomic_open, require_writable, write_json
from nepa3d.inference.model_flags import ModelFlags
from nepa3d.models.completion import Completion, ScanCompletionSettings, complete_scan
from nepa3d.models.encoder import Encoder
from nepa3d.report import completion_picture
from nepa3d.shapes.level_set import require_marching_cubes
from nepa3d.shapes.shape import SCAN_POINTS, Shape

FORMATS = (".ply", ".glb", ".obj", ".stl", ".off")
COLORED = (".ply", ".glb")


@dataclass(frozen=True, kw_only=True)
class GridFlags:
    """The surface."""

    resolution: int = 128
    """Cells a side of the grid in which the surface is found."""
    level: float = 0.0
    """Predicted distance at which the surface is extracted, in units of the scan's radius; 0: the smallest at which it
    encloses 80 % of the scan's points, but at least the side of a cell."""
    slope: float = 2.0
    """Assumed Lipschitz constant of the predicted field. Cells that the surface cannot reach under it are skipped; 0
    evaluates every cell."""


@dataclass(frozen=True, kw_only=True)
class ContextFlags:
    """Context that the model receives of the scan."""

    view: str = "pointcloud_noray"
    """View whose distances form the context."""
    n_context: int = 0
    """Points of the context; 0: half of what the model takes."""
    max_points: int = SCAN_POINTS
    """Use at most this many points of the scan, chosen at random; 0: all."""
    seed: int = 0
    """Seed of the choice of these points and of the context."""


@dataclass(frozen=True)
class Config:
    """Complete a scan: write the surface that a model predicts, in the frame and units of the scan.

    The scan is a cloud (PLY, NPZ or NPY, XYZ and other text) or a mesh, of whose surface a cloud is taken. The surface
    lies at a small distance from the predicted one, on both of its sides: see --level.

    Example: nepa3d complete scan.ply --out mesh.ply --ckpt runs/query/last.pt --picture mesh.png
    """

    scan: Annotated[Path, tyro.conf.Positional]
    """File of the scan."""
    out: Path
    """Mesh to write: PLY, GLB, OBJ, STL or OFF."""
    model: ModelFlags = field(default_factory=ModelFlags)
    grid: GridFlags = field(default_factory=GridFlags)
    told: ContextFlags = field(default_factory=ContextFlags)
    spline: bool = False
    """Also write the surface of a thin-plate spline of the same context, which needs no model, as
    <out>.spline.<ending>."""
    uncertainty: bool = False
    """Colour the vertices by the error that the model expects; requires a model trained with answer_loss laplace."""
    batch: int = 16
    """Sequences a forward pass."""
    picture: str = ""
    """Where to write a picture of the scan beside its completion; empty: nowhere."""
    up: Literal["x", "y", "z"] = "y"
    """Axis of the scan that points up; the model is told of it turned, so that it is y."""
    out_json: str = ""
    """Where to write what was read, asked and found; empty: nowhere."""

    def __post_init__(self) -> None:
        self.settings()
        endings = COLORED if self.uncertainty else FORMATS
        if self.out.suffix.lower() not in endings:
            raise ValueError(f"out must end in {', '.join(endings)}, got {self.out.name!r}")

    def settings(self) -> ScanCompletionSettings:
        """What is told and asked."""
        return ScanCompletionSettings(
            view=self.told.view,
            n_context=self.told.n_context or None,
            resolution=self.grid.resolution,
            level=self.grid.level or None,
            slope=self.grid.slope or math.inf,
            seed=self.told.seed,
            batch=self.batch,
            spline=self.spline,
            uncertainty=self.uncertainty,
        )

    @property
    def spline_path(self) -> Path:
        """Where the spline's surface is written."""
        return self.out.with_suffix(f".spline{self.out.suffix}")


def complete(config: Config, encoder: Encoder) -> tuple[Shape, Completion]:
    """The scan and its completion, its meshes written. Bad input is ``ValueError``."""
    scan = Shape.from_scan(config.scan, max_points=config.told.max_points, seed=config.told.seed, up=config.up)
    found = complete_scan(encoder, scan, config.settings(), progress=True)
    if found.expected_error is not None:
        found.surface.visual = trimesh.visual.ColorVisuals(
            found.surface, vertex_colors=error_colors(found.expected_error)
        )
    write(config.out, found.surface)
    if found.spline is not None:
        write(config.spline_path, found.spline)
    return scan, found


def write(path: Path, mesh: trimesh.Trimesh) -> None:
    """Write a mesh in the format of its ending, whole or not at all."""
    with atomic_open(path) as file:
        exported = mesh.export(file_type=path.suffix.lower().removeprefix("."))
        file.write(exported if isinstance(exported, bytes) else f"{exported}".encode())


def error_colors(error: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Colours (V, 4) of expected errors (V,) from 0 to their 98th percentile. ``ValueError`` without matplotlib."""
    try:
        from matplotlib import colormaps
    except ImportError as missing:
        raise ValueError("uncertainty: matplotlib is not installed: pip install 'nepa3d[surfaces]'") from missing
    top = max(float(np.quantile(error, 0.98)), 1e-30)
    return (colormaps["viridis"](error / top) * 255).astype(np.uint8)


def summary(config: Config, encoder: Encoder, scan: Shape, found: Completion, seconds: float) -> dict[str, Any]:
    """What was read, asked and found; lengths in the units of the scan."""
    scale, surface = found.placement.scale, found.surface
    cloud = found.placement.restored(scan["pc_xyz"])
    apart = ops.closest_point(
        found.placement.normalized(surface.vertices), np.asarray(surface.faces, np.int64), scan["pc_xyz"]
    ).distance
    said: dict[str, Any] = {
        "scan": f"{config.scan}",
        "points": scan.points_read if scan.points_read is not None else len(cloud),
        "points_used": len(cloud),
        "centre": found.placement.restored(np.zeros((1, 3)))[0].tolist(),
        "radius": scale,
        "ckpt": encoder.probe.ckpt,
        "view": config.told.view,
        "distances_by": encoder.distances_by,
        "n_context": len(found.context),
        "resolution": config.grid.resolution,
        "level": found.level * scale,
        "asked": found.asked,
        "cells": config.grid.resolution**3,
        "vertices": len(surface.vertices),
        "faces": len(surface.faces),
        "bounds": surface.bounds.tolist(),
        "median_distance_of_the_scan": float(np.median(apart)) * scale,
        "seconds": round(seconds, 2),
    }
    if found.expected_error is not None:
        said["expected_error"] = {
            name: float(np.quantile(found.expected_error, q)) for name, q in (("median", 0.5), ("p95", 0.95))
        }
    if config.spline:
        said["spline"] = None if found.spline is None else f"{config.spline_path}"
    return said


def text(said: dict[str, Any]) -> str:
    """The summary as a table for the terminal."""
    thinned = said["points_used"] < said["points"]
    rows = [
        ("points of the scan", f"{said['points']}, {said['points_used']} taken" if thinned else f"{said['points']}"),
        ("its radius", f"{said['radius']:.4g}"),
        ("points told to the model", f"{said['n_context']} ({said['view']})"),
        ("distances read by", said["distances_by"]),
        ("points asked", f"{said['asked']} of {said['cells']} cells ({said['resolution']} a side)"),
        ("surface", f"{said['vertices']} vertices, {said['faces']} faces, at distance {said['level']:.4g}"),
        ("scan to surface, median", f"{said['median_distance_of_the_scan']:.4g}"),
    ]
    if "expected_error" in said:
        rows.append(("expected error, median", f"{said['expected_error']['median']:.4g}"))
    if "spline" in said:
        rows.append(("spline", said["spline"] or "no surface at this level"))
    return tabulate([*rows, ("time", f"{said['seconds']:.1f} s")], tablefmt="plain", disable_numparse=True)


def command(config: Config) -> None:
    """Complete, write the files, print the summary."""
    for flag, path in (("out", config.out), ("picture", config.picture)):
        if path:
            require_writable(path, flag)
    require_packages(config)
    encoder = config.model.load()
    begin = time.perf_counter()
    scan, found = complete(config, encoder)
    said = summary(config, encoder, scan, found, time.perf_counter() - begin)
    print(text(said))
    if scan.doubt:
        print(f"suspicious: {config.scan}: {scan.doubt}", file=sys.stderr)
    print(f"wrote {config.out}")
    if config.picture:
        draw(config, scan, found)
        print(f"wrote {config.picture}")
    if config.out_json:
        write_json(config.out_json, said)
        print(f"wrote {config.out_json}")


def require_packages(config: Config) -> None:
    """``ValueError`` naming a package that the request needs and that is not installed, before anything is asked."""
    require_marching_cubes()
    for flag in ("picture", "uncertainty"):
        if getattr(config, flag) and find_spec("matplotlib") is None:
            raise ValueError(f"{flag}: matplotlib is not installed: pip install 'nepa3d[surfaces]'")


def draw(config: Config, scan: Shape, found: Completion) -> None:
    """The picture: the scan, the completion, the spline where it was asked for."""
    meshes = {"completion": found.surface} | ({"spline of the context": found.spline} if config.spline else {})
    placed = {name: None if mesh is None else mesh.copy() for name, mesh in meshes.items()}
    for mesh in placed.values():
        if mesh is not None:
            mesh.vertices = found.placement.normalized(mesh.vertices)
    completion_picture.draw(
        Path(config.picture),
        scan["pc_xyz"],
        placed,
        title=config.scan.stem,
        error=found.expected_error,
        unit=found.placement.scale,
    )


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(Config, command, argv, output="out")


if __name__ == "__main__":
    raise SystemExit(main())
