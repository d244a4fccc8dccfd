"""Importing Sweet Home 3D furniture libraries."""

from __future__ import annotations

import hashlib
import io
import sys
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from nepa3d import cli
from nepa3d.corpora import sweethome3d
from nepa3d.data import import_sweethome3d
from nepa3d.data.import_sweethome3d import import_furniture, main, read_attribution, slug

OBJ = b"o a\nv 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n"
HEAD = b"id=Shop#Models\nlicense=CC0  for all\nprovider=shop.example\n"

Row = Mapping[str, str]


def entry(original_id: str, model: str, category: str = "Living room", **more: str) -> Row:
    return {"id": original_id, "name": "A thing", "category": category, "model": model, **more}


def write_library(path: Path, rows: list[Row], members: Mapping[str, bytes]) -> Path:
    """A ``.sh3f`` of ``rows`` numbered from 1; an empty value leaves the key out."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [
        f"{key}#{number}={value}" for number, row in enumerate(rows, start=1) for key, value in row.items() if value
    ]
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(sweethome3d.CATALOG, HEAD + "\n".join(lines).encode("latin-1"))
        for name, data in members.items():
            archive.writestr(name, data)
    return path.parent


def zipped(members: Mapping[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


def models(root: Path) -> dict[str, bytes]:
    found = root.glob("*/*/models/model_normalized.obj")
    return {path.relative_to(root).parts[0] + "/" + path.parts[-3]: path.read_bytes() for path in found}


def test_models_land_under_category_and_id_with_their_terms(tmp_path: Path) -> None:
    rows = [
        entry("Blend Swap CC-0#bidet", "/shop/bidet/bidet.obj", license="CC-BY", creator="Ann"),
        entry("Blend Swap CC-0#lamp", "/shop/lamp.obj", category="Lights", name="Caf\\u00e9 lamp"),
        entry("K\\u00fcche#T\xfcr", "shop/d%20oor.obj", category="Doors and windows"),
    ]
    members = {
        "shop/bidet/bidet.obj": OBJ,
        "shop/lamp.obj": OBJ + b"#2",
        "shop/d oor.obj": OBJ,
        "LICENSE.TXT": b"do",
    }
    out = tmp_path / "out"
    result = import_furniture(write_library(tmp_path / "in" / "My-Shop.sh3f", rows, members), out)

    assert result.problems == []
    assert models(out) == {
        "living_room/Blend_Swap_CC_0_bidet": OBJ,
        "lights/Blend_Swap_CC_0_lamp": OBJ + b"#2",
        "doors_and_windows/Kuche_Tur": OBJ,
    }
    bidet, lamp, door = result.imported
    assert (bidet.license, bidet.creator, bidet.library) == ("CC-BY", "Ann", "My-Shop.sh3f")
    assert (lamp.license, lamp.creator, lamp.name) == ("CC0 for all", "shop.example", "Caf\u00e9 lamp")
    assert (door.original_id, door.source) == ("K\u00fcche#T\u00fcr", "shop/d%20oor.obj")
    assert list(read_attribution(out).values()) == sorted(result.imported, key=lambda row: row.path)
    assert (out / "_licenses" / "My_Shop.txt").read_bytes() == b"do"


def test_models_in_nested_zips(tmp_path: Path) -> None:
    rows = [entry("named", "/a/pack.zip!/deep/two.obj"), entry("only", "/a/single.zip")]
    members = {
        "a/pack.zip": zipped({"one.obj": b"x", "deep/two.obj": OBJ}),
        "a/single.zip": zipped({"in/one.obj": OBJ + b"#1", "in/one.mtl": b"m"}),
    }
    import_furniture(write_library(tmp_path / "in" / "a.sh3f", rows, members), tmp_path / "out")
    assert models(tmp_path / "out") == {"living_room/named": OBJ, "living_room/only": OBJ + b"#1"}


def test_broken_entries_are_named_and_the_rest_goes_on(tmp_path: Path) -> None:
    rows = [
        entry("gone", "/gone.obj"),
        entry("collada", "/a.dae"),
        entry("empty", "/empty.obj"),
        entry("pair", "/pair.zip"),
        entry("nozip", "/text.zip"),
        entry("nowhere", "/good.obj", category=""),
        entry("\\u4e16", "/good.obj"),
        entry("good", "/good.obj"),
    ]
    members = {
        "a.dae": b"<>",
        "empty.obj": b"v 0 0 0\n",
        "pair.zip": zipped({"a.obj": OBJ, "b.obj": OBJ}),
        "text.zip": b"text",
        "good.obj": OBJ,
    }
    folder = write_library(tmp_path / "in" / "a.sh3f", rows, members)
    (folder / "b.sh3f").write_bytes(b"not a zip")
    result = import_furniture(folder, tmp_path / "out")

    assert models(tmp_path / "out") == {"living_room/good": OBJ}
    reasons = {f"{problem.library} {problem.entry}": problem.reason for problem in result.problems}
    expected = {
        "a.sh3f #1 gone": "not in the archive",
        "a.sh3f #2 collada": "only OBJ",
        "a.sh3f #3 empty": "without faces",
        "a.sh3f #4 pair": "expected one OBJ file in it, got 2",
        "a.sh3f #5 nozip": "not a readable zip",
        "a.sh3f #6": "the catalog has no category#6",
        "a.sh3f #7": "ASCII letters or digits",
        "b.sh3f (whole library)": "not a readable zip",
    }
    assert reasons.keys() == expected.keys()
    for key, part in expected.items():
        assert part in reasons[key]


def test_damaged_member_is_a_problem(tmp_path: Path) -> None:
    library = tmp_path / "in" / "a.sh3f"
    folder = write_library(
        library,
        [entry("bad", "bad.obj"), entry("good", "good.obj")],
        {"bad.obj": OBJ + b"#bad", "good.obj": OBJ},
    )
    library.write_bytes(library.read_bytes().replace(b"#bad", b"#BAD", 1))
    result = import_furniture(folder, tmp_path / "out")
    assert [row.id for row in result.imported] == ["good"]
    assert "CRC" in result.problems[0].reason


def test_oversized_member_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_library(tmp_path / "in" / "a.sh3f", [entry("a", "a.obj")], {"a.obj": OBJ + b"#" * 10_000})
    monkeypatch.setattr(sweethome3d, "MAX_MEMBER_BYTES", 5_000)
    assert "at most 5000" in import_furniture(folder, tmp_path / "out").problems[0].reason


def test_names_from_a_library_never_leave_the_output_folder(tmp_path: Path) -> None:
    rows = [
        entry("../../../escaped", "/../../evil.obj", category="../../up"),
        entry("/etc/passwd", "../../evil.obj", category="..\\\\..\\\\"),
        entry("C:/x", "../../evil.obj", category="/tmp/y"),
    ]
    folder = write_library(tmp_path / "in" / "..a.sh3f", rows, {"../../evil.obj": OBJ, "LICENSE.TXT": b"do"})
    out = tmp_path / "deep" / "out"
    result = import_furniture(folder, out)
    assert sorted(models(out)) == ["tmp_y/C_x", "up/escaped"]
    assert len(result.problems) == 1
    written = {path for path in tmp_path.rglob("*") if path.is_file()} - set(folder.iterdir())
    assert all(path.is_relative_to(out) for path in written)


def test_equal_ids_get_numbered_in_order(tmp_path: Path) -> None:
    first = [entry("a#b", "x.obj"), entry("a b", "y.obj", category="Office"), entry("a_B", "x.obj")]
    write_library(tmp_path / "in" / "1.sh3f", first, {"x.obj": OBJ, "y.obj": OBJ + b"#y"})
    folder = write_library(tmp_path / "in" / "2.sh3f", [entry("a#b", "z.obj")], {"z.obj": OBJ + b"#z"})
    import_furniture(folder, tmp_path / "out")
    assert models(tmp_path / "out") == {
        "living_room/a_b": OBJ,
        "office/a_b_2": OBJ + b"#y",
        "living_room/a_B_3": OBJ,
        "living_room/a_b_4": OBJ + b"#z",
    }


def test_second_call_keeps_models_and_limit_keeps_the_table(tmp_path: Path) -> None:
    rows = [entry("a", "a.obj"), entry("b", "b.obj")]
    folder = write_library(tmp_path / "in" / "1.sh3f", rows, {"a.obj": OBJ, "b.obj": OBJ})
    out = tmp_path / "out"
    assert [row.id for row in import_furniture(folder, out, limit=1).imported] == ["a"]
    kept = out / "living_room" / "a" / "models" / "model_normalized.obj"
    kept.write_bytes(OBJ + b"#kept")

    result = import_furniture(folder, out)
    assert ([row.id for row in result.kept], [row.id for row in result.imported]) == (["a"], ["b"])
    assert kept.read_bytes() == OBJ + b"#kept"
    table = (out / "attribution.csv").read_bytes()
    import_furniture(folder, out, limit=1)
    assert (out / "attribution.csv").read_bytes() == table
    import_furniture(folder, out, overwrite=True)
    assert kept.read_bytes() == OBJ


def test_model_of_another_library_is_not_taken_for_this_one(tmp_path: Path) -> None:
    out = tmp_path / "out"
    import_furniture(write_library(tmp_path / "one" / "1.sh3f", [entry("a", "a.obj")], {"a.obj": OBJ}), out)
    other = write_library(tmp_path / "two" / "2.sh3f", [entry("a", "b.obj")], {"b.obj": OBJ + b"#2"})
    result = import_furniture(other, out)
    assert "holds 1.sh3f:a.obj" in result.problems[0].reason
    import_furniture(other, out, overwrite=True)
    assert models(out) == {"living_room/a": OBJ + b"#2"}
    assert [row.library for row in read_attribution(out).values()] == ["2.sh3f"]


def test_command_reports_and_exit_status(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [entry("a", "a.obj"), entry("gone", "gone.obj")]
    folder = write_library(tmp_path / "in" / "1.sh3f", rows, {"a.obj": OBJ})
    flags = ["--out_root", str(tmp_path / "out"), "--furniture_root", str(folder)]
    assert main(flags) == cli.EXIT_SOME_FAILED
    said = capsys.readouterr()
    assert "failed: 1.sh3f #2 gone: gone.obj: not in the archive" in said.err
    assert ["living_room", "1", "0"] in [line.split() for line in said.out.splitlines()]
    assert main([*flags, "--limit", "1"]) == cli.EXIT_OK
    assert main([*flags, "--limit", "-1"]) == cli.EXIT_USAGE
    assert main([*flags[:3], str(tmp_path / "out")]) == cli.EXIT_USAGE


def test_foreign_attribution_table_is_refused(tmp_path: Path) -> None:
    folder = write_library(tmp_path / "in" / "1.sh3f", [entry("a", "a.obj")], {"a.obj": OBJ})
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "attribution.csv").write_text("who,what\n")
    with pytest.raises(ValueError, match="expected the columns category"):
        import_furniture(folder, tmp_path / "out")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Blend Swap CC-0#bidet", "Blend_Swap_CC_0_bidet"),
        ("..", ""),
        ("\u00c9t\u00e9 42", "Ete_42"),
        ("a__b", "a_b"),
    ],
)
def test_slug(text: str, expected: str) -> None:
    assert slug(text) == expected


def fake_tool(folder: Path, name: str, script: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """apt and dpkg that hand out a package of one library, and note their downloads in apt-get.log."""
    folder = tmp_path / "tools"
    folder.mkdir()
    with tarfile.open(folder / "package", "w") as archive:
        for name in ("furniture/1.sh3f", "furniture/notes.txt", "sweethome3d"):
            entry = tarfile.TarInfo(f"./usr/share/sweethome3d/{name}")
            entry.size = 2
            archive.addfile(entry, io.BytesIO(b"z\n"))
    digest = hashlib.sha256((folder / "package").read_bytes()).hexdigest()
    described = f"Filename: pool/s/sweethome3d-furniture_1_all.deb\\nSize: 9\\nSHA256: {digest}\\n"
    fake_tool(folder, "apt-cache", f"printf '{described}'")
    fake_tool(folder, "apt-get", 'echo "$@" >> "$0.log"; cp "${0%/*}/package" sweethome3d-furniture_1_all.deb')
    fake_tool(folder, "dpkg-deb", 'cat "$2"')
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.setattr(sweethome3d, "find_furniture", lambda explicit=None: None)
    return folder


def test_fetch_unpacks_once(tools: Path, tmp_path: Path) -> None:
    folder = tmp_path / "downloads"
    found = sweethome3d.fetch_furniture(folder)
    assert [path.name for path in found.iterdir()] == ["1.sh3f"]
    assert sweethome3d.fetch_furniture(folder) == found
    assert (tools / "apt-get.log").read_text() == "download sweethome3d-furniture\n"
    kept = sorted(path.name for path in folder.iterdir())
    assert kept == ["sweethome3d-furniture", "sweethome3d-furniture_1_all.deb"]


def test_fetch_says_why_it_failed(tools: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "downloads"
    fake_tool(tools, "apt-get", "echo 'E: Unable to locate package' >&2; exit 100")
    with pytest.raises(OSError, match="status 100: E: Unable to locate"):
        sweethome3d.fetch_furniture(folder)
    fake_tool(tools, "apt-get", "echo cut > sweethome3d-furniture_1_all.deb")
    with pytest.raises(OSError, match="expected SHA-256"):
        sweethome3d.fetch_furniture(folder)
    monkeypatch.setenv("PATH", f"{tmp_path / 'nothing'}")
    with pytest.raises(OSError, match="needs apt-get"):
        sweethome3d.fetch_furniture(folder)
    assert not (folder / "sweethome3d-furniture").exists()


def test_furniture_folder_is_the_named_one_or_the_installed_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweethome3d, "INSTALLED_FURNITURE", tmp_path)
    assert sweethome3d.find_furniture() is None
    with pytest.raises(ValueError, match="furniture_root"):
        sweethome3d.find_furniture(tmp_path)
    (tmp_path / "a.sh3f").write_bytes(b"")
    assert sweethome3d.find_furniture() == sweethome3d.find_furniture(tmp_path) == tmp_path


def test_without_furniture_the_command_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sweethome3d, "INSTALLED_FURNITURE", tmp_path)
    assert import_sweethome3d.main(["--out_root", str(tmp_path / "out")]) == cli.EXIT_USAGE
    assert "--fetch DIR" in capsys.readouterr().err


def test_missing_reader_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_library(tmp_path / "in" / "1.sh3f", [entry("a", "a.obj")], {"a.obj": OBJ})
    monkeypatch.setitem(sys.modules, "javaproperties", None)
    with pytest.raises(ValueError, match=r"pip install 'nepa3d\[demo\]'"):
        import_furniture(folder, tmp_path / "out")
