"""Meshes of several sizes from a real corpus, and the points, rays and grids that the preprocessing asks of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nepa3d import ops
from nepa3d.execution.files import atomic_open, write_json
from nepa3d.execution.progress_bar import progress_bar
from nepa3d.shapes.mesh import Mesh, load_mesh
from nepa3d.shapes.query_pools import PoolSettings, camera_rays, point_queries, random_stream

TARGETS = (1_000, 4_000, 10_000, 60_000)  # faces
QUICK_TARGETS = (1_000, 4_000)
LARGE = 500_000  # one mesh has more faces than this
USUAL = 10_000  # the mesh of the rows that do not depend on its size

Float = NDArray[np.float32]
Int = NDArray[np.int64]


@dataclass(frozen=True)
class MeshFile:
    """An OBJ file, what the rows call it, and its triangles after cleaning."""

    name: str
    path: Path
    faces: int


@dataclass(frozen=True)
class Inputs:
    """What is asked of one mesh, as in preprocessing: N 2048, M 20,000, R 8000, G 64 by default."""

    file: MeshFile
    mesh: Mesh
    surface: Float
    """Surface samples (N, 3)."""
    normals: Float
    """Their unit normals (N, 3)."""
    reference: Float
    """More surface samples (8192, 3)."""
    queries: Float
    """Points (M, 3): half uniform in [-1, 1]^3, half near the surface."""
    origins: Float
    """Ray origins (R, 3)."""
    directions: Float
    """Unit directions (R, 3)."""
    occupancy: NDArray[np.uint8]
    """Cells (G, G, G) of [-1, 1]^3 around the samples."""
    distance: Float
    """Distance (G, G, G) to the nearest of these."""


def make_inputs(file: MeshFile, settings: PoolSettings | None = None) -> Inputs:
    """The inputs of one mesh file; they depend on its name and the settings only."""
    return inputs_of(file, load_mesh(file.path), settings or PoolSettings())


def inputs_of(file: MeshFile, mesh: Mesh, settings: PoolSettings) -> Inputs:
    """The inputs of a mesh in memory."""

    def stream(purpose: str) -> np.random.Generator:
        return random_stream(0, file.name, purpose)

    def samples(count: int, purpose: str) -> tuple[Float, Float]:
        uniforms = stream(purpose).random((count, 3), np.float32)
        found = ops.sample_surface(mesh.vertices, mesh.faces, uniforms)
        return found.point, found.normal

    surface, normals = samples(settings.pc_points, "surface")
    origins, directions = camera_rays(settings, stream("rays"))
    occupancy = ops.voxelize(surface, settings.df_grid, settings.df_dilate)
    return Inputs(
        file=file,
        mesh=mesh,
        surface=surface,
        normals=normals,
        reference=samples(settings.dist_ref_points, "reference")[0],
        queries=point_queries(surface, settings, stream("points")),
        origins=origins,
        directions=directions,
        occupancy=occupancy,
        distance=ops.distance_transform(occupancy, 2 / settings.df_grid),
    )


def make_corpus(work: Path, quick: bool) -> Path:
    """The demo's corpus under ``work``, made if it is not there; says which one it is."""
    from nepa3d.experiments.demo import find_source  # here, as it may import SciPy, a peer
    from nepa3d.experiments.demo_plan import FULL, QUICK, corpus_job
    from nepa3d.experiments.jobs import run_jobs

    said, furniture = find_source(work / "download")
    print(f"corpus: {said}")
    job = corpus_job(work, QUICK if quick else FULL, furniture)
    finished = run_jobs([job], [None])[0]
    if finished.state == "failed":
        raise ValueError(finished.line)
    return work / "corpus"


def make_caches(work: Path, per_class: int = 16) -> Path:
    """Caches of procedural shapes below ``work``, half of each class in train; what is there is kept."""
    from nepa3d.data import preprocess_shapenet, procedural  # here, as they may import SciPy, a peer

    meshes, caches = (work / f"{what}_{per_class}" for what in ("procedural", "procedural_cache"))
    procedural.write_procedural(procedural.Config(meshes, per_class))
    preprocess_shapenet.preprocess(
        preprocess_shapenet.Config(shapenet_root=meshes, out_root=caches, test_ratio=0.5, workers=2)
    )
    return caches


def choose_meshes(corpus: Path, work: Path, quick: bool) -> list[MeshFile]:
    """For each target the OBJ file with the nearest number of faces, and unless ``quick`` one above ``LARGE``.

    If the corpus has none that large, its largest is subdivided at the edges' midpoints, and the name says so.
    """
    counts = count_faces(corpus, work / "face_counts.json")
    if not counts:
        raise ValueError(f"corpus: expected a folder with OBJ files, got {corpus}")
    chosen = []
    for target in QUICK_TARGETS if quick else TARGETS:
        path = min(counts, key=lambda path: (abs(counts[path] - target), path))
        chosen.append(MeshFile(f"{target // 1000}k faces", path, counts[path]))
    return chosen if quick else [*chosen, large_mesh(counts, work)]


def usual_mesh(files: list[MeshFile]) -> MeshFile:
    """The mesh of the rows that do not depend on its size."""
    return min(files, key=lambda file: abs(file.faces - USUAL))


def count_faces(corpus: Path, cache: Path) -> dict[Path, int]:
    """Triangles after cleaning of each OBJ file below ``corpus``; files of known path and size are not read again."""
    known = json.loads(cache.read_text(encoding="utf-8")) if cache.exists() else {}
    counts = {}
    for path in progress_bar(sorted(corpus.rglob("*.obj")), desc="counting faces", unit="file", leave=False):
        size = path.stat().st_size
        if known.get(f"{path}", (None, 0))[0] != size:
            known[f"{path}"] = size, _faces_in(path)
        counts[path] = known[f"{path}"][1]
    write_json(cache, known)
    return {path: count for path, count in counts.items() if count > 0}


def large_mesh(counts: Mapping[Path, int], work: Path) -> MeshFile:
    """The smallest mesh above ``LARGE`` faces, or the largest, subdivided into an OBJ file in ``work``."""
    larger = [path for path in counts if counts[path] > LARGE]
    if larger:
        path = min(larger, key=lambda path: (counts[path], path))
        return MeshFile(f"{counts[path] // 1000}k faces", path, counts[path])
    source = max(counts, key=lambda path: (counts[path], path))
    faces = counts[source]
    while faces <= LARGE:
        faces *= 4
    target = work / f"subdivided_{faces}.obj"
    if not target.exists():
        vertices, triangles, _ = ops.clean_mesh(*ops.parse_obj(source.read_bytes()))
        while len(triangles) < faces:
            vertices, triangles = subdivide(vertices, triangles)
        write_obj(target, vertices, triangles)
    return MeshFile(f"{faces // 1000}k faces (subdivided)", target, faces)


def subdivide(vertices: NDArray[np.float64], faces: Int) -> tuple[NDArray[np.float64], Int]:
    """Each face (F, 3) as four: its corners' and the middle one, with new vertices at the edges' midpoints."""
    edges = np.sort(faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1)
    code, inverse = np.unique(edges[:, 0] * len(vertices) + edges[:, 1], return_inverse=True)
    ends = np.stack(np.divmod(code, len(vertices)), 1)
    a, b, c = faces.T
    ab, bc, ca = len(vertices) + inverse.reshape(-1, 3).T
    parts = [(a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca)]
    return np.concatenate([vertices, vertices[ends].mean(1)]), np.concatenate([np.stack(part, 1) for part in parts])


def write_obj(path: Path, vertices: NDArray[np.float64], faces: Int) -> None:
    """Write triangles as OBJ text, whole or not at all."""
    with atomic_open(path) as file:
        np.savetxt(file, vertices, fmt="v %.9g %.9g %.9g")
        np.savetxt(file, faces + 1, fmt="f %d %d %d")


def _faces_in(path: Path) -> int:
    try:
        vertices, faces = ops.parse_obj(path.read_bytes())
    except ValueError:  # a damaged file is no candidate
        return 0
    return len(ops.clean_mesh(vertices, faces).faces)
