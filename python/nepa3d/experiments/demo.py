"""The whole way of the data on a real corpus: meshes, caches, three models, probes, classifiers, tables, a picture."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import yaml
from tabulate import tabulate

from nepa3d import cli
from nepa3d.analysis import (
    classification_probes,
    completion_cpac_udf,
    fewshot_table,
    retrieval_ucpr,
    scan_retrieval,
    surfaces,
    tables,
)
from nepa3d.analysis.flag_groups import (
    CompletionFlags,
    ControlFlags,
    ModelFlags,
    PoolingFlags,
    SampleModelFlags,
    SequenceModelFlags,
)
from nepa3d.data import (
    import_sweethome3d,
    migrate_add_pt_dist_pc_pool,
    preprocess_scanobjectnn,
    preprocess_shapenet,
    preprocess_shapenet_unpaired,
    procedural,
    shapenet_unpaired_split,
    verify,
    virtual_scanner,
)
from nepa3d.data.import_sweethome3d import fetch_furniture, find_furniture
from nepa3d.execution.files import read_json, write_json, write_text
from nepa3d.experiments.jobs import Finished, Job, run_jobs
from nepa3d.models.checkpoint import ModelFlags as SizeFlags
from nepa3d.models.stored import built_in
from nepa3d.probes.distance_head import OWN
from nepa3d.report import page, picture
from nepa3d.shapes.query_pools import PoolSettings
from nepa3d.train import finetune_cls, pretrain
from nepa3d.train.corpus import CorpusFlags, SampleFlags
from nepa3d.train.finetune_cls import EvaluationFlags, FreshModelFlags, SplitFlags, TrainingFlags
from nepa3d.train.finetune_cls import SampleFlags as ClassSampleFlags
from nepa3d.train.flag_groups import StepFlags
from nepa3d.train.loop import LoopFlags, OutputFlags
from nepa3d.train.schedule import DualMaskFlags, LearningRateFlags
from nepa3d.train.step import LossFlags

PAIRS = (("mesh", "udfgrid"), ("mesh", "pointcloud_noray"), ("pointcloud_noray", "udfgrid"))
SHORT = {"mesh": "mesh", "udfgrid": "udf", "pointcloud_noray": "pc"}
SOME_MAY_FAIL = (cli.EXIT_OK, cli.EXIT_SOME_FAILED)
BANK = 2  # scans of each mesh that are searched and trained on
SCANS = 0.5  # weight of scans and their meshes in the recipe's mix; the pairs of views have 1 together
SCAN_DRAWS = 4  # averaged in the retrieval by scans


@dataclass(frozen=True)
class Config:
    """Run the whole pipeline in one folder. The same command resumes an interrupted run.

    Example: python -m nepa3d.experiments.demo --root demo/full
    """

    root: Path
    """Folder of everything the demo downloads and makes."""
    quick: bool = False
    """Use few shapes and few steps, to check that the pipeline runs; the models learn little."""
    workers: int = 2
    """Processes of the preprocessing; trainings and probes that run beside each other, on a share of the cores each."""


@dataclass(frozen=True)
class RecipeScale:
    """How much the recommended recipe does."""

    samples: int  # an epoch
    epochs: int
    n_point: int
    blind: int
    context: tuple[int, int]


@dataclass(frozen=True)
class Scale:
    """How much the demo does."""

    shapes: int  # of the furniture libraries; 0: all
    per_class: int  # of the procedural corpus
    samples: int  # a pretraining epoch
    epochs: int
    model: SizeFlags
    tokens: int  # points, and rays, of a sample
    recipe: RecipeScale
    finetuning: int  # epochs
    pools: PoolSettings = field(default_factory=PoolSettings)
    test_ratio: float = 0.1


FULL = Scale(
    shapes=0,
    per_class=50,
    samples=2048,
    epochs=2,
    recipe=RecipeScale(samples=3072, epochs=6, n_point=256, blind=128, context=(32, 128)),
    model=SizeFlags(d_model=128, layers=4, heads=4),
    tokens=64,
    finetuning=10,
)
QUICK = Scale(
    shapes=96,
    per_class=4,
    samples=128,
    epochs=2,
    recipe=RecipeScale(samples=128, epochs=2, n_point=64, blind=32, context=(16, 32)),
    model=SizeFlags(d_model=64, layers=2, heads=2),
    tokens=32,
    finetuning=2,
    pools=PoolSettings(pt_pool=2000, ray_pool=800, n_views=8, rays_per_view=100),
    test_ratio=0.25,
)


@dataclass(frozen=True)
class Method:
    """What a model of the demo is trained with."""

    loss: LossFlags
    qa_tokens: bool
    skip_missing_rays: bool = False
    dual_mask: DualMaskFlags = field(default_factory=DualMaskFlags)


DOCUMENTS = {
    "nepa": Method(
        LossFlags(objective="nepa"),
        qa_tokens=True,
        skip_missing_rays=True,
        dual_mask=DualMaskFlags(dual_mask_near=0.4, dual_mask_far=0.1, dual_mask_window=32),
    ),
    "mae": Method(LossFlags(objective="mae"), qa_tokens=False),
}
RECIPE, RECIPE_FILE = "query", "nepa3d/configs/query.yaml"
MODELS = (*DOCUMENTS, RECIPE)
SCRATCH = "scratch"  # classifiers without pretraining
SHIPPED = "furniture-small"  # the package's model, trained on the training part of the full corpus


@dataclass(frozen=True)
class Demo:
    """The folders of a demo, and how much it does."""

    root: Path
    scale: Scale
    workers: int
    shipped: bool = False  # show the package's own model, too: only where it was trained on none of the test shapes

    @property
    def probed(self) -> tuple[str, ...]:
        """The names of the models that are compared."""
        return (*MODELS, SHIPPED) if self.shipped else MODELS

    @property
    def results(self) -> Path:
        return self.root / "results"

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    def checkpoint(self, name: str) -> Path:
        """The last one of a model; of the package's, its name."""
        if name == SHIPPED:
            return Path(name)
        epochs = self.scale.recipe.epochs if name == RECIPE else self.scale.epochs
        return self.runs / name / f"ckpt_ep{epochs - 1:03d}.pt"

    def mix(self, name: str) -> Path:
        """The mix that a model is trained on; the recipe's has pairs of views, and scans."""
        return self.root / ("mix_pairs.yaml" if name == RECIPE else "mix.yaml")

    def corpus(self, name: str) -> CorpusFlags:
        """The mix that a model is trained on, and how much of it is an epoch."""
        samples = self.scale.recipe.samples if name == RECIPE else self.scale.samples
        return CorpusFlags(mix_config=f"{self.mix(name)}", mix_num_samples=samples)

    def rays(self, name: str) -> int:
        """Rays of a sample that the probes show to a model."""
        return self.scale.tokens if name in DOCUMENTS else 0


def find_source(download: Path) -> tuple[str, Path | None]:
    """A sentence that says which meshes are used, and their folder; None: procedural ones have to do."""
    try:
        furniture = find_furniture() or fetch_furniture(download)
    except OSError as error:
        return f"the built-in procedural shapes, since the furniture package is not available ({error})", None
    return f"Sweet Home 3D's furniture, from {furniture}", furniture


def corpus_job(demo: Demo, furniture: Path | None) -> Job:
    """Make <root>/corpus."""
    out, scale = demo.root / "corpus", demo.scale
    if furniture is None:
        return Job("corpus", procedural.Config(out_root=out, per_class=scale.per_class))
    config = import_sweethome3d.Config(out_root=out, furniture_root=furniture, limit=scale.shapes)
    return Job("corpus", config, accepted=SOME_MAY_FAIL)


def data_jobs(demo: Demo) -> Iterator[Job]:
    """Caches, the unpaired split and its view, and the migration."""
    root, workers = demo.root, demo.workers
    cache, split = root / "cache", root / "unpaired_split.json"
    yield Job(
        "preprocess",
        preprocess_shapenet.Config(
            shapenet_root=root / "corpus",
            out_root=cache,
            workers=workers,
            test_ratio=demo.scale.test_ratio,
            **vars(demo.scale.pools),
        ),
        accepted=SOME_MAY_FAIL,
    )
    yield Job("split", shapenet_unpaired_split.Config(cache_root=f"{cache}", out_json=split))
    unpaired = preprocess_shapenet_unpaired.Config(src_cache_root=cache, split_json=split, out_root=root / "unpaired")
    yield Job("view", unpaired)
    yield Job("migrate", migrate_add_pt_dist_pc_pool.Config(cache_root=f"{cache}", splits="all", workers=workers))


def scan_jobs(demo: Demo) -> Iterator[Job]:
    """Scans of the meshes and their caches: labelled ones to be classified, and a bank of others whose split is that of
    the mesh caches, to train on and to find the meshes by."""
    root, workers = demo.root, demo.workers
    labelled = virtual_scanner.Config(mesh_root=root / "corpus", out_root=root / "scans", workers=workers)
    bank = replace(labelled, out_root=root / "bank", scans=BANK, test_ratio=demo.scale.test_ratio, seed=1)
    for name, scan, out in (("scan", labelled, "scan_cache"), ("bank", bank, "bank_cache")):
        yield Job(name, scan, accepted=SOME_MAY_FAIL)
        caches = preprocess_scanobjectnn.Config(
            scan_root=scan.out_root / "h5_files" / "main_split",
            out_root=root / out,
            pt_pool=4000,
            ray_pool=256,
            workers=workers,
        )
        yield Job(f"{name} caches", caches, accepted=SOME_MAY_FAIL)
    yield Job("verify", verify.Config(root / "cache", workers=workers))


def pretrain_jobs(demo: Demo) -> Iterator[Job]:
    """One small model of the recommended recipe, and one for each of the document's methods."""
    scale = demo.scale
    yield Job(f"pretrain {RECIPE}", _recipe(demo), demo.checkpoint(RECIPE), harmless=pretrain.HARMLESS)
    for name, method in DOCUMENTS.items():
        config = pretrain.Config(
            save_dir=f"{demo.runs / name}",
            corpus=demo.corpus(name),
            samples=SampleFlags(n_point=scale.tokens, n_ray=scale.tokens, qa_tokens=method.qa_tokens),
            model=scale.model,
            loss=method.loss,
            dual_mask=method.dual_mask,
            loop=LoopFlags(batch=32, epochs=scale.epochs, num_workers=0),
            learning_rate=LearningRateFlags(lr=1e-3),
            step=StepFlags(skip_missing_rays=method.skip_missing_rays),
            output=OutputFlags(save_every=1000),
        )
        yield Job(f"pretrain {name}", config, demo.checkpoint(name), harmless=pretrain.HARMLESS)


def _recipe(demo: Demo) -> pretrain.Config:
    """The recommended recipe at the demo's scale."""
    scale, recipe = demo.scale, demo.scale.recipe
    config = cli.parse(pretrain.Config, ["--config", RECIPE_FILE, "--save_dir", f"{demo.runs / RECIPE}"])
    few, most = recipe.context
    return replace(
        config,
        corpus=demo.corpus(RECIPE),
        samples=replace(config.samples, n_point=recipe.n_point),
        query=replace(config.query, context_min=few, context_max=most, blind=recipe.blind),
        augment=replace(config.augment, answer_shift=0.0),  # views that ask each other show how much they differ
        model=scale.model,
        loop=LoopFlags(batch=32, epochs=recipe.epochs, num_workers=1),
        output=OutputFlags(save_every=1000),
    )


def probe_jobs(demo: Demo, name: str) -> Iterator[Job]:
    """Of a model: retrieval on three pairs, non-transductive completion and its surfaces, meshes found by scans and
    classes of scans."""
    unpaired, points = f"{demo.root / 'unpaired'}", demo.scale.tokens
    controls = ControlFlags(random_init=True)
    ckpt = f"{demo.checkpoint(name)}"
    model = SampleModelFlags(ckpt=ckpt, n_point=points, n_ray=demo.rays(name))
    completed = CompletionFlags(n_context=points, n_query=points)
    for query, gallery in PAIRS:
        out = demo.results / f"ucpr_{name}_{SHORT[query]}2{SHORT[gallery]}.json"
        retrieval = retrieval_ucpr.Config(
            cache_root=unpaired,
            model=model,
            query_backend=query,
            gallery_backend=gallery,
            eval_seed_gallery=999,
            controls=controls,
            out_json=f"{out}",
        )
        yield Job(out.stem, retrieval, out)
    common = completion_cpac_udf.Config(
        cache_root=unpaired,
        model=SequenceModelFlags(ckpt=ckpt),
        completion=completed,
        controls=controls,
        local_regression=True,
    )
    completions = {"nontrans": common, "grid": replace(common, query_source="grid")}
    if name not in DOCUMENTS:
        completions["own"] = replace(
            common, completion=replace(completed, head_train_split=OWN), local_regression=False
        )
    for kind, completion in completions.items():
        out = demo.results / f"cpac_{name}_pc2udf_{kind}.json"
        yield Job(out.stem, replace(completion, out_json=f"{out}"), out)
    shown = demo.root / "surfaces" / name
    drawn = surfaces.Config(
        cache_root=unpaired,
        out_root=shown,
        model=ModelFlags(ckpt=ckpt),
        completion=completed,
        controls=controls,
    )
    yield Job(f"surfaces {name}", drawn, shown / "scores.json")
    yield from _scan_probe_jobs(demo, name, model)


def _scan_probe_jobs(demo: Demo, name: str, model: SampleModelFlags) -> Iterator[Job]:
    """Scans of the test meshes, none of which was trained on, among these meshes; and classes of scans."""
    out = demo.results / f"scans_{name}.json"
    where = scan_retrieval.SearchFlags(query_root=f"{demo.root / 'bank_cache'}", gallery_root=f"{demo.root / 'cache'}")
    pooled = PoolingFlags(mc_k=SCAN_DRAWS)
    yield Job(out.stem, scan_retrieval.Config(where=where, model=model, embedding=pooled, out_json=f"{out}"), out)
    out = demo.results / f"probe_cls_{name}.json"
    scans = f"{demo.root / 'scan_cache'}"
    yield Job(out.stem, classification_probes.Config(cache_root=scans, model=model, out_json=f"{out}"), out)


def finetune_jobs(demo: Demo, name: str) -> Iterator[Job]:
    """A classifier of the scans from a model, or from none ("scratch"), with five shapes a class and with all."""
    tokens = demo.scale.tokens
    common = finetune_cls.Config(
        cache_root=f"{demo.root / 'scan_cache'}",
        save_dir="",
        training=TrainingFlags(batch=64, epochs=demo.scale.finetuning, lr=1e-3, num_workers=1),
        evaluation=EvaluationFlags(mc_eval_k_test=4),
    )
    if name == SCRATCH:
        fresh = FreshModelFlags(**vars(demo.scale.model))
        common = replace(common, samples=ClassSampleFlags(n_point=tokens, n_ray=tokens), model=fresh)
    else:
        common = replace(common, ckpt=f"{demo.checkpoint(name)}")
    if name in (RECIPE, SHIPPED):
        common = replace(common, samples=ClassSampleFlags(n_point=tokens, n_ray=0))
    for shots in (5, 0):
        folder = demo.runs / f"scan_{name}_k{shots}_s0"
        of_shots = replace(common, split=SplitFlags(fewshot_k=shots), save_dir=f"{folder}")
        yield Job(f"fine-tune {name}, {shots or 'all'} a class", of_shots, folder / "last.pt")


def model_jobs(demo: Demo) -> Iterator[Job]:
    """What trains and asks the models, with a log of each; what needs the longest training comes last."""
    jobs = list(pretrain_jobs(demo))
    for name in (*(name for name in demo.probed if name != RECIPE), SCRATCH, RECIPE):
        jobs += finetune_jobs(demo, name)
        if name != SCRATCH:
            jobs += probe_jobs(demo, name)
    for job in jobs:
        yield replace(job, log=demo.root / "logs" / f"{re.sub('[ ,]+', '_', job.name)}.log")


def report_jobs(demo: Demo) -> Iterator[Job]:
    """The tables, the picture and the page."""
    yield Job("few-shot table", fewshot_table.Config(runs_root=demo.runs, results=demo.results))
    found = sorted(path for kind in ("ucpr", "cpac", "scans") for path in demo.results.glob(f"{kind}_*.json"))
    results = tuple(f"{path}" for path in found)
    yield Job("table", tables.Config(results=results, out_md=f"{demo.results / 'tables.md'}"))
    drawn = picture.Config(
        cache_root=f"{demo.root / 'unpaired'}",
        runs=tuple(f"{demo.runs / name}" for name in MODELS),
        results=results,
        out_png=f"{demo.root / 'demo.png'}",
    )
    yield Job("picture", drawn)
    yield Job("report", page.Config(demo.root, title="nepa3d demo"))


def write_mixes(demo: Demo) -> None:
    """The document's mix of unpaired views; and the recipe's, of views of one shape that are asked each other's
    questions, and of scans with their meshes."""
    cache, bank, cloud = f"{demo.root / 'cache'}", f"{demo.root / 'bank_cache'}", "pointcloud_noray"
    parts = (("train_mesh", "mesh", 0.34), ("train_pc", cloud, 0.33), ("train_udf", "udfgrid", 0.33))
    unpaired = [
        {"name": split, "cache_root": f"{demo.root / 'unpaired'}", "split": split, "backend": backend, "weight": weight}
        for split, backend, weight in parts
    ]
    train = {"cache_root": cache, "split": "train"}
    pairs: list[dict[str, object]] = [
        {"name": "cloud_grid", **train, "backend": cloud, "weight": 0.5, "pair": "grid", "ask_pair": True},
        {"name": "mesh_grid", **train, "backend": "mesh", "weight": 0.2, "pair": "grid", "ask_pair": True},
        {"name": "cloud_mesh", **train, "backend": cloud, "weight": 0.3, "pair": "mesh", "ask_pair": True},
        {"name": "grid", **train, "backend": "udfgrid", "weight": 0.0},
        {"name": "mesh", **train, "backend": "mesh", "weight": 0.0},
        {"name": "scan", "cache_root": bank, "split": "train", "backend": cloud, "weight": SCANS, "pair": "mesh"},
    ]
    for name in MODELS:
        mix = {"mix_seed": 0, "replacement": True, "datasets": pairs if name == RECIPE else unpaired}
        write_text(demo.mix(name), yaml.safe_dump(mix, sort_keys=False))


def run(config: Config) -> int:
    """Run every job, see ``Config``; the exit status of one that fails, after which no other is run."""
    said, furniture = find_source(config.root / "download")
    print(f"corpus: {said}")
    # procedural shapes in a folder of their own, should the package be found another time
    root = config.root if furniture is not None else config.root / "procedural"
    # a small corpus is divided otherwise, so that its test shapes may be among those that the package's model has seen
    shipped = furniture is not None and not config.quick and SHIPPED in built_in()
    demo = Demo(root, QUICK if config.quick else FULL, config.workers, shipped)
    write_mixes(demo)
    finished: list[Finished] = []
    data = (corpus_job(demo, furniture), *data_jobs(demo), *scan_jobs(demo))
    for name, stage, at_a_time in (
        ("data", data, 1),
        ("models", model_jobs(demo), config.workers),
        ("report", report_jobs(demo), 1),
    ):
        jobs = list(stage)
        logs = f", {at_a_time} at a time, their output in {demo.root / 'logs'}" if jobs[0].log is not None else ""
        print(f"\n== {name}: {len(jobs)} jobs{logs}", flush=True)
        finished += run_jobs(jobs, [None] * at_a_time, stop_at_failure=True)
        failed = next((done for done in finished if done.state == "failed"), None)
        if failed is not None:
            print(failed.output_end, file=sys.stderr)
            return failed.status or cli.EXIT_IO
    _write_timings(root / "timings.json", finished)
    print(f"\ncorpus: {said}")
    seconds = [(done.job.name, done.seconds) for done in finished]
    print(tabulate(seconds, headers=("stage", "seconds"), floatfmt=".1f", tablefmt="github"))
    print(f"to look at: {root / 'report.html'}")
    print(f"picture: {root / 'demo.png'}, tables: {demo.results / 'tables.md'}, ", end="")
    print(f"completed surfaces: {root / 'surfaces'}")
    return cli.EXIT_OK


def _write_timings(path: Path, finished: Sequence[Finished]) -> None:
    """Keep a job's time when it was skipped now because it was done before."""
    before = read_json(path) if path.exists() else {}
    times = {done.job.name: round(done.seconds, 2) or before.get(done.job.name, 0.0) for done in finished}
    write_json(path, times)


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(Config, run, argv)


if __name__ == "__main__":
    raise SystemExit(main())
