"""Agreement of voxel rays and mesh rays, beside a loop over single rays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nepa3d.corpora.shape_list import list_shapes
from nepa3d.probes.ray_quality import ray_agreement
from nepa3d.shapes.answers import VoxelSettings
from nepa3d.shapes.views import read_answers


def test_beside_a_loop_over_rays(golden: Path) -> None:
    paths = list_shapes("unpaired", "eval")[:2]
    (found,) = ray_agreement(paths, [24], dilate=0)
    same, false, missed, errors, cosines = [], [], [], [], []
    for path in paths:
        mesh, voxel = read_answers(path, "mesh"), read_answers(path, "voxel", VoxelSettings(24, 0))
        for ray in range(len(mesh.ray_hit)):
            true, walked = mesh.ray_hit[ray] == 1, voxel.ray_hit[ray] == 1
            same.append(true == walked)
            (missed if true else false).append(walked != true)
            if true and walked:
                errors.append(abs(mesh.ray_t[ray] - voxel.ray_t[ray]))
                cosines.append(abs(float(mesh.ray_normal[ray] @ voxel.ray_normal[ray])))
    assert found.rays == len(same)
    assert found.hit_agreement == pytest.approx(np.mean(same))
    assert found.false_hits == pytest.approx(np.mean(false))
    assert found.missed_hits == pytest.approx(np.mean(missed))
    assert found.t_error == pytest.approx(np.median(errors), rel=1e-6)
    assert found.t_error_95 == pytest.approx(np.quantile(errors, 0.95), rel=1e-6)
    assert found.normal_cosine == pytest.approx(np.mean(cosines), rel=1e-5)


def test_finer_cells_find_hits_nearer(golden: Path) -> None:
    coarse, fine = ray_agreement(list_shapes("unpaired", "eval")[:2], [8, 32])
    assert coarse.t_error is not None and fine.t_error is not None
    assert fine.t_error < coarse.t_error
    assert fine.false_hits < coarse.false_hits
    with pytest.raises(ValueError, match="paths must name at least one shape"):
        ray_agreement([], [8])
