"""Distance from each query to the nearest of some points: build the index, ask, every time."""

from __future__ import annotations

from functools import partial

import numpy as np

from benchmarks.agreement import same_nearest
from benchmarks.harness import Contender, Row, case
from benchmarks.inputs import Float, Inputs
from nepa3d import ops


@case("nearest distance, 2048 points", threaded=True)
def nearest_surface(inputs: Inputs, threads: int) -> Row:
    return nearest_row(inputs.surface, inputs.queries, threads)


@case("nearest distance, 8192 points", threaded=True)
def nearest_reference(inputs: Inputs, threads: int) -> Row:
    return nearest_row(inputs.reference, inputs.queries, threads)


def nearest_row(points: Float, queries: Float, threads: int) -> Row:
    return Row(
        size={"points": len(points), "queries": len(queries)},
        ours=Contender(lambda: ops.nearest_distance(points, queries, threads=threads)),
        peers={
            "scipy": partial(scipy_kdtree, points, queries, threads),
            "pykdtree": partial(pykdtree_kdtree, points, queries),
            "open3d": partial(open3d_search, points, queries),
            "point-cloud-utils": partial(pcu_neighbors, points, queries, threads),
        },
        compare=same_nearest(points, queries),
    )


def scipy_kdtree(points: Float, queries: Float, threads: int) -> Contender:
    from scipy.spatial import cKDTree

    return Contender(lambda: cKDTree(points).query(queries, workers=threads))


def pykdtree_kdtree(points: Float, queries: Float) -> Contender:
    from pykdtree.kdtree import KDTree

    return Contender(lambda: KDTree(points).query(queries))


def open3d_search(points: Float, queries: Float) -> Contender:
    import open3d.core

    data, wanted = open3d.core.Tensor.from_numpy(points), open3d.core.Tensor.from_numpy(queries)

    def run() -> tuple:
        search = open3d.core.nns.NearestNeighborSearch(data)
        search.knn_index()
        return search.knn_search(wanted, 1)

    return Contender(run, lambda found: (np.sqrt(found[1].numpy()[:, 0]), found[0].numpy()[:, 0]))


def pcu_neighbors(points: Float, queries: Float, threads: int) -> Contender:
    import point_cloud_utils

    in_serial_or = 0 if threads == 1 else threads
    return Contender(lambda: point_cloud_utils.k_nearest_neighbors(queries, points, 1, num_threads=in_serial_or))
