"""A checkpoint made ready to embed: the settings it was trained with, its limits, and its hidden states.

Letters: B batch, T tokens, D model width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from nepa3d.corpora.shape_list import list_shapes
from nepa3d.execution.checks import require_choice
from nepa3d.models.checkpoint import Checkpoint, build_model
from nepa3d.models.query_nepa import QueryNepa
from nepa3d.models.stored import read_model
from nepa3d.models.token_features import ANSWERS, QUESTIONS
from nepa3d.samples.schema import N_TYPES_QA, TokenType, sequence_length

Representation = Literal["h", "z_hat"]
Precision = Literal["float32", "bf16"]
Pooling = Literal["eos", "mean_a", "mean_q", "mean_zhat", "mean_all"]

MOST_TOKENS = 8192  # of a sequence without position embedding: an attention mask has the square of them
PIECE_TOKENS = 4096  # that go through the model together on the CPU: their activations stay in the cache


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
    precision: Precision = "float32"
    args: Mapping[str, Any] = field(default_factory=dict)
    """Flags that the model was trained with, as its checkpoint holds them."""

    @property
    def max_len(self) -> int:
        """Longest sequence the position embedding covers; without one, the longest that an attention mask is made for
        (``MOST_TOKENS``)."""
        return self.model.max_len or MOST_TOKENS

    @property
    def asks_alone(self) -> bool:
        """Whether what is predicted at a point query does not depend on the other ones of its sequence."""
        return self.model.architecture.answer_keys and self.model.max_len is None

    def require_length(self, length: int, what: str) -> None:
        """Raise ``ValueError`` when ``length`` tokens, made by the flags ``what``, do not fit the model."""
        if length > self.max_len:
            raise ValueError(f"{what} make {length} tokens, but {self.ckpt} takes at most {self.max_len}")


@dataclass(frozen=True)
class ProbeRequest:
    """Which checkpoint, and what to override of its settings; None keeps what it was trained with."""

    ckpt: str
    add_eos: bool | None = None
    qa_tokens: bool | None = None
    n_point: int | None = None
    n_ray: int | None = None
    device: str = "auto"
    precision: Precision = "float32"  # of the model's products


def open_probe(request: ProbeRequest) -> Probe:
    """Load a checkpoint for probing. A missing file, or a request it cannot serve, raises ``ValueError``."""
    device = pick_device(request.device)
    probe = probe_of(read_model(request.ckpt, device).checkpoint, device, request.precision)
    probe = replace(
        probe,
        qa=probe.qa if request.qa_tokens is None else request.qa_tokens,
        eos=probe.eos if request.add_eos is None else request.add_eos,
        n_point=probe.n_point if request.n_point is None else request.n_point,
        n_ray=probe.n_ray if request.n_ray is None else request.n_ray,
    )
    n_types = probe.model.type_emb.weight.shape[0]
    if probe.qa and n_types < N_TYPES_QA:
        raise ValueError(f"qa_tokens 1 needs {N_TYPES_QA} token types, but {probe.ckpt} knows {n_types}")
    return probe


def probe_of(checkpoint: Checkpoint, device: str, precision: Precision = "float32") -> Probe:
    """The model of a checkpoint with the token settings it was trained with. ``ValueError`` naming its file."""
    require_choice("precision", precision, Precision)
    model = build_model(checkpoint)
    args = checkpoint.args
    lacking = [name for name in ("n_point", "n_ray") if name not in args]
    if lacking:
        raise ValueError(f"{checkpoint.path}: its args lack {', '.join(lacking)}")
    return Probe(
        model=model,
        ckpt=checkpoint.path,
        qa=bool(int(args.get("qa_tokens", 0))),
        eos=bool(int(args.get("add_eos", 1))),
        n_point=int(args["n_point"]),
        n_ray=int(args["n_ray"]),
        device=device,
        precision=precision,
        args=args,
    )


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


def shapes_of(cache_root: str, split: str, limit: int = 0, flag: str = "limit") -> list[str]:
    """Cached shapes of a split, the first ``limit`` by sorted path (0: all); ``ValueError`` if there is none, or naming
    the ``flag`` of a limit below 0."""
    if limit < 0:
        raise ValueError(f"{flag}: expected at least 0 (0: all shapes), got {limit}")
    paths = list_shapes(cache_root, split)
    return paths[:limit] if limit else paths


def hidden_states(
    probe: Probe,
    features: NDArray[np.float32],
    types: NDArray[np.int64],
    representation: Representation = "h",
    wanted: NDArray[np.int64] | None = None,
) -> torch.Tensor:
    """Hidden states (B, T, D) f32 on the probe's device of samples (B, T, 15) and their types (B, T).

    With ``wanted`` (n,) those of these tokens only (B, n, D): the last layer is then cheaper.
    """
    return _in_pieces(
        probe, features, types, lambda rows: _states(probe, features[rows], types[rows], representation, wanted)
    )


def question_states(
    probe: Probe,
    features: NDArray[np.float32],
    types: NDArray[np.int64],
    questions: NDArray[np.int64],
    representation: Representation = "h",
) -> torch.Tensor:
    """Hidden states (B, Q, D) at the questions (Q,) of completion sequences (B, T, 15), whose answers are blank.

    A model that asks blind gets the sequence without the blank answers; its questions are Q/A tokens.
    """
    if not probe.model.asks_blind:
        return hidden_states(probe, features, types, representation, questions)
    kept = np.ones(types.shape[1], bool)
    if probe.qa:
        kept[questions + 1] = False
    asked = types.copy()
    asked[:, questions] = TokenType.Q_POINT
    places = (np.cumsum(kept) - 1)[questions]
    return hidden_states(probe, features[:, kept], asked[:, kept], representation, places)


def pooled_states(
    probe: Probe,
    features: NDArray[np.float32],
    types: NDArray[np.int64],
    pooling: Pooling,
    representation: Representation = "h",
) -> torch.Tensor:
    """``pool`` of ``hidden_states``, (B, D) f32, the states that no mean is of left out; see ``pooled_of``."""
    representation = pooled_of(pooling, representation)
    read = tokens_read(types, pooling)
    wanted = np.flatnonzero(read.any(0))

    def piece(rows: slice) -> torch.Tensor:
        return _mean(_states(probe, features[rows], types[rows], representation, wanted), read[rows][:, wanted])

    return _in_pieces(probe, features, types, piece)


def pooled_of(pooling: Pooling, representation: Representation) -> Representation:
    """What a pooling is of: ``mean_zhat`` is the mean of predictions, whatever the representation. ``ValueError`` on a
    name that is neither's."""
    require_choice("pooling", pooling, Pooling)
    require_choice("representation", representation, Representation)
    return "z_hat" if pooling == "mean_zhat" else representation


def pool(hidden: torch.Tensor, types: NDArray[np.int64], pooling: Pooling) -> torch.Tensor:
    """One vector (B, D) a sequence from ``hidden`` (B, T, D) and ``types`` (B, T), the mean over ``tokens_read``."""
    return _mean(hidden, tokens_read(types, pooling))


def tokens_read(types: NDArray[np.int64], pooling: Pooling) -> NDArray[np.bool_]:
    """Which tokens (B, T) of the types (B, T) a pooling reads.

    ``eos`` is the last token; ``mean_a`` those that carry an answer (missing rays carry none), ``mean_q`` the
    questions, which plain sequences do not have, ``mean_zhat`` the tokens before an answer, whose z_hat predicts it,
    ``mean_all`` every token. ``ValueError`` on a sequence that has none, or another pooling.
    """
    require_choice("pooling", pooling, Pooling)
    if pooling in ("eos", "mean_all"):
        chosen = np.full(types.shape, pooling == "mean_all")
        chosen[:, -1] = True
        return chosen
    chosen = np.isin(types, QUESTIONS if pooling == "mean_q" else ANSWERS)
    if pooling == "mean_zhat":
        chosen = np.roll(chosen, -1, axis=1)  # no sequence begins with an answer
    if not chosen.any(1).all():
        raise ValueError(f"pooling {pooling} needs a token of that kind in every sequence")
    return chosen


def _mean(hidden: torch.Tensor, read: NDArray[np.bool_]) -> torch.Tensor:
    weight = torch.from_numpy(read.astype(np.float32)).to(hidden.device)[:, :, None]
    return (hidden * weight).sum(1) / weight.sum(1)


def _states(
    probe: Probe,
    features: NDArray[np.float32],
    types: NDArray[np.int64],
    representation: Representation,
    wanted: NDArray[np.int64] | None,
) -> torch.Tensor:
    """Hidden states on the probe's device, of all samples at once; tokens that no wanted one sees are left out.

    A model whose attention follows the types of the tokens gets those samples together whose types are the same.
    """
    if probe.model.mask_follows_types and (types != types[:1]).any():
        patterns, pattern = np.unique(types, axis=0, return_inverse=True)
        groups = [np.flatnonzero(pattern.ravel() == number) for number in range(len(patterns))]
        found_in = [_states(probe, features[rows], types[rows], representation, wanted) for rows in groups]
        return torch.cat(found_in)[torch.from_numpy(np.argsort(np.concatenate(groups)))]
    places = None
    if wanted is not None:
        places, end = torch.from_numpy(wanted).to(probe.device), int(wanted.max()) + 1
        features, types = features[:, :end], types[:, :end]
    device = torch.device(probe.device)
    with torch.autocast(device.type, torch.bfloat16, enabled=probe.precision == "bf16"):
        columns, kinds = torch.from_numpy(features).to(device), torch.from_numpy(types).to(device)
        known = probe.model.known(columns, kinds)
        z = probe.model.embed(columns, kinds, None, known)
        h = probe.model.states(z, columns, kinds, None, places, known)
        found: torch.Tensor = h if representation == "h" else probe.model.pred_head(h)
    return found.float()


def _in_pieces(
    probe: Probe, features: NDArray[np.float32], types: NDArray[np.int64], piece: Callable[[slice], torch.Tensor]
) -> torch.Tensor:
    """What ``piece`` makes of the samples, in order.

    A model on the CPU gets them few at a time, in as many threads as torch has, each with a piece of its own: none
    waits for another between two operations.
    """
    samples, length = types.shape
    if not samples:
        return piece(slice(0))
    on_cpu = torch.device(probe.device).type == "cpu"
    threads = torch.get_num_threads() if on_cpu else 1
    rounds = math.ceil(samples / (threads * max(1, PIECE_TOKENS // length)))
    size = math.ceil(samples / (threads * rounds)) if on_cpu else samples
    pieces = [slice(begin, begin + size) for begin in range(0, samples, size)]

    def alone(rows: slice) -> torch.Tensor:
        torch.set_num_threads(1)  # of this thread
        return run(rows)

    def run(rows: slice) -> torch.Tensor:
        with torch.inference_mode():
            return piece(rows)

    if len(pieces) < max(2, threads):
        found = [run(rows) for rows in pieces]
    else:
        try:
            found = list(_threads(threads).map(alone, pieces))
        finally:
            torch.set_num_threads(threads)
    states = torch.cat(found)
    if not torch.isfinite(states).all():
        raise ValueError(f"{probe.ckpt} gives hidden states that are not finite")
    return states


@lru_cache(maxsize=1)
def _threads(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, thread_name_prefix="probe")
