"""The queries of one shape and the answers of its mesh, its point cloud and its grids: the content of a cache file."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from nepa3d import ops
from nepa3d.execution.checks import require_choice
from nepa3d.shapes.mesh import Mesh
from nepa3d.shapes.view_table import ViewRow

CAMERA_RADIUS = 2.2
CAMERA_ELEVATION = 0.35 * math.pi
FOCAL_LENGTH = 1 / math.tan(math.radians(30))

DistanceMode = Literal["mesh", "kdtree"]

Float = NDArray[np.float32]
Arrays = dict[str, NDArray]


@dataclass(frozen=True)
class PoolSettings:
    """What decides the content of a cache file, beside the mesh and the seed."""

    pc_points: int = 2048
    """Surface samples per shape."""
    pt_pool: int = 20000
    """Point queries per shape."""
    ray_pool: int = 8000
    """Ray queries per shape."""
    n_views: int = 20
    """Number of cameras that cast the rays."""
    rays_per_view: int = 400
    """Least number of rays per camera; more if ray_pool requires it."""
    pc_grid: int = 64
    """Side of the grid in which rays hit the point cloud, in cells."""
    pc_dilate: int = 1
    """Rounds of dilation of that grid."""
    pc_max_steps: int = 0
    """Largest number of cells that a ray visits; 0: three times the side of the grid."""
    no_pc_rays: bool = False
    """Do not compute ray hits on the point cloud."""
    df_grid: int = 64
    """Side of the grid of the distance field, in cells."""
    df_dilate: int = 1
    """Rounds of dilation of that grid."""
    no_udf: bool = False
    """Do not compute the distance field."""
    pt_surface_ratio: float = 0.5
    """Share of the point queries that are drawn near the surface."""
    pt_surface_sigma: float = 0.02
    """Standard deviation of their offset from the surface, per axis."""
    pt_dist_mode: DistanceMode = "kdtree"
    """Measure point distances to the triangles (mesh) or to dist_ref_points surface samples (kdtree)."""
    dist_ref_points: int = 8192
    """Surface samples that the kdtree mode measures to."""

    def __post_init__(self) -> None:
        for name in ("pc_points", "pt_pool", "n_views", "rays_per_view", "pc_grid", "df_grid", "dist_ref_points"):
            _require(getattr(self, name) >= 1, name, "at least 1", getattr(self, name))
        for name in ("ray_pool", "pc_dilate", "pc_max_steps", "df_dilate", "pt_surface_sigma"):
            _require(getattr(self, name) >= 0, name, "at least 0", getattr(self, name))
        for name in ("pc_grid", "df_grid"):
            _require(getattr(self, name) <= 2048, name, "at most 2048", getattr(self, name))
        require_choice("pt_dist_mode", self.pt_dist_mode, DistanceMode)
        _require(0 <= self.pt_surface_ratio <= 1, "pt_surface_ratio", "between 0 and 1", self.pt_surface_ratio)


def needed_by(settings: PoolSettings, row: ViewRow, *, rays: bool) -> PoolSettings:
    """The settings less what the view ``row`` does not ask of a mesh, or of its rays where no ``rays`` are asked."""
    asks_rays = rays and bool(row.rays or row.voxels)
    return replace(
        settings,
        ray_pool=settings.ray_pool if asks_rays else 0,
        no_pc_rays=not asks_rays or row.rays[:1] != ("pc_pool",),
        no_udf="pt_dist_udf_pool" not in {stored.key for stored in row.distances[:1]},
    )


def random_stream(seed: int, key: str, purpose: str) -> np.random.Generator:
    """Random numbers that depend on (seed, shape, purpose) only, not on order, workers or other settings.

    A seed of -1 draws from the operating system instead.
    """
    if seed == -1:
        return np.random.default_rng()
    digest = hashlib.sha256(f"{seed}\0{key}\0{purpose}".encode("utf-8", "surrogateescape")).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "little")))


def build_pools(mesh: Mesh, settings: PoolSettings, seed: int, key: str, bvh: ops.TriangleBvh | None = None) -> Arrays:
    """Every array of the cache file of shape ``key`` ("class/id"). ``bvh`` is the mesh's, where it is at hand.

    One call of the core; ``composed_pools`` is its plain twin.
    """
    if bvh is None:
        bvh = ops.TriangleBvh(mesh.vertices, mesh.faces)
    field, cloud = (settings.df_grid, settings.df_dilate), (settings.pc_grid, settings.pc_dilate)
    draws = draw(settings, seed, key)
    pools = bvh.query_pools(
        mesh.vertices,
        mesh.faces,
        draws,
        sigma=settings.pt_surface_sigma,
        field=None if settings.no_udf else field,
        cloud=None if settings.no_pc_rays else cloud,
        max_steps=settings.pc_max_steps,
    )
    arrays: Arrays = {
        "pc_xyz": pools.point,
        "pc_n": pools.normal,
        "pt_xyz_pool": pools.query,
        "pt_dist_pool": pools.distance,
        "pt_dist_pc_pool": pools.cloud_distance,
    }
    arrays |= no_field(settings)
    if not settings.no_udf:
        arrays |= {"udf_grid": pools.field, "occ_grid": pools.occupancy, "pt_dist_udf_pool": pools.field_distance}
    arrays |= {"ray_o_pool": draws.origins, "ray_d_pool": draws.directions}
    arrays |= {"ray_hit_pool": pools.hit, "ray_t_pool": pools.t, "ray_n_pool": pools.hit_normal}
    if not settings.no_pc_rays:
        arrays |= {
            "ray_hit_pc_pool": pools.cloud_hit,
            "ray_t_pc_pool": pools.cloud_t,
            "ray_n_pc_pool": pools.cloud_hit_normal,
        }
    return arrays


def draw(settings: PoolSettings, seed: int, key: str) -> ops.PoolDraws:
    """The random numbers of a shape's pools: those that ``composed_pools`` draws, in the same order."""

    def surface(count: int, purpose: str) -> Float:
        return random_stream(seed, key, purpose).random((count, 3), np.float32)

    near = settings.pt_pool - _uniform_queries(settings)
    of_points = random_stream(seed, key, "points")
    origins, directions = camera_rays(settings, random_stream(seed, key, "rays"))
    return ops.PoolDraws(
        surface=surface(settings.pc_points, "surface"),
        reference=surface(settings.dist_ref_points if settings.pt_dist_mode == "kdtree" else 0, "reference"),
        anywhere=of_points.random((settings.pt_pool - near, 3), np.float32),
        jitter=of_points.standard_normal((near, 3), np.float32),
        around=of_points.integers(settings.pc_points, size=near),
        origins=origins,
        directions=directions,
    )


def composed_pools(
    mesh: Mesh, settings: PoolSettings, seed: int, key: str, bvh: ops.TriangleBvh | None = None
) -> Arrays:
    """The plain twin of ``build_pools``: the same arrays, step by step."""

    def surface(count: int, purpose: str) -> tuple[Float, Float]:
        uniforms = random_stream(seed, key, purpose).random((count, 3), np.float32)
        samples = ops.sample_surface(mesh.vertices, mesh.faces, uniforms)
        return samples.point, samples.normal

    if bvh is None:
        bvh = ops.TriangleBvh(mesh.vertices, mesh.faces)
    pc_xyz, pc_n = surface(settings.pc_points, "surface")
    pt_xyz = point_queries(pc_xyz, settings, random_stream(seed, key, "points"))
    if settings.pt_dist_mode == "mesh":
        pt_dist = bvh.closest_point(pt_xyz).distance
    else:
        pt_dist = ops.nearest_distance(surface(settings.dist_ref_points, "reference")[0], pt_xyz).distance
    pt_dist_pc = ops.nearest_distance(pc_xyz, pt_xyz).distance
    arrays: Arrays = {
        "pc_xyz": pc_xyz,
        "pc_n": pc_n,
        "pt_xyz_pool": pt_xyz,
        "pt_dist_pool": pt_dist,
        "pt_dist_pc_pool": pt_dist_pc,
    }
    arrays |= distance_field(pc_xyz, pt_xyz, settings)
    origins, directions = camera_rays(settings, random_stream(seed, key, "rays"))
    arrays |= {"ray_o_pool": origins, "ray_d_pool": directions}
    arrays |= mesh_ray_answers(mesh, bvh, origins, directions)
    if not settings.no_pc_rays:
        arrays |= cloud_ray_answers(pc_xyz, pc_n, origins, directions, settings)
    return arrays


def point_queries(pc_xyz: Float, settings: PoolSettings, rng: np.random.Generator) -> Float:
    """Point queries (P, 3) in [-1, 1]^3: uniform ones, then surface samples with Gaussian jitter."""
    queries = np.empty((settings.pt_pool, 3), np.float32)
    anywhere, around = np.split(queries, [_uniform_queries(settings)])
    rng.random(out=anywhere, dtype=np.float32)
    anywhere *= 2
    anywhere -= 1
    rng.standard_normal(out=around, dtype=np.float32)
    around *= np.float32(settings.pt_surface_sigma)
    around += pc_xyz[rng.integers(len(pc_xyz), size=len(around))]
    return queries.clip(-1, 1, out=queries)


def _uniform_queries(settings: PoolSettings) -> int:
    return round((1 - settings.pt_surface_ratio) * settings.pt_pool)


def no_field(settings: PoolSettings) -> Arrays:
    """What stands in a cache file for the grids of a cloud if they are not computed."""
    return {
        "udf_grid": np.zeros((1, 1, 1), np.float16),
        "occ_grid": np.zeros((1, 1, 1), np.uint8),
        "df_grid": np.array([settings.df_grid], np.int32),
        "df_dilate": np.array([settings.df_dilate], np.int32),
    }


def distance_field(pc_xyz: Float, pt_xyz: Float, settings: PoolSettings) -> Arrays:
    """The occupancy and unsigned distance grids of a point cloud, and the field at the point queries."""
    arrays = no_field(settings)
    if settings.no_udf:
        return arrays
    occupancy = ops.voxelize(pc_xyz, settings.df_grid, settings.df_dilate)
    distance = ops.distance_transform(occupancy, 2 / settings.df_grid)
    return arrays | {
        "udf_grid": ops.to_half(distance),
        "occ_grid": occupancy,
        "pt_dist_udf_pool": ops.trilinear_sample(distance, pt_xyz),
    }


@lru_cache(maxsize=8)
def cameras(n_views: int) -> tuple[Float, Float]:
    """Positions (n_views, 3) and frames (n_views, 3, 3) of all cameras, not to be changed."""
    positions = camera_positions(n_views)
    return positions, look_at_origin(positions)


def camera_positions(n_views: int) -> Float:
    """Camera centres (n_views, 3) on a spiral around the origin, from below to above."""
    azimuth = np.linspace(0, 2 * np.pi, n_views, endpoint=False)
    elevation = np.linspace(-CAMERA_ELEVATION, CAMERA_ELEVATION, n_views)
    circle = np.stack([np.cos(azimuth), np.sin(azimuth)], 1) * np.cos(elevation)[:, None]
    return (CAMERA_RADIUS * np.column_stack([circle, np.sin(elevation)])).astype(np.float32)


def look_at_origin(positions: Float) -> Float:
    """Frames (n, 3, 3) of cameras that look at the origin; rows are right, up, forward."""
    forward = -positions.astype(np.float64)
    forward /= np.linalg.norm(forward, axis=1, keepdims=True)
    right = np.cross([0.0, 0.0, 1.0], forward)
    vertical = np.linalg.norm(right, axis=1) < 1e-6
    right[vertical] = np.cross([0.0, 1.0, 0.0], forward[vertical])
    right /= np.linalg.norm(right, axis=1, keepdims=True)
    return np.stack([right, np.cross(forward, right), forward], 1).astype(np.float32)


def camera_rays(settings: PoolSettings, rng: np.random.Generator) -> tuple[Float, Float]:
    """Origins and unit directions (R, 3): for each camera in turn, uniform over its square image of 60 degrees."""
    positions, frames = cameras(settings.n_views)
    per_view = max(settings.rays_per_view, math.ceil(settings.ray_pool / settings.n_views))
    in_camera = np.full((settings.n_views, per_view, 3), FOCAL_LENGTH, np.float32)
    in_camera[..., :2] = rng.random((settings.n_views, per_view, 2), np.float32) * 2 - 1
    directions = (in_camera @ frames).reshape(-1, 3)[: settings.ray_pool]
    directions /= np.sqrt(np.einsum("rc,rc->r", directions, directions))[:, None]
    return np.repeat(positions, per_view, axis=0)[: settings.ray_pool], directions


def mesh_ray_answers(mesh: Mesh, bvh: ops.TriangleBvh, origins: Float, directions: Float) -> Arrays:
    """First hits on the mesh: 0/1, distance, face normal; zeros on a miss."""
    hits = bvh.cast_rays(origins, directions)
    hit = hits.face >= 0
    normal = np.zeros_like(directions)
    normal[hit] = mesh.face_normals(hits.face[hit])
    return {
        "ray_hit_pool": hit.astype(np.float32),
        "ray_t_pool": np.where(hit, hits.t, np.float32(0)),
        "ray_n_pool": normal,
    }


def cloud_ray_answers(pc_xyz: Float, pc_n: Float, origins: Float, directions: Float, settings: PoolSettings) -> Arrays:
    """First hits in the voxelised point cloud: 0/1, distance, normal of the nearest point; zeros on a miss."""
    occupancy = ops.voxelize(pc_xyz, settings.pc_grid, settings.pc_dilate)
    hit, t, normal = voxel_ray_answers(occupancy, pc_xyz, pc_n, origins, directions, settings.pc_max_steps)
    return {"ray_hit_pc_pool": hit, "ray_t_pc_pool": t, "ray_n_pc_pool": normal}


def voxel_ray_answers(
    occupancy: NDArray[np.uint8], pc_xyz: Float, pc_n: Float, origins: Float, directions: Float, max_steps: int = 0
) -> tuple[Float, Float, Float]:
    """Hit (R,) as 0/1, t (R,) and normal (R, 3) of rays through an occupancy grid of a point cloud."""
    hit, t = ops.voxel_first_hit(occupancy, origins, directions, max_steps)
    normal = np.zeros_like(directions)
    normal[hit] = pc_n[ops.nearest_distance(pc_xyz, origins[hit] + t[hit, None] * directions[hit]).index]
    return hit.astype(np.float32), t, normal


def _require(condition: bool, name: str, expected: str, got: float) -> None:
    if not condition:
        raise ValueError(f"{name} must be {expected}, got {got}")
