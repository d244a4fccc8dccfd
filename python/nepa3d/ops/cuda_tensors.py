"""Tensors as the compiled modules take them: which module serves a device, checks, addresses and streams."""

from __future__ import annotations

import importlib
from types import ModuleType

import torch
from torch import Tensor

MOST_ROWS = 2**31 - 2**16  # rows are counted in int32, blocks of them from below


def module_for(device: torch.device) -> ModuleType:
    """The compiled module that serves tensors on ``device``; ``ValueError`` if this build has none."""
    if device.type == "cpu":
        return importlib.import_module("nepa3d._cuda_host")
    if device.type != "cuda":
        raise ValueError(f"tensors must be on a CUDA device or the CPU, got {device}")
    try:
        return importlib.import_module("nepa3d._cuda")
    except ModuleNotFoundError as error:
        raise ValueError(
            "tensors must be on the CPU: nepa3d was built without its CUDA module (`nepa3d doctor` shows what is "
            "there, `make cuda` builds it), got tensors on " + f"{device}"
        ) from error


def require_rows(rows: Tensor, name: str, letter: str, dtypes: tuple[torch.dtype, ...]) -> None:
    if rows.ndim != 2 or rows.shape[1] != 3:
        raise ValueError(f"{name} must have shape ({letter}, 3), got {tuple(rows.shape)}")
    if rows.dtype not in dtypes:
        expected = " or ".join(f"{dtype}".removeprefix("torch.") for dtype in dtypes)
        raise ValueError(f"{name} must be {expected}, got {rows.dtype}".replace("torch.", ""))
    if len(rows) > MOST_ROWS:
        raise ValueError(f"{name} must have at most {MOST_ROWS} rows, got {len(rows)}")


def require_points(points: Tensor, name: str, letter: str) -> None:
    require_rows(points, name, letter, (torch.float32,))


def require_offsets(offsets: Tensor, name: str, rows: Tensor) -> None:
    """Shape and dtype; the values are the caller's word, except on the CPU."""
    if offsets.ndim != 1 or len(offsets) < 2:
        raise ValueError(f"{name} must have shape (B + 1,) with B at least 1, got {tuple(offsets.shape)}")
    if offsets.dtype != torch.int32:
        raise ValueError(f"{name} must be int32, got {offsets.dtype}".replace("torch.", ""))
    if offsets.device.type == "cpu" and (
        offsets[0] != 0 or offsets[-1] != len(rows) or bool((offsets.diff() < 0).any())
    ):
        raise ValueError(f"{name} must rise from 0 to the number of rows, {len(rows)}, got {offsets.tolist()}")


def require_same_batch(**offsets: Tensor) -> None:
    (name, first), (other_name, other) = offsets.items()
    if len(first) != len(other):
        raise ValueError(
            f"{name} and {other_name} must be of the same number of shapes, got {len(first) - 1} and {len(other) - 1}"
        )


def require_same_length(**rows: Tensor) -> None:
    (name, first), (other_name, other) = rows.items()
    if len(first) != len(other):
        raise ValueError(f"{name} and {other_name} must have the same length, got {len(first)} and {len(other)}")


def require_one_device(**tensors: Tensor) -> None:
    (name, first), *others = tensors.items()
    for other_name, other in others:
        if other.device != first.device:
            raise ValueError(
                f"{name} and {other_name} must be on the same device, got {first.device} and {other.device}"
            )


def contiguous(*tensors: Tensor) -> tuple[Tensor, ...]:
    return tuple(tensor.contiguous() for tensor in tensors)


def ragged(module: ModuleType, offsets: Tensor, rows: Tensor) -> object:
    return module.Ragged(offsets.data_ptr(), len(offsets) - 1, len(rows))


def place(tensor: Tensor) -> tuple[int, int]:
    """Its device, and the stream to launch on."""
    if tensor.device.type == "cpu":
        return 0, 0
    return tensor.device.index, torch.cuda.current_stream(tensor.device).cuda_stream
