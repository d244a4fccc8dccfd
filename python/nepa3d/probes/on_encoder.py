"""Probes of an encoder as one call each: what its frozen states know of shapes, beside controls that need no model.

Nothing is printed or written; ``python -m nepa3d.analysis.retrieval_ucpr`` and its siblings are the commands, with
options and files. Letters: N shapes, Q queries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tabulate import tabulate

from nepa3d.analysis.retrieval_ucpr import centred, raw_distances
from nepa3d.corpora.splits import stratified_validation
from nepa3d.models.encoder import Encoder, ShapeLike, as_shape
from nepa3d.models.ridge import ERROR_FIGURES, DistanceErrors, error_metrics
from nepa3d.probes import ranking
from nepa3d.probes.classifiers import SETTINGS, Examples, answer
from nepa3d.probes.intervals import cell, interval
from nepa3d.samples.completion import sample_of_cache

Figures = dict[str, float | None]


@dataclass(frozen=True)
class Result:
    """The figures of a probe, those of its controls, and 95 % intervals of the model's over shapes."""

    probe: str
    figures: Figures
    controls: dict[str, Figures]
    intervals: dict[str, tuple[float, float]]
    settings: dict[str, Any] = field(default_factory=dict)

    def table(self) -> str:
        """The model, its intervals and the controls, a row each."""
        names = list(self.figures)
        rows = [["model", *(cell(self.figures[name]) for name in names)]]
        rows.append(["  95 %", *(cell(self.intervals.get(name)) for name in names)])
        rows += [[control, *(cell(found.get(name)) for name in names)] for control, found in self.controls.items()]
        return tabulate(rows, headers=[self.probe, *names], disable_numparse=True)

    def to_json(self) -> dict[str, Any]:
        """The same as plain values."""
        return asdict(self)


def retrieval(
    encoder: Encoder,
    shapes: Sequence[ShapeLike],
    *,
    query_view: str = "mesh",
    gallery_view: str = "udfgrid",
    draws: int = 1,
    seed: int = 0,
    gallery_seed: int = 999,
    batch: int = 64,
    progress: bool = False,
) -> Result:
    """Find each of N shapes, seen as ``query_view``, among all of them seen as ``gallery_view``, by cosine.

    Ties count as their expected rank. Controls are a random order, and the answered distances compared without a model.
    ``gallery_seed`` must differ from ``seed``, or both sides would be asked at the same points.
    """
    if len(shapes) < 2:
        raise ValueError(f"shapes must be at least 2, got {len(shapes)}")
    if seed == gallery_seed:
        raise ValueError(f"gallery_seed must differ from seed, got {seed} for both")
    sides, plain = [], []
    for view, of_side in ((query_view, seed), (gallery_view, gallery_seed)):
        sides.append(encoder.embed(shapes, view, draws=draws, seed=of_side, batch=batch, progress=progress))
        cells = [raw_distances(*encoder.samples(shapes, view, of_side, draw)) for draw in range(draws)]
        plain.append(centred(np.mean(cells, axis=0)))
    ranks = ranking.rank_true_items(*sides)
    of_query = ranking.per_query(ranks)
    return Result(
        "retrieval",
        {**ranking.retrieval_metrics(ranks)},
        {
            "chance": {**ranking.chance_metrics(len(shapes))},
            "plain distances": {**ranking.retrieval_metrics(ranking.rank_true_items(*plain))},
        },
        {name: interval(values[:, None]) for name, values in of_query.items()},
        {"query_view": query_view, "gallery_view": gallery_view, "draws": draws, "n_shapes": len(shapes)}
        | {"seed": seed, "gallery_seed": gallery_seed, "tied_fraction": ranking.tied_fraction(ranks)},
    )


def completion(
    encoder: Encoder,
    shapes: Sequence[ShapeLike],
    *,
    view: str = "pointcloud_noray",
    tau: float = 0.03,
    seed: int = 0,
) -> Result:
    """Errors of the distances that ``encoder.complete`` predicts at points of each shape's pool that the context does
    not hold, against its distance field. The control copies the distance of the nearest context point.

    Fit the head on other shapes first (``Encoder.fit_distance_head``); else the built-in corpus is what it knows.
    """
    if not shapes:
        raise ValueError("shapes must not be empty")
    predicted, copied = DistanceErrors(tau), DistanceErrors(tau)
    settings = encoder.sequence(view, query_source="pool_disjoint")
    for shape in shapes:
        sample = sample_of_cache(as_shape(shape), settings, seed)
        predicted.add(encoder.predict_distances(sample), sample.target)
        assert sample.nearest_copy is not None  # there is a context
        copied.add(sample.nearest_copy, sample.target)
    sums = predicted.sums()
    return Result(
        "completion",
        {**error_metrics(sums)},
        {"nearest copy": {**error_metrics(copied.sums())}},
        {name: interval(sums, figure) for name, figure in ERROR_FIGURES.items()},
        {"view": view, "tau": tau, "n_context": settings.n_context, "n_query": settings.n_query}
        | {"n_shapes": len(shapes), "seed": seed},
    )


def classification(
    encoder: Encoder,
    train: Sequence[ShapeLike],
    train_labels: Sequence[int] | NDArray[np.integer],
    test: Sequence[ShapeLike],
    test_labels: Sequence[int] | NDArray[np.integer],
    *,
    view: str = "pointcloud_noray",
    classifier: str = "logistic",
    draws: int = 1,
    val_ratio: float = 0.2,
    seed: int = 0,
    batch: int = 64,
    progress: bool = False,
) -> Result:
    """Accuracy of a classifier ("knn", "logistic" or "svm"; the last two need scikit-learn) of frozen embeddings.

    Its setting is chosen on ``val_ratio`` of each training class. Controls are the commonest class and the same
    classifier of the answered distances without a model.
    """
    if classifier not in SETTINGS:
        raise ValueError(f"classifier must be one of {', '.join(SETTINGS)}, got {classifier!r}")
    known, asked = np.asarray(train_labels, np.int64), np.asarray(test_labels, np.int64)
    for name, labels, of in (("train", known, train), ("test", asked, test)):
        if labels.shape != (len(of),) or len(of) == 0:
            raise ValueError(f"{name}_labels must have a label for each of the {len(of)} shapes, got {labels.shape}")
    names = [f"{label}/{number}" for number, label in enumerate(known)]
    held = set(stratified_validation(names, val_ratio, seed))
    inner = np.array([name not in held for name in names])
    if inner.all() or not inner.any():
        raise ValueError("train must have at least two shapes of some class, to hold one out")

    def accuracy(vectors: NDArray[np.floating], queries: NDArray[np.floating]) -> NDArray[np.bool_]:
        of_train = Examples(vectors.astype(np.float64), known)
        fit, validation = (Examples(of_train.vectors[part], known[part]) for part in (inner, ~inner))
        return answer(classifier, fit, validation, of_train, queries.astype(np.float64)).predictions == asked

    embedded = [
        encoder.embed(part, view, draws=draws, seed=seed, batch=batch, progress=progress) for part in (train, test)
    ]
    plain = [raw_distances(*encoder.samples(part, view, seed, 0)) for part in (train, test)]
    correct, without_model = accuracy(embedded[0], embedded[1]), accuracy(plain[0], plain[1])
    commonest = np.bincount(known).argmax()
    return Result(
        "classification",
        {"accuracy": float(correct.mean())},
        {
            "commonest class": {"accuracy": float((asked == commonest).mean())},
            "plain distances": {"accuracy": float(without_model.mean())},
        },
        {"accuracy": interval(correct.astype(np.float64)[:, None])},
        {"view": view, "classifier": classifier, "n_train": len(train), "n_test": len(test), "seed": seed},
    )
