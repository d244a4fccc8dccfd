"""A cached shape as a table and a picture."""

from __future__ import annotations

from pathlib import Path

import pytest

from nepa3d import cli
from nepa3d.report import view


def test_a_shape(golden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    shape = next(Path("unpaired/eval").glob("*/*.npz"))
    out = tmp_path / "shape.png"
    assert view.main([f"{shape}", "--out_png", f"{out}"]) == cli.EXIT_OK
    said = capsys.readouterr().out
    for name in ("pc_xyz", "pt_dist_pool", "udf_grid", "ray_hit_pool"):
        assert name in said
    assert out.read_bytes().startswith(b"\x89PNG")
    assert out.stat().st_size > 50_000


def test_a_damaged_one(golden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "eval" / "class" / "bad.npz"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"PK")
    assert view.main([f"{path}"]) == cli.EXIT_USAGE
    assert f"{path}: " in capsys.readouterr().err
