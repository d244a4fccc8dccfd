"""The scripts of examples/, at a small size."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import trimesh

import nepa3d

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(name: str, *flags: object) -> str:
    command = [sys.executable, f"{EXAMPLES / name}.py", *map(str, flags)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def meshes(tmp_path: Path) -> Path:
    for kind, make in (("box", trimesh.creation.box), ("ball", trimesh.creation.icosphere)):
        folder = tmp_path / "meshes" / kind
        folder.mkdir(parents=True)
        for i in range(6):
            mesh = make()
            mesh.apply_scale((1, 1 + i / 10, 1 + i / 5))
            mesh.export(folder / f"{kind}{i}.obj")
    return tmp_path / "meshes"


def test_search_meshes(golden: Path, meshes: Path) -> None:
    printed = run(
        "search_meshes", "--ckpt", golden / "nepa_qa.pt", "--folder", meshes, "--query", meshes / "box/box0.obj"
    )
    cosines = [float(line.split()[-1]) for line in printed.splitlines()[2:]]
    assert len(cosines) == 10
    assert cosines == sorted(cosines, reverse=True)


def test_pretrain_own_meshes(meshes: Path, tmp_path: Path) -> None:
    flags = ["--epochs", 1, "--d-model", 32, "--layers", 1, "--n-point", 8, "--n-ray", 8]
    printed = run("pretrain_own_meshes", "--folder", meshes, "--out", tmp_path / "own", *flags)
    assert "plain distances" in printed
    assert nepa3d.load(tmp_path / "own" / "encoder", device="cpu").width == 32


def test_complete_scan(golden: Path, tmp_path: Path) -> None:
    points = trimesh.creation.icosphere().vertices
    np.save(tmp_path / "scan.npy", points)
    encoder = nepa3d.load(golden / "nepa_qa.pt", device="cpu")
    encoder.fit_distance_head(sorted((golden / "unpaired" / "train_udf").rglob("*.npz")))
    encoder.save(tmp_path / "encoder")
    level = float(
        np.median(encoder.complete(nepa3d.Shape.from_cloud(points), np.random.RandomState(0).uniform(-1, 1, (200, 3))))
    )
    flags = ["--scan", tmp_path / "scan.npy", "--out", tmp_path / "out.ply", "--resolution", 12, "--level", level]
    printed = run("complete_scan", "--ckpt", tmp_path / "encoder", *flags)
    assert "triangles" in printed
    assert len(trimesh.load_mesh(tmp_path / "out.ply").faces) > 0
