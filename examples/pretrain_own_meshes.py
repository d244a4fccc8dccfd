"""Turn a folder of meshes into a cache, pretrain a model on it, and compare it with its controls.

Meshes lie as <folder>/<class>/<name>.obj (other formats: ``--mesh_glob "*/*.stl"``, for example).

python examples/pretrain_own_meshes.py --folder meshes --out runs/own
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

import nepa3d
from nepa3d.corpora.shape_list import list_shapes
from nepa3d.data import preprocess_shapenet
from nepa3d.probes import retrieval
from nepa3d.train import pretrain


@dataclass(frozen=True)
class Config:
    """Turn a folder of meshes into a cache, pretrain a model on it, and compare it with its controls."""

    folder: Path
    """Folder of meshes, one folder a class."""
    out: Path
    """Folder of the cache, the run and the saved encoder."""
    mesh_glob: str = "*/*.obj"
    """Where the meshes are below the folder."""
    epochs: int = 50
    """Passes over the meshes."""
    d_model: int = 128
    """Width of the model."""
    layers: int = 4
    """Depth of the model."""
    n_point: int = 128
    """Point queries a sample."""
    n_ray: int = 128
    """Ray queries a sample."""


def main(config: Config) -> None:
    """Preprocess, pretrain, save the encoder, and print the retrieval probe."""
    cache, run = config.out / "cache", config.out / "run"
    flags = ["--shapenet_root", f"{config.folder}", "--out_root", f"{cache}", "--mesh_glob", config.mesh_glob]
    done = preprocess_shapenet.main([*flags, "--test_ratio", "0.2", "--workers", "2"])
    if done not in (0, 3):  # 3: some meshes could not be used, and are listed
        raise SystemExit(done)
    flags = ["--cache_root", f"{cache}", "--backend", "mesh", "--save_dir", f"{run}", "--qa_tokens", "1"]
    flags += ["--d_model", f"{config.d_model}", "--layers", f"{config.layers}", "--heads", "4", "--batch", "16"]
    flags += ["--n_point", f"{config.n_point}", "--n_ray", f"{config.n_ray}", "--epochs", f"{config.epochs}"]
    done = pretrain.main([*flags, "--dual_mask_near", "0.4", "--dual_mask_far", "0.1"])
    if done:
        raise SystemExit(done)
    encoder = nepa3d.load(run)
    encoder.save(config.out / "encoder")
    views = retrieval.RetrievalSettings(query_view="mesh", gallery_view="pointcloud_noray")
    print(retrieval.text(retrieval.run(encoder, list_shapes(f"{cache}", "test"), views)))


if __name__ == "__main__":
    main(tyro.cli(Config))
