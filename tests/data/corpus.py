"""A tiny mesh corpus in ShapeNet's layout and the flags that preprocess it in a moment."""

from __future__ import annotations

import hashlib
import os
import signal
from pathlib import Path

TETRAHEDRON = "v 0 0 0\nv {0} 0 0\nv 0 1 0\nv 0 0 1\nf 1 3 2\nf 1 2 4\nf 1 4 3\nf 2 3 4\n"
SMALL = ["--pc_points", "64", "--pt_pool", "100", "--ray_pool", "40", "--n_views", "4", "--rays_per_view", "10"]
SMALL += ["--pc_grid", "8", "--df_grid", "8", "--dist_ref_points", "128"]


def write_mesh(root: Path, key: str, content: str) -> Path:
    """A mesh file of shape ``key`` ("synset/model")."""
    path = root / key / "models" / "model_normalized.obj"
    path.parent.mkdir(parents=True)
    path.write_text(content)
    return path


def make_corpus(root: Path, **counts: int) -> Path:
    """``counts`` tetrahedra, each of another shape, a synset."""
    for synset, count in counts.items():
        for i in range(count):
            write_mesh(root, f"{synset}/m{i:02d}", TETRAHEDRON.format(1 + i / 10))
    return root


def cache_bytes(root: Path) -> dict[str, str]:
    """A digest of each cache file as it lies on disk, by its path below ``root``."""
    paths = sorted(root.glob("*/*/*.npz"))
    return {f"{path.relative_to(root)}": hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def touch_or_die(job: tuple[str, str]) -> str:
    """A shape's work in a named folder; the one called "segfault" takes its process down."""
    name, folder = job
    if name == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    Path(folder, name).touch()
    return ""
