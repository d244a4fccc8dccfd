"""What each part of the recommended recipe gives: short trainings that differ from it in one part, and their probes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tabulate import tabulate

from nepa3d import cli
from nepa3d.analysis import completion_cpac_udf, retrieval_ucpr
from nepa3d.analysis.flag_groups import (
    CompletionFlags,
    QuestionFlags,
    SampleModelFlags,
    SequenceModelFlags,
)
from nepa3d.execution.files import atomic_open, read_json, write_json, write_text
from nepa3d.execution.provenance import describe
from nepa3d.experiments.evaluate import GALLERY_SEED, NO_CONTROLS
from nepa3d.experiments.job_flags import JobFlags, with_words
from nepa3d.experiments.jobs import Job
from nepa3d.experiments.recipe import recommended
from nepa3d.probes.distance_head import OWN
from nepa3d.report import panels
from nepa3d.train import pretrain
from nepa3d.train.corpus import CorpusFlags
from nepa3d.train.loop import LoopFlags, OutputFlags

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RECIPE = "recipe"
VARIANTS = {  # the flags of pretrain that differ
    RECIPE: "",
    "no_fourier_features": "--token_features linear --interpolation 0 --pulled_points 0",
    "position_embedding": "--position_embedding 1",
    "all_keys": "--prefix_attention 0 --answer_keys 0",
    "no_kernel_attention": "--prefix_attention 0 --kernel_attention 0",
    "no_prefix_attention": "--prefix_attention 0",
    "no_interpolation": "--interpolation 0 --pulled_points 0",
    "no_pulled_points": "--pulled_points 0",
    "one_answer_head": "--answer_views",
    "no_answer_shift": "--answer_shift 0",
    "no_dual_mask": "--dual_mask_near 0 --dual_mask_far 0",
    "no_uniform_questions": "--uniform_prob 0",
    "no_alignment": "--align_weight 0",
    "laplace": "--answer_loss laplace",
    "adamw": "--optimizer adamw",
    "width_64": "--d_model 64",
    "width_256": "--d_model 256",
}
PAIR = ("mesh", "udfgrid")
POINTS = 64  # of a sample in retrieval, and asked in completion


@dataclass(frozen=True)
class Column:
    """A figure of the table."""

    title: str
    result: str
    """The end of the name of its file."""
    key: str
    digits: int
    less_is_better: bool


COLUMNS = (
    Column("MAE, 64 points", "cpac_64", "mae", 4, True),
    Column("MAE, 256 points", "cpac_256", "mae", 4, True),
    Column("mAP, points of the pool", "ucpr_pool", "mAP", 3, False),
    Column("mAP, uniform points", "ucpr_uniform", "mAP", 3, False),
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """Train variants of the recommended recipe for a short time, probe them, and print what each part gives.

    Each variant differs from nepa3d/configs/query.yaml in one part. Finished trainings and results are skipped, so the
    same command resumes an interrupted run.

    Example: nepa3d ablation --mix_config demo/full/mix.yaml --cache_root demo/full/unpaired --slots cpu*2
    """

    mix_config: str
    """Mix that is trained on."""
    cache_root: str
    """Unpaired cache whose eval split is probed."""
    split: str = "eval"
    """Split that is probed."""
    variants: str = " ".join(VARIANTS)
    """Which variants."""
    seeds: tuple[int, ...] = (0,)
    """Training seeds of each."""
    recipe_seeds: tuple[int, ...] = (0, 1)
    """Training seeds of the recipe itself, whose difference shows the noise."""
    samples: int = 4800
    """Samples an epoch."""
    epochs: int = 2
    """Passes over them."""
    batch: int = 32
    """Sequences a step."""
    extra: str = "--d_model 128 --layers 4 --heads 4"
    """More flags of nepa3d.train.pretrain, for all of them."""
    runs_root: Path = Path("runs/ablation")
    """Folder of the trainings."""
    results: Path = Path("results/ablation")
    """Folder of the results, and of ablation.md, .json and .png."""
    logs: Path = Path("logs/ablation")
    """Folder of the logs."""
    jobs: JobFlags = field(default_factory=JobFlags)

    def __post_init__(self) -> None:
        unknown = [name for name in self.variants.split() if name not in VARIANTS]
        if unknown or not self.variants.split():
            raise ValueError(f"variants must be among {', '.join(VARIANTS)}, got {', '.join(unknown) or 'none'}")
        if not self.seeds or not self.recipe_seeds:
            raise ValueError("seeds and recipe_seeds must name at least one seed each")

    @property
    def trainings(self) -> list[tuple[str, int]]:
        """Each variant with each of its seeds."""
        names = self.variants.split()
        return [(name, seed) for name in names for seed in (self.recipe_seeds if name == RECIPE else self.seeds)]


@dataclass(frozen=True)
class Row:
    """The figures of a variant, one of each seed; ``None`` where it is not done."""

    variant: str
    flags: str
    seeds: tuple[int, ...]
    figures: Mapping[str, list[float | None]]

    def mean(self, column: Column) -> float | None:
        """Over the seeds that are done."""
        known = self.known(column)
        return sum(known) / len(known) if known else None

    def known(self, column: Column) -> list[float]:
        """Of the seeds that are done."""
        return [figure for figure in self.figures[column.title] if figure is not None]


def plan(config: Config) -> list[Job]:
    """The jobs, training by training."""
    return [job for name, seed in config.trainings for job in _jobs(config, name, seed)]


def _jobs(config: Config, variant: str, seed: int) -> Iterator[Job]:
    tag = f"{variant}_s{seed}"
    folder = config.runs_root / tag
    recipe = recommended(folder)
    training = replace(
        recipe,
        corpus=CorpusFlags(mix_config=config.mix_config, mix_num_samples=config.samples),
        loop=LoopFlags(batch=config.batch, epochs=config.epochs, num_workers=1),
        output=OutputFlags(save_every=config.epochs),
        seed=seed,
    )
    checkpoint = folder / f"ckpt_ep{config.epochs - 1:03d}.pt"
    training = with_words(training, f"{config.extra} {VARIANTS[variant]}")
    yield Job(tag, training, checkpoint, config.logs / f"{tag}.log", harmless=pretrain.HARMLESS)

    def job(kind: str, probe: Any) -> Job:
        out = config.results / f"{tag}_{kind}.json"
        return Job(out.stem, replace(probe, out_json=f"{out}"), out, config.logs / f"{out.stem}.log")

    completion = completion_cpac_udf.Config(
        cache_root=config.cache_root,
        model=SequenceModelFlags(ckpt=f"{checkpoint}"),
        completion=CompletionFlags(split=config.split, n_query=POINTS, head_train_split=OWN),
        controls=NO_CONTROLS,
    )
    for context in (64, 256):
        few = replace(completion, completion=replace(completion.completion, n_context=context))
        yield job(f"cpac_{context}", few)
    retrieval = retrieval_ucpr.Config(
        cache_root=config.cache_root,
        model=SampleModelFlags(ckpt=f"{checkpoint}", n_point=POINTS, n_ray=0),
        query_backend=PAIR[0],
        gallery_backend=PAIR[1],
        split=config.split,
        eval_seed_gallery=GALLERY_SEED,
        lipschitz=False,
        controls=NO_CONTROLS,
    )
    yield job("ucpr_pool", retrieval)
    yield job("ucpr_uniform", replace(retrieval, asked=QuestionFlags(questions="uniform")))


def rows_of(config: Config) -> list[Row]:
    """A row a variant, of whatever is done."""
    rows = []
    for variant in config.variants.split():
        seeds = tuple(seed for name, seed in config.trainings if name == variant)
        figures = {c.title: [_figure(config, f"{variant}_s{seed}", c) for seed in seeds] for c in COLUMNS}
        rows.append(Row(variant, VARIANTS[variant], seeds, figures))
    return rows


def _figure(config: Config, tag: str, column: Column) -> float | None:
    path = config.results / f"{tag}_{column.result}.json"
    return float(read_json(path)[column.key]) if path.exists() else None


def markdown(rows: Sequence[Row]) -> str:
    """The table: the mean over the seeds, and in brackets how much better (+) or worse (-) than the recipe it is."""
    recipe = next((row for row in rows if row.variant == RECIPE), None)
    cells = []
    for row in rows:
        figures = []
        for column in COLUMNS:
            mean, of_recipe = row.mean(column), recipe.mean(column) if recipe else None
            if mean is None:
                figures.append("-")
            elif row is recipe or of_recipe is None:
                figures.append(" to ".join(f"{edge:.{column.digits}f}" for edge in _ends(row.known(column))))
            else:
                gain = of_recipe - mean if column.less_is_better else mean - of_recipe
                figures.append(f"{mean:.{column.digits}f} ({gain:+.{column.digits}f})")
        cells.append([row.variant, f"`{row.flags}`" if row.flags else "", *figures])
    heads = ["Variant", "Flags that differ", *(column.title for column in COLUMNS)]
    return str(tabulate(cells, heads, tablefmt="pipe", disable_numparse=True)) + "\n"


def _ends(values: Sequence[float]) -> list[float]:
    """The least and the greatest, or the only one."""
    return sorted({min(values), max(values)})


def draw(rows: Sequence[Row]) -> Figure:
    """The figure of the table: a panel a column, a dot a training, the recipe's range as a band."""
    from matplotlib.figure import Figure  # of the extra demo

    figure = Figure(figsize=(14, 1.6 + 0.32 * len(rows)), dpi=120, layout="constrained", facecolor="white")
    panes = figure.subplots(1, len(COLUMNS), sharey=True, squeeze=False)[0]
    for axes, column in zip(panes, COLUMNS, strict=True):
        for place, row in enumerate(rows):
            known = row.known(column)
            color = panels.PALETTE[0] if row.variant == RECIPE else panels.PALETTE[1]
            axes.plot(known, [place] * len(known), "o", color=color)
            if row.variant == RECIPE and known:
                axes.axvspan(min(known), max(known), color=panels.PALETTE[0], alpha=0.15, linewidth=0)
        axes.set_title(column.title)
        axes.set_xlabel("less is better" if column.less_is_better else "more is better")
        axes.grid(axis="y", color=panels.FAINT, linewidth=0.5)
    panes[0].set_yticks(range(len(rows)), [row.variant for row in rows])
    panes[0].invert_yaxis()
    return figure


def write(config: Config, rows: Sequence[Row]) -> None:
    """ablation.md, .json and .png."""
    import matplotlib as mpl

    write_text(config.results / "ablation.md", markdown(rows))
    write_json(config.results / "ablation.json", {"rows": [vars(row) for row in rows], "made": describe()})
    with mpl.rc_context(panels.STYLE), atomic_open(config.results / "ablation.png") as file:
        draw(rows).savefig(file, format="png")


def command(config: Config) -> int:
    """Run what is left; print and write the table; 3 if a job failed."""
    finished = config.jobs.run(plan(config))
    rows = rows_of(config)
    print(markdown(rows))
    write(config, rows)
    print(f"picture: {config.results / 'ablation.png'}, table: {config.results / 'ablation.md'}")
    return cli.EXIT_SOME_FAILED if any(job.state == "failed" for job in finished) else cli.EXIT_OK


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(Config, command, argv, output="results")


if __name__ == "__main__":
    raise SystemExit(main())
