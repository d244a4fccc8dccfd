"""The package as a library: shapes in memory, an encoder, embeddings, distances, surfaces."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh

import nepa3d
from nepa3d.data import preprocess_scanobjectnn, preprocess_shapenet
from nepa3d.probes.embedding import EmbeddingSettings, View, embed
from nepa3d.shapes.query_pools import PoolSettings
from nepa3d.shapes.views import BACKENDS, VoxelSettings, read_answers

POOLS = PoolSettings(pc_points=256, pt_pool=600, ray_pool=60, n_views=4, rays_per_view=15, pc_grid=16, df_grid=16)
CKPT = "nepa_qa.pt"


def box(name: str = "box", size: tuple[float, float, float] = (1, 2, 3)) -> nepa3d.Shape:
    return nepa3d.Shape.from_mesh(trimesh.creation.box(size), key=name, settings=POOLS)


def test_importing_loads_neither_torch_nor_kernels() -> None:
    script = "import sys, nepa3d; print([m for m in ('torch', 'numpy', 'trimesh', 'nepa3d.ops') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    data_side = "import sys, nepa3d; nepa3d.Shape, nepa3d.ops.voxelize; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", data_side], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
    assert {"Encoder", "Shape", "load", "ops"} <= set(dir(nepa3d))
    with pytest.raises(AttributeError, match="no attribute 'Decoder'"):
        _ = nepa3d.Decoder  # type: ignore[attr-defined]


def test_a_model_is_loaded_without_the_compiler_of_torch() -> None:
    """Which takes as long to import as the rest of it."""
    code = "import sys; import nepa3d.train.pretrain, nepa3d.models.encoder; print('torch._dynamo' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "False"


def test_a_shape_is_what_the_cache_file_has(tmp_path: Path) -> None:
    mesh = tmp_path / "meshes" / "box" / "one" / "models" / "model_normalized.obj"
    mesh.parent.mkdir(parents=True)
    trimesh.creation.box((1, 2, 3)).export(mesh)
    flags = ["--shapenet_root", f"{tmp_path / 'meshes'}", "--out_root", f"{tmp_path / 'cache'}", "--seed", "3"]
    flags += ["--pc_points", "256", "--pt_pool", "600", "--ray_pool", "60", "--n_views", "4", "--rays_per_view", "15"]
    assert preprocess_shapenet.main([*flags, "--pc_grid", "16", "--df_grid", "16", "--workers", "1"]) == 0
    (file,) = (tmp_path / "cache").glob("train/*/*.npz")
    nepa3d.Shape.from_mesh(mesh, key="box/one", settings=POOLS, seed=3).save(tmp_path / "again.npz")
    assert (tmp_path / "again.npz").read_bytes() == file.read_bytes()


def test_a_cloud_is_what_the_cache_of_the_scan_has(tmp_path: Path) -> None:
    import h5py

    points = np.random.RandomState(0).standard_normal((1, 200, 3)).astype(np.float32)
    with h5py.File(tmp_path / "train_scans.h5", "w") as file:
        file["data"], file["label"] = points, [4]
    flags = ["--scan_root", f"{tmp_path}", "--out_root", f"{tmp_path / 'cache'}", "--split", "train", "--workers", "1"]
    assert preprocess_scanobjectnn.main(flags) == 0
    (file_made,) = (tmp_path / "cache").glob("train/*/*.npz")
    key = f"{file_made.parent.name}/{file_made.stem}"
    nepa3d.Shape.from_cloud(points[0], key=key).save(tmp_path / "again.npz")
    assert (tmp_path / "again.npz").read_bytes() == file_made.read_bytes()


@pytest.mark.parametrize("view", BACKENDS)
def test_views_are_those_of_the_file(golden: Path, view: str) -> None:
    path = "cache/train/kitchen/Blend_Swap_CC_0_stool.npz"
    ours, theirs = nepa3d.Shape.from_cache(path).view(view), read_answers(path, view)
    for field in theirs.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(ours, field), getattr(theirs, field))


def test_what_makes_a_shape() -> None:
    mesh = trimesh.creation.box((1, 2, 3))
    one, other = box(), nepa3d.Shape.from_mesh((mesh.vertices, mesh.faces), key="box", settings=POOLS)
    assert all(np.array_equal(one[key], other[key]) for key in one)
    assert repr(one) == "Shape('box', 256 points, 600 point queries, 60 rays)"
    cloud = nepa3d.Shape.from_cloud(mesh.vertices, mesh.vertex_normals)
    np.testing.assert_array_equal(cloud["pc_n"], mesh.vertex_normals.astype(np.float32))
    assert not cloud.view("pointcloud_noray").rays_available


def test_what_makes_no_shape(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere.obj: unreadable: there is no such file"):
        nepa3d.Shape.from_mesh("nowhere.obj")
    with pytest.raises(ValueError, match=r"mesh: no_faces: 3 vertices and no face"):
        nepa3d.Shape.from_mesh((np.eye(3), np.empty((0, 3), int)))
    with pytest.raises(ValueError, match=r"xyz must have shape \(N, 3\) with N at least 1, got \(3,\)"):
        nepa3d.Shape.from_cloud([1, 2, 3])
    with pytest.raises(ValueError, match="normals must be finite and have the shape of xyz"):
        nepa3d.Shape.from_cloud(np.eye(3), np.eye(3)[:2])
    with pytest.raises(ValueError, match="there is no such file"):
        nepa3d.Shape.from_cache(tmp_path / "none.npz")
    with pytest.raises(ValueError, match="cloud: pt_dist_udf_pool is missing"):
        nepa3d.Shape.from_cloud(np.eye(3))["pt_dist_udf_pool"]


@pytest.mark.parametrize("ckpt", ["nepa_v1.pt", "nepa_qa.pt"])
def test_embeddings_are_those_of_retrieval(golden: Path, ckpt: str) -> None:
    encoder = nepa3d.load(ckpt, device="cpu")
    paths = sorted(f"{path}" for path in Path("unpaired/eval").rglob("*.npz"))
    theirs = embed(encoder.probe, paths, View("mesh", 5), EmbeddingSettings(draws=2), {})
    from_files = encoder.embed(paths, draws=2, seed=5)
    np.testing.assert_allclose(from_files, theirs.vectors, atol=1e-6)
    in_memory = encoder.embed(map(nepa3d.Shape.from_cache, paths), draws=2, seed=5, batch=3)
    np.testing.assert_allclose(in_memory, from_files, atol=1e-6)
    assert (from_files.shape, from_files.dtype) == ((len(paths), encoder.width), np.float32)
    np.testing.assert_allclose(np.linalg.norm(from_files, axis=1), 1, atol=1e-6)
    settings = EmbeddingSettings(pooling="mean_zhat")
    predicted = encoder.embed(paths, seed=5, pooling="mean_zhat")
    np.testing.assert_allclose(predicted, embed(encoder.probe, paths, View("mesh", 5), settings, {}).vectors, atol=1e-6)
    of_states = encoder.embed(paths, seed=5, pooling="mean_zhat", representation="h")
    np.testing.assert_array_equal(of_states, predicted)  # it is the mean of predictions, whatever is asked
    assert settings.report(encoder.probe)["representation"] == "z_hat"


def test_anything_that_is_a_shape_is_embedded(golden: Path, tmp_path: Path) -> None:
    encoder = nepa3d.load(CKPT, device="cpu")
    trimesh.creation.box((1, 2, 3)).export(tmp_path / "box.obj")
    path = "cache/train/kitchen/Blend_Swap_CC_0_stool.npz"
    mixed = encoder.embed([tmp_path / "box.obj", path, box()], "pointcloud_noray", pooling="mean_a")
    alone = [
        encoder.embed(shape, "pointcloud_noray", pooling="mean_a") for shape in (tmp_path / "box.obj", path, box())
    ]
    np.testing.assert_allclose(mixed, np.concatenate(alone), atol=1e-6)
    assert encoder.embed([]).shape == (0, encoder.width)
    with pytest.raises(ValueError, match=r"view must be one of mesh, .* got 'sdf'"):
        encoder.embed([path], "sdf")
    with pytest.raises(ValueError, match="draws must be at least 1, got 0"):
        encoder.embed([path], draws=0)


@pytest.mark.parametrize(
    "given",
    [
        [np.zeros((10, 3))],
        (np.eye(3), np.array([[0, 1, 2]])),
        np.zeros((10, 3)),
        trimesh.creation.box((1, 2, 3)),
        ["chair.obj", None],
    ],
    ids=["list", "mesh", "cloud", "trimesh", "none"],
)
def test_what_is_no_shape_is_refused(given: Any) -> None:
    told = (
        r"^expected a shape, which is a Shape or a path, got \w+; Shape\.from_cloud and Shape\.from_mesh make a Shape"
    )
    encoder = nepa3d.load("furniture-small")
    for call in (encoder.embed, encoder.fit_distance_head, encoder.field):
        with pytest.raises(ValueError, match=told):
            call(given)


def test_distances_and_surfaces(golden: Path) -> None:
    encoder = nepa3d.load(CKPT, device="cpu")
    encoder.fit_distance_head(sorted(Path("unpaired/train_udf").rglob("*.npz")))
    shape = nepa3d.Shape.from_cache(min(Path("unpaired/eval").rglob("*.npz")))
    queries, true = shape["pt_xyz_pool"][::2], shape["pt_dist_udf_pool"][::2]
    found = encoder.complete(shape, queries)
    assert (found.shape, found.dtype, np.isfinite(found).all()) == (true.shape, np.float32, True)
    assert np.abs(found - true).mean() < np.abs(true.mean() - true).mean()  # better than a constant
    np.testing.assert_array_equal(encoder.complete(shape, queries, batch=1), found)
    assert encoder.complete(shape, np.empty((0, 3))).shape == (0,)
    level = float(np.median(encoder.complete(shape, queries)))
    mesh = encoder.surface(shape, resolution=12, level=level)
    assert len(mesh.faces) > 0
    assert np.abs(mesh.vertices).max() <= 1
    with pytest.raises(ValueError, match="the predicted distance is 99 nowhere"):
        encoder.surface(shape, resolution=8, level=99)
    with pytest.raises(ValueError, match=r"queries must be finite and have shape \(M, 3\), got \(3,\)"):
        encoder.complete(shape, [0, 0, 0])
    with pytest.raises(ValueError, match="n_context must be from 1 to 47 for this model, got 48"):
        encoder.complete(shape, queries, n_context=48)
    small = nepa3d.Shape({key: shape[key][:20] if key.startswith("pt_") else shape[key] for key in shape}, "small")
    with pytest.raises(
        ValueError, match="n_context must be at most 20, the points at which small has distances, got 30"
    ):
        encoder.complete(small, queries, n_context=30)


@pytest.mark.parametrize("call", ["complete", "field", "fit_distance_head", "embed", "surface"])
@pytest.mark.parametrize("batch", [0, -1])
def test_a_batch_holds_something(call: str, batch: int) -> None:
    """Of a batch of -1, ``complete`` once returned memory that nothing was written to."""
    encoder = nepa3d.load("furniture-small")
    given = {"complete": (box(), np.zeros((4, 3))), "fit_distance_head": ([box()],)}.get(call, (box(),))
    with pytest.raises(ValueError, match=f"batch must be at least 1, got {batch}"):
        getattr(encoder, call)(*given, batch=batch)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"pooling": "cls"}, "pooling must be one of eos, mean_a, mean_q, mean_zhat, mean_all, got 'cls'"),
        ({"representation": "zhat"}, "representation must be one of h, z_hat, got 'zhat'"),
    ],
)
def test_what_an_embedding_cannot_be(given: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        nepa3d.load("furniture-small").embed(box(), "pointcloud_noray", **given)


def test_a_precision_that_there_is_not() -> None:
    with pytest.raises(ValueError, match="precision must be one of float32, bf16, got 'fp16'"):
        nepa3d.load("furniture-small", precision="fp16")  # type: ignore[arg-type]


def test_queries_are_of_the_normalised_shape() -> None:
    encoder = nepa3d.load("furniture-small")
    with pytest.raises(ValueError, match=r"queries must lie in \[-1, 1\]\^3, .* with a coordinate of 50"):
        encoder.complete(box(), [[0, 0, 0], [0, -50, 0]])
    assert encoder.complete(box(), [[1, 1, -1]]).shape == (1,)


def test_a_head_is_fitted_on_one_shape_or_several(golden: Path) -> None:
    one, several = nepa3d.load(CKPT, device="cpu"), nepa3d.load(CKPT, device="cpu")
    one.fit_distance_head(box())
    several.fit_distance_head([box()])
    np.testing.assert_array_equal(one.distance_head(), several.distance_head())
    with pytest.raises(ValueError, match="shapes must not be empty"):
        one.fit_distance_head([])


def test_a_cloud_has_no_rays(golden: Path) -> None:
    """Its cache holds rays without a direction, which a model would take for rays that hit nothing."""
    cloud = nepa3d.Shape.from_cloud(box()["pc_xyz"])
    with pytest.raises(ValueError, match="cloud: ray_d_pool has directions of length 0, as that of a scan"):
        nepa3d.load(CKPT, device="cpu").embed(cloud)
    assert nepa3d.load(CKPT, device="cpu").embed(cloud, "pointcloud_noray").shape == (1, 32)
    assert nepa3d.load("furniture-small").embed(cloud).shape == (1, 128)  # which asks no rays


def test_a_file_is_read_as_what_it_holds(tmp_path: Path) -> None:
    """Meshes as ``from_mesh`` has them, with rays; clouds as ``from_scan`` has them."""
    encoder, mesh = nepa3d.load("furniture-small"), trimesh.creation.icosphere(subdivisions=2)
    mesh.export(tmp_path / "a.ply")
    trimesh.PointCloud(mesh.vertices).export(tmp_path / "b.ply")
    np.savetxt(tmp_path / "c.xyz", mesh.vertices)
    for name, direct in (
        ("a.ply", nepa3d.Shape.from_mesh),
        ("b.ply", nepa3d.Shape.from_scan),
        ("c.xyz", nepa3d.Shape.from_scan),
    ):
        path = tmp_path / name
        found, wanted = nepa3d.Shape.from_file(path), direct(path)
        assert found.name == wanted.name == path.stem
        assert all(np.array_equal(found[key], wanted[key]) for key in wanted)
        assert found.points_read == wanted.points_read
        np.testing.assert_array_equal(encoder.embed(path), encoder.embed(wanted))
    assert encoder.complete(tmp_path / "c.xyz", np.zeros((1, 3))).shape == (1,)
    with pytest.raises(ValueError, match=r"d\.xyz: unreadable: there is no such file"):
        encoder.embed(tmp_path / "d.xyz")


def test_voxels_are_those_of_training(golden: Path) -> None:
    shape = nepa3d.Shape.from_cache(min(Path("unpaired/eval").rglob("*.npz")))
    usual, coarse = nepa3d.load(CKPT, device="cpu"), nepa3d.load(CKPT, device="cpu")
    coarse.probe = replace(coarse.probe, args={**coarse.probe.args, "voxel_grid": 8})
    assert coarse.voxel == VoxelSettings(8, usual.voxel.dilate, usual.voxel.max_steps)
    for view, same in (("voxel", False), ("mesh", True)):
        assert np.array_equal(usual.embed([shape], view), coarse.embed([shape], view)) == same
    told = [encoder.field(shape, view="voxel").answers.point_distance for encoder in (usual, coarse)]
    assert not np.array_equal(*told)


def test_questions_that_are_asked_alone_may_be_asked_together(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, points = nepa3d.load("furniture-small"), np.random.default_rng(0).uniform(-1, 1, (60, 3))
    together = encoder.complete(box(), points)
    monkeypatch.setattr("nepa3d.models.distances.TOGETHER", 1)
    settings = replace(encoder.sequence("pointcloud_noray"), n_query=7)
    monkeypatch.setattr(encoder, "sequence", lambda *_: settings)
    np.testing.assert_allclose(encoder.complete(box(), points), together, rtol=0, atol=1e-5)


def test_a_head_of_built_in_shapes_serves_where_none_was_fitted(golden: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nepa3d.models.encoder.BUILT_IN", 3)
    encoder, again = nepa3d.load(CKPT, device="cpu"), nepa3d.load(CKPT, device="cpu")
    again.fit_distance_head()
    assert again.distances_by == "a head fitted on 3 built-in shapes"
    again.fit_distance_head([box()])
    assert again.distances_by == "a fitted head"
    again.fit_distance_head()
    np.testing.assert_array_equal(encoder.complete(box(), np.eye(3)), again.complete(box(), np.eye(3)))


def test_a_saved_encoder_is_the_same(golden: Path, tmp_path: Path) -> None:
    encoder = nepa3d.load(CKPT, device="cpu")
    encoder.fit_distance_head([box(), box("other", (1, 1, 1))])
    encoder.save(tmp_path / "saved")
    assert sorted(path.name for path in (tmp_path / "saved").iterdir()) == ["config.json", "model.safetensors"]
    again = nepa3d.load(tmp_path / "saved", device="cpu")
    np.testing.assert_array_equal(again.embed(box()), encoder.embed(box()))
    np.testing.assert_array_equal(again.complete(box(), np.eye(3)), encoder.complete(box(), np.eye(3)))
    args = json.loads((tmp_path / "saved" / "config.json").read_text())["args"]
    assert args["qa_tokens"] == 1
    assert {"save_dir", "mix_config"} <= encoder.probe.args.keys() - args.keys()  # it tells nothing of its maker's disk


def test_what_is_loaded(golden: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "last.pt").write_bytes(Path(CKPT).read_bytes())
    np.testing.assert_array_equal(
        nepa3d.load(tmp_path / "run", device="cpu").embed(box()), nepa3d.load(CKPT, device="cpu").embed(box())
    )
    with pytest.raises(ValueError, match=r"expected a checkpoint, a folder with config\.json or last\.pt"):
        nepa3d.load(tmp_path / "nowhere")
    nepa3d.load(CKPT, device="cpu").save(tmp_path / "saved")
    weights = tmp_path / "saved" / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"model.safetensors: "):
        nepa3d.load(tmp_path / "saved", device="cpu")
    weights.unlink()
    with pytest.raises(ValueError, match="there is no such file"):
        nepa3d.load(tmp_path / "saved", device="cpu")
    (tmp_path / "saved" / "config.json").write_text('{"format": 9, "args": {}}')
    with pytest.raises(ValueError, match=r"config.json: expected an object with format 1 and args"):
        nepa3d.load(tmp_path / "saved", device="cpu")
    (tmp_path / "saved" / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config.json: "):
        nepa3d.load(tmp_path / "saved", device="cpu")


def test_a_hub_is_asked_only_where_its_library_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ValueError, match=r"huggingface_hub is not installed: pip install 'nepa3d\[hub\]'"):
        nepa3d.load("hf://somebody/model")


def test_a_hub_repository_is_a_folder(golden: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nepa3d.load(CKPT, device="cpu").save(tmp_path)
    asked: list[str] = []

    class Hub:
        @staticmethod
        def snapshot_download(name: str, allow_patterns: list[str]) -> str:
            asked.append(name)
            return f"{tmp_path}"

    monkeypatch.setitem(sys.modules, "huggingface_hub", Hub)
    assert nepa3d.load("hf://somebody/model", device="cpu").width == 32
    assert asked == ["somebody/model"]


def test_half_precision_is_near(golden: Path) -> None:
    full, half = (nepa3d.load(CKPT, device="cpu", precision=precision) for precision in ("float32", "bf16"))
    assert (full.embed(box()) * half.embed(box())).sum() > 0.99
    assert torch.is_grad_enabled()
    assert replace(full.probe, precision="bf16").precision == "bf16"
