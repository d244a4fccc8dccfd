"""A class from a token sequence: a linear head on the last token's hidden state, or on what all answers' make up."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from nepa3d.execution.checks import require_choice
from nepa3d.models.query_nepa import QueryNepa
from nepa3d.models.token_features import ANSWERS, is_any

Readout = Literal["eos", "mean", "max"]


class Classifier(nn.Module):
    """Logits (B, C) of features (B, T, 15) and types (B, T).

    ``readout`` "eos" reads the hidden state of the last token, "mean" and "max" the mean, or the largest value of each
    coordinate, over the tokens that carry an answer (missing rays carry none). With ``standardize`` the head sees what
    is read less its mean over the batch and by its standard deviation, as linear probes do (He et al.: Masked
    Autoencoders Are Scalable Vision Learners, appendix A.1); in evaluation by their running means.
    """

    def __init__(
        self,
        backbone: QueryNepa,
        n_classes: int,
        *,
        freeze_backbone: bool = False,
        readout: Readout = "eos",
        standardize: bool = False,
    ) -> None:
        super().__init__()
        require_choice("readout", readout, Readout)
        self.backbone = backbone
        self.readout = readout
        self.standard = nn.BatchNorm1d(backbone.width, affine=False) if standardize else None
        self.head = nn.Linear(backbone.width, n_classes)
        self.frozen = freeze_backbone
        backbone.requires_grad_(not freeze_backbone)
        backbone.pred_head.requires_grad_(False)  # predicts embeddings, which nothing here asks for

    def forward(self, features: Tensor, types: Tensor) -> Tensor:
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            _, _, hidden = self.backbone(features, types)
        read = read_out(hidden, types, self.readout)
        if self.standard is not None:
            read = self.standard(read)
        logits: Tensor = self.head(read)
        return logits


def read_out(hidden: Tensor, types: Tensor, readout: Readout) -> Tensor:
    """One vector (B, D) a sequence of hidden states (B, T, D) and types (B, T), see ``Classifier``.

    ``ValueError`` on a sequence without answers, of which there is no mean.
    """
    if readout == "eos":
        return hidden[:, -1]
    answers = is_any(types, ANSWERS)[..., None]
    if not answers.any(1).all():
        raise ValueError(f"readout {readout} needs a token with an answer in every sequence")
    if readout == "mean":
        return (hidden * answers).sum(1) / answers.sum(1)
    return hidden.masked_fill(~answers, -torch.inf).amax(1)
