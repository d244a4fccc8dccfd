"""Every compiled op against its plain twin, cases worked by hand, and the recorded data."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nepa3d import ops
from nepa3d.ops import reference
from tests.conftest import GOLDEN

THREADS = (1, 3)


@pytest.fixture(scope="module")
def recorded() -> dict[str, np.ndarray]:
    with np.load(GOLDEN / "ops.npz") as arrays:
        return dict(arrays)


def cloud(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (count, 3)).astype(np.float32)


def icosphere(subdivisions: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """A closed mesh with every vertex on the unit sphere."""
    golden_ratio = (1 + 5**0.5) / 2
    corners = [(0, s, t * golden_ratio) for s in (-1, 1) for t in (-1, 1)]
    vertices = np.array([np.roll(c, k) for k in range(3) for c in corners], float)
    length = np.linalg.norm(vertices[:, None] - vertices[None], axis=-1)
    near = np.abs(length - 2) < 1e-6
    faces = [
        (a, b, c)
        for a in range(12)
        for b in range(a + 1, 12)
        for c in range(b + 1, 12)
        if near[a, b] and near[b, c] and near[a, c]
    ]
    vertices = vertices / np.linalg.norm(vertices, axis=1, keepdims=True)
    for _ in range(subdivisions):
        points, middles, finer = list(vertices), {}, []
        for a, b, c in faces:
            for edge in ((a, b), (b, c), (c, a)):
                key = tuple(sorted(edge))
                if key not in middles:
                    middle = points[edge[0]] + points[edge[1]]
                    middles[key] = len(points)
                    points.append(middle / np.linalg.norm(middle))
            ab, bc, ca = (middles[tuple(sorted(e))] for e in ((a, b), (b, c), (c, a)))
            finer += [(a, ab, ca), (b, bc, ab), (c, ca, bc), (ab, bc, ca)]
        vertices, faces = np.array(points), finer
    return vertices.astype(np.float32), np.array(faces, np.int64)


def soup(count: int, seed: int = 0, size: float = 0.3) -> tuple[np.ndarray, np.ndarray]:
    """Random triangles: overlapping, open, of any winding."""
    rng = np.random.default_rng(seed)
    corners = rng.uniform(-1, 1, (count, 1, 3)) + size * rng.normal(size=(count, 3, 3))
    return corners.reshape(-1, 3).astype(np.float32), np.arange(3 * count).reshape(-1, 3)


class TestNearestDistance:
    @pytest.mark.parametrize("count", [1, 7, 8, 9, 100, 3000])
    @pytest.mark.parametrize("threads", THREADS)
    def test_agrees_with_the_twin(self, count: int, threads: int) -> None:
        points, queries = cloud(count), 1.5 * cloud(500, 1)
        distance, index = ops.nearest_distance(points, queries, threads=threads)
        expected = reference.nearest_distance(points, queries).distance
        np.testing.assert_allclose(distance, expected, rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(np.linalg.norm(points[index] - queries, axis=1), expected, rtol=1e-6, atol=1e-7)

    def test_ties_take_the_lowest_index(self) -> None:
        points = np.tile(np.float32([[0, 0, 0], [1, 0, 0]]), (50, 1))
        index = ops.nearest_distance(points, np.float32([[0, 0, 0], [0.9, 0, 0], [0.5, 0, 0]])).index
        assert index.tolist() == [0, 1, 0]

    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.tuples(*[st.integers(-3, 3)] * 3), min_size=1, max_size=60), st.integers(0, 5))
    def test_lattice_points_agree_exactly(self, points: list[tuple[int, int, int]], seed: int) -> None:
        queries = np.random.default_rng(seed).integers(-4, 5, (20, 3)).astype(np.float32)
        found = ops.nearest_distance(np.float32(points), queries)
        expected = reference.nearest_distance(np.float32(points), queries)
        np.testing.assert_array_equal(found[0], expected[0])
        np.testing.assert_array_equal(found[1], expected[1])

    def test_no_queries(self) -> None:
        distance, index = ops.nearest_distance(cloud(5), np.empty((0, 3), np.float32))
        assert distance.shape == index.shape == (0,)

    @pytest.mark.parametrize(
        ("points", "queries", "message"),
        [
            (np.zeros((0, 3)), np.zeros((1, 3)), "points must not be empty"),
            (np.zeros((5, 2)), np.zeros((1, 3)), r"points must have shape \(N, 3\), got \(5, 2\)"),
            (np.zeros((5, 3)), np.zeros(3), r"queries must have shape \(M, 3\), got \(3,\)"),
            (np.zeros((5, 3)), np.full((2, 3), np.nan), "queries must be finite, row 0 is not"),
        ],
    )
    def test_bad_input_names_the_argument(self, points: np.ndarray, queries: np.ndarray, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            ops.nearest_distance(points, queries)


class TestCastRays:
    @pytest.mark.parametrize("mesh", [icosphere(1), soup(200), soup(1), soup(50, 3, 1e-3)])
    @pytest.mark.parametrize("threads", THREADS)
    def test_agrees_with_the_twin(self, mesh: tuple[np.ndarray, np.ndarray], threads: int) -> None:
        origins, directions = 2 * cloud(800, 1), cloud(800, 2)
        t, face, barycentric = ops.cast_rays(*mesh, origins, directions, threads=threads)
        expected_t, expected_face, _ = reference.cast_rays(*mesh, origins, directions)
        np.testing.assert_array_equal(face >= 0, expected_face >= 0)
        np.testing.assert_allclose(t, expected_t, rtol=2e-5, atol=1e-5)
        hit = face >= 0
        corners = mesh[0][mesh[1][face[hit]]]
        place = (barycentric[hit][:, :, None] * corners).sum(1)
        np.testing.assert_allclose(place, (origins + np.where(hit, t, 0)[:, None] * directions)[hit], atol=2e-5)
        assert np.isinf(t[~hit]).all()

    def test_hand_worked(self) -> None:
        square = np.float32([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]])
        faces = [[0, 1, 2], [0, 2, 3]]
        origins = [[0.75, 0.25, 2], [0.25, 0.75, -3], [2, 2, 1], [0.5, 0.25, 1], [0.1, 0.1, 0]]
        directions = [[0, 0, -1], [0, 0, 2], [0, 0, -1], [0, 0, 0], [0, 0, 1]]
        t, face, _ = ops.cast_rays(square, faces, origins, directions)
        assert t.tolist() == [2, 1.5, np.inf, np.inf, 0]
        assert face[:4].tolist() == [0, 1, -1, -1]

    def test_equal_hits_take_the_lowest_face(self) -> None:
        vertices = np.float32([[0, 0, 0], [1, 0, 0], [0, 1, 0]] * 9)
        faces = np.arange(27).reshape(9, 3)
        face = ops.cast_rays(vertices, faces, [[0.2, 0.2, 1]], [[0, 0, -1]]).face
        assert face.tolist() == [0]

    def test_a_closed_mesh_has_no_leaks(self) -> None:
        """Rays from inside, many of them aimed at vertices and at points on edges."""
        vertices, faces = icosphere(2)
        rng = np.random.default_rng(0)
        edges = (vertices[faces[:, 0]] + vertices[faces[:, 1]]) / 2
        targets = np.concatenate([vertices, edges, rng.normal(size=(100_000, 3)).astype(np.float32)])
        origins = np.float32(0.5) * cloud(len(targets), 5)
        face = ops.cast_rays(vertices, faces, origins, targets - origins, threads=2).face
        assert (face >= 0).all()

    @pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
    def test_scale_does_not_matter(self, scale: float) -> None:
        vertices, faces = icosphere(2)
        directions = cloud(2000, 3)
        t, face, _ = ops.cast_rays(vertices * np.float32(scale), faces, np.zeros_like(directions), directions)
        assert (face >= 0).all()
        radius = t * np.linalg.norm(directions, axis=1) / scale
        assert radius.min() > 0.9
        assert radius.max() < 1.001

    def test_tiny_directions_are_directions(self) -> None:
        vertices, faces = icosphere(0)
        t, face, _ = ops.cast_rays(vertices, faces, [[0, 0, 0]], [[0, 1e-30, 1e-30]])
        assert face[0] >= 0
        assert 0.7e30 < t[0] * 2**0.5 < 1.1e30

    def test_faces_must_be_integers(self) -> None:
        with pytest.raises(ValueError, match="faces must be integers, got float64"):
            ops.cast_rays(np.eye(3), [[0.0, 1.0, 2.0]], [[0, 0, 0]], [[0, 0, 1]])

    def test_index_out_of_range(self) -> None:
        with pytest.raises(ValueError, match="faces must index 3 vertices, got index 3"):
            ops.cast_rays(np.eye(3), [[0, 1, 3]], [[0, 0, 0]], [[0, 0, 1]])

    def test_coordinates_near_the_end_of_float32_do_no_harm(self) -> None:
        vertices, faces = soup(300)
        vertices *= np.float32(3e38 / np.abs(vertices).max())
        bvh = ops.TriangleBvh(vertices, faces)
        face = bvh.cast_rays(cloud(50), cloud(50, 1)).face
        assert ((face >= -1) & (face < 300)).all()
        face = bvh.closest_point(cloud(50)).face
        assert ((face >= 0) & (face < 300)).all()

    def test_a_thousand_triangles_in_one_place(self) -> None:
        vertices, faces = soup(1)
        t, face, _ = ops.cast_rays(
            vertices, np.repeat(faces, 1000, 0), vertices.mean(0, keepdims=True) + 1, -np.ones((1, 3))
        )
        assert face.tolist() == [0]
        assert np.isfinite(t).all()


class TestClosestPoint:
    @pytest.mark.parametrize("mesh", [icosphere(1), soup(200), soup(1), soup(50, 3, 1e-4)])
    @pytest.mark.parametrize("threads", THREADS)
    def test_agrees_with_the_twin(self, mesh: tuple[np.ndarray, np.ndarray], threads: int) -> None:
        queries = 1.5 * cloud(500, 1)
        distance, face, point = ops.closest_point(*mesh, queries, threads=threads)
        expected = reference.closest_point(*mesh, queries).distance
        np.testing.assert_allclose(distance, expected, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(np.linalg.norm(point - queries, axis=1), distance, rtol=1e-5, atol=1e-6)
        on_its_face = reference.closest_point(mesh[0], mesh[1][face[:20]], point[:20]).distance
        assert on_its_face.max() < 1e-5

    def test_slivers_are_never_too_near(self) -> None:
        rng = np.random.default_rng(0)
        start, along = rng.uniform(-1, 1, (200, 1, 3)), rng.uniform(-1, 1, (200, 1, 3))
        corners = start + along * rng.uniform(0, 1, (200, 3, 1)) + 1e-7 * rng.normal(size=(200, 3, 3))
        vertices, faces = corners.reshape(-1, 3).astype(np.float32), np.arange(600).reshape(-1, 3)
        queries = cloud(300, 4)
        distance = ops.closest_point(vertices, faces, queries).distance
        expected = reference.closest_point(vertices, faces, queries).distance
        np.testing.assert_allclose(distance, expected, rtol=1e-5, atol=2e-6)

    def test_degenerate_faces_count_as_points_and_segments(self) -> None:
        vertices = np.float32([[0, 0, 0], [1, 0, 0]])
        distance = ops.closest_point(vertices, [[0, 0, 0], [0, 1, 1]], [[-1, 0, 0], [0.5, 2, 0]]).distance
        assert distance.tolist() == [1, 2]

    def test_the_inside_of_a_needle_is_found(self) -> None:
        vertices = [(-0.2908927, -0.8488351, -0.39443377), (-0.2908927, 0.8533622, 0.36421567)]
        vertices = np.array([*vertices, (-0.2908927, 0.8552115, 0.36292645)], np.float32)
        query = np.array([[-0.2908927, -0.00529239, -0.01916137]], np.float32)
        distance, _, point = ops.closest_point(vertices, [[0, 1, 2]], query)
        expected = reference.closest_point(vertices, np.array([[0, 1, 2]]), query).distance
        np.testing.assert_allclose(distance, expected, atol=1e-7)
        np.testing.assert_allclose(point, query, atol=1e-7)

    def test_samples_of_needles_lie_on_them(self) -> None:
        vertices, faces = soup(300, 7)
        vertices[faces[:, 2]] = vertices[faces[:, 1]] + np.float32(1e-4) * cloud(300, 8)
        points = ops.sample_surface(vertices, faces, np.random.default_rng(0).random((20_000, 3), np.float32)).point
        distance = ops.closest_point(vertices, faces, points).distance
        assert distance.max() < 5e-7


class TestSampleSurface:
    def test_agrees_with_the_twin(self) -> None:
        vertices, faces = soup(100)
        uniforms = np.random.default_rng(0).random((2000, 3), np.float32)
        found, expected = (op.sample_surface(vertices, faces, uniforms) for op in (ops, reference))
        np.testing.assert_array_equal(found[2], expected[2])
        np.testing.assert_allclose(found[0], expected[0], atol=1e-6)
        np.testing.assert_allclose(found[1], expected[1], atol=1e-6)

    def test_faces_are_drawn_by_area(self) -> None:
        vertices = np.float32([[0, 0, 0], [1, 0, 0], [0, 1, 0], [3, 0, 0], [0, 1, 0]])
        faces = [[0, 1, 2], [0, 0, 0], [0, 3, 4]]  # areas 1/2, 0, 3/2
        uniforms = np.random.default_rng(1).random((20_000, 3), np.float32)
        _, normal, face = ops.sample_surface(vertices, faces, uniforms)
        assert abs((face == 2).mean() - 0.75) < 0.015
        assert not (face == 1).any()
        np.testing.assert_array_equal(normal, np.tile(np.float32([0, 0, 1]), (20_000, 1)))

    def test_largest_uniform_stays_on_the_surface(self) -> None:
        vertices = np.float32([[0, 0, 0], [1, 0, 0], [0, 1, 0]])
        _, normal, face = ops.sample_surface(vertices, [[0, 1, 2], [1, 1, 1]], np.ones((1, 3), np.float32))
        assert face.tolist() == [0]
        assert np.isfinite(normal).all()

    def test_no_area(self) -> None:
        with pytest.raises(ValueError, match="positive total area"):
            ops.sample_surface(np.zeros((3, 3)), [[0, 1, 2]], np.zeros((1, 3)))

    def test_uniforms_outside(self) -> None:
        with pytest.raises(ValueError, match="uniforms must lie in"):
            ops.sample_surface(np.eye(3), [[0, 1, 2]], [[0.5, 0.5, 1.5]])


class TestVoxels:
    @pytest.mark.parametrize(("grid", "dilate"), [(1, 0), (5, 0), (16, 1), (33, 3)])
    def test_voxelize_agrees_with_the_twin(self, grid: int, dilate: int) -> None:
        points = 1.2 * cloud(200)
        np.testing.assert_array_equal(
            ops.voxelize(points, grid, dilate), reference.voxelize(points.astype(np.float32), grid, dilate)
        )

    @pytest.mark.parametrize("name", ["16_0", "32_1", "64_2"])
    def test_recorded(self, recorded: dict[str, np.ndarray], name: str) -> None:
        grid, dilate = map(int, name.split("_"))
        occupancy = ops.voxelize(recorded["pc"], grid, dilate)
        np.testing.assert_array_equal(np.packbits(occupancy), recorded[f"occ_{name}"])
        distance = ops.distance_transform(occupancy, 2 / grid)
        every = 4 if grid == 64 else 1
        np.testing.assert_allclose(distance[::every, ::every, ::every], recorded[f"udf_{name}"], atol=1e-6)
        np.testing.assert_allclose(ops.trilinear_sample(distance, recorded["xyz"]), recorded[f"tri_{name}"], atol=1e-5)
        origins, directions = recorded[f"dda_o_{name}"], recorded[f"dda_d_{name}"]
        hit, t = ops.voxel_first_hit(occupancy, origins, directions)
        np.testing.assert_array_equal(hit, recorded[f"dda_hit_{name}"] > 0)
        np.testing.assert_allclose(t, recorded[f"dda_t_{name}"], atol=1e-5)
        nearest = ops.nearest_distance(recorded["pc"], origins + t[:, None] * directions).index
        normal = np.where(hit[:, None], recorded["pc_n"][nearest], 0)
        np.testing.assert_allclose(normal, recorded[f"dda_n_{name}"], atol=1e-5)

    @pytest.mark.parametrize("threads", THREADS)
    @pytest.mark.parametrize(("grid", "count", "max_steps"), [(1, 1, 0), (8, 20, 0), (32, 300, 0), (32, 300, 10)])
    def test_walk_agrees_with_the_twin(self, grid: int, count: int, max_steps: int, threads: int) -> None:
        occupancy = ops.voxelize(cloud(count), grid)
        origins, directions = 2 * cloud(400, 1), cloud(400, 2)
        directions[::7, 0] = 0
        directions[::11, 1:] = 0
        directions[5] = 0
        origins[::13] = np.round(origins[::13] * grid / 2) * 2 / grid
        found = ops.voxel_first_hit(occupancy, origins, directions, max_steps, threads=threads)
        expected = reference.voxel_first_hit(occupancy, origins, directions, max_steps)
        np.testing.assert_array_equal(found[0], expected[0])
        np.testing.assert_array_equal(found[1], expected[1])

    def test_walk_by_hand(self) -> None:
        occupancy = np.zeros((4, 4, 4), np.uint8)
        occupancy[3, 0, 0] = 1
        hit, t = ops.voxel_first_hit(occupancy, [[-2, -0.75, -0.75], [0.75, -0.75, -0.75]], [[1, 0, 0], [0, 0, 1]])
        assert hit.tolist() == [True, True]
        assert t.tolist() == [2.5, 0.0]

    def test_ties_step_z_before_y_before_x(self) -> None:
        """Along the diagonal all boundaries tie: the walk goes through (0,0,1), then (0,1,1), then (1,1,1)."""
        for cell, expected in (((0, 0, 1), True), ((0, 1, 1), True), ((1, 0, 0), False), ((0, 1, 0), False)):
            occupancy = np.zeros((2, 2, 2), np.uint8)
            occupancy[cell] = 1
            hit = ops.voxel_first_hit(occupancy, [[-1, -1, -1]], [[1, 1, 1]]).hit
            assert hit.tolist() == [expected]


class TestDistanceTransform:
    @pytest.mark.parametrize("shape", [(1, 1, 1), (7, 7, 7), (12, 5, 9), (1, 20, 3)])
    @pytest.mark.parametrize("spacing", [1.0, 0.03125, (0.5, 1.25, 2.0)])
    @pytest.mark.parametrize("threads", THREADS)
    def test_agrees_with_the_twin(
        self, shape: tuple[int, int, int], spacing: float | tuple[float, float, float], threads: int
    ) -> None:
        occupancy = (np.random.default_rng(3).random(shape) < 0.06).astype(np.uint8)
        occupancy[0, 0, 0] = 1
        found = ops.distance_transform(occupancy, spacing, threads=threads)
        np.testing.assert_allclose(found, reference.distance_transform(occupancy, spacing), rtol=1e-6)

    def test_nothing_occupied(self) -> None:
        assert np.isinf(ops.distance_transform(np.zeros((3, 3, 3), np.uint8))).all()

    def test_bad_spacing(self) -> None:
        with pytest.raises(ValueError, match="spacing must be positive"):
            ops.distance_transform(np.zeros((3, 3, 3), np.uint8), -1.0)
        for spacing in ((1.0, 2.0), "wide", None):
            with pytest.raises(ValueError, match="spacing must be a number or three"):
                ops.distance_transform(np.zeros((3, 3, 3), np.uint8), spacing)

    def test_spacing_of_any_number_type(self) -> None:
        occupancy = (np.random.default_rng(1).random((5, 5, 5)) < 0.1).astype(np.uint8)
        expected = ops.distance_transform(occupancy, 0.5)
        for spacing in (np.float32(0.5), np.array(0.5), [0.5, 0.5, 0.5]):
            np.testing.assert_array_equal(ops.distance_transform(occupancy, spacing), expected)

    @pytest.mark.parametrize("kind", [bool, np.int64, np.uint16, np.float16, np.float64])
    def test_a_cell_that_is_not_zero_is_occupied(self, kind: type) -> None:
        occupancy = (np.random.default_rng(1).random((6, 6, 6)) < 0.1).astype(np.uint8)
        value = {np.int64: 256, np.uint16: 512, np.float16: 0.4, np.float64: -0.4}.get(kind, 1)
        cells = np.where(occupancy, np.array(value, kind), np.array(0, kind))
        np.testing.assert_array_equal(ops.distance_transform(cells), ops.distance_transform(occupancy))
        rays = np.random.default_rng(2).uniform(-1, 1, (2, 50, 3)).astype(np.float32)
        for found, expected in zip(
            ops.voxel_first_hit(cells, *rays), ops.voxel_first_hit(occupancy, *rays), strict=True
        ):
            np.testing.assert_array_equal(found, expected)

    def test_occupancy_is_numbers(self) -> None:
        with pytest.raises(ValueError, match="occupancy must be truth values or numbers, got <U1"):
            ops.distance_transform(np.full((2, 2, 2), "x"))


@pytest.mark.parametrize("kind", [np.complex64, "<U3", object])
def test_what_is_no_real_number_is_refused(kind: type) -> None:
    points = np.ones((4, 3)).astype(kind)
    for call in (lambda: ops.KdTree(points), lambda: ops.voxelize(points, 4), lambda: ops.morton_code(points)):
        with pytest.raises(ValueError, match=r"(points|xyz) must be real numbers, got"):
            call()


def test_sizes_are_whole_numbers() -> None:
    points = np.zeros((1, 3))
    np.testing.assert_array_equal(ops.voxelize(points, np.int16(4)), ops.voxelize(points, 4))
    for sizes in ({"grid": 4.0}, {"grid": "4"}, {"grid": 4, "dilate": 0.5}):
        with pytest.raises(ValueError, match=r"(grid|dilate) must be a whole number, got"):
            ops.voxelize(points, **sizes)
    with pytest.raises(ValueError, match=r"max_steps must be a whole number, got 2\.5"):
        ops.voxel_first_hit(np.ones((2, 2, 2)), points, points + 1, 2.5)


class TestToHalf:
    def test_agrees_with_the_twin_on_every_kind_of_number(self) -> None:
        bits = np.random.default_rng(0).integers(0, 1 << 32, 200_000, np.uint32)
        ties = (np.arange(1 << 16, dtype=np.uint32) << 13) + 0x38000000  # halfway between float16 numbers, and beyond
        values = np.concatenate([bits, ties, ties | 0x80000000, ties + 0x1000]).view(np.float32)
        np.testing.assert_array_equal(ops.to_half(values), reference.to_half(values))
        every = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
        with np.errstate(invalid="ignore"):  # signalling NaN
            same = every.astype(np.float32)
        np.testing.assert_array_equal(ops.to_half(same), every)

    def test_keeps_the_shape(self) -> None:
        assert ops.to_half(np.zeros((2, 3, 4), np.float32)).shape == (2, 3, 4)
        assert ops.to_half(np.zeros(0, np.float32)).dtype == np.float16


class TestTrilinearSample:
    def test_agrees_with_the_twin(self) -> None:
        grid = np.random.default_rng(0).random((9, 9, 9), np.float32)
        points = 1.3 * cloud(1000)
        np.testing.assert_allclose(
            ops.trilinear_sample(grid, points), reference.trilinear_sample(grid, points), atol=1e-6
        )

    def test_reproduces_a_linear_field(self) -> None:
        centre = (np.arange(8) + 0.5) / 4 - 1
        grid = centre[:, None, None] + 2 * centre[None, :, None] - 3 * centre[None, None, :]
        points = 0.8 * cloud(200)
        np.testing.assert_allclose(ops.trilinear_sample(grid, points), points @ np.float32([1, 2, -3]), atol=1e-5)

    def test_bad_shape(self) -> None:
        with pytest.raises(ValueError, match="grid must be between 1 and 2048, got 2097152"):
            ops.voxelize(cloud(3), 1 << 21)
        with pytest.raises(ValueError, match=r"grid must have shape \(G, G, G\), got \(2, 3, 2\)"):
            ops.trilinear_sample(np.zeros((2, 3, 2)), np.zeros((1, 3)))


class TestOrders:
    def test_recorded(self, recorded: dict[str, np.ndarray]) -> None:
        np.testing.assert_array_equal(ops.morton_code(recorded["xyz"]), recorded["morton"])
        np.testing.assert_array_equal(ops.ray_direction_order(recorded["dirs"]), recorded["dir_order"])

    @pytest.mark.parametrize("count", [0, 1, 2, 5000])
    def test_agree_with_the_twins(self, count: int) -> None:
        points = 1.1 * cloud(count)
        np.testing.assert_array_equal(ops.morton_code(points), reference.morton_code(points))
        np.testing.assert_array_equal(ops.morton_order(points), reference.morton_order(points))
        directions = points / np.maximum(np.linalg.norm(points, axis=1, keepdims=True), 1e-9)
        np.testing.assert_array_equal(ops.ray_direction_order(directions), reference.ray_direction_order(directions))

    def test_morton_order_is_stable(self) -> None:
        points = np.repeat(cloud(10), 30, axis=0)
        np.testing.assert_array_equal(ops.morton_order(points), reference.morton_order(points))

    def test_rays_along_axes_count_zeros_with_their_signs(self) -> None:
        steps = np.float32([-1, -0.5, -0.0, 0, 0.5, 1])
        lattice = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), -1).reshape(-1, 3)
        np.testing.assert_array_equal(ops.ray_direction_order(lattice), reference.ray_direction_order(lattice))
        behind = np.float32([[-1, 0.0, 0], [-1, -0.0, 0]])  # azimuths pi and -pi
        assert ops.ray_direction_order(behind).tolist() == [1, 0]

    def test_many_rays(self) -> None:
        """Angles are those of the C library, rounded to float32, for all of 300,000 directions."""
        directions = cloud(300_000, 11)
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        np.testing.assert_array_equal(ops.ray_direction_order(directions), reference.ray_direction_order(directions))

    def test_morton_bits(self) -> None:
        assert ops.morton_code([[-1, -1, -1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]).tolist() == [
            0, 0x09249249, 0x12492492, 0x24924924,
        ]  # fmt: skip


FAR = np.array([500_000.0, 4_649_776.25, 0.3])  # a place of UTM


class TestFarFromZero:
    """In float64 a mesh is as exact anywhere as around zero."""

    mesh = icosphere(2)

    def test_distances_and_indices(self) -> None:
        points, queries = cloud(300).astype(float), cloud(100, 1).astype(float)
        expected, expected_index = ops.nearest_distance(points, queries)
        for at in (FAR, -FAR, 1e9 * np.ones(3)):
            distance, index = ops.nearest_distance(points + at, queries + at)
            np.testing.assert_allclose(distance, expected, atol=3e-7)
            np.testing.assert_array_equal(index, expected_index)
            assert distance.dtype == np.float32
        tree = ops.KdTree(points + FAR)
        np.testing.assert_allclose(tree.query(queries + FAR)[0], expected, atol=3e-7)
        assert len(tree) == 300

    @pytest.mark.parametrize("scale", [1.0, 1e-3, 300.0])
    def test_closest_points(self, scale: float) -> None:
        """M24: the mesh and its queries are moved, the distances stay."""
        vertices, faces = scale * self.mesh[0].astype(float), self.mesh[1]
        queries = scale * cloud(100, 1).astype(float)
        expected, _, expected_point = ops.reference.closest_point(vertices, faces, queries)
        distance, _, point = ops.closest_point(vertices + FAR, faces, queries + FAR)
        assert point.dtype == expected_point.dtype == np.float64 and distance.dtype == np.float32
        np.testing.assert_allclose(distance, expected, atol=1e-6 * scale)
        np.testing.assert_allclose(np.linalg.norm(point - FAR - queries, axis=1), distance, atol=1e-6 * scale + 2e-9)
        twin = ops.reference.closest_point(vertices + FAR, faces, queries + FAR).distance
        np.testing.assert_allclose(distance, twin, atol=1e-6 * scale + 2e-9)

    def test_rays(self) -> None:
        vertices, faces = self.mesh[0].astype(float), self.mesh[1]
        origins, directions = cloud(200, 1).astype(float), cloud(200, 2)
        t, face, barycentric = ops.cast_rays(vertices, faces, origins, directions)
        far_t, far_face, far_barycentric = ops.cast_rays(vertices + FAR, faces, origins + FAR, directions)
        assert np.isfinite(t).sum() > 50
        np.testing.assert_array_equal(far_face, face)
        np.testing.assert_allclose(far_t, t, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(far_barycentric, barycentric, atol=1e-4)

    def test_samples(self) -> None:
        vertices, faces = self.mesh[0].astype(float), self.mesh[1]
        uniforms = np.random.default_rng(0).random((500, 3))
        points, normals, face = ops.sample_surface(vertices, faces, uniforms)
        far, far_normals, far_face = ops.sample_surface(vertices + FAR, faces, uniforms)
        twin = ops.reference.sample_surface(vertices + FAR, faces, uniforms).point
        assert points.dtype == far.dtype == twin.dtype == np.float64
        assert (far_face == face).mean() > 0.99  # areas are equal up to rounding
        same = far_face == face
        np.testing.assert_allclose((far - FAR)[same], points[same], atol=1e-6)
        np.testing.assert_allclose(far_normals[same], normals[same], atol=1e-5)
        assert np.abs(ops.closest_point(vertices + FAR, faces, far).distance).max() < 1e-6

    def test_integers_and_wider_floats_are_taken_as_float64(self) -> None:
        corners = np.array([[0, 0, 0], [3, 0, 0], [0, 4, 0]], np.int64) + 400_000_001
        distance, _, point = ops.closest_point(corners, [[0, 1, 2]], corners[:1] + np.array([[0, 0, 2]]))
        assert distance == 2 and point.dtype == np.float64
        np.testing.assert_array_equal(point, corners[:1])
        far = corners.astype(np.longdouble)
        np.testing.assert_array_equal(ops.nearest_distance(far, far + np.array([0, 0, 1])).distance, [1, 1, 1])

    def test_one_point(self) -> None:
        for point in (FAR, np.array([1e-9, 0, 0]), np.array([1e300, 0, 0])):
            assert ops.nearest_distance([point], [point]).distance == 0

    def test_float32_is_taken_as_it_is(self) -> None:
        points, queries = cloud(100) + np.float32(2e5), cloud(30, 1).astype(float) + 2e5
        distance = ops.nearest_distance(points, queries).distance
        np.testing.assert_array_equal(distance, ops.nearest_distance(points, queries.astype(np.float32)).distance)
        vertices = self.mesh[0] + np.float32(2e5)
        assert ops.closest_point(vertices, self.mesh[1], queries).point.dtype == np.float32
        assert ops.sample_surface(vertices, self.mesh[1], np.zeros((1, 3))).point.dtype == np.float32

    def test_around_zero_the_answers_are_those_of_float32(self) -> None:
        points, queries = 1 + cloud(500), cloud(100, 1)
        for found, expected in zip(
            (
                *ops.nearest_distance(points.astype(float), queries),
                *ops.closest_point(points.astype(float), [[0, 1, 2]], queries),
            ),
            (*ops.nearest_distance(points, queries), *ops.closest_point(points, [[0, 1, 2]], queries)),
            strict=True,
        ):
            np.testing.assert_array_equal(found, expected)

    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    def test_what_is_wrong_is_named(self, bad: float) -> None:
        points = cloud(5).astype(float) + FAR
        points[3, 1] = bad
        with pytest.raises(ValueError, match="points must be finite, row 3 is not"):
            ops.nearest_distance(points, points[:1])
        with pytest.raises(ValueError, match="queries must be finite, row 3 is not"):
            ops.nearest_distance(points[:3], points)
        for wrong in (np.zeros((2, 1)), np.zeros(3), np.zeros((2, 2))):
            with pytest.raises(ValueError, match=r"queries must have shape \(M, 3\)"):
                ops.nearest_distance(points[:3], wrong)
            with pytest.raises(ValueError, match=r"vertices must have shape \(V, 3\)"):
                ops.closest_point(wrong, [[0, 1, 2]], points[:3])


class TestFitUnitSphere:
    @pytest.mark.parametrize("scale", [1e-300, 1.0, 1e150])
    @pytest.mark.parametrize("count", [2, 3, 500])
    def test_same_as_the_plain_twin(self, count: int, scale: float) -> None:
        vertices = np.array([1, 4, 0.1]) * scale * (np.array([3, 0, -9]) + cloud(count, count))
        fitted = ops.fit_unit_sphere(vertices)
        for found, expected in zip(fitted, reference.fit_unit_sphere(vertices), strict=True):
            np.testing.assert_array_equal(found, expected)
        back = fitted.vertices.astype(np.float64) * fitted.scale + fitted.centre
        np.testing.assert_allclose(back, vertices, rtol=0, atol=1e-6 * fitted.scale)

    def test_by_hand(self) -> None:
        fitted, centre, scale = ops.fit_unit_sphere([[0, 0, 0], [4, 0, 0], [1, 1, 0]])
        assert centre.tolist() == [2, 0.5, 0] and scale == pytest.approx(4.25**0.5)
        np.testing.assert_allclose(fitted, np.array([[-2, -0.5, 0], [2, -0.5, 0], [-1, 0.5, 0]]) / 4.25**0.5, rtol=1e-6)

    def test_wrong_vertices_are_named(self) -> None:
        for vertices, message in (
            (np.zeros((0, 3)), "must not be empty"),
            ([[0, 0, np.inf]], "must be finite, row 0"),
            ([[0, 0]], r"shape \(V, 3\)"),
        ):
            with pytest.raises(ValueError, match=f"vertices.*{message}"):
                ops.fit_unit_sphere(vertices)
