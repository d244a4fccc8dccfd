"""When two answers count as the same. Lengths are in the unit sphere the meshes are scaled to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

RELATIVE = 1e-5
ABSOLUTE = 1e-6  # coordinates of order 1 in float32 carry errors of 1e-7
RAY_SHARE = 1e-3  # of rays that may differ: through an edge or along a silhouette, rounding decides
CLOSEST_SHARE = 5e-3  # of closest points that may differ: float32 peers lose those on needle-thin faces
OFF_SURFACE = 2e-6  # of random samples, by closest_point
STANDARD_ERRORS = 6.0  # of the mean of random samples

Array = NDArray[Any]
Mask = NDArray[np.bool_]
Compare = Callable[[Any, Any], "Agreement"]


@dataclass(frozen=True)
class Agreement:
    """Whether a peer's answer is ours, and what is worth saying about it."""

    agree: bool
    note: str = ""


def close(ours: Array, theirs: Array) -> Mask:
    """Where two arrays of one shape are equal within the tolerances; infinities equal themselves."""
    return np.asarray(np.isclose(theirs, ours, rtol=RELATIVE, atol=ABSOLUTE))


def same_values(ours: Array, theirs: Array) -> Agreement:
    """Every value equal within the tolerances."""
    return _none_of(~close(ours, theirs), "values")


def same_integers(ours: Array, theirs: Array) -> Agreement:
    """Every value equal."""
    return _none_of(ours != theirs, "values")


def same_nearest(points: Array, queries: Array) -> Compare:
    """Of (distance, index): distances within the tolerances; another index only if it is as near."""

    def compare(ours: tuple[Array, Array], theirs: tuple[Array, Array]) -> Agreement:
        distance = np.linalg.norm(points[theirs[1]].astype(np.float64) - queries, axis=1)
        ties = int((ours[1] != theirs[1]).sum())
        wrong = ~close(ours[0], theirs[0]) | ~close(ours[0], distance)
        return _none_of(wrong, "distances", f"{ties} ties" if ties else "")

    return compare


def same_closest(ours: Array, theirs: Array) -> Agreement:
    """Of distances (M,) to a mesh: all but ``CLOSEST_SHARE`` within the tolerances.

    Points and faces are not compared: a query may have several closest ones.
    """
    return _few_of(~close(ours, theirs), CLOSEST_SHARE, "distances")


def same_hits(ours: Array, theirs: Array) -> Agreement:
    """Of t (R,), inf on a miss: all but ``RAY_SHARE`` of the rays within the tolerances."""
    return _few_of(~close(ours, theirs), RAY_SHARE, "rays")


def same_voxel_hits(ours: tuple[Array, Array, Array], theirs: tuple[Array, Array, Array]) -> Agreement:
    """Of (hit, t, normal): hits equal, t within the tolerances, normals of all but ``RAY_SHARE`` equal."""
    wrong = (ours[0] != theirs[0]) | ~close(ours[1], theirs[1])
    if wrong.any():
        return _none_of(wrong, "rays")
    other_normal = np.asarray(~close(ours[2], theirs[2]).all(1))
    return _few_of(other_normal, RAY_SHARE, "normals")


def same_tokens(ours: tuple[Array, Array], theirs: tuple[Array, Array]) -> Agreement:
    """Of batches (features, types): types equal, all but ``RAY_SHARE`` of the features within the tolerances."""
    if not np.array_equal(ours[1], theirs[1]):
        return Agreement(False, "other token types")
    return _few_of(~close(ours[0], theirs[0]), RAY_SHARE, "features")


def same_triangles(ours: tuple[Array, Array], theirs: tuple[Array, Array]) -> Agreement:
    """Of (vertices, faces): the same triangles with exactly the same corners.

    Readers may number vertices, order faces and begin a face in their own way; orientation counts.
    """
    corners = [vertices[faces] for vertices, faces in (ours, theirs)]
    if corners[0].shape != corners[1].shape:
        return Agreement(False, f"{len(corners[0])} and {len(corners[1])} faces")
    position = np.unique(np.concatenate(corners).reshape(-1, 3), axis=0, return_inverse=True)[1]
    first, second = (_sorted_triangles(faces) for faces in position.reshape(2, -1, 3))
    return _none_of((first != second).any(1), "faces")


def same_distribution(distance_to_surface: Callable[[Array], Array]) -> Compare:
    """Of random points (N, 3) on a surface: on it, and their means equal within ``STANDARD_ERRORS``.

    Two libraries draw different points, so only these statistics are compared.
    """

    def compare(ours: Array, theirs: Array) -> Agreement:
        if ours.shape != theirs.shape:
            return Agreement(False, f"shapes {ours.shape} and {theirs.shape}")
        off = max(float(distance_to_surface(points).max()) for points in (ours, theirs))
        if off > OFF_SURFACE:
            return Agreement(False, f"points lie {off:.1e} off the surface")
        error = np.sqrt((ours.var(0) + theirs.var(0)) / len(ours)) + ABSOLUTE
        apart = float((np.abs(ours.mean(0) - theirs.mean(0)) / error).max())
        if apart > STANDARD_ERRORS:
            return Agreement(False, f"means lie {apart:.1f} standard errors apart")
        return Agreement(True, "statistics only")

    return compare


def _sorted_triangles(faces: Array) -> Array:
    """Faces (F, 3), each turned to its smallest form, in lexicographic order."""
    turns = np.stack([faces, faces[:, [1, 2, 0]], faces[:, [2, 0, 1]]]).astype(np.int64)
    scale = int(faces.max(initial=0)) + 1
    smallest = ((turns[..., 0] * scale + turns[..., 1]) * scale + turns[..., 2]).argmin(0)
    turned = turns[smallest, np.arange(len(faces))]
    return turned[np.lexsort(turned.T[::-1])]


def _none_of(wrong: Mask, what: str, note: str = "") -> Agreement:
    count = int(wrong.sum())
    return Agreement(False, f"{count} of {wrong.size} {what} differ") if count else Agreement(True, note)


def _few_of(wrong: Mask, share: float, what: str) -> Agreement:
    count = int(wrong.sum())
    note = f"{count} of {len(wrong)} {what} differ" if count else ""
    return Agreement(count <= share * len(wrong), note)
