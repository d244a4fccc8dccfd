"""What a pretraining run reads: one cache or a mix of them, and the samples of each epoch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nepa3d.cli.spellings import Switch
from nepa3d.corpora.layouts import divided, meshes_below
from nepa3d.corpora.objects import objects_of
from nepa3d.corpora.shape_list import open_shapes
from nepa3d.samples.dataset import SampleSettings
from nepa3d.samples.live import Live, MeshStore
from nepa3d.samples.loader import Request, prefetch, training_batch
from nepa3d.samples.mixes import MOST_SEED, Component, draw_mixture, load_mix
from nepa3d.shapes.views import VoxelSettings, require_backend
from nepa3d.train.distributed import ProcessGroup

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class CorpusFlags:
    """The shapes to train on: one cache, or a mix of several."""

    cache_root: str = ""
    """Cache to train on (its train split); not used with mix_config."""
    backend: str = "mesh"
    """View of that cache."""
    mesh_root: str = ""
    """Folder of meshes to train on instead of a cache: queries are answered during training, and nothing is stored."""
    layout: str = "folder"
    """How the class, the name and the split of a mesh follow from its path, as in preprocess-meshes."""
    test_ratio: float = 0.1
    """Share of each class of mesh_root that is left out as the test split, if the layout has none."""
    split_seed: int = 0
    """Seed of the choice of that split."""
    mesh_memory: float = 2.0
    """Memory, in gigabytes, for meshes that are queried during training."""
    mix_config: str = ""
    """YAML file that mixes several caches, folders of meshes, and views."""
    mix_num_samples: int = 0
    """Samples per epoch of a mix; 0: the value of the file, or all samples."""
    mix_seed: int = 0
    """Seed of the draws from a mix; 0: the value of the file."""

    def __post_init__(self) -> None:
        if not 0 <= self.mesh_memory < math.inf:
            raise ValueError(f"mesh_memory must be at least 0, got {self.mesh_memory}")
        if self.mix_seed > MOST_SEED:
            raise ValueError(f"mix_seed must be at most {MOST_SEED}, got {self.mix_seed}")
        if self.mix_config:
            for name, unused in (("cache_root", ""), ("mesh_root", ""), ("backend", "mesh")):
                if getattr(self, name) != unused:
                    raise ValueError(
                        f"{name} must be left out with mix_config, whose file says what is read, got "
                        f"{getattr(self, name)}"
                    )
        else:
            for name in ("mix_num_samples", "mix_seed"):
                if getattr(self, name) > 0:
                    raise ValueError(f"{name} is of a mix, and no mix_config is given, got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class SampleFlags:
    """How a shape becomes a sequence of tokens."""

    n_point: int = 512
    """Point queries per sample."""
    n_ray: int = 512
    """Ray queries per sample."""
    qa_tokens: Switch = False
    """Encode a question and its answer as two tokens."""
    add_eos: Switch = True
    """End sequences with an EOS token."""
    drop_ray_prob: float = 0.0
    """Probability that all rays of a sample are dropped."""
    force_missing_ray: bool = False
    """Drop the rays of all samples."""
    uniform_prob: float = 0.0
    """Probability that a sample's query points are drawn only from the uniform part of its pool, whose positions do not
    reveal the surface."""

    def settings(self, voxel: VoxelSettings) -> SampleSettings:
        """The settings that samples are read with."""
        return SampleSettings(
            self.n_point,
            self.n_ray,
            qa=self.qa_tokens,
            eos=self.add_eos,
            drop_ray_prob=self.drop_ray_prob,
            force_missing_ray=self.force_missing_ray,
            uniform_prob=self.uniform_prob,
            voxel=voxel,
        )


@dataclass(frozen=True)
class Part:
    """The shapes of one corpus and how they become sequences."""

    name: str
    paths: Sequence[str]
    backend: str
    settings: SampleSettings
    weight: float = 1.0
    live: Live | None = None
    """How meshes are asked while training; ``None``: the paths are cache files."""
    pair: int | None = None
    """Number of the part that has the second draw of each shape."""
    partners: NDArray[np.int64] | None = None
    """Where in that part the object of each shape is, (shapes,)."""
    ask_pair: bool = False
    """Whether the two draws of a shape are asked each other's blind questions."""
    objects: Callable[[], list[str]] = list
    """Names of what the shapes are variants of, the same in every part that has one."""


@dataclass(frozen=True)
class Corpus:
    """One or several parts; ``mixed`` draws among them, else an epoch is every shape of the one part, shuffled."""

    parts: tuple[Part, ...]
    seed: int
    mixed: bool = False
    mix_seed: int = 0
    num_samples: int = 0
    replacement: bool = True
    paired_batch: int = 0
    """Samples a batch where each holds two draws of every shape, and shapes of one part only; 0: batches are mixed."""

    def __post_init__(self) -> None:
        if len({part.settings.length for part in self.parts}) > 1:
            lengths = ", ".join(f"{part.name} {part.settings.length}" for part in self.parts)
            raise ValueError(f"the parts of a mix must have sequences of one length, got {lengths}")
        if not self.replacement and any(part.pair is not None for part in self.parts):
            raise ValueError("replacement must be true where a component of the mix has a pair, got false")

    def epoch(self, epoch: int) -> NDArray[np.int64]:
        """The samples (n, 2) of an epoch, (part, shape) in order; a function of the seeds and the epoch."""
        sizes = [len(part.paths) for part in self.parts]
        if self.paired_batch:
            return self._pairs(sizes, epoch)
        if not self.mixed:
            order = np.random.default_rng([self.seed, epoch]).permutation(sizes[0])
            return np.column_stack([np.zeros_like(order), order])
        weights = [part.weight for part in self.parts]
        count = self.num_samples or sum(sizes)
        draws = draw_mixture(sizes, weights, count, self.mix_seed, epoch, replacement=self.replacement)
        return np.array(draws, np.int64)

    def _pairs(self, sizes: Sequence[int], epoch: int) -> NDArray[np.int64]:
        """The samples of whole paired batches, each shape twice, or once and then in its part's pair; an epoch has as
        many as without pairs, what fills no batch left out. A mix with replacement draws a part for each batch, and
        different shapes of it."""
        half, odd = divmod(self.paired_batch, 2)
        if odd:
            raise ValueError(f"batch must be even, for it holds two draws of every shape, got {self.paired_batch}")
        for part, size in zip(self.parts, sizes, strict=True):
            if half < 2 or (size < half and part.weight > 0):
                raise ValueError(
                    f"batch must be from 4 to {2 * size}, for it holds two draws of every shape and all are of "
                    f"{part.name}, which has {size}; got {self.paired_batch}"
                )
        rng = np.random.default_rng([self.mix_seed if self.mixed else self.seed, epoch, half])
        wanted = max(1, (self.num_samples or sum(sizes)) // self.paired_batch) if self.mixed else None
        if self.mixed and self.replacement:
            weights = np.array([part.weight for part in self.parts])
            owners = rng.choice(len(sizes), wanted, p=weights / weights.sum())
            shapes = np.stack([rng.choice(sizes[owner], half, replace=False) for owner in owners])
        else:
            cut = [rng.permutation(size)[: size // half * half].reshape(-1, half) for size in sizes]
            order = rng.permutation(sum(map(len, cut)))[:wanted]
            owners = np.repeat(np.arange(len(cut)), [len(own) for own in cut])[order]
            shapes = np.concatenate(cut)[order]
        draws = np.stack([np.repeat(owners, half), shapes.ravel()], 1).astype(np.int64)
        return np.stack([draws, self._partners_of(draws)], 1).reshape(-1, 2)

    def _partners_of(self, draws: NDArray[np.int64]) -> NDArray[np.int64]:
        """The draws (n, 2) in the pair of their part, those of a part without one as they are."""
        found = draws.copy()
        for number, part in enumerate(self.parts):
            own = draws[:, 0] == number
            if part.pair is not None and part.partners is not None:
                found[own] = np.column_stack([np.full(own.sum(), part.pair), part.partners[draws[own, 1]]])
        return found

    def numbers(self, draws: NDArray[np.int64]) -> NDArray[np.int64]:
        """A number (n,) of the shape of each draw (n, 2) that tells it from others; a shape and its pair have one."""
        known = self._partners_of(draws)
        return known[:, 1] + known[:, 0] * max(len(part.paths) for part in self.parts)

    @property
    def length(self) -> int:
        """Tokens T of every sample."""
        return self.parts[0].settings.length


def open_corpus(flags: CorpusFlags, settings: SampleSettings, seed: int) -> Corpus:
    """The corpus a run asks for: the mix file if one is given, else the train split of ``mesh_root`` or ``cache_root``.

    ``ValueError`` where it is not one of these, or a corpus has no shapes.
    """
    given = [name for name in ("cache_root", "mesh_root", "mix_config") if getattr(flags, name)]
    if not given:
        raise ValueError("give cache_root, mesh_root or mix_config")
    if "mesh_root" in given and len(given) > 1:
        raise ValueError(f"mesh_root must be given alone, got {' and '.join(given)}")
    store = MeshStore(round(flags.mesh_memory * 1e9))
    if not flags.mix_config:
        return Corpus((_part(_of_flags(flags), settings, store),), seed)
    mix = load_mix(flags.mix_config)
    parts = [_part(component, settings, store) for component in mix.components]
    names = [component.name for component in mix.components]
    for number, component in enumerate(mix.components):
        if component.pair is not None:
            other = names.index(component.pair)
            partners = _partners(parts[number], parts[other])
            parts[number] = replace(parts[number], pair=other, partners=partners, ask_pair=component.ask_pair)
    return Corpus(
        tuple(parts),
        seed,
        mixed=True,
        mix_seed=flags.mix_seed if flags.mix_seed > 0 else mix.mix_seed,
        num_samples=flags.mix_num_samples if flags.mix_num_samples > 0 else mix.mix_num_samples,
        replacement=mix.replacement,
    )


def _of_flags(flags: CorpusFlags) -> Component:
    """The train split of the one corpus that the flags name."""
    require_backend(flags.backend)
    if not flags.mesh_root:
        return Component("train", "train", flags.backend, cache_root=flags.cache_root)
    return Component(
        "train",
        "train",
        flags.backend,
        source="meshes",
        mesh_root=flags.mesh_root,
        layout=flags.layout,
        test_ratio=flags.test_ratio,
        split_seed=flags.split_seed,
    )


def _part(component: Component, settings: SampleSettings, store: MeshStore) -> Part:
    """The shapes of a component, and how they become samples."""
    settings = _settings(component, settings)
    if component.source == "caches":
        paths = open_shapes(component.cache_root, component.split)
        return Part(
            component.name,
            paths,
            component.backend,
            settings,
            component.weight,
            objects=lambda: objects_of(component.cache_root, component.split, paths),
        )
    meshes = meshes_below(Path(component.mesh_root), component.layout)
    splits = divided(meshes, component.layout, component.test_ratio, component.split_seed)
    if not splits.get(component.split):
        raise ValueError(f"{component.mesh_root}: has no meshes of split {component.split!r}")
    chosen = splits[component.split]
    return Part(
        component.name,
        [f"{mesh.path}" for mesh in chosen],
        component.backend,
        settings,
        component.weight,
        live=Live(store, component.pools),
        objects=lambda: [mesh.object or mesh.key for mesh in chosen],
    )


def _partners(part: Part, other: Part) -> NDArray[np.int64]:
    """Which of the other part's shapes (n,) is of the same object as each of the one's; ``ValueError`` naming one that
    has none."""
    place = {name: i for i, name in enumerate(other.objects())}
    wanted = part.objects()
    for path, name in zip(part.paths, wanted, strict=True):
        if name not in place:
            raise ValueError(f"{path}: its object {name!r} is not among the shapes of its pair {other.name!r}")
    return np.array([place[name] for name in wanted], np.int64)


@dataclass(frozen=True)
class Batch:
    """One process's share of a batch: features (B, T, 15), types (B, T), the number of each sample's part (B,), a
    number that tells its shape from others (B,), and whether it is asked what its shape's other draw is asked (B,)."""

    features: Tensor
    types: Tensor
    parts: Tensor
    shapes: Tensor
    ask_pair: Tensor
    first: int  # place of its first sample in the whole batch
    samples: int  # of the whole batch


class EpochBatches:
    """The batches of one epoch in order, this process's share of each; the last one may be smaller.

    They are read by ``threads`` threads while the ones before them are used; 0: when they are asked for. A shape that
    cannot be read ends the epoch with a ``CacheError``.
    """

    def __init__(
        self, corpus: Corpus, epoch: int, batch: int, process_group: ProcessGroup, *, threads: int = 0
    ) -> None:
        self.corpus, self.number, self.size, self.process_group = corpus, epoch, batch, process_group
        self.threads = threads
        self.draws = corpus.epoch(epoch)

    def __len__(self) -> int:
        return math.ceil(len(self.draws) / self.size)

    def __iter__(self) -> Iterator[Batch]:
        return self.from_batch(0)

    def from_batch(self, first: int) -> Iterator[Batch]:
        """Those from number ``first`` on."""
        numbers = range(first, len(self))
        return prefetch(self.read, numbers) if self.threads else map(self.read, numbers)

    def read(self, number: int) -> Batch:
        """Batch ``number``: its samples are functions of (seed, epoch, place in the epoch)."""
        whole = range(number * self.size, min((number + 1) * self.size, len(self.draws)))
        places = self.process_group.share(whole)
        draws = self.draws[places.start : places.stop]
        requests = []
        for part_number, shape in draws:
            part = self.corpus.parts[part_number]
            requests.append(Request(part.paths[shape], part.backend, part.settings, part.live))
        features, types = training_batch(requests, self.corpus.seed, self.number, places, threads=max(1, self.threads))
        tensors = torch.from_numpy(features), torch.from_numpy(types)
        if self.process_group.device.type == "cuda":
            tensors = tensors[0].pin_memory(), tensors[1].pin_memory()
        part, numbers = torch.from_numpy(draws[:, 0].copy()), torch.from_numpy(self.corpus.numbers(draws))
        ask_pair = torch.tensor([self._asks_pair(place) for place in places], dtype=torch.bool)
        first = places.start - whole.start
        return Batch(*tensors, part, numbers, ask_pair, first=first, samples=len(whole))

    def _asks_pair(self, place: int) -> bool:
        """Whether the sample at a place of the epoch is asked the questions of its pair; the first of both decides."""
        return self.corpus.parts[self.draws[place - place % 2, 0]].ask_pair


def _settings(component: Component, default: SampleSettings) -> SampleSettings:
    """The command's settings, with what the mix file says of this component."""

    def given(value: T | None, otherwise: T) -> T:
        return otherwise if value is None else value

    return replace(
        default,
        drop_ray_prob=given(component.drop_ray_prob, default.drop_ray_prob),
        uniform_prob=given(component.uniform_prob, default.uniform_prob),
        force_missing_ray=given(component.force_missing_ray, default.force_missing_ray),
        eos=given(component.add_eos, default.eos),
        voxel=component.voxel(default.voxel),
    )
