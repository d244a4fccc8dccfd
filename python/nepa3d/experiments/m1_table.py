"""The M1 few-shot table: five methods, five numbers of shots, three seeds, on the slots there are."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nepa3d import cli
from nepa3d.experiments.job_flags import JobFlags, with_words
from nepa3d.experiments.jobs import Job
from nepa3d.models.checkpoint import load_checkpoint
from nepa3d.report.fewshot import print_tables, read_runs, write_tables
from nepa3d.train import finetune_cls
from nepa3d.train.finetune_cls import EvaluationFlags, SampleFlags, SplitFlags, TrainingFlags, ViewFlags

PRETRAINED = {  # folder of each method's pretraining; scratch has none
    "scratch": "",
    "shapenet_nepa": "shapenet_mesh_nepa",
    "shapenet_mesh_udf_nepa": "shapenet_mesh_udf_nepa",
    "shapenet_mix_nepa": "shapenet_mix_nepa",
    "shapenet_mix_mae": "shapenet_mix_mae",
}


@dataclass(frozen=True, kw_only=True)
class Config:
    """Fine-tune every method with every number of shots and every seed, in runs/scan_<method>_k<K>_s<seed>.

    A job is skipped if its last.pt exists, so the same command resumes an interrupted table. At the end, the table is
    printed and written as Markdown, CSV and JSON.

    Example: python -m nepa3d.experiments.m1_table --slots 0,1
    """

    cache_root: str = "data/scanobjectnn_main_split_v2"
    """Cache with the splits train and test."""
    runs_root: Path = Path("runs")
    """Folder of the runs and of the pretrained models."""
    logs: Path = Path("logs/finetune/scan_m1_table/jobs")
    """Folder of the jobs' logs."""
    results: Path = Path("results")
    """Folder of m1_table.{md,csv,json}."""
    methods: str = " ".join(PRETRAINED)
    """Which models."""
    shots: str = "0 1 5 10 20"
    """Training shapes a class; 0: all."""
    seeds: str = "0 1 2"
    """Seeds of the head and, with few shots, of the choice of shapes."""
    pretrain_seed: int = 0
    """Seed in the names of the pretrained models' folders."""
    backend: str = "pointcloud_noray"
    """View of the scans."""
    epochs: int = 100
    """Passes over the training set."""
    batch: int = 128
    """Sequences a step."""
    lr: float = 1e-4
    """Learning rate."""
    n_point: int = 256
    """Point queries per sample of the model from scratch; the others use those of their checkpoint."""
    n_ray: int = 256
    """Ray queries per sample of the model from scratch."""
    jobs: JobFlags = field(default_factory=JobFlags)
    extra: str = ""
    """More flags of nepa3d.train.finetune_cls, given as --extra="--lr 3e-4"."""
    scratch_extra: str = ""
    """More such flags for the model from scratch only, such as "--d_model 128"."""

    def __post_init__(self) -> None:
        unknown = sorted(set(self.methods.split()) - set(PRETRAINED))
        if unknown:
            raise ValueError(f"methods must be among {', '.join(PRETRAINED)}, got {', '.join(unknown)}")
        for name in ("shots", "seeds"):
            if not all(word.isdecimal() for word in getattr(self, name).split()):
                raise ValueError(f"{name} must be whole numbers with blanks between them, got {getattr(self, name)!r}")


def run_name(method: str, shots: int, seed: int) -> str:
    """The document's name of a run."""
    return f"scan_{method}_k{shots}_s{seed}"


def plan(config: Config) -> list[Job]:
    """The jobs: methods, then shots, then seeds. ``ValueError`` naming the pretrained models that are not there."""
    checkpoints = {method: _checkpoint(config, method) for method in config.methods.split()}
    missing = [f"{path}" for path in checkpoints.values() if path is not None and not path.exists()]
    if missing:
        raise ValueError(f"methods: pretrain first, there is no {', '.join(missing)}")
    return [
        _job(config, method, checkpoint, shots, seed)
        for method, checkpoint in checkpoints.items()
        for shots in map(int, config.shots.split())
        for seed in map(int, config.seeds.split())
    ]


def _job(config: Config, method: str, checkpoint: Path | None, shots: int, seed: int) -> Job:
    name = run_name(method, shots, seed)
    folder = config.runs_root / name
    scratch = checkpoint is None
    wanted = finetune_cls.Config(
        cache_root=config.cache_root,
        save_dir=f"{folder}",
        ckpt="" if scratch else f"{checkpoint}",
        views=ViewFlags(backend=config.backend),
        samples=SampleFlags(n_point=config.n_point if scratch else None, n_ray=config.n_ray if scratch else None),
        training=TrainingFlags(epochs=config.epochs, batch=config.batch, lr=config.lr, seed=seed),
        split=SplitFlags(val_seed=0, fewshot_k=shots, fewshot_seed=seed if shots else 0),
        evaluation=EvaluationFlags(eval_seed=0, mc_eval_k_val=1, mc_eval_k_test=4),
    )
    words = f"{config.scratch_extra} {config.extra}" if scratch else config.extra
    return Job(name, with_words(wanted, words), folder / "last.pt", config.logs / f"{name}.log")


def _checkpoint(config: Config, method: str) -> Path | None:
    """The newest checkpoint of a method's pretraining."""
    if not PRETRAINED[method]:
        return None
    folder = config.runs_root / f"{PRETRAINED[method]}_s{config.pretrain_seed}"
    kept = sorted(folder.glob("ckpt_ep*.pt"), key=lambda path: (len(path.name), path.name))
    return kept[-1] if kept else folder / "last.pt"


def unfinished(jobs: Sequence[Job]) -> list[str]:
    """A line for each pretrained model of the jobs yet to be run whose pretraining has epochs left.

    ``ValueError`` naming a checkpoint that cannot be read.
    """
    lines = []
    for path in dict.fromkeys(job.config.ckpt for job in jobs if job.config.ckpt and not job.done):
        checkpoint = load_checkpoint(path)
        epochs = checkpoint.args.get("epochs")
        if isinstance(epochs, int) and checkpoint.epoch < epochs - 1:
            lines.append(
                f"{path}: the pretraining is not finished, it has done {checkpoint.epoch + 1} of {epochs} epochs"
            )
    return lines


def command(config: Config) -> int:
    """Warn of pretrainings that are not finished, run the jobs and print the table; 3 if one failed."""
    jobs = plan(config)
    for line in unfinished(jobs):
        print(f"warning: {line}", file=sys.stderr)
    finished = config.jobs.run(jobs)
    runs = read_runs(config.runs_root)
    print_tables(runs)
    write_tables(runs, config.results)
    return cli.EXIT_SOME_FAILED if any(job.state == "failed" for job in finished) else cli.EXIT_OK


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(Config, command, argv, output="results")


if __name__ == "__main__":
    raise SystemExit(main())
