"""Checkpoints: written whole or not at all, loaded without running code, and checked before use.

A file is a dict of ``model`` and ``opt`` (state dicts), ``scaler`` (state dict or None), ``args`` (plain values),
``epoch`` (the last one finished) and ``step`` (optimiser steps done).
"""

from __future__ import annotations

import os
import pickle
import zipfile
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch

from nepa3d.data.files import atomic_open
from nepa3d.models.query_nepa import QueryNepa
from nepa3d.token.schema import sequence_length


@dataclass(frozen=True)
class Checkpoint:
    """The content of a checkpoint file."""

    model: dict[str, torch.Tensor]
    opt: dict[str, Any]
    scaler: dict[str, Any] | None
    args: dict[str, Any]
    epoch: int
    step: int
    path: str = ""


def save_checkpoint(path: str | os.PathLike[str], checkpoint: Checkpoint) -> None:
    """Write a checkpoint under a temporary name, sync it and rename it over ``path``."""
    content = {f.name: getattr(checkpoint, f.name) for f in fields(Checkpoint) if f.name != "path"}
    with atomic_open(path) as file:
        torch.save(content, file)


def load_checkpoint(path: str | os.PathLike[str], device: str | torch.device = "cpu") -> Checkpoint:
    """Read a checkpoint; ``ValueError`` naming the file on one that is missing, damaged, unsafe or no checkpoint."""
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: there is no such checkpoint file")
    try:
        content = torch.load(path, map_location=device, weights_only=True)
    except (RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
        first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path}: not a readable checkpoint: {first_line}") from error
    wanted = {"model": dict, "opt": dict, "args": dict, "epoch": int, "step": int}
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a dict, got {type(content).__name__}")
    for key, kind in wanted.items():
        if not isinstance(content.get(key), kind):
            raise ValueError(f"{path}: expected {key} to be a {kind.__name__}, got {type(content.get(key)).__name__}")
    return Checkpoint(**{key: content[key] for key in wanted}, scaler=content.get("scaler"), path=str(path))


def model_for(args: dict[str, Any]) -> QueryNepa:
    """A fresh model of the size that a run's ``args`` ask for."""
    qa = bool(args.get("qa_tokens", 0))
    return QueryNepa(
        d_model=args["d_model"],
        n_types=9 if qa else 5,
        nhead=args["heads"],
        num_layers=args["layers"],
        max_len=sequence_length(args["n_point"], args["n_ray"], qa=qa, eos=bool(args.get("add_eos", 1))),
    )


def build_model(checkpoint: Checkpoint) -> QueryNepa:
    """The checkpoint's model in evaluation mode, its sizes read off the weights."""
    state = checkpoint.model
    name = checkpoint.path or "checkpoint"
    missing = [key for key in ("pos_emb", "type_emb.weight", "token_mlp.0.weight") if key not in state]
    if missing or "heads" not in checkpoint.args:
        raise ValueError(f"{name}: not a QueryNepa checkpoint, it lacks {', '.join(missing) or 'args.heads'}")
    d_model, feat_dim = state["token_mlp.0.weight"].shape
    layers = {key.split(".")[3] for key in state if key.startswith("backbone.enc.layers.")}
    hidden = state["backbone.enc.layers.0.linear1.weight"].shape[0] if layers else 4 * d_model
    model = QueryNepa(
        feat_dim=feat_dim,
        d_model=d_model,
        n_types=state["type_emb.weight"].shape[0],
        nhead=checkpoint.args["heads"],
        num_layers=len(layers),
        mlp_ratio=hidden / d_model,
        max_len=state["pos_emb"].shape[1],
    )
    load_weights(model, checkpoint)
    return model.to(state["pos_emb"].device).eval()


def load_weights(model: QueryNepa, checkpoint: Checkpoint) -> None:
    """Fill ``model``; ``ValueError`` listing every key that is missing, unexpected or of another size."""
    expected, got = model.state_dict(), checkpoint.model
    faults = [f"{key} is missing" for key in expected if key not in got]
    faults += [f"{key} is unexpected" for key in got if key not in expected]
    faults += [
        f"{key}: expected {tuple(expected[key].shape)}, got {tuple(got[key].shape)}"
        for key in expected
        if key in got and expected[key].shape != got[key].shape
    ]
    if faults:
        raise ValueError(f"{checkpoint.path or 'checkpoint'}: does not fit the model: {'; '.join(faults)}")
    model.load_state_dict(got)
