"""Meshes asked while training: samples of a cache made for them alone, functions of the seeds, in limited memory."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from nepa3d import cli, ops
from nepa3d.corpora.procedural import procedural_shape
from nepa3d.execution.files import write_text
from nepa3d.samples.dataset import SampleSettings, sample_of
from nepa3d.samples.live import Live, MeshStore
from nepa3d.samples.loader import Request, training_batch
from nepa3d.samples.mixes import load_mix
from nepa3d.samples.schema import POINT_DISTANCE, RAY_DIRECTION, RAY_HIT, RAY_ORIGIN, RAY_T, XYZ, TokenType
from nepa3d.shapes.mesh import BadShapeError, load_mesh
from nepa3d.shapes.query_pools import PoolSettings, build_pools, random_stream
from nepa3d.shapes.shape import Shape
from nepa3d.shapes.views import BACKENDS
from nepa3d.train import pretrain
from nepa3d.train.corpus import CorpusFlags, open_corpus

SETTINGS = SampleSettings(n_point=40, n_ray=10, qa=True, eos=True)
POOLS = PoolSettings(pc_points=256, dist_ref_points=512, pc_grid=16, df_grid=16)
FAMILIES = ("chair", "table", "lamp")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four meshes of each of three classes."""
    root = tmp_path_factory.mktemp("meshes")
    for family in FAMILIES:
        for number in range(4):
            vertices, faces = procedural_shape(family, number, 0)
            lines = [*(f"v {x} {y} {z}" for x, y, z in vertices), *(f"f {a + 1} {b + 1} {c + 1}" for a, b, c in faces)]
            (root / family).mkdir(exist_ok=True)
            write_text(root / family / f"{number}.obj", "\n".join(lines) + "\n")
    return root


@pytest.fixture
def live() -> Live:
    return Live(MeshStore(1 << 30), POOLS)


@pytest.mark.parametrize("view", BACKENDS)
@pytest.mark.parametrize(
    "changed", [{}, {"uniform_prob": 1.0, "n_ray": 0}, {"force_missing_ray": True}, {"n_point": 0}]
)
def test_samples_are_those_of_a_cache_made_for_them_alone(
    view: str, changed: dict[str, int], folder: Path, live: Live
) -> None:
    """The twin makes every array of the cache; the sample only those that its view needs."""
    settings, path = replace(SETTINGS, **changed), f"{folder / 'chair' / '1.obj'}"
    found = live.sample(path, view, settings, 3, 2, 7)
    rng = random_stream(3, "2/7", "sample")
    missing, uniform = (
        rng.random() < settings.drop_ray_prob or settings.force_missing_ray,
        rng.random() < settings.uniform_prob,
    )
    near = 0 if uniform else rng.binomial(settings.n_point, 0.5)
    size = max(settings.n_point, 1)
    pools = replace(POOLS, pt_pool=size, pt_surface_ratio=near / size, ray_pool=20, rays_per_view=1)
    shape = Shape(build_pools(load_mesh(path), pools, 3, "2/7"), path)
    wanted = sample_of(
        path, shape.view(view, settings.voxel), settings, lambda pool, n: rng.choice(pool, n, replace=False), missing
    )
    np.testing.assert_array_equal(found[1], wanted[1])
    np.testing.assert_array_equal(found[0], wanted[0])


def test_answers_are_exact_and_questions_are_spread_as_in_a_pool(folder: Path) -> None:
    exact = Live(MeshStore(1 << 30), replace(POOLS, pt_dist_mode="mesh"))
    mesh = load_mesh(folder / "table" / "0.obj")
    near, cameras = [], set()
    for index in range(60):
        features, types = exact.sample(f"{folder / 'table' / '0.obj'}", "mesh", SETTINGS, 0, 0, index)
        points = features[types == TokenType.Q_POINT][:, XYZ]
        distance = features[types == TokenType.A_POINT, POINT_DISTANCE]
        np.testing.assert_array_equal(distance, ops.closest_point(mesh.vertices, mesh.faces, points).distance)
        near.append((distance < 0.1).mean())
        asked, answered = features[types == TokenType.Q_RAY], features[types == TokenType.A_RAY]
        hits = ops.cast_rays(mesh.vertices, mesh.faces, asked[:, RAY_ORIGIN], asked[:, RAY_DIRECTION])
        np.testing.assert_array_equal(answered[:, RAY_HIT] > 0, hits.face >= 0)
        np.testing.assert_array_equal(answered[:, RAY_T], np.where(hits.face >= 0, hits.t, np.float32(0)))
        cameras |= {origin.tobytes() for origin in asked[:, RAY_ORIGIN]}
    assert 0.45 < np.mean(near) < 0.8 and np.std(near) > 0.02  # half at the surface, as many as chance has it
    assert len(cameras) == 20


def test_a_sample_is_a_function_of_its_place(folder: Path, live: Live) -> None:
    path = f"{folder / 'lamp' / '2.obj'}"
    first = live.sample(path, "udfgrid", SETTINGS, 1, 0, 5)[0]
    np.testing.assert_array_equal(Live(MeshStore(0), POOLS).sample(path, "udfgrid", SETTINGS, 1, 0, 5)[0], first)
    for other in ((2, 0, 5), (1, 1, 5), (1, 0, 6)):
        assert (live.sample(path, "udfgrid", SETTINGS, *other)[0] != first).any()


def test_half_of_the_samples_may_have_no_rays_or_ask_anywhere(folder: Path, live: Live) -> None:
    settings = replace(SETTINGS, drop_ray_prob=0.5, uniform_prob=0.5)
    without, anywhere = [], []
    for index in range(60):
        features, types = live.sample(f"{folder / 'chair' / '0.obj'}", "mesh", settings, 0, 0, index)
        without.append(bool((types == TokenType.MISSING_RAY).any()))
        steps = features[types == TokenType.Q_POINT][:, XYZ].astype(np.float64) * 2**23  # of the uniform draw
        anywhere.append(bool((steps == np.floor(steps)).all()))
    assert 20 <= sum(without) <= 40 and 20 <= sum(anywhere) <= 40


def test_meshes_are_kept_within_the_limit(folder: Path) -> None:
    paths = [f"{folder / 'chair' / f'{number}.obj'}" for number in range(4)]
    everything = MeshStore(1 << 30)
    sizes = [everything.get(path).nbytes for path in paths]
    assert everything.nbytes == sum(sizes) and len(everything) == 4
    assert everything.get(paths[0]).bvh is everything.get(paths[0]).bvh
    store = MeshStore(sum(sizes[:3]))
    kept = [store.get(path) for path in paths[:3]]
    assert store.get(paths[0]) is kept[0]
    store.get(paths[3])  # drops those that were not asked for longest
    assert store.nbytes <= store.limit and store.get(paths[0]) is kept[0] and store.get(paths[1]) is not kept[1]
    nothing = MeshStore(0)
    nothing.get(paths[0])
    assert len(nothing) == nothing.nbytes == 0
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(store.get, paths * 50))
    assert 0 < store.nbytes <= store.limit


def test_batches_hold_meshes_and_caches(folder: Path, tmp_path: Path, live: Live) -> None:
    cache = tmp_path / "a.npz"
    Shape.from_mesh(folder / "chair" / "3.obj", settings=replace(POOLS, pt_pool=200, ray_pool=40)).save(cache)
    asked = [Request(f"{folder / name / '0.obj'}", "mesh", SETTINGS, live) for name in FAMILIES]
    requests = [asked[0], Request(f"{cache}", "mesh", SETTINGS), *asked[1:]]
    features, types = training_batch(requests, 4, 1, range(10, 14), threads=3)
    alone = training_batch(requests[1:2], 4, 1, [11])
    np.testing.assert_array_equal(features[1], alone[0][0])
    for row in (0, 2, 3):
        wanted = live.sample(requests[row].path, "mesh", SETTINGS, 4, 1, 10 + row)
        np.testing.assert_array_equal(features[row], wanted[0])
        np.testing.assert_array_equal(types[row], wanted[1])
    (tmp_path / "bad.obj").write_text("v 0 0 0\n")
    with pytest.raises(BadShapeError, match=r"bad\.obj: no_faces"):
        training_batch([Request(f"{tmp_path / 'bad.obj'}", "mesh", SETTINGS, live)], 0, 0, [0])


def mix(path: Path, *components: dict[str, object]) -> Path:
    path.write_text(yaml.safe_dump({"datasets": list(components)}))
    return path


def test_a_mix_takes_folders_of_meshes(folder: Path, tmp_path: Path) -> None:
    meshes = {"source": "meshes", "mesh_root": f"{folder}", "split": "train", "backend": "mesh", "test_ratio": 0.25}
    Shape.from_mesh(folder / "chair" / "1.obj", key="chair/1", settings=replace(POOLS, pt_pool=200)).save(
        tmp_path / "cache" / "train" / "chair" / "1.npz"
    )
    cached = {"cache_root": f"{tmp_path / 'cache'}", "split": "train", "backend": "udfgrid", "name": "cached"}
    path = mix(
        tmp_path / "mix.yaml",
        {**meshes, "name": "live", "pools": {"pc_points": 64, "pt_dist_mode": "mesh"}},
        {**meshes, "name": "held out", "split": "test", "weight": 0.0},
        {**cached, "pair": "all"},
        {**meshes, "name": "all", "test_ratio": 0.0},
    )
    corpus = open_corpus(CorpusFlags(mix_config=f"{path}", mix_num_samples=40), SETTINGS, 0)
    live, held_out, scans, everything = corpus.parts
    assert (len(live.paths), len(held_out.paths), len(everything.paths)) == (9, 3, 12)
    assert not {*live.paths} & {*held_out.paths}
    assert live.live is not None and live.live.pools == PoolSettings(pc_points=64, pt_dist_mode="mesh")
    assert held_out.live is not None and held_out.live.store is live.live.store
    assert scans.live is None and scans.partners is not None
    assert everything.paths[scans.partners[0]] == f"{folder / 'chair' / '1.obj'}"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"source": "files"}, "source must be caches or meshes, got 'files'"),
        ({"source": "caches"}, "must give cache_root"),
        ({"cache_root": "here"}, "cache_root is of source caches, and the source is meshes"),
        ({"source": ["meshes"]}, "source must be caches or meshes, got"),
        ({"layout": ["folder"]}, "layout must be one of folder, shapenet"),
        ({"layout": "heap"}, "layout must be one of folder, shapenet"),
        ({"pools": {"pt_pool": 9}}, "pools: unknown key 'pt_pool', known are"),
        ({"pools": {"pc_points": 0}}, "pools: pc_points must be at least 1"),
        ({"pools": {"pc_points": "many"}}, "pools: .*int"),
        ({"test_ratio": 2}, "test_ratio must be a number in"),
    ],
)
def test_mixes_that_cannot_be(changed: dict[str, object], message: str, tmp_path: Path) -> None:
    entry = {"source": "meshes", "mesh_root": "m", "split": "train", "backend": "mesh", **changed}
    with pytest.raises(ValueError, match=message):
        load_mix(mix(tmp_path / "mix.yaml", entry))


def test_one_command_trains_from_a_folder_of_meshes(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["--mesh_root", f"{folder}", "--test_ratio", "0.25", "--n_point", "8", "--n_ray", "4", "--batch", "4"]
    command += ["--d_model", "16", "--layers", "1", "--heads", "2", "--save_dir"]
    assert pretrain.main([*command, f"{tmp_path / 'a'}", "--epochs", "2", "--num_workers", "2"]) == cli.EXIT_OK
    assert "9 shapes as mesh" in capsys.readouterr().out
    assert pretrain.main([*command, f"{tmp_path / 'b'}", "--epochs", "1", "--num_workers", "0"]) == cli.EXIT_OK
    assert pretrain.main([*command, f"{tmp_path / 'b'}", "--epochs", "2", "--num_workers", "0"]) == cli.EXIT_OK
    first, second = ((tmp_path / name / "loss.jsonl").read_text() for name in "ab")
    assert first == second
    assert pretrain.main([*command, f"{tmp_path / 'c'}", "--cache_root", "x"]) == cli.EXIT_USAGE
    assert "mesh_root must be given alone, got cache_root and mesh_root" in capsys.readouterr().err
    assert pretrain.main(["--save_dir", f"{tmp_path / 'c'}", "--mesh_root", f"{tmp_path / 'none'}"]) == cli.EXIT_USAGE
    assert "none is not a folder" in capsys.readouterr().err
