"""Completions as data for the report's turning views.

Letters: V vertices, F faces, C context points.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nepa3d.probes.result import Result
from nepa3d.probes.surfaces import COPY, MODEL, SPLINE, TRUE

BESIDE = (COPY, SPLINE, TRUE)


@dataclass(frozen=True)
class Scene:
    """One shape: the context it was completed from, and a surface a panel, None where there is none."""

    shape: str
    context: list[list[float]]  # (C, 4) position and distance
    surfaces: dict[str, dict[str, Any] | None]

    def plain(self) -> dict[str, Any]:
        """For a page."""
        return {"shape": self.shape, "context": self.context, "surfaces": self.surfaces}


def read_scenes(surfaces: list[tuple[Path, Result]], up: str) -> list[Scene]:
    """The shapes that ``nepa3d surfaces`` completed; those of several models stand beside each other."""
    scenes: dict[str, Scene] = {}
    for path, result in surfaces:
        for shape, context in zip(result.items["path"], result.items["context"], strict=True):
            name = "/".join(Path(shape).with_suffix("").parts[-2:])
            folder = path.parent / name
            scene = scenes.setdefault(name, Scene(name, _turned(context, up), {}))
            scene.surfaces[result.model] = _read(folder / MODEL, up)
            for way in [way for way in BESIDE if way in result.controls]:
                scene.surfaces.setdefault(way, _read(folder / way.replace(" ", "_"), up))
    return [Scene(s.shape, s.context, _in_order(s.surfaces)) for s in scenes.values()]


def _in_order(surfaces: dict[str, Any]) -> dict[str, Any]:
    """The models first, then what they are compared with."""
    return {way: surfaces[way] for way in sorted(surfaces, key=lambda way: way in BESIDE)}


def _turned(context: list[list[float]], up: str) -> list[list[float]]:
    """Positions with the third axis upwards, as the views have it."""
    return [[x, -z, y, d] if up == "y" else [x, y, z, d] for x, y, z, d in context]


def _read(stem: Path, up: str) -> dict[str, Any] | None:
    """The mesh ``<stem>.ply`` or ``.glb`` as packed arrays; None where there was no surface to save."""
    saved = [path for kind in ("ply", "glb") if (path := stem.with_name(f"{stem.name}.{kind}")).is_file()]
    if not saved:
        return None
    import trimesh  # here, as it takes a second and most reports have no surfaces

    mesh = trimesh.load_mesh(saved[0], process=False)
    x, y, z = np.asarray(mesh.vertices, np.float32).T
    axes = (x, -z, y) if up == "y" else (x, y, z)
    columns = dict(zip("xyz", (_packed(axis, "f4") for axis in axes), strict=True))
    kind = "u2" if len(mesh.vertices) < 1 << 16 else "i4"
    faces = dict(zip("ijk", (_packed(column, kind) for column in np.asarray(mesh.faces).T), strict=True))
    return columns | faces


def _packed(values: NDArray[Any], kind: str) -> dict[str, str]:
    """An array in plotly's packed form."""
    return {"dtype": kind, "bdata": base64.b64encode(np.ascontiguousarray(values, f"<{kind}").tobytes()).decode()}
