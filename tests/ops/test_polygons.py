"""Polygons as triangles: beside the slow twin, beside mapbox_earcut, and by area."""

from __future__ import annotations

import itertools
import math

import mapbox_earcut
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from nepa3d import ops
from nepa3d.ops import reference

Float = NDArray[np.float64]
L = np.array([[0, 0], [3, 0], [3, 1], [1, 1], [1, 3], [0, 3]], float)


def flat(points: Float) -> Float:
    """Points (n, 2) of the plane in space."""
    return np.column_stack([points, np.zeros(len(points))])


def triangulate(points: Float) -> NDArray[np.int64]:
    """One polygon of corners (n, 2) or (n, 3)."""
    xyz = points if points.shape[1] == 3 else flat(points)
    return ops.triangulate_polygons(xyz, np.arange(len(xyz)), [len(xyz)])


def areas(points: Float, triangles: NDArray[np.int64]) -> Float:
    """Signed areas of triangles in the plane."""
    a, b, c = (points[triangles[:, k]] for k in range(3))
    return ((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]) / 2


def area(points: Float) -> float:
    """Signed area of a polygon."""
    x, y = points.T
    return float(np.sum(np.roll(x, 1) * y - np.roll(y, 1) * x) / 2)


def random_polygon(rng: np.random.RandomState, corners: int) -> Float:
    """A simple polygon: random points in a random order, edges that cross uncrossed one by one (2-opt)."""
    points = rng.randint(0, 1000, (corners, 2)).astype(float)
    points = np.unique(points, axis=0)
    rng.shuffle(points)
    n = len(points)

    def crosses(i: int, j: int) -> bool:
        a, b, c, d = points[i], points[(i + 1) % n], points[j], points[(j + 1) % n]

        def side(p: Float, q: Float, r: Float) -> float:
            return float((q[0] - p[0]) * (r[1] - p[1]) - (q[1] - p[1]) * (r[0] - p[0]))

        return side(a, b, c) * side(a, b, d) <= 0 and side(c, d, a) * side(c, d, b) <= 0

    for _ in range(50 * n):
        found = next(
            ((i, j) for i, j in itertools.combinations(range(n), 2) if 1 < j - i < n - 1 and crosses(i, j)), None
        )
        if found is None:
            return points if area(points) > 0 else points[::-1].copy()
        i, j = found
        points[i + 1 : j + 1] = points[i + 1 : j + 1][::-1]
    return random_polygon(rng, corners)


def with_runs(rng: np.random.RandomState, points: Float) -> Float:
    """The same polygon with corners along its edges, repeated corners, and needles without area."""
    corners = []
    for here, there in zip(points, np.roll(points, -1, axis=0), strict=True):
        corners.append(here)
        kind = rng.randint(4)
        if kind == 1:
            corners += [here + (there - here) * part for part in (0.25, 0.5)]
        elif kind == 2:
            corners.append(here)
        elif kind == 3:
            corners += [here + (there - here) * 0.5, here + (there - here) * 0.25, here + (there - here) * 0.75]
    return np.array(corners)


def check(points: Float) -> None:
    """n - 2 triangles, every corner used, none turned over beyond rounding, and of the polygon's area together."""
    triangles = triangulate(points)
    assert triangles.shape == (len(points) - 2, 3)
    assert set(triangles.ravel().tolist()) == set(range(len(points)))
    found = areas(points, triangles)
    assert np.abs(found).sum() == pytest.approx(area(points), rel=1e-9)
    assert peers_area(points) == pytest.approx(np.abs(found).sum(), rel=1e-9)


def peers_area(points: Float) -> float:
    """Of mapbox_earcut's triangles, which may be fewer."""
    theirs = mapbox_earcut.triangulate_float64(points, np.array([len(points)], np.uint32)).reshape(-1, 3)
    return float(np.abs(areas(points, theirs.astype(np.int64))).sum())


@pytest.mark.parametrize("seed", range(60))
def test_random_simple_polygons(seed: int) -> None:
    rng = np.random.RandomState(seed)
    points = random_polygon(rng, rng.randint(4, 24))
    check(points)
    for start in range(len(points)):
        check(np.roll(points, start, axis=0))


@pytest.mark.parametrize("seed", range(60))
def test_straight_runs_repeated_corners_and_needles(seed: int) -> None:
    rng = np.random.RandomState(seed)
    points = with_runs(rng, random_polygon(rng, rng.randint(4, 16)))
    triangles = triangulate(points)
    assert triangles.shape == (len(points) - 2, 3)
    assert np.abs(areas(points, triangles)).sum() == pytest.approx(area(points), rel=1e-9)
    assert areas(points, triangles).min() >= -1e-6
    assert peers_area(points) == pytest.approx(area(points), rel=1e-9)


@pytest.mark.parametrize("seed", range(40))
def test_the_twin_has_the_same_triangles(seed: int) -> None:
    rng = np.random.RandomState(seed)
    polygons = [random_polygon(rng, rng.randint(4, 14)) for _ in range(3)]
    polygons += [with_runs(rng, polygons[0]), rng.randint(0, 9, (rng.randint(4, 12), 2)).astype(float)]
    turned = [flat(polygon) for polygon in polygons] + [flat(polygon)[:, [2, 0, 1]] for polygon in polygons]
    vertices, sizes = np.concatenate(turned), [len(polygon) for polygon in turned]
    corners = np.arange(len(vertices))
    found = ops.triangulate_polygons(vertices, corners, sizes)
    assert found.tolist() == reference.triangulate_polygons(vertices, corners, np.array(sizes)).tolist()


@pytest.mark.parametrize("seed", range(20))
def test_any_plane_scale_and_place(seed: int) -> None:
    rng = np.random.RandomState(seed)
    points = random_polygon(rng, 12)
    axes, _ = np.linalg.qr(rng.standard_normal((3, 3)))
    for scale in (1e-30, 1e-3, 1.0, 1e30):
        xyz = flat(points) @ axes.T * scale
        triangles = triangulate(xyz)
        a, b, c = (xyz[triangles[:, k]] / scale for k in range(3))
        found = np.linalg.norm(np.cross(b - a, c - a), axis=1).sum() / 2
        assert found == pytest.approx(area(points), rel=1e-6)


def test_a_fan_stays_where_it_turns_nothing_over() -> None:
    angles = np.linspace(0, 2 * math.pi, 9, endpoint=False)
    convex = np.column_stack([np.cos(angles), np.sin(angles)])
    assert triangulate(convex).tolist() == [[0, i, i + 1] for i in range(1, 8)]
    seen_whole = np.roll(L, -3, axis=0)  # from its inner corner
    assert triangulate(seen_whole).tolist() == [[0, i, i + 1] for i in range(1, 5)]
    square_with_run = np.array([[0, 0], [1, 0], [2, 0], [2, 2], [0, 2]], float)
    assert triangulate(square_with_run).tolist() == [[0, 1, 2], [0, 2, 3], [0, 3, 4]]


def test_the_letter_l_by_hand() -> None:
    rolled = np.roll(L, -2, axis=0)  # the fan around its third corner covers ground outside
    triangles = triangulate(rolled)
    assert np.abs(areas(rolled, triangles)).sum() == area(L) == 5
    assert triangles.tolist() == [[5, 0, 1], [4, 5, 1], [3, 4, 1], [1, 2, 3]]


def test_the_inner_diagonal_of_a_concave_quad() -> None:
    dart = np.array([[0, 0], [2, 1], [0, 4], [0.5, 1]], float)
    assert triangulate(dart).tolist() == [[1, 2, 3], [1, 3, 0]]
    assert triangulate(np.roll(dart, -1, axis=0)).tolist() == [[0, 1, 2], [0, 2, 3]]


def test_a_keyhole() -> None:
    """A square with a square hole, joined by a bridge that is walked twice."""
    outer, hole = [(0, 0), (6, 0), (6, 6), (0, 6)], [(2, 2), (2, 4), (4, 4), (4, 2)]
    points = np.array([*outer, outer[0], *hole, hole[0]], float)
    for start in range(len(points)):
        rolled = np.roll(points, start, axis=0)
        found = areas(rolled, triangulate(rolled))
        assert (found.min() >= 0, found.sum()) == (True, 32)


@pytest.mark.parametrize(
    "points",
    [
        np.array([[0, 0], [2, 2], [2, 0], [0, 2]], float),  # edges cross, areas cancel
        np.array([[0, 0], [4, 0], [1, 3], [2, -1], [3, 3]], float),  # a star
        np.zeros((6, 2)),
        np.array([[0, 0], [1, 0], [2, 0], [3, 0], [1.5, 0]], float),
        np.array([[0, 0], [1, 0], [np.nan, 1], [0, 1], [-1, 2]], float),
        np.array([[0, 0], [1, 0], [np.inf, 1], [0, 1], [-1, 2]], float),
        np.array([[0, 0], [5e-324, 0], [5e-324, 5e-324], [0, 5e-324]], float),
        np.array([[-1e308, -1e308], [1e308, -1e308], [1e308, 1e308], [-1e308, 1e308]], float),
    ],
)
def test_what_has_no_answer_has_a_fixed_one(points: Float) -> None:
    triangles = triangulate(points)
    assert triangles.shape == (len(points) - 2, 3)
    assert set(triangles.ravel().tolist()) == set(range(len(points)))
    assert triangles.tolist() == triangulate(points).tolist()


def test_a_polygon_that_is_not_flat() -> None:
    """A concave hexagon bent along its diagonal: seen along its normal no triangle is turned over."""
    bent = np.column_stack([L, 0.4 * (L[:, 0] - L[:, 1]) ** 2 / 9])
    for start in range(6):
        rolled = np.roll(bent, start, axis=0)
        triangles = triangulate(rolled)
        normal = sum(np.cross(a, b) for a, b in zip(rolled, np.roll(rolled, -1, axis=0), strict=True))
        a, b, c = (rolled[triangles[:, k]] for k in range(3))
        assert (np.cross(b - a, c - a) @ normal).min() >= 0


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(*[st.integers(-3, 3)] * 3), min_size=3, max_size=14))
def test_any_corners_give_their_number_of_triangles(corners: list[tuple[int, int, int]]) -> None:
    triangles = triangulate(np.array(corners, float))
    assert triangles.shape == (len(corners) - 2, 3)
    assert set(triangles.ravel().tolist()) == set(range(len(corners)))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(*[st.integers(-4, 4)] * 2), min_size=3, max_size=14))
def test_the_twin_has_the_same_triangles_of_any_corners_of_a_plane(corners: list[tuple[int, int]]) -> None:
    points, order = np.array(corners, float), np.arange(len(corners))
    twin = reference.triangulate_polygons(flat(points), order, np.array([len(corners)]))
    assert triangulate(points).tolist() == twin.tolist()


def test_a_large_comb() -> None:
    """Twenty thousand teeth."""
    teeth = np.arange(20000)
    x = np.repeat(teeth, 4) + np.tile([0, 0.2, 0.4, 0.9], len(teeth))
    comb = np.column_stack([x, np.tile([0.0, 5, 5, 0], len(teeth))])
    points = np.concatenate([comb, [[20000, -1], [0, -1]]])[::-1]
    found = areas(points, triangulate(points))
    assert (found.min() >= 0, found.sum()) == (True, pytest.approx(area(points)))


@pytest.mark.parametrize(
    ("corners", "sizes", "message"),
    [
        ([0, 1, 2, 4], [4], "corners must index 4 vertices, got index 4"),
        ([0, 1, 2, -1], [4], "corners must index 4 vertices, got index -1"),
        ([0, 1, 2, 3], [2, 2], "sizes must be at least 3, got 2"),
        ([0, 1, 2, 3], [3], "sizes must add up to the number of corners, 4"),
        ([0, 1, 2, 3], [3, 3], "sizes must add up to the number of corners, 4"),
        ([0.0, 1.0, 2.0], [3], "corners must be integers of shape"),
    ],
)
def test_wrong_arguments_are_named(corners: list[int], sizes: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ops.triangulate_polygons(flat(L[:4]), corners, sizes)
