"""The encoder as an ONNX model: what other programs run without torch and without nepa3d.

Letters: N samples, T tokens, D width.
"""

from __future__ import annotations

import json
import logging
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from nepa3d.execution.files import atomic_path
from nepa3d.models.embedding import Pooling, Representation, pooled_of
from nepa3d.models.interpolation import NEARBY, Interpolated
from nepa3d.models.query_nepa import QueryNepa
from nepa3d.models.token_features import ANSWERS, QUESTIONS, is_any
from nepa3d.ops.attention import KeyEdges

if TYPE_CHECKING:
    from nepa3d.models.embedding import Probe

INPUTS = ("features", "types")
OUTPUT = "embeddings"  # not "embedding", as the exporter names the rows of a torch.nn.Embedding
OPSET = 20
METADATA = "nepa3d"  # the key of the settings among the model's metadata


class EmbeddingModule(nn.Module):
    """Embeddings (N, D), each of length 1, of features (N, T, 15) float32 and types (N, T) int64, as
    ``Encoder.embed`` makes of one draw.

    Every operation has an ONNX form whatever N and T are: attention is its plain twin, the product of all tokens under
    the edges, with the biases of the kernel. Samples of different types may share a batch. The spline that a model with
    ``interpolation`` is told at questions has no such form: ``ValueError`` where an embedding depends on their states.
    """

    def __init__(self, model: QueryNepa, pooling: Pooling = "eos", representation: Representation = "h") -> None:
        super().__init__()
        architecture = model.architecture
        if architecture.interpolation and not (architecture.answer_keys and pooling in ("eos", "mean_a")):
            raise ValueError(
                "pooling must be eos or mean_a, and answer_keys 1, for a model with interpolation 1: the spline that "
                f"its questions are told has no ONNX form, got {pooling} and {architecture.answer_keys:d}"
            )
        self.model, self.pooling, self.representation = model, pooling, pooled_of(pooling, representation)

    def forward(self, features: Tensor, types: Tensor) -> Tensor:
        """(N, T, 15) and (N, T) to (N, D)."""
        model, nothing = self.model, torch.zeros_like(features[..., 0])
        known = Interpolated(nothing, nothing, nothing) if model.architecture.interpolation else None
        if known and model.architecture.pulled_points:
            known = known._replace(nearby=features.new_zeros(*types.shape, NEARBY))
        z = model.embed(features, types, None, known)
        mask = None
        if model.mask_follows_types:
            places = torch.arange(types.shape[1], device=types.device)
            others = model.edges(types) & (places[:, None] != places)
            mask = KeyEdges(places, others[:, None])
        h = model.states(z, features, types, mask, None, known)
        states = h if self.representation == "h" else model.pred_head(h)
        return nn.functional.normalize(_pooled(states, types, self.pooling), dim=-1)


def _pooled(states: Tensor, types: Tensor, pooling: Pooling) -> Tensor:
    """``nepa3d.models.embedding.pool`` in operations of torch."""
    if pooling == "eos":
        return states[:, -1]
    if pooling == "mean_all":
        return states.mean(1)
    read = is_any(types, QUESTIONS if pooling == "mean_q" else ANSWERS)
    if pooling == "mean_zhat":
        read = nn.functional.pad(read[:, 1:], (0, 1))
    weight = read.to(states.dtype)[..., None]
    return (states * weight).sum(1) / weight.sum(1)


def export_onnx(
    probe: Probe, path: str | os.PathLike[str], pooling: Pooling = "eos", representation: Representation = "h"
) -> None:
    """Write ``EmbeddingModule`` of the probe's model as one ``.onnx`` file, whole or not at all.

    Inputs are ``features`` (N, T, 15) float32 and ``types`` (N, T) int64, the output is ``embeddings`` (N, D) float32;
    N and T are free, T at most what the position embedding covers. The settings that samples are made with are in the
    model's metadata. Raises ``ValueError`` if onnx or onnxscript is not installed (``nepa3d[onnx]``).
    """
    try:
        import onnx
        import onnxscript  # noqa: F401 (torch's exporter needs it)
    except ImportError as error:
        raise ValueError(f"onnx: {error.name} is not installed: pip install 'nepa3d[onnx]'") from error
    model = EmbeddingModule(probe.model, pooling, representation).eval()
    device = next(model.parameters()).device
    sizes = {"samples": torch.export.Dim("samples"), "tokens": torch.export.Dim("tokens", max=probe.max_len)}
    free = {0: sizes["samples"], 1: sizes["tokens"]}
    length = min(probe.max_len, 2 * (probe.n_point + probe.n_ray) + 2)
    example = (torch.zeros(2, length, 15, device=device), torch.ones(2, length, dtype=torch.long, device=device))
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter about itself
        try:
            program = torch.onnx.export(
                model.cpu(),
                tuple(part.cpu() for part in example),
                input_names=list(INPUTS),
                output_names=[OUTPUT],
                dynamic_shapes=(free, free),
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
            )
        finally:
            probe.model.to(device)
    assert program is not None
    proto = program.model_proto
    settings = {
        "n_point": probe.n_point,
        "n_ray": probe.n_ray,
        "qa": probe.qa,
        "eos": probe.eos,
        "width": probe.model.width,
        "pooling": pooling,
        "representation": model.representation,
        "most_tokens": probe.max_len,
    }
    onnx.helper.set_model_props(proto, {METADATA: json.dumps(settings)})
    onnx.checker.check_model(proto)
    with atomic_path(Path(path)) as temporary:
        temporary.write_bytes(proto.SerializeToString())
