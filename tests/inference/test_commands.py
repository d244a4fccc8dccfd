"""nepa3d index and nepa3d search: tables, JSON, pictures, and what they refuse."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("lancedb", reason="needs nepa3d[search]")

from nepa3d import cli
from nepa3d.__main__ import main
from nepa3d.inference.index import Neighbour, ShapeIndex
from nepa3d.inference.shapes_picture import draw_neighbours
from nepa3d.inference.table import Row


@pytest.fixture
def out(shapes: Path, ckpt: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    flags = ["index", f"{shapes}", "--out", f"{tmp_path / 's.lance'}", "--ckpt", f"{ckpt}", "--draws", "1"]
    assert main(flags) == cli.EXIT_OK
    assert capsys.readouterr().out == f"{tmp_path / 's.lance'}: 7 shapes: 7 added\n"
    return tmp_path / "s.lance"


def test_an_index_is_made_updated_and_searched(
    out: Path, shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["index", f"{shapes}", "--out", f"{out}"]) == cli.EXIT_OK  # as it was made
    assert capsys.readouterr().out == f"{out}: 7 shapes: 7 unchanged\n"
    query, written = shapes / "box" / "b1.obj", tmp_path / "found.json"
    flags = [f"{out}", f"{query}", "-k", "3", "--out_json", f"{written}", "--picture", f"{tmp_path / 'found.png'}"]
    assert main(["search", *flags]) == cli.EXIT_OK
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["similarity", "shape", "file"]
    assert lines[2].split() == ["1", "1.000", "box/b1", "box/b1.obj"]
    found = json.loads(written.read_text(encoding="utf-8"))
    expected = ShapeIndex.open(out).search(query, 3)
    assert [near["path"] for near in found["neighbours"]] == [near.path for near in expected]
    assert found["neighbours"][0].keys() == {"id", "path", "class", "similarity"}
    assert (found["folder"], found["view"], found["approximate"]) == (f"{shapes}", "mesh", False)
    assert (tmp_path / "found.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--draws", "2"], "was made with other settings (draws 1 -> 2)"),
        (["--view", "voxel"], "was made with other settings (view mesh -> voxel)"),
        (["--layout", "shapenet"], "was made with other settings (layout folder -> shapenet)"),
        (["--ckpt", "tests/fixtures/golden/mae_v1.pt"], "was made with another model"),
    ],
)
def test_another_index_is_asked_for_other_settings(
    flags: list[str], told: str, out: Path, shapes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = [f"{Path(__file__).parents[2] / flag}" if flag.endswith(".pt") else flag for flag in flags]
    assert main(["index", f"{shapes}", "--out", f"{out}", *flags]) == cli.EXIT_USAGE
    assert told in capsys.readouterr().err


def test_the_approximate_index_is_made_on_request(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of 300 vectors in 5 groups, as 7 shapes need none; looking into every cell is exact."""
    index = ShapeIndex.open(out)
    rng = np.random.RandomState(0)
    vectors = rng.standard_normal((5, index.width)).repeat(60, 0) + 0.3 * rng.standard_normal((300, index.width))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    index.table.put([Row(f"made/{n:03d}.obj", f"made/{n:03d}", "made", "", 0, 0) for n in range(300)], vectors)
    index.make_approximate()
    for row in (0, 150):
        exact = index.search(vectors[row], 10)
        cosines = np.sort(index.entries().vectors @ vectors[row])[::-1][:10]
        np.testing.assert_allclose([near.similarity for near in exact], cosines, atol=1e-5)
        found = index.search(vectors[row], 10, approximate=True, probes=1000)
        assert [near.path for near in found] == [near.path for near in exact]
    assert index.recall(10, probes=1000, queries=20) == 1
    assert 0 <= index.recall(10, probes=1, queries=20) <= 1
    index.table.put([Row("made/late.obj", "made/late", "made", "", 0, 0)], vectors[:1])  # after it was made
    assert {near.path for near in index.search(vectors[0], 2, approximate=True)} == {"made/000.obj", "made/late.obj"}
    flags = [f"{out}", f"{index.folder / 'box' / 'b0.obj'}", "--approximate", "--recall", "-k", "1"]
    capsys.readouterr()
    assert main(["search", *flags]) == cli.EXIT_OK
    assert "recall: the approximate index finds " in capsys.readouterr().out


def test_recall_is_the_share_that_is_found(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Worked by hand: an approximate index that finds the query itself and one of its two neighbours."""
    index = ShapeIndex.open(out)
    nearest = type(index.table).nearest

    def half(self: object, vectors: np.ndarray, k: int, *, approximate: bool = False, probes: int = 0) -> object:
        found = nearest(self, vectors, k)  # type: ignore[arg-type]
        return found._replace(rows=[rows[:2] for rows in found.rows]) if approximate else found

    monkeypatch.setattr(type(index.table), "nearest", half)
    assert index.recall(2, queries=7) == pytest.approx(0.5)


def test_the_view_of_a_cloud_is_recorded_as_it_was_seen(out: Path, shapes: Path, tmp_path: Path) -> None:
    for query, view in (("ball/scan.ply", "pointcloud_noray"), ("box/b0.obj", "mesh")):
        assert (
            main(["search", f"{out}", f"{shapes / query}", "--out_json", f"{tmp_path / 'found.json'}"]) == cli.EXIT_OK
        )
        assert json.loads((tmp_path / "found.json").read_text())["view"] == view


def test_what_is_not_there_is_named(out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["search", f"{tmp_path / 'none.lance'}", "a.obj"]) == cli.EXIT_USAGE
    assert "there is no index here; nepa3d index FOLDER --out" in capsys.readouterr().err
    assert main(["search", f"{out}", f"{tmp_path / 'none.obj'}"]) == cli.EXIT_USAGE
    assert "query: expected the file of a shape" in capsys.readouterr().err
    assert main(["search", f"{out}", "a.obj", "--approximate"]) == cli.EXIT_USAGE
    assert main(["index", f"{tmp_path}", "--out", f"{tmp_path / 'name'}"]) == cli.EXIT_USAGE


def test_a_picture_shows_shapes_that_are_gone_as_gone(shapes: Path, tmp_path: Path) -> None:
    found = [Neighbour("box/b0", "box/b0.obj", "box", 0.9), Neighbour("box/no", "box/no.obj", "box", 0.8)]
    draw_neighbours(tmp_path / "a.png", shapes / "ball" / "scan.ply", shapes, found)
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_without_lancedb_the_command_says_what_to_install(shapes: Path, ckpt: Path, tmp_path: Path) -> None:
    script = "import sys; sys.modules['lancedb'] = None; from nepa3d.__main__ import main; sys.exit(main(sys.argv[1:]))"
    flags = ["index", f"{shapes}", "--out", f"{tmp_path / 's.lance'}", "--ckpt", f"{ckpt}"]
    done = subprocess.run([sys.executable, "-c", script, *flags], capture_output=True, text=True)
    assert done.returncode == cli.EXIT_USAGE
    assert done.stderr == "error: the index needs LanceDB: pip install 'nepa3d[search]'\n"
