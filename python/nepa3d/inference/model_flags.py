"""The flags of the model that commands of this folder share."""

from __future__ import annotations

from dataclasses import dataclass

from nepa3d.models.embedding import Precision
from nepa3d.models.encoder import Encoder, load


@dataclass(frozen=True, kw_only=True)
class ModelFlags:
    """The model."""

    ckpt: str = "furniture-small"
    """Whatever nepa3d.load takes: a checkpoint, a folder that Encoder.save wrote, the name of a model of the package,
    hf://user/name."""
    device: str = "auto"
    """auto (a GPU if there is one), cpu or cuda."""
    precision: Precision = "float32"
    """Precision of matrix products; bf16 is faster on a GPU and changes results a little."""

    def load(self) -> Encoder:
        """The encoder. ``ValueError`` where there is none."""
        return load(self.ckpt, device=self.device, precision=self.precision)
