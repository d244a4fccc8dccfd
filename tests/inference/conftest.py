"""A small folder of shapes, and a small model."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh

from nepa3d.models.encoder import Encoder, load
from nepa3d.shapes.shape import Shape
from tests.conftest import GOLDEN

MOST_UPLOAD = 2.0  # MB that the page of ``explorer`` takes


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


@pytest.fixture(scope="session")
def explorer(made_shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """What a page shows of an index of ``made_shapes``. For tests that need nepa3d[explore,search]."""
    from nepa3d.inference.embedder import IndexSettings
    from nepa3d.inference.explore.explorer import Explorer, Limits
    from nepa3d.inference.explore.uploads import Reader
    from nepa3d.inference.index import ShapeIndex

    model = load(GOLDEN / "nepa_qa.pt")
    model.fit_distance_head([Shape.from_mesh((np.eye(4, 3), [[0, 1, 2], [0, 2, 3], [1, 2, 3]]))], ridge_lambda=1.0)
    path = tmp_path_factory.mktemp("explore") / "shapes.lance"
    index = ShapeIndex.create(path, made_shapes, model, IndexSettings(draws=1))
    index.update()
    with Reader() as reader:
        yield Explorer(index, reader, Limits(neighbours=3, resolution=8, max_upload_mb=MOST_UPLOAD))


@pytest.fixture
def server(explorer: Any) -> Iterator[Any]:
    """Its page, served on a free port."""
    from nepa3d.inference.explore import page

    with page.served(explorer, "localhost", 0) as served:
        yield served


def gui_of(server: Any) -> Any:
    """The widgets of the first client."""
    return next(iter(server.get_clients().values())).gui


def wait_for(condition: Callable[[], object]) -> None:
    for _ in range(1800):
        if condition():
            return
        threading.Event().wait(0.1)
    pytest.fail("it did not come to be within three minutes")


def write_box(path: Path, length: float) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    trimesh.creation.box((1, 2, length)).export(path)
    return path


def write_cloud(path: Path, points: np.ndarray) -> Path:
    header = f"ply\nformat ascii 1.0\nelement vertex {len(points)}\n"
    header += "".join(f"property float {axis}\n" for axis in "xyz") + "end_header\n"
    path.write_text(header + "".join(f"{x} {y} {z}\n" for x, y, z in points), encoding="utf-8")
    return path
