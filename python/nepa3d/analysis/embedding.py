"""A checkpoint made ready to embed: the settings it was trained with, its limits, and its hidden states.

Letters: B batch, T tokens, D model width.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from nepa3d.data.cache import CacheError
from nepa3d.data.shape_list import list_shapes
from nepa3d.models.query_nepa import QueryNepa
from nepa3d.token.schema import N_TYPES_QA, TokenType, sequence_length
from nepa3d.train.checkpoint import build_model, load_checkpoint

Representation = Literal["h", "z_hat"]
Pooling = Literal["eos", "mean_a", "mean_q", "mean_zhat", "mean_all"]

QUESTION_TYPES = (TokenType.Q_POINT, TokenType.Q_RAY)
ANSWER_TYPES = (TokenType.POINT, TokenType.RAY, TokenType.A_POINT, TokenType.A_RAY)

UNREADABLE_SHAPE = (OSError, ValueError)  # what reading a damaged or unfinished cache file raises (CacheError)


@dataclass(frozen=True)
class Probe:
    """A frozen model and the token settings to feed it with."""

    model: QueryNepa
    ckpt: str
    qa: bool
    eos: bool
    n_point: int
    n_ray: int
    device: str

    @property
    def max_len(self) -> int:
        """Longest sequence the position embedding covers."""
        return int(self.model.pos_emb.shape[1])

    def require_length(self, length: int, what: str) -> None:
        """Raise ``ValueError`` when ``length`` tokens, made by the flags ``what``, do not fit the model."""
        if length > self.max_len:
            raise ValueError(f"{what} make {length} tokens, but {self.ckpt} takes at most {self.max_len}")


@dataclass(frozen=True)
class ProbeRequest:
    """Which checkpoint, and what to override of its settings; -1 keeps what it was trained with."""

    ckpt: str
    add_eos: int = -1
    qa_tokens: int = -1
    n_point: int = -1
    n_ray: int = -1
    device: str = "auto"


def open_probe(request: ProbeRequest) -> Probe:
    """Load a checkpoint for probing. A missing file, or a request it cannot serve, raises ``ValueError``."""
    if not Path(request.ckpt).is_file():
        raise ValueError(f"ckpt: expected a checkpoint file, there is none at {request.ckpt!r}")
    device = pick_device(request.device)
    checkpoint = load_checkpoint(request.ckpt, device=device)
    model = build_model(checkpoint).to(device).eval()
    args = checkpoint.args
    lacking = [name for name in ("n_point", "n_ray") if name not in args]
    if lacking:
        raise ValueError(f"{request.ckpt}: its args lack {', '.join(lacking)}")
    probe = Probe(
        model=model,
        ckpt=request.ckpt,
        qa=bool(_override(request.qa_tokens, int(args.get("qa_tokens", 0)))),
        eos=bool(_override(request.add_eos, int(args.get("add_eos", 1)))),
        n_point=_override(request.n_point, int(args["n_point"])),
        n_ray=_override(request.n_ray, int(args["n_ray"])),
        device=device,
    )
    n_types = model.type_emb.weight.shape[0]
    if probe.qa and n_types < N_TYPES_QA:
        raise ValueError(f"qa_tokens 1 needs {N_TYPES_QA} token types, but {probe.ckpt} knows {n_types}")
    return probe


def sample_length(probe: Probe) -> int:
    """Tokens of one sample at the probe's n_point and n_ray."""
    return sequence_length(probe.n_point, probe.n_ray, qa=probe.qa, eos=probe.eos)


def pick_device(name: str) -> str:
    """``auto`` is the first GPU where there is one, else the CPU; other names are taken as they are."""
    if name != "auto":
        try:
            torch.empty(0, device=name)
        except (RuntimeError, AssertionError) as error:
            raise ValueError(f"device: {name!r} cannot be used here: {error}") from error
        return name
    return "cuda" if torch.cuda.is_available() else "cpu"


def shapes_of(cache_root: str, split: str, limit: int = 0) -> list[str]:
    """Cached shapes of a split, the first ``limit`` by sorted path (0: all); none is a ``ValueError``."""
    if limit < 0:
        raise ValueError(f"the number of shapes must be at least 0 (0: all), got {limit}")
    paths = list_shapes(cache_root, split)
    return paths[:limit] if limit else paths


def reason_of(error: OSError | ValueError) -> str:
    """Why a shape could not be read, without its path."""
    return error.fault if isinstance(error, CacheError) else str(error)


def hidden_states(
    probe: Probe, features: NDArray[np.float32], types: NDArray[np.int64], representation: Representation = "h"
) -> torch.Tensor:
    """Hidden states (B, T, D) f32 on the CPU of samples (B, T, 15) and their types (B, T)."""
    with torch.inference_mode():
        _, z_hat, h = probe.model(torch.from_numpy(features).to(probe.device), torch.from_numpy(types).to(probe.device))
    hidden = (h if representation == "h" else z_hat).float().cpu()
    if not torch.isfinite(hidden).all():
        raise ValueError(f"{probe.ckpt} gives hidden states that are not finite")
    return hidden


def pool(hidden: torch.Tensor, types: NDArray[np.int64], pooling: Pooling) -> torch.Tensor:
    """One vector (B, D) a sequence from ``hidden`` (B, T, D) and ``types`` (B, T).

    ``eos`` is the last token; ``mean_a`` the mean over tokens that carry an answer (missing rays carry none),
    ``mean_q`` over questions, which plain sequences do not have, ``mean_zhat`` over the tokens before an answer, whose
    z_hat predicts it, ``mean_all`` over every token.
    """
    if pooling == "eos":
        return hidden[:, -1]
    if pooling == "mean_all":
        return hidden.mean(1)
    chosen = np.isin(types, QUESTION_TYPES if pooling == "mean_q" else ANSWER_TYPES)
    if pooling == "mean_zhat":
        chosen = np.roll(chosen, -1, axis=1)  # no sequence begins with an answer
    weight = torch.from_numpy(chosen.astype(np.float32))[:, :, None]
    if (weight.sum(1) == 0).any():
        raise ValueError(f"pooling {pooling} needs a token of that kind in every sequence")
    return (hidden * weight).sum(1) / weight.sum(1)


def _override(given: int, trained: int) -> int:
    return trained if given == -1 else given
