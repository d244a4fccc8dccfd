"""What ``nepa3d.ops`` does with CUDA tensors: batches of one shape, whose values are checked first.

Answers are named tuples of tensors on the same device. Coordinates are float32. Arguments are typed Any, since any kind
of array may come here together with a tensor on a GPU; all but tensors are refused.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nepa3d.ops import cuda
from nepa3d.ops.results import ClosestPoints, NearestPoints, RayHits


def nearest_distance(points: Any, queries: Any) -> NearestPoints:
    """See ``nepa3d.ops.nearest_distance``."""
    _require_finite(points=points, queries=queries)
    if len(points) == 0:
        raise ValueError("points must not be empty")
    return cuda.nearest_distance(points, _offsets(points), queries, _offsets(queries))


def cast_rays(vertices: Any, faces: Any, origins: Any, directions: Any) -> RayHits:
    """See ``nepa3d.ops.cast_rays``."""
    _require_finite(origins=origins, directions=directions)
    return _mesh(vertices, faces).cast_rays(origins, directions, _offsets(origins))


def closest_point(vertices: Any, faces: Any, queries: Any) -> ClosestPoints:
    """See ``nepa3d.ops.closest_point``."""
    _require_finite(queries=queries)
    return _mesh(vertices, faces).closest_point(queries, _offsets(queries))


def _mesh(vertices: Any, faces: Any) -> cuda.MeshBatch:
    _require_finite(vertices=vertices)
    if not isinstance(faces, Tensor):
        raise ValueError(f"faces must be a tensor on the GPU, as the other arguments are, got {type(faces)}")
    if len(faces) == 0:
        raise ValueError("faces must not be empty")
    return cuda.build_meshes(vertices, _offsets(vertices), faces, _offsets(faces))


def _require_finite(**rows: Any) -> None:
    for name, values in rows.items():
        if not isinstance(values, Tensor):
            raise ValueError(f"{name} must be a tensor on the GPU, as the other arguments are, got {type(values)}")
        broken = ~torch.isfinite(values)
        if bool(broken.any()):
            raise ValueError(f"{name} must be finite, row {int(broken.nonzero()[0, 0])} is not")


def _offsets(rows: Tensor) -> Tensor:
    return torch.tensor([0, len(rows)], dtype=torch.int32, device=rows.device)
