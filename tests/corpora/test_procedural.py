"""The built-in procedural corpus and the solids it is made of."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from nepa3d import cli
from nepa3d.corpora.procedural import FAMILIES, obj_bytes, procedural_shape
from nepa3d.corpora.solids import Solid, box, revolve, rod, superellipsoid, tube, volume
from nepa3d.data.procedural import Config, main, write_procedural


def read_obj(data: bytes) -> Solid:
    rows = [line.split() for line in data.decode().splitlines()]
    vertices = np.array([[float(x) for x in row[1:]] for row in rows if row[0] == "v"])
    faces = np.array([[int(i) - 1 for i in row[1:]] for row in rows if row[0] == "f"])
    return Solid(vertices, faces)


def is_closed(solid: Solid) -> bool:
    """Every directed edge once, and its opposite too."""
    edges = solid.faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    listed = {tuple(edge) for edge in edges.tolist()}
    return len(listed) == len(edges) and listed == {(b, a) for a, b in listed}


@pytest.mark.parametrize("name", FAMILIES)
def test_shapes_as_written_are_valid(name: str) -> None:
    for index in range(12):
        solid = read_obj(obj_bytes(procedural_shape(name, index, seed=3)))
        assert np.isfinite(solid.vertices).all()
        assert 200 <= len(solid.faces) <= 6000
        assert set(solid.faces.ravel().tolist()) == set(range(len(solid.vertices)))
        a, b, c = (solid.vertices[solid.faces[:, corner]] for corner in range(3))
        assert np.linalg.norm(np.cross(b - a, c - a), axis=1).min() > 1e-7
        assert is_closed(solid)
        assert volume(solid) > 0
        assert 0.3 < np.ptp(solid.vertices, axis=0).max() < 6


def test_at_least_ten_families_with_distinct_shapes() -> None:
    assert len(FAMILIES) >= 10
    shapes = [obj_bytes(procedural_shape(name, index, 0)) for name in FAMILIES for index in range(3)]
    assert len(set(shapes)) == len(shapes)


def test_bytes_are_fixed_by_seed_class_and_index() -> None:
    data = obj_bytes(procedural_shape("table", 5, 7))
    assert data == obj_bytes(procedural_shape("table", 5, 7))
    assert data != obj_bytes(procedural_shape("table", 5, 8))
    assert data != obj_bytes(procedural_shape("table", 6, 7))
    assert hashlib.sha256(data).hexdigest()[:16] == "a22b5f89b3bf9c54"


def test_more_shapes_leave_the_first_ones_as_they_are(tmp_path: Path) -> None:
    few = write_procedural(Config(tmp_path / "few", per_class=1))
    assert set(few.values()) == {(1, 0)}
    many = write_procedural(Config(tmp_path / "many", per_class=2))
    assert set(many.values()) == {(2, 0)}
    for path in sorted((tmp_path / "few").glob("*/*/models/model_normalized.obj")):
        assert path.read_bytes() == (tmp_path / "many" / path.relative_to(tmp_path / "few")).read_bytes()
    assert len(list((tmp_path / "many").glob("*/*/models/model_normalized.obj"))) == 2 * len(FAMILIES)
    assert (tmp_path / "many" / "gear" / "gear_0001" / "models" / "model_normalized.obj").exists()


def test_command_keeps_its_own_and_refuses_another_seeds_models(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--out_root", str(tmp_path), "--per_class", "1"]
    assert main(flags) == cli.EXIT_OK
    assert main(flags) == cli.EXIT_OK
    assert ["total", "0", str(len(FAMILIES))] in [line.split() for line in capsys.readouterr().out.splitlines()]
    assert main([*flags, "--seed", "1"]) == cli.EXIT_USAGE
    assert "other contents than seed 1" in capsys.readouterr().err
    assert main([*flags, "--seed", "1", "--overwrite"]) == cli.EXIT_OK
    assert main([*flags[:2], "--per_class", "0"]) == cli.EXIT_USAGE


def test_bad_requests_name_the_argument() -> None:
    with pytest.raises(ValueError, match="name: expected one of table"):
        procedural_shape("teapot", 0, 0)
    with pytest.raises(ValueError, match="got -1 and 0"):
        procedural_shape("table", 0, -1)


def test_box_has_the_stated_size_and_faces() -> None:
    solid = box((1, 2, 3), (2, 4, 6), cells=2)
    assert len(solid.faces) == 48
    assert len(solid.vertices) == 26
    np.testing.assert_allclose(solid.vertices.min(axis=0), (0, 0, 0), atol=1e-12)
    np.testing.assert_allclose(solid.vertices.max(axis=0), (2, 4, 6))
    assert volume(solid) == pytest.approx(48)
    assert is_closed(solid)


def test_round_solids_have_the_volumes_of_calculus() -> None:
    cylinder = revolve([(0, 0), (2, 0), (2, 3), (0, 3)], segments=256)
    assert volume(cylinder) == pytest.approx(12 * np.pi, rel=1e-3)
    assert volume(rod((0, 0, 0), (1, 2, 2), 0.5)) == pytest.approx(3 * np.pi / 4, rel=0.05)
    angle = np.arange(128) * (2 * np.pi / 128)
    ring = tube(np.stack([2 * np.cos(angle), 0 * angle, 2 * np.sin(angle)], axis=1), 0.5, 64, closed=True)
    assert volume(ring) == pytest.approx(2 * np.pi**2 * 2 * 0.25, rel=1e-2)
    assert volume(superellipsoid((1, 2, 3), 1, 1, 128)) == pytest.approx(8 * np.pi, rel=1e-2)
    assert volume(superellipsoid((1, 1, 1), 2, 2, 128)) == pytest.approx(4 / 3, rel=1e-2)


def test_closed_tube_along_a_twisting_path_has_no_seam() -> None:
    t = np.arange(200) * (2 * np.pi / 200)
    path = np.stack([np.cos(2 * t), 0.4 * np.sin(3 * t), np.sin(2 * t)], axis=1) * (1 + 0.4 * np.cos(3 * t))[:, None]
    rings = tube(path, 0.05, 8, closed=True).vertices.reshape(200, 8, 3)
    step = np.linalg.norm(np.roll(rings, -1, axis=0) - rings, axis=-1)
    assert step[-1].max() < 1.5 * step[:-1].max()
