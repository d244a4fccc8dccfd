"""The picture of a completed scan: the scan, then the surface of each way, seen from one side."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from nepa3d import ops
from nepa3d.execution.files import atomic_open
from nepa3d.report import panels

if TYPE_CHECKING:
    import trimesh

PIXELS = 480  # a side
REACH = 1.15  # half side of what is seen, where the scan's radius is 1
SHOWN = 6000  # points of the scan


def draw(
    path: Path,
    scan: NDArray[np.float32],
    meshes: Mapping[str, trimesh.Trimesh | None],
    *,
    title: str = "scan",
    up: Literal["y", "z"] = "y",
    error: NDArray[np.floating] | None = None,
    unit: float = 1.0,
) -> None:
    """Write a PNG: points (N, 3) of the normalised scan, then meshes in its coordinates by the panel's title; None is
    no surface. ``error`` (V,) colours the first mesh, in units of which ``unit`` are one of the scan's.

    ``ValueError`` if matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error_:
        raise ValueError("picture: matplotlib is not installed: pip install 'nepa3d[surfaces]'") from error_
    figure = Figure(figsize=(4 * (1 + len(meshes)), 4.3), layout="constrained")
    axes = figure.subplots(1, 1 + len(meshes), squeeze=False)[0]
    shown = scan[:: -(-len(scan) // SHOWN)]
    panels.cloud(axes[0], shown, panels.depth_shades(shown, up), up, size=panels.point_size(len(shown)) * 0.8)
    axes[0].set_title(f"{title}: {len(scan)} points" + (f" ({len(shown)} shown)" if len(shown) < len(scan) else ""))
    for number, (panel, (name, mesh)) in enumerate(zip(axes[1:], meshes.items(), strict=True)):
        panel.set_title(name)
        if mesh is None:
            panels.note(panel, "nowhere")
            continue
        colors = None
        if number == 0 and error is not None:
            from matplotlib import colormaps
            from matplotlib.cm import ScalarMappable
            from matplotlib.colors import Normalize

            norm = Normalize(0.0, float(np.quantile(error, 0.98)))
            colors = colormaps[panels.DISTANCE_MAP](norm(error))[:, :3]
            scaled = Normalize(0.0, norm.vmax / unit if norm.vmax else 1.0)
            bar = figure.colorbar(ScalarMappable(scaled, panels.DISTANCE_MAP), ax=panel, shrink=0.7)
            bar.set_label("expected error (scan's radius 1)")
        extent = (-REACH, REACH, -REACH, REACH)
        panel.imshow(rendered(mesh, up, colors), origin="lower", extent=extent, interpolation="antialiased")
    for panel in axes:
        panel.set(xlim=(-REACH, REACH), ylim=(-REACH, REACH), aspect="equal")
        panel.set_axis_off()
    with atomic_open(path) as file:
        figure.savefig(file, format="png", dpi=110)


def rendered(
    mesh: trimesh.Trimesh, up: str, colors: NDArray[np.floating] | None = None, pixels: int = PIXELS
) -> NDArray[np.float32]:
    """An image (pixels, pixels, 4) of a mesh in the unit ball, its first row at the bottom, by one ray a pixel: shaded
    by face normals, transparent where nothing is hit. ``colors`` (V, 3) are those of the vertices."""
    plane, near = panels.project(np.eye(3), up)  # of the axes: the picture's right and upward vectors, and towards us
    steps = ((np.arange(pixels) + 0.5) * 2 / pixels - 1) * REACH
    right, over = (grid.ravel()[:, None] for grid in np.meshgrid(steps, steps))
    origins = right * plane[:, 0] + over * plane[:, 1] + 3 * near
    directions = np.broadcast_to(-near, origins.shape)
    vertices, faces = mesh.vertices.astype(np.float32), np.asarray(mesh.faces, np.int64)
    hits = ops.cast_rays(vertices, faces, origins.astype(np.float32), directions.astype(np.float32))
    struck = hits.face >= 0
    corners = faces[hits.face[struck]]
    a, b, c = (vertices[corners[:, k]].astype(np.float64) for k in range(3))
    normals = np.cross(b - a, c - a)
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-30)
    shade = 0.4 + 0.6 * np.abs(normals @ (near + 0.35 * plane[:, 1] - 0.25 * plane[:, 0])) / 1.1
    base = panels.SURFACE if colors is None else colors[corners].mean(1)
    image = np.zeros((pixels * pixels, 4), np.float32)
    image[struck, :3] = np.clip(base * shade[:, None] * 1.25, 0, 1)
    image[struck, 3] = 1
    return image.reshape(pixels, pixels, 4)
