"""Cross-view retrieval (UCPR): does a shape seen through one view retrieve itself seen through another?

Every shape is embedded twice, through the query view and the gallery view. Each query ranks the gallery by cosine
similarity; its true item is the same shape. Tied items share their ranks, so a collapsed encoder scores chance.
What is shown of the results is in ``retrieval_tables``, the controls without a model are in ``plain_retrieval``.
Letters: N shapes, D model width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from tabulate import tabulate

from nepa3d.execution.checks import require_at_least, require_choice
from nepa3d.models.embedding import Probe
from nepa3d.models.encoder import Encoder, ShapeLike, as_shape, shape_name
from nepa3d.probes import ranking
from nepa3d.probes.embedding import (
    EmbeddingSettings,
    View,
    centred,
    embed,
    in_memory,
    require_read,
    require_several,
    untrained,
)
from nepa3d.probes.intervals import cell, interval, share_interval
from nepa3d.probes.kind import ProbeKind, Section
from nepa3d.probes.plain_retrieval import plain_metrics
from nepa3d.probes.point_answers import PointAnswers
from nepa3d.probes.result import Json, Result, first_failure
from nepa3d.probes.retrieval_tables import (
    CONTROLS,
    IN_TABLES,
    bars,
    document_table,
    doubts,
    drawings,
    judged,
    report_table,
)
from nepa3d.probes.spline import require_scipy
from nepa3d.probes.tables import unmeasured
from nepa3d.samples.tokenizer import draws_are_shared
from nepa3d.shapes.view_table import require_backend, view_row

RankRule = Literal["expected", "strict"]
Array = NDArray[np.float64]

COLLAPSED_FROM = 0.5  # share of the gallery tied with the true item from which we speak of collapse
TOP = 5  # gallery items listed a query


@dataclass(frozen=True)
class RetrievalSettings:
    """Two views of every shape, the draws from each, and how the ranks are counted."""

    query_view: str = "mesh"
    gallery_view: str = "udfgrid"
    query_seed: int = 0
    gallery_seed: int = 999
    """Where it is ``query_seed``, both views are asked at the same points, and the figures are too high."""
    n_seeds: int = 1
    """Number of seeds, counted up from these two."""
    rank_rule: RankRule = "expected"
    lipschitz: bool = True
    """Whether the pairwise Lipschitz violation is a control; its time grows with the squares of shapes and points."""
    spline: bool = True
    """Whether the field of a spline through the answers is a control; it needs SciPy."""
    untrained: bool = False
    """Whether an untrained model of the same sizes is a control. ``run`` takes one instead."""
    embedding: EmbeddingSettings = field(default_factory=EmbeddingSettings)

    def __post_init__(self) -> None:
        for name in ("query_view", "gallery_view"):
            require_backend(getattr(self, name), name)
        require_choice("rank_rule", self.rank_rule, RankRule)
        require_at_least(1, n_seeds=self.n_seeds)

    def seeded(self) -> list[RetrievalSettings]:
        """The same for every seed."""
        first, second = self.query_seed, self.gallery_seed
        return [replace(self, query_seed=first + i, gallery_seed=second + i, n_seeds=1) for i in range(self.n_seeds)]

    def draws_are_shared(self) -> bool:
        """Whether the two views have a draw in common."""
        return draws_are_shared(self.query_seed, self.gallery_seed, self.embedding.draws)


@dataclass(frozen=True)
class Embeddings:
    """Both views of every readable shape, as unit vectors (N, D) in one order."""

    queries: Array
    gallery: Array
    raw_queries: Array  # (N, RAW_CELLS^3), the answers themselves, seen by no model
    raw_gallery: Array
    query_answers: PointAnswers  # the same as points with distances
    gallery_answers: PointAnswers
    paths: list[str]

    def without(self, failed: dict[str, str]) -> Embeddings:
        """Those of the other shapes; ``ValueError`` if there is none."""
        rows = [row for row, path in enumerate(self.paths) if path not in failed]
        if not rows:
            first = first_failure(failed, self.paths)
            raise ValueError(f"none of {len(self.paths)} shapes could be read; first: {first}")
        queries, gallery, raw_queries, raw_gallery = (
            x[rows] for x in (self.queries, self.gallery, self.raw_queries, self.raw_gallery)
        )
        answers = self.query_answers.rows(rows), self.gallery_answers.rows(rows)
        return Embeddings(queries, gallery, raw_queries, raw_gallery, *answers, [self.paths[row] for row in rows])


@dataclass(frozen=True)
class Ranked:
    """One seed's outcome: values (N,) a query by figure, the part of tied items, the controls' figures, and why a
    control is missing."""

    embeddings: Embeddings
    values: dict[str, Array]
    tied: float
    controls: dict[str, dict[str, float]]
    missing: dict[str, str]


def run(
    encoder: Encoder,
    shapes: Sequence[ShapeLike],
    settings: RetrievalSettings | None = None,
    *,
    untrained: Encoder | None = None,
    progress: bool = False,
) -> Result:
    """Find each of N shapes, seen through one view, among all of them seen through another, by cosine.

    Controls are a random order (``chance``), the answers compared without a model (means in cells: ``raw_distances``;
    ``lipschitz``; ``spline_field``), and the encoder ``untrained``, if one is given (``random_init``), see
    ``nepa3d.probes.embedding.untrained_encoder``. ``ValueError`` names a shape that cannot be read, and says what to
    install where SciPy is missing. The seeds of the two views must differ.
    """
    settings = settings or RetrievalSettings()
    require_several(shapes)
    if len(shapes) < 2:
        raise ValueError(f"shapes must be at least 2, got {len(shapes)}")
    if settings.query_seed == settings.gallery_seed:
        raise ValueError(f"gallery_seed must differ from query_seed, got {settings.query_seed} for both")
    fresh = None if untrained is None else untrained.probe
    result = retrieve(encoder.probe, in_memory(shapes), settings, fresh=fresh, progress=progress)
    require_read(result.failed)
    return result


def retrieve(
    probe: Probe,
    shapes: Sequence[ShapeLike],
    settings: RetrievalSettings,
    *,
    fresh: Probe | None = None,
    progress: bool = True,
) -> Result:
    """Embed, rank and score; ``fresh`` is the untrained model, left out: as ``settings`` say.

    Shapes that cannot be read are listed, other bad input is ``ValueError``. With several seeds a query's values are
    means over them, and the intervals resample queries. A shape that cannot be read under one of them is left out
    under all.
    """
    if settings.spline:
        require_scipy()
    failed: dict[str, str] = {}
    embedded = [embed_views(probe, shapes, one, failed, progress=progress) for one in settings.seeded()]
    beside: list[Embeddings | None] = []
    for one in settings.seeded():
        other = untrained(probe, one.query_seed) if fresh is None and settings.untrained else fresh
        beside.append(None if other is None else embed_views(other, shapes, one, failed, progress=progress))
    found = [
        _rank(own.without(failed), None if of_fresh is None else of_fresh.without(failed), settings, progress=progress)
        for own, of_fresh in zip(embedded, beside, strict=True)
    ]
    missing = {name: why for ranked in found for name, why in ranked.missing.items()}
    first = found[0].embeddings
    values = {name: np.mean([ranked.values[name] for ranked in found], axis=0) for name in found[0].values}
    tied = float(np.mean([ranked.tied for ranked in found]))
    return Result(
        probe="ucpr",
        figures={name: float(value.mean()) for name, value in values.items()}
        | {"median_rank": float(np.median(values["mean_rank"]))},
        controls={
            "chance": {**ranking.chance_metrics(len(first.paths))},
            **_controls(found, missing),
        },
        intervals={
            name: interval(value[:, None]) if name == "mean_rank" else share_interval(value)
            for name, value in values.items()
        },
        by_seed=[{name: float(v.mean()) for name, v in ranked.values.items()} for ranked in found],
        settings=_settings(probe, settings) | {"n_files": len(first.paths), **_answers(shapes, first.paths, settings)},
        diagnostics={
            "tied_fraction": tied,
            "collapsed": len(first.paths) > 1 and tied >= COLLAPSED_FROM,
            "query_spread": ranking.spread(first.queries),
            "gallery_spread": ranking.spread(first.gallery),
            **({"missing_controls": missing} if missing else {}),
        },
        items={"path": first.paths, "mAP": list(values["mAP"]), **_picture(first, settings)},
        failed=failed,
    )


def _answers(shapes: Sequence[ShapeLike], read: Sequence[str], settings: RetrievalSettings) -> Json:
    """Which stored distances both views answer with, of the first shape that was read: they may be the same ones, where
    a cache lacks those of a view."""
    first = as_shape(next(shape for shape in shapes if shape_name(shape) == read[0]))
    views = {"query_distances": settings.query_view, "gallery_distances": settings.gallery_view}
    return {name: view_row(view).answers_with(first) for name, view in views.items()}


def _controls(found: Sequence[Ranked], missing: Mapping[str, str]) -> dict[str, Json | None]:
    """Means over the seeds; None for what is missing."""
    controls: dict[str, Json | None] = dict.fromkeys(missing)
    for name in found[0].controls:
        if name not in missing:
            seeds = [ranked.controls[name] for ranked in found]
            controls[name] = {figure: float(np.mean([one[figure] for one in seeds])) for figure in seeds[0]}
    return controls


def embed_views(
    probe: Probe,
    shapes: Sequence[ShapeLike],
    settings: RetrievalSettings,
    failed: dict[str, str],
    *,
    progress: bool = True,
) -> Embeddings:
    """Embed every shape through both views; those that cannot be read are noted in ``failed``."""
    views = (View(settings.query_view, settings.query_seed), View(settings.gallery_view, settings.gallery_seed))
    query, gallery = (embed(probe, shapes, view, settings.embedding, failed, progress=progress) for view in views)
    names = [shape_name(shape) for shape in shapes]
    plain = query.plain, gallery.plain, query.answers, gallery.answers
    return Embeddings(query.vectors, gallery.vectors, *plain, names).without(failed)


def _rank(embeddings: Embeddings, fresh: Embeddings | None, settings: RetrievalSettings, *, progress: bool) -> Ranked:
    queries, gallery, chunk = embeddings.queries, embeddings.gallery, settings.embedding.batch
    ranks = ranking.rank_true_items(queries, gallery, chunk=chunk)
    scored = ranks
    if settings.rank_rule == "strict":
        scored = ranking.rank_strictly(queries, gallery, chunk=chunk)
    raw = centred(embeddings.raw_queries), centred(embeddings.raw_gallery)
    controls = {"raw_distances": ranking.retrieval_metrics(ranking.rank_true_items(*raw, chunk=chunk))}
    answers = embeddings.query_answers, embeddings.gallery_answers
    threads = max(1, settings.embedding.threads)
    plain, missing = plain_metrics(
        *answers, lipschitz=settings.lipschitz, spline=settings.spline, threads=threads, progress=progress
    )
    controls |= plain
    if fresh is not None:
        ranked = ranking.rank_true_items(fresh.queries, fresh.gallery, chunk=chunk)
        controls["random_init"] = ranking.retrieval_metrics(ranked)
    return Ranked(embeddings, ranking.per_query(scored), ranking.tied_fraction(ranks), controls, missing)


def _picture(embeddings: Embeddings, settings: RetrievalSettings) -> Json:
    """What a report draws of one seed: each query's best gallery items, and its place among the queries."""
    top = ranking.best_items(embeddings.queries, embeddings.gallery, TOP, chunk=settings.embedding.batch)
    return {"top": top.tolist(), "map": ranking.plane(embeddings.queries).round(5).tolist()}


def _settings(probe: Probe, settings: RetrievalSettings) -> Json:
    return {
        **settings.embedding.report(probe),
        "query_backend": settings.query_view,
        "gallery_backend": settings.gallery_view,
        "eval_seed": settings.query_seed,
        "eval_seed_gallery": settings.gallery_seed,
        "n_seeds": settings.n_seeds,
        "ablate_point_xyz": settings.embedding.hide_positions,
        "ablate_point_dist": settings.embedding.hide_distances,
        "tie_rule": ranking.TIE_RULES[settings.rank_rule],
        "shared_draws": settings.draws_are_shared(),
    }


def text(result: Result) -> str:
    """The result with its controls as a table for the terminal."""
    names = ("r@1", "r@5", "r@10", "mAP", "mean_rank", "median_rank")
    settings, spreads = result.settings, result.diagnostics
    title = f"{settings['query_backend']} -> {settings['gallery_backend']}, {settings['n_files']} shapes"
    figures: dict[str, Json] = {title: result.figures, "95 % over shapes": {**result.intervals}}
    if len(result.by_seed) > 1:
        seeds = result.by_seed
        figures["standard deviation over seeds"] = {k: float(np.std([seed[k] for seed in seeds])) for k in seeds[0]}
    for control in CONTROLS:
        if found := result.controls.get(control.key):
            figures[control.title] = found
    figures["chance"] = result.controls["chance"] or {}
    digits = [1 if name.endswith("rank") else 4 for name in names]
    rows = [
        [what, *(cell(found[name], n) if name in found else "" for name, n in zip(names, digits, strict=True))]
        for what, found in figures.items()
    ]
    heads = ["", "R@1", "R@5", "R@10", "mAP", "mean rank", "median rank"]
    table = tabulate(rows, heads, colalign=("left", *6 * ("right",)), disable_numparse=True)
    spread = f"query {spreads['query_spread']:.4f}, gallery {spreads['gallery_spread']:.4f}"
    return "\n".join([table, *unmeasured(result), f"spread of the embeddings (0: all alike): {spread}"])


RETRIEVAL = ProbeKind(
    name="Retrieval",
    recognises=lambda content: {*IN_TABLES, "n_files"} <= content.keys(),
    figures=("r@1", "r@5", "r@10", "mAP", "mean_rank", "median_rank"),
    controls=("chance", *(control.key for control in CONTROLS)),
    diagnostics=("tied_fraction", "collapsed", "query_spread", "gallery_spread", "missing_controls"),
    protocol=(
        *("tie_rule", "split", "query_backend", "gallery_backend", "eval_seed", "eval_seed_gallery", "n_seeds"),
        *("mc_k", "precision", "questions", "n_files"),
    ),
    item_figures=("mAP",),
    table=document_table,
    section=Section(
        "retrieval",
        "Cross-view retrieval",
        "Each shape, seen one way, is searched among all shapes seen another way, by the cosine of embeddings.",
    ),
    report_table=report_table,
    drawings=drawings,
    bars=bars,
    doubts=doubts,
    judged=judged,
)
