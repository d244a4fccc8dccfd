"""Retrieval without a model: the answers of two shapes compared as they are."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from nepa3d.probes import ranking
from nepa3d.probes.lipschitz import violations
from nepa3d.probes.point_answers import PointAnswers
from nepa3d.probes.spline import FEWEST, require_scipy, splines

FIELD_POINTS, FIELD_SEED, FIELD_SMOOTHING = 512, 0, 1e-2


def rank_by_violations(
    queries: PointAnswers, gallery: PointAnswers, threads: int, *, progress: bool = True
) -> ranking.Ranks:
    """Ranks of N queries among N items by how far the answers contradict that they are of one shape, see
    ``nepa3d.probes.lipschitz``; less is better. At least one point must have been told."""
    pairs = [[*zip(answers.points, answers.distances, strict=True)] for answers in (queries, gallery)]
    return ranking.rank_by_distance(violations(pairs[0], pairs[1], threads=threads, progress=progress))


def rank_by_spline_fields(queries: PointAnswers, gallery: PointAnswers, threads: int) -> ranking.Ranks | str:
    """Ranks of N queries among N items by the mean absolute difference of their fields at 512 points of the cube, the
    same for all: fields of splines through the answers (``nepa3d.probes.spline``, smoothing 1e-2). Or why there are
    none. ``ValueError`` that says what to install where SciPy is missing."""
    require_scipy()
    from scipy.spatial.distance import cdist

    points = np.random.default_rng(FIELD_SEED).uniform(-1, 1, (FIELD_POINTS, 3))
    fields = []
    with ThreadPoolExecutor(threads, thread_name_prefix="spline") as pool:
        for answers in (queries, gallery):
            asked = np.broadcast_to(points, (len(answers.points), *points.shape))
            for field in splines(pool, answers.points, answers.distances, asked, FIELD_SMOOTHING):
                if isinstance(field, str):
                    return field
                fields.append(field)
    apart = cdist(fields[: len(queries.points)], fields[len(queries.points) :], "cityblock") / FIELD_POINTS
    return ranking.rank_by_distance(apart)


def too_few(answers: PointAnswers, least: int) -> str:
    """Why a control that takes ``least`` points cannot be; empty where it can."""
    count = answers.points.shape[1]
    return "" if count >= least else f"it takes at least {least} points a shape, there are {count}"


def plain_metrics(
    queries: PointAnswers, gallery: PointAnswers, *, lipschitz: bool, spline: bool, threads: int, progress: bool = True
) -> tuple[dict[str, dict[str, float]], dict[str, str]]:
    """Figures of the controls ``lipschitz`` and ``spline_field`` by name, and of each that is missing why."""
    found: dict[str, dict[str, float]] = {}
    missing: dict[str, str] = {}
    if reason := too_few(queries, 1) if lipschitz else "left out":
        missing["lipschitz"] = reason
    else:
        ranks = rank_by_violations(queries, gallery, threads, progress=progress)
        found["lipschitz"] = ranking.retrieval_metrics(ranks)
    fields: ranking.Ranks | str = "left out"
    if spline:
        fields = too_few(queries, FEWEST) or rank_by_spline_fields(queries, gallery, threads)
    if isinstance(fields, str):
        missing["spline_field"] = fields
    else:
        found["spline_field"] = ranking.retrieval_metrics(fields)
    return found, missing
