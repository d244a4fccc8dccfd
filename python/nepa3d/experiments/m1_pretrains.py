"""The three pretrainings of the M1 experiment, on the slots there are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nepa3d import cli
from nepa3d.execution.jobs import Job, JobFlags

CONFIGS = "nepa3d/configs"
RUNS = {  # flags beside the common ones
    "shapenet_mesh_udf_nepa": ("shapenet_mesh_udf.yaml", ("--objective", "nepa")),
    "shapenet_mix_nepa": ("shapenet_mix.yaml", ("--objective", "nepa", "--drop_ray_prob", "0.3")),
    "shapenet_mix_mae": ("shapenet_mix.yaml", ("--objective", "mae", "--drop_ray_prob", "0.0")),
}


@dataclass(frozen=True, kw_only=True)
class Config(JobFlags):
    """Pretrain the M1 models. Each resumes from its last.pt and is skipped if its final checkpoint exists.

    Example: python -m nepa3d.experiments.m1_pretrains --slots 0,1
    """

    runs_root: Path = Path("runs")
    """Folder of the runs, <name>_s<seed> each."""
    logs: Path = Path("logs/pretrain/m1")
    """Folder of the logs."""
    configs: str = CONFIGS
    """Folder of the mixes."""
    methods: str = " ".join(RUNS)
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
    extra: str = ""
    """More flags of nepa3d.train.pretrain, such as "--d_model 128 --layers 4"."""

    def __post_init__(self) -> None:
        super().__post_init__()
        unknown = sorted(set(self.methods.split()) - set(RUNS))
        if unknown:
            raise ValueError(f"methods must be among {', '.join(RUNS)}, got {', '.join(unknown)}")


def plan(config: Config) -> list[Job]:
    """The jobs, in the order of ``methods``."""
    jobs = []
    for method in config.methods.split():
        mix, flags = RUNS[method]
        name = f"{method}_s{config.seed}"
        folder = config.runs_root / name
        common = (
            *(
                "--mix_config",
                f"{config.configs}/{mix}",
                "--save_dir",
                f"{folder}",
                "--resume",
                f"{folder / 'last.pt'}",
            ),
            *("--epochs", f"{config.epochs}", "--batch", f"{config.batch}", "--save_every", f"{config.save_every}"),
            *("--n_point", f"{config.n_point}", "--n_ray", f"{config.n_ray}", "--seed", f"{config.seed}"),
        )
        result = folder / f"ckpt_ep{config.epochs - 1:03d}.pt"
        more = tuple(config.extra.split())
        jobs.append(Job(name, "nepa3d.train.pretrain", (*common, *flags, *more), result, config.logs / f"{name}.log"))
    return jobs


def command(config: Config) -> int:
    """Run them; 3 if one failed."""
    finished = config.run(plan(config))
    return cli.EXIT_SOME_FAILED if any(job.state == "failed" for job in finished) else cli.EXIT_OK


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(Config, command, argv)


if __name__ == "__main__":
    raise SystemExit(main())
