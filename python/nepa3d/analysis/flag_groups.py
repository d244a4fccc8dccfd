"""Groups of flags that the probes' commands share."""

from __future__ import annotations

from dataclasses import dataclass, replace

from nepa3d.cli.spellings import OptionalCount, OptionalSwitch, Switch
from nepa3d.execution.checks import require_at_least, require_positive
from nepa3d.models.embedding import Pooling, Precision, Probe, ProbeRequest, Representation, open_probe
from nepa3d.probes.distance_head import HeadShapes
from nepa3d.samples.questions import Questions
from nepa3d.shapes.views import require_backend


@dataclass(frozen=True, kw_only=True)
class ModelFlags:
    """The model."""

    ckpt: str
    """Checkpoint to probe."""
    device: str = "auto"
    """auto (a GPU if there is one), cpu or cuda."""
    precision: Precision = "float32"
    """Precision of matrix products; bf16 is faster on a GPU and changes results a little."""

    def request(self) -> ProbeRequest:
        """What is to be opened."""
        return ProbeRequest(self.ckpt, device=self.device, precision=self.precision)

    def load(self) -> Probe:
        """The checkpoint made ready. ``ValueError`` where that cannot be."""
        return open_probe(self.request())


@dataclass(frozen=True, kw_only=True)
class SequenceModelFlags(ModelFlags):
    """The model, and the form of its sequences."""

    add_eos: OptionalSwitch = None
    """End sequences with an EOS token; -1: as in pretraining."""
    qa_tokens: OptionalSwitch = None
    """Encode a question and its answer as two tokens; -1: as in pretraining."""

    def request(self) -> ProbeRequest:
        """What is to be opened, and the form of its sequences."""
        return replace(super().request(), add_eos=self.add_eos, qa_tokens=self.qa_tokens)


@dataclass(frozen=True, kw_only=True)
class SampleModelFlags(SequenceModelFlags):
    """The model, and the form and size of its samples."""

    n_point: OptionalCount = None
    """Point queries per sample; -1: as in pretraining."""
    n_ray: OptionalCount = None
    """Ray queries per sample; -1: as in pretraining."""

    def request(self) -> ProbeRequest:
        """What is to be opened, and the form and size of its samples."""
        return replace(super().request(), n_point=self.n_point, n_ray=self.n_ray)

    def __post_init__(self) -> None:
        for flag in ("n_point", "n_ray"):
            count = getattr(self, flag)
            if count is not None and count < 0:
                raise ValueError(f"{flag} must be at least 0, or -1 (as trained), got {count}")


@dataclass(frozen=True, kw_only=True)
class PoolingFlags:
    """How the states of a sequence become an embedding."""

    pooling: Pooling = "eos"
    """Embedding: the last token, or the mean of the answers, questions, predicted answers, or all tokens."""
    representation: Representation = "h"
    """Hidden state h or predicted embedding z_hat."""
    mc_k: int = 1
    """Number of draws per shape that are averaged into its embedding."""

    def __post_init__(self) -> None:
        require_at_least(1, mc_k=self.mc_k)


@dataclass(frozen=True, kw_only=True)
class CompletionFlags:
    """What is completed, and what the ridge head is fitted on."""

    split: str = "eval"
    """Split whose shapes are completed."""
    context_backend: str = "pointcloud_noray"
    """View of the context points."""
    n_context: int = 256
    """Context points per shape."""
    n_query: int = 256
    """Query points per shape, or cells asked for at a time."""
    head_train_split: str = "train_udf"
    """Split that the head is fitted on; 'none': part of the evaluated split (transductive); 'own': no head, the
    distances that the model itself predicts for the target's view."""
    head_train_backend: str = "udfgrid"
    """View of the context while the head is fitted (context_backend if transductive)."""
    head_train_max_shapes: int = 0
    """Use only this many shapes of head_train_split, the first by sorted path; 0: all."""
    ridge_lambda: float = 1e-3
    """Ridge penalty; it includes the bias."""
    seed: int = 0
    """Seed of the draws (and of the shuffle of a transductive split)."""

    def __post_init__(self) -> None:
        for flag in ("context_backend", "head_train_backend"):
            require_backend(getattr(self, flag), flag)
        require_at_least(1, n_context=self.n_context, n_query=self.n_query)
        require_positive(ridge_lambda=self.ridge_lambda)

    def head(self) -> HeadShapes:
        """The shapes of the head."""
        return HeadShapes(self.head_train_split, self.head_train_backend, self.head_train_max_shapes)


@dataclass(frozen=True, kw_only=True)
class QuestionFlags:
    """Where query points are drawn."""

    questions: Questions = "pool"
    """Draw points from the whole pool of a shape (pool), half of which lies close to the surface, or only from its part
    that is uniform in the cube (uniform)."""


@dataclass(frozen=True, kw_only=True)
class ControlFlags:
    """Controls that are measured beside the model."""

    spline: Switch = True
    """Control without a model: a thin-plate spline through the distances that the model receives; requires SciPy."""
    random_init: Switch = False
    """Also measure an untrained model of the same size."""
