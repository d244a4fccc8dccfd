"""The ONNX model gives torch's embeddings, for any number of samples and points."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh

import nepa3d
from nepa3d import cli
from nepa3d.models.onnx_model import EmbeddingModule
from nepa3d.samples.dataset import SampleSettings, sample_of_answers
from nepa3d.samples.schema import TokenType
from nepa3d.shapes.query_pools import PoolSettings
from tests.inference.small import PARTS, checkpoint

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

POOLS = PoolSettings(pc_points=256, pt_pool=300, ray_pool=60, n_views=4, rays_per_view=15, pc_grid=16, df_grid=16)
BOXES = [
    nepa3d.Shape.from_mesh(trimesh.creation.box((1, 2, size)), key=f"{size}", settings=POOLS) for size in (1, 2, 3)
]


def samples(settings: SampleSettings, view: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Features (N, T, 15) and types (N, T) of the boxes."""
    found = [sample_of_answers(box.name, box.view(view), settings, 0) for box in BOXES[:count]]
    return np.stack([features for features, _ in found]), np.stack([types for _, types in found])


def run(path: Path, features: np.ndarray, types: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(f"{path}", providers=["CPUExecutionProvider"])
    (found,) = session.run(["embeddings"], {"features": features, "types": types})
    assert isinstance(found, np.ndarray)
    return found


@pytest.fixture(scope="module")
def query(tmp_path_factory: pytest.TempPathFactory) -> tuple[nepa3d.Encoder, Path]:
    """The recommended recipe's parts, and its ONNX file."""
    folder = tmp_path_factory.mktemp("onnx")
    encoder = nepa3d.load(checkpoint(folder / "query.pt", wrong=0.1), device="cpu")
    encoder.export_onnx(folder / "query.onnx")
    return encoder, folder / "query.onnx"


def test_any_number_of_samples_and_points(query: tuple[nepa3d.Encoder, Path]) -> None:
    encoder, path = query
    for count, points in ((1, 1), (2, 7), (3, 48), (1, 200)):
        settings = SampleSettings(points, 0, qa=False, eos=True)
        features, types = samples(settings, "pointcloud_noray", count)
        found = run(path, features, types)
        told = replace(encoder.probe, n_point=points)
        expected = nepa3d.Encoder(told).embed(BOXES[:count], "pointcloud_noray")
        np.testing.assert_allclose(found, expected, atol=2e-5)
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    assert np.abs(found - run(path, features + np.float32(0.1), types)).max() > 1e-3  # that the input matters


def test_samples_of_different_types_share_a_batch(query: tuple[nepa3d.Encoder, Path]) -> None:
    _, path = query
    features, types = samples(SampleSettings(6, 4, qa=False, eos=True), "mesh", 2)
    other, blank = samples(SampleSettings(6, 4, qa=False, eos=True, force_missing_ray=True), "mesh", 1)
    mixed = run(path, np.concatenate([features, other]), np.concatenate([types, blank]))
    np.testing.assert_allclose(mixed, np.concatenate([run(path, features, types), run(path, other, blank)]), atol=1e-5)
    assert (types[0] != blank[0]).any()


@pytest.mark.parametrize("ckpt", ["nepa_v1.pt", "nepa_qa.pt"])
def test_models_of_the_document(ckpt: str, golden: Path, tmp_path: Path) -> None:
    encoder = nepa3d.load(ckpt, device="cpu")
    encoder.export_onnx(tmp_path / "model.onnx", pooling="mean_a")
    probe = encoder.probe
    settings = SampleSettings(probe.n_point, probe.n_ray, qa=probe.qa, eos=probe.eos)
    features, types = samples(settings, "mesh", 3)
    expected = encoder.embed(BOXES, "mesh", pooling="mean_a")
    np.testing.assert_allclose(run(tmp_path / "model.onnx", features, types), expected, atol=2e-5)
    fewer = samples(SampleSettings(5, 3, qa=probe.qa, eos=probe.eos), "mesh", 1)
    found = run(tmp_path / "model.onnx", *fewer)
    with torch.no_grad():
        plain = EmbeddingModule(probe.model, "mean_a")(*map(torch.from_numpy, fewer))
    np.testing.assert_allclose(found, plain, atol=2e-5)


@pytest.mark.parametrize("pooling", ["eos", "mean_a", "mean_q", "mean_zhat", "mean_all"])
@pytest.mark.parametrize("representation", ["h", "z_hat"])
def test_the_module_is_the_encoder(pooling: str, representation: str, tmp_path: Path) -> None:
    """Every way of pooling, without the exporter; Q/A tokens, whose questions have answers."""
    told = pooling in ("eos", "mean_a")
    parts = replace(PARTS, prefix_attention=False, interpolation=told, pulled_points=told)
    encoder = nepa3d.load(checkpoint(tmp_path / "query.pt", wrong=0.1, parts=parts), device="cpu")
    encoder = nepa3d.Encoder(replace(encoder.probe, qa=True))
    settings = SampleSettings(encoder.probe.n_point, 0, qa=True, eos=True)
    features, types = samples(settings, "mesh", 3)
    assert (types == TokenType.A_POINT).any()
    module = EmbeddingModule(encoder.probe.model, pooling, representation)  # type: ignore[arg-type]
    with torch.no_grad():
        found = module(torch.from_numpy(features), torch.from_numpy(types))
    expected = encoder.embed(BOXES, "mesh", pooling=pooling, representation=representation)  # type: ignore[arg-type]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_file_says_how_samples_are_made(query: tuple[nepa3d.Encoder, Path]) -> None:
    """And onnxruntime alone, without torch, embeds a mesh by it."""
    encoder, path = query
    script = f"""
import json, sys
import numpy as np, onnxruntime, trimesh
from nepa3d import Shape
from nepa3d.samples.dataset import SampleSettings, sample_of_answers
session = onnxruntime.InferenceSession({str(path)!r})
told = json.loads(session.get_modelmeta().custom_metadata_map["nepa3d"])
settings = SampleSettings(told["n_point"], told["n_ray"], qa=told["qa"], eos=told["eos"])
shape = Shape.from_mesh(trimesh.creation.box((1, 2, 3)), key="box")
features, types = sample_of_answers(shape.name, shape.view("pointcloud_noray"), settings, 0)
(z,) = session.run(None, {{"features": features[None], "types": types[None]}})
assert "torch" not in sys.modules
print(json.dumps(z.tolist()))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    box = nepa3d.Shape.from_mesh(trimesh.creation.box((1, 2, 3)), key="box")
    np.testing.assert_allclose(json.loads(done.stdout), encoder.embed(box, "pointcloud_noray"), atol=2e-5)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from nepa3d.inference import export_onnx as command

    ckpt, out = checkpoint(tmp_path / "query.pt"), tmp_path / "model.onnx"
    flags = ["--ckpt", f"{ckpt}", "--out", f"{out}"]
    assert command.main(flags) == cli.EXIT_OK
    assert "embeddings (N, 16)" in capsys.readouterr().out
    assert out.is_file()
    assert command.main([*flags[:2], "--out", f"{tmp_path}"]) == cli.EXIT_USAGE
    assert "out: expected a file to write to" in capsys.readouterr().err
    for name in ("x.pt", "x"):
        assert command.main([*flags[:2], "--out", f"{tmp_path / name}"]) == cli.EXIT_USAGE
        assert f"out must end in .onnx, got {name!r}" in capsys.readouterr().err
        assert not (tmp_path / name).exists()
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    assert command.main(flags) == cli.EXIT_USAGE
    assert "pip install 'nepa3d[onnx]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("pooling", "keys"), [("mean_q", True), ("mean_zhat", True), ("mean_all", True), ("eos", False)]
)
def test_splines_of_questions_are_refused(pooling: str, keys: bool, tmp_path: Path) -> None:
    parts = replace(PARTS, prefix_attention=False, answer_keys=keys)
    model = nepa3d.load(checkpoint(tmp_path / "query.pt", parts=parts), device="cpu").probe.model
    with pytest.raises(ValueError, match=rf"pooling must be eos or mean_a, .* got {pooling} and {keys:d}"):
        EmbeddingModule(model, pooling)  # type: ignore[arg-type]


def test_another_precision_than_that_of_the_file_is_refused(tmp_path: Path) -> None:
    encoder = nepa3d.load(checkpoint(tmp_path / "query.pt"), device="cpu", precision="bf16")
    with pytest.raises(ValueError, match="precision must be float32"):
        encoder.export_onnx(tmp_path / "query.onnx")
    assert not (tmp_path / "query.onnx").exists()
