"""Distance transform, trilinear samples and voxel walks on a 64^3 grid."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from benchmarks.agreement import same_values, same_voxel_hits
from benchmarks.harness import Contender, Row, case
from benchmarks.inputs import Float, Inputs
from nepa3d import ops
from nepa3d.shapes.query_pools import voxel_ray_answers

Occupancy = NDArray[np.uint8]


@case("distance transform", threaded=True)
def distance_transform(inputs: Inputs, threads: int) -> Row:
    occupancy = inputs.occupancy
    spacing = 2 / len(occupancy)
    return Row(
        size={"cells": occupancy.size},
        ours=Contender(lambda: ops.distance_transform(occupancy, spacing, threads=threads)),
        peers={
            "scipy": partial(scipy_transform, occupancy, spacing),
            "edt": partial(edt_transform, occupancy, spacing, threads),
        },
        compare=same_values,
    )


def scipy_transform(occupancy: Occupancy, spacing: float) -> Contender:
    from scipy.ndimage import distance_transform_edt

    empty = occupancy == 0
    return Contender(lambda: distance_transform_edt(empty, sampling=spacing))


def edt_transform(occupancy: Occupancy, spacing: float, threads: int) -> Contender:
    import edt

    empty = occupancy == 0
    return Contender(lambda: edt.edt(empty, anisotropy=(spacing, spacing, spacing), parallel=threads))


@case("trilinear sampling")
def trilinear_sampling(inputs: Inputs, threads: int) -> Row:
    grid, queries = inputs.distance, inputs.queries
    return Row(
        size={"cells": grid.size, "queries": len(queries)},
        ours=Contender(lambda: ops.trilinear_sample(grid, queries)),
        peers={
            "numpy": lambda: Contender(lambda: ops.reference.trilinear_sample(grid, queries)),
            "scipy": partial(scipy_trilinear, grid, queries),
        },
        compare=same_values,
    )


def scipy_trilinear(grid: Float, queries: Float) -> Contender:
    from scipy.ndimage import map_coordinates

    half = len(grid) / 2
    return Contender(lambda: map_coordinates(grid, (queries.T + 1) * half - 0.5, order=1, mode="nearest"))


@case("voxel walk with normals")
def voxel_walk(inputs: Inputs, threads: int) -> Row:
    occupancy, points, normals = inputs.occupancy, inputs.surface, inputs.normals
    origins, directions = inputs.origins, inputs.directions
    return Row(
        size={"cells": occupancy.size, "rays": len(origins), "points": len(points)},
        ours=Contender(lambda: voxel_ray_answers(occupancy, points, normals, origins, directions)),
        peers={
            "python": partial(python_walk, occupancy, points, normals, origins, directions),
            "numba+scipy": partial(numba_walk, occupancy, points, normals, origins, directions),
        },
        compare=same_voxel_hits,
    )


def python_walk(occupancy: Occupancy, points: Float, normals: Float, origins: Float, directions: Float) -> Contender:
    """The reference twin: a Python loop over rays and cells, NumPy for the normals."""

    def run() -> tuple:
        hit, t = ops.reference.voxel_first_hit(occupancy, origins, directions)
        nearest = ops.reference.nearest_distance(points, (origins + t[:, None] * directions)[hit])
        return with_normals(hit, t, normals[nearest.index])

    return Contender(run)


def numba_walk(occupancy: Occupancy, points: Float, normals: Float, origins: Float, directions: Float) -> Contender:
    """A compiled walk over rays and cells; SciPy's tree for the normals. Compilation is not timed."""
    from scipy.spatial import cKDTree

    first_hit = compile_walk()

    def run() -> tuple:
        hit, t = first_hit(occupancy, origins, directions)
        _, nearest = cKDTree(points).query((origins + t[:, None] * directions)[hit])
        return with_normals(hit, t, normals[nearest])

    return Contender(run)


def with_normals(hit: NDArray[np.bool_], t: Float, normals: Float) -> tuple[Float, Float, Float]:
    """Hit (R,) as 0/1, t (R,) and normal (R, 3), zero on a miss, from the normals of the hits alone."""
    every = np.zeros((len(hit), 3), np.float32)
    every[hit] = normals
    return hit.astype(np.float32), t, every


def compile_walk() -> Callable[[Occupancy, Float, Float], tuple[NDArray[np.bool_], Float]]:
    """``ops.voxel_first_hit`` in numba: Amanatides and Woo's walk, a scalar loop without arrays inside."""
    import numba

    @numba.njit
    def clip(origin: float, direction: float, enter: float, leave: float) -> tuple[float, float]:
        if direction == 0:
            return (enter, leave) if abs(origin) <= 1 else (math.inf, -math.inf)
        near, far = (-1 - origin) / direction, (1 - origin) / direction
        return max(enter, min(near, far)), min(leave, max(near, far))

    @numba.njit
    def start(origin: float, direction: float, enter: float, grid: int) -> tuple[int, int, float, float]:
        """Cell, step, t of the next boundary and t from one to the next along one axis."""
        size = 2 / grid
        cell = min(max(math.floor((origin + enter * direction + 1) / size), 0), grid - 1)
        if direction == 0:
            return cell, 0, math.inf, math.inf
        step = 1 if direction > 0 else -1
        boundary = (-1 + (cell + (step > 0)) * size - origin) / direction
        return cell, step, boundary, size / abs(direction)

    @numba.njit
    def walk(occupancy: Occupancy, origin: Float, direction: Float) -> float:
        """t of entry into the first occupied cell, -1 on a miss."""
        grid = occupancy.shape[0]
        ox, oy, oz = float(origin[0]), float(origin[1]), float(origin[2])
        dx, dy, dz = float(direction[0]), float(direction[1]), float(direction[2])
        enter, leave = clip(ox, dx, 0.0, math.inf)
        enter, leave = clip(oy, dy, enter, leave)
        enter, leave = clip(oz, dz, enter, leave)
        if not enter <= leave or math.isinf(leave):
            return -1.0
        i, step_x, next_x, stride_x = start(ox, dx, enter, grid)
        j, step_y, next_y, stride_y = start(oy, dy, enter, grid)
        k, step_z, next_z, stride_z = start(oz, dz, enter, grid)
        for _ in range(3 * grid):
            if occupancy[i, j, k]:
                return enter
            if next_x < next_y and next_x < next_z:
                enter = next_x
                next_x += stride_x
                i += step_x
                if not 0 <= i < grid:
                    return -1.0
            elif next_y < next_z:
                enter = next_y
                next_y += stride_y
                j += step_y
                if not 0 <= j < grid:
                    return -1.0
            else:
                enter = next_z
                next_z += stride_z
                k += step_z
                if not 0 <= k < grid:
                    return -1.0
        return -1.0

    @numba.njit
    def first_hit(occupancy: Occupancy, origins: Float, directions: Float) -> tuple[NDArray[np.bool_], Float]:
        hit = np.zeros(len(origins), np.bool_)
        t = np.zeros(len(origins), np.float32)
        for ray in range(len(origins)):
            entered = walk(occupancy, origins[ray], directions[ray])
            if entered >= 0:
                hit[ray] = True
                t[ray] = entered
        return hit, t

    return first_hit
