"""A fine-tuned model as a library calls it: probabilities of the classes of shapes. Letters: N shapes, C classes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nepa3d.execution.checks import require_at_least
from nepa3d.execution.progress_bar import progress_bar
from nepa3d.models.checkpoint import Checkpoint, fresh_model, read_tensors
from nepa3d.models.classifier import Classifier
from nepa3d.models.embedding import pick_device
from nepa3d.models.encoder import ShapeLike, as_shape, draw_samples, is_cache, listed_shapes, shape_name, voxel_of
from nepa3d.samples.dataset import SampleSettings
from nepa3d.shapes.cache import CacheError
from nepa3d.shapes.views import require_backend

_BACKBONE = "backbone."  # before the names of the pretrained model's weights


@dataclass(frozen=True)
class EvaluationSettings:
    """How the shapes of a fine-tuning's test split were seen."""

    view: str
    draws: int
    seed: int


def load_classifier(source: str | os.PathLike[str], *, device: str = "auto") -> TrainedClassifier:
    """The classifier of a finished ``nepa3d finetune``: its folder, or the ``last.pt`` in it.

    ``device`` "auto" is a GPU where there is one. Raises ``ValueError`` naming the file and the fault; no code in a
    file is run.
    """
    path = Path(source)
    file = path / "last.pt" if path.is_dir() else path
    if not file.is_file():
        raise ValueError(f"{path}: expected the folder of a finished nepa3d finetune, or its last.pt; there is none")
    on = pick_device(device)
    content = read_tensors(file, on)
    kinds = {"model": dict, "args": dict, "classes": list, "backbone": dict}
    if (
        not isinstance(content, dict)
        or not isinstance(content.get("model"), dict)
        or "head.weight" not in content["model"]
    ):
        raise ValueError(f"{file}: is not a classifier that nepa3d finetune made")
    for name, kind in kinds.items():
        if not isinstance(content.get(name), kind):
            raise ValueError(
                f"{file}: lacks {name}: give the last.pt of a finished run; one of a former version must be made again"
            )
    return TrainedClassifier(
        _classifier(content, file).to(on).eval(), content["classes"], content["args"], f"{file}", on
    )


class TrainedClassifier:
    """A fine-tuned model. ``load_classifier`` makes one.

    ```python
    classifier = nepa3d.load_classifier("runs/scan_nepa_k0_s0")
    p = classifier.probabilities(["scan.ply", "chair.obj"])  # (2, C)
    classifier.classes[p[0].argmax()]
    ```
    """

    def __init__(
        self, model: Classifier, classes: Sequence[str], args: Mapping[str, Any], path: str, device: str
    ) -> None:
        self.model, self.path, self.device = model, path, device
        self.classes = [*classes]
        """Names of the C classes, in the order of the probabilities."""
        self.args = args
        """The flags of the fine-tuning."""
        self.settings = SampleSettings(
            int(args["n_point"]),
            int(args["n_ray"]),
            qa=bool(args["qa_tokens"]),
            eos=bool(args["add_eos"]),
            force_missing_ray=bool(args.get("force_missing_ray", False)),
            voxel=voxel_of(args),
        )
        """How shapes become sequences."""
        draws = int(args.get("mc_eval_k_test", -1))
        self.tested = EvaluationSettings(
            args.get("eval_backend") or args["backend"],
            int(args.get("mc_eval_k", 1)) if draws < 1 else draws,
            int(args.get("eval_seed", 0)),
        )
        """How the test split was seen."""

    def probabilities(
        self,
        shapes: ShapeLike | Iterable[ShapeLike],
        view: str = "",
        *,
        draws: int | None = None,
        seed: int | None = None,
        batch: int = 64,
        progress: bool = False,
    ) -> NDArray[np.float64]:
        """Probabilities (N, C) of the classes of shapes as ``view`` sees them: the softmax of logits, of which the mean
        over ``draws`` samples of a shape's queries is taken. They are not calibrated.

        A shape is a ``Shape``, a cache file (``.npz``), or a file of a mesh or a point cloud. View, draws and seed are
        by default those of the test of the fine-tuning, so that a cached shape of the test split is classified as it
        was there. Raises ``ValueError`` naming a shape that cannot be used.
        """
        view = require_backend(view or self.tested.view, "view")
        draws = self.tested.draws if draws is None else draws
        seed = self.tested.seed if seed is None else seed
        require_at_least(1, draws=draws, batch=batch)
        wanted = listed_shapes(shapes)
        logits = np.zeros((len(wanted), len(self.classes)))
        with progress_bar(total=len(wanted) * draws, desc="classify", unit="sample", disable=not progress) as bar:
            for begin in range(0, len(wanted), batch):
                some = [shape if is_cache(shape) else as_shape(shape) for shape in wanted[begin : begin + batch]]
                for draw in range(draws):
                    logits[begin : begin + len(some)] += self._logits(some, view, seed, draw)
                    bar.update(len(some))
        return torch.from_numpy(logits / draws).softmax(1).numpy()

    @torch.no_grad()
    def _logits(self, shapes: Sequence[ShapeLike], view: str, seed: int, draw: int) -> NDArray[np.float64]:
        features, types, faults = draw_samples(shapes, view, self.settings, seed, draw, threads=os.cpu_count() or 1)
        for row, fault in faults:
            raise CacheError(shape_name(shapes[row]), fault)
        given = torch.from_numpy(features).to(self.device), torch.from_numpy(types).to(self.device)
        found: NDArray[np.float64] = self.model(*given).double().cpu().numpy()
        return found


def _classifier(content: dict[str, Any], file: Path) -> Classifier:
    """The model of a file's content, in which the weights are. ``ValueError`` where they do not fit."""
    weights, args, classes = content["model"], content["args"], content["classes"]
    own = {name.removeprefix(_BACKBONE): value for name, value in weights.items() if name.startswith(_BACKBONE)}
    backbone = fresh_model(Checkpoint(own, {}, None, content["backbone"], 0, 0, path=f"{file}"))
    model = Classifier(
        backbone, len(classes), readout=args.get("readout", "eos"), standardize=bool(args.get("standardize", 0))
    )
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(f"{file}: does not fit its own settings: {' '.join(f'{error}'.split())}") from error
    return model
