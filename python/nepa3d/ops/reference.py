"""The slow, obvious twin of every compiled op: same names, arguments and answers, in plain NumPy.

These are the oracles of the tests and the documentation of what the kernels compute. ``threads`` is accepted
where the compiled op takes it, and changes nothing. Ops on clouds and meshes compute in float64, so they need no
origin near the shape; positions are float64 where vertices are wider than float32, as the compiled ops return them.
Letters: N points, M queries, R rays, V vertices, F faces, G grid side.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
from numpy.typing import NDArray

from nepa3d.ops.results import ClosestPoints, Fitted, Float, Int, NearestPoints, RayHits, SurfaceSamples, VoxelHits

_CHUNK = 1 << 22  # pairs compared at once


def nearest_distance(points: Float, queries: Float, *, threads: int = 1) -> NearestPoints:
    """Distance from each query to its nearest point, by comparing with every point; ties take the lowest index."""
    distance = np.empty(len(queries), np.float32)
    index = np.empty(len(queries), np.int64)
    step = max(1, _CHUNK // max(1, len(points)))
    for begin in range(0, len(queries), step):
        delta = queries[begin : begin + step, None, :].astype(np.float64) - points[None].astype(np.float64)
        squared = (delta**2).sum(-1)
        nearest = squared.argmin(1)
        index[begin : begin + step] = nearest
        distance[begin : begin + step] = np.sqrt(squared[np.arange(len(nearest)), nearest])
    return NearestPoints(distance, index)


def cast_rays(vertices: Float, faces: Int, origins: Float, directions: Float, *, threads: int = 1) -> RayHits:
    """First hit of each ray on a triangle mesh: t (inf on a miss), face (-1 on a miss), barycentrics (R, 3).

    Möller and Trumbore's test (1997) in float64 against every triangle, both sides; ties take the lowest face.
    """
    corner, edge1, edge2 = _edges(vertices, faces)
    t = np.full(len(origins), np.inf, np.float32)
    face = np.full(len(origins), -1, np.int64)
    barycentric = np.zeros((len(origins), 3), np.float32)
    for ray, (origin, direction) in enumerate(
        zip(origins.astype(np.float64), directions.astype(np.float64), strict=True)
    ):
        p = np.cross(direction, edge2)
        determinant = (edge1 * p).sum(1)
        with np.errstate(divide="ignore", invalid="ignore"):
            s = origin - corner
            u = (s * p).sum(1) / determinant
            q = np.cross(s, edge1)
            v = (q @ direction) / determinant
            hit_t = (edge2 * q).sum(1) / determinant
            inside = (u >= 0) & (v >= 0) & (u + v <= 1) & (hit_t >= 0)
        if inside.any():
            best = np.where(inside, hit_t, np.inf).argmin()
            t[ray], face[ray] = hit_t[best], best
            barycentric[ray] = 1 - u[best] - v[best], u[best], v[best]
    return RayHits(t, face, barycentric)


def closest_point(vertices: Float, faces: Int, queries: Float, *, threads: int = 1) -> ClosestPoints:
    """Nearest point of a triangle mesh: distance (M,), face (M,), point (M, 3); compared with every triangle.

    The nearest point lies inside the triangle, where the query projects into it, or else on one of its edges.
    """
    corner, edge1, edge2 = _edges(vertices, faces)
    normal = np.cross(edge1, edge2)
    area2 = (normal**2).sum(1)
    distance = np.empty(len(queries), np.float32)
    face = np.empty(len(queries), np.int64)
    point = np.empty((len(queries), 3), np.result_type(vertices, np.float32))
    for row, query in enumerate(queries.astype(np.float64)):
        candidates = [_closest_on_segments(query, corner + a, b) for a, b in _sides(edge1, edge2)]
        with np.errstate(divide="ignore", invalid="ignore"):
            s = query - corner
            v = (np.cross(edge1, s) * normal).sum(1) / area2
            u = (np.cross(s, edge2) * normal).sum(1) / area2
            inside = (u >= 0) & (v >= 0) & (u + v <= 1)
            plane = corner + u[:, None] * edge1 + v[:, None] * edge2
        candidates.append(np.where(inside[:, None], plane, np.inf))
        squared = np.array([((candidate - query) ** 2).sum(1) for candidate in candidates])
        face[row] = squared.min(0).argmin()
        best = candidates[squared[:, face[row]].argmin()][face[row]]
        point[row], distance[row] = best, np.linalg.norm(best - query)
    return ClosestPoints(distance, face, point)


def sample_surface(vertices: Float, faces: Int, uniforms: Float) -> SurfaceSamples:
    """Area-weighted surface samples: point (N, 3), unit face normal (N, 3), face (N,).

    ``uniforms`` (N, 3) in [0, 1] choose the face (inverse of the cumulative area) and the place in it
    (square-root parametrisation: Osada et al., Shape Distributions, 2002).
    """
    corner, edge1, edge2 = _edges(vertices, faces)
    normal = np.cross(edge1, edge2)
    length = np.linalg.norm(normal, axis=1)
    cumulative = np.cumsum(length)
    face = np.searchsorted(cumulative, uniforms[:, 0].astype(np.float64) * cumulative[-1], side="right")
    face = np.minimum(face, np.flatnonzero(length)[-1])
    root, along = np.sqrt(uniforms[:, 1].astype(np.float64)), uniforms[:, 2].astype(np.float64)
    a, b = root * (1 - along), root * along
    point = corner[face] + a[:, None] * edge1[face] + b[:, None] * edge2[face]
    point = point.astype(np.result_type(vertices, np.float32))
    unit = (normal[face] / length[face, None]).astype(np.float32)
    return SurfaceSamples(point, unit, face.astype(np.int64))


def voxelize(points: Float, grid: int, dilate: int = 0) -> NDArray[np.uint8]:
    """Occupancy (G, G, G) of the cells of [-1, 1]^3 that hold a point, grown by ``dilate`` rounds of 6-neighbours."""
    occupied = np.zeros((grid, grid, grid), np.uint8)
    cell = np.clip(np.floor((points + np.float32(1)) / np.float32(2 / grid)), 0, grid - 1).astype(int)
    occupied[tuple(cell.T)] = 1
    for _ in range(dilate):
        padded = np.pad(occupied, 1)
        occupied = padded[1:-1, 1:-1, 1:-1].copy()
        for axis, shift in itertools.product(range(3), (-1, 1)):
            occupied |= np.roll(padded, shift, axis)[1:-1, 1:-1, 1:-1]
    return occupied


def distance_transform(
    occupancy: NDArray[np.uint8], spacing: float | tuple[float, float, float] = 1.0, *, threads: int = 1
) -> Float:
    """Euclidean distance (G0, G1, G2) from each cell centre to the nearest occupied one; inf if none is."""
    cells = np.argwhere(occupancy)
    if len(cells) == 0:
        return np.full(occupancy.shape, np.inf, np.float32)
    scale = np.broadcast_to(np.asarray(spacing, np.float64), 3)
    every = np.argwhere(np.ones(occupancy.shape))
    nearest = np.full(len(every), np.inf)
    for cell in cells:
        nearest = np.minimum(nearest, (((every - cell) * scale) ** 2).sum(1))
    return np.sqrt(nearest).astype(np.float32).reshape(occupancy.shape)


def to_half(values: Float) -> NDArray[np.float16]:
    """The values as float16, rounded to the nearest, ties to even."""
    with np.errstate(over="ignore", invalid="ignore"):
        return values.astype(np.float16)


def trilinear_sample(grid: Float, xyz: Float) -> Float:
    """Trilinear interpolation (M,) of cell-centred values of [-1, 1]^3; indices clamp, weights do not."""
    side = np.array(grid.shape)
    position = (xyz.astype(np.float64) + 1) * side / 2 - 0.5
    low = np.floor(position).astype(int)
    weight = position - low
    value = np.zeros(len(xyz))
    for corner in itertools.product((0, 1), repeat=3):
        index = np.clip(low + corner, 0, side - 1)
        value += np.where(corner, weight, 1 - weight).prod(1) * grid[tuple(index.T)]
    return value.astype(np.float32)


def voxel_first_hit(
    occupancy: NDArray[np.uint8], origins: Float, directions: Float, max_steps: int = 0, *, threads: int = 1
) -> VoxelHits:
    """First occupied cell along each ray through [-1, 1]^3: hit (R,), ray parameter where that cell is entered (R,).

    Amanatides and Woo's walk (1987): at most ``max_steps`` cells (0: 3 G); x is stepped only if its next
    boundary is strictly the nearest, else y if strictly nearer than z, else z. t is 0 on a miss.
    """
    grid = occupancy.shape[0]
    hit = np.zeros(len(origins), bool)
    t = np.zeros(len(origins), np.float32)
    for ray in range(len(origins)):
        origin, direction = origins[ray].astype(np.float64), directions[ray].astype(np.float64)
        entered = _walk(occupancy, origin, direction, max_steps or 3 * grid)
        if entered is not None:
            hit[ray], t[ray] = True, entered
    return VoxelHits(hit, t)


def morton_code(xyz: Float) -> NDArray[np.uint32]:
    """Morton code (N,) of [-1, 1]^3 with 10 bits an axis, x lowest (Morton, 1966)."""
    cell = np.clip(np.trunc((xyz / np.float32(2) + np.float32(0.5)) * np.float32(1023)), 0, 1023).astype(np.uint32)
    code = np.zeros(len(xyz), np.uint32)
    for bit, axis in itertools.product(range(10), range(3)):
        code |= ((cell[:, axis] >> bit) & 1) << (3 * bit + axis)
    return code


def morton_order(xyz: Float) -> Int:
    """Indices (N,) that sort points by Morton code; equal codes keep their order."""
    return np.argsort(morton_code(xyz), kind="stable")


def ray_direction_order(directions: Float) -> Int:
    """Indices (R,) that sort directions by azimuth atan2(y, x), then polar angle acos(z), both rounded to float32."""
    x, y, z = directions.T.astype(np.float64)
    theta = np.arctan2(y, x).astype(np.float32)
    phi = np.arccos(np.clip(z, -1, 1)).astype(np.float32)
    return np.lexsort((phi, theta))


def _edges(vertices: Float, faces: Int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    a, b, c = (vertices[faces[:, k]].astype(np.float64) for k in range(3))
    return a, b - a, c - a


def _sides(edge1: np.ndarray, edge2: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    return [(np.zeros_like(edge1), edge1), (np.zeros_like(edge1), edge2), (edge1, edge2 - edge1)]


def _closest_on_segments(query: np.ndarray, start: np.ndarray, along: np.ndarray) -> np.ndarray:
    length2 = (along**2).sum(1)
    s = ((query - start) * along).sum(1) / np.where(length2 > 0, length2, 1)
    return start + np.clip(s, 0, 1)[:, None] * along


def _walk(occupancy: NDArray[np.uint8], origin: np.ndarray, direction: np.ndarray, steps: int) -> float | None:
    grid = occupancy.shape[0]
    size = 2 / grid
    enter, leave = 0.0, math.inf
    for o, d in zip(origin, direction, strict=True):
        if d == 0:
            if abs(o) > 1:
                return None
            continue
        near, far = sorted(((-1 - o) / d, (1 - o) / d))
        enter, leave = max(enter, near), min(leave, far)
    if not enter <= leave or math.isinf(leave):
        return None
    cell = np.clip(np.floor((origin + enter * direction + 1) / size), 0, grid - 1).astype(int)
    step = np.sign(direction).astype(int)
    boundary = np.full(3, math.inf)
    stride = np.full(3, math.inf)
    for axis in np.flatnonzero(direction):
        boundary[axis] = (-1 + (cell[axis] + (step[axis] > 0)) * size - origin[axis]) / direction[axis]
        stride[axis] = size / abs(direction[axis])
    entered = enter
    for _ in range(steps):
        if occupancy[tuple(cell)]:
            return entered
        x, y, z = boundary
        nearest = 0 if x < y and x < z else 1 if y < z else 2
        entered = boundary[nearest]
        boundary[nearest] += stride[nearest]
        cell[nearest] += step[nearest]
        if not 0 <= cell[nearest] < grid:
            return None
    return None


def fit_unit_sphere(vertices: NDArray[np.float64]) -> Fitted:
    """See ``nepa3d.ops.fit_unit_sphere``."""
    low, high = vertices.min(0), vertices.max(0)
    centre = low / 2 + high / 2
    centred = vertices - centre
    reach = np.abs(centred).max()
    centred /= reach  # first, so that no square over- or underflows
    x, y, z = (centred**2).T
    radius = np.sqrt((x + y + z).max())
    return Fitted((centred / radius).astype(np.float32), centre, float(reach * radius))


def triangulate_polygons(vertices: NDArray[np.float64], corners: Int, sizes: Int) -> Int:
    """Triangles (F, 3) of polygons, one after the other; see ``nepa3d.ops.triangulate_polygons`` for the rules."""
    triangles = []
    for polygon in np.split(np.asarray(corners), np.cumsum(sizes)[:-1]):
        triangles += _triangulate(np.asarray(vertices, np.float64)[polygon], polygon.tolist())
    return np.array(triangles, np.int64).reshape(-1, 3)


_ROUNDING = 64 * np.finfo(np.float64).eps  # of twice the area of a triangle in a polygon that fits [-1, 1]^3


def _triangulate(xyz: NDArray[np.float64], corners: list[int]) -> list[list[int]]:
    """One polygon: its corners (n, 3) in space, and their numbers."""

    def fan(hub: int) -> list[list[int]]:
        order = [*range(hub, len(corners)), *range(hub)]
        return [[order[0], a, b] for a, b in itertools.pairwise(order[1:])]

    def numbered(triangles: list[list[int]]) -> list[list[int]]:
        return [[corners[i] for i in triangle] for triangle in triangles]

    flat = _along_normal(xyz)
    if len(corners) == 3 or flat is None:
        return numbered(fan(0))

    def turn(a: int, b: int, c: int) -> float:
        (ax, ay), (bx, by), (cx, cy) = flat[a], flat[b], flat[c]
        return float((bx - ax) * (cy - ay) - (by - ay) * (cx - ax))

    for hub in range(2 if len(corners) == 4 else 1):
        if all(turn(*triangle) >= -_ROUNDING for triangle in fan(hub)):
            return numbered(fan(hub))
    if len(corners) == 4:
        return numbered(fan(0))

    ring = list(range(len(corners)))  # what is left of the polygon

    def beside(i: int) -> tuple[int, int, int]:
        place = ring.index(i)
        return ring[place - 1], i, ring[(place + 1) % len(ring)]

    def is_ear(i: int) -> bool:
        a, b, c = beside(i)
        if abs(turn(a, b, c)) <= _ROUNDING:
            return True
        if turn(a, b, c) < 0:
            return False
        return not any(
            turn(*beside(p)) <= _ROUNDING
            and turn(a, b, p) >= 0
            and turn(b, c, p) >= 0
            and turn(c, a, p) >= 0
            and tuple(flat[p]) not in (tuple(flat[a]), tuple(flat[c]))
            for p in ring
            if p in reflex_at_first and p not in (a, b, c)
        )

    # in a simple polygon no cut makes a convex corner reflex
    reflex_at_first = [i for i in ring if turn(*beside(i)) <= _ROUNDING]

    triangles, waiting, looks = [], list(ring), 64
    while len(ring) > 3:
        tip = next((i for i in waiting if i in ring and is_ear(i)), None)
        if tip is None and looks:  # corners that touch may have become ears since
            looks -= 1
            tip = next((i for i in ring if is_ear(i)), None)
            waiting = ring[ring.index(tip) :] if tip is not None else []
        if tip is None:  # edges cross
            looks = 0
            tip = next((i for i in ring if turn(*beside(i)) > 0), ring[0])
            waiting = [tip]
        a, _, c = beside(tip)
        triangles.append([a, tip, c])
        ring.remove(tip)
        waiting = [a, c, *waiting[waiting.index(tip) + 1 :]]
    return numbered([*triangles, ring])


def _along_normal(xyz: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """Corners (n, 2) of a polygon as seen along its Newell normal, scaled to fit [-1, 1]; None if it has no normal."""
    offset = xyz - xyz[0]
    extent = np.abs(offset).max()
    if not (np.finfo(np.float64).tiny <= extent < np.inf) or not np.isfinite(1 / extent):
        return None
    offset *= 1 / extent
    normal = np.cross(np.roll(offset, 1, axis=0), offset).sum(0)
    length = np.linalg.norm(normal)
    if not length > _ROUNDING:
        return None
    normal /= length
    axis = np.abs(normal).argmax()
    right = np.roll(np.eye(3)[0], axis + 1)
    right -= right @ normal * normal
    right /= np.linalg.norm(right)
    return offset @ np.column_stack([right, np.cross(normal, right)])
