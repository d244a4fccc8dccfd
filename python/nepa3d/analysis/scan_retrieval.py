"""The command of retrieval by scans, see ``nepa3d.probes.scan_retrieval``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nepa3d import cli
from nepa3d.analysis.flag_groups import PoolingFlags, QuestionFlags, SampleModelFlags
from nepa3d.analysis.outcome import conclude
from nepa3d.cli.spellings import Switch
from nepa3d.execution.checks import require_at_least
from nepa3d.probes.embedding import EmbeddingSettings
from nepa3d.probes.result import Result
from nepa3d.probes.scan_retrieval import ScanRetrievalSettings, text
from nepa3d.probes.scan_retrieval import retrieve as retrieve_shapes
from nepa3d.probes.search import Search, read_names, search_of_caches
from nepa3d.samples.flag_groups import VoxelFlags
from nepa3d.shapes.views import require_backend


@dataclass(frozen=True, kw_only=True)
class SearchFlags:
    """Queries and gallery."""

    query_root: str
    """Cache folder of the queries, as preprocess-scanobjectnn writes it; the draws depend on how this is spelled."""
    gallery_root: str
    """Cache folder of the gallery. It may be that of the queries with --turn_queries 1, to retrieve meshes by turned
    copies of themselves."""
    query_split: str = "test"
    """Split of the queries."""
    gallery_splits: tuple[str, ...] = ("test",)
    """Splits of the gallery, in which the objects of all queries must be."""
    query_backend: str = "pointcloud_noray"
    """View of the queries."""
    gallery_backend: str = "mesh"
    """View of the gallery."""
    distractors: Switch = False
    """Keep gallery shapes that match no query."""
    exclude: Path | None = None
    """Text file of objects to leave out of both, one a line, as near-duplicates writes it."""

    def search(self) -> Search:
        """The queries and their gallery. ``ValueError`` naming what is not there."""
        found = search_of_caches(self.query_root, self.query_split, self.gallery_root, self.gallery_splits)
        if self.exclude is not None:
            names = read_names(self.exclude, "exclude")
            unknown = [name for name in names if name not in set(found.gallery_objects)]
            if unknown:
                raise ValueError(
                    f"exclude: {self.exclude} lists {len(unknown)} objects that the gallery lacks; first: {unknown[0]}"
                )
            found = found.without(set(names))
        return found if self.distractors else found.without_distractors()


@dataclass(frozen=True, kw_only=True)
class Config:
    """Find each scan's mesh in a gallery, and report R@k, MRR and mAP beside an untrained model and controls without a
    model.

    A scan and a mesh belong together if they are of one object: <query_root>/_meta/objects_<split>.json names the
    object of each scan, a mesh is called by its "class/id". With the meshes' own cache as queries and --turn_queries 1,
    the queries are the meshes, turned.

    Example: nepa3d scan-retrieval --query_root data/virtual_scans_cache --gallery_root data/shapenet_cache_v0
    --gallery_splits train test --ckpt runs/query/last.pt --n_point 256 --n_ray 0 --mc_k 4
    --out_json results/scans_query.json
    """

    where: SearchFlags
    model: SampleModelFlags
    turn_queries: Switch = False
    """Turn each query about the vertical, y, by a random angle that depends on the seed and the shape."""
    eval_seed: int = 0
    """Seed of the query draws and angles, and of the weights of the untrained model."""
    eval_seed_gallery: int = 999
    """Seed of the gallery draws; must differ from eval_seed."""
    n_seeds: int = 1
    """Number of evaluation seeds, counted up from these two; results are means over them."""
    headings: int = 1
    """Above 1: add a control without a model that compares answers at this many headings of the query and takes the
    best; its time grows with this number."""
    chunk: int = 256
    """Sequences per forward pass."""
    num_workers: int = 2
    """Threads that read shapes."""
    out_json: str = ""
    """File to write the results and settings to; empty: none."""
    embedding: PoolingFlags = field(default_factory=PoolingFlags)
    voxel: VoxelFlags = field(default_factory=VoxelFlags)
    asked: QuestionFlags = field(default_factory=QuestionFlags)

    def __post_init__(self) -> None:
        for flag in ("query_backend", "gallery_backend"):
            require_backend(getattr(self.where, flag), flag)
        require_at_least(1, chunk=self.chunk)
        require_at_least(0, num_workers=self.num_workers)
        self.settings()  # which refuses what no retrieval can mean

    def settings(self) -> ScanRetrievalSettings:
        """What the probe takes."""
        return ScanRetrievalSettings(
            query_view=self.where.query_backend,
            gallery_view=self.where.gallery_backend,
            query_seed=self.eval_seed,
            gallery_seed=self.eval_seed_gallery,
            n_seeds=self.n_seeds,
            turn_queries=self.turn_queries,
            headings=self.headings,
            embedding=EmbeddingSettings(
                pooling=self.embedding.pooling,
                representation=self.embedding.representation,
                draws=self.embedding.mc_k,
                batch=self.chunk,
                threads=self.num_workers,
                voxel=self.voxel.settings(),
                questions=self.asked.questions,
            ),
        )


def retrieve(config: Config) -> Result:
    """The result of the flags. Bad input is ``ValueError``."""
    where = config.where
    search = where.search()
    result = retrieve_shapes(config.model.load(), search, config.settings())
    return result.with_settings(
        {
            "query_root": where.query_root,
            "query_split": where.query_split,
            "gallery_root": where.gallery_root,
            "gallery_splits": list(where.gallery_splits),
            "distractors": where.distractors,
            "n_excluded": 0 if where.exclude is None else len(set(read_names(where.exclude, "exclude"))),
        }
    )


def command(config: Config) -> int:
    """Retrieve, print the table, write the JSON; the exit status says whether any shape failed."""
    result = retrieve(config)
    warnings = []
    if result.diagnostics["collapsed"]:
        tied = result.diagnostics["tied_fraction"]
        warnings.append(f"collapsed gallery: on average {tied:.0%} of its items cannot be told from the true one")
    return conclude(result, text(result), config.out_json, warnings)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m nepa3d.analysis.scan_retrieval``."""
    return cli.run(Config, command, argv, output="out_json")


if __name__ == "__main__":
    raise SystemExit(main())
