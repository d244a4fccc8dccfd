"""What the demo does: its models, and the jobs that make the data, train the models, ask them and draw the report."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

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
from nepa3d.execution.files import write_text
from nepa3d.experiments.jobs import Job
from nepa3d.experiments.recipe import recommended
from nepa3d.models.checkpoint import SizeFlags
from nepa3d.probes.distance_head import OWN
from nepa3d.report import page, picture
from nepa3d.shapes.query_pools import PoolSettings
from nepa3d.train import finetune_cls, pretrain
from nepa3d.train.corpus import CorpusFlags, SampleFlags
from nepa3d.train.finetune_cls import EvaluationFlags, FreshSizeFlags, SplitFlags, TrainingFlags
from nepa3d.train.finetune_cls import SampleFlags as ClassSampleFlags
from nepa3d.train.flag_groups import StepFlags
from nepa3d.train.loop import LoopFlags, OutputFlags
from nepa3d.train.schedule import DualMaskFlags, LearningRateFlags
from nepa3d.train.step import LossFlags

SHIPPED = "furniture-small"  # the package's model, trained on the training part of the full corpus
PAIRS = (("mesh", "udfgrid"), ("mesh", "pointcloud_noray"), ("pointcloud_noray", "udfgrid"))
SHORT = {"mesh": "mesh", "udfgrid": "udf", "pointcloud_noray": "pc"}
SOME_MAY_FAIL = (cli.EXIT_OK, cli.EXIT_SOME_FAILED)
BANK = 2  # scans of each mesh that are searched and trained on
SCANS = 0.5  # weight of scans and their meshes in the recipe's mix; the pairs of views have 1 together
SCAN_DRAWS = 4  # averaged in the retrieval by scans
BATCH = 32  # sequences of a pretraining step


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
    samples: int  # a pretraining epoch of the document's objectives
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
class Model:
    """One of the models that the demo compares."""

    name: str
    ckpt: str
    """Its checkpoint, or the name of a model of the package; "": random weights, which are only fine-tuned."""
    training: pretrain.Config | None
    """How it is pretrained; ``None``: it is not."""
    n_ray: int
    """Rays of a sample that probes and classifiers show to it."""
    predicts_distances: bool = False
    """Whether it has heads of its own for them, beside the probe's ridge head."""


@dataclass(frozen=True)
class Demo:
    """The folders of a demo, its models, and how much it does."""

    root: Path
    scale: Scale
    workers: int
    shipped: bool = False  # show the package's own model, too: only where it was trained on none of the test shapes

    @property
    def results(self) -> Path:
        return self.root / "results"

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    @cached_property
    def models(self) -> tuple[Model, ...]:
        """All that are compared; the one that is trained for longest comes last."""
        shipped = (Model(SHIPPED, SHIPPED, None, n_ray=0, predicts_distances=True),) if self.shipped else ()
        return (
            _document_model(self, "nepa", NEPA),
            _document_model(self, "mae", MAE),
            *shipped,
            Model("scratch", "", None, n_ray=self.scale.tokens),
            _recipe_model(self),
        )

    @property
    def trained(self) -> tuple[Model, ...]:
        """Those that the demo pretrains."""
        return tuple(model for model in self.models if model.training is not None)


@dataclass(frozen=True)
class Method:
    """One of the document's pretrainings."""

    objective: str
    qa_tokens: bool
    skip_missing_rays: bool = False
    dual_mask: DualMaskFlags = field(default_factory=DualMaskFlags)


NEPA = Method(
    "nepa",
    qa_tokens=True,
    skip_missing_rays=True,
    dual_mask=DualMaskFlags(dual_mask_near=0.4, dual_mask_far=0.1, dual_mask_window=32),
)
MAE = Method("mae", qa_tokens=False)


def _document_model(demo: Demo, name: str, method: Method) -> Model:
    scale = demo.scale
    training = pretrain.Config(
        save_dir=f"{demo.runs / name}",
        corpus=CorpusFlags(mix_config=f"{demo.root / 'mix.yaml'}", mix_num_samples=scale.samples),
        samples=SampleFlags(n_point=scale.tokens, n_ray=scale.tokens, qa_tokens=method.qa_tokens),
        model=scale.model,
        loss=LossFlags(objective=method.objective),
        dual_mask=method.dual_mask,
        loop=LoopFlags(batch=BATCH, epochs=scale.epochs, num_workers=0),
        learning_rate=LearningRateFlags(lr=1e-3),
        step=StepFlags(skip_missing_rays=method.skip_missing_rays),
        output=OutputFlags(save_every=1000),
    )
    return Model(name, _last_checkpoint(training), training, n_ray=scale.tokens)


def _recipe_model(demo: Demo) -> Model:
    """The recommended recipe at the demo's scale."""
    scale, name = demo.scale.recipe, "query"
    config = recommended(demo.runs / name)
    few, most = scale.context
    training = replace(
        config,
        corpus=CorpusFlags(mix_config=f"{demo.root / 'mix_pairs.yaml'}", mix_num_samples=scale.samples),
        samples=replace(config.samples, n_point=scale.n_point),
        query=replace(config.query, context_min=few, context_max=most, blind=scale.blind),
        augment=replace(config.augment, answer_shift=0.0),  # views that ask each other show how much they differ
        model=demo.scale.model,
        loop=LoopFlags(batch=BATCH, epochs=scale.epochs, num_workers=1),
        output=OutputFlags(save_every=1000),
    )
    return Model(name, _last_checkpoint(training), training, n_ray=0, predicts_distances=True)


def _last_checkpoint(training: pretrain.Config) -> str:
    return f"{Path(training.save_dir) / f'ckpt_ep{training.loop.epochs - 1:03d}.pt'}"


def write_mixes(demo: Demo) -> None:
    """The document's mix of unpaired views; and the recipe's, of views of one shape that are asked each other's
    questions, and of scans with their meshes."""
    cache, bank, cloud = f"{demo.root / 'cache'}", f"{demo.root / 'bank_cache'}", "pointcloud_noray"
    parts = (("train_mesh", "mesh", 0.34), ("train_pc", cloud, 0.33), ("train_udf", "udfgrid", 0.33))
    unpaired: list[Mapping[str, Any]] = [
        {"name": split, "cache_root": f"{demo.root / 'unpaired'}", "split": split, "backend": backend, "weight": weight}
        for split, backend, weight in parts
    ]
    train = {"cache_root": cache, "split": "train"}
    pairs: list[Mapping[str, Any]] = [
        {"name": "cloud_grid", **train, "backend": cloud, "weight": 0.5, "pair": "grid", "ask_pair": True},
        {"name": "mesh_grid", **train, "backend": "mesh", "weight": 0.2, "pair": "grid", "ask_pair": True},
        {"name": "cloud_mesh", **train, "backend": cloud, "weight": 0.3, "pair": "mesh", "ask_pair": True},
        {"name": "grid", **train, "backend": "udfgrid", "weight": 0.0},
        {"name": "mesh", **train, "backend": "mesh", "weight": 0.0},
        {"name": "scan", "cache_root": bank, "split": "train", "backend": cloud, "weight": SCANS, "pair": "mesh"},
    ]
    for name, datasets in (("mix.yaml", unpaired), ("mix_pairs.yaml", pairs)):
        mix = {"mix_seed": 0, "replacement": True, "datasets": datasets}
        write_text(demo.root / name, yaml.safe_dump(mix, sort_keys=False))


def corpus_job(root: Path, scale: Scale, furniture: Path | None) -> Job:
    """Make <root>/corpus of the furniture libraries in a folder, or of procedural shapes."""
    out = root / "corpus"
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
    """The pretrainings, longest first."""
    for model in reversed(demo.trained):
        yield Job(f"pretrain {model.name}", model.training, Path(model.ckpt), harmless=pretrain.HARMLESS)


def probe_jobs(demo: Demo, model: Model) -> Iterator[Job]:
    """Of a model: retrieval on three pairs, non-transductive completion and its surfaces, meshes found by scans and
    classes of scans."""
    unpaired, points = f"{demo.root / 'unpaired'}", demo.scale.tokens
    controls = ControlFlags(random_init=True)
    asked = SampleModelFlags(ckpt=model.ckpt, n_point=points, n_ray=model.n_ray)
    completed = CompletionFlags(n_context=points, n_query=points)
    for query, gallery in PAIRS:
        out = demo.results / f"ucpr_{model.name}_{SHORT[query]}2{SHORT[gallery]}.json"
        retrieval = retrieval_ucpr.Config(
            cache_root=unpaired,
            model=asked,
            query_backend=query,
            gallery_backend=gallery,
            eval_seed_gallery=999,
            controls=controls,
            out_json=f"{out}",
        )
        yield Job(out.stem, retrieval, out)
    common = completion_cpac_udf.Config(
        cache_root=unpaired,
        model=SequenceModelFlags(ckpt=model.ckpt),
        completion=completed,
        controls=controls,
        local_regression=True,
    )
    completions = {"nontrans": common, "grid": replace(common, query_source="grid")}
    if model.predicts_distances:
        completions["own"] = replace(
            common, completion=replace(completed, head_train_split=OWN), local_regression=False
        )
    for kind, completion in completions.items():
        out = demo.results / f"cpac_{model.name}_pc2udf_{kind}.json"
        yield Job(out.stem, replace(completion, out_json=f"{out}"), out)
    shown = demo.root / "surfaces" / model.name
    drawn = surfaces.Config(
        cache_root=unpaired,
        out_root=shown,
        model=ModelFlags(ckpt=model.ckpt),
        completion=completed,
        controls=controls,
    )
    yield Job(f"surfaces {model.name}", drawn, shown / "scores.json")
    yield from _scan_probe_jobs(demo, model.name, asked)


def _scan_probe_jobs(demo: Demo, name: str, asked: SampleModelFlags) -> Iterator[Job]:
    """Scans of the test meshes, none of which was trained on, among these meshes; and classes of scans."""
    out = demo.results / f"scans_{name}.json"
    where = scan_retrieval.SearchFlags(query_root=f"{demo.root / 'bank_cache'}", gallery_root=f"{demo.root / 'cache'}")
    pooled = PoolingFlags(mc_k=SCAN_DRAWS)
    yield Job(out.stem, scan_retrieval.Config(where=where, model=asked, embedding=pooled, out_json=f"{out}"), out)
    out = demo.results / f"probe_cls_{name}.json"
    scans = f"{demo.root / 'scan_cache'}"
    yield Job(out.stem, classification_probes.Config(cache_root=scans, model=asked, out_json=f"{out}"), out)


def finetune_jobs(demo: Demo, model: Model) -> Iterator[Job]:
    """A classifier of the scans from a model, or from random weights, with five shapes a class and with all."""
    common = finetune_cls.Config(
        cache_root=f"{demo.root / 'scan_cache'}",
        save_dir="",
        ckpt=model.ckpt,
        samples=ClassSampleFlags(n_point=demo.scale.tokens, n_ray=model.n_ray),
        model=FreshSizeFlags() if model.ckpt else FreshSizeFlags(**vars(demo.scale.model)),
        training=TrainingFlags(batch=64, epochs=demo.scale.finetuning, lr=1e-3, num_workers=1),
        evaluation=EvaluationFlags(mc_eval_k_test=4),
    )
    for shots in (5, 0):
        folder = demo.runs / f"scan_{model.name}_k{shots}_s0"
        of_shots = replace(common, split=SplitFlags(fewshot_k=shots), save_dir=f"{folder}")
        yield Job(f"fine-tune {model.name}, {shots or 'all'} a class", of_shots, folder / "last.pt")


def model_jobs(demo: Demo) -> Iterator[Job]:
    """What trains and asks the models, with a log of each; what needs the longest training comes last."""
    jobs = list(pretrain_jobs(demo))
    for model in demo.models:
        jobs += finetune_jobs(demo, model)
        if model.ckpt:
            jobs += probe_jobs(demo, model)
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
        runs=tuple(f"{demo.runs / model.name}" for model in demo.trained),
        results=results,
        out_png=f"{demo.root / 'demo.png'}",
    )
    yield Job("picture", drawn)
    yield Job("report", page.Config(demo.root, title="nepa3d demo"))
