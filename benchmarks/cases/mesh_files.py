"""Reading mesh files from disk (from the system's cache of it): vertices, and faces as triangles.

The files are of triangles, as peers turn concave polygons into fans, which cover other ground. Open3D's reader is not
among the peers: it turns coordinates to float32.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path

import numpy as np

from benchmarks.agreement import same_triangles
from benchmarks.harness import Contender, Row, case
from benchmarks.inputs import Inputs
from nepa3d.shapes.mesh import read_mesh


@case("OBJ reading", per_mesh=True)
def obj_reading(inputs: Inputs, threads: int) -> Row:
    return reading(inputs, "obj", libigl=partial(igl_reader, written(inputs, "obj")))


@case("OFF reading", per_mesh=True)
def off_reading(inputs: Inputs, threads: int) -> Row:
    return reading(inputs, "off", libigl=partial(igl_reader, written(inputs, "off")))


@case("PLY reading", per_mesh=True)
def ply_reading(inputs: Inputs, threads: int) -> Row:
    return reading(inputs, "ply")


@case("STL reading", per_mesh=True)
def stl_reading(inputs: Inputs, threads: int) -> Row:
    return reading(inputs, "stl")


@case("GLB reading", per_mesh=True)
def glb_reading(inputs: Inputs, threads: int) -> Row:
    return reading(inputs, "glb")


def reading(inputs: Inputs, kind: str, **peers: Callable[[], Contender]) -> Row:
    """Our reader beside trimesh's and others, on the mesh as a file of one kind."""
    path = written(inputs, kind)
    return Row(
        size={"faces": len(inputs.mesh.faces), "bytes": path.stat().st_size},
        ours=Contender(lambda: read_mesh(path), lambda file: (file.vertices, file.faces)),
        peers={"trimesh": partial(trimesh_reader, path), **peers},
        compare=same_triangles,
    )


def written(inputs: Inputs, kind: str) -> Path:
    """The mesh as a file of triangles, which goes when the process ends."""
    import trimesh

    path = folder() / f"{inputs.file.path.stem}-{len(inputs.mesh.faces)}.{kind}"
    if not path.exists():
        trimesh.Trimesh(inputs.mesh.vertices, inputs.mesh.faces, process=False).export(path)
    return path


@cache
def folder() -> Path:
    made = Path(tempfile.mkdtemp(prefix="nepa3d-bench-"))
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return made


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
