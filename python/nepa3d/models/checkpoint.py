"""Checkpoints: written whole or not at all, loaded without running code, and checked before use.

A file is a dict of ``model`` and ``opt`` (state dicts), ``scaler`` (state dict or None), ``args`` (plain values),
``epoch`` (the last one finished) and ``step`` (optimiser steps done); with averaged weights also ``ema``.
"""

from __future__ import annotations

import io
import os
import pickle
import struct
import zipfile
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch

from nepa3d.cli import flags
from nepa3d.execution.files import atomic_open
from nepa3d.models import plain_values
from nepa3d.models.query_nepa import ArchitectureFlags, QueryNepa
from nepa3d.samples.schema import N_TYPES_PLAIN, N_TYPES_QA, sequence_length

# the weights that tell the model's sizes, and how many axes they have
_SIZES = {"type_emb.weight": 2, "token_mlp.0.weight": 2, "backbone.enc.layers.0.linear1.weight": 2}
# what zipfile and torch raise on damaged bytes in memory, the last three on pickles that nobody wrote in earnest
_DAMAGE = (
    *(zipfile.BadZipFile, pickle.UnpicklingError, RuntimeError, ValueError, LookupError, EOFError, struct.error),
    *(TypeError, AttributeError, AssertionError),
)


@dataclass(frozen=True)
class Checkpoint:
    """The content of a checkpoint file."""

    model: dict[str, torch.Tensor]
    opt: dict[str, Any]
    scaler: dict[str, Any] | None
    args: dict[str, Any]
    epoch: int
    step: int
    ema: dict[str, Any] | None = None  # the state of averaged weights
    batches: int | None = None  # done of the epoch after ``epoch``; None where the file does not say
    path: str = ""


def save_checkpoint(path: str | os.PathLike[str], checkpoint: Checkpoint) -> None:
    """Write a checkpoint under a temporary name, sync it and rename it over ``path``.

    ``OSError`` naming ``path`` and the size if that fails; a file of that name is then as it was.
    """
    content = {f.name: getattr(checkpoint, f.name) for f in fields(Checkpoint) if f.name != "path"}
    may_lack = ("ema", "batches")
    write_tensors(path, {name: value for name, value in content.items() if name not in may_lack or value is not None})


def write_tensors(path: str | os.PathLike[str], content: dict[str, Any]) -> None:
    """Write tensors and plain values, whole or not at all; ``OSError`` naming ``path`` and the size."""
    buffer = io.BytesIO()  # torch.save to a file hides why writing failed
    torch.save(content, buffer)
    try:
        with atomic_open(path) as file:
            file.write(buffer.getbuffer())
    except OSError as error:
        reason = f"{error.strerror}, writing a checkpoint of {buffer.tell()} bytes"
        raise OSError(error.errno, reason, os.fspath(path)) from error


def load_checkpoint(path: str | os.PathLike[str], device: str | torch.device = "cpu") -> Checkpoint:
    """Read a checkpoint; ``ValueError`` naming the file on one that is missing, damaged, unsafe or no checkpoint."""
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: there is no such checkpoint file")
    content = read_tensors(path, device)
    wanted = {"model": dict, "opt": dict, "args": dict, "epoch": int, "step": int}
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a dict, got {type(content).__name__}")
    _require_no_classifier(path, content)
    for key, kind in wanted.items():
        if not isinstance(content.get(key), kind):
            raise ValueError(f"{path}: expected {key} to be a {kind.__name__}, got {type(content.get(key)).__name__}")
    for key, value in content["model"].items():
        if not isinstance(value, torch.Tensor):
            raise ValueError(f"{path}: expected model.{key} to be a tensor, got {type(value).__name__}")
    scaler, ema, batches = (content.get(key) for key in ("scaler", "ema", "batches"))
    if not isinstance(batches, int | None):
        raise ValueError(f"{path}: expected batches to be an int, got {type(batches).__name__}")
    return Checkpoint(**{key: content[key] for key in wanted}, scaler=scaler, ema=ema, batches=batches, path=str(path))


@dataclass(frozen=True, kw_only=True)
class SizeFlags:
    """Size of the model."""

    d_model: int = 384
    """Width of the Transformer."""
    layers: int = 8
    """Number of layers."""
    heads: int = 6
    """Number of attention heads."""

    def __post_init__(self) -> None:
        for name in ("d_model", "layers", "heads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")


def model_for(args: dict[str, Any]) -> QueryNepa:
    """A fresh model of the size that a run's ``args`` ask for."""
    qa, architecture = bool(args.get("qa_tokens", 0)), architecture_of(args)
    return QueryNepa(
        d_model=args["d_model"],
        n_types=N_TYPES_QA if qa or architecture.answer_head else N_TYPES_PLAIN,  # blind questions are Q/A tokens
        nhead=args["heads"],
        num_layers=args["layers"],
        max_len=sequence_length(args["n_point"], args["n_ray"], qa=qa, eos=bool(args.get("add_eos", 1))),
        architecture=architecture,
    )


def architecture_of(args: dict[str, Any]) -> ArchitectureFlags:
    """The parts of the model that a run's ``args`` ask for; those of the document where they say nothing.

    ``ValueError`` naming an argument that means nothing.
    """
    given = {name: args[name] for name in flags.flags(ArchitectureFlags) if name in args}
    return flags.build(ArchitectureFlags, given)


def build_model(checkpoint: Checkpoint) -> QueryNepa:
    """The checkpoint's model in evaluation mode, its sizes read off the weights."""
    model = fresh_model(checkpoint)
    load_weights(model, checkpoint)
    return model.eval()


def fresh_model(checkpoint: Checkpoint) -> QueryNepa:
    """A model of the checkpoint's sizes and on its device, with new weights from torch's generator there."""
    state = checkpoint.model
    name = checkpoint.path or "checkpoint"
    try:
        architecture = architecture_of(checkpoint.args)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: args: {error}") from error
    for key, axes in (({"pos_emb": 3} if architecture.position_embedding else {}) | _SIZES).items():
        if key not in state:
            raise ValueError(f"{name}: not a QueryNepa checkpoint, it lacks {key}")
        if state[key].dim() != axes:
            raise ValueError(f"{name}: expected {key} to have {axes} axes, got shape {tuple(state[key].shape)}")
    heads = checkpoint.args.get("heads")
    if not isinstance(heads, int):
        raise ValueError(f"{name}: expected args.heads to be a whole number, got {heads!r}")
    d_model, feat_dim = state["token_mlp.0.weight"].shape
    max_len = state["pos_emb"].shape[1] if architecture.position_embedding else 0
    layers = {key.split(".")[3] for key in state if key.startswith("backbone.enc.layers.")}
    with state["type_emb.weight"].device:
        return QueryNepa(
            feat_dim=feat_dim,
            d_model=d_model,
            n_types=state["type_emb.weight"].shape[0],
            nhead=heads,
            num_layers=len(layers),
            mlp_ratio=state["backbone.enc.layers.0.linear1.weight"].shape[0] / d_model,
            max_len=max_len,
            architecture=architecture,
        )


def parts_of(model: QueryNepa) -> dict[str, Any]:
    """The ``args`` that ``fresh_model`` needs beside the model's weights."""
    return {"heads": model.nhead, **flags.spellings(model.architecture)}


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


def load_optimizer(optimizer: torch.optim.Optimizer, checkpoint: Checkpoint) -> None:
    """Fill ``optimizer``; ``ValueError`` where the state is not one of the same parameters in the same order."""
    name = checkpoint.path or "checkpoint"
    try:
        optimizer.load_state_dict(checkpoint.opt)
    except (KeyError, ValueError) as error:
        raise ValueError(f"{name}: opt does not fit the optimiser: {error}") from error
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for index, parameter in enumerate(parameters):
        for moment in (value for kind, value in optimizer.state[parameter].items() if kind != "step"):
            if moment.shape != parameter.shape:
                came = tuple(moment.shape)
                raise ValueError(f"{name}: opt.state[{index}]: expected {tuple(parameter.shape)}, got {came}")


def read_tensors(path: Path, device: str | torch.device = "cpu") -> Any:
    """What ``write_tensors`` wrote, its checksums compared; ``ValueError`` naming a file that is damaged or unsafe.

    Paths, namespaces and NumPy values are read as plain values; ``args`` then holds nothing else.
    """
    data = path.read_bytes()
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            damaged = archive.testzip()  # torch does not look at the checksums
        if damaged:
            raise ValueError(f"the checksum of {damaged} is wrong")
        with torch.serialization.safe_globals(plain_values.SAFE_GLOBALS):
            unsafe = torch.serialization.get_unsafe_globals_in_checkpoint(io.BytesIO(data))
            if unsafe:
                raise plain_values.NotPlainError(f"objects of {', '.join(map(repr, sorted(unsafe)))}")
            content = torch.load(io.BytesIO(data), map_location=device, weights_only=True)
        if isinstance(content, dict) and "args" in content:
            content["args"] = plain_values.plain(content["args"])
        return content
    except plain_values.NotPlainError as error:
        raise ValueError(f"{path}: not a readable checkpoint: it holds {error}, {_advice(path)}") from error
    except _DAMAGE as error:
        raise ValueError(f"{path}: not a readable checkpoint: {_reason(error)}") from error


def _require_no_classifier(path: Path, content: dict[str, Any]) -> None:
    """``ValueError`` naming the pretrained checkpoint, if it is known, where ``nepa3d finetune`` wrote the file."""
    model, args = content.get("model"), content.get("args")
    if not isinstance(model, dict) or not {"backbone.type_emb.weight", "head.weight"} <= model.keys():
        return
    ckpt = args.get("ckpt") if isinstance(args, dict) else None
    wanted = f"the pretrained checkpoint that it was made of, {ckpt}" if ckpt else "a pretrained checkpoint"
    raise ValueError(f"{path}: is a classifier that nepa3d finetune made, for nepa3d classify: give {wanted}")


def _advice(path: Path) -> str:
    """What to do about objects that have no plain value."""
    name = repr(os.fspath(path))
    return (
        "which are not read because that could run code. If you trust the file, save it again where it was made: "
        f"c = torch.load({name}, weights_only=False); replace those objects (mostly in c['args']) by dicts, lists, "
        f"numbers and strings; torch.save(c, {name})"
    )


def _reason(error: Exception) -> str:
    """The first line of what happened, without torch's advice to read the file unsafely."""
    told = str(error).rpartition("WeightsUnpickler error:")[2].strip()
    first_line = told.splitlines()[0] if told else type(error).__name__
    if first_line.startswith("Unsupported operand"):
        return f"{first_line}: save it again with the default pickle_protocol of torch.save"
    return first_line
