"""Files of shapes as a user has them: meshes, point clouds and caches in a folder, each read as one shape.

Letters: N points.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nepa3d import ops
from nepa3d.corpora.folder import shape_key
from nepa3d.corpora.layouts import LAYOUTS, require_layout
from nepa3d.shapes.cache import CacheError, ShapeCache
from nepa3d.shapes.mesh import MAX_FACES, READERS, MeshFile, prepare_mesh, read_mesh
from nepa3d.shapes.query_pools import PoolSettings, build_pools, needed_by, random_stream
from nepa3d.shapes.rotation import Up, upright
from nepa3d.shapes.scan_files import SUFFIXES, CloudFile, read_cloud
from nepa3d.shapes.scans import normalize_scan, scan_pools
from nepa3d.shapes.shape import Shape
from nepa3d.shapes.views import require_backend, view_row

CACHE = "npz"
QUERIES = "pt_xyz_pool"  # what a cache has, and no cloud
ENDINGS = (*READERS, CACHE, "npy", "xyz", "pts", "asc")  # not txt and csv, which mostly hold something else
CLOUD_VIEW = "pointcloud_noray"  # what is seen of a file without faces
LEAST_POINTS = 4096  # point queries a shape is asked at; draws are taken from these


class ShapeFile(NamedTuple):
    """One file below a folder."""

    path: str
    """Below the folder, with "/" between its parts."""
    key: str
    """ "class/id", as ``nepa3d.corpora.folder`` has it."""
    size: int
    """Bytes."""
    mtime_ns: int
    """When it was last changed, in ns since 1970."""

    @property
    def class_name(self) -> str:
        """The first part of the key."""
        return self.key.split("/")[0]


class ReadShape(NamedTuple):
    """A shape, and the view under which its file shows what was asked for."""

    shape: Shape
    view: str
    file: str = ""
    """Where it was read; "" of a shape in memory."""


def shape_files(root: Path, layout: str = "folder") -> list[ShapeFile]:
    """The shapes below ``root``, sorted by path: meshes, clouds and caches, the files that end in one of ``ENDINGS``.

    Hidden files and folders, and a cache's ``_meta``, are left out. Where a folder is a cache, with ``_meta`` and
    nothing but <split>/<class>/<id>.npz, the split is no part of the key. A layout other than "folder" is one of
    ``nepa3d.corpora.layouts`` and finds meshes only. ``ValueError`` if ``root`` is no folder or holds no shape,
    ``OSError`` naming a folder that cannot be read.
    """
    require_layout(layout)
    if not root.is_dir():
        raise ValueError(f"folder: {root} is not a folder")
    if layout == "folder":
        parts = {path: path.relative_to(root).parts for path in _walk(root)}
        cache = (root / "_meta").is_dir() and all(_ending(path) == CACHE and len(parts[path]) == 3 for path in parts)
        keyed = {path: shape_key(path, root / own[0] if cache else root) for path, own in parts.items()}
    else:
        keyed = {mesh.path: mesh.key for mesh in LAYOUTS[layout](root)}
    if not keyed:
        raise ValueError(f"folder: no shape below {root}, expected files that end in {', '.join(sorted(ENDINGS))}")
    found = []
    for path in sorted(keyed):
        try:
            status = path.stat()
            size, mtime_ns = status.st_size, status.st_mtime_ns
        except FileNotFoundError:  # a link to nothing, or gone since: whoever reads it will say so
            size, mtime_ns = -1, -1
        found.append(ShapeFile(path.relative_to(root).as_posix(), keyed[path], size, mtime_ns))
    return found


def pools_for(view: str, n_point: int, n_ray: int) -> PoolSettings:
    """The queries and answers that embeddings of ``view`` take, and no others: a default cache has five times as many.

    Distances are measured as in a cache of default settings.
    """
    enough = PoolSettings(pt_pool=max(LEAST_POINTS, 2 * n_point), ray_pool=max(PoolSettings.ray_pool, n_ray))
    return needed_by(enough, view_row(view), rays=n_ray > 0)


def read_content(path: Path, *, max_faces: int = MAX_FACES, up: Up = "y") -> Shape | CloudFile | MeshFile:
    """What a file holds: a cache, a cloud (PLY without faces, and whatever else ``read_cloud`` takes), or a mesh.

    Clouds and meshes are turned so that their axis ``up`` is y; a cache, whose arrays are not turned, is refused where
    that is another. ``ValueError`` naming the file and the fault, or ``OSError``.
    """
    kind = _ending(path)
    if kind == CACHE and _has_queries(path):
        if up != "y":
            raise CacheError(path, f"is a cache, which is not turned: up must be y, got {up}")
        return Shape.from_cache(path)
    if kind != "ply" and path.suffix.lower() in SUFFIXES:
        cloud = read_cloud(path)
        assert cloud is not None  # only a PLY may be a mesh
        normals = None if cloud.normals is None else upright(cloud.normals, up)
        return cloud._replace(xyz=upright(cloud.xyz, up), normals=normals)
    mesh = read_mesh(path, max_faces=max_faces)
    mesh = mesh._replace(vertices=upright(mesh.vertices, up))
    is_cloud = kind == "ply" and len(mesh.faces) == 0 and len(mesh.vertices)
    return CloudFile(mesh.vertices, None, None) if is_cloud else mesh


def read_shape(path: Path, view: str, name: str, *, n_point: int, n_ray: int, up: Up = "y") -> ReadShape:
    """The shape of a mesh, a cloud or a cache, named ``name``, on which all random draws from it depend.

    A cloud has neither triangles nor a grid, and is seen as ``pointcloud_noray`` whatever ``view`` is, unless that is
    ``voxel``. ``up`` is as in ``read_content``. ``ValueError`` naming the file and the fault, or ``OSError``.
    """
    require_backend(view, "view")
    content = read_content(path, up=up)
    if isinstance(content, Shape):
        return ReadShape(Shape({key: content[key] for key in content}, name), view, os.fspath(path))
    pools = pools_for(view, n_point, n_ray)
    if isinstance(content, CloudFile):
        arrays = scan_pools(normalize_scan(content.xyz, os.fspath(path)), pools, 0, name)
        return ReadShape(Shape(arrays, name), view if view == "voxel" else CLOUD_VIEW, os.fspath(path))
    mesh = prepare_mesh(content.vertices, content.faces, path)
    return ReadShape(Shape(build_pools(mesh, pools, 0, name), name, doubt=mesh.doubt), view, os.fspath(path))


def drawn_points(path: Path, count: int = 6000, *, up: Up = "y") -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Points (N, 3) of a shape to draw, in the unit sphere, and their normals (N, 3), zeros where there are none;
    ``up`` is as in ``read_content``."""
    content = read_content(path, up=up)
    if isinstance(content, Shape):
        return content["pc_xyz"], content["pc_n"]
    rng = random_stream(0, path.name, "drawing")
    if isinstance(content, CloudFile):
        points = normalize_scan(content.xyz, os.fspath(path))
        points = points[rng.permutation(len(points))[:count]]
        return points, np.zeros_like(points)
    mesh = prepare_mesh(content.vertices, content.faces, path)
    samples = ops.sample_surface(mesh.vertices, mesh.faces, rng.random((count, 3), np.float32))
    return samples.point, samples.normal


def _has_queries(path: Path) -> bool:
    with ShapeCache(path) as arrays:
        return QUERIES in arrays


def _walk(root: Path) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        raise error

    for folder, folders, names in os.walk(root, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".") and name != "_meta"]
        for name in names:
            path = Path(folder, name)
            if _ending(path) in ENDINGS and not name.startswith("."):
                yield path


def _ending(path: Path) -> str:
    return path.suffix.lower().removeprefix(".")
