"""Predict the distance field of a scanned point cloud and write the surface as a mesh.

python examples/complete_scan.py --ckpt runs/nepa_qa/last.pt --scan scan.npy --out surface.ply
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

import nepa3d


@dataclass(frozen=True)
class Config:
    """Predict the distance field of a scanned point cloud and write the surface as a mesh."""

    ckpt: Path
    """Checkpoint, or a folder written by Encoder.save."""
    scan: Path
    """Points of the scan: a .npy file of shape (N, 3), or a text file with three numbers a line."""
    out: Path
    """Mesh to write (PLY, OBJ, STL or GLB), in the coordinates of the normalised scan."""
    resolution: int = 48
    """Cells a side of the grid in which the surface is found."""
    level: float | None = None
    """Predicted distance at which the surface is drawn; left out: a cell's side."""


def main(config: Config) -> None:
    """Write the mesh, and print how far it is from the points of the scan."""
    points = np.load(config.scan) if config.scan.suffix == ".npy" else np.loadtxt(config.scan)
    scan = nepa3d.Shape.from_cloud(points)
    encoder = nepa3d.load(config.ckpt)
    surface = encoder.surface(scan, resolution=config.resolution, level=config.level)
    surface.export(config.out)
    vertices = surface.vertices.astype(np.float32)
    far = nepa3d.ops.closest_point(vertices, surface.faces, scan["pc_xyz"]).distance
    print(f"{config.out}: {len(surface.faces)} triangles, {far.mean():.4f} from the scan's points on average")


if __name__ == "__main__":
    main(tyro.cli(Config))
