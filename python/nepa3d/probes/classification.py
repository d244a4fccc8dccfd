"""Classification of frozen features: what nearest neighbours and linear classifiers make of a model as it is.

Train and test shapes are embedded once a seed. Each classifier's one setting is chosen on a validation part of the
training shapes; with it the classifier is fitted to all of them and tested once. Beside it stand the same classifiers
on the plain distances, with no model, and on an untrained model of the same sizes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tabulate import tabulate

from nepa3d.corpora.objects import objects_of
from nepa3d.corpora.shape_list import list_shapes
from nepa3d.corpora.splits import class_of, stratified_validation
from nepa3d.execution.checks import require_at_least
from nepa3d.execution.progress_bar import progress_bar
from nepa3d.models.embedding import Probe, sample_length
from nepa3d.models.encoder import Encoder, ShapeLike, shape_name
from nepa3d.probes import ranking
from nepa3d.probes.classifiers import MISSING, SETTINGS, Answer, Examples, answer
from nepa3d.probes.embedding import EmbeddingSettings, View, embed, in_memory, require_read, require_several, untrained
from nepa3d.probes.held_out import FIGURES, HeldOut
from nepa3d.probes.intervals import Array, cell
from nepa3d.probes.judged import Compared, Judged, figure_text, outcome
from nepa3d.probes.kind import Named, ProbeKind, Section
from nepa3d.probes.labelled_shapes import Labelled, LabelledCache, Parts
from nepa3d.probes.result import Json, Result
from nepa3d.probes.tables import Table, interval_cell, once, unusual
from nepa3d.samples.labelled import Sets, short_classes, shortage
from nepa3d.shapes.view_table import require_backend

KINDS = tuple(SETTINGS)
MODEL, UNTRAINED, PLAIN, MAJORITY = "model", "random_init", "raw_distances", "majority"
TITLES = {
    MODEL: "model",
    UNTRAINED: "untrained model",
    PLAIN: "plain distances, no model",
    MAJORITY: "commonest class of train",
}
JUDGES = {PLAIN: "plain distances", UNTRAINED: "the untrained model", MAJORITY: "the commonest class"}
OF_UNTRAINED = ", untrained"


@dataclass(frozen=True)
class ClassificationSettings:
    """What is embedded, how often, and by which classifiers it is judged."""

    view: str = "pointcloud_noray"
    seed: int = 0
    """Of the draws, and of the weights of the untrained model."""
    n_seeds: int = 1
    """Number of seeds, counted up from ``seed``."""
    untrained: bool = True
    """Whether an untrained model of the same sizes is a control."""
    embedding: EmbeddingSettings = field(default_factory=EmbeddingSettings)

    def __post_init__(self) -> None:
        require_backend(self.view, "view")
        require_at_least(1, n_seeds=self.n_seeds)
        require_at_least(0, seed=self.seed)


@dataclass(frozen=True)
class Seeded:
    """One seed's outcome: the readable sets, the answers by features and classifier, and the features' spread."""

    parts: Parts
    answers: dict[str, dict[str, Answer]]
    spread: float


def run(
    encoder: Encoder,
    train: Sequence[ShapeLike],
    train_labels: Sequence[int] | NDArray[np.integer],
    test: Sequence[ShapeLike],
    test_labels: Sequence[int] | NDArray[np.integer],
    settings: ClassificationSettings | None = None,
    *,
    classifiers: Sequence[str] = ("logistic",),
    val_ratio: float = 0.2,
    progress: bool = False,
) -> Result:
    """Accuracies of classifiers ("knn", "logistic" or "svm"; the last two need scikit-learn) of frozen embeddings.

    A classifier's setting is chosen on ``val_ratio`` of each training class. Controls are the commonest class
    (``majority``), the same classifiers of the answered distances without a model (``raw_distances``) and, if the
    settings ask for it, those of an untrained model of the same sizes (``random_init``). Classes are the labels that
    there are, which may be any whole numbers.
    """
    settings = settings or ClassificationSettings(untrained=False)
    for kind in classifiers:
        if kind not in KINDS:
            raise ValueError(f"classifier must be one of {', '.join(KINDS)}, got {kind!r}")
    for name, given, of in (("train", train_labels, train), ("test", test_labels, test)):
        require_several(of, name)
        labels = np.asarray(given)
        if labels.shape != (len(of),) or len(of) == 0 or labels.dtype.kind not in "iu":
            raise ValueError(
                f"{name}_labels must be a whole number for each of the {len(of)} shapes, got {labels.shape} of "
                f"{labels.dtype}"
            )
    names_of, numbers = np.unique(np.concatenate([train_labels, test_labels]), return_inverse=True)
    known, asked = np.split(numbers, [len(train)])
    names = [f"{label}/{number}" for number, label in enumerate(known)]
    held = set(stratified_validation(names, val_ratio, settings.seed))
    inner = np.array([name not in held for name in names])
    if inner.all() or not inner.any():
        raise ValueError("train must have at least two shapes of some class, to hold one out")
    shapes = in_memory(train)
    fit, validation = (
        Labelled([shape for shape, taken in zip(shapes, part, strict=True) if taken], known[part])
        for part in (inner, ~inner)
    )
    parts = Parts(fit, validation, Labelled(in_memory(test), asked))
    failed: dict[str, str] = {}
    found = [
        measure(encoder.probe, parts, replace(settings, seed=seed), classifiers, failed, progress=progress)
        for seed in range(settings.seed, settings.seed + settings.n_seeds)
    ]
    require_read(failed)
    classes = [f"{label}" for label in names_of]
    held_out = HeldOut([shape_name(shape) for shape in parts.test.shapes], asked, np.arange(len(asked)), classes)
    sizes = {"n_train": len(train), "n_test": len(test), "val_ratio": val_ratio, "classes": classes}
    told = _settings(encoder.probe, settings) | sizes
    return _result(found, held_out, int(np.bincount(known).argmax()), told, failed)


def classify_cache(probe: Probe, cache: LabelledCache, settings: ClassificationSettings) -> Result:
    """Embed, choose, fit and test. Shapes that cannot be read are listed, other bad input is ``ValueError``.

    With several seeds an item's value is the mean over them, and the intervals resample test objects. A shape that
    cannot be read under one of them is left out under all.
    """
    require_scikit_learn()
    probe.require_length(sample_length(probe), "n_point, n_ray, qa_tokens and add_eos")
    failed: dict[str, str] = {}

    def every_seed() -> list[tuple[Sets, Seeded]]:
        found = []
        for number in range(settings.n_seeds):
            sets = cache.sets(number)
            train, validation, test = (
                Labelled(paths, sets.labels(paths)) for paths in (sets.train, sets.validation, sets.test)
            )
            parts = Parts(train, validation, test, refit=not cache.fewshot_k)
            one = replace(settings, seed=settings.seed + number)
            found.append((sets, measure(probe, parts, one, KINDS, failed)))
        return found

    found = every_seed()
    if failed and settings.n_seeds > 1:
        found = every_seed()  # without what failed under a later one
    sets, first = found[0]
    paths = first.parts.test.names
    objects = objects_of(cache.root, "test", paths) if cache.group_by == "object" else paths
    held_out = HeldOut(paths, first.parts.test.labels, np.unique(objects, return_inverse=True)[1], sets.classes)
    counts = Counter(map(class_of, list_shapes(cache.root, "train")))
    commonest = max(sorted(counts), key=lambda name: counts[name])
    told = _settings(probe, settings) | _cache_settings(cache, first.parts, held_out)
    result = _result([one for _, one in found], held_out, sets.classes.index(commonest), told, failed)
    return replace(result, alarms=_alarms(result))


def require_scikit_learn() -> None:
    """``ValueError`` that says what to install, if it is not there."""
    if not find_spec("sklearn"):
        raise ValueError(MISSING)


def measure(
    probe: Probe,
    parts: Parts,
    settings: ClassificationSettings,
    kinds: Sequence[str],
    failed: dict[str, str],
    *,
    progress: bool = True,
) -> Seeded:
    """Everything of one seed; unreadable shapes are noted in ``failed``."""
    shapes = [*parts.train.shapes, *parts.validation.shapes, *parts.test.shapes]
    view = View(settings.view, settings.seed)
    embedded = embed(probe, shapes, view, settings.embedding, failed, progress=progress)
    features = {MODEL: embedded.vectors}
    if settings.untrained:
        fresh = untrained(probe, settings.seed)
        features[UNTRAINED] = embed(fresh, shapes, view, settings.embedding, failed, progress=progress).vectors
    features[PLAIN] = embedded.plain
    by_name = {"train": parts.train, "validation": parts.validation, "test": parts.test}
    rows, begin = {}, 0
    for name, part in by_name.items():
        rows[name] = [begin + row for row, path in enumerate(part.names) if path not in failed]
        begin += len(part.shapes)
    train, validation, test = (part.without(failed, name) for name, part in by_name.items())
    readable = replace(parts, train=train, validation=validation, test=test)
    features[PLAIN] -= features[PLAIN][rows["train"]].mean(0)
    answers: dict[str, dict[str, Answer]] = {}
    count = len(features) * len(kinds)
    with progress_bar(total=count, desc="fit probes", unit="probe", disable=not progress) as bar:
        for name, vectors in features.items():
            fit = Examples(vectors[rows["train"]], train.labels)
            held = Examples(vectors[rows["validation"]], validation.labels)
            last = fit.joined(held) if parts.refit else fit
            answers[name] = {}
            for kind in kinds:
                answers[name][kind] = answer(kind, fit, held, last, vectors[rows["test"]])
                bar.update()
    return Seeded(readable, answers, ranking.spread(features[MODEL][rows["train"]]))


def _result(
    found: Sequence[Seeded], held_out: HeldOut, commonest: int, settings: Json, failed: dict[str, str]
) -> Result:
    """The figures over all seeds, beside those of the controls."""
    answers = {
        name: {kind: [one.answers[name][kind] for one in found] for kind in kinds}
        for name, kinds in found[0].answers.items()
    }
    rows = {name: {kind: held_out.figures(of) for kind, of in kinds.items()} for name, kinds in answers.items()}
    right = {name: {kind: held_out.right(of) for kind, of in kinds.items()} for name, kinds in answers.items()}
    own, others = right[MODEL], {name: kinds for name, kinds in right.items() if name != MODEL}
    majority, says = held_out.always(commonest)
    beside = others | {MAJORITY: dict.fromkeys(own, says)}
    return Result(
        probe="classification",
        figures={**rows[MODEL]},
        controls={
            UNTRAINED: rows.get(UNTRAINED),
            PLAIN: rows[PLAIN],
            MAJORITY: majority,
            "chance": dict.fromkeys(FIGURES, 1 / len(held_out.classes)),
        },
        settings=settings,
        diagnostics={
            "above": {
                name: {kind: held_out.difference(own[kind] - values) for kind, values in kinds.items()}
                for name, kinds in beside.items()
            },
            "spread": float(np.mean([seed.spread for seed in found])),
        },
        items={"path": held_out.paths, "label": held_out.labels.tolist(), "object": held_out.objects.tolist()}
        | _lists(own)
        | {name: _lists(kinds) for name, kinds in others.items()},
        failed=failed,
    )


def _lists(kinds: dict[str, Array]) -> dict[str, Any]:
    return {kind: values.tolist() for kind, values in kinds.items()}


def _settings(probe: Probe, settings: ClassificationSettings) -> Json:
    return {
        **settings.embedding.report(probe),
        "backend": settings.view,
        "seed": settings.seed,
        "n_seeds": settings.n_seeds,
    }


def _cache_settings(cache: LabelledCache, parts: Parts, held_out: HeldOut) -> Json:
    """How the cache was divided, the sizes of the sets of the first seed, and whether test objects stood in train."""
    seen = [*parts.train.names, *parts.validation.names]
    train, test = (set(objects_of(cache.root, *part)) for part in (("train", seen), ("test", held_out.paths)))
    return {
        "cache_root": cache.root,
        "val_ratio": cache.val_ratio,
        "val_seed": cache.val_seed,
        "group_by": cache.group_by,
        "fewshot_k": cache.fewshot_k,
        "fewshot_seed": cache.fewshot_seed,
        "classes": held_out.classes,
        "refit_on": "the shots" if cache.fewshot_k else "train and validation",
        "n_train": len(parts.train.shapes),
        "fewshot_short": short_classes(parts.train.names, cache.fewshot_k),
        "n_validation": len(parts.validation.shapes),
        "n_test": len(held_out.paths),
        "n_train_objects": len(train),
        "n_test_objects": len(test),
        "n_objects_in_both": len(train & test),
    }


def _alarms(result: Result) -> list[str]:
    """What makes the figures mean little."""
    alarms, settings = [], result.settings
    if result.diagnostics["spread"] <= ranking.TIE_DISTANCE:
        alarms.append(f"collapsed features: all shapes are embedded alike (spread {result.diagnostics['spread']:.1e})")
    if settings["n_objects_in_both"]:
        alarms.append(f"{settings['n_objects_in_both']} of {settings['n_test_objects']} test objects are in train, too")
    if settings["fewshot_short"]:
        alarms.append(shortage(settings["fewshot_k"], settings["fewshot_short"]))
    for kind, found in result.figures.items():
        if found["collapsed_to"]:
            alarms.append(f"{kind}: nearly all predictions are {found['collapsed_to']}")
        failed = sum(not seed["converged"] for seed in found["by_seed"])
        if failed:
            alarms.append(f"{kind}: the solver did not converge in {failed} of {settings['n_seeds']} seeds")
    for name, by_kind in result.diagnostics["above"].items():
        no_better = [
            f"{kind} {found['difference']:+.4f} ({cell((found['low'], found['high']))})"
            for kind, found in by_kind.items()
            if found["low"] <= 0
        ]
        if no_better:
            alarms.append(f"not surely better than the {TITLES[name]}: {', '.join(no_better)}")
    return alarms


def text(result: Result) -> str:
    """The result with its controls as a table for the terminal."""
    settings, several = result.settings, result.settings["n_seeds"] > 1
    rows = []
    for name, kinds in ((MODEL, result.figures), *((name, result.controls[name]) for name in (UNTRAINED, PLAIN))):
        for kind, found in (kinds or {}).items():
            accuracies = [cell(found["accuracy"]), cell(tuple(found["interval"]["accuracy"]))]
            seeds = [cell(found["deviation"]["accuracy"])] if several else []
            balanced = [cell(found["balanced_accuracy"]), cell(tuple(found["interval"]["balanced_accuracy"]))]
            chosen = ", ".join(f"{seed['setting']:g}" for seed in found["by_seed"])
            rows.append([f"{TITLES[name]}, {kind}", *accuracies, *seeds, *balanced, chosen])
    for title, control in ((TITLES[MAJORITY], result.controls[MAJORITY]), ("chance", result.controls["chance"])):
        blank = [""] * (1 + several)
        assert control is not None  # it needs no model
        rows.append([title, cell(control["accuracy"]), *blank, cell(control["balanced_accuracy"]), "", ""])
    n_test, group = settings["n_test"], settings.get("group_by", "file")
    of = f"{n_test} test shapes of {settings.get('n_test_objects', n_test)} objects"
    deviation = ["over seeds"] if several else []
    over = f"95 % over {group}s"
    heads = ["", "accuracy", over, *deviation, "balanced", over, "k or C"]
    align = ("left", *(len(heads) - 2) * ("right",), "left")
    table = tabulate(rows, heads, colalign=align, disable_numparse=True)
    spread = f"spread of the features (0: all alike): {result.diagnostics['spread']:.4f}"
    n_classes = len(settings["classes"])
    return f"{of}, {n_classes} classes, {settings['backend']}\n{table}\n{spread}"


def _report_table(results: Sequence[Named]) -> Table:
    """By accuracy and balanced accuracy, then what needs no model, or none trained."""
    heads = ("Model", "Features", *(f"{kind}, accuracy" for kind in KINDS), *(f"{kind}, balanced" for kind in KINDS))
    rows: list[list[str]] = []
    for _, r in results:
        few = r.settings.get("fewshot_k", 0)  # results of ``run`` do not say
        shots = f"{few} a class" if few else "all of train"
        where = ", ".join([r.settings["backend"], r.settings["pooling"], shots, *unusual(r, {"questions": "pool"})])
        beside = ((f"{r.model}{OF_UNTRAINED}", r.controls.get(UNTRAINED)), (TITLES[PLAIN], r.controls.get(PLAIN)))
        for who, kinds in ((r.model, r.figures), *((who, kinds) for who, kinds in beside if kinds)):
            alike = [
                f"{kind}: nearly all are {kinds[kind]['collapsed_to']}" for kind in KINDS if kinds[kind]["collapsed_to"]
            ]
            figures = [
                f"{cell(kinds[kind][name], 3)} ({interval_cell(kinds[kind].get('interval') or {}, name)})"
                for name in FIGURES
                for kind in KINDS
            ]
            rows.append([who, where, *figures, "; ".join(alike)])
        for who, name in (("the commonest class", MAJORITY), ("chance", "chance")):
            control = r.controls[name] or {}
            accuracy, balanced = (cell(control[figure], 3) for figure in FIGURES)
            rows.append([who, where, *[accuracy] * len(KINDS), *[balanced] * len(KINDS), ""])
    trained = {r.model for _, r in results}
    ordered = sorted(once(rows), key=lambda row: (row[0] not in trained, not row[0].endswith(OF_UNTRAINED)))
    return Table("Probes of frozen features", (*heads, "Notes"), ordered, first_figure=2)


def _judged(result: Result) -> list[Judged]:
    """By the accuracy of each classifier; its differences to the controls have paired intervals of their own."""
    return [_judged_kind(result, kind) for kind in KINDS]


def _judged_kind(result: Result, kind: str) -> Judged:
    compared, own = [], result.figures[kind]
    for control, title in JUDGES.items():
        known = result.controls.get(control)
        difference = ((result.diagnostics.get("above") or {}).get(control) or {}).get(kind)
        if not known:
            compared.append(Compared(title, None, "missing"))
            continue
        value = (known if control == MAJORITY else known[kind])["accuracy"]
        low = difference["low"] if difference else None
        compared.append(Compared(title, value, outcome(own["accuracy"] - value, low)))
    flaw = f"nearly all are {own['collapsed_to']}" if own.get("collapsed_to") else ""
    figure = f"accuracy {figure_text(own['accuracy'], (own.get('interval') or {}).get('accuracy'))}"
    return Judged(result.model, f"{result.settings['backend']}, {kind}", figure, tuple(compared), flaw)


CLASSIFICATION = ProbeKind(
    name="Frozen features",
    judged_as="Classes",
    recognises=lambda content: content.get("probe") == "classification" and {*KINDS} <= content.keys(),
    figures=KINDS,
    controls=(UNTRAINED, PLAIN, MAJORITY, "chance"),
    diagnostics=("above", "spread"),
    protocol=(
        *("n_seeds", "seed", "mc_k", "precision", "backend", "fewshot_k", "fewshot_seed", "val_ratio", "val_seed"),
        *("group_by", "questions"),
    ),
    item_figures=KINDS,
    table=_report_table,
    section=Section(
        "classification",
        "Classification",
        "Classes of scans: models fine-tuned on a few shapes a class, and simple classifiers on frozen embeddings.",
    ),
    report_table=_report_table,
    doubts=lambda result: result.alarms or [],
    judged=_judged,
)
