"""A class from a token sequence: a linear head on the last token's hidden state."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nepa3d.models.query_nepa import QueryNepa


class Classifier(nn.Module):
    """Logits (B, C) of features (B, T, 15) and types (B, T)."""

    def __init__(self, backbone: QueryNepa, n_classes: int, *, freeze_backbone: bool = False) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(backbone.width, n_classes)
        self.frozen = freeze_backbone
        backbone.requires_grad_(not freeze_backbone)
        backbone.pred_head.requires_grad_(False)  # predicts embeddings, which nothing here asks for

    def forward(self, features: Tensor, types: Tensor) -> Tensor:
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            _, _, hidden = self.backbone(features, types)
        logits: Tensor = self.head(hidden[:, -1])
        return logits
