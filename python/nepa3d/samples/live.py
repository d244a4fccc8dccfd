"""Samples of meshes that are asked while training: new queries for every sample, answered at once, nothing stored.

Letters: T tokens.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import NamedTuple

from nepa3d.ops import TriangleBvh
from nepa3d.samples.dataset import Sample, SampleSettings, sample_of
from nepa3d.shapes.mesh import Mesh, load_mesh
from nepa3d.shapes.query_pools import PoolSettings, build_pools, needed_by, random_stream
from nepa3d.shapes.shape import Shape
from nepa3d.shapes.view_table import ViewRow, view_row

DECIDED = ("pt_pool", "ray_pool", "rays_per_view", "no_udf", "no_pc_rays")  # by the sample and the view


class Asked(NamedTuple):
    """A mesh and the tree that answers queries of it."""

    mesh: Mesh
    bvh: TriangleBvh

    @property
    def nbytes(self) -> int:
        """Bytes of memory of both."""
        return self.mesh.vertices.nbytes + self.mesh.faces.nbytes + self.bvh.nbytes


class MeshStore:
    """Meshes with their trees, read when they are first asked for and kept while all fit ``limit`` bytes; those that
    were not asked for longest are dropped first. Threads may share one."""

    def __init__(self, limit: int) -> None:
        self.limit, self.nbytes = limit, 0
        self._kept: OrderedDict[str, Asked] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, path: str) -> Asked:
        """The mesh of a file; ``BadShapeError`` naming it where it cannot be used."""
        with self._lock:
            if path in self._kept:
                self._kept.move_to_end(path)
                return self._kept[path]
        mesh = load_mesh(path)
        read = Asked(mesh, TriangleBvh(mesh.vertices, mesh.faces))
        with self._lock:
            if path not in self._kept:  # another thread may have read it meanwhile
                self._kept[path] = read
                self.nbytes += read.nbytes
            while self.nbytes > self.limit and self._kept:
                self.nbytes -= self._kept.popitem(last=False)[1].nbytes
        return read


@dataclass(frozen=True)
class Live:
    """How meshes are asked: where they are kept, and what decides their clouds, grids and queries (those settings that
    are not ``DECIDED``)."""

    store: MeshStore
    pools: PoolSettings

    def sample(self, path: str, backend: str, settings: SampleSettings, seed: int, epoch: int, index: int) -> Sample:
        """Features (T, 15) and types (T,) of the mesh of a file: a function of it, the settings and (seed, epoch,
        index).

        They are a sample of a cache file that was made for it alone, with as many queries as it asks for. Of its
        points as many lie near the surface as in a draw from a large pool. Raises ``BadShapeError``.
        """
        place = f"{epoch}/{index}"
        rng = random_stream(seed, place, "sample")
        missing = bool(rng.random() < settings.drop_ray_prob) or settings.force_missing_ray
        uniform = bool(rng.random() < settings.uniform_prob) or settings.questions == "uniform"
        near = 0 if uniform else int(rng.binomial(settings.n_point, self.pools.pt_surface_ratio))
        wanted = _wanted(self.pools, view_row(backend), settings, near, rays=not missing)
        asked = self.store.get(path)
        shape = Shape(build_pools(asked.mesh, wanted, seed, place, asked.bvh), path)
        answers = shape.view(backend, settings.voxel)
        return sample_of(path, answers, settings, lambda pool, n: rng.choice(pool, n, replace=False), missing)


def _wanted(pools: PoolSettings, row: ViewRow, settings: SampleSettings, near: int, *, rays: bool) -> PoolSettings:
    """The pools of one sample of a view, and of what is in a cache file only what it needs."""
    keys = {stored.key for stored in row.distances[:1]}
    n_ray = settings.n_ray if rays and (row.rays or row.voxels) else 0
    n_point = max(1, settings.n_point)
    per_view = -(-n_ray // pools.n_views)
    return replace(
        needed_by(pools, row, rays=rays),
        pt_pool=n_point,
        pt_surface_ratio=near / n_point,
        ray_pool=per_view * pools.n_views,  # as many of each camera
        rays_per_view=max(1, per_view),
        # a view that does not ask for these distances has the faster ones
        pt_dist_mode=pools.pt_dist_mode if "pt_dist_pool" in keys else "mesh",
    )
