"""Retrieval by scans: a tiny corpus of solids, turned answers by hand, and what a search refuses."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import nepa3d
from nepa3d import cli
from nepa3d.analysis import scan_retrieval as command
from nepa3d.corpora.objects import write_objects
from nepa3d.corpora.scanner import ScanSettings, scan
from nepa3d.corpora.solids import Solid, box, rod, union, vessel
from nepa3d.models.embedding import Probe
from nepa3d.probes import scan_retrieval
from nepa3d.probes.embedding import EmbeddingSettings, embed_samples
from nepa3d.probes.lipschitz import violation
from nepa3d.probes.looks import LookSettings, angle_of, look, turned
from nepa3d.probes.scan_retrieval import ScanRetrievalSettings, retrieve
from nepa3d.probes.search import Search, read_names, search_of_caches
from nepa3d.probes.table import read_result
from nepa3d.report.compare import compare
from nepa3d.report.tables import collect
from nepa3d.samples.dataset import SampleSettings, evaluation_sample
from nepa3d.samples.schema import RAY_DIRECTION, RAY_HIT, RAY_ORIGIN, RAY_T, XYZ, TokenType
from nepa3d.shapes.mesh import prepare_mesh
from nepa3d.shapes.query_pools import PoolSettings
from nepa3d.shapes.rotation import turn
from nepa3d.shapes.shape import Shape
from nepa3d.shapes.views import ShapeAnswers

POOLS = PoolSettings(pc_points=512, pt_pool=2000, ray_pool=200, n_views=4, rays_per_view=50, pc_grid=16, df_grid=16)
SOLIDS: dict[str, Solid] = {
    "flat/plate": box([0, 0, 0], [2, 0.1, 1.4]),
    "flat/board": box([0, 0, 0], [0.1, 1.6, 1]),
    "long/rod": rod([0, -1, 0], [0, 1, 0], 0.1),
    "long/bar": rod([-1, 0, 0], [1, 0.2, 0], 0.15),
    "round/cup": vessel(np.array([[0.4, -0.5], [0.5, 0.5]]), 0.05, 0.05),
    "round/table": union([box([0, 0.5, 0], [2, 0.1, 1]), box([0, 0, 0], [0.2, 1, 0.2])]),
}


@pytest.fixture(scope="module")
def solids(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Caches of the solids (cache/test) and of two scans of each of three of them (scans/test)."""
    root = tmp_path_factory.mktemp("solids")
    rng = np.random.default_rng(0)
    objects = {}
    for number, (key, solid) in enumerate(SOLIDS.items()):
        mesh = prepare_mesh(solid.vertices, solid.faces, key)
        Shape.from_mesh(tuple(solid), key=key, settings=POOLS).save(root / "cache" / "test" / f"{key}.npz")
        for view in range(2 if number % 2 else 0):
            points, _ = scan(mesh, ScanSettings(points=256, background=0), rng)
            name = f"class_{number:03d}/{view}"
            Shape.from_cloud(points, key=name, settings=POOLS).save(root / "scans" / "test" / f"{name}.npz")
            objects[name] = key
    write_objects(root / "scans", "test", objects)
    return root


@pytest.fixture
def encoder(golden: Path) -> nepa3d.Encoder:
    return nepa3d.load("nepa_qa.pt", device="cpu")


def few(encoder: nepa3d.Encoder, points: int = 12) -> Probe:
    """The probe with so many points and no rays."""
    return replace(encoder.probe, n_point=points, n_ray=0)


def scans_of(solids: Path) -> Search:
    return search_of_caches(solids / "scans", "test", f"{solids / 'cache'}", ["test"])


def test_scans_belong_to_the_meshes_of_their_objects(solids: Path) -> None:
    search = scans_of(solids)
    assert len(search.queries) == 6 and len(search.gallery) == 6
    assert [search.gallery_objects[row] for row in search.truth] == list(search.query_objects)
    assert set(search.query_objects) == {"flat/board", "long/bar", "round/table"}
    alone = search.without_distractors()
    assert sorted(alone.gallery_objects) == ["flat/board", "long/bar", "round/table"]
    assert [alone.gallery_objects[row] for row in alone.truth] == list(search.query_objects)
    left = search.without({"long/bar", "round/cup"})
    assert len(left.queries) == 4 and "round/cup" not in left.gallery_objects and len(left.gallery) == 4
    assert all(
        f"{shape}".endswith(f"{name}.npz") for shape, name in zip(left.gallery, left.gallery_objects, strict=True)
    )


def test_what_cannot_be_sought_is_named(solids: Path, tmp_path: Path) -> None:
    full = scans_of(solids)
    with pytest.raises(ValueError, match=r"lacks the object of 2 of 6; first: .*class_003/0.npz is of long/bar"):
        Search(full.queries, full.query_objects, *gallery_without(full, "long/bar"))
    with pytest.raises(ValueError, match=r"gallery: flat/board is there twice: a.npz and b.npz"):
        Search(["q.npz"], ["flat/board"], ["a.npz", "b.npz"], ["flat/board"] * 2)
    with pytest.raises(ValueError, match="query_objects must name 1 objects, got 2"):
        Search(["q.npz"], ["a", "b"], ["a.npz", "b.npz"], ["a", "b"])
    with pytest.raises(ValueError, match="at least 1 and 2 shapes, got 1 and 1"):
        Search(["q.npz"], ["a"], ["a.npz"], ["a"])
    with pytest.raises(ValueError, match="gallery_splits must be different splits, at least one, got 'test test'"):
        search_of_caches(solids / "scans", "test", solids / "cache", ["test", "test"])
    empty = tmp_path / "empty.txt"
    empty.write_text("# nothing\n\n")
    with pytest.raises(ValueError, match=f"exclude: {empty} lists no object"):
        read_names(empty, "exclude")
    with pytest.raises(ValueError, match=r"exclude: .*absent\.txt cannot be read"):
        read_names(tmp_path / "absent.txt", "exclude")


def gallery_without(search: Search, name: str) -> tuple[list[object], list[str]]:
    rows = [row for row, known in enumerate(search.gallery_objects) if known != name]
    return [search.gallery[row] for row in rows], [search.gallery_objects[row] for row in rows]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"gallery_seed": 0}, "gallery_seed must give other draws than query_seed: with 0 and 0"),
        (
            {"gallery_seed": 1_000_003, "embedding": EmbeddingSettings(draws=2)},
            "gallery_seed must give other draws than query_seed: with 1000003 and 0",
        ),
        ({"headings": 0}, "headings must be at least 1, got 0"),
        ({"query_seed": -1}, "query_seed must be at least 0, got -1"),
        ({"n_seeds": 0}, "n_seeds must be at least 1, got 0"),
        ({"query_view": "mash"}, "query_view must be one of .*'mash'"),
    ],
)
def test_settings_that_mean_nothing_are_refused(change: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ScanRetrievalSettings(**change)  # type: ignore[arg-type]


def test_a_quarter_turn_by_hand() -> None:
    """Points, rays and normals turn together about y; a point that may leave the cube is left out."""
    xyz = np.array([[0.5, 0.2, 0], [0, -0.3, 1], [0.9, 0, 0.9]], np.float32)
    origin, direction = np.array([[2, 0.1, 0]], np.float32), np.array([[-1, 0, 0]], np.float32)
    ones = np.ones(1, np.float32)
    answers = ShapeAnswers(xyz, np.array([1, 2, 3], np.float32), origin, direction, ones, ones, -direction, True)
    found = turned(answers, np.pi / 2)
    way = 1 if found.point_xyz[0, 2] > 0 else -1  # which way round does not matter, but it is one way for all
    np.testing.assert_allclose(found.point_xyz, [[0, 0.2, way * 0.5], [-way, -0.3, 0]], atol=1e-7)
    assert found.point_distance.tolist() == [1, 2]
    np.testing.assert_allclose(found.ray_origin, [[0, 0.1, way * 2]], atol=1e-6)
    np.testing.assert_allclose(found.ray_direction, [[0, 0, -way]], atol=1e-7)
    np.testing.assert_allclose(found.ray_normal, [[0, 0, way]], atol=1e-7)


def test_a_turned_look_is_of_the_turned_shape(solids: Path) -> None:
    """The plate, told back by the angle, answers as itself; its rays hit where they hit before."""
    path = f"{solids / 'cache' / 'test' / 'flat' / 'plate.npz'}"
    form = SampleSettings(64, 32, qa=True, eos=True)
    looks = look([path], LookSettings("mesh", form, 5, turned=True))
    features, types = looks.features[0], looks.types[0]
    angle = angle_of(path, 5)
    ((points, distances),) = looks.points()
    back = turn(points, -angle)
    plate = Shape.from_cache(path)
    pool = {tuple(np.round(xyz, 4)): d for xyz, d in zip(plate["pt_xyz_pool"], plate["pt_dist_pool"], strict=True)}
    found = [pool.get(tuple(np.round(xyz, 4))) for xyz in back]
    known = [number for number, d in enumerate(found) if d is not None]
    assert len(known) >= 60  # the others were rounded another way
    np.testing.assert_array_equal([found[number] for number in known], distances[known])
    assert np.abs(turn(points, 0.1 - angle) - plate["pt_xyz_pool"][:1]).max() > 0.1
    hits = features[types == TokenType.A_RAY]
    rays = features[types == TokenType.Q_RAY]
    struck = hits[:, RAY_HIT].ravel() > 0.5
    assert struck.any()
    where = rays[struck][:, RAY_ORIGIN] + hits[struck][:, RAY_T].reshape(-1, 1) * rays[struck][:, RAY_DIRECTION]
    np.testing.assert_allclose(hits[struck][:, XYZ], where, atol=1e-6)
    extent = np.abs(plate["pc_xyz"]).max(0) + 1e-3
    assert (np.abs(turn(hits[struck][:, XYZ], -angle)) <= extent).all()
    assert np.abs(turn(hits[struck][:, XYZ], -angle) - hits[struck][:, XYZ]).max() > 1e-3


def test_the_angle_is_a_function_of_seed_and_shape(solids: Path, tmp_path: Path) -> None:
    names = ["a/test/flat/plate.npz", "elsewhere/flat/plate.npz", "flat/plate", "a/test/flat/board.npz"]
    angles = [angle_of(name, 1) for name in names]
    assert angles[0] == angles[1] == angles[2] != angles[3]
    assert angle_of(names[0], 2) != angles[0]
    spread = np.array([angle_of(f"a/{number}", 0) for number in range(400)])
    counts = np.histogram(spread, 4, (0, 2 * np.pi))[0]
    assert counts.min() > 60


def test_an_unturned_look_is_the_evaluations_sample(solids: Path) -> None:
    path = f"{solids / 'cache' / 'test' / 'long' / 'bar.npz'}"
    form = SampleSettings(16, 4, qa=True, eos=True)
    looks = look([path], LookSettings("mesh", form, 3), draw=1)
    features, types = evaluation_sample(path, "mesh", form, 3, 1)
    np.testing.assert_array_equal(looks.features[0], features)
    np.testing.assert_array_equal(looks.types[0], types)


def test_meshes_find_themselves_and_controls_are_beside(solids: Path, encoder: nepa3d.Encoder) -> None:
    """Unturned meshes are found by their answers alone; turned ones at the best heading."""
    meshes = search_of_caches(solids / "cache", "test", solids / "cache", ["test"])
    probe = few(encoder, 30)
    still = retrieve(probe, meshes, ScanRetrievalSettings(query_view="mesh"), progress=False)
    assert control(still, "lipschitz")["r@1"] == 1
    assert still.controls["lipschitz_headings"] is None
    assert control(still, "chance")["r@1"] == pytest.approx(1 / 6)
    facing = ScanRetrievalSettings(query_view="mesh", turn_queries=True, headings=24)
    result = retrieve(probe, meshes, facing, progress=False)
    found = control(result, "lipschitz")["mAP"], control(result, "lipschitz_headings")["mAP"]
    assert found[0] < found[1] and found[1] > 0.9
    assert result.figures["mrr"] == result.figures["mAP"]
    low, high = result.intervals["r@1"]
    assert low <= result.figures["r@1"] <= high


def test_uniform_questions_are_asked(solids: Path, encoder: nepa3d.Encoder) -> None:
    """Their answers are other ones, for the model and the controls alike."""
    meshes = search_of_caches(solids / "cache", "test", solids / "cache", ["test"])
    facing = ScanRetrievalSettings(query_view="mesh")
    uniform = replace(facing, embedding=replace(facing.embedding, questions="uniform"))
    pool, result = (retrieve(few(encoder, 30), meshes, settings, progress=False) for settings in (facing, uniform))
    assert result.settings["questions"] == "uniform"
    assert control(result, "raw_distances") != control(pool, "raw_distances")
    with pytest.raises(ValueError, match="questions pool and uniform"):
        compare(pool, result)
    with pytest.raises(ValueError, match="questions must be pool where turn_queries is 1, got uniform"):
        replace(uniform, turn_queries=True)


def control(result: scan_retrieval.Result, name: str) -> dict[str, float]:
    figures = result.controls[name]
    assert figures is not None
    return figures


def test_figures_are_those_of_the_plain_way(solids: Path, encoder: nepa3d.Encoder) -> None:
    """Ranks counted one by one, from samples read one by one, means over draws, intervals over objects."""
    search, probe = scans_of(solids), few(encoder)
    settings = ScanRetrievalSettings(embedding=EmbeddingSettings(draws=2, batch=4))
    result = retrieve(probe, search, settings, progress=False)
    form = SampleSettings(12, 0, qa=True, eos=True)

    def side(paths: list[str], view: str, seed: int) -> list[list[tuple[np.ndarray, np.ndarray]]]:
        return [[evaluation_sample(path, view, form, seed, draw) for draw in range(2)] for path in paths]

    queries = side([f"{path}" for path in search.queries], "pointcloud_noray", 0)
    gallery = side([f"{path}" for path in search.gallery], "mesh", 999)

    def vector(draws: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
        units = [embed_samples(probe, features[None], types[None], EmbeddingSettings())[0] for features, types in draws]
        total = np.sum(units, axis=0)
        return np.asarray(total / np.linalg.norm(total))

    def answers(sample: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        features, types = sample
        return features[types == TokenType.Q_POINT][:, XYZ], features[types == TokenType.A_POINT][:, 10]

    alike = np.array([[vector(one) @ vector(other) for other in gallery] for one in queries])
    apart = [
        [np.mean([violation(*answers(one[k]), *answers(other[k])) for k in range(2)]) for other in gallery]
        for one in queries
    ]
    places = [search.gallery_objects.index(name) for name in search.query_objects]
    for figures, scores in ((result.figures, alike), (control(result, "lipschitz"), -np.array(apart))):
        ranks = np.array([1 + (row > row[place]).sum() for row, place in zip(scores, places, strict=True)])
        assert figures["mAP"] == pytest.approx((1 / ranks).mean(), abs=1e-6)
        assert figures["r@1"] == pytest.approx((ranks == 1).mean())
        assert figures["mean_rank"] == pytest.approx(ranks.mean())
    assert result.items["first_found"] == [search.gallery_objects[row] for row in alike.argmax(1)]
    assert result.items["object"] == list(search.query_objects)
    assert result.settings["n_objects"] == 3 and result.settings["n_queries"] == 6


def test_one_call_is_the_commands(solids: Path, encoder: nepa3d.Encoder, tmp_path: Path) -> None:
    out = tmp_path / "scan.json"
    roots = ["--query_root", f"{solids / 'scans'}", "--gallery_root", f"{solids / 'cache'}", "--ckpt", "nepa_qa.pt"]
    more = ["--distractors", "1", "--n_seeds", "2", "--headings", "2", "--device", "cpu"]
    assert command.main([*roots, *more, "--out_json", f"{out}"]) == cli.EXIT_OK
    written = read_result(out)
    assert written is not None and written.probe == "scan_retrieval"
    settings = ScanRetrievalSettings(n_seeds=2, headings=2)
    result = scan_retrieval.run(encoder, scans_of(solids), settings)
    assert written.figures == pytest.approx(result.figures)
    for name in scan_retrieval.CONTROLS:
        assert control(written, name) == pytest.approx(control(result, name))
    assert "best heading of 2" in scan_retrieval.text(written)
    (table,) = collect([f"{out}"])
    assert [row[1] for row in table.rows] == ["`nepa_qa.pt`", *scan_retrieval.CONTROLS.values()]
    compared = compare(written, replace(written, items={**written.items, "r@1": [1.0] * 6}))
    assert [one["figure"] for one in compared] == ["r@1", "mAP"] and compared[1]["difference"] == 0
    assert compared[0]["difference"] == pytest.approx(1 - written.figures["r@1"])
    with pytest.raises(ValueError, match="different protocols: turn_queries False and True"):
        compare(written, written.with_settings({"turn_queries": True}))
    content = json.loads(out.read_text())
    for name in ("lipschitz", "lipschitz_headings", "random_init"):
        del content[name]
    out.write_text(json.dumps(content))
    (table,) = collect([f"{out}"])
    assert [row[1] for row in table.rows][1:] == ["plain distances, no model", "chance"]
    in_memory = replace(scans_of(solids), gallery=[Shape.from_cache(path) for path in scans_of(solids).gallery])
    assert scan_retrieval.run(encoder, in_memory, settings).figures == pytest.approx(result.figures)


def test_excluded_objects_are_neither_sought_nor_found(
    solids: Path, golden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names, out = tmp_path / "names.txt", tmp_path / "scan.json"
    names.write_text("# train/long/bar2, 0.01\nlong/bar\n")
    roots = ["--query_root", f"{solids / 'scans'}", "--gallery_root", f"{solids / 'cache'}", "--ckpt", "nepa_qa.pt"]
    assert command.main([*roots, "--exclude", f"{names}", "--out_json", f"{out}"]) == cli.EXIT_OK
    content = json.loads(out.read_text())
    assert (content["n_queries"], content["n_gallery"], content["n_excluded"]) == (4, 2, 1)
    assert "long/bar" not in content["items"]["object"]
    names.write_text("long/pole\n")
    assert command.main([*roots, "--exclude", f"{names}"]) == cli.EXIT_USAGE
    assert "lists 1 objects that the gallery lacks; first: long/pole" in capsys.readouterr().err


def test_a_damaged_file_is_listed_and_takes_its_queries_along(
    solids: Path, encoder: nepa3d.Encoder, tmp_path: Path
) -> None:
    search = scans_of(solids)
    damaged, worn = tmp_path / "damaged.npz", tmp_path / "worn.npz"
    damaged.write_bytes(b"PK")
    worn.write_bytes(b"")
    gallery = [damaged if name == "long/bar" else path for path, name in paired(search)]
    queries = [worn, *search.queries[1:]]
    broken = replace(search, queries=queries, gallery=gallery)
    for facing in (False, True):
        settings = ScanRetrievalSettings(turn_queries=facing)
        result = retrieve(few(encoder), broken, settings, progress=False)
        assert set(result.failed) == {f"{damaged}", f"{worn}"}
        assert result.settings["n_queries"] == 3 and result.settings["n_gallery"] == 5
        assert "long/bar" not in result.items["object"] + result.items["first_found"]
        with pytest.raises(ValueError, match=r"worn.npz"):
            scan_retrieval.run(encoder, broken, settings)
        with pytest.raises(ValueError, match=r"none of 6 shapes could be read; first: .*worn.npz"):
            retrieve(few(encoder), replace(search, queries=[worn] * 6), settings, progress=False)


def paired(search: Search) -> list[tuple[object, str]]:
    return list(zip(search.gallery, search.gallery_objects, strict=True))


def test_a_collapsed_model_scores_chance(
    solids: Path, golden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = torch.load("nepa_qa.pt", weights_only=True)
    for name in ("token_mlp.0.weight", "token_mlp.2.weight"):
        checkpoint["model"][name].zero_()
    torch.save(checkpoint, tmp_path / "collapsed.pt")
    roots = ["--query_root", f"{solids / 'scans'}", "--gallery_root", f"{solids / 'cache'}"]
    out = tmp_path / "scan.json"
    model = ["--ckpt", f"{tmp_path / 'collapsed.pt'}", "--n_ray", "0"]
    assert command.main([*roots, *model, "--out_json", f"{out}"]) == cli.EXIT_OK
    result = read_result(out)
    assert result is not None and result.diagnostics["collapsed"]
    assert result.figures["r@1"] == pytest.approx(1 / 3) == control(result, "chance")["r@1"]
    assert "collapsed gallery" in capsys.readouterr().err
    assert any("collapsed" in said for said in scan_retrieval.SCAN_RETRIEVAL.doubts(result))
