"""The picture of completed surfaces."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nepa3d.execution.files import atomic_open
from nepa3d.probes.surfaces import Completed, Meshes


def draw(shapes: Sequence[tuple[Completed, Meshes]], path: Path) -> None:
    """A row a shape: its samples, then the surface of each way."""
    from matplotlib.figure import Figure

    ways = list(dict.fromkeys(way for _, meshes in shapes for way in meshes))
    figure = Figure(figsize=(3 * (1 + len(ways)), 3 * len(shapes)), layout="constrained")
    axes = figure.subplots(len(shapes), 1 + len(ways), subplot_kw={"projection": "3d"}, squeeze=False)
    for row, (completed, meshes) in zip(axes, shapes, strict=True):
        x, y, z = completed.points.T  # the corpora have y upwards
        row[0].scatter(x, -z, y, c=y, s=1.5, cmap="viridis")
        row[0].set_title(Path(completed.path).stem[:28], fontsize=8)
        for panel, way in zip(row[1:], ways, strict=True):
            mesh = meshes.get(way)
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
