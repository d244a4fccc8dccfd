"""What a pretraining run reads: one cache or a mix of them, and the samples of each epoch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from nepa3d.backends import require_backend
from nepa3d.data.dataset import SampleSettings, list_shapes, training_sample
from nepa3d.data.mixed_pretrain import Component, draw_mixture, load_mix

T = TypeVar("T")


class CorpusConfig(Protocol):
    """The flags that choose a corpus; see ``nepa3d.train.pretrain.Config``."""

    @property
    def cache_root(self) -> str: ...
    @property
    def backend(self) -> str: ...
    @property
    def mix_config(self) -> str: ...
    @property
    def mix_num_samples(self) -> int: ...
    @property
    def mix_seed(self) -> int: ...
    @property
    def seed(self) -> int: ...


@dataclass(frozen=True)
class Part:
    """The shapes of one corpus and how they become sequences."""

    name: str
    paths: list[str]
    backend: str
    settings: SampleSettings
    weight: float = 1.0


@dataclass(frozen=True)
class Corpus:
    """One or several parts; ``mixed`` draws among them, else an epoch is every shape of the one part, shuffled."""

    parts: tuple[Part, ...]
    seed: int
    mixed: bool = False
    mix_seed: int = 0
    num_samples: int = 0
    replacement: bool = True

    def __post_init__(self) -> None:
        if len({part.settings.length for part in self.parts}) > 1:
            lengths = ", ".join(f"{part.name} {part.settings.length}" for part in self.parts)
            raise ValueError(f"the parts of a mix must have sequences of one length, got {lengths}")

    def epoch(self, epoch: int) -> list[tuple[int, int]]:
        """The samples (part, shape) of an epoch, in order; a function of the seeds and the epoch."""
        sizes = [len(part.paths) for part in self.parts]
        if not self.mixed:
            order = np.random.default_rng([self.seed, epoch]).permutation(sizes[0])
            return [(0, int(shape)) for shape in order]
        weights = [part.weight for part in self.parts]
        count = self.num_samples or sum(sizes)
        return draw_mixture(sizes, weights, count, self.mix_seed, epoch, replacement=self.replacement)

    @property
    def length(self) -> int:
        """Tokens T of every sample."""
        return self.parts[0].settings.length


def open_corpus(config: CorpusConfig, settings: SampleSettings) -> Corpus:
    """The corpus a run asks for: the mix file if one is given, else the train split of ``cache_root``."""
    if not config.mix_config:
        if not config.cache_root:
            raise ValueError("give cache_root, or mix_config")
        paths = list_shapes(config.cache_root, "train")
        return Corpus((Part("train", paths, require_backend(config.backend), settings),), config.seed)
    mix = load_mix(config.mix_config)
    parts = tuple(
        Part(c.name, list_shapes(c.cache_root, c.split), c.backend, _settings(c, settings), c.weight)
        for c in mix.components
    )
    return Corpus(
        parts,
        config.seed,
        mixed=True,
        mix_seed=config.mix_seed if config.mix_seed > 0 else mix.mix_seed,
        num_samples=config.mix_num_samples if config.mix_num_samples > 0 else mix.mix_num_samples,
        replacement=mix.replacement,
    )


@dataclass(frozen=True)
class Unreadable:
    """Why a sample could not be made. A value, as exceptions leave a loader's worker as tracebacks of other kinds."""

    reason: str


Sample = tuple[Tensor, Tensor] | Unreadable


class EpochDataset(Dataset[Sample]):
    """The samples of one epoch in their order: features (T, 15) and types (T,)."""

    def __init__(self, corpus: Corpus, epoch: int) -> None:
        self.corpus, self.number = corpus, epoch
        self.draws = np.asarray(corpus.epoch(epoch), np.int64)

    def __len__(self) -> int:
        return len(self.draws)

    def __getitem__(self, index: int) -> Sample:
        number, shape = self.draws[index]
        part = self.corpus.parts[number]
        try:
            features, types = training_sample(
                part.paths[shape], part.backend, part.settings, self.corpus.seed, self.number, index
            )
        except ValueError as error:
            return Unreadable(str(error))
        return torch.from_numpy(features), torch.from_numpy(types)


def collate(samples: list[Sample]) -> Sample:
    """Features (B, T, 15) and types (B, T), or the first reason why there are none."""
    unreadable = [sample for sample in samples if isinstance(sample, Unreadable)]
    return unreadable[0] if unreadable else default_collate(samples)


def _settings(component: Component, default: SampleSettings) -> SampleSettings:
    """The command's settings, with what the mix file says of this component."""

    def given(value: T | None, otherwise: T) -> T:
        return otherwise if value is None else value

    return replace(
        default,
        drop_ray_prob=given(component.drop_ray_prob, default.drop_ray_prob),
        force_missing_ray=given(component.force_missing_ray, default.force_missing_ray),
        eos=given(component.add_eos, default.eos),
        voxel=component.voxel(default.voxel),
    )
