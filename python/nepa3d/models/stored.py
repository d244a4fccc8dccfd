"""Where trained models are found: a checkpoint, a folder that ``Encoder.save`` wrote, the hub, or this package."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from nepa3d import __version__
from nepa3d.execution.files import atomic_open, write_json
from nepa3d.models.checkpoint import Checkpoint, load_checkpoint

WEIGHTS, CONFIG = "model.safetensors", "config.json"
FORMAT = 1  # of a folder that save_model writes
HEAD = "distance_head"  # the tensor of the head among the weights
PLACES = (
    "save_dir",
    "cache_root",
    "mesh_root",
    "mix_config",
    "resume",
    "init",
)  # flags that tell of the disk it was made on
PRETRAINED = Path(__file__).parent / "pretrained"  # a folder for each model that comes with the package


class StoredModel(NamedTuple):
    """A model as it was found. ``head`` (D + 1,) reads distances off its states, where one was kept with it."""

    checkpoint: Checkpoint
    head: NDArray[np.float64] | None


def built_in() -> list[str]:
    """The names of the models that come with the package."""
    return sorted(file.parent.name for file in PRETRAINED.glob(f"*/{CONFIG}"))


def read_model(source: str | os.PathLike[str], device: str | torch.device = "cpu") -> StoredModel:
    """The model of a checkpoint (``.pt``), of a folder that ``Encoder.save`` wrote or that holds a ``last.pt``, of
    the package (``furniture-small``; ``./furniture-small`` is a folder of that name), or of a repository of the Hugging
    Face hub (``hf://user/name``, with huggingface_hub installed).

    Raises ``ValueError`` naming the file and the fault; no code in a file is run.
    """
    name = os.fspath(source)
    if name in built_in():
        return _read_folder(PRETRAINED / name, device, name)
    folder = _downloaded(name) if name.startswith("hf://") else Path(name)
    if folder.name == WEIGHTS:
        folder = folder.parent
    if (folder / CONFIG).is_file():
        return _read_folder(folder, device, str(folder / WEIGHTS))
    file = folder / "last.pt" if folder.is_dir() else folder
    if not file.is_file():
        raise ValueError(
            f"{name}: expected a checkpoint, a folder with {CONFIG} or last.pt, or one of the package's models "
            f"({', '.join(built_in()) or 'none'}); there is none"
        )
    return StoredModel(load_checkpoint(file, device), None)


def save_model(
    folder: Path, weights: dict[str, torch.Tensor], args: dict[str, Any], head: NDArray[np.float64] | None
) -> None:
    """Write ``model.safetensors`` and ``config.json``, each whole or not at all; without the paths of the training."""
    tensors = {name: tensor.cpu().contiguous() for name, tensor in weights.items()}
    if head is not None:
        tensors[HEAD] = torch.from_numpy(head)
    with atomic_open(folder / WEIGHTS) as file:
        file.write(save_tensors(tensors, {"format": "pt"}))
    kept = {name: value for name, value in args.items() if name not in PLACES}
    write_json(folder / CONFIG, {"format": FORMAT, "nepa3d": __version__, "args": kept})


def _read_folder(folder: Path, device: str | torch.device, name: str) -> StoredModel:
    """What ``save_model`` wrote; ``name`` is what results call it."""
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        if not isinstance(config, dict) or config.get("format") != FORMAT or not isinstance(config.get("args"), dict):
            raise ValueError(f"expected an object with format {FORMAT} and args")
    except ValueError as error:
        raise ValueError(f"{folder / CONFIG}: {error}") from error
    weights = folder / WEIGHTS
    if not weights.is_file():
        raise ValueError(f"{weights}: there is no such file")
    try:
        tensors = load_tensors(weights.read_bytes())
    except SafetensorError as error:
        raise ValueError(f"{weights}: {error}") from error
    head = tensors.pop(HEAD, None)
    model = {key: tensor.to(device) for key, tensor in tensors.items()}
    checkpoint = Checkpoint(model=model, opt={}, scaler=None, args=config["args"], epoch=0, step=0, path=name)
    return StoredModel(checkpoint, None if head is None else head.numpy().astype(np.float64))


def _downloaded(name: str) -> Path:
    """The folder of a repository ``hf://user/name``, fetched if it is not there."""
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise ValueError(f"{name}: huggingface_hub is not installed: pip install 'nepa3d[hub]'") from error
    return Path(snapshot_download(name.removeprefix("hf://"), allow_patterns=[WEIGHTS, CONFIG]))
