"""A scan becomes a mesh in its own frame; what cannot be completed is refused by its name."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import trimesh
from numpy.typing import NDArray

import nepa3d
from nepa3d import cli, ops
from nepa3d.execution.progress_bar import progress_bar
from nepa3d.inference import complete as command
from nepa3d.models.completion import ScanCompletionSettings, complete_scan
from nepa3d.shapes.level_set import field_near, level_set
from nepa3d.shapes.mesh import read_mesh
from nepa3d.shapes.scan_files import read_cloud
from tests.inference.small import checkpoint

pytest.importorskip("skimage")

CENTRE, RADIUS = np.array([30.0, -4.0, 1000.0]), 250.0  # of a scan in millimetres, say


def ball(count: int = 3000, seed: int = 0) -> NDArray[np.float64]:
    """Points on a sphere that is no unit sphere."""
    directions = np.random.default_rng(seed).normal(size=(count, 3))
    return directions / np.linalg.norm(directions, axis=1, keepdims=True) * RADIUS + CENTRE


@pytest.fixture
def ckpt(tmp_path: Path) -> Path:
    return checkpoint(tmp_path / "small.pt")


def test_a_field_that_is_asked_near_its_surface_has_that_surface() -> None:
    """Of a distance field, which has slope 1, and of a steeper one."""

    def distance(points: NDArray[np.float32]) -> NDArray[np.float32]:
        around = np.linalg.norm(points - [0.1, 0.05, -0.02], axis=1) - 0.5
        beside = np.linalg.norm(points[:, :2] - [0.2, 0.7], axis=1)
        return np.minimum(np.abs(around), beside).astype(np.float32)

    for factor, slope, resolution in ((1.0, 1.0, 128), (1.5, 1.5, 96), (1.0, 2.0, 66)):
        whole = field_near(lambda points, f=factor: f * distance(points), resolution, 0.05)
        near = field_near(lambda points, f=factor: f * distance(points), resolution, 0.05, slope)
        assert whole.asked == resolution**3
        assert near.asked < whole.asked / 2
        expected, found = level_set(whole.values, 0.05), level_set(near.values, 0.05)
        assert expected is not None and found is not None
        np.testing.assert_array_equal(found.vertices, expected.vertices)
        np.testing.assert_array_equal(found.faces, expected.faces)
    odd = field_near(distance, 35, 0.05, 1.0)  # cannot be halved
    assert odd.asked == 35**3


def test_a_slope_that_is_too_small_loses_surface() -> None:
    """That the bound is needed: a field ten times as steep as was said."""

    def thin(points: NDArray[np.float32]) -> NDArray[np.float32]:
        return (10 * np.abs(np.linalg.norm(points - 0.013, axis=1) - 0.3)).astype(np.float32)

    whole, near = field_near(thin, 64, 0.1), field_near(thin, 64, 0.1, 1.0)
    a, b = level_set(whole.values, 0.1), level_set(near.values, 0.1)
    assert a is not None and (b is None or len(b.faces) < len(a.faces))


def test_the_surface_lies_where_the_scan_lay(ckpt: Path) -> None:
    """The model predicts its context's spline, which near a sphere is the distance to it."""
    scan = nepa3d.Shape.from_cloud(ball())
    encoder = nepa3d.load(ckpt, device="cpu")
    settings = ScanCompletionSettings(resolution=30, level=0.12, n_context=200, spline=True)
    found = complete_scan(encoder, scan, settings)
    away = np.linalg.norm(found.surface.vertices - CENTRE, axis=1) / RADIUS
    assert np.median(away[away > 1]) == pytest.approx(1.12, abs=0.05)
    assert np.median(away[away < 1]) == pytest.approx(0.88, abs=0.06)
    np.testing.assert_allclose(found.surface.bounds.mean(0), CENTRE, atol=0.05 * RADIUS)
    assert found.spline is not None
    np.testing.assert_allclose(found.spline.vertices, found.surface.vertices, atol=1e-4 * RADIUS)
    assert found.asked == 30**3
    assert found.context.shape == (200, 4)


def test_asked_near_the_surface_is_as_asked_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nepa3d.shapes.level_set.COARSEST", 20)
    encoder = nepa3d.load(checkpoint(tmp_path / "wrong.pt", wrong=0.002), device="cpu")
    scan = nepa3d.Shape.from_cloud(ball())
    near, whole = (
        complete_scan(encoder, scan, ScanCompletionSettings(resolution=40, level=0.12, n_context=60, slope=slope))
        for slope in (1.0, np.inf)
    )
    assert near.asked < whole.asked == 40**3
    np.testing.assert_allclose(near.surface.vertices, whole.surface.vertices, atol=1e-3 * RADIUS)
    np.testing.assert_array_equal(near.surface.faces, whole.surface.faces)


def test_a_model_whose_questions_see_each_other_is_asked_everywhere(
    golden: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nepa3d.shapes.level_set.COARSEST", 4)
    encoder = nepa3d.load("nepa_qa.pt", device="cpu")
    encoder.fit_distance_head(sorted(Path("unpaired/train_udf").rglob("*.npz")))
    scan = nepa3d.Shape.from_cloud(ball())
    level = float(np.median(encoder.complete(scan, np.random.default_rng(0).uniform(-1, 1, (200, 3)))))
    assert complete_scan(encoder, scan, ScanCompletionSettings(resolution=16, level=level)).asked == 16**3


def test_the_level_encloses_most_of_the_scan(ckpt: Path) -> None:
    encoder = nepa3d.load(ckpt, device="cpu")
    scan = nepa3d.Shape.from_cloud(ball(400))
    at = encoder.field(scan, n_context=30).distances(scan["pc_xyz"])
    found = complete_scan(encoder, scan, ScanCompletionSettings(resolution=30, n_context=30))
    assert found.level == pytest.approx(max(2 / 30, np.quantile(at, 0.8)), rel=1e-5)
    assert np.mean(at <= found.level) >= 0.79
    coarse = complete_scan(encoder, scan, ScanCompletionSettings(resolution=6, n_context=200, level=None))
    assert coarse.level >= 2 / 6


def test_the_expected_error_is_the_heads_scale(tmp_path: Path) -> None:
    import torch

    ckpt = checkpoint(tmp_path / "laplace.pt", answer_loss="laplace", wrong=0.002, doubt=0.5)
    encoder = nepa3d.load(ckpt, device="cpu")
    scan = nepa3d.Shape.from_cloud(ball())
    found = complete_scan(
        encoder, scan, ScanCompletionSettings(resolution=20, level=0.12, n_context=40, uncertainty=True)
    )
    assert found.expected_error is not None and found.expected_error.shape == (len(found.surface.vertices),)
    told = encoder.field(scan, n_context=40)
    points = found.placement.normalized(found.surface.vertices[:5])
    context = torch.tensor(told.context)[None]  # the plain way: one sequence, the head of the mesh, the second of two
    features, types = torch.zeros(1, 47, 15), torch.tensor([[0, *40 * [1], 4, *5 * [5]]])
    from nepa3d.samples.schema import POINT_DISTANCE, XYZ, TokenType

    types[0, 0], types[0, 1:41], types[0, 41], types[0, 42:] = (
        *(TokenType.BOS, TokenType.POINT, TokenType.EOS, TokenType.Q_POINT),
    )
    features[:, 1:41, XYZ], features[:, 1:41, POINT_DISTANCE] = context[..., :3], context[..., 3]
    features[:, 42:, XYZ] = torch.from_numpy(points)
    with torch.no_grad():
        h = encoder.probe.model(features, types)[2][:, 42:]
        expected = encoder.probe.model.answers(h).log_scale[0, :, 1].exp().numpy()
    np.testing.assert_allclose(found.expected_error[:5], expected * found.placement.scale, rtol=1e-4)


def test_the_command(ckpt: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    trimesh.PointCloud(ball()).export(tmp_path / "scan.ply")
    files = {name: tmp_path / name for name in ("mesh.ply", "mesh.json", "mesh.png", "mesh.spline.ply")}
    flags = ["--out", f"{files['mesh.ply']}", "--ckpt", f"{ckpt}", "--resolution", "24", "--level", "0.12", "--spline"]
    flags += ["--out_json", f"{files['mesh.json']}", "--picture", f"{files['mesh.png']}", "--max_points", "1000"]
    assert command.main([f"{tmp_path / 'scan.ply'}", *flags]) == cli.EXIT_OK
    out = capsys.readouterr().out
    assert "3000, 1000 taken" in out and f"wrote {files['mesh.ply']}" in out
    said = json.loads(files["mesh.json"].read_text())
    assert (said["points"], said["points_used"], said["cells"]) == (3000, 1000, 24**3)
    assert said["level"] == pytest.approx(0.12 * said["radius"])
    assert said["distances_by"] == "the model's own predictions" and said["distances_by"] in out
    vertices, faces, _ = read_mesh(files["mesh.ply"])
    assert (len(vertices), len(faces)) == (said["vertices"], said["faces"])
    np.testing.assert_allclose(vertices.mean(0), CENTRE, atol=0.1 * RADIUS)
    assert len(read_mesh(files["mesh.spline.ply"]).faces)
    assert files["mesh.png"].read_bytes().startswith(b"\x89PNG") and files["mesh.png"].stat().st_size > 20_000
    assert (tmp_path / "mesh.ply.config.yaml").is_file()


def test_colours_of_the_expected_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    np.save(tmp_path / "scan.npy", ball())
    ckpt = checkpoint(tmp_path / "laplace.pt", answer_loss="laplace", doubt=0.5)
    flags = [f"{tmp_path / 'scan.npy'}", "--resolution", "24", "--level", "0.12", "--uncertainty"]
    assert command.main([*flags, "--ckpt", f"{ckpt}", "--out", f"{tmp_path / 'mesh.ply'}"]) == cli.EXIT_OK
    assert "expected error, median" in capsys.readouterr().out
    colors = trimesh.load(tmp_path / "mesh.ply").visual.vertex_colors
    assert len(np.unique(colors, axis=0)) > 10
    plain = checkpoint(tmp_path / "l1.pt")
    assert command.main([*flags, "--ckpt", f"{plain}", "--out", f"{tmp_path / 'no.ply'}"]) == cli.EXIT_USAGE
    assert "does not tell the error it expects: it was trained with answer_loss l1" in capsys.readouterr().err
    assert not (tmp_path / "no.ply").exists()


@pytest.mark.parametrize(
    ("package", "flags", "message"),
    [
        ("skimage", [], "surfaces: scikit-image is not installed"),
        ("matplotlib", ["--picture", "mesh.png"], "picture: matplotlib is not installed"),
        ("matplotlib", ["--uncertainty"], "uncertainty: matplotlib is not installed"),
    ],
)
def test_what_is_not_installed_is_told_before_anything_is_asked(
    package: str,
    flags: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Before the model is looked for, even: there is none."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, package, None)
    np.save("scan.npy", ball(400))
    assert command.main(["scan.npy", "--out", "mesh.ply", "--ckpt", "none.pt", *flags]) == cli.EXIT_USAGE
    assert message in capsys.readouterr().err


def test_a_bar_counts_the_points_that_are_asked(ckpt: Path) -> None:
    told = nepa3d.load(ckpt, device="cpu").field(nepa3d.Shape.from_cloud(ball(400)), n_context=30, batch=2)
    points = np.random.default_rng(0).uniform(-1, 1, (5000, 3)).astype(np.float32)
    bar = progress_bar(total=0, unit="point", disable=True)
    np.testing.assert_array_equal(told.distances(points, bar), told.distances(points))
    assert bar.n == 5000


HEADER = "ply\nformat ascii 1.0\nelement vertex 0\nproperty float x\nproperty float y\nproperty float z\nend_header\n"
BAD = {
    "empty.ply": (HEADER, "it holds no points"),
    "nan.ply": (trimesh.PointCloud([[0, 0, 0], [1, np.nan, 2], [1, 2, 3], [4, 4, 5]]), "nonfinite_vertices: 1 points"),
    "one.ply": (trimesh.PointCloud([[1, 2, 3]]), "all points are in one place"),
    "flat.ply": (trimesh.PointCloud(np.random.default_rng(0).random((99, 2)) @ [[1, 2, 3], [2, 0, 1]]), "in one plane"),
    "line.xyz": ("1 2 3\n2 4 6\n3 6 9\n", "in one plane"),
    "words.xyz": ("one two three\nfour five six\n", "not numbers in columns"),
    "narrow.txt": ("1 2\n3 4\n", "expected 3 numbers a line or more, got 2"),
    "heading.csv": ("x,y,z\n", "it holds no points"),
    "nothing.xyz": ("", "the file has 0 bytes"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_completed(name: str, ckpt: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content, message = BAD[name]
    if isinstance(content, str):
        (tmp_path / name).write_text(content)
    else:
        (tmp_path / name).write_bytes(content.export(file_type="ply"))
    out = tmp_path / "mesh.ply"
    assert command.main([f"{tmp_path / name}", "--out", f"{out}", "--ckpt", f"{ckpt}"]) == cli.EXIT_USAGE
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1
    assert not out.exists()


def test_other_refusals(ckpt: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "scan.npz", points=ball(400))
    scan, out = f"{tmp_path / 'scan.npz'}", f"{tmp_path / 'mesh.ply'}"
    model = ["--ckpt", f"{ckpt}"]
    (tmp_path / "folder.ply").mkdir()
    for flags, message in (
        ([scan, "--out", out, *model, "--level", "3"], "the predicted distance is 3 nowhere"),
        ([scan, "--out", f"{tmp_path / 'folder.ply'}", *model], "out: expected a file to write to, got the folder"),
        ([f"{tmp_path / 'none.ply'}", "--out", out, *model], "there is no such file"),
        ([f"{tmp_path / 'none.xyz'}", "--out", out, *model], "there is no such file"),
    ):
        assert command.main([*flags, "--resolution", "16"]) == cli.EXIT_USAGE
        assert message in capsys.readouterr().err


def test_flags_that_mean_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    for flags, message in (
        (["--out", "mesh.ply", "--slope", "0.5"], "slope must be at least 1"),
        (["--out", "mesh.ply", "--resolution", "3"], "resolution must be at least 4"),
        (["--out", "mesh.ply", "--level", "-1"], "level must be a distance above 0"),
        (["--out", "mesh.ply", "--view", "sdf"], "view must be one of"),
        (["--out", "mesh.blend"], "out must end in .ply, .glb, .obj"),
        (["--out", "mesh.stl", "--uncertainty"], "out must end in .ply, .glb, got"),
    ):
        with pytest.raises(SystemExit, match="2"):
            command.main(["scan.ply", *flags])
        assert message in " ".join(capsys.readouterr().err.split())


def test_files_of_clouds(tmp_path: Path) -> None:
    xyz, normals = ball(50), np.tile([0.0, 0.0, 1.0], (50, 1))
    both = np.hstack([xyz, normals])
    np.save(tmp_path / "a.npy", xyz)
    np.savez(tmp_path / "a.npz", xyz=xyz, normals=normals, colors=np.full((50, 3), 0.5))
    np.savetxt(tmp_path / "a.xyz", both)
    (tmp_path / "a.pts").write_text("50\n" + "\n".join(" ".join(map(str, [*row, 3])) for row in xyz))
    (tmp_path / "a.csv").write_text("x,y,z\n" + "\n".join(",".join(map(str, row)) for row in xyz))
    (tmp_path / "a.ply").write_bytes(trimesh.PointCloud(xyz).export(file_type="ply"))
    for kind in ("npy", "npz", "xyz", "pts", "csv", "ply"):
        found = read_cloud(tmp_path / f"a.{kind}")
        assert found is not None
        np.testing.assert_allclose(found.xyz, xyz, rtol=1e-5)
        assert (found.normals is not None) == (kind in ("npz", "xyz"))
        assert (found.colors is not None) == (kind == "npz")
    shape = nepa3d.Shape.from_scan(tmp_path / "a.npz")
    np.testing.assert_array_equal(shape["pc_n"], normals.astype(np.float32))
    np.testing.assert_array_equal(shape["pc_rgb"], np.float32(0.5) * np.ones((50, 3), np.float32))
    trimesh.creation.box().export(tmp_path / "box.ply")
    assert read_cloud(tmp_path / "box.ply") is None
    assert nepa3d.Shape.from_scan(tmp_path / "box.ply").points_read is None
    np.savez(tmp_path / "b.npz", xyz=xyz, normals=normals[:9])
    with pytest.raises(ValueError, match=r"b\.npz: unreadable: 9 normals of 50 points"):
        read_cloud(tmp_path / "b.npz")
    np.savez(tmp_path / "c.npz", vertices=xyz)
    with pytest.raises(ValueError, match=r"c\.npz: expected an array of the name points, xyz, pc_xyz, got vertices"):
        read_cloud(tmp_path / "c.npz")
    np.save(tmp_path / "object.npy", np.array([{}], object))
    with pytest.raises(ValueError, match="not a readable"):
        read_cloud(tmp_path / "object.npy")


@pytest.mark.parametrize(
    "text",
    [
        ",x,y,z\n0,1,2,3\n1,4,5,6\n",
        "id,z,intensity,Y [m],X\n7,3,0,2,1\n8,6,0,5,4\n",
        "// X Y Z R G\n1 2 3 9 9\n4 5 6 9 9\n",
        '"Points:0";"Points:1";"Points:2"\n1;2;3\n4;5;6\n',
        "2\n1, 2, 3,\n4, 5, 6, # 7,8 9\n",
        "made by a scanner\n1\t2\t3\n4\t5\t6\n",
    ],
)
def test_texts_of_two_points(tmp_path: Path, text: str) -> None:
    path = tmp_path / "cloud.csv"
    path.write_text(text)
    found = read_cloud(path)
    assert found is not None and found.xyz.tolist() == [[1, 2, 3], [4, 5, 6]]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("x;y;z\n0,5;0,25;0,75\n", "commas within numbers, expected decimal points: '0,5;0,25;0,75'"),
        ("0,5 0,25 0,75\n", "commas within numbers"),
        ("easting,northing,up\n1,2,3\n", "the columns are 'easting', 'northing', 'up', expected x, y and z among them"),
        ("1000\n1 2 3\n4 5 6\n", "the first line says 1000 points, 2 follow"),
        ("1,,3,4\n5,,7,8\n", "not numbers in columns"),
    ],
)
def test_texts_that_could_be_read_wrongly(tmp_path: Path, text: str, fault: str) -> None:
    path = tmp_path / "cloud.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=re.escape(f"{path}: unreadable: ") + ".*" + re.escape(fault)):
        read_cloud(path)


def test_many_points_are_thinned_the_same_way_each_time(tmp_path: Path) -> None:
    np.save(tmp_path / "many.npy", ball(20_000).astype(np.float32))
    one, two = (nepa3d.Shape.from_scan(tmp_path / "many.npy", max_points=500) for _ in range(2))
    assert (one.points_read, len(one["pc_xyz"])) == (20_000, 500)
    assert all(np.array_equal(one[key], two[key]) for key in one)
    other = nepa3d.Shape.from_scan(tmp_path / "many.npy", max_points=500, seed=1)
    assert not np.array_equal(one["pc_xyz"], other["pc_xyz"])
    assert one.placement is not None
    there = one.placement.restored(one["pc_xyz"])
    assert ops.nearest_distance(ball(20_000).astype(np.float32), there.astype(np.float32)).distance.max() < 1e-2
    assert nepa3d.Shape.from_scan(tmp_path / "many.npy", max_points=0)["pc_xyz"].shape == (20_000, 3)
