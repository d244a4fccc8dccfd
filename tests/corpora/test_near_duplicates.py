"""Near-duplicates: found at any quarter turn, told from merely similar shapes, and listed for an evaluation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nepa3d import cli
from nepa3d.corpora.near_duplicates import DuplicateSettings, ball, fields, near_duplicates
from nepa3d.corpora.solids import box, rod, union
from nepa3d.data import near_duplicates as command
from nepa3d.probes.search import read_names
from nepa3d.shapes.cache import CacheError
from nepa3d.shapes.query_pools import PoolSettings
from nepa3d.shapes.shape import Shape

POOLS = PoolSettings(pc_points=2048, pt_pool=16, ray_pool=0, no_pc_rays=True, no_udf=True)
TABLE = union([box([0, 0.5, 0], [2, 0.1, 1]), rod([0, -0.5, 0], [0, 0.5, 0], 0.1)])
CORPUS = {
    "train/table/turned": (TABLE.vertices[:, [2, 1, 0]] * [3, 3, -3], TABLE.faces),  # a quarter turn, and larger
    "train/table/wide": (TABLE.vertices * [1, 1, 1.5], TABLE.faces),
    "train/rods/rod": tuple(rod([0, -1, 0], [0, 1, 0], 0.1)),
    "test/table/table": tuple(TABLE),
    "test/rods/thick": tuple(rod([0, -1, 0], [0, 1, 0], 0.3)),
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("cache")
    for key, mesh in CORPUS.items():
        Shape.from_mesh(mesh, key=key, settings=POOLS).save(root / f"{key}.npz")
    return root


def test_a_turned_copy_is_found_at_its_heading_only(cache: Path) -> None:
    table, others = [cache / "test/table/table.npz"], [cache / "train/table/wide.npz", cache / "train/table/turned.npz"]
    (twin,) = near_duplicates(table, others)
    assert (twin.row, twin.other) == (0, 1) and twin.degrees in (90, 270)
    assert 0 < twin.difference < 0.006  # two draws of samples of one surface
    assert near_duplicates(table, others, DuplicateSettings(headings=1)) == []
    (wide,) = near_duplicates(table, others[:1], DuplicateSettings(tolerance=0.2, headings=1))
    assert wide.difference > 0.02


def test_differences_are_the_mean_over_the_points(cache: Path) -> None:
    """By plain loops over samples and points, and no more than the Hausdorff distance."""
    paths = [cache / "test/rods/thick.npz", cache / "train/rods/rod.npz"]
    settings = DuplicateSettings(tolerance=1, headings=1, points=40)
    (twin,) = near_duplicates(paths[:1], paths[1:], settings)
    thick, thin = (Shape.from_cache(path)["pc_xyz"].astype(float) for path in paths)
    gaps = [
        abs(np.linalg.norm(thick - point, axis=1).min() - np.linalg.norm(thin - point, axis=1).min())
        for point in ball(40)
    ]
    assert twin.difference == pytest.approx(np.mean(gaps), abs=1e-5)
    apart = np.linalg.norm(thick[:, None] - thin, axis=2)
    assert twin.difference <= max(apart.min(0).max(), apart.min(1).max())
    assert (np.linalg.norm(ball(500), axis=1) <= 1 + 1e-6).all()
    assert fields(paths, ball(40), [0.0, 1.0]).shape == (2, 2, 40)


def test_the_command_lists_what_an_evaluation_leaves_out(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "names.txt"
    assert command.main(["--cache_root", f"{cache}", "--list_file", f"{out}"]) == cli.EXIT_OK
    printed = capsys.readouterr().out
    assert "1 of 2 objects of test are in train, too, within 0.02" in printed and "train/table/turned" in printed
    assert read_names(out, "exclude") == ["table/table"]
    assert "# train/table/turned, 0.00" in out.read_text()
    assert command.main(["--cache_root", f"{cache}", "--tolerance", "0"]) == cli.EXIT_OK
    assert "0 of 2 objects" in capsys.readouterr().out


def test_bad_input_is_named(cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--cache_root", f"{cache}", "--among", "train", "test"]) == cli.EXIT_USAGE
    assert "among must be splits other than test, got 'train test'" in capsys.readouterr().err
    assert command.main(["--cache_root", f"{cache}", "--among", "val"]) == cli.EXIT_USAGE
    assert "val" in capsys.readouterr().err
    with pytest.raises(ValueError, match="tolerance must be at least 0, got -1"):
        DuplicateSettings(tolerance=-1)
    with pytest.raises(ValueError, match="points must be at least 1, got 0"):
        DuplicateSettings(points=0)
    damaged = tmp_path / "damaged.npz"
    damaged.write_bytes(b"PK")
    with pytest.raises(CacheError, match=r"damaged\.npz"):
        near_duplicates([damaged], [cache / "train/rods/rod.npz"])
