"""3D shape representations learned through one query interface.

``load`` opens a trained model as an ``Encoder``, ``load_classifier`` a fine-tuned one as a ``TrainedClassifier``,
``Shape`` is one shape in memory, ``ops`` are the compiled kernels. Importing the package loads none of them: torch is
loaded when a model is first asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from nepa3d._core import __version__

if TYPE_CHECKING:
    from nepa3d import ops
    from nepa3d.models.encoder import Encoder, load
    from nepa3d.models.trained_classifier import TrainedClassifier, load_classifier
    from nepa3d.shapes.shape import Shape

__all__ = ["Encoder", "Shape", "TrainedClassifier", "__version__", "load", "load_classifier", "ops"]

_HOMES = {
    "Encoder": "nepa3d.models.encoder",
    "Shape": "nepa3d.shapes.shape",
    "TrainedClassifier": "nepa3d.models.trained_classifier",
    "load": "nepa3d.models.encoder",
    "load_classifier": "nepa3d.models.trained_classifier",
}


def __getattr__(name: str) -> Any:
    if name == "ops":
        return importlib.import_module("nepa3d.ops")
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'nepa3d' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
