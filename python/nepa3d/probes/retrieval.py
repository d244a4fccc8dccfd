"""Cross-view retrieval (UCPR): does a shape seen through one view retrieve itself seen through another?

Every shape is embedded twice, through the query view and the gallery view. Each query ranks the gallery by cosine
similarity; its true item is the same shape. Tied items share their ranks, so a collapsed encoder scores chance.
Letters: N shapes, D model width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from tabulate import tabulate

from nepa3d.models.embedding import Probe
from nepa3d.models.encoder import Encoder, ShapeLike, shape_name
from nepa3d.probes import ranking
from nepa3d.probes.drawings import Bar, BarChart, Dots, Drawing, EmbeddingMap, Gallery, dot
from nepa3d.probes.embedding import (
    EmbeddingSettings,
    View,
    centred,
    embed,
    in_memory,
    require_read,
)
from nepa3d.probes.intervals import cell, interval
from nepa3d.probes.judged import Compared, Judged, figure_text, outcome
from nepa3d.probes.kind import Named, ProbeKind, Section
from nepa3d.probes.result import Json, Result
from nepa3d.probes.tables import Table, failures_note, figure_cell, interval_cell, unusual
from nepa3d.samples.tokenizer import resample_seed

RankRule = Literal["expected", "strict"]
Array = NDArray[np.float64]

COLLAPSED_FROM = 0.5  # share of the gallery tied with the true item from which we speak of collapse
TOP = 5  # gallery items listed a query
IN_TABLES = ("r@1", "r@5", "r@10", "mAP")


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
    embedding: EmbeddingSettings = field(default_factory=EmbeddingSettings)

    def seeded(self) -> list[RetrievalSettings]:
        """The same for every seed."""
        first, second = self.query_seed, self.gallery_seed
        return [replace(self, query_seed=first + i, gallery_seed=second + i, n_seeds=1) for i in range(self.n_seeds)]

    def draws_are_shared(self) -> bool:
        """Whether the two views have a draw in common."""
        query, gallery = (
            {resample_seed(seed, draw) for draw in range(self.embedding.draws)}
            for seed in (self.query_seed, self.gallery_seed)
        )
        return bool(query & gallery)


@dataclass(frozen=True)
class Embeddings:
    """Both views of every readable shape, as unit vectors (N, D) in one order."""

    queries: Array
    gallery: Array
    raw_queries: Array  # (N, RAW_CELLS^3), the answers themselves, seen by no model
    raw_gallery: Array
    paths: list[str]

    def without(self, failed: dict[str, str]) -> Embeddings:
        """Those of the other shapes; ``ValueError`` if there is none."""
        rows = [row for row, path in enumerate(self.paths) if path not in failed]
        if not rows:
            raise ValueError(f"none of {len(self.paths)} shapes could be read; first: {next(iter(failed.values()))}")
        queries, gallery, raw_queries, raw_gallery = (
            x[rows] for x in (self.queries, self.gallery, self.raw_queries, self.raw_gallery)
        )
        return Embeddings(queries, gallery, raw_queries, raw_gallery, [self.paths[row] for row in rows])


@dataclass(frozen=True)
class Ranked:
    """One seed's outcome: values (N,) a query by figure, the part of tied items, and figures without a model."""

    embeddings: Embeddings
    values: dict[str, Array]
    tied: float
    raw: dict[str, float]


def run(
    encoder: Encoder,
    shapes: Sequence[ShapeLike],
    settings: RetrievalSettings | None = None,
    *,
    progress: bool = False,
) -> Result:
    """Find each of N shapes, seen through one view, among all of them seen through another, by cosine.

    Controls are a random order (``chance``) and the answered distances compared without a model (``raw_distances``).
    ``ValueError`` names a shape that cannot be read. The seeds of the two views must differ.
    """
    settings = settings or RetrievalSettings()
    if len(shapes) < 2:
        raise ValueError(f"shapes must be at least 2, got {len(shapes)}")
    if settings.query_seed == settings.gallery_seed:
        raise ValueError(f"gallery_seed must differ from query_seed, got {settings.query_seed} for both")
    result = retrieve(encoder.probe, in_memory(shapes), settings, progress=progress)
    require_read(result.failed)
    return result


def retrieve(
    probe: Probe, shapes: Sequence[ShapeLike], settings: RetrievalSettings, *, progress: bool = True
) -> Result:
    """Embed, rank and score. Shapes that cannot be read are listed, other bad input is ``ValueError``.

    With several seeds a query's values are means over them, and the intervals resample queries. A shape that cannot be
    read under one of them is left out under all.
    """
    failed: dict[str, str] = {}
    embedded = [embed_views(probe, shapes, one, failed, progress=progress) for one in settings.seeded()]
    found = [_rank(embeddings.without(failed), settings) for embeddings in embedded]
    first = found[0].embeddings
    values = {name: np.mean([ranked.values[name] for ranked in found], axis=0) for name in found[0].values}
    tied = float(np.mean([ranked.tied for ranked in found]))
    return Result(
        probe="ucpr",
        figures={name: float(value.mean()) for name, value in values.items()}
        | {"median_rank": float(np.median(values["mean_rank"]))},
        controls={
            "chance": {**ranking.chance_metrics(len(first.paths))},
            "raw_distances": {name: float(np.mean([ranked.raw[name] for ranked in found])) for name in found[0].raw},
        },
        intervals={name: interval(value[:, None]) for name, value in values.items()},
        by_seed=[{name: float(v.mean()) for name, v in ranked.values.items()} for ranked in found],
        settings=_settings(probe, settings) | {"n_files": len(first.paths)},
        diagnostics={
            "tied_fraction": tied,
            "collapsed": len(first.paths) > 1 and tied >= COLLAPSED_FROM,
            "query_spread": ranking.spread(first.queries),
            "gallery_spread": ranking.spread(first.gallery),
        },
        items={"path": first.paths, "mAP": list(values["mAP"]), **_picture(first, settings)},
        failed=failed,
    )


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
    return Embeddings(query.vectors, gallery.vectors, query.plain, gallery.plain, names).without(failed)


def _rank(embeddings: Embeddings, settings: RetrievalSettings) -> Ranked:
    queries, gallery, chunk = embeddings.queries, embeddings.gallery, settings.embedding.batch
    ranks = ranking.rank_true_items(queries, gallery, chunk=chunk)
    scored = ranks
    if settings.rank_rule == "strict":
        scored = ranking.rank_strictly(queries, gallery, chunk=chunk)
    answers = centred(embeddings.raw_queries), centred(embeddings.raw_gallery)
    raw = ranking.rank_true_items(*answers, chunk=chunk)
    tied = ranking.tied_fraction(ranks)
    return Ranked(embeddings, ranking.per_query(scored), tied, ranking.retrieval_metrics(raw))


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
    figures["plain distances, no model"] = result.controls["raw_distances"] or {}
    figures["chance"] = result.controls["chance"] or {}
    digits = [1 if name.endswith("rank") else 4 for name in names]
    rows = [
        [what, *(cell(found[name], n) if name in found else "" for name, n in zip(names, digits, strict=True))]
        for what, found in figures.items()
    ]
    heads = ["", "R@1", "R@5", "R@10", "mAP", "mean rank", "median rank"]
    table = tabulate(rows, heads, colalign=("left", *6 * ("right",)), disable_numparse=True)
    spread = f"query {spreads['query_spread']:.4f}, gallery {spreads['gallery_spread']:.4f}"
    return f"{table}\nspread of the embeddings (0: all alike): {spread}"


def _recognises(content: Json) -> bool:
    return {*IN_TABLES, "n_files"} <= content.keys()


def _pair(result: Result, unknown: str, arrow: str) -> str:
    settings = result.settings
    return f"{settings.get('query_backend', unknown)} {arrow} {settings.get('gallery_backend', unknown)}"


def _notes(result: Result) -> str:
    """What one must know beside the figures."""
    settings, notes = result.settings, []
    if result.diagnostics.get("collapsed"):
        notes.append("COLLAPSED gallery")
    if settings.get("tie_rule", "only strictly better").startswith("only strictly better"):
        notes.append("strict ranks: ties count as wins")
    if settings.get("shared_draws", settings.get("eval_seed") == settings.get("eval_seed_gallery")):
        notes.append("shared draws")
    notes += [name for name in ("ablate_point_xyz", "ablate_point_dist") if settings.get(name)]
    if settings.get("mc_k", 1) > 1:
        notes.append(f"mc_k {settings['mc_k']}")
    notes += unusual(result, {"pooling": "eos", "representation": "h", "precision": "float32"})
    return "; ".join(notes + failures_note(result))


def _document_table(results: Sequence[Named]) -> Table:
    rows = []
    for tag, r in results:
        names = (tag, r.settings.get("ckpt", "-"), _pair(r, "-", "->"), r.settings.get("split", "-"))
        figures = [cell(r.figures[name]) for name in IN_TABLES]
        rows.append([*(f"`{name}`" for name in names), str(r.settings["n_files"]), *figures, _notes(r)])
    for n in sorted({r.settings["n_files"] for _, r in results}):
        chance = ranking.chance_metrics(n)
        figures = [cell(chance[name]) for name in IN_TABLES]
        rows.append(["chance", "-", "-", "-", str(n), *figures, f"random order of {n}"])
    heads = ("Tag", "CKPT", "Query -> Gallery", "Split", "max_files", "R@1", "R@5", "R@10", "mAP", "Note")
    return Table("UCPR", heads, rows, first_figure=4)


def _report_table(results: Sequence[Named]) -> Table:
    """With interval, chance and the baseline without a model."""
    heads = (
        "Model",
        "Query → gallery",
        "Shapes",
        "R@1",
        "R@5",
        "R@10",
        "mAP",
        "mAP, 95 %",
        "Chance",
        "No model",
        "Notes",
    )
    rows = [
        [
            *(r.model, _pair(r, "?", "→"), str(r.settings["n_files"])),
            *(cell(r.figures[name], 3) for name in IN_TABLES),
            interval_cell(r.intervals, "mAP"),
            figure_cell(r.controls.get("chance"), "mAP"),
            figure_cell(r.controls.get("raw_distances"), "mAP"),
            _notes(r),
        ]
        for _, r in results
    ]
    return Table("Cross-view retrieval (UCPR)", heads, rows, first_figure=2)


def _drawings(results: Sequence[Named]) -> list[Drawing]:
    rows = [
        dot(
            tag.removeprefix("ucpr_"),
            r,
            "mAP",
            {"chance": r.controls.get("chance"), "no model": r.controls.get("raw_distances")},
        )
        for tag, r in results
    ]
    caption = "mAP with its 95 % interval over shapes, beside chance and plain distances without a model."
    maps, galleries = list[Drawing](), list[Drawing]()
    for name, r in _best_of_each([r for _, r in results if "top" in r.items]).items():
        items, views = r.items, (r.settings["query_backend"], r.settings["gallery_backend"])
        said = f"{name}: embeddings of the queries ({views[0]}), one point a shape."
        maps.append(EmbeddingMap(f"map_{name}", said, name, items["path"], np.array(items["map"])))
        ranks = [1 / value for value in items["mAP"]]  # with one right shape, precision is 1 / rank
        said = f"{name}: six queries ({views[0]}) and what is found first for each ({views[1]}); green: the right one."
        galleries.append(Gallery(f"gallery_{name}", said, name, items["path"], items["top"], ranks, views))
    return [Dots("retrieval", caption, "mAP", rows), *maps, *galleries]


def _best_of_each(results: Sequence[Result]) -> dict[str, Result]:
    """Each model's result of the highest mAP."""
    best: dict[str, Result] = {}
    for result in sorted(results, key=lambda result: -result.figures["mAP"]):
        best.setdefault(result.model, result)
    return dict(sorted(best.items()))


def _bars(results: Sequence[Named]) -> list[BarChart]:
    rows = []
    for tag, r in results:
        chance = ranking.chance_metrics(r.settings["n_files"])
        values, base = (r.figures["r@1"], r.figures["mAP"]), (chance["r@1"], chance["mAP"])
        rows.append(Bar(tag.removeprefix("ucpr_"), _pair(r, "?", "→"), r.settings.get("ckpt", ""), values, base))
    title, axis = "UCPR retrieval: R@1, mAP ↑", "share of queries; mean of 1/rank"
    return [BarChart(title, ("R@1", "mAP"), "chance", axis, rows, width=1.25)]


def _doubts(result: Result) -> list[str]:
    found, mean = [], result.figures["mAP"]
    if result.diagnostics.get("collapsed"):
        tied = result.diagnostics["tied_fraction"]
        found.append(f"the gallery has collapsed: {tied:.0%} of it is tied with the true shape")
    if result.settings.get("shared_draws"):
        found.append("query and gallery share their draws, so equal questions alone make them alike")
    low = result.intervals.get("mAP", (math.inf, math.inf))[0]
    chance, raw = result.controls.get("chance"), result.controls.get("raw_distances")
    if chance and low <= chance["mAP"]:
        found.append(f"mAP {mean:.4f} is not above chance ({chance['mAP']:.4f}) with 95 % confidence")
    elif raw and mean <= raw["mAP"]:
        found.append(f"mAP {mean:.4f} is below that of plain distances without a model ({raw['mAP']:.4f})")
    return found


def _judged(result: Result) -> list[Judged]:
    """Runs that are controls themselves, with a question changed, are left out."""
    if result.settings.get("ablate_point_xyz") or result.settings.get("ablate_point_dist"):
        return []
    mean, between = result.figures["mAP"], result.intervals.get("mAP")
    compared = []
    for name, title in (("raw_distances", "plain distances"), ("chance", "chance")):
        control = result.controls.get(name)
        if not control:
            compared.append(Compared(title, None, "missing"))
            continue
        value = control["mAP"]
        compared.append(Compared(title, value, outcome(mean - value, between[0] - value if between else None)))
    flaw = "the gallery has collapsed" if result.diagnostics.get("collapsed") else ""
    if result.settings.get("shared_draws"):
        flaw = "query and gallery share their draws"
    figure = f"mAP {figure_text(mean, between)}"
    return [Judged(result.model, _pair(result, "?", "→"), figure, tuple(compared), flaw)]


RETRIEVAL = ProbeKind(
    name="Retrieval",
    recognises=_recognises,
    figures=("r@1", "r@5", "r@10", "mAP", "mean_rank", "median_rank"),
    controls=("chance", "raw_distances"),
    diagnostics=("tied_fraction", "collapsed", "query_spread", "gallery_spread"),
    protocol=(
        *("tie_rule", "split", "query_backend", "gallery_backend", "eval_seed", "eval_seed_gallery", "n_seeds"),
        *("mc_k", "precision"),
    ),
    item_figures=("mAP",),
    table=_document_table,
    section=Section(
        "retrieval",
        "Cross-view retrieval",
        "Each shape, seen one way, is searched among all shapes seen another way, by the cosine of embeddings.",
    ),
    report_table=_report_table,
    drawings=_drawings,
    bars=_bars,
    doubts=_doubts,
    judged=_judged,
)
