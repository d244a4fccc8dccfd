"""Reading OBJ files from disk (from the system's cache of it): vertices, and faces as triangles.

Open3D's reader is not among the peers: it skips faces of more than three corners, and turns the rest to float32.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.agreement import same_triangles
from benchmarks.harness import Contender, Row, case
from benchmarks.inputs import Inputs
from nepa3d import ops


@case("OBJ reading", per_mesh=True)
def obj_reading(inputs: Inputs, threads: int) -> Row:
    path = inputs.file.path
    return Row(
        size={"faces": len(ops.parse_obj(path.read_bytes())[1]), "bytes": path.stat().st_size},
        ours=Contender(lambda: ops.parse_obj(path.read_bytes())),
        peers={"trimesh": partial(trimesh_reader, path), "libigl": partial(igl_reader, path)},
        compare=same_triangles,
    )


def trimesh_reader(path: Path) -> Contender:
    import trimesh

    def answer(mesh: trimesh.Trimesh) -> tuple:
        return np.asarray(mesh.vertices), np.asarray(mesh.faces)

    return Contender(lambda: trimesh.load_mesh(path, process=False, skip_materials=True), answer)


def igl_reader(path: Path) -> Contender:
    import igl

    def run() -> tuple:
        with quiet():  # it warns of every line it does not know
            return igl.read_triangle_mesh(path)

    return Contender(run)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Drop what compiled code prints; takes microseconds."""
    kept = os.dup(1), os.dup(2)
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    os.dup2(nothing, 2)
    try:
        yield
    finally:
        os.dup2(kept[0], 1)
        os.dup2(kept[1], 2)
        for descriptor in (*kept, nothing):
            os.close(descriptor)
