"""The command of cross-view retrieval (UCPR), see ``nepa3d.probes.retrieval``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from nepa3d import cli
from nepa3d.analysis.flag_groups import ControlFlags, PoolingFlags, QuestionFlags, SampleModelFlags
from nepa3d.analysis.outcome import conclude
from nepa3d.cli.spellings import OptionalCount, Switch
from nepa3d.execution.checks import require_at_least
from nepa3d.models.embedding import sample_length, shapes_of
from nepa3d.probes.embedding import EmbeddingSettings
from nepa3d.probes.result import Result
from nepa3d.probes.retrieval import RankRule, RetrievalSettings, text
from nepa3d.probes.retrieval import retrieve as retrieve_shapes
from nepa3d.probes.spline import require_scipy
from nepa3d.samples.flag_groups import VoxelFlags
from nepa3d.shapes.views import require_backend


@dataclass(frozen=True, kw_only=True)
class Config:
    """Retrieve every shape across two of its views and report R@k, mAP and ranks beside chance.

    Example: python -m nepa3d.analysis.retrieval_ucpr --cache_root data/shapenet_unpaired_cache_v1 --split eval
    --ckpt runs/eccv_upmix_nepa_s0/ckpt_ep049.pt --query_backend mesh --gallery_backend udfgrid
    --eval_seed 0 --eval_seed_gallery 999 --max_files 1000 --out_json results/ucpr_mesh2udf.json
    """

    cache_root: str
    """Cache folder holding <split>/<class>/<id>.npz; the draws depend on how this path is spelled."""
    query_backend: str
    """View of the query shapes."""
    gallery_backend: str
    """View of the gallery shapes."""
    model: SampleModelFlags
    split: str = "eval"
    """Split to retrieve in."""
    eval_seed: int = 0
    """Seed of the query draws."""
    eval_seed_gallery: OptionalCount = None
    """Seed of the gallery draws; -1: eval_seed. Both views then share coordinates, and results are too high."""
    n_seeds: int = 1
    """Number of evaluation seeds, counted up from these two; results are means over them."""
    ablate_point_xyz: bool = False
    """Set the coordinates of point tokens to zero."""
    ablate_point_dist: bool = False
    """Set the distances of point tokens to zero."""
    max_files: int = 0
    """Use only this many shapes, the first by sorted path; 0: all."""
    chunk: int = 256
    """Sequences per forward pass, and queries per block of similarities."""
    num_workers: int = 2
    """Threads that prefetch shapes; 0: shapes are read between the forward passes."""
    rank_rule: RankRule = "expected"
    """Tied items share their ranks, or count as wins (strict, as in the original: a collapsed encoder scores 1)."""
    lipschitz: Switch = True
    """Control without a model: how much two sets of answers violate the Lipschitz condition of one distance field; its
    time grows with the squares of the numbers of shapes and points."""
    out_json: str = ""
    """File to write the results and settings to; empty: none."""
    embedding: PoolingFlags = field(default_factory=PoolingFlags)
    controls: ControlFlags = field(default_factory=ControlFlags)
    asked: QuestionFlags = field(default_factory=QuestionFlags)
    voxel: VoxelFlags = field(default_factory=VoxelFlags)

    def __post_init__(self) -> None:
        for flag in ("query_backend", "gallery_backend"):
            require_backend(getattr(self, flag), flag)
        require_at_least(1, chunk=self.chunk)
        require_at_least(0, num_workers=self.num_workers)
        self.settings()  # which refuses what no retrieval can mean

    def settings(self) -> RetrievalSettings:
        """What the probe takes."""
        embedding = EmbeddingSettings(
            pooling=self.embedding.pooling,
            representation=self.embedding.representation,
            draws=self.embedding.mc_k,
            batch=self.chunk,
            threads=self.num_workers,
            voxel=self.voxel.settings(),
            hide_positions=self.ablate_point_xyz,
            hide_distances=self.ablate_point_dist,
            questions=self.asked.questions,
        )
        return RetrievalSettings(
            query_view=self.query_backend,
            gallery_view=self.gallery_backend,
            query_seed=self.eval_seed,
            gallery_seed=self.eval_seed if self.eval_seed_gallery is None else self.eval_seed_gallery,
            n_seeds=self.n_seeds,
            rank_rule=self.rank_rule,
            lipschitz=self.lipschitz,
            spline=self.controls.spline,
            untrained=self.controls.random_init,
            embedding=embedding,
        )


def retrieve(config: Config) -> Result:
    """The result of the flags. Bad input is ``ValueError``."""
    if config.controls.spline:
        require_scipy()
    probe = config.model.load()
    probe.require_length(sample_length(probe), "n_point, n_ray, qa_tokens and add_eos")
    paths = shapes_of(config.cache_root, config.split, config.max_files, "max_files")
    result = retrieve_shapes(probe, paths, config.settings())
    return result.with_settings({"cache_root": config.cache_root, "split": config.split, "max_files": config.max_files})


def command(config: Config) -> int:
    """Retrieve, print the table, write the JSON; the exit status says whether any shape failed."""
    result = retrieve(config)
    return conclude(result, text(result), config.out_json, _warnings(result))


def _warnings(result: Result) -> list[str]:
    said = []
    if result.settings["shared_draws"]:
        said.append(
            "queries and gallery draw the very same coordinates (equal eval seeds), which flatters "
            "the figures; give another --eval_seed_gallery for independent draws"
        )
    if result.diagnostics["collapsed"]:
        said.append(
            f"collapsed gallery: on average {result.diagnostics['tied_fraction']:.0%} of its items cannot be "
            f"told from the true one (spread {result.diagnostics['gallery_spread']:.1e}); tied items share their "
            "places, so the figures are near chance"
        )
    return said


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m nepa3d.analysis.retrieval_ucpr``."""
    return cli.run(Config, command, argv, output="out_json")


if __name__ == "__main__":
    raise SystemExit(main())
