"""The three pretrainings of the M1 experiment, on the slots there are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nepa3d import cli
from nepa3d.experiments.job_flags import JobFlags, with_words
from nepa3d.experiments.jobs import Job
from nepa3d.train import pretrain
from nepa3d.train.corpus import CorpusFlags, SampleFlags
from nepa3d.train.loop import LoopFlags, OutputFlags
from nepa3d.train.resume import ResumeFlags
from nepa3d.train.step import LossFlags

CONFIGS = "nepa3d/configs"


@dataclass(frozen=True)
class Method:
    """What one of the models is trained on, and with."""

    mix: str  # file of CONFIGS
    objective: str
    drop_ray_prob: float = 0.0


METHODS = {
    "shapenet_mesh_udf_nepa": Method("shapenet_mesh_udf.yaml", "nepa"),
    "shapenet_mix_nepa": Method("shapenet_mix.yaml", "nepa", drop_ray_prob=0.3),
    "shapenet_mix_mae": Method("shapenet_mix.yaml", "mae"),
}


@dataclass(frozen=True, kw_only=True)
class Config:
    """Pretrain the M1 models. Each resumes from its last.pt and is skipped if its final checkpoint exists.

    Example: python -m nepa3d.experiments.m1_pretrains --slots 0,1
    """

    runs_root: Path = Path("runs")
    """Folder of the runs, <name>_s<seed> each."""
    logs: Path = Path("logs/pretrain/m1")
    """Folder of the logs."""
    configs: str = CONFIGS
    """Folder of the mixes."""
    methods: str = " ".join(METHODS)
    """Which models."""
    epochs: int = 50
    """Passes over the corpus."""
    batch: int = 32
    """Sequences a step."""
    n_point: int = 256
    """Point queries a sample."""
    n_ray: int = 256
    """Ray queries a sample."""
    save_every: int = 10
    """Epochs between two checkpoints that are kept."""
    seed: int = 0
    """Seed of all of them."""
    jobs: JobFlags = field(default_factory=JobFlags)
    extra: str = ""
    """More flags of nepa3d.train.pretrain, such as "--d_model 128 --layers 4"."""

    def __post_init__(self) -> None:
        unknown = sorted(set(self.methods.split()) - set(METHODS))
        if unknown:
            raise ValueError(f"methods must be among {', '.join(METHODS)}, got {', '.join(unknown)}")


def plan(config: Config) -> list[Job]:
    """The jobs, in the order of ``methods``."""
    return [_job(config, name) for name in config.methods.split()]


def _job(config: Config, name: str) -> Job:
    method, run = METHODS[name], f"{name}_s{config.seed}"
    folder = config.runs_root / run
    wanted = pretrain.Config(
        save_dir=f"{folder}",
        corpus=CorpusFlags(mix_config=f"{config.configs}/{method.mix}"),
        samples=SampleFlags(n_point=config.n_point, n_ray=config.n_ray, drop_ray_prob=method.drop_ray_prob),
        loss=LossFlags(objective=method.objective),
        loop=LoopFlags(epochs=config.epochs, batch=config.batch),
        output=OutputFlags(save_every=config.save_every),
        resuming=ResumeFlags(resume=f"{folder / 'last.pt'}"),
        seed=config.seed,
    )
    result = folder / f"ckpt_ep{config.epochs - 1:03d}.pt"
    more = with_words(wanted, config.extra)
    return Job(run, more, result, config.logs / f"{run}.log", harmless=pretrain.HARMLESS)


def command(config: Config) -> int:
    """Run them; 3 if one failed."""
    finished = config.jobs.run(plan(config))
    return cli.EXIT_SOME_FAILED if any(job.state == "failed" for job in finished) else cli.EXIT_OK


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(Config, command, argv)


if __name__ == "__main__":
    raise SystemExit(main())
