"""The surface on which a distance field takes a value, as a mesh."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import trimesh


def level_set(field: NDArray[np.float32], level: float) -> trimesh.Trimesh | None:
    """The mesh on which a field (G, G, G), of the cells of [-1, 1]^3, takes ``level``; None if it does nowhere.

    ``ValueError`` if scikit-image is not installed.
    """
    import trimesh

    try:
        from skimage.measure import marching_cubes
    except ImportError as error:
        raise ValueError("surfaces: scikit-image is not installed: pip install 'nepa3d[surfaces]'") from error
    if not field.min() < level < field.max():
        return None
    cell_size = 2.0 / len(field)
    vertices, faces, _, _ = marching_cubes(field, level, spacing=3 * (cell_size,))
    return trimesh.Trimesh(vertices + cell_size / 2 - 1.0, faces, process=False)
