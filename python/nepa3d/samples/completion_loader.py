"""Sequences of the completion probe by the batch, read by the compiled core: only the rows drawn, several threads.

The same as ``nepa3d.samples.completion``'s, bit for bit. Letters: B shapes, T tokens, Q queries.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nepa3d import _core
from nepa3d.samples.completion import CompletionSample, SequenceSettings, exact_distances
from nepa3d.samples.schema import FEATURE_DIM, XYZ, sequence_length
from nepa3d.samples.tokenizer import evaluation_draw_seed
from nepa3d.shapes.cache import CacheError
from nepa3d.shapes.packed import compiled_places
from nepa3d.shapes.views import view_row


@dataclass(frozen=True)
class CompletionBatch:
    """Sequences of the same settings, and what is asked of them."""

    paths: list[str]  # of the shapes
    features: NDArray[np.float32]  # (B, T, 15)
    types: NDArray[np.int64]  # (B, T)
    query_tokens: NDArray[np.int64]  # (Q,) where the queries stand in a sequence
    target: NDArray[np.float32]  # (B, Q) true distances
    nearest_copy: NDArray[np.float32] | None  # (B, Q) distance answered at the nearest context point

    def __len__(self) -> int:
        return len(self.types)


def completion_batch(
    paths: Sequence[str],
    settings: SequenceSettings,
    seed: int,
    context_paths: Sequence[str] | None = None,
    *,
    threads: int = 1,
) -> tuple[CompletionBatch, dict[str, str]]:
    """``completion_sample`` of those of the shapes that can be read, and why each other one cannot.

    ``context_paths``, one a shape, take the contexts from other shapes.
    """
    shapes, has_context = len(paths), settings.context != "absent"
    n_points = settings.n_query + (settings.n_context if has_context else 0)
    length = sequence_length(n_points, 0, qa=settings.qa, eos=settings.eos)
    features = np.empty((shapes, length, FEATURE_DIM), np.float32)
    types = np.empty((shapes, length), np.int64)
    target, nearest_copy = np.empty((2, shapes, settings.n_query), np.float32)
    faults = dict(
        _core.read_completion_samples(
            compiled_places(paths),
            compiled_places(context_paths or paths),
            _compiled(settings),
            seeds=[evaluation_draw_seed(path, seed) for path in paths],
            features=features,
            types=types,
            target=target,
            nearest_copy=nearest_copy,
            threads=threads,
        )
    )
    stride = 2 if settings.qa else 1
    query_tokens = length - settings.eos - stride * np.arange(settings.n_query, 0, -1)
    if settings.mesh_root:
        asked = features[:, query_tokens, XYZ]
        faults |= _take_exact_distances(paths, settings, asked, target, faults, threads)
    faults |= {
        int(row): "the sample has values that are not finite"
        for row in np.flatnonzero(~np.isfinite(target).all(1))
        if row not in faults
    }
    good = np.setdiff1d(np.arange(shapes), list(faults))
    if len(good) < shapes:
        features, types, target, nearest_copy = (x[good] for x in (features, types, target, nearest_copy))
    copies = nearest_copy if has_context else None
    batch = CompletionBatch([paths[row] for row in good], features, types, query_tokens, target, copies)
    return batch, {paths[row]: fault for row, fault in sorted(faults.items())}


def batch_of_samples(paths: Sequence[str], samples: Sequence[CompletionSample]) -> CompletionBatch:
    """Samples of the same settings, of which there may be none, as one batch."""
    if not samples:
        nothing, rows = np.empty((0, 0), np.float32), np.empty((0, 0), np.int64)
        return CompletionBatch([], np.empty((0, 0, FEATURE_DIM), np.float32), rows, rows[:, 0:0].ravel(), nothing, None)
    copies = [sample.nearest_copy for sample in samples if sample.nearest_copy is not None]
    return CompletionBatch(
        [*paths],
        np.stack([sample.features for sample in samples]),
        np.stack([sample.types for sample in samples]),
        samples[0].query_tokens,
        np.stack([sample.target for sample in samples]),
        np.stack(copies) if copies else None,
    )


def _compiled(settings: SequenceSettings) -> _core.CompletionSettings:
    voxel = settings.voxel
    return _core.CompletionSettings(
        view_row(settings.context_backend).compiled(),
        settings.n_context,
        settings.n_query,
        qa=settings.qa,
        eos=settings.eos,
        query_source=settings.query_source,
        mesh_target=settings.target == "mesh",
        uniform_questions=settings.questions == "uniform",
        with_context=settings.context != "absent",
        voxel=(voxel.grid, voxel.dilate, voxel.max_steps),
    )


def _take_exact_distances(
    paths: Sequence[str],
    settings: SequenceSettings,
    asked: NDArray[np.float32],
    target: NDArray[np.float32],
    faults: dict[int, str],
    threads: int,
) -> dict[int, str]:
    """Put the exact distances of the points ``asked`` (B, Q, 3) into ``target`` (B, Q); the meshes that fail."""

    def take(row: int) -> str:
        try:
            target[row] = exact_distances(paths[row], settings, asked[row])
        except CacheError as error:
            return error.fault
        except (OSError, ValueError) as error:  # of a mesh, whose message names it
            return f"{error}"
        return ""

    rows = [row for row in range(len(paths)) if row not in faults]
    with ThreadPoolExecutor(threads, thread_name_prefix="reader") as readers:
        return {row: fault for row, fault in zip(rows, readers.map(take, rows), strict=True) if fault}
