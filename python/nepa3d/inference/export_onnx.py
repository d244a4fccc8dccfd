"""The command that writes an encoder as ONNX, see ``nepa3d.models.onnx_model``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nepa3d import cli
from nepa3d.execution.files import require_writable
from nepa3d.inference.model_flags import ModelFlags
from nepa3d.models.embedding import Pooling, Representation


@dataclass(frozen=True, kw_only=True)
class Config:
    """Write an encoder as an ONNX model: features (N, T, 15) and types (N, T) to embeddings (N, D), N and T free.

    The settings that samples are made with are kept in the model's metadata.

    Example: nepa3d export-onnx --ckpt runs/query/last.pt --out encoder.onnx
    """

    out: Path
    """File to write; its name ends in .onnx."""
    model: ModelFlags = field(default_factory=ModelFlags)
    pooling: Pooling = "eos"
    """Embedding: the last token, or the mean of the answers, questions, predicted answers, or all tokens."""
    representation: Representation = "h"
    """Hidden state h or predicted embedding z_hat."""


def command(config: Config) -> None:
    """Write the file and say what it takes."""
    require_writable(config.out, "out")
    if config.out.suffix != ".onnx":
        raise ValueError(f"out must end in .onnx, got {config.out.name!r}")
    encoder = config.model.load()
    encoder.export_onnx(config.out, pooling=config.pooling, representation=config.representation)
    megabytes = config.out.stat().st_size / 1e6
    print(
        f"wrote {config.out} ({megabytes:.1f} MB): features (N, T, 15) float32, types (N, T) int64 -> "
        f"embeddings (N, {encoder.width}) float32"
    )


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(Config, command, argv, output="out")


if __name__ == "__main__":
    raise SystemExit(main())
