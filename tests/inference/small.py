"""A small untrained model whose predictions are those of its context's spline, as a checkpoint file."""

from __future__ import annotations

from pathlib import Path

import torch

from nepa3d.cli import flags
from nepa3d.models.checkpoint import Checkpoint, model_for, save_checkpoint
from nepa3d.models.query_nepa import ArchitectureFlags

PARTS = ArchitectureFlags(
    token_features="fourier",
    bound_answers=True,
    position_embedding=False,
    type_std=0.02,
    answer_keys=True,
    prefix_attention=True,
    kernel_attention=True,
    final_norm=True,
    answer_head=True,
    answer_views=("pointcloud_noray", "mesh"),
    interpolation=True,
)


def checkpoint(
    path: Path,
    *,
    answer_loss: str = "l1",
    wrong: float = 0.0,
    doubt: float = 0.0,
    parts: ArchitectureFlags = PARTS,
) -> Path:
    """The file; ``wrong`` and ``doubt`` are the standard deviations of the answer head's weights, of distances and of
    the logarithms of their scales."""
    sizes = {"d_model": 16, "layers": 2, "heads": 4, "n_point": 48, "n_ray": 0, "qa_tokens": 0, "add_eos": 1}
    args = sizes | {"answer_loss": answer_loss} | flags.spellings(parts)
    torch.manual_seed(0)
    model = model_for(args)
    with torch.no_grad():
        for rows, deviation in zip(model.answer_head.weight.split(model.heads), (wrong, doubt), strict=True):
            rows.copy_(deviation * torch.randn(rows.shape))
    save_checkpoint(path, Checkpoint(model.state_dict(), {}, None, args, 0, 0))
    return path
