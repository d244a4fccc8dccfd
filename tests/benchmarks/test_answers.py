"""When answers count as the same, and the inputs and the peers written here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import agreement, inputs, scaling
from benchmarks.cases.ordering import numpy_morton_order
from benchmarks.cases.rays import hit_distance
from nepa3d import ops
from nepa3d.corpora.solids import box
from nepa3d.shapes.mesh import Mesh
from nepa3d.shapes.query_pools import PoolSettings


@pytest.fixture(scope="module")
def boxed() -> inputs.Inputs:
    """Few queries of a box."""
    solid = box((0, 0, 0), (1, 1, 1))
    settings = PoolSettings(pc_points=500, pt_pool=300, ray_pool=200, dist_ref_points=500, df_grid=16)
    mesh = Mesh(solid.vertices.astype(np.float32), np.asarray(solid.faces), {})
    return inputs.inputs_of(inputs.MeshFile("box", Path(), len(solid.faces)), mesh, settings)


def test_nearest_index_may_differ_at_a_tie_only() -> None:
    points = np.array([[-1, 0, 0], [1, 0, 0], [3, 0, 0]], np.float32)
    compare = agreement.same_nearest(points, np.zeros((1, 3), np.float32))
    one = np.ones(1, np.float32)
    assert compare((one, np.array([0])), (one, np.array([1]))) == agreement.Agreement(True, "1 ties")
    assert not compare((one, np.array([0])), (one, np.array([2]))).agree
    assert not compare((one, np.array([0])), (one * 2, np.array([0]))).agree


def test_few_rays_may_differ_and_are_counted() -> None:
    ours = np.array([1.0, np.inf] * 1000)
    theirs = ours.copy()
    assert agreement.same_hits(ours, theirs) == agreement.Agreement(True)
    theirs[0] = np.inf
    assert agreement.same_hits(ours, theirs) == agreement.Agreement(True, "1 of 2000 rays differ")
    theirs[:10] = 2
    assert not agreement.same_hits(ours, theirs).agree


def test_triangles_are_the_same_in_any_order_but_not_turned_over() -> None:
    vertices, faces = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1.0]]), np.array([[0, 1, 2], [1, 1, 3]])
    shuffled = vertices[::-1], 3 - np.array([[1, 3, 1], [1, 2, 0]])
    assert agreement.same_triangles((vertices, faces), shuffled).agree
    assert not agreement.same_triangles((vertices, faces), (vertices, faces[:, ::-1])).agree
    assert not agreement.same_triangles((vertices, faces), (vertices + 1e-12, faces)).agree
    assert not agreement.same_triangles((vertices, faces), (vertices, faces[:1])).agree


def test_samples_agree_by_their_statistics(boxed: inputs.Inputs) -> None:
    mesh = boxed.mesh
    compare = agreement.same_distribution(lambda xyz: ops.closest_point(mesh.vertices, mesh.faces, xyz).distance)
    assert compare(boxed.surface, boxed.reference).agree
    assert not compare(boxed.surface, boxed.reference * np.float32(1.01)).agree
    top = np.flatnonzero(boxed.reference[:, 2] > 0.49)
    assert not compare(boxed.surface, boxed.reference[np.resize(top, 500)]).agree


def test_hit_distance_from_faces(boxed: inputs.Inputs) -> None:
    mesh, rays = boxed.mesh, (boxed.origins, boxed.directions)
    t, face, _ = ops.cast_rays(mesh.vertices, mesh.faces, *rays)
    assert agreement.same_hits(t, hit_distance(mesh.vertices.astype(np.float64), mesh.faces, face, *rays)).agree


def test_numpy_morton_order(boxed: inputs.Inputs) -> None:
    np.testing.assert_array_equal(numpy_morton_order(boxed.queries), ops.reference.morton_order(boxed.queries))


def test_subdivision_keeps_the_surface() -> None:
    solid = box((0, 0, 0), (1, 1, 1))
    vertices, faces = inputs.subdivide(solid.vertices, np.asarray(solid.faces))
    assert len(faces) == 4 * len(solid.faces)
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    cross = np.cross(b - a, c - a)
    assert np.linalg.norm(cross, axis=1).sum() / 2 == pytest.approx(6)
    assert (a * cross).sum() / 6 == pytest.approx(1)  # the volume: faces look outwards


def test_meshes_are_chosen_by_faces_and_subdivision_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "TARGETS", (1_000, 4_000))
    monkeypatch.setattr(inputs, "LARGE", 5_000)
    for cells in (9, 18):  # 972 and 3888 faces
        inputs.write_obj(tmp_path / "corpus" / f"{cells}.obj", *box((0, 0, 0), (1, 1, 1), cells))
    (tmp_path / "corpus" / "damaged.obj").write_text("f 1 2 3\n")
    files = inputs.choose_meshes(tmp_path / "corpus", tmp_path / "work", quick=False)
    assert [(file.name, file.faces) for file in files] == [
        ("1k faces", 972),
        ("4k faces", 3888),
        ("15k faces (subdivided)", 15552),
    ]
    assert len(ops.parse_obj(files[-1].path.read_bytes()).faces) == 15552
    assert inputs.choose_meshes(tmp_path / "corpus", tmp_path / "work", quick=False) == files


def test_fitted_line() -> None:
    sizes = np.array([100.0, 1_000.0, 10_000.0])
    constant, slope = scaling.fit(sizes, 0.5 + 1e-4 * sizes * np.log2(sizes))
    assert (constant, slope) == (pytest.approx(0.5), pytest.approx(1e-4))
    assert scaling.fit(sizes, sizes**-1)[1] == 0


@pytest.mark.parametrize("faces", [100, 1_000, 10_000])
def test_vase_has_about_the_faces_asked_for(faces: int) -> None:
    assert len(scaling.vase(faces).faces) == pytest.approx(faces, rel=0.05)
