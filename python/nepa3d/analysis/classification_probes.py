"""Classification of frozen features: what nearest neighbours and linear classifiers make of a model as it is.

Train and test shapes are embedded once a seed. Each probe's one setting is chosen on a validation part of the train
split that shares no object with the rest; with it the probe is fitted to all of train and tested once. Beside it stand
the same probes on the plain distances, with no model, and on an untrained model of the same sizes.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from tabulate import tabulate

from nepa3d import cli
from nepa3d.analysis import retrieval_ucpr as ucpr
from nepa3d.analysis.outcome import conclude
from nepa3d.corpora.objects import objects_of
from nepa3d.corpora.shape_list import list_shapes
from nepa3d.corpora.splits import class_of
from nepa3d.execution.progress_bar import progress_bar
from nepa3d.models.checkpoint import fresh_model, load_checkpoint
from nepa3d.models.embedding import Pooling, Precision, Probe, Representation, open_probe, sample_length
from nepa3d.probes import ranking
from nepa3d.probes.classifiers import MISSING, SETTINGS, Answer, Examples, answer
from nepa3d.probes.intervals import Array, cell, interval
from nepa3d.probes.scores import score
from nepa3d.samples.labelled import GroupBy, Sets, short_classes, shortage, split_sets
from nepa3d.shapes.views import require_backend

Labels = NDArray[np.int64]
FIGURES = ("accuracy", "balanced_accuracy")
MODEL, UNTRAINED, PLAIN, MAJORITY = "model", "random_init", "raw_distances", "majority"
TITLES = {
    MODEL: "model",
    UNTRAINED: "untrained model",
    PLAIN: "plain distances, no model",
    MAJORITY: "commonest class of train",
}


@dataclass(frozen=True, kw_only=True)
class Config:
    """Probe the frozen features of a checkpoint for classes: accuracy beside chance, plain distances and no training.

    Example: nepa3d probe-cls --cache_root data/scanobjectnn_main_split_v2 --ckpt runs/nepa_qa/last.pt --n_seeds 3
    --out_json results/probe_cls_nepa_qa.json
    """

    cache_root: str
    """Cache with the splits train and test, a folder a class; its spelling is part of the draws."""
    ckpt: str
    """Checkpoint to probe."""
    backend: str = "pointcloud_noray"
    """View of the shapes."""
    n_point: int = -1
    """Point tokens a sample; -1: as trained."""
    n_ray: int = -1
    """Ray tokens a sample; -1: as trained."""
    add_eos: Literal[-1, 0, 1] = -1
    """Closing token; -1: as trained."""
    qa_tokens: Literal[-1, 0, 1] = -1
    """Question/answer form; -1: as trained."""
    pooling: Pooling = "eos"
    """Features: the last token; the mean of answers, of questions, of the answers as predicted, or of all tokens."""
    representation: Representation = "h"
    """Backbone state h or predicted embedding z_hat."""
    mc_k: int = 1
    """Draws averaged into each feature vector."""
    val_ratio: float = 0.1
    """Part of each class of the train split that chooses the probes' settings."""
    val_seed: int = 0
    """Which objects those are."""
    group_by: GroupBy = "object"
    """Files of one object stay on one side of that division, and are resampled together; or each file is on its own."""
    fewshot_k: int = 0
    """Training shapes a class; 0: all."""
    fewshot_seed: int = 0
    """Which shapes those are; counted up with seed."""
    seed: int = 0
    """Draws of the samples, and weights of the untrained model."""
    n_seeds: int = 1
    """Number of seeds, counted up from seed; figures are means over them."""
    random_init: Literal[0, 1] = 1
    """Probe an untrained model of the same sizes, too."""
    voxel_grid: int = 64
    """Cells a side of the voxel backend."""
    voxel_dilate: int = 1
    """Dilation rounds of the voxel backend."""
    voxel_max_steps: int = 0
    """Steps a ray may take in the voxel backend; 0: 3 * voxel_grid."""
    batch: int = 256
    """Sequences a forward pass."""
    num_workers: int = 2
    """Threads that read shapes ahead of their use; 0: none."""
    device: str = "auto"
    """auto (a GPU where there is one), cpu, or cuda."""
    precision: Precision = "float32"
    """Of the model's products; bf16 is faster on a GPU and moves figures a little."""
    out_json: str = ""
    """Where to write the figures and settings; empty: nowhere."""

    def __post_init__(self) -> None:
        for name in ("mc_k", "n_seeds", "batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("n_point", "n_ray"):
            if getattr(self, name) < -1:
                raise ValueError(f"{name} must be at least 0, or -1 (as trained), got {getattr(self, name)}")
        for name in ("num_workers", "fewshot_k", "seed", "val_seed", "fewshot_seed"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")
        if not 0 < self.val_ratio < 1:
            raise ValueError(f"val_ratio must lie in (0, 1), got {self.val_ratio}")
        require_backend(self.backend, "backend")

    def embedding(self) -> ucpr.Config:
        """The same settings as retrieval has them."""
        names = ("cache_root", "ckpt", "n_point", "n_ray", "add_eos", "qa_tokens", "pooling", "representation", "mc_k")
        more = ("voxel_grid", "voxel_dilate", "voxel_max_steps", "num_workers", "device", "precision")
        given = {name: getattr(self, name) for name in (*names, *more)}
        return ucpr.Config(query_backend=self.backend, gallery_backend=self.backend, chunk=self.batch, **given)


@dataclass(frozen=True)
class Seeded:
    """One seed's outcome: the readable sets, the answers by features and probe, and how spread the features are."""

    sets: Sets
    answers: dict[str, dict[str, Answer]]
    spread: float


@dataclass(frozen=True)
class HeldOut:
    """The test set: labels and objects (n,) of its paths, and the classes' names."""

    paths: list[str]
    labels: Labels
    objects: Labels
    classes: list[str]


def probe_classes(config: Config) -> dict[str, Any]:
    """Embed, choose, fit and test: figures, settings, and what names the protocol. Bad input is ``ValueError``.

    With several seeds an item's value is the mean over them, and the intervals resample test objects. A shape that
    cannot be read under one of them is left out under all.
    """
    if not find_spec("sklearn"):
        raise ValueError(MISSING)
    probe = open_probe(ucpr.probe_request(config.embedding()))
    probe.require_length(sample_length(probe), "n_point, n_ray, qa_tokens and add_eos")
    failed: dict[str, str] = {}

    def every_seed() -> list[Seeded]:
        return [
            _seed(replace(config, seed=config.seed + i, fewshot_seed=config.fewshot_seed + i), probe, failed)
            for i in range(config.n_seeds)
        ]

    found = every_seed()
    if any(one.sets.test != found[-1].sets.test for one in found):
        found = every_seed()  # a shape failed under a later one
    sets = found[0].sets
    objects = objects_of(config.cache_root, "test", sets.test) if config.group_by == "object" else sets.test
    numbers = np.unique(objects, return_inverse=True)[1]
    held_out = HeldOut(sets.test, sets.labels(sets.test), numbers, sets.classes)
    majority, says = _majority(config, held_out)
    answers = {name: {kind: [s.answers[name][kind] for s in found] for kind in SETTINGS} for name in found[0].answers}
    rows = {name: {kind: _figures(of, held_out) for kind, of in kinds.items()} for name, kinds in answers.items()}
    right = {name: {kind: _right(of, held_out) for kind, of in kinds.items()} for name, kinds in answers.items()}
    own, others = right[MODEL], {name: kinds for name, kinds in right.items() if name != MODEL}
    beside = others | {MAJORITY: dict.fromkeys(SETTINGS, says)}
    result = {
        "probe": "classification",
        **_settings_report(config, probe),
        **_protocol_report(config, sets, held_out),
        **rows[MODEL],
        UNTRAINED: rows.get(UNTRAINED),
        PLAIN: rows[PLAIN],
        MAJORITY: majority,
        "chance": dict.fromkeys(FIGURES, 1 / len(sets.classes)),
        "above": {
            name: {kind: _difference(own[kind] - values, held_out) for kind, values in kinds.items()}
            for name, kinds in beside.items()
        },
        "spread": float(np.mean([seed.spread for seed in found])),
        "items": {"path": held_out.paths, "label": held_out.labels.tolist(), "object": held_out.objects.tolist()}
        | _lists(own)
        | {name: _lists(kinds) for name, kinds in others.items()},
        "failed": [{"path": path, "reason": reason} for path, reason in failed.items()],
    }
    result["alarms"] = _alarms(result)
    return result


def _seed(config: Config, probe: Probe, failed: dict[str, str]) -> Seeded:
    """Everything of one seed; unreadable shapes are noted in ``failed``."""
    shots = (config.fewshot_k, config.fewshot_seed)
    sets = split_sets(config.cache_root, config.val_ratio, config.val_seed, *shots, config.group_by)
    if len(sets.classes) < 2:
        raise ValueError(f"cache_root: expected at least two classes below {config.cache_root}, got {sets.classes[0]}")
    paths = [*sets.train, *sets.validation, *sets.test]
    place = {path: row for row, path in enumerate(paths)}
    features = _features(config, probe, paths, failed)
    sets = _readable(sets, failed)
    features[PLAIN] -= features[PLAIN][[place[path] for path in sets.train]].mean(0)
    answers: dict[str, dict[str, Answer]] = {}
    with progress_bar(total=len(features) * len(SETTINGS), desc="fit probes", unit="probe") as progress:
        for name, vectors in features.items():
            fit, validation, test = (
                Examples(vectors[[place[path] for path in part]], sets.labels(part))
                for part in (sets.train, sets.validation, sets.test)
            )
            train = fit if config.fewshot_k else fit.joined(validation)
            answers[name] = {}
            for kind in SETTINGS:
                answers[name][kind] = answer(kind, fit, validation, train, test.vectors)
                progress.update()
    return Seeded(sets, answers, ranking.spread(features[MODEL][[place[path] for path in sets.train]]))


def _features(config: Config, probe: Probe, paths: list[str], failed: dict[str, str]) -> dict[str, Array]:
    """Vectors (N, D) of ``paths`` by the model, an untrained one, and as plain distances; rows of ``failed`` mean
    nothing."""
    settings = config.embedding()
    view = ucpr.View(config.backend, ucpr.sample_settings(settings, probe), config.seed)
    features = {}
    features[MODEL], plain = ucpr.embed(settings, probe, paths, view, failed)
    if config.random_init:
        features[UNTRAINED], _ = ucpr.embed(settings, untrained(probe, config.seed), paths, view, failed)
    return features | {PLAIN: plain}


def untrained(probe: Probe, seed: int) -> Probe:
    """The probe with new weights of the same sizes, a function of ``seed``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = fresh_model(load_checkpoint(probe.ckpt))
    return replace(probe, model=model.to(probe.device).eval())


def _readable(sets: Sets, failed: dict[str, str]) -> Sets:
    """The sets without what failed; ``ValueError`` naming a set that is then empty."""
    parts = {}
    for name in ("train", "validation", "test"):
        every = getattr(sets, name)
        parts[name] = [path for path in every if path not in failed]
        if not parts[name]:
            why = f"none of {len(every)} shapes could be read; first: {failed[every[0]]}" if every else "it is empty"
            raise ValueError(f"cache_root: expected shapes in the {name} set, {why}")
    return replace(sets, **parts)


def _figures(answers: Sequence[Answer], held_out: HeldOut) -> dict[str, Any]:
    """Accuracies over all seeds and each, their intervals over objects, and the settings that gave them."""
    every = score(
        np.concatenate([a.predictions for a in answers]), np.tile(held_out.labels, len(answers)), held_out.classes
    )
    by_seed = []
    for found in answers:
        scores = score(found.predictions, held_out.labels, held_out.classes)
        chosen = {"setting": found.setting, "converged": found.converged, "tried": [asdict(t) for t in found.tried]}
        by_seed.append({**{name: getattr(scores, name) for name in FIGURES}, **chosen})
    return {
        **{name: getattr(every, name) for name in FIGURES},
        "interval": _intervals(_right(answers, held_out), held_out),
        "deviation": {name: float(np.std([seed[name] for seed in by_seed])) for name in FIGURES},
        "by_seed": by_seed,
        "collapsed_to": every.collapsed_to,
    }


def _right(answers: Sequence[Answer], held_out: HeldOut) -> Array:
    """The part of the seeds (n,) in which each test shape's label was found."""
    return np.mean([found.predictions == held_out.labels for found in answers], axis=0)


def _intervals(right: Array, held_out: HeldOut) -> dict[str, tuple[float, float]]:
    """Intervals of both accuracies over resamples of test objects."""
    count = len(held_out.classes)
    place = held_out.objects * count + held_out.labels
    sums = [np.bincount(place, values, (held_out.objects.max() + 1) * count) for values in (right, np.ones_like(right))]
    rows = np.concatenate([found.reshape(-1, count) for found in sums], axis=1)

    def accuracy(means: Array) -> Array:
        hits, shapes = np.split(means, 2, axis=1)
        return np.asarray(hits.sum(1) / shapes.sum(1))

    def balanced(means: Array) -> Array:
        hits, shapes = np.split(means, 2, axis=1)
        recall = np.divide(hits, shapes, out=np.zeros_like(hits), where=shapes > 0)
        return np.asarray(recall.sum(1) / (shapes > 0).sum(1))

    return {name: interval(rows, figure) for name, figure in zip(FIGURES, (accuracy, balanced), strict=True)}


def _difference(difference: Array, held_out: HeldOut) -> dict[str, float]:
    """How many more test shapes (part of all) the model gets right than what it is beside, with an interval."""
    sums = [np.bincount(held_out.objects, values) for values in (difference, np.ones_like(difference))]
    low, high = interval(np.stack(sums, axis=1), lambda means: means[:, 0] / means[:, 1])
    return {"difference": float(difference.mean()), "low": low, "high": high}


def _majority(config: Config, held_out: HeldOut) -> tuple[dict[str, Any], Array]:
    """What always saying the commonest class of the train split scores, and where it is right (n,)."""
    counts = Counter(map(class_of, list_shapes(config.cache_root, "train")))
    name = max(sorted(counts), key=lambda name: counts[name])
    said = np.full(len(held_out.labels), held_out.classes.index(name))
    scores = score(said, held_out.labels, held_out.classes)
    right = (said == held_out.labels).astype(np.float64)
    return {"class": name, **{figure: getattr(scores, figure) for figure in FIGURES}}, right


def _lists(kinds: dict[str, Array]) -> dict[str, list[float]]:
    return {kind: values.tolist() for kind, values in kinds.items()}


def _settings_report(config: Config, probe: Probe) -> dict[str, Any]:
    taken = ("cache_root", "ckpt", "backend", "pooling", "representation", "mc_k", "val_ratio", "val_seed", "group_by")
    more = ("fewshot_k", "fewshot_seed", "seed", "n_seeds", "precision")
    voxel = ("voxel_grid", "voxel_dilate", "voxel_max_steps")
    return {
        **{name: getattr(config, name) for name in (*taken, *more, *voxel)},
        "n_point": probe.n_point,
        "n_ray": probe.n_ray,
        "add_eos": probe.eos,
        "qa_tokens": probe.qa,
    }


def _protocol_report(config: Config, sets: Sets, held_out: HeldOut) -> dict[str, Any]:
    """Sizes of the sets of the first seed, and whether test objects stood in train."""
    seen = [*sets.train, *sets.validation]
    train, test = (set(objects_of(config.cache_root, *part)) for part in (("train", seen), ("test", held_out.paths)))
    return {
        "classes": held_out.classes,
        "refit_on": "the shots" if config.fewshot_k else "train and validation",
        "n_train": len(sets.train),
        "fewshot_short": short_classes(sets.train, config.fewshot_k),
        "n_validation": len(sets.validation),
        "n_test": len(held_out.paths),
        "n_train_objects": len(train),
        "n_test_objects": len(test),
        "n_objects_in_both": len(train & test),
    }


def _alarms(result: dict[str, Any]) -> list[str]:
    """What makes the figures mean little."""
    alarms = []
    if result["spread"] <= ranking.TIE_DISTANCE:
        alarms.append(f"collapsed features: all shapes are embedded alike (spread {result['spread']:.1e})")
    if result["n_objects_in_both"]:
        alarms.append(f"{result['n_objects_in_both']} of {result['n_test_objects']} test objects are in train, too")
    if result["fewshot_short"]:
        alarms.append(shortage(result["fewshot_k"], result["fewshot_short"]))
    for kind in SETTINGS:
        if result[kind]["collapsed_to"]:
            alarms.append(f"{kind}: nearly all predictions are {result[kind]['collapsed_to']}")
        failed = sum(not seed["converged"] for seed in result[kind]["by_seed"])
        if failed:
            alarms.append(f"{kind}: the solver did not converge in {failed} of {result['n_seeds']} seeds")
    for name, by_kind in result["above"].items():
        no_better = [
            f"{kind} {found['difference']:+.4f} ({cell((found['low'], found['high']))})"
            for kind, found in by_kind.items()
            if found["low"] <= 0
        ]
        if no_better:
            alarms.append(f"not surely better than the {TITLES[name]}: {', '.join(no_better)}")
    return alarms


def command(config: Config) -> int:
    """Probe, print the table, write the JSON; the exit status says whether any shape failed."""
    result = probe_classes(config)
    for alarm in result["alarms"]:
        print(f"warning: {alarm}", file=sys.stderr)
    for failure in result["failed"]:
        print(f"failed: {failure['path']}: {failure['reason']}", file=sys.stderr)
    return conclude(result, _table(result), config.out_json)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m nepa3d.analysis.classification_probes``."""
    return cli.run(Config, command, argv, output="out_json")


def _table(result: dict[str, Any]) -> str:
    several = result["n_seeds"] > 1
    rows = []
    for name in (MODEL, UNTRAINED, PLAIN):
        kinds = result if name == MODEL else result[name]
        for kind in SETTINGS if kinds else ():
            found = kinds[kind]
            accuracies = [cell(found["accuracy"]), cell(tuple(found["interval"]["accuracy"]))]
            seeds = [cell(found["deviation"]["accuracy"])] if several else []
            balanced = [cell(found["balanced_accuracy"]), cell(tuple(found["interval"]["balanced_accuracy"]))]
            settings = ", ".join(f"{seed['setting']:g}" for seed in found["by_seed"])
            rows.append([f"{TITLES[name]}, {kind}", *accuracies, *seeds, *balanced, settings])
    for title, found in ((TITLES[MAJORITY], result[MAJORITY]), ("chance", result["chance"])):
        blank = [""] * (1 + several)
        rows.append([title, cell(found["accuracy"]), *blank, cell(found["balanced_accuracy"]), "", ""])
    objects = f"{result['n_test']} test shapes of {result['n_test_objects']} objects, {len(result['classes'])} classes"
    deviation = ["over seeds"] if several else []
    over = f"95 % over {result['group_by']}s"
    heads = ["", "accuracy", over, *deviation, "balanced", over, "k or C"]
    align = ("left", *(len(heads) - 2) * ("right",), "left")
    table = tabulate(rows, heads, colalign=align, disable_numparse=True)
    return f"{objects}, {result['backend']}\n{table}\nspread of the features (0: all alike): {result['spread']:.4f}"


if __name__ == "__main__":
    raise SystemExit(main())
