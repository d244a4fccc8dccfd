"""Samples by the batch, read by the compiled core: only the rows drawn, several threads, ahead of their use.

The same samples as ``nepa3d.samples.dataset``'s, bit for bit, for any number of threads.
Letters: B samples of a batch, T tokens.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from nepa3d import _core
from nepa3d.samples.dataset import Sample, SampleSettings
from nepa3d.samples.live import Live
from nepa3d.samples.schema import FEATURE_DIM
from nepa3d.samples.tokenizer import evaluation_draw_seed
from nepa3d.shapes.cache import CacheError
from nepa3d.shapes.packed import compiled_places
from nepa3d.shapes.views import ViewRow, view_row

Batch = tuple[NDArray[np.float32], NDArray[np.int64]]  # features (B, T, 15) and types (B, T)
Made = TypeVar("Made")


@dataclass(frozen=True)
class Request:
    """A shape, the view of it, and how it becomes a sequence."""

    path: str
    backend: str
    settings: SampleSettings
    live: Live | None = None
    """How the mesh of the file is asked; ``None``: it is a cache file."""


def training_batch(
    requests: Sequence[Request], seed: int, epoch: int, indices: Sequence[int], *, threads: int = 1
) -> Batch:
    """One training sample a request, ``training_sample`` or ``Live.sample`` of its index in the epoch.

    Raises ``CacheError``, and ``BadShapeError`` of meshes.
    """
    features, types = _room(requests)
    asked = [row for row, request in enumerate(requests) if request.live is not None]
    if asked:
        cached = np.setdiff1d(np.arange(len(requests)), asked)
        if len(cached):
            some, places = [requests[row] for row in cached], [indices[row] for row in cached]
            features[cached], types[cached] = training_batch(some, seed, epoch, places, threads=threads)
        with ThreadPoolExecutor(threads, thread_name_prefix="asker") as askers:
            samples = askers.map(lambda row: _live_sample(requests[row], seed, epoch, int(indices[row])), asked)
            for row, sample in zip(asked, samples, strict=True):
                features[row], types[row] = sample
        return features, types
    faults = _core.read_training_samples(
        compiled_places([request.path for request in requests]),
        [_compiled(view_row(request.backend), request.settings) for request in requests],
        seed=seed,
        epoch=epoch,
        indices=[int(index) for index in indices],
        features=features,
        types=types,
        threads=threads,
    )
    _raise_first(faults, requests)
    return features, types


def _live_sample(request: Request, seed: int, epoch: int, index: int) -> Sample:
    assert request.live is not None
    return request.live.sample(request.path, request.backend, request.settings, seed, epoch, index)


def evaluation_batch(requests: Sequence[Request], eval_seed: int, resample: int = 0, *, threads: int = 1) -> Batch:
    """One evaluation sample a request, as ``evaluation_sample`` draws it. Raises ``CacheError``."""
    features, types, faults = evaluation_samples(requests, eval_seed, resample, threads=threads)
    _raise_first(faults, requests)
    return features, types


def evaluation_samples(
    requests: Sequence[Request], eval_seed: int, resample: int = 0, *, threads: int = 1
) -> tuple[NDArray[np.float32], NDArray[np.int64], list[tuple[int, str]]]:
    """The same, with the numbers and faults of the requests that could not be read; their rows mean nothing."""
    features, types = _room(requests)
    faults = _core.read_evaluation_samples(
        compiled_places([request.path for request in requests]),
        [_compiled(view_row(request.backend), request.settings) for request in requests],
        seeds=[evaluation_draw_seed(request.path, eval_seed, resample) for request in requests],
        features=features,
        types=types,
        threads=threads,
    )
    return features, types, faults


def prefetch(make: Callable[[int], Made], numbers: Sequence[int], depth: int = 3) -> Iterator[Made]:
    """``make(n)`` of each number in order, up to ``depth`` of them made by a thread before they are asked for."""
    with ThreadPoolExecutor(1, thread_name_prefix="loader") as thread:
        waiting: deque[Future[Made]] = deque()
        try:
            for number in numbers:
                waiting.append(thread.submit(make, number))
                if len(waiting) > depth:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:  # whoever asked may have had enough
            for future in waiting:
                future.cancel()


def _room(requests: Sequence[Request]) -> Batch:
    length = requests[0].settings.length if requests else 0
    return np.empty((len(requests), length, FEATURE_DIM), np.float32), np.empty((len(requests), length), np.int64)


@lru_cache(maxsize=256)
def _compiled(row: ViewRow, settings: SampleSettings) -> _core.SampleSettings:
    return _core.SampleSettings(
        row.compiled(),
        settings.n_point,
        settings.n_ray,
        qa=settings.qa,
        eos=settings.eos,
        drop_ray_prob=settings.drop_ray_prob,
        force_missing_ray=settings.force_missing_ray,
        uniform_prob=settings.uniform_prob,
        uniform_questions=settings.questions == "uniform",
        voxel=(settings.voxel.grid, settings.voxel.dilate, settings.voxel.max_steps),
    )


def _raise_first(faults: Sequence[tuple[int, str]], requests: Sequence[Request]) -> None:
    if faults:
        index, fault = faults[0]
        raise CacheError(requests[index].path, fault)
