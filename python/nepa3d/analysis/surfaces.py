"""The command of completed surfaces, see ``nepa3d.probes.surfaces``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from nepa3d import cli
from nepa3d.analysis.flag_groups import CompletionFlags, ControlFlags, ModelFlags, QuestionFlags
from nepa3d.execution.files import require_writable, write_json
from nepa3d.models.embedding import Probe, shapes_of
from nepa3d.probes.completion import require_room
from nepa3d.probes.distance_head import Plan, Reading, plan_shapes
from nepa3d.probes.result import Result
from nepa3d.probes.spline import require_scipy
from nepa3d.probes.surfaces import SurfaceSettings, text
from nepa3d.probes.surfaces import complete_surfaces as complete_shapes
from nepa3d.report.surface_picture import draw
from nepa3d.samples.completion import SequenceSettings

FEWEST = 3  # shapes of which a fifth, rounded, is one to fit the head on


@dataclass(frozen=True, kw_only=True)
class Config:
    """Complete shapes as surfaces: write meshes, a picture, and scores beside those of controls without a model.

    Example: nepa3d surfaces --cache_root data/unpaired --ckpt runs/nepa_qa/last.pt --out_root results/surfaces
    """

    cache_root: str
    """Cache with the splits."""
    out_root: Path
    """Folder of <class>/<shape>/<way>.ply or .glb, scores.json and surfaces.png."""
    model: ModelFlags
    resolution: int = 32
    """Cells a side of the grid."""
    level: float = 0.0
    """Distance at which the surface is drawn; 0: a cell's side."""
    tau: float = 0.1
    """Largest distance at which a point of one surface matches the other surface (F-score)."""
    max_shapes: int = 4
    """Complete only so many shapes, evenly spread over the split; 0: all."""
    format: Literal["ply", "glb", "both"] = "ply"
    """Files of the surfaces: PLY, GLB (for web viewers and slides), or both."""
    batch: int = 16
    """Sequences a forward pass."""
    completion: CompletionFlags = field(default_factory=CompletionFlags)
    controls: ControlFlags = field(default_factory=ControlFlags)
    asked: QuestionFlags = field(default_factory=QuestionFlags)

    def __post_init__(self) -> None:
        if not 0 <= self.level < np.inf:
            raise ValueError(f"level must be a distance, or 0, got {self.level}")
        self.settings()  # which refuses what no surface can be made with

    def sequence(self, probe: Probe) -> SequenceSettings:
        """The sequences: a context, then cells of the distance grid."""
        own = self.completion
        return SequenceSettings(
            own.context_backend,
            own.n_context,
            own.n_query,
            probe.qa,
            probe.eos,
            query_source="grid",
            questions=self.asked.questions,
        )

    def plan(self, probe: Probe) -> Plan:
        """The shapes of the head, and those that can be completed."""
        own = self.completion
        return plan_shapes(self.cache_root, own.split, 0, own.head(), self.sequence(probe), own.seed)

    def settings(self) -> SurfaceSettings:
        """What the probe takes."""
        return SurfaceSettings(
            resolution=self.resolution,
            level=self.level or None,
            tau=self.tau,
            max_shapes=self.max_shapes,
            formats=("ply", "glb") if self.format == "both" else (self.format,),
            ridge_lambda=self.completion.ridge_lambda,
            seed=self.completion.seed,
            spline=self.controls.spline,
            untrained=self.controls.random_init,
            reading=Reading(batch=self.batch),
        )


def complete_surfaces(config: Config) -> Result:
    """Complete, save, score and draw every shape; scores.json holds the result."""
    own = config.completion
    if config.controls.spline:
        require_scipy()
    require_writable(config.out_root / "scores.json", "out_root")
    probe = config.model.load()
    require_room(probe, config.sequence(probe), "n_context and n_query")
    if own.head().transductive and len(shapes_of(config.cache_root, own.split)) < FEWEST:
        raise ValueError(f"head_train_split 'none' takes part of the split {own.split!r}, which has too few shapes")
    result, shapes = complete_shapes(probe, config.plan(probe), config.settings(), config.out_root)
    draw(shapes, config.out_root / "surfaces.png")
    write_json(config.out_root / "scores.json", result.to_json())
    return result


def command(config: Config) -> int:
    """Complete, print the table; 3 if a shape could not be read, else 0."""
    result = complete_surfaces(config)
    print(text(result))
    print(f"surfaces, scores.json and surfaces.png: {config.out_root}")
    for path, reason in result.failed.items():
        print(f"failed: {path}: {reason}", file=sys.stderr)
    return cli.EXIT_SOME_FAILED if result.failed else cli.EXIT_OK


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(Config, command, argv, output="out_root")


if __name__ == "__main__":
    raise SystemExit(main())
