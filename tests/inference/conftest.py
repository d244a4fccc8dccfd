"""A small folder of shapes, and a small model."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import trimesh

from nepa3d.models.encoder import Encoder, load
from tests.conftest import GOLDEN


@pytest.fixture(scope="session")
def ckpt() -> Path:
    return GOLDEN / "nepa_v1.pt"


@pytest.fixture(scope="session")
def encoder(ckpt: Path) -> Encoder:
    return load(ckpt)


@pytest.fixture(scope="session")
def made_shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of meshes, a cloud and a cache; read only."""
    root = tmp_path_factory.mktemp("made") / "shapes"
    for number in range(3):
        write_box(root / "box" / f"b{number}.obj", 1 + number)
    write_box(root / "box" / "more" / "deep.stl", 5)
    sphere = trimesh.creation.icosphere(2)
    (root / "ball").mkdir()
    sphere.export(root / "ball" / "mesh.ply")
    write_cloud(root / "ball" / "scan.ply", sphere.sample(500, seed=0))
    cache = GOLDEN / "cache" / "train" / "kitchen" / "Blend_Swap_CC_0_stool.npz"
    (root / "ball" / "stool.npz").write_bytes(cache.read_bytes())
    return root


@pytest.fixture
def shapes(made_shapes: Path, tmp_path: Path) -> Path:
    """A copy of them, with their times."""
    return Path(shutil.copytree(made_shapes, tmp_path / "shapes"))


def write_box(path: Path, length: float) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    trimesh.creation.box((1, 2, length)).export(path)
    return path


def write_cloud(path: Path, points: np.ndarray) -> Path:
    header = f"ply\nformat ascii 1.0\nelement vertex {len(points)}\n"
    header += "".join(f"property float {axis}\n" for axis in "xyz") + "end_header\n"
    path.write_text(header + "".join(f"{x} {y} {z}\n" for x, y, z in points), encoding="utf-8")
    return path
