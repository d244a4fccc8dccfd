"""The command that classifies shapes with a fine-tuned model, see ``nepa3d.models.trained_classifier``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro
from numpy.typing import NDArray
from tabulate import tabulate

from nepa3d import cli
from nepa3d.cli.spellings import OptionalCount
from nepa3d.corpora.shape_list import list_shapes
from nepa3d.execution.files import write_json
from nepa3d.inference.batches import Refused, used
from nepa3d.inference.shape_files import ReadShape, read_shape, shape_files
from nepa3d.inference.shapes_picture import MARKED, Named, draw_shapes
from nepa3d.models.trained_classifier import TrainedClassifier, load_classifier
from nepa3d.probes.scores import Scores, score
from nepa3d.report import panels
from nepa3d.shapes.views import require_backend

SHOWN = 40  # rows of the table
DRAWN = 20  # shapes of the picture


@dataclass(frozen=True)
class Config:
    """Classify scans, meshes or cached shapes with a model that nepa3d finetune made.

    Probabilities are the softmax of the mean logits of several draws of a shape's queries; they are not calibrated.
    Files that cannot be read are listed; the exit status is then 3. Where shapes lie in folders named as the classes,
    the accuracy is printed, too.

    Example: nepa3d classify scans/ --ckpt runs/scan_nepa_k0_s0 --out_json classes.json --picture classes.png
    """

    shapes: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Files of clouds (PLY, NPZ, NPY, XYZ and other text), meshes or cached shapes, or one folder of them; with --split
    the root of a cache."""
    ckpt: str
    """Folder of a finished nepa3d finetune, or its last.pt."""
    split: str = ""
    """Classify the cache files of this split instead."""
    view: str = ""
    """View of the shapes that the model is told; left out: that of the test of the fine-tuning, for clouds
    pointcloud_noray."""
    draws: OptionalCount = None
    """Draws of a shape's queries whose logits are averaged; -1: as in the test of the fine-tuning."""
    seed: OptionalCount = None
    """Seed of the draws, which also depend on the file's name; -1: as in the test of the fine-tuning."""
    device: str = "auto"
    """auto (a GPU if there is one), cpu or cuda."""
    batch: int = 64
    """Shapes that are read, and classified, together."""
    workers: int = 2
    """Threads that read shapes."""
    out_json: str = ""
    """File to write classes and probabilities to, as JSON."""
    picture: str = ""
    """PNG file to draw up to 20 of the shapes into, taken at even steps, under their classes."""
    up: Literal["x", "y", "z"] = "y"
    """Axis of the shapes that points up; they are turned so that it is y, as models expect it."""

    def __post_init__(self) -> None:
        if self.view:
            require_backend(self.view, "view")
        if not self.shapes:
            raise ValueError("shapes must be files or a folder, got none")
        if self.split and len(self.shapes) != 1:
            raise ValueError(f"shapes must be the root of a cache where split is given, got {len(self.shapes)} paths")
        for name, least in (("draws", 1), ("batch", 1), ("workers", 1), ("seed", 0)):
            given = getattr(self, name)
            if given is not None and given < least:
                raise ValueError(f"{name} must be at least {least}, got {given}")


@dataclass(frozen=True)
class Classified:
    """N shapes with the probabilities of their C classes, and the files that could not be used."""

    files: list[Path]
    labels: list[str]
    """The class that the folder of each names; "" if none of the classifier's."""
    probabilities: NDArray[np.float64]
    """(N, C)."""
    failed: dict[str, str]
    """Reasons by file."""
    suspicious: dict[str, str]
    """Why a shape may be wrong, by file."""

    def scores(self, classes: Sequence[str]) -> Scores | None:
        """The figures of the shapes whose class is known; None where it is of none."""
        known = [row for row, label in enumerate(self.labels) if label]
        if not known:
            return None
        number = {name: place for place, name in enumerate(classes)}
        labels = np.array([number[self.labels[row]] for row in known], np.int64)
        return score(self.probabilities[known].argmax(1), labels, classes)


def classify(config: Config, classifier: TrainedClassifier) -> Classified:
    """Classify every shape that can be used. ``ValueError`` if none can."""
    listed, settings = found_files(config, classifier.classes), classifier.settings
    view = config.view or classifier.tested.view
    files, labels, rows = list[Path](), list[str](), list[NDArray[np.float64]]()
    failed, suspicious = dict[str, str](), dict[str, str]()

    def read(one: tuple[Path, str]) -> ReadShape | Refused:
        path, _ = one
        try:
            return read_shape(path, view, f"{path}", n_point=settings.n_point, n_ray=settings.n_ray, up=config.up)
        except (ValueError, OSError, MemoryError) as error:
            return Refused(f"{error}".removeprefix(f"{path}: ") or "memory ran out")

    def probabilities(shapes: Sequence[ReadShape]) -> NDArray[np.float64]:
        found = np.empty((len(shapes), len(classifier.classes)))
        for own in sorted({one.view for one in shapes}):
            places = [place for place, one in enumerate(shapes) if one.view == own]
            some = [shapes[place].shape for place in places]
            found[places] = classifier.probabilities(some, own, draws=config.draws, seed=config.seed)
        return found

    through = used(listed, read, probabilities, workers=config.workers, batch=config.batch, task="classify")
    for (path, label), one, row in through:
        if isinstance(row, Refused):
            failed[f"{path}"] = row.reason
            continue
        files.append(path)
        labels.append(label)
        rows.append(row)
        if one.shape.doubt:
            suspicious[f"{path}"] = one.shape.doubt
    if not files:
        first, reason = next(iter(failed.items()))
        raise ValueError(f"shapes: none of {len(failed)} files could be used, the first: {first}: {reason}")
    return Classified(files, labels, np.stack(rows), failed, suspicious)


def found_files(config: Config, classes: Sequence[str]) -> list[tuple[Path, str]]:
    """The files, and which of the classes the folder of each is named as. ``ValueError`` naming what is no file."""
    if config.split:
        cached = [Path(file) for file in list_shapes(config.shapes[0], config.split)]
        return [(file, file.parent.name if file.parent.name in classes else "") for file in cached]
    if len(config.shapes) == 1 and config.shapes[0].is_dir():
        root = config.shapes[0]
        return [(root / file.path, file.class_name if file.class_name in classes else "") for file in shape_files(root)]
    for path in config.shapes:
        if not path.is_file():
            raise ValueError(f"shapes: expected files of shapes, or one folder of them, got {path}")
    return [(path, "") for path in config.shapes]


def table(found: Classified, classes: Sequence[str]) -> str:
    """The first shapes with their class and the next likely one."""
    known = any(found.labels)
    heads = ["file", *(["label"] if known else []), "class", "probability", "next", "probability"]
    rows = []
    for file, label, row in zip(found.files[:SHOWN], found.labels, found.probabilities, strict=False):
        likely = np.argsort(-row, kind="stable")[:2]
        told = [text for place in likely for text in (classes[place], f"{row[place]:.2f}")]
        rows.append([f"{file}", *([label] if known else []), *told])
    shown = tabulate(rows, heads, disable_numparse=True)
    more = len(found.files) - len(rows)
    return f"{shown}\nand {more} more" if more else shown


def to_json(config: Config, classifier: TrainedClassifier, found: Classified, scores: Scores | None) -> dict[str, Any]:
    """Every shape with its probabilities, what it was classified with, and the figures."""
    tested, classes = classifier.tested, classifier.classes
    figures = None if scores is None else {**asdict(scores), "confusion": scores.confusion.tolist()}
    return {
        "ckpt": classifier.path,
        "view": config.view or tested.view,
        "draws": tested.draws if config.draws is None else config.draws,
        "seed": tested.seed if config.seed is None else config.seed,
        "classes": classes,
        "shapes": [
            {"file": f"{file}", "label": label, "class": classes[row.argmax()], "probabilities": row.tolist()}
            for file, label, row in zip(found.files, found.labels, found.probabilities, strict=True)
        ],
        "scores": figures,
        "failed": found.failed,
        "suspicious": found.suspicious,
    }


def draw(config: Config, found: Classified, classes: Sequence[str]) -> None:
    """The picture: names of wrong classes are marked."""
    named = []
    count = len(found.files)
    for place in np.linspace(0, count - 1, min(DRAWN, count)).astype(int):
        file, label, row = found.files[place], found.labels[place], found.probabilities[place]
        name, wrong = classes[row.argmax()], label and label != classes[row.argmax()]
        detail = f"not {label}: {file.stem}" if wrong else file.stem
        named.append(Named(file, f"{name} {row.max():.2f}", detail, MARKED if wrong else panels.INK, config.up))
    draw_shapes(config.picture, named)


def command(config: Config) -> int:
    """Classify, print the table and the figures, write what was asked for; 3 if a file could not be used, else 0."""
    if config.picture and find_spec("matplotlib") is None:
        raise ValueError("picture: matplotlib is not installed: pip install 'nepa3d[search]'")
    classifier = load_classifier(config.ckpt, device=config.device)
    found = classify(config, classifier)
    print(table(found, classifier.classes))
    scores = found.scores(classifier.classes)
    if scores is not None:
        print(
            f"accuracy {scores.accuracy:.4f}, balanced {scores.balanced_accuracy:.4f}, always the commonest class "
            f"{scores.majority:.4f} ({scores.confusion.sum()} shapes of known class)"
        )
        if scores.alarm():
            print(f"alarm: {scores.alarm()}")
    for what, files in (("suspicious", found.suspicious), ("failed", found.failed)):
        for path, reason in files.items():
            print(f"{what}: {path}: {reason}", file=sys.stderr)
    if config.out_json:
        write_json(config.out_json, to_json(config, classifier, found, scores))
        print(f"wrote {config.out_json}")
    if config.picture:
        draw(config, found, classifier.classes)
        print(f"wrote {config.picture}")
    return cli.EXIT_SOME_FAILED if found.failed else cli.EXIT_OK


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(Config, command, argv)


if __name__ == "__main__":
    raise SystemExit(main())
