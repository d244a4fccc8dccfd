"""Cache files of several meshes at a time, on the device that the preprocessing commands name.

torch is imported only where that is a GPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from nepa3d.corpora.preprocess_meshes import ShapeJob, compute_shape
from nepa3d.execution.npz import save_npz
from nepa3d.execution.processes import Batched, Unwritten, Work
from nepa3d.shapes.mesh import Mesh, load_mesh


def work_on(device: str) -> Work[ShapeJob]:
    """What makes cache files on ``device``. ``ValueError`` if that is a GPU and cannot be used."""
    if device == "cpu":
        return compute_shape
    from nepa3d.samples.batch_pools import require_gpu

    require_gpu()
    return Batched(partial(compute_shapes, device=device))


def compute_shapes(jobs: Sequence[ShapeJob], device: str) -> list[Unwritten | Exception]:
    """``compute_shape`` of several meshes of the same settings at a time on ``device``; the same files."""
    from nepa3d.samples.batch_pools import build_pools_of_batch

    read = [_mesh_or_error(job) for job in jobs]
    meshes = [(job, mesh) for job, mesh in zip(jobs, read, strict=True) if not isinstance(mesh, Exception)]
    keys = [job.key for job, _ in meshes]
    pools = iter(build_pools_of_batch([mesh for _, mesh in meshes], jobs[0].settings, jobs[0].seed, keys, device))
    return [
        mesh
        if isinstance(mesh, Exception)
        else Unwritten(mesh.repaired, job.out, partial(save_npz, arrays=next(pools)), mesh.doubt)
        for job, mesh in zip(jobs, read, strict=True)
    ]


def _mesh_or_error(job: ShapeJob) -> Mesh | Exception:
    try:
        return load_mesh(job.mesh, max_faces=job.max_faces)
    except (ValueError, OSError, MemoryError) as error:
        return error
