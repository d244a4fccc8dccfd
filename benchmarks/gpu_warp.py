"""NVIDIA Warp's mesh queries over a batch of meshes: one tree for each mesh, one launch for all queries.

Warp reads the annotations of kernels when it compiles them, so that this module, unlike the others, does not postpone
them. It runs on a CPU, too, in one thread.
"""

from collections.abc import Callable

import torch
import warp as wp
from torch import Tensor

wp.config.quiet = True
wp.init()
FAR = 1.0e6  # queries look no farther


@wp.kernel
def _closest(
    meshes: wp.array(dtype=wp.uint64),  # type: ignore[valid-type]
    shape: wp.array(dtype=wp.int32),  # type: ignore[valid-type]
    points: wp.array(dtype=wp.vec3),  # type: ignore[valid-type]
    distance: wp.array(dtype=wp.float32),  # type: ignore[valid-type]
):
    i = wp.tid()
    mesh = meshes[shape[i]]
    found = wp.mesh_query_point_no_sign(mesh, points[i], FAR)
    if found.result:
        distance[i] = wp.length(points[i] - wp.mesh_eval_position(mesh, found.face, found.u, found.v))
    else:
        distance[i] = wp.inf


@wp.kernel
def _first_hits(
    meshes: wp.array(dtype=wp.uint64),  # type: ignore[valid-type]
    shape: wp.array(dtype=wp.int32),  # type: ignore[valid-type]
    origins: wp.array(dtype=wp.vec3),  # type: ignore[valid-type]
    directions: wp.array(dtype=wp.vec3),  # type: ignore[valid-type]
    t: wp.array(dtype=wp.float32),  # type: ignore[valid-type]
):
    i = wp.tid()
    found = wp.mesh_query_ray(meshes[shape[i]], origins[i], directions[i], FAR)
    if found.result:
        t[i] = found.t
    else:
        t[i] = wp.inf


class Meshes:
    """The meshes of a batch with their trees, of vertices (N, 3) and faces (M, 3) a shape."""

    def __init__(self, shapes: list[tuple[Tensor, ...]]) -> None:
        self._meshes = [
            wp.Mesh(wp.from_torch(vertices.contiguous(), wp.vec3), wp.from_torch(faces.flatten().contiguous()))
            for vertices, faces in shapes
        ]
        self._device = shapes[0][0].device
        self._ids = torch.tensor([mesh.id for mesh in self._meshes], dtype=torch.int64, device=self._device)
        wp.synchronize()

    def closest(self, counts: Tensor, points: Tensor) -> Callable[[], Tensor]:
        """The distances (Q,) of points (Q, 3), of which ``counts`` (S,) are each shape's."""
        return self._launched(_closest, counts, points)

    def first_hits(self, counts: Tensor, origins: Tensor, directions: Tensor) -> Callable[[], Tensor]:
        """Where rays first hit (Q,); infinite where they do not."""
        return self._launched(_first_hits, counts, origins, directions)

    def _launched(self, kernel: wp.Kernel, counts: Tensor, *asked: Tensor) -> Callable[[], Tensor]:
        shape = torch.repeat_interleave(torch.arange(len(counts), device=self._device), counts.long()).int()
        inputs = [wp.from_torch(self._ids, wp.uint64), wp.from_torch(shape)]
        inputs += [wp.from_torch(rows.contiguous(), wp.vec3) for rows in asked]
        stream = wp.stream_from_torch(torch.cuda.current_stream()) if self._device.type == "cuda" else None

        def run() -> Tensor:
            found = torch.empty(len(shape), device=self._device)
            wp.launch(
                kernel,
                len(shape),
                inputs,
                [wp.from_torch(found)],
                device=wp.device_from_torch(self._device),
                stream=stream,
            )
            return found

        return run
