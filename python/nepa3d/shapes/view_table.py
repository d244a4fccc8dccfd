"""The table of views. Python's readers and the compiled loader both take the row itself, so a view is described once.

A view whose answers are stored in the cache needs a row here and nothing else. Its arrays are named
``pt_dist_<name>_pool``, ``ray_hit_<suffix>``, ``ray_t_<suffix>`` and ``ray_n_<suffix>``.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass

from nepa3d import _core


@dataclass(frozen=True)
class StoredDistances:
    """Point distances (P,) that a cache may hold."""

    key: str
    recompute_invalid: bool = False
    """Compute them from the cloud instead if one is negative or not finite."""


@dataclass(frozen=True)
class ViewRow:
    """Which answers a view gives: stored ones, or those of voxels made from the cloud.

    Raises ``ValueError`` unless it says where distances come from, and in one way. A view without rays gives none. A
    row may list another view's answers as its last preference, for caches that lack its own.
    """

    name: str
    distances: tuple[StoredDistances, ...] = ()
    """In order of preference: the first that the cache holds."""
    cloud_distances: bool = False
    """Compute distances from the cloud if the cache holds none of ``distances``; otherwise that is a ``CacheError``."""
    rays: tuple[str, ...] = ()
    """Suffixes of stored ray answers in order of preference, the last if the cache holds none; empty: no rays."""
    voxels: bool = False
    """Distances and rays of a voxel grid, see ``VoxelSettings``."""

    def __post_init__(self) -> None:
        self.compiled()  # which checks the row

    def answers_with(self, keys: Container[str]) -> str:
        """The key of the distances that it takes of a shape with these arrays; "" where it computes them."""
        return next((stored.key for stored in self.distances if stored.key in keys), "")

    def compiled(self) -> _core.ViewRow:
        """The row as the compiled loader takes it."""
        return _core.ViewRow(
            self.name,
            distances=[(stored.key, stored.recompute_invalid) for stored in self.distances],
            cloud_distances=self.cloud_distances,
            rays=self.rays,
            voxels=self.voxels,
        )


_MESH = StoredDistances("pt_dist_pool")
# Before a cache held the cloud's distances, it had pt_dist_pool alone, which of a mesh's cache is the mesh's distance:
# run the migration (nepa3d.data.migrate_add_pt_dist_pc_pool) so that the cloud's views do not know the mesh.
_CLOUD = (StoredDistances("pt_dist_pc_pool", recompute_invalid=True), _MESH)

VIEWS: dict[str, ViewRow] = {
    row.name: row
    for row in (
        ViewRow("mesh", distances=(_MESH,), rays=("pool",)),
        ViewRow("pointcloud", distances=_CLOUD, cloud_distances=True, rays=("pc_pool", "pool")),
        ViewRow("pointcloud_meshray", distances=_CLOUD, cloud_distances=True, rays=("pool",)),
        ViewRow("pointcloud_noray", distances=_CLOUD, cloud_distances=True),
        ViewRow("udfgrid", distances=(StoredDistances("pt_dist_udf_pool"), _MESH)),
        ViewRow("voxel", voxels=True),
    )
}
BACKENDS = tuple(VIEWS)


def require_backend(name: str, argument: str = "backend") -> str:
    """``name``, or ``ValueError`` if there is no such view."""
    if name not in VIEWS:
        raise ValueError(f"{argument} must be one of {', '.join(VIEWS)}, got {name!r}")
    return name


def view_row(name: str) -> ViewRow:
    """The row of the view ``name``; ``ValueError`` if there is none."""
    return VIEWS[require_backend(name)]
