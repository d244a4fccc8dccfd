"""Retrieval of a shape by a scan of it: the query is a cloud seen from one side, the gallery holds the meshes.

Each query ranks the gallery by cosine similarity; its true item is the mesh of the same object. Beside the model stand
an untrained one and, without a model, two comparisons of the very same answers. Queries may be turned about the
vertical, so that with the gallery itself as queries the heading alone makes the task. The vertical is y, as in
ShapeNet, Sweet Home 3D and the scans of ``nepa3d.corpora.scanner``.
Letters: Q queries, M gallery items, D width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from tabulate import tabulate

from nepa3d.execution.checks import require_at_least
from nepa3d.models.embedding import Probe, sample_length
from nepa3d.models.encoder import Encoder, ShapeLike, shape_name
from nepa3d.models.vectors import normalize
from nepa3d.probes import ranking
from nepa3d.probes.drawings import Dots, Drawing, dot
from nepa3d.probes.embedding import (
    EmbeddingSettings,
    centred,
    embed_samples,
    in_memory,
    plain_distances,
    require_read,
    untrained,
)
from nepa3d.probes.intervals import cell, grouped_interval, share_interval
from nepa3d.probes.judged import Compared, Judged, figure_text, outcome
from nepa3d.probes.kind import Named, ProbeKind, Section
from nepa3d.probes.lipschitz import least_violations, violations
from nepa3d.probes.looks import Looks, LookSettings, look
from nepa3d.probes.result import Json, Result, first_failure
from nepa3d.probes.search import Search
from nepa3d.probes.tables import Table, failures_note, figure_cell, interval_cell, unusual
from nepa3d.samples.dataset import SampleSettings
from nepa3d.samples.tokenizer import draws_are_shared
from nepa3d.shapes.views import require_backend

Array = NDArray[np.float64]
Rows = NDArray[np.int64]
RanksBy = dict[str, ranking.Ranks]  # by the comparison's name

NAME = "scan_retrieval"
FIGURES = ("r@1", "r@5", "r@10", "mrr", "mAP")
HEADS = ("R@1", "R@5", "R@10", "MRR", "mAP")
CONTROLS = {
    "random_init": "untrained model",
    "raw_distances": "plain distances, no model",
    "lipschitz": "Lipschitz violation, no model",
    "lipschitz_headings": "the same, best heading",
    "chance": "chance",
}
ITEM_FIGURES = ("r@1", "mAP")
COLLAPSED_FROM = 0.5  # share of the gallery tied with the true item from which we speak of collapse


@dataclass(frozen=True)
class ScanRetrievalSettings:
    """The views of queries and gallery, the draws from each, and the controls."""

    query_view: str = "pointcloud_noray"
    gallery_view: str = "mesh"
    query_seed: int = 0
    gallery_seed: int = 999
    n_seeds: int = 1
    """Number of seeds, counted up from these two."""
    turn_queries: bool = False
    """Turn each query about the vertical by an angle that is a function of its seed and name."""
    headings: int = 1
    """Above 1: also compare answers at so many headings of the query, and take the best."""
    embedding: EmbeddingSettings = field(default_factory=EmbeddingSettings)

    def __post_init__(self) -> None:
        for name in ("query_view", "gallery_view"):
            require_backend(getattr(self, name), name)
        require_at_least(1, n_seeds=self.n_seeds, headings=self.headings)
        require_at_least(0, query_seed=self.query_seed, gallery_seed=self.gallery_seed)
        if self.turn_queries and self.embedding.questions != "pool":
            raise ValueError(
                f"questions must be pool where turn_queries is 1, got {self.embedding.questions}: the uniform part of "
                "a pool is detected from its coordinates, which turning changes"
            )
        if draws_are_shared(self.query_seed, self.gallery_seed, self.embedding.draws):
            raise ValueError(
                "gallery_seed must give other draws than query_seed: "
                f"with {self.gallery_seed} and {self.query_seed} both are asked at the same points"
            )

    def seeded(self) -> list[ScanRetrievalSettings]:
        """The same for every seed."""
        first, second = self.query_seed, self.gallery_seed
        return [replace(self, query_seed=first + i, gallery_seed=second + i, n_seeds=1) for i in range(self.n_seeds)]


@dataclass(frozen=True)
class Similarities:
    """One seed's comparisons by name: unit vectors of both sides, (Q, D) and (M, D), or scores (Q, M), higher alike."""

    vectors: dict[str, tuple[Array, Array]]
    scores: dict[str, Array]

    def ranks(self, rows: Rows, items: Rows, truth: Rows) -> RanksBy:
        """The place of the true item of each of the queries ``rows`` among ``items``; ``truth`` counts these."""
        found = {}
        for name, (queries, gallery) in self.vectors.items():
            sides = queries[rows], gallery[items]
            if name == "raw_distances":
                sides = centred(sides[0]), centred(sides[1])
            found[name] = ranking.rank_true_items(*sides, truth)
        for name, scores in self.scores.items():
            found[name] = ranking.rank_scores(scores[np.ix_(rows, items)], truth)
        return found


def run(
    encoder: Encoder, search: Search, settings: ScanRetrievalSettings | None = None, *, progress: bool = False
) -> Result:
    """Seek each of Q queries among M gallery items by cosine; see ``nepa3d.probes.search`` for what is sought where.

    The controls are a random order (``chance``), the answered distances compared in cells (``raw_distances``) and by
    how far they contradict each other (``lipschitz``, and ``lipschitz_headings`` where asked for), all without a model,
    and a model of the same sizes with new weights (``random_init``). ``ValueError`` names a shape that cannot be read.
    """
    kept = replace(search, queries=in_memory(search.queries), gallery=in_memory(search.gallery))
    result = retrieve(encoder.probe, kept, settings or ScanRetrievalSettings(), progress=progress)
    require_read(result.failed)
    return result


def retrieve(probe: Probe, search: Search, settings: ScanRetrievalSettings, *, progress: bool = True) -> Result:
    """Embed, rank and score. Shapes that cannot be read are listed, other bad input is ``ValueError``.

    With several seeds a query's values are means over them, and the intervals resample objects. A shape that cannot be
    read under one seed is left out under all, a gallery item with its queries.
    """
    probe.require_length(sample_length(probe), "n_point, n_ray, qa_tokens and add_eos")
    failed: dict[str, str] = {}
    found = [_compare(probe, search, one, failed, progress=progress) for one in settings.seeded()]
    items = np.array([row for row, shape in enumerate(search.gallery) if shape_name(shape) not in failed], np.int64)
    readable = [shape_name(shape) not in failed for shape in search.queries]
    rows = np.flatnonzero(np.isin(search.truth, items) & np.array(readable))
    if not len(rows):
        raise ValueError(f"none of {len(readable)} queries could be read; first: {first_failure(failed, failed)}")
    truth = np.searchsorted(items, search.truth[rows])
    ranks = [one.ranks(rows, items, truth) for one in found]
    by_seed = [_per_query(of_seed["model"]) for of_seed in ranks]
    values = {name: np.mean([seed[name] for seed in by_seed], axis=0) for name in by_seed[0]}
    objects = [search.query_objects[row] for row in rows.tolist()]
    tied = float(np.mean([ranking.tied_fraction(of_seed["model"]) for of_seed in ranks]))
    queries, gallery = found[0].vectors["model"]
    best = items[ranking.best_items(queries[rows], gallery[items], 1)[:, 0]]
    return Result(
        probe=NAME,
        figures=_figures(values),
        controls=_controls(ranks, len(items)),
        intervals={
            name: (grouped_interval if name == "mean_rank" else share_interval)(value, objects)
            for name, value in values.items()
        },
        by_seed=[_figures(seed) for seed in by_seed],
        settings=_settings(probe, settings)
        | {"n_queries": len(rows), "n_objects": len(set(objects)), "n_gallery": len(items)},
        diagnostics={
            "tied_fraction": tied,
            "collapsed": tied >= COLLAPSED_FROM,
            "query_spread": ranking.spread(queries[rows]),
            "gallery_spread": ranking.spread(gallery[items]),
        },
        items={
            "path": [shape_name(search.queries[row]) for row in rows.tolist()],
            "object": objects,
            "first_found": [search.gallery_objects[row] for row in best.tolist()],
            **{name: list(values[name]) for name in ITEM_FIGURES},
        },
        failed=failed,
    )


def _compare(
    probe: Probe, search: Search, settings: ScanRetrievalSettings, failed: dict[str, str], *, progress: bool
) -> Similarities:
    """Both sides seen by the model and by all controls, which are given the same draws; means over them."""
    embedding, threads = settings.embedding, max(1, settings.embedding.threads)
    models = {"model": probe, "random_init": untrained(probe, settings.query_seed)}
    sums: dict[str, list[list[Array]]] = {name: [[], []] for name in (*models, "raw_distances")}
    violated: dict[str, list[Array]] = {}
    for draw in range(embedding.draws):
        sides = _sides(probe, search, settings, draw, failed)
        for side, looks in enumerate(sides):
            for name, model in models.items():
                sums[name][side].append(embed_samples(model, looks.features, looks.types, embedding))
            sums["raw_distances"][side].append(plain_distances(looks.features, looks.types))
        if probe.n_point:
            points = sides[0].points(), sides[1].points()
            violated.setdefault("lipschitz", []).append(violations(*points, threads=threads, progress=progress))
            if settings.headings > 1:
                turned = least_violations(*points, settings.headings, threads=threads, progress=progress)
                violated.setdefault("lipschitz_headings", []).append(turned)
    means = {name: (np.mean(both[0], axis=0), np.mean(both[1], axis=0)) for name, both in sums.items()}
    vectors = {
        name: (normalize(both[0]), normalize(both[1])) if name in models else both for name, both in means.items()
    }
    return Similarities(vectors, {name: -np.mean(of_draws, axis=0) for name, of_draws in violated.items()})


def _sides(
    probe: Probe, search: Search, settings: ScanRetrievalSettings, draw: int, failed: dict[str, str]
) -> tuple[Looks, Looks]:
    """One draw of queries and gallery; shapes that cannot be read are noted in ``failed``."""
    embedding = settings.embedding
    form = SampleSettings(
        probe.n_point,
        probe.n_ray,
        qa=probe.qa,
        eos=probe.eos,
        voxel=embedding.voxel,
        questions=embedding.questions,
    )
    threads = max(1, embedding.threads)
    asked: tuple[tuple[Sequence[ShapeLike], LookSettings], ...] = (
        (search.queries, LookSettings(settings.query_view, form, settings.query_seed, settings.turn_queries, threads)),
        (search.gallery, LookSettings(settings.gallery_view, form, settings.gallery_seed, threads=threads)),
    )
    found = []
    for shapes, how in asked:
        looks = look(shapes, how, draw)
        for row, fault in looks.faults.items():
            failed.setdefault(shape_name(shapes[row]), f"{how.view}: {fault}")
        found.append(looks)
    return found[0], found[1]


def _per_query(ranks: ranking.Ranks) -> dict[str, Array]:
    """What the figures are means of, (Q,) each. With one true item a query, average precision is 1 / rank."""
    values = ranking.per_query(ranks)
    return {**values, "mrr": values["mAP"]}


def _figures(values: dict[str, Array]) -> Json:
    means = {name: float(value.mean()) for name, value in values.items()}
    return {**means, "median_rank": float(np.median(values["mean_rank"]))}


def _controls(ranks: Sequence[RanksBy], n_gallery: int) -> dict[str, Json | None]:
    """The figures of each control, means over the seeds; None where it was not measured."""
    chance = ranking.chance_metrics(n_gallery)
    found: dict[str, Json | None] = {"chance": {**chance, "mrr": chance["mAP"]}}
    for name in CONTROLS:
        if name != "chance":
            seeds = [_figures(_per_query(of_seed[name])) for of_seed in ranks if name in of_seed]
            found[name] = {key: float(np.mean([seed[key] for seed in seeds])) for key in seeds[0]} if seeds else None
    return found


def _settings(probe: Probe, settings: ScanRetrievalSettings) -> Json:
    return {
        **settings.embedding.report(probe),
        "query_backend": settings.query_view,
        "gallery_backend": settings.gallery_view,
        "eval_seed": settings.query_seed,
        "eval_seed_gallery": settings.gallery_seed,
        "n_seeds": settings.n_seeds,
        "turn_queries": settings.turn_queries,
        "headings": settings.headings,
        "vertical": "y",
        "tie_rule": ranking.TIE_RULES["expected"],
        "group_by": "object",
    }


def text(result: Result) -> str:
    """The result with its controls as a table for the terminal."""
    settings = result.settings
    title = f"{_pair(result, '->')}, {settings['n_queries']} queries, {settings['n_gallery']} in the gallery"
    figures: dict[str, Json] = {title: result.figures, f"95 % over {settings['n_objects']} objects": result.intervals}
    if len(result.by_seed) > 1:
        seeds = result.by_seed
        figures["standard deviation over seeds"] = {k: float(np.std([seed[k] for seed in seeds])) for k in seeds[0]}
    for name, said in CONTROLS.items():
        if control := result.controls.get(name):
            of = f" of {settings['headings']}" if name == "lipschitz_headings" else ""
            figures[said + of] = control
    rows = [[what, *(cell(found[name]) for name in FIGURES)] for what, found in figures.items()]
    return tabulate(rows, ("", *HEADS), colalign=("left", *len(HEADS) * ("right",)), disable_numparse=True)


def _pair(result: Result, arrow: str) -> str:
    settings = result.settings
    turned = " turned" if settings.get("turn_queries") else ""
    return f"{settings.get('query_backend', '?')}{turned} {arrow} {settings.get('gallery_backend', '?')}"


def _notes(result: Result) -> str:
    notes = ["COLLAPSED gallery"] if result.diagnostics.get("collapsed") else []
    if result.settings.get("mc_k", 1) > 1:
        notes.append(f"mc_k {result.settings['mc_k']}")
    if result.settings.get("n_excluded"):
        notes.append(f"{result.settings['n_excluded']} objects excluded")
    notes += unusual(result, {"pooling": "eos", "representation": "h", "precision": "float32", "questions": "pool"})
    return "; ".join(notes + failures_note(result))


def _table(results: Sequence[Named]) -> Table:
    """Each result, and below it the same search by each control."""
    rows = []
    for tag, r in results:
        sizes = [f"{r.settings[name]}" for name in ("n_queries", "n_gallery")]
        names = (tag, r.settings.get("ckpt", "-"), _pair(r, "->"))
        rows.append([*(f"`{name}`" for name in names), *sizes, *(cell(r.figures[key]) for key in FIGURES), _notes(r)])
        for name, said in CONTROLS.items():
            if control := r.controls.get(name):
                rows.append([f"`{tag}`", said, "-", *sizes, *(cell(control[key]) for key in FIGURES), "control"])
    heads = ("Tag", "CKPT", "Query -> Gallery", "Queries", "Gallery", *HEADS, "Note")
    return Table("Retrieval by scans", heads, rows, first_figure=3)


def _report_table(results: Sequence[Named]) -> Table:
    heads = ("Model", "Query → gallery", "Queries", "Gallery", *HEADS[:3], "mAP", "R@1, 95 %")
    said = ("R@1 untrained", "plain distances", "Lipschitz", "best heading", "chance", "Notes")
    rows = [
        [
            *(r.model, _pair(r, "→"), f"{r.settings['n_queries']}", f"{r.settings['n_gallery']}"),
            *(cell(r.figures[name], 3) for name in ("r@1", "r@5", "r@10", "mAP")),
            interval_cell(r.intervals, "r@1"),
            *(figure_cell(r.controls.get(name), "r@1") for name in CONTROLS),
            _notes(r),
        ]
        for _, r in results
    ]
    return Table("Retrieval of meshes by scans", (*heads, *said), rows, first_figure=2)


def _drawings(results: Sequence[Named]) -> list[Drawing]:
    shown = {"chance": "chance", "untrained": "random_init", "no model": "lipschitz"}
    rows = [dot(tag, r, "r@1", {said: r.controls.get(name) for said, name in shown.items()}) for tag, r in results]
    caption = (
        "R@1 with its 95 % interval over objects, beside chance, an untrained model and answers compared without one."
    )
    return [Dots(NAME, caption, "R@1", rows)]


def _doubts(result: Result) -> list[str]:
    found = []
    if result.diagnostics.get("collapsed"):
        tied = result.diagnostics["tied_fraction"]
        found.append(f"the gallery has collapsed: {tied:.0%} of it is tied with the true mesh")
    low = result.intervals.get("mAP", (math.inf, math.inf))[0]
    for name, said in CONTROLS.items():
        control = result.controls.get(name)
        if control and low <= control["mAP"]:
            mean = result.figures["mAP"]
            found.append(f"mAP {mean:.4f} is not above {said} ({control['mAP']:.4f}) with 95 % confidence")
    return found


def _judged(result: Result) -> list[Judged]:
    mean, between = result.figures["mAP"], result.intervals.get("mAP")
    compared = []
    for name, said in CONTROLS.items():
        control = result.controls.get(name)
        if control:
            value = control["mAP"]
            compared.append(Compared(said, value, outcome(mean - value, between[0] - value if between else None)))
        elif name != "lipschitz_headings":  # which is there on request
            compared.append(Compared(said, None, "missing"))
    flaw = "the gallery has collapsed" if result.diagnostics.get("collapsed") else ""
    return [Judged(result.model, _pair(result, "→"), f"mAP {figure_text(mean, between)}", tuple(compared), flaw)]


SCAN_RETRIEVAL = ProbeKind(
    name="Retrieval by scans",
    recognises=lambda content: content.get("probe") == NAME,
    figures=(*FIGURES, "mean_rank", "median_rank"),
    controls=tuple(CONTROLS),
    diagnostics=("tied_fraction", "collapsed", "query_spread", "gallery_spread"),
    protocol=(
        *("query_split", "gallery_splits", "query_backend", "gallery_backend", "turn_queries", "n_gallery"),
        *("eval_seed", "eval_seed_gallery", "n_seeds", "mc_k", "precision", "questions"),
    ),
    item_figures=ITEM_FIGURES,
    table=_table,
    section=Section(
        "scan-retrieval",
        "Retrieval by scans",
        "Each scan, seen from one side, is searched among the meshes, one of which was scanned.",
    ),
    report_table=_report_table,
    drawings=_drawings,
    doubts=_doubts,
    judged=_judged,
)
