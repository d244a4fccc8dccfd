"""The whole matrix of probes for a list of checkpoints, controls included, and the document's tables of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

from tabulate import tabulate

from nepa3d import cli
from nepa3d.analysis import classification_probes, completion_cpac_udf, retrieval_ucpr, scan_retrieval
from nepa3d.analysis.flag_groups import (
    CompletionFlags,
    ControlFlags,
    PoolingFlags,
    QuestionFlags,
    SampleModelFlags,
    SequenceModelFlags,
)
from nepa3d.cli.spellings import Switch
from nepa3d.execution.files import read_json, write_text
from nepa3d.experiments.job_flags import JobFlags
from nepa3d.experiments.jobs import Job
from nepa3d.models.embedding import Precision
from nepa3d.models.stored import built_in
from nepa3d.probes.classifiers import SETTINGS
from nepa3d.probes.completion_tables import CONTROLS as OF_COMPLETION
from nepa3d.probes.completion_tables import COPY, UNTRAINED
from nepa3d.probes.distance_head import OWN
from nepa3d.probes.intervals import cell
from nepa3d.probes.result import name_of
from nepa3d.probes.retrieval_tables import CONTROLS as OF_RETRIEVAL
from nepa3d.probes.scan_retrieval import CONTROLS as OF_SCANS
from nepa3d.report.tables import collect
from nepa3d.samples.completion import Context, QuerySource

ProbeConfig: TypeAlias = (
    "retrieval_ucpr.Config | completion_cpac_udf.Config | scan_retrieval.Config | classification_probes.Config"
)
SHORT = {"mesh": "mesh", "udfgrid": "udf", "pointcloud_noray": "pc"}
PAIRS = (  # the document's, section 8.8
    ("mesh", "udfgrid"),
    ("udfgrid", "mesh"),
    ("mesh", "pointcloud_noray"),
    ("pointcloud_noray", "udfgrid"),
)
WITHOUT_MODEL = [control for control in OF_RETRIEVAL if not control.of_model]
ABLATED = ("pointcloud_noray", "udfgrid")
CONTROLS: dict[str, tuple[QuerySource, Context]] = {  # of completion: query points and context
    "": ("pool", "own"),
    "disjoint": ("pool_disjoint", "own"),
    "grid": ("grid", "own"),
    "mismatched": ("pool", "mismatched"),
    "absent": ("pool", "absent"),
}
UNIFORM = QuestionFlags(questions="uniform")
SEARCHES = {"": "scan -> mesh", "_turned": "mesh, turned -> mesh"}
GALLERY_SEED = 999
NO_CONTROLS = ControlFlags(spline=False, random_init=False)  # of jobs that are controls, or compare models alone


@dataclass(frozen=True, kw_only=True)
class Config:
    """Run all probes and controls for several checkpoints and print the results side by side.

    Retrieval on four pairs of views with two ablations, completion with four controls, both with uniform questions,
    with scan_root meshes found by scans and by themselves turned and, with labelled_root, classes of frozen features.
    Finished results are skipped, so the same command resumes an interrupted evaluation.

    Example: nepa3d evaluate --ckpts runs/a/last.pt runs/b/last.pt --cache_root data/shapenet_unpaired_cache_v1
    """

    ckpts: tuple[Path, ...]
    """Checkpoints; each is known by its folder's name."""
    cache_root: str = "data/shapenet_unpaired_cache_v1"
    """Unpaired cache."""
    split: str = "eval"
    """Split that is probed."""
    head_train_split: str = "train_udf"
    """Split the completion's head is fitted on."""
    labelled_root: str = ""
    """Cache with the splits train and test whose classes are probed; left out: none."""
    labelled_backend: str = "pointcloud_noray"
    """View of its shapes."""
    scan_root: str = ""
    """Cache of scans whose split test is sought among the meshes of scan_gallery_root; left out: none."""
    scan_gallery_root: str = ""
    """Cache of these meshes, of which some may be of no scan."""
    scan_gallery_splits: tuple[str, ...] = ("test",)
    """Splits of it, in which the objects of all scans must be; meshes of the first are sought turned."""
    scan_draws: int = 4
    """Draws that are averaged in retrieval by scans."""
    results: Path = Path("results")
    """Folder of the JSON files and of evaluation.md."""
    logs: Path = Path("logs/analysis")
    """Folder of the logs."""
    max_files: int = 1000
    """Shapes of a retrieval; 0: all."""
    max_shapes: int = 800
    """Shapes of a completion; 0: all."""
    n_context: int = 256
    """Context points of a completion."""
    n_query: int = 256
    """Query points of a completion."""
    n_seeds: int = 3
    """Evaluation seeds of each figure."""
    spline: Switch = True
    """Controls without a model of retrieval and completion: splines of what the model is told; needs SciPy."""
    uniform: Switch = True
    """Ask both at points uniform in the cube, too; needs a cache that this package made."""
    local_regression: Switch = True
    """In completion, also measure gradient boosting of local features, a control without a model of shapes; not if
    head_train_split is own."""
    random_init: Switch = True
    """Measure untrained models of the same sizes in retrieval and completion, too; doubles the models' time."""
    jobs: JobFlags = field(default_factory=JobFlags)
    precision: Precision = "float32"
    """Of the models' products; bf16 is faster on a GPU and moves figures a little."""

    def name_of(self, checkpoint: Path) -> str:
        """What a checkpoint is known by, in tables and files: its folder, and a precision that is not the usual one."""
        folder = name_of(f"{checkpoint}")
        return folder if self.precision == "float32" else f"{folder}_{self.precision}"

    @property
    def names(self) -> list[str]:
        """Of all checkpoints."""
        return [self.name_of(path) for path in self.ckpts]

    def __post_init__(self) -> None:
        names = self.names
        if not names or len(set(names)) < len(names):
            raise ValueError(f"ckpts must lie in folders of different names, got {', '.join(names) or 'none'}")
        if self.n_seeds < 1:
            raise ValueError(f"n_seeds must be at least 1, got {self.n_seeds}")
        if bool(self.scan_root) != bool(self.scan_gallery_root):
            raise ValueError("scan_root and scan_gallery_root must be given together or not at all")


def plan(config: Config) -> list[Job]:
    """The jobs, checkpoint by checkpoint. ``ValueError`` naming the checkpoints that are not there."""
    missing = [f"{path}" for path in config.ckpts if not path.exists() and f"{path}" not in built_in()]
    if missing:
        raise ValueError(f"ckpts: there is no {', '.join(missing)}")
    return [job for path in config.ckpts for job in _jobs(config, path)]


def _jobs(config: Config, checkpoint: Path) -> Iterator[Job]:
    name, ckpt = config.name_of(checkpoint), f"{checkpoint}"
    controls = ControlFlags(spline=config.spline, random_init=config.random_init)
    model = SampleModelFlags(ckpt=ckpt, precision=config.precision)

    def job(tag: str, probe: ProbeConfig) -> Job:
        out = config.results / f"{tag}.json"
        return Job(tag, replace(probe, out_json=f"{out}"), out, config.logs / f"{tag}.log")

    for query, gallery in PAIRS:
        tag = f"ucpr_{name}_{SHORT[query]}2{SHORT[gallery]}"
        retrieval = retrieval_ucpr.Config(
            cache_root=config.cache_root,
            model=model,
            query_backend=query,
            gallery_backend=gallery,
            split=config.split,
            eval_seed_gallery=GALLERY_SEED,
            n_seeds=config.n_seeds,
            max_files=config.max_files,
            controls=controls,
        )
        yield job(tag, retrieval)
        if (query, gallery) == ABLATED:
            ablated = replace(retrieval, lipschitz=False, controls=NO_CONTROLS)  # those of the pair itself hold
            yield job(f"{tag}_ablate_xyz", replace(ablated, ablate_point_xyz=True))
            yield job(f"{tag}_ablate_dist", replace(ablated, ablate_point_dist=True))
            if config.uniform:
                yield job(f"{tag}_uniform", replace(retrieval, asked=UNIFORM))
    completion = completion_cpac_udf.Config(
        cache_root=config.cache_root,
        model=SequenceModelFlags(ckpt=ckpt, precision=config.precision),
        n_seeds=config.n_seeds,
        max_shapes=config.max_shapes,
        local_regression=config.local_regression and config.head_train_split != OWN,
        completion=CompletionFlags(
            split=config.split,
            n_context=config.n_context,
            n_query=config.n_query,
            head_train_split=config.head_train_split,
        ),
    )
    for control, (query_source, context) in CONTROLS.items():
        tag = f"cpac_{name}_pc2udf_nontrans" + (f"_{control}" if control else "")
        asked = replace(completion, query_source=query_source, context=context, controls=controls)
        if context != "own":
            asked = replace(asked, controls=NO_CONTROLS, local_regression=False)
        yield job(tag, asked)
    if config.uniform:
        yield job(f"cpac_{name}_pc2udf_nontrans_uniform", replace(completion, asked=UNIFORM, controls=controls))
    if config.scan_root:
        for search, by_scans in zip(SEARCHES, _searches(config, model), strict=True):
            yield job(f"scans_{name}{search}", by_scans)
    if config.labelled_root:
        classes = classification_probes.Config(
            cache_root=config.labelled_root,
            model=model,
            backend=config.labelled_backend,
            n_seeds=config.n_seeds,
        )
        yield job(f"probe_cls_{name}", classes)


def _searches(config: Config, model: SampleModelFlags) -> list[scan_retrieval.Config]:
    """Each scan, and each mesh turned, sought among the meshes."""
    where = scan_retrieval.SearchFlags(
        query_root=config.scan_root,
        gallery_root=config.scan_gallery_root,
        gallery_splits=config.scan_gallery_splits,
    )
    by_scans = scan_retrieval.Config(
        where=where,
        model=model,
        eval_seed_gallery=GALLERY_SEED,
        n_seeds=config.n_seeds,
        embedding=PoolingFlags(mc_k=config.scan_draws),
    )
    splits, view = config.scan_gallery_splits, where.gallery_backend
    by_meshes = replace(where, query_root=config.scan_gallery_root, query_split=splits[0], query_backend=view)
    return [by_scans, replace(by_scans, where=by_meshes, turn_queries=True)]


def side_by_side(config: Config) -> str:
    """Tables 8.9 and 8.10 of the document, a column a checkpoint, retrieval by scans, and the classes of frozen
    features; Markdown.

    What is not done is left out.
    """
    names = config.names
    found = {path.stem: read_json(f"{path}") for path in sorted(config.results.glob("*.json"))}
    first = found.get(f"ucpr_{names[0]}_mesh2udf", {})
    fresh = [n for n in names if any(found.get(f"ucpr_{n}_{pair}", {}).get(UNTRAINED) for pair in map(_short, PAIRS))]
    rows = []
    for query, gallery in PAIRS:
        pair = _short((query, gallery))
        tags = [f"ucpr_{name}_{pair}" for name in names]
        row = [_figures(found.get(tag)) for tag in tags]
        untrained = [_figures(found.get(f"ucpr_{name}_{pair}", {}).get(UNTRAINED)) for name in fresh]
        results = [found[tag] for tag in tags if tag in found]
        plain = [_figures(results[0].get(control.key) if results else None) for control in WITHOUT_MODEL]
        rows.append([f"`{query} -> {gallery}`", *row, *untrained, *plain, _figures(first.get("chance"))])
    beside_trained = [f"{name}, untrained" for name in fresh]
    heads = ["Pair, R@1/R@5/R@10/mAP", *names, *beside_trained, *(control.title for control in WITHOUT_MODEL), "chance"]
    text = [tabulate(rows, heads, tablefmt="pipe", disable_numparse=True)]

    pair = _short(ABLATED)
    kinds = {
        "Base": "",
        "`ablate_point_xyz`": "_ablate_xyz",
        "`ablate_point_dist`": "_ablate_dist",
        "Uniform questions": "_uniform",
    }
    rows = [[n, *(_figures(found.get(f"ucpr_{n}_{pair}{k}"), ("r@1", "mAP")) for k in kinds.values())] for n in names]
    text.append(tabulate(rows, ["Model, R@1/mAP", *kinds], tablefmt="pipe", disable_numparse=True))

    completed = [
        (name, control, found[tag])
        for name in names
        for control in (*CONTROLS, "uniform")
        if (tag := f"cpac_{name}_pc2udf_nontrans" + (f"_{control}" if control else "")) in found
    ]
    measured = [c for c in OF_COMPLETION if c.key == COPY or any(result.get(c.key) for _, _, result in completed)]
    rows = []
    for name, control, result in completed:
        figures = [cell(result[key], 5) for key in ("mae", "rmse", "iou@tau")]
        between = cell(tuple(result["interval"]["mae"]), 5)
        plain = [cell(known["mae"], 5) if (known := result.get(c.key)) else "" for c in measured]
        rows.append([name, control or "as the document", *figures, between, *plain])
    heads = ["Model", "Control", "MAE", "RMSE", "IoU@tau", "MAE, 95 % over shapes"]
    heads += [f"MAE of the {c.row}" + " model" * c.of_model for c in measured]
    text.append(tabulate(rows, heads, tablefmt="pipe", disable_numparse=True))

    if any(f"scans_{name}" in found for name in names):
        text.append(_search_table(found, names))

    classes = {name: found[tag] for name in names if (tag := f"probe_cls_{name}") in found}
    if classes:
        heads = ["Accuracy/balanced accuracy", *SETTINGS]
        text.append(tabulate(_class_rows(classes), heads, tablefmt="pipe", disable_numparse=True))
    return "\n\n".join(text) + "\n"


def _search_table(found: dict[str, dict[str, Any]], names: Sequence[str]) -> str:
    """Retrieval by scans and by turned meshes, a row a model and search."""
    tags = [(said, name, f"scans_{name}{search}") for search, said in SEARCHES.items() for name in names]
    done = [(said, name, found[tag]) for said, name, tag in tags if tag in found]
    measured = [key for key in OF_SCANS if any(result.get(key) for _, _, result in done)]
    rows = [[said, name, *map(_figures, (r, *(r.get(key) for key in measured)))] for said, name, r in done]
    heads = ["Query -> gallery, R@1/R@5/R@10/mAP", "Model", "trained", *(OF_SCANS[key] for key in measured)]
    return tabulate(rows, heads, tablefmt="pipe", disable_numparse=True)


def _short(pair: tuple[str, str]) -> str:
    """A pair of views, as in names of files."""
    return "2".join(SHORT[view] for view in pair)


def _class_rows(results: dict[str, dict[str, Any]]) -> list[list[str]]:
    """Accuracies by probe: of each model, trained and untrained, then of what needs none, once where it is the same."""
    kinds: list[tuple[str, dict[str, Any]]] = []
    for name, result in results.items():
        kinds.append((name, result))
        if result["random_init"]:
            kinds.append((f"{name}, untrained", result["random_init"]))
    for result in results.values():
        kinds.append(("plain distances, no model", result["raw_distances"]))
        for who, control in (("commonest class of train", "majority"), ("chance", "chance")):
            kinds.append((who, dict.fromkeys(SETTINGS, result[control])))
    rows = [(who, *(_figures(of[kind], ("accuracy", "balanced_accuracy")) for kind in SETTINGS)) for who, of in kinds]
    return [list(row) for row in dict.fromkeys(rows)]


def _figures(result: dict[str, Any] | None, names: Sequence[str] = ("r@1", "r@5", "r@10", "mAP")) -> str:
    return " / ".join(cell(result[name]) for name in names) if result else "-"


def command(config: Config) -> int:
    """Run what is left; print and write the tables; 3 if a probe failed or a shape could not be read."""
    jobs = plan(config)
    finished = config.jobs.run(jobs)
    done = [job for job in jobs if job.done]
    if done:
        beside = side_by_side(config)
        of_document = [f"{job.result}" for job in done if not isinstance(job.config, classification_probes.Config)]
        tables = collect(of_document) if of_document else []
        sections = [f"## {table.title}\n\n{table.text('pipe')}\n" for table in tables]
        write_text(config.results / "evaluation.md", "\n".join(["## Side by side\n", beside, *sections]))
        print(beside)
        print(f"tables: {config.results / 'evaluation.md'}")
    return cli.EXIT_SOME_FAILED if any(job.state == "failed" for job in finished) else cli.EXIT_OK


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(Config, command, argv, output="results")


if __name__ == "__main__":
    raise SystemExit(main())
