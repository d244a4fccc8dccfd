"""Meshes and clouds of trimesh and Open3D as arrays, and the cloud of a shape as theirs.

Their objects are told by their attributes, so that reading one imports neither library. Letters: V vertices, F faces,
N points.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    import trimesh

NORMALS = "normals"  # of a trimesh.PointCloud, which has no attribute for them: among its metadata


class CloudArrays(NamedTuple):
    """A cloud as a library has it."""

    xyz: NDArray[np.floating]  # (N, 3)
    normals: NDArray[np.floating] | None  # (N, 3)
    colors: NDArray[np.float32] | None  # (N, 3) from 0 to 1


def mesh_arrays(mesh: Any) -> tuple[NDArray[np.floating], NDArray[np.integer]]:
    """Vertices (V, 3) and triangles (F, 3) of a ``trimesh.Trimesh``, an ``open3d.geometry.TriangleMesh``, an
    ``open3d.t.geometry.TriangleMesh``, or a pair of arrays. ``ValueError`` on anything else."""
    if isinstance(mesh, tuple) and len(mesh) == 2:
        vertices, faces = mesh
    elif hasattr(mesh, "faces") and hasattr(mesh, "vertices"):
        vertices, faces = mesh.vertices, mesh.faces
    elif hasattr(mesh, "triangles") and hasattr(mesh, "vertices"):
        vertices, faces = mesh.vertices, mesh.triangles
    elif hasattr(mesh, "triangle") and hasattr(mesh, "vertex"):
        vertices = _tensor(mesh.vertex, "positions")
        faces = _tensor(mesh.triangle, "indices")
        if vertices is None or faces is None:
            raise ValueError("mesh must have vertex.positions and triangle.indices, it lacks one")
    else:
        raise ValueError(f"mesh must be a file, (vertices, faces) or a mesh object, got {type(mesh).__name__}")
    return np.asarray(vertices), np.asarray(faces)


def cloud_arrays(cloud: Any) -> CloudArrays:
    """Points, and normals and colours where there are any, of an ``open3d.geometry.PointCloud``, an
    ``open3d.t.geometry.PointCloud``, a ``trimesh.PointCloud`` (normals: ``metadata["normals"]``) or an array (N, 3)."""
    if hasattr(cloud, "point") and hasattr(cloud, "to_legacy"):
        xyz = _tensor(cloud.point, "positions")
        if xyz is None:
            raise ValueError("xyz must be a cloud with point.positions, it has none")
        colors = _tensor(cloud.point, "colors")
        return CloudArrays(xyz, _tensor(cloud.point, "normals"), None if colors is None else unit_colors(colors))
    if hasattr(cloud, "points") and hasattr(cloud, "has_normals"):
        normals = np.asarray(cloud.normals) if cloud.has_normals() else None
        colors = unit_colors(np.asarray(cloud.colors)) if cloud.has_colors() else None
        return CloudArrays(np.asarray(cloud.points), normals, colors)
    if hasattr(cloud, "vertices") and hasattr(cloud, "colors"):
        xyz, normals, rgba = np.asarray(cloud.vertices), cloud.metadata.get(NORMALS), np.asarray(cloud.colors)
        colors = unit_colors(rgba) if rgba.ndim == 2 and len(rgba) == len(xyz) else None  # else there are none
        return CloudArrays(xyz, None if normals is None else np.asarray(normals), colors)
    return CloudArrays(np.asarray(cloud), None, None)


def unit_colors(colors: ArrayLike) -> NDArray[np.float32]:
    """Colours (N, 3) from 0 to 1 of RGB or RGBA (N, 3 or 4), from 0 to 255 if they are whole numbers."""
    given = np.asarray(colors)
    whole = np.issubdtype(given.dtype, np.integer)
    fits = given.ndim == 2 and given.shape[1] in (3, 4) and given.dtype.kind in "fiu"
    found: NDArray[np.float32] = given[:, :3].astype(np.float32) if fits else np.empty((0, 3), np.float32)
    found = np.divide(found, np.float32(255)) if whole else found
    if not fits or not ((found >= 0) & (found <= 1)).all():
        raise ValueError(f"colors must have shape (N, 3) and lie in 0..1, or in 0..255 if whole, got {given.shape}")
    return found


def trimesh_cloud(
    xyz: NDArray[np.floating], normals: NDArray[np.floating] | None, colors: NDArray[np.floating] | None
) -> trimesh.PointCloud:
    """A ``trimesh.PointCloud``, its normals as ``metadata["normals"]``."""
    import trimesh

    rgb = None if colors is None else np.round(colors * 255).astype(np.uint8)
    cloud = trimesh.PointCloud(xyz, colors=rgb)
    if normals is not None:
        cloud.metadata[NORMALS] = normals
    return cloud


def open3d_cloud(
    xyz: NDArray[np.floating], normals: NDArray[np.floating] | None, colors: NDArray[np.floating] | None
) -> Any:
    """An ``open3d.geometry.PointCloud``. ``ValueError`` if Open3D cannot be imported."""
    o3d = open3d()
    cloud = o3d.geometry.PointCloud(o3d.utility.Vector3dVector(xyz.astype(np.float64)))
    if normals is not None:
        cloud.normals = o3d.utility.Vector3dVector(normals.astype(np.float64))
    if colors is not None:
        cloud.colors = o3d.utility.Vector3dVector(colors.astype(np.float64))
    return cloud


def open3d() -> Any:
    """The module. ``ValueError`` that says what is missing: the package, or a system library that it needs."""
    try:
        import open3d as module
    except ImportError as error:
        raise ValueError(f"Open3D is not installed: pip install 'nepa3d[viz]' ({error})") from error
    except OSError as error:  # of the dynamic linker
        needed = "on Debian and Ubuntu: apt install libgl1 libgomp1 libusb-1.0-0"
        raise ValueError(f"Open3D cannot be loaded: {error}; {needed}") from error
    return module


def _tensor(attributes: Any, name: str) -> NDArray[Any] | None:
    """The array of an attribute of ``open3d.t``'s geometry, wherever it is; None if there is none."""
    if name not in attributes:
        return None
    array: NDArray[Any] = attributes[name].cpu().numpy()
    return array
