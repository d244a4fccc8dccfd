"""The whole way of the data on a real corpus: meshes, caches, two models, probes, classifiers, tables, a picture."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import yaml
from tabulate import tabulate

from nepa3d import cli
from nepa3d.data.import_sweethome3d import fetch_furniture, find_furniture
from nepa3d.execution.files import read_json, write_json, write_text

PAIRS = (("mesh", "udfgrid"), ("mesh", "pointcloud_noray"), ("pointcloud_noray", "udfgrid"))
SHORT = {"mesh": "mesh", "udfgrid": "udf", "pointcloud_noray": "pc"}


@dataclass(frozen=True)
class Config:
    """Run the whole pipeline in one folder. The same command resumes an interrupted run.

    Example: python -m nepa3d.experiments.demo --root demo/full
    """

    root: Path
    """Folder of everything the demo downloads and makes."""
    quick: bool = False
    """Few shapes, few steps: shows that it works, not what it learns."""
    workers: int = 2
    """Processes of the preprocessing."""


@dataclass(frozen=True)
class Scale:
    """How much the demo does."""

    shapes: int  # of the furniture libraries; 0: all
    per_class: int  # of the procedural corpus
    samples: int  # a pretraining epoch
    epochs: int
    model: tuple[str, ...]
    tokens: tuple[str, ...]
    finetuning: int  # epochs
    pools: tuple[str, ...] = ()


FULL = Scale(
    shapes=0,
    per_class=50,
    samples=2048,
    epochs=6,
    model=("--d_model", "128", "--layers", "4", "--heads", "4"),
    tokens=("--n_point", "64", "--n_ray", "64"),
    finetuning=10,
)
QUICK = Scale(
    shapes=96,
    per_class=4,
    samples=128,
    epochs=2,
    model=("--d_model", "64", "--layers", "2", "--heads", "2"),
    tokens=("--n_point", "32", "--n_ray", "32"),
    finetuning=2,
    pools=(
        "--pt_pool",
        "2000",
        "--ray_pool",
        "800",
        "--n_views",
        "8",
        "--rays_per_view",
        "100",
        "--test_ratio",
        "0.25",
    ),
)
OBJECTIVES = {
    "nepa": (
        *("--objective", "nepa", "--qa_tokens", "1", "--skip_missing_rays", "1"),
        *("--dual_mask_near", "0.4", "--dual_mask_far", "0.1", "--dual_mask_window", "32"),
    ),
    "mae": ("--objective", "mae", "--qa_tokens", "0"),
}


@dataclass(frozen=True)
class Stage:
    """One command of the pipeline; it is left out when ``result`` exists."""

    name: str
    module: str
    arguments: tuple[str, ...]
    result: Path | None = None
    accepted: tuple[int, ...] = (cli.EXIT_OK,)


def find_source(download: Path) -> tuple[str, Path | None]:
    """A sentence that says which meshes are used, and their folder; None: procedural ones have to do."""
    try:
        furniture = find_furniture() or fetch_furniture(download)
    except OSError as error:
        return f"the built-in procedural shapes, since the furniture package is not to be had ({error})", None
    return f"Sweet Home 3D's furniture, from {furniture}", furniture


def corpus_stage(root: Path, furniture: Path | None, scale: Scale) -> Stage:
    """The stage that makes <root>/corpus."""
    out = ("--out_root", f"{root / 'corpus'}")
    if furniture is None:
        return Stage("corpus", "nepa3d.data.procedural", (*out, "--per_class", str(scale.per_class)))
    limit = ("--limit", str(scale.shapes)) if scale.shapes else ()
    arguments = ("--furniture_root", f"{furniture}", *out, *limit)
    return Stage("corpus", "nepa3d.data.import_sweethome3d", arguments, accepted=(cli.EXIT_OK, cli.EXIT_SOME_FAILED))


def data_stages(config: Config, scale: Scale) -> list[Stage]:
    """Caches, the unpaired split and its view, and the migration."""
    root = config.root
    cache, split = f"{root / 'cache'}", f"{root / 'unpaired_split.json'}"
    some = (cli.EXIT_OK, cli.EXIT_SOME_FAILED)
    return [
        Stage(
            "preprocess",
            "nepa3d.data.preprocess_shapenet",
            (
                *("--shapenet_root", f"{root / 'corpus'}", "--out_root", cache),
                *("--workers", str(config.workers), *scale.pools),
            ),
            accepted=some,
        ),
        Stage("split", "nepa3d.data.shapenet_unpaired_split", ("--cache_root", cache, "--out_json", split)),
        Stage(
            "view",
            "nepa3d.data.preprocess_shapenet_unpaired",
            ("--src_cache_root", cache, "--split_json", split, "--out_root", f"{root / 'unpaired'}"),
        ),
        Stage(
            "migrate",
            "nepa3d.data.migrate_add_pt_dist_pc_pool",
            ("--cache_root", cache, "--splits", "all", "--workers", str(config.workers)),
        ),
    ]


def scan_stages(config: Config) -> list[Stage]:
    """Scans of the meshes, and their caches."""
    root = config.root
    some = (cli.EXIT_OK, cli.EXIT_SOME_FAILED)
    workers = ("--workers", str(config.workers))
    return [
        Stage(
            "scan",
            "nepa3d.data.virtual_scanner",
            ("--mesh_root", f"{root / 'corpus'}", "--out_root", f"{root / 'scans'}", *workers),
            accepted=some,
        ),
        Stage(
            "scan caches",
            "nepa3d.data.preprocess_scanobjectnn",
            (
                *(
                    "--scan_root",
                    f"{root / 'scans' / 'h5_files' / 'main_split'}",
                    "--out_root",
                    f"{root / 'scan_cache'}",
                ),
                *("--pt_pool", "4000", "--ray_pool", "256", *workers),
            ),
            accepted=some,
        ),
        Stage("verify", "nepa3d.data.verify", (f"{root / 'cache'}", *workers)),
    ]


def pretrain_stages(config: Config, scale: Scale) -> list[Stage]:
    """One small model for each objective."""
    return [
        Stage(
            f"pretrain {name}",
            "nepa3d.train.pretrain",
            (
                *("--mix_config", f"{config.root / 'mix.yaml'}", "--save_dir", f"{config.root / 'runs' / name}"),
                *("--mix_num_samples", str(scale.samples), "--epochs", str(scale.epochs), "--lr", "1e-3"),
                *("--save_every", "1000", "--num_workers", "0", "--batch", "32"),
                *scale.model,
                *scale.tokens,
                *objective,
            ),
            result=config.root / "runs" / name / f"ckpt_ep{scale.epochs - 1:03d}.pt",
        )
        for name, objective in OBJECTIVES.items()
    ]


def probe_stages(config: Config, scale: Scale) -> list[Stage]:
    """Retrieval on three pairs, non-transductive completion and its surfaces, and classes of scans, for each model."""
    stages = []
    results = config.root / "results"
    for name in OBJECTIVES:
        checkpoint = config.root / "runs" / name / f"ckpt_ep{scale.epochs - 1:03d}.pt"
        common = ("--cache_root", f"{config.root / 'unpaired'}", "--split", "eval", "--ckpt", f"{checkpoint}")
        for query, gallery in PAIRS:
            out = results / f"ucpr_{name}_{SHORT[query]}2{SHORT[gallery]}.json"
            backends = ("--query_backend", query, "--gallery_backend", gallery)
            seeds = ("--eval_seed", "0", "--eval_seed_gallery", "999", "--out_json", f"{out}")
            stages.append(Stage(out.stem, "nepa3d.analysis.retrieval_ucpr", (*common, *backends, *seeds), out))
        out = results / f"cpac_{name}_pc2udf_nontrans.json"
        points = scale.tokens[1]
        backends = ("--context_backend", "pointcloud_noray", "--head_train_split", "train_udf")
        draws = ("--n_context", points, "--n_query", points, "--out_json", f"{out}")
        stages.append(Stage(out.stem, "nepa3d.analysis.completion_cpac_udf", (*common, *backends, *draws), out))
        shown = config.root / "surfaces" / name
        asked = (*backends, "--n_context", points, "--n_query", points, "--out_root", f"{shown}")
        stages.append(Stage(f"surfaces {name}", "nepa3d.analysis.surfaces", (*common, *asked), shown / "scores.json"))
        out = results / f"probe_cls_{name}.json"
        scans = ("--cache_root", f"{config.root / 'scan_cache'}", "--ckpt", f"{checkpoint}", "--out_json", f"{out}")
        stages.append(Stage(out.stem, "nepa3d.analysis.classification_probes", scans, out))
    return stages


def finetune_stages(config: Config, scale: Scale) -> list[Stage]:
    """A classifier of the scans from each model and from none, with five shapes a class and with all; their table."""
    runs = config.root / "runs"
    common = (
        *("--cache_root", f"{config.root / 'scan_cache'}", "--backend", "pointcloud_noray", "--batch", "64"),
        *("--epochs", str(scale.finetuning), "--lr", "1e-3", "--num_workers", "1", "--mc_eval_k_test", "4"),
    )
    weights = {name: ("--ckpt", f"{runs / name / f'ckpt_ep{scale.epochs - 1:03d}.pt'}") for name in OBJECTIVES} | {
        "scratch": (*scale.model, *scale.tokens)
    }
    stages = []
    for name, flags in weights.items():
        for shots in (5, 0):
            folder = runs / f"scan_{name}_k{shots}_s0"
            arguments = (*common, *flags, "--fewshot_k", str(shots), "--save_dir", f"{folder}")
            stage = f"fine-tune {name}, {shots or 'all'} a class"
            stages.append(Stage(stage, "nepa3d.train.finetune_cls", arguments, folder / "last.pt"))
    table = ("--runs_root", f"{runs}", "--results", f"{config.root / 'results'}")
    return [*stages, Stage("few-shot table", "nepa3d.analysis.fewshot_table", table)]


def report_stages(config: Config) -> list[Stage]:
    """The tables, the picture and the page."""
    root = config.root
    results = [
        f"{path}" for path in sorted({*(root / "results").glob("ucpr_*.json"), *(root / "results").glob("cpac_*.json")})
    ]
    runs = [f"{root / 'runs' / name}" for name in OBJECTIVES]
    return [
        Stage(
            "table", "nepa3d.analysis.tables", ("--results", *results, "--out_md", f"{root / 'results' / 'tables.md'}")
        ),
        Stage(
            "picture",
            "nepa3d.report.picture",
            (
                *("--cache_root", f"{root / 'unpaired'}", "--split", "eval", "--runs", *runs),
                *("--results", *results, "--out_png", f"{root / 'demo.png'}"),
            ),
        ),
        Stage("report", "nepa3d.report.page", (f"{root}", "--title", "nepa3d demo")),
    ]


def write_mix(path: Path, unpaired: Path) -> None:
    """The document's unpaired mix, on the demo's caches."""
    parts = (("train_mesh", "mesh", 0.34), ("train_pc", "pointcloud_noray", 0.33), ("train_udf", "udfgrid", 0.33))
    datasets = [
        {"name": split, "cache_root": f"{unpaired}", "split": split, "backend": backend, "weight": weight}
        for split, backend, weight in parts
    ]
    write_text(path, yaml.safe_dump({"mix_seed": 0, "replacement": True, "datasets": datasets}, sort_keys=False))


def run_stage(stage: Stage) -> float:
    """Run one command, showing it as a user would type it; returns its seconds, 0 if its result was there."""
    if stage.result is not None and stage.result.exists():
        print(f"\n== {stage.name}: done before ({stage.result})", flush=True)
        return 0.0
    print(f"\n== {stage.name}\n$ python -m {stage.module} {' '.join(stage.arguments)}", flush=True)
    begin = time.perf_counter()
    status = subprocess.run([sys.executable, "-u", "-m", stage.module, *stage.arguments]).returncode
    if status not in stage.accepted:
        raise SystemExit(status)
    return time.perf_counter() - begin


def demo(config: Config) -> None:
    """Run every stage; see ``Config``."""
    scale = QUICK if config.quick else FULL
    said, furniture = find_source(config.root / "download")
    print(f"corpus: {said}")
    if furniture is None:  # in a folder of its own, should the package be found another time
        config = replace(config, root=config.root / "procedural")
    write_mix(config.root / "mix.yaml", config.root / "unpaired")
    seconds: dict[str, float] = {}
    for stage in [
        corpus_stage(config.root, furniture, scale),
        *data_stages(config, scale),
        *scan_stages(config),
        *pretrain_stages(config, scale),
        *probe_stages(config, scale),
        *finetune_stages(config, scale),
    ]:
        seconds[stage.name] = run_stage(stage)
    for stage in report_stages(config):
        seconds[stage.name] = run_stage(stage)
    _write_timings(config.root / "timings.json", seconds)
    print(f"\ncorpus: {said}")
    print(tabulate(seconds.items(), headers=("stage", "seconds"), floatfmt=".1f", tablefmt="github"))
    print(f"to look at: {config.root / 'report.html'}")
    print(f"picture: {config.root / 'demo.png'}, tables: {config.root / 'results' / 'tables.md'}, ", end="")
    print(f"completed surfaces: {config.root / 'surfaces'}")


def _write_timings(path: Path, seconds: dict[str, float]) -> None:
    """Keep a stage's time when it was skipped now because it was done before."""
    before = read_json(path) if path.exists() else {}
    write_json(path, {name: round(took, 2) if took else before.get(name, 0.0) for name, took in seconds.items()})


def command(config: Config) -> None:
    demo(config)


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(Config, command, argv)


if __name__ == "__main__":
    raise SystemExit(main())
