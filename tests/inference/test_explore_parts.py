"""What the page of nepa3d explore shows, without a browser: map, clicks, completions, pictures, uploads."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import trimesh

from nepa3d.inference.explore.attention import attention
from nepa3d.inference.explore.explorer import most_context, surface
from nepa3d.inference.explore.latest import Latest
from nepa3d.inference.explore.pictures import AXES, TURNS, enlarge, field_picture, plane_points, weight_colors
from nepa3d.inference.explore.rays import Ray, about_z, hit, into_body, met, nearest_dot, ray, upright
from nepa3d.inference.explore.shape_map import class_colors, project
from nepa3d.inference.explore.subject import Form, form
from nepa3d.inference.explore.uploads import checked_ending, message, plain, require_size, shown_name, without_draco
from nepa3d.models.distances import PredictedField
from nepa3d.models.encoder import Encoder, load
from nepa3d.shapes.cells import cell_centres
from nepa3d.shapes.level_set import level_set
from nepa3d.shapes.shape import Shape
from tests.conftest import GOLDEN
from tests.inference.conftest import write_cloud

BOX = trimesh.creation.box((2, 1, 0.5))


@pytest.fixture(scope="module")
def fitted() -> Encoder:
    encoder = load(GOLDEN / "nepa_qa.pt")
    encoder.fit_distance_head([Shape.from_mesh(BOX, key="box")], ridge_lambda=1.0)
    return encoder


@pytest.fixture(scope="module")
def told(fitted: Encoder) -> PredictedField:
    return fitted.field(Shape.from_mesh(BOX, key="box"), n_context=5, batch=1)


def rotation(wxyz: tuple[float, float, float, float]) -> np.ndarray:
    return trimesh.transformations.quaternion_matrix(wxyz)[:3, :3]


def test_the_map_shows_the_principal_components() -> None:
    vectors = np.random.default_rng(0).standard_normal((20, 6)) * [5, 3, 1, 1, 1, 1]
    centred = vectors - vectors.mean(0)
    _, _, directions = np.linalg.svd(centred, full_matrices=False)
    plain_places = centred @ directions[:2].T
    places = project(vectors)
    assert places.shape == (20, 2) and np.abs(places).max() == pytest.approx(1)
    for axis in range(2):
        assert abs(np.corrcoef(places[:, axis], plain_places[:, axis])[0, 1]) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_map_of_few_shapes(count: int) -> None:
    vectors = np.eye(4)[:count]
    for projection in ("pca", "tsne"):
        places = project(vectors, projection)  # type: ignore[arg-type]
        assert places.shape == (count, 2) and np.isfinite(places).all() and np.abs(places).max() <= 1
    assert (project(np.ones((3, 4))) == 0).all()


def test_what_is_no_map_is_refused() -> None:
    with pytest.raises(ValueError, match="vectors must be finite"):
        project([[np.nan, 0.0]])
    with pytest.raises(ValueError, match="projection must be one of pca, tsne"):
        project(np.eye(3), "umap")  # type: ignore[arg-type]


def test_colors_of_classes() -> None:
    names = [f"class {number:02d}" for number in range(25)]
    found = class_colors(names + names)
    assert list(found) == names and len(set(found.values())) == 25


def test_a_click_finds_the_nearest_dot() -> None:
    places = np.array([[0, 0], [0.5, 0.5]], np.float32)
    down = ray((0.48, 0.5, 3), (0, 0, -2))
    assert down is not None and nearest_dot(down, places) == 1
    beside, up = ray((0.2, 0.2, 3), (0, 0, -1)), ray((0, 0, 3), (0, 0, 1))
    along = ray((0, 0, 3), (1, 0, 0))
    for other in (beside, up, along):
        assert other is not None and nearest_dot(other, places) is None


@pytest.mark.parametrize("bad", [(np.nan, 0, 0), (1e9, 0, 0), (0, 0), (0, 0, 0), None])
def test_what_a_client_sends_may_be_no_ray(bad: object) -> None:
    assert ray((0, 0, 1), bad) is None  # type: ignore[arg-type]


def test_a_click_on_balls_and_shapes() -> None:
    of = Ray(np.array([0.0, -5, 0]), np.array([0.0, 1, 0]))
    assert met(of, [(0, 2, 0), (0, 0, 0), (3, 0, 0)], 0.5) == 1
    assert met(of, [(0.6, 0, 0), (0, -9, 0)], 0.5) is None
    solid = Form(BOX.vertices.astype(np.float32), np.asarray(BOX.faces, np.int64))
    np.testing.assert_allclose(hit(of, solid), [0, -0.5, 0], atol=1e-6)
    assert hit(Ray(of.origin, -of.direction), solid) is None
    cloud = Form(np.array([[0.01, 1, 0], [0, 0, 0.02], [0, -7, 0]], np.float32), np.empty((0, 3), np.int64))
    np.testing.assert_allclose(hit(of, cloud), [0, 0, 0.02], atol=1e-6)


@pytest.mark.parametrize("up", ["y", "z"])
def test_a_ray_in_the_frame_of_a_turned_shape(up: str) -> None:
    """By the quaternions that the scene is drawn with."""
    place, inside = np.array([1.0, 2, 3]), np.array([0.3, -0.2, 0.5])
    to_scene = rotation(about_z(40)) @ rotation(upright(up))  # type: ignore[arg-type]
    seen = Ray(place + to_scene @ inside, to_scene @ np.array([0.0, 0, 1]))
    origin, direction = into_body(seen, tuple(place), 40, up)  # type: ignore[arg-type]
    np.testing.assert_allclose(origin, inside, atol=1e-9)
    np.testing.assert_allclose(direction, [0, 0, 1], atol=1e-9)
    vertical = [0, 1, 0] if up == "y" else [0, 0, 1]
    np.testing.assert_allclose(rotation(upright(up)) @ vertical, [0, 0, 1], atol=1e-9)  # type: ignore[arg-type]


@pytest.mark.parametrize("axis", AXES)
def test_a_picture_lies_where_its_points_are(axis: str) -> None:
    """viser draws columns along x and rows along y of a picture's own frame."""
    side, at = 4, 0.3
    points = plane_points(axis, at, side).reshape(side, side, 3)  # type: ignore[arg-type]
    centres = (np.arange(side) + 0.5) * 2 / side - 1
    x, y = np.meshgrid(centres, centres)
    drawn = np.stack([x, y, np.zeros_like(x)], -1) @ rotation(TURNS[axis]).T  # type: ignore[index]
    drawn[..., AXES.index(axis)] += at  # type: ignore[arg-type]
    np.testing.assert_allclose(points, drawn, atol=1e-6)


def test_colors_of_fields_and_weights() -> None:
    picture = field_picture(np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8))
    assert picture.shape == (8, 8, 4) and (picture[0, 0, :3] == 255).all()
    assert (picture[-1, -1, :3] != picture[3, 3, :3]).any()
    red = weight_colors(np.array([0, 0.01, 0.5], np.float32)).astype(int)
    assert red[2, 0] - red[2, 2] > red[1, 0] - red[1, 2] > red[0, 0] - red[0, 2]
    assert (weight_colors(np.zeros(2, np.float32)) == red[0]).all()


def test_a_larger_picture_of_a_plane_is_that_plane() -> None:
    across = plane_points("z", 0.0, 8) @ np.array([1, 2, 0], np.float32)
    wanted = plane_points("z", 0.0, 24) @ np.array([1, 2, 0], np.float32)
    inside = slice(2, -2)
    found = enlarge(across.reshape(8, 8), 24)
    np.testing.assert_allclose(found[inside, inside], wanted.reshape(24, 24)[inside, inside], atol=1e-5)


def test_no_more_context_than_a_model_takes(fitted: Encoder) -> None:
    most = most_context(fitted)
    assert most > 5
    assert fitted.field(Shape.from_mesh(BOX, key="box"), n_context=most).context.shape == (most, 4)


class Sphere(PredictedField):
    """A prediction that is right, of a sphere."""

    asked = 0

    def distances(self, points: np.ndarray, bar: object = None) -> np.ndarray:
        type(self).asked += len(points)
        return np.abs(np.linalg.norm(points, axis=1) - 0.6).astype(np.float32)


@pytest.mark.parametrize("resolution", [32, 9])
def test_the_surface_is_that_of_a_grid_which_is_asked_near_it_only(told: PredictedField, resolution: int) -> None:
    sphere = Sphere(told.probe, told.weights, told.answers, told.rows, told.settings, 1)
    Sphere.asked = 0
    found = surface(sphere, resolution)
    assert (Sphere.asked < 0.7 * resolution**3) == (resolution == 32)
    exact = np.abs(np.linalg.norm(cell_centres(resolution), axis=1) - 0.6).astype(np.float32)
    whole = level_set(exact.reshape(3 * (resolution,)), 2 / resolution)
    assert found is not None and whole is not None
    np.testing.assert_array_equal(found.vertices, whole.vertices)
    np.testing.assert_array_equal(found.faces, whole.faces)


def test_attention_is_all_of_a_question(told: PredictedField) -> None:
    found = attention(told, np.array([0.1, 0.2, 0.3], np.float32))
    assert found.weights.shape == (told.probe.model.layers, 5)
    assert (found.weights >= 0).all() and (found.elsewhere > 0).all()
    np.testing.assert_allclose(found.weights.sum(1) + found.elsewhere, 1, atol=1e-5)
    context = told.context[:, :3]
    order = np.lexsort(found.points.T), np.lexsort(context.T)
    np.testing.assert_allclose(found.points[order[0]], context[order[1]], atol=1e-6)
    assert found.mean().shape == (5,)


def test_forms_of_files(made_shapes: Path, tmp_path: Path) -> None:
    mesh = form(made_shapes / "box" / "b0.obj")
    assert len(mesh.faces) == 12 and mesh.drawn_as_mesh
    assert np.abs(mesh.true_distance(mesh.points(50))).max() < 1e-5
    for name in ("ball/scan.ply", "ball/stool.npz"):
        cloud = form(made_shapes / name)
        assert len(cloud.faces) == 0 and not cloud.drawn_as_mesh
        assert (cloud.true_distance(cloud.vertices[:9]) == 0).all()
        assert 0 < len(cloud.points(100)) <= 100
    with pytest.raises(ValueError, match="empty_file"):
        (tmp_path / "none.obj").touch()
        form(tmp_path / "none.obj")


def test_what_may_be_uploaded() -> None:
    assert checked_ending("Chair.OBJ", b"v", 10) == "obj"
    assert checked_ending("../../etc/scan.ply", b"v", 10) == "ply"
    for name, content, fault in (
        ("chair.obj", b"", "is empty"),
        ("chair.obj", b"v" * 11, "at most"),
        ("chair.py", b"v", "ends in"),
        ("chair", b"v", "ends in"),
        ("obj", b"v", "ends in"),
        ("chair.obj/../x.so", b"v", "ends in"),
    ):
        with pytest.raises(ValueError, match=fault):
            checked_ending(name, content, 10)
    with pytest.raises(ValueError, match=r"2\.0 MB, at most 1 MB"):
        require_size("x.obj", 2 << 20, 1 << 20)


@pytest.mark.parametrize("name", ["<img src=x onerror=alert(1)>.obj", "a/b\\[c](d).obj", "x" * 500, "\0\n", "`a`"])
def test_names_become_text(name: str) -> None:
    shown = shown_name(name)
    assert 0 < len(shown) <= 60 and not set(shown) & set("<>[]`\\\n\0*_#&") - {"_"}
    assert plain("a<b>/c_d.e (1)") == "a-b-/c_d.e (1)"
    assert not set(message(f"{name}: <b>bad</b>\n")) & set("<>[]`\\\n\0&")


def test_draco_is_left_out_of_what_is_uploaded() -> None:
    before = sys.modules.get("DracoPy")
    with without_draco(), pytest.raises(ImportError):
        import DracoPy  # noqa: F401
    assert sys.modules.get("DracoPy") is before


def test_only_the_last_request_is_done() -> None:
    gate, done, refused = threading.Event(), [], []
    work = Latest(refused.append)
    work.ask("first", lambda: gate.wait(60) and done.append("first"))
    for number in range(5):
        work.ask("slider", lambda number=number: done.append(number))

    def bad() -> None:
        raise ValueError("not that")

    finished = threading.Event()
    work.ask("bad", bad)
    work.ask("last", finished.set)
    gate.set()
    assert finished.wait(60)
    work.close()
    assert done == ["first", 4] and refused == ["not that"]


def test_a_cloud_is_completed_too(fitted: Encoder, tmp_path: Path) -> None:
    points = BOX.sample(300, seed=0)
    write_cloud(tmp_path / "scan.ply", points)
    told = fitted.field(Shape.from_cloud(points, key="scan"), n_context=3)
    assert np.isfinite(told.distances(cell_centres(2))).all()
