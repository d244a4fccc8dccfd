"""The command of classification of frozen features, see ``nepa3d.probes.classification``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from nepa3d import cli
from nepa3d.analysis.flag_groups import PoolingFlags, QuestionFlags, SampleModelFlags
from nepa3d.analysis.outcome import conclude
from nepa3d.cli.spellings import Switch
from nepa3d.execution.checks import require_at_least
from nepa3d.probes.classification import (
    ClassificationSettings,
    LabelledCache,
    classify_cache,
    require_scikit_learn,
    text,
)
from nepa3d.probes.embedding import EmbeddingSettings
from nepa3d.probes.result import Result
from nepa3d.samples.flag_groups import VoxelFlags
from nepa3d.samples.labelled import GroupBy
from nepa3d.shapes.views import require_backend


@dataclass(frozen=True, kw_only=True)
class Config:
    """Classify shapes by frozen features of a checkpoint; reports accuracy beside chance and plain distances.

    Example: nepa3d probe-cls --cache_root data/scanobjectnn_main_split_v2 --ckpt runs/nepa_qa/last.pt --n_seeds 3
    --out_json results/probe_cls_nepa_qa.json
    """

    cache_root: str
    """Cache with the splits train and test; the draws depend on how this path is spelled."""
    model: SampleModelFlags
    backend: str = "pointcloud_noray"
    """View of the shapes."""
    val_ratio: float = 0.1
    """Share of each class of the train split that chooses the classifiers' hyperparameters (validation part)."""
    val_seed: int = 0
    """Seed of the choice of the validation objects."""
    group_by: GroupBy = "object"
    """Keep all files of an object in one of the two parts and resample them together (object), or treat each file as an
    object of its own (file)."""
    fewshot_k: int = 0
    """Training shapes a class; 0: all."""
    fewshot_seed: int = 0
    """Seed of the choice of these shapes; incremented together with seed."""
    seed: int = 0
    """Seed of the sample draws and of the untrained model's weights."""
    n_seeds: int = 1
    """Number of seeds, counted up from seed; figures are means over them."""
    random_init: Switch = True
    """Probe an untrained model of the same sizes, too."""
    batch: int = 256
    """Sequences a forward pass."""
    num_workers: int = 2
    """Threads that prefetch shapes; 0: none."""
    out_json: str = ""
    """File to write the figures and settings to; empty: none."""
    embedding: PoolingFlags = field(default_factory=PoolingFlags)
    asked: QuestionFlags = field(default_factory=QuestionFlags)
    voxel: VoxelFlags = field(default_factory=VoxelFlags)

    def __post_init__(self) -> None:
        require_backend(self.backend, "backend")
        require_at_least(0, num_workers=self.num_workers, fewshot_k=self.fewshot_k)
        require_at_least(0, val_seed=self.val_seed, fewshot_seed=self.fewshot_seed)
        self.settings()  # which refuses what no probe can mean
        if not 0 < self.val_ratio < 1:
            raise ValueError(f"val_ratio must lie in (0, 1), got {self.val_ratio}")

    def cache(self) -> LabelledCache:
        """The labelled shapes."""
        shots = (self.fewshot_k, self.fewshot_seed)
        return LabelledCache(self.cache_root, self.val_ratio, self.val_seed, self.group_by, *shots)

    def settings(self) -> ClassificationSettings:
        """What the probe takes."""
        embedding = EmbeddingSettings(
            pooling=self.embedding.pooling,
            representation=self.embedding.representation,
            draws=self.embedding.mc_k,
            batch=self.batch,
            threads=self.num_workers,
            voxel=self.voxel.settings(),
            questions=self.asked.questions,
        )
        return ClassificationSettings(self.backend, self.seed, self.n_seeds, self.random_init, embedding)


def probe_classes(config: Config) -> Result:
    """The result of the flags. Bad input is ``ValueError``."""
    require_scikit_learn()
    return classify_cache(config.model.load(), config.cache(), config.settings())


def command(config: Config) -> int:
    """Probe, print the table, write the JSON; the exit status says whether any shape failed."""
    result = probe_classes(config)
    return conclude(result, text(result), config.out_json, result.alarms or [])


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m nepa3d.analysis.classification_probes``."""
    return cli.run(Config, command, argv, output="out_json")


if __name__ == "__main__":
    raise SystemExit(main())
