"""The recommended recipe as a configuration of ``pretrain``."""

from __future__ import annotations

from pathlib import Path

from nepa3d import cli
from nepa3d.train import pretrain

RECIPE_FILE = "nepa3d/configs/query.yaml"


def recommended(save_dir: Path) -> pretrain.Config:
    """What ``nepa3d pretrain --config nepa3d/configs/query.yaml --save_dir SAVE_DIR`` runs; it lacks a corpus."""
    return cli.parse(pretrain.Config, ["--config", RECIPE_FILE, "--save_dir", f"{save_dir}"])
