"""An index follows its folder, finds what is alike, and refuses what it was not made for."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import trimesh

pytest.importorskip("lancedb", reason="needs nepa3d[search]")

from nepa3d.inference.embedder import Embedder, IndexSettings, fingerprint
from nepa3d.inference.index import ShapeIndex
from nepa3d.inference.table import ShapeTable
from nepa3d.models.encoder import Encoder, load
from nepa3d.shapes.shape import Shape
from tests.conftest import GOLDEN
from tests.inference.conftest import write_box

FEW = IndexSettings(draws=2)


@pytest.fixture(scope="module")
def made(made_shapes: Path, encoder: Encoder, ckpt: Path, tmp_path_factory: pytest.TempPathFactory) -> ShapeIndex:
    index = ShapeIndex.create(
        tmp_path_factory.mktemp("index") / "made.lance", made_shapes, encoder, FEW, ckpt=f"{ckpt}"
    )
    index.update()
    return index


@pytest.fixture
def index(made: ShapeIndex, shapes: Path, encoder: Encoder, tmp_path: Path) -> ShapeIndex:
    """A copy of an index, of a copy of its folder."""
    shutil.copytree(made.path, tmp_path / "shapes.lance")
    copy = ShapeIndex.open(tmp_path / "shapes.lance", encoder)
    copy.table.set_state(copy.table.state() | {"folder": f"{shapes}"})
    return copy


def test_every_shape_has_the_vector_of_its_content(index: ShapeIndex, shapes: Path, encoder: Encoder) -> None:
    entries = index.entries()
    assert entries.paths == sorted(entries.paths) and len(index) == len(entries.paths) == 7
    assert entries.ids[entries.paths.index("box/more/deep.stl")] == "box/more--deep"
    assert entries.classes == ["ball"] * 3 + ["box"] * 4
    assert entries.vectors.shape == (7, encoder.width) and entries.vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(entries.vectors, axis=1), 1, atol=1e-6)
    embedder = Embedder(encoder, FEW)
    for path, vector in zip(entries.paths, entries.vectors, strict=True):  # alone or in a batch
        np.testing.assert_allclose(embedder.vector(shapes / path), vector, atol=1e-5)


def test_several_draws_are_averaged(encoder: Encoder, shapes: Path) -> None:
    shape = Embedder(encoder, FEW).read(shapes / "box" / "b0.obj", "hash").shape
    one, other = (Embedder(encoder, IndexSettings(draws=1, seed=seed)).vector(shape) for seed in (0, 1_000_003))
    both = Embedder(encoder, FEW).vector(shape)
    assert np.abs(one - other).max() > 1e-4
    np.testing.assert_allclose(both, (one + other) / np.linalg.norm(one + other), atol=1e-5)


def test_the_nearest_are_those_of_a_plain_comparison(index: ShapeIndex) -> None:
    entries = index.entries()
    query = np.random.RandomState(0).standard_normal(index.width).astype(np.float32)
    cosines = entries.vectors @ (query / np.linalg.norm(query))
    found = index.search(query, 5)
    assert [near.path for near in found] == [entries.paths[row] for row in np.argsort(-cosines)[:5]]
    np.testing.assert_allclose([near.similarity for near in found], np.sort(cosines)[::-1][:5], atol=1e-5)
    assert found[0].id == entries.ids[entries.paths.index(found[0].path)]
    assert len(index.search(query, 100)) == 7


@pytest.mark.parametrize("length", [1e-40, 1e30])
def test_the_length_of_a_query_does_not_matter(length: float, index: ShapeIndex) -> None:
    query = np.random.RandomState(0).standard_normal(index.width)
    found, wanted = index.search(length * query, 5), index.search(query, 5)
    assert [near.path for near in found] == [near.path for near in wanted]
    np.testing.assert_allclose([near.similarity for near in found], [near.similarity for near in wanted], atol=1e-4)


def test_a_cache_that_lacks_what_its_view_needs_is_named(index: ShapeIndex, shapes: Path) -> None:
    """By its file, not by the hash that its draws depend on."""
    whole = Shape.from_cache(shapes / "ball" / "stool.npz")
    lacking = shapes / "ball" / "lacking.npz"
    np.savez(lacking, **{key: whole[key] for key in whole if key != "pt_dist_pool"})
    with pytest.raises(ValueError, match=rf"^{lacking}: pt_dist_pool is missing$"):
        index.search(lacking)
    assert index.update().failed == {"ball/lacking.npz": "pt_dist_pool is missing"}
    assert len(index) == 7


@pytest.mark.parametrize("name", ["box/b1.obj", "ball/scan.ply", "ball/stool.npz"])
def test_a_file_finds_itself_from_anywhere(name: str, index: ShapeIndex, shapes: Path, tmp_path: Path) -> None:
    copy = tmp_path / f"copy{Path(name).suffix}"
    shutil.copy(shapes / name, copy)
    first = index.search(copy, 1)[0]
    assert first.path == name
    assert first.similarity == pytest.approx(1, abs=1e-5)


def test_a_shape_in_memory_is_sought(index: ShapeIndex, encoder: Encoder) -> None:
    """As ``Encoder.embed`` sees it."""
    box = Shape.from_mesh(trimesh.creation.box((1, 2, 3)), key="box")
    for view in ("mesh", "pointcloud_noray"):
        vector = encoder.embed(box, view, draws=2)[0]
        cosines = index.entries().vectors @ vector
        found = index.search(box, 3, view=view)
        np.testing.assert_allclose([near.similarity for near in found], np.sort(cosines)[::-1][:3], atol=1e-5)


def test_an_update_does_only_what_is_missing(index: ShapeIndex, shapes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = dict(zip(index.entries().paths, index.entries().vectors, strict=True))
    embedded: list[str] = []
    read = Embedder.read

    def noted(self: Embedder, path: Path, sha256: str, view: str | None = None) -> object:
        embedded.append(path.relative_to(shapes).as_posix())
        return read(self, path, sha256, view)

    monkeypatch.setattr(Embedder, "read", noted)
    version = index.table.version
    done = index.update()
    assert (done.unchanged, embedded, index.table.version) == (7, [], version)

    write_box(shapes / "box" / "new.obj", 9)  # added
    write_box(shapes / "box" / "b1.obj", 7)  # changed
    (shapes / "box" / "b0.obj").unlink()  # deleted
    (shapes / "ball" / "mesh.ply").rename(shapes / "box" / "ren'amed ü.ply")
    os.utime(shapes / "box" / "b2.obj", ns=(1, 1))  # touched
    done = index.update()
    assert sorted(embedded) == ["box/b1.obj", "box/new.obj"]
    assert (done.added, done.changed) == (["box/new.obj", "box/ren'amed ü.ply"], ["box/b1.obj"])
    assert done.removed == ["ball/mesh.ply", "box/b0.obj"]
    assert (done.unchanged, done.reused, done.failed) == (4, 1, {})
    assert done.summary() == "2 added, 1 changed, 2 removed, 4 unchanged (1 with a content that was known)"
    after = dict(zip(index.entries().paths, index.entries().vectors, strict=True))
    assert after.keys() == {file.relative_to(shapes).as_posix() for file in shapes.rglob("*.*")}
    np.testing.assert_array_equal(after["box/ren'amed ü.ply"], before["ball/mesh.ply"])
    np.testing.assert_array_equal(after["box/b2.obj"], before["box/b2.obj"])
    assert np.abs(after["box/b1.obj"] - before["box/b1.obj"]).max() > 1e-3
    embedded.clear()
    assert index.update().unchanged == 7 and not embedded  # the touched file's time is known now


def test_contents_that_change_places_keep_their_vectors(index: ShapeIndex, shapes: Path) -> None:
    before = dict(zip(index.entries().paths, index.entries().vectors, strict=True))
    first, other = shapes / "box" / "b0.obj", shapes / "box" / "b2.obj"
    contents = first.read_bytes(), other.read_bytes()
    first.write_bytes(contents[1])
    other.write_bytes(contents[0])
    assert index.update(batch=1).changed == ["box/b0.obj", "box/b2.obj"]
    after = dict(zip(index.entries().paths, index.entries().vectors, strict=True))
    np.testing.assert_allclose(after["box/b0.obj"], before["box/b2.obj"], atol=1e-5)
    np.testing.assert_allclose(after["box/b2.obj"], before["box/b0.obj"], atol=1e-5)


def test_a_file_that_changes_class_has_another_id(index: ShapeIndex, shapes: Path) -> None:
    (shapes / "box").rename(shapes / "crate")
    done = index.update()
    assert (len(done.added), len(done.removed), done.reused) == (4, 4, 4)
    assert set(index.entries().classes) == {"ball", "crate"}


def test_a_folder_that_has_moved(index: ShapeIndex, shapes: Path, tmp_path: Path) -> None:
    shapes.rename(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match=r"folder: .* is not a folder"):
        index.update()
    with pytest.raises(ValueError, match=r"folder: .*shapes\.lance is of .*/shapes, got .*elsewhere; .* --moved"):
        index.update(tmp_path / "elsewhere")
    assert len(index) == 7
    assert index.update(tmp_path / "elsewhere", moved=True).unchanged == 7
    assert ShapeIndex.open(index.path).folder == tmp_path / "elsewhere"
    assert ShapeIndex.open(index.path).update().unchanged == 7


def test_another_model_or_setting_is_refused(index: ShapeIndex, shapes: Path, tmp_path: Path) -> None:
    other = load(GOLDEN / "mae_v1.pt")
    with pytest.raises(ValueError, match=r"shapes\.lance was made with another model than the one that is given"):
        ShapeIndex.open(index.path, other)
    with pytest.raises(ValueError, match=r"other settings \(view mesh -> voxel; draws 2 -> 4\)"):
        index.require_settings(IndexSettings("voxel", 4), "folder")
    index.require_settings(FEW, "folder")
    with pytest.raises(ValueError, match="already exists"):
        ShapeIndex.create(index.path, shapes, other)


def test_a_fingerprint_is_of_all_that_decides_an_embedding(encoder: Encoder, ckpt: Path, tmp_path: Path) -> None:
    again = load(ckpt)
    assert fingerprint(again) == fingerprint(encoder)
    encoder.save(tmp_path / "saved")
    assert fingerprint(load(tmp_path / "saved")) == fingerprint(encoder)  # wherever it lies
    weight = next(iter(again.probe.model.parameters()))
    weight.data.view(-1)[0] += 1e-3
    assert fingerprint(again) != fingerprint(encoder)
    other = load(ckpt)
    other.probe = replace(other.probe, args={**other.probe.args, "voxel_grid": 32})
    assert fingerprint(other) != fingerprint(encoder)


def test_an_index_outlives_new_parts_of_models(golden: Path) -> None:
    """The hash of a version that had not all of today's parts."""
    known = "db1d3d6eb7a3473659a5acb46b0177fd9c0594056c7f72b43c2ea14a2992c85f"
    assert fingerprint(load("nepa_qa.pt", device="cpu")) == known


def test_an_index_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def create_table(self, *_: object, **__: object) -> None:
            raise RuntimeError("lance error: no space left on device")

    monkeypatch.setattr("nepa3d.inference.table._database", lambda path: Full())
    path = tmp_path / "x.lance"
    with pytest.raises(OSError, match=f"{path}: the index cannot be read or written"):
        ShapeTable.create(path, 4, {}, {})


def test_the_model_is_found_where_it_was(index: ShapeIndex, shapes: Path, tmp_path: Path) -> None:
    ckpt = tmp_path / "model.pt"
    shutil.copy(GOLDEN / "nepa_v1.pt", ckpt)
    index.table.set_state(index.table.state() | {"ckpt": f"{ckpt}"})
    assert ShapeIndex.open(index.path).search(shapes / "box" / "b0.obj", 1)[0].path == "box/b0.obj"
    shutil.copy(GOLDEN / "mae_v1.pt", ckpt)
    with pytest.raises(ValueError, match=r"another model than the one at .*model\.pt"):
        ShapeIndex.open(index.path).search(shapes / "box" / "b0.obj")
    ckpt.unlink()
    with pytest.raises(ValueError, match=r"model\.pt: expected a checkpoint"):
        ShapeIndex.open(index.path).search(shapes / "box" / "b0.obj")


def test_wrong_requests_are_named(index: ShapeIndex, tmp_path: Path) -> None:
    for wrong, told in (
        ({"k": 0}, "k must be at least 1, got 0"),
        ({"probes": -1}, "probes must be at least 0"),
        ({"approximate": True}, "has no approximate index: make it with nepa3d index --approximate"),
    ):
        with pytest.raises(ValueError, match=told):
            index.search(np.ones(index.width), **wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=rf"finite vector of shape \({index.width},\), got \(3,\)"):
        index.search(np.ones(3))
    with pytest.raises(ValueError, match="query: expected a finite vector, got one with values that are not finite"):
        index.search(np.full(index.width, np.nan))
    with pytest.raises(ValueError, match="query: expected a vector with a direction, got one of length 0"):
        index.search(np.zeros(index.width))
    with pytest.raises(ValueError, match="query: expected the file of a shape"):
        index.search(tmp_path / "none.obj")
    with pytest.raises(ValueError, match="view must be one of mesh"):
        index.search(tmp_path / "shapes" / "box" / "b0.obj", view="other")
    with pytest.raises(ValueError, match="an approximate index needs 256 shapes, there are 7"):
        index.make_approximate()
    with pytest.raises(ValueError, match="batch must be at least 1"):
        index.update(batch=0)
    with pytest.raises(ValueError, match="draws must be at least 1"):
        IndexSettings(draws=0)
    for name, told in (("none.lance", "there is no index here"), ("shapes", r"a name that ends in \.lance")):
        with pytest.raises(ValueError, match=told):
            ShapeIndex.open(tmp_path / name)


def test_a_table_of_something_else_is_refused(tmp_path: Path, encoder: Encoder, shapes: Path) -> None:
    import lancedb

    lancedb.connect(tmp_path).create_table("other", [{"vector": [1.0, 2.0]}])
    with pytest.raises(ValueError, match=r"other\.lance: a LanceDB table, but not one that nepa3d index made"):
        ShapeIndex.open(tmp_path / "other.lance")


def test_an_index_whose_creation_was_cut_off_is_made_anew(
    tmp_path: Path, encoder: Encoder, ckpt: Path, shapes: Path
) -> None:
    (tmp_path / "cut.lance" / "_versions").mkdir(parents=True)
    with pytest.raises(ValueError, match="there is no index here"):
        ShapeIndex.open(tmp_path / "cut.lance", encoder)
    made = ShapeIndex.create(tmp_path / "cut.lance", shapes, encoder, FEW, ckpt=f"{ckpt}")
    assert made.update().added
    assert len(ShapeIndex.open(tmp_path / "cut.lance", encoder)) == len(made) > 0
