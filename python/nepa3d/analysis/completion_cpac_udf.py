"""The command of completion (CPAC-UDF), see ``nepa3d.probes.completion``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from nepa3d import cli
from nepa3d.analysis.flag_groups import (
    CompletionFlags,
    ControlFlags,
    QuestionFlags,
    SequenceModelFlags,
)
from nepa3d.analysis.outcome import conclude
from nepa3d.cli.spellings import Switch
from nepa3d.execution.checks import require_at_least
from nepa3d.models.embedding import Probe, Representation
from nepa3d.probes.completion import CompletionSettings, require_room, text
from nepa3d.probes.completion import complete as complete_shapes
from nepa3d.probes.distance_head import HeadShapes, Plan, Reading, plan_shapes
from nepa3d.probes.result import Json, Result
from nepa3d.probes.spline import require_scipy
from nepa3d.samples.completion import MESH_FILE, Context, QuerySource, SequenceSettings, Target
from nepa3d.samples.flag_groups import VoxelFlags


@dataclass(frozen=True, kw_only=True)
class Config:
    """Predict distances at query points from a context, with a ridge head on the states of a frozen model.

    Example: python -m nepa3d.analysis.completion_cpac_udf --cache_root data/shapenet_unpaired_cache_v1
    --split eval --ckpt runs/eccv_upmix_nepa_s0/ckpt_ep049.pt --context_backend pointcloud_noray
    --head_train_split train_udf --max_shapes 800 --out_json results/cpac_pc2udf.json
    """

    cache_root: str
    """Cache folder holding <split>/<class>/<id>.npz; the draws depend on how this path is spelled."""
    model: SequenceModelFlags
    n_seeds: int = 1
    """Number of seeds of the draws, counted up from seed; results are over all of them."""
    head_train_ratio: float = 0.2
    """Transductive only: share of the shapes that the head is fitted on."""
    head_train_n: int = 0
    """Transductive only: number of shapes that the head is fitted on; 0: use head_train_ratio."""
    tau: float = 0.03
    """Points with a distance of at most this count as surface (IoU)."""
    max_shapes: int = 0
    """Use only this many shapes of the split, the first by sorted path; 0: all."""
    query_source: QuerySource = "pool"
    """Query points: the pool of the context, that pool without the context, or cells of the distance grid."""
    target: Target = "udf"
    """True distances: of the distance grid, or of the mesh (as cached, or exact with mesh_root)."""
    mesh_root: str = ""
    """Folder with <class>/<id>/<mesh_file> of each shape; target 'mesh' is then the exact distance to its triangles."""
    mesh_file: str = MESH_FILE
    """Path of a mesh below <mesh_root>/<class>/<id>."""
    local_regression: Switch = False
    """Also measure a control without a model of shapes: gradient boosting of what is near each query, fitted on up to
    1000 of the head's shapes; requires scikit-learn."""
    context: Context = "own"
    """Control: the shape's own context, that of another shape (mismatched), or none (absent)."""
    representation: Representation = "h"
    """Hidden state h or predicted embedding z_hat."""
    batch: int = 64
    """Sequences per forward pass."""
    num_workers: int = 2
    """Threads that prefetch shapes; 0: shapes are read between the forward passes."""
    out_json: str = ""
    """File to write the results and settings to; empty: none."""
    completion: CompletionFlags = field(default_factory=CompletionFlags)
    controls: ControlFlags = field(default_factory=ControlFlags)
    asked: QuestionFlags = field(default_factory=QuestionFlags)
    voxel: VoxelFlags = field(default_factory=VoxelFlags)

    def __post_init__(self) -> None:
        if not 0 < self.head_train_ratio < 1:
            raise ValueError(f"head_train_ratio must lie in (0, 1), got {self.head_train_ratio}")
        require_at_least(0, head_train_n=self.head_train_n, num_workers=self.num_workers)
        if self.head_train_n and not self.completion.head().transductive:
            raise ValueError("head_train_n goes with head_train_split 'none'; else use head_train_max_shapes")
        self.settings()  # which refuses what no completion can mean
        if self.mesh_root and self.target != "mesh":
            raise ValueError(f"mesh_root goes with target 'mesh', got target {self.target!r}")
        if self.query_source == "grid" and self.target == "mesh" and not self.mesh_root:
            raise ValueError(
                "query_source 'grid' with target 'mesh' needs mesh_root: caches have mesh distances at pool points only"
            )

    def head(self) -> HeadShapes:
        """The shapes the head is fitted on."""
        return replace(self.completion.head(), ratio=self.head_train_ratio, count=self.head_train_n)

    def sequence(self, probe: Probe) -> SequenceSettings:
        """The sequences of the completed shapes."""
        return SequenceSettings(
            context_backend=self.completion.context_backend,
            n_context=self.completion.n_context,
            n_query=self.completion.n_query,
            qa=probe.qa,
            eos=probe.eos,
            query_source=self.query_source,
            target=self.target,
            context=self.context,
            mesh_root=self.mesh_root,
            mesh_file=self.mesh_file,
            voxel=self.voxel.settings(),
            questions=self.asked.questions,
        )

    def plan(self, probe: Probe) -> Plan:
        """The shapes of the head, and those that are completed."""
        own = self.completion
        return plan_shapes(self.cache_root, own.split, self.max_shapes, self.head(), self.sequence(probe), own.seed)

    def settings(self) -> CompletionSettings:
        """What the probe takes."""
        reading = Reading(self.representation, self.batch, self.num_workers)
        own = self.completion
        return CompletionSettings(
            tau=self.tau,
            ridge_lambda=own.ridge_lambda,
            seed=own.seed,
            n_seeds=self.n_seeds,
            spline=self.controls.spline,
            untrained=self.controls.random_init,
            local_regression=self.local_regression,
            reading=reading,
        )

    def report(self) -> Json:
        """The shapes of the flags, as result files hold them."""
        head = self.head()
        return {
            "cache_root": self.cache_root,
            "eval_split": self.completion.split,
            "max_shapes": self.max_shapes,
            "head_train_split": "legacy_transductive" if head.transductive else head.split,
            "head_train_ratio": head.ratio,
            "head_train_max_shapes": head.max_shapes,
            "legacy_transductive": head.transductive,
        }


def complete(config: Config) -> Result:
    """The result of the flags. Bad input is ``ValueError``."""
    if config.controls.spline:
        require_scipy()
    if config.mesh_root and not Path(config.mesh_root).is_dir():
        raise ValueError(f"mesh_root: expected a folder of meshes, there is none at {config.mesh_root!r}")
    probe = config.model.load()
    require_room(probe, config.sequence(probe), "n_context, n_query, qa_tokens and add_eos")
    return complete_shapes(probe, config.plan(probe), config.settings()).with_settings(config.report())


def command(config: Config) -> int:
    """Complete, print the table, write the JSON; the exit status says whether any shape failed."""
    result = complete(config)
    return conclude(result, text(result), config.out_json)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m nepa3d.analysis.completion_cpac_udf``."""
    return cli.run(Config, command, argv, output="out_json")


if __name__ == "__main__":
    raise SystemExit(main())
