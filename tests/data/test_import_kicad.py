"""Importing KiCad's 3D packages: classes, groups, splits, terms, and the package that they come from."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest

from nepa3d import cli
from nepa3d.corpora import debian_package, kicad
from nepa3d.corpora.kicad import family, groups, outline, read_terms, terms_of
from nepa3d.corpora.listed import listed
from nepa3d.data import import_kicad, preprocess_meshes
from nepa3d.data.import_kicad import main, read_attribution
from tests.data.corpus import SMALL

NOTICE = """Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Comment: with an exception
 that takes lines

Files: *
Copyright: 2018-2022, KiCad Community
License: CC-BY-SA-4.0-with-exception

Files: Relay.3dshapes/R?lay_*.step
 Relay.3dshapes/Relay_Two_1.wrl
Copyright: 2017, A
 2018, B
License: GPL-3+

License: GPL-3+
 This package is free software.
"""


def model(size: float, faces: int = 4) -> bytes:
    """A pyramid of ``size``, its last face ``faces - 3`` times, so that sizes and counts tell outlines apart."""
    index = "0 2 1 -1 0 1 3 -1 0 3 2 -1 " + "1 2 3 -1 " * (faces - 3)
    points = f"0 0 0 1 0 0 0 2 0 0 0 {size}"
    face_set = f"IndexedFaceSet {{ coord Coordinate {{ point [{points}] }} coordIndex [{index}] }}"
    return f"#VRML V2.0 utf8\nShape {{ geometry {face_set} }}\n".encode()


def shapes() -> dict[str, bytes]:
    """Relay: four groups of two. Header: four groups in two folders. Tiny: two groups. Three files are of no use."""
    found = {}
    for k, word in enumerate(("One", "Two", "Three", "Four")):
        for number in (1, 2):
            found[f"Relay.3dshapes/Relay_{word}_{number}.wrl"] = model(3 + 2 * k + number, 4 + k)
            found[f"Header_{number}.27mm.3dshapes/Header_{word}_P{number}.27mm.wrl"] = model(30 + 2 * k + number, 9 + k)
    found["Tiny.3dshapes/Tiny_A.wrl"] = model(90, 40)
    found["Tiny.3dshapes/Tiny_B.wrl"] = model(90, 41)
    found["Relay.3dshapes/Relay_Copy_1.wrl"] = b"#VRML V2.0 utf8\n# again\n" + model(4, 4)[16:]
    found["Relay.3dshapes/Relay_Broken.wrl"] = model(4)[:-9]
    found["Relay.3dshapes/Relay_Sphere.wrl"] = b"#VRML V2.0 utf8\nShape { geometry Sphere { } }\n"
    found["Relay.3dshapes/Relay_Empty.wrl"] = b"#VRML V2.0 utf8\n"
    return found


def write(root: Path) -> tuple[Path, Path]:
    for name, content in shapes().items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    (root / "copyright").write_text(NOTICE, encoding="utf-8")
    return root, root / "copyright"


def flags(tmp_path: Path, *more: str) -> list[str]:
    root, notice = write(tmp_path / "in")
    given = ["--kicad_root", f"{root}", "--copyright_file", f"{notice}", "--min_models", "4"]
    return [*given, "--out_root", f"{tmp_path / 'out'}", *more]


def test_the_corpus_its_splits_and_its_terms(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(flags(tmp_path)) == cli.EXIT_SOME_FAILED
    said = capsys.readouterr()
    out = tmp_path / "out"
    rows = {row.key: row for row in read_attribution(out).values()}
    assert len(rows) == 16
    for row in rows.values():
        assert (out / row.path).read_bytes() == shapes()[row.source]
    assert {row.category for row in rows.values()} == {"Relay", "Header"}
    assert rows["Header/Header_One_P2.27mm"].source == "Header_2.27mm.3dshapes/Header_One_P2.27mm.wrl"
    sides: dict[str, set[str]] = {}
    for row in rows.values():
        sides.setdefault(row.group, set()).add(row.split)
    assert len(sides) == 8 and all(len(splits) == 1 for splits in sides.values())
    for name in ("Relay", "Header"):
        assert sum(row.split == "test" for row in rows.values() if row.category == name) == 2
    assert rows["Relay/Relay_Two_1"].license == "GPL-3+"
    assert rows["Relay/Relay_Two_1"].copyright == "2017, A 2018, B"
    assert rows["Relay/Relay_Two_2"].license == "CC-BY-SA-4.0-with-exception"
    assert (out / "_licenses" / "kicad-packages3d.txt").read_text("utf-8") == NOTICE

    assert "left out: class Tiny: 2 models in 2 groups" in said.out
    assert "left out: 1 copies of another model's geometry" in said.out
    assert ["Relay", "8", "0", "4", "6", "2"] in [line.split() for line in said.out.splitlines()]
    for part in ("Relay_Broken.wrl: ", "the file ends inside", "'Sphere' is not supported", "a model without a face"):
        assert part in said.err
    assert said.err.count("failed: ") == 3

    again = {path: path.stat().st_mtime_ns for path in out.glob("*/*.wrl")}
    assert main(flags(tmp_path)) == cli.EXIT_SOME_FAILED  # keeps what is there
    assert ["Relay", "0", "8", "4", "6", "2"] in [line.split() for line in capsys.readouterr().out.splitlines()]
    assert {path: path.stat().st_mtime_ns for path in out.glob("*/*.wrl")} == again


def test_the_cache_has_the_splits_and_the_groups(tmp_path: Path) -> None:
    main(flags(tmp_path))
    out, cache = tmp_path / "out", tmp_path / "cache"
    command = ["--layout", "listed", "--mesh_root", f"{out}", "--out_root", f"{cache}", "--workers", "1", *SMALL]
    assert preprocess_meshes.main(command) == cli.EXIT_OK
    rows = read_attribution(out).values()
    made = {f"{path.parts[-3]} {path.parts[-2]}/{path.stem}" for path in cache.glob("*/*/*.npz")}
    assert made == {f"{row.split} {row.key}" for row in rows}
    for split in ("train", "test"):
        of_split = {row.key: row.group for row in rows if row.split == split}
        assert json.loads((cache / "_meta" / f"objects_{split}.json").read_text("utf-8")) == of_split
        assert json.loads((cache / "_splits" / f"{split}_keys.json").read_text("utf-8"))["keys"] == sorted(of_split)


def test_a_limit_and_what_cannot_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(flags(tmp_path, "--limit", "3"))
    assert len(list((tmp_path / "out").glob("*/*.wrl"))) == len(read_attribution(tmp_path / "out")) == 3
    for wrong, said in (
        (("--limit", "-1"), "limit: expected 0"),
        (("--min_groups", "1"), "min_groups: expected 2"),
        (("--test_ratio", "1"), "test_ratio must lie between 0 and 1"),
        (("--min_models", "100"), "has enough groups and models"),
        (("--kicad_root", f"{tmp_path}"), "expected a folder with *.3dshapes/*.wrl"),
        (("--copyright_file", f"{tmp_path / 'none'}"), "expected the package's copyright file"),
    ):
        capsys.readouterr()
        assert main(flags(tmp_path, *wrong)) == cli.EXIT_USAGE
        assert said in capsys.readouterr().err


def test_families_and_groups() -> None:
    assert family("PinHeader_1x05_P2.54mm") == family("PinHeader_2x12_P1.27mm") == "pinheader_x_pmm"
    assert family("MC_1,5_9-GF-3.81_Pin1Left") == family("MC_1,5_11-GF-3.5_Pin1Right") == "mc_gf_pin"
    assert family("SOT-23") != family("TO-92")
    #                     a and c by the first sort, c and d by the second
    assert groups(["a", "b", "c", "d", "a"], ["1", "2", "1", "3", "4"], ["5", "6", "7", "7", "8"]) == list("abaaa")


def test_outlines_of_what_is_nearly_the_same() -> None:
    faces = np.array([[0, 1, 2], [0, 1, 3]])
    points = np.array([[0, 0, 0], [1, 0, 0], [0, 2, 0], [0, 0, 4], [9, 9, 9]], float)
    assert outline(points, faces) == outline(points[:, ::-1] * 7.002, faces)
    assert outline(points, faces) == "2 [-70, -35, 0]"  # 1.02^-35 = 0.500
    assert outline(points * [1, 1, 0], faces).startswith("2 [-698, ")  # flat
    slender = points * [0.004, 0.004, 1]
    assert outline(slender, faces) != outline(slender * [1, 1.1, 1], faces)
    assert outline(points, faces[:1]) != outline(points, faces) != outline(points * [1, 1.1, 1], faces)
    with pytest.raises(ValueError, match="without a face"):
        outline(points, faces[:0])
    with pytest.raises(ValueError, match="without extent"):
        outline(points * 0, faces)


def test_the_last_stanza_counts() -> None:
    terms = read_terms(NOTICE)
    assert len(terms) == 2
    assert terms_of("Relay.3dshapes/Relay_x.step", terms).license == "GPL-3+"
    assert terms_of("Relay.3dshapes/Relay_x.wrl", terms).copyright == "2018-2022, KiCad Community"
    with pytest.raises(ValueError, match="says nothing of it"):
        terms_of("a/b", terms[1:])


# The package


def tool(folder: Path, name: str, script: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def package(path: Path) -> str:
    """A tar in place of a package, as the fake dpkg-deb prints what it is given; its SHA-256."""
    members = {f"./usr/share/kicad/3dmodels/{name}": content for name, content in shapes().items()}
    members["./usr/share/doc/kicad-packages3d/copyright"] = NOTICE.encode()
    members["./usr/share/kicad/3dmodels/Relay.3dshapes/Relay_One_1.step"] = b"not wanted"
    members["./usr/share/kicad/3dmodels/../../../../escaped.wrl"] = b"not wanted"
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
        link = tarfile.TarInfo("./usr/share/kicad/3dmodels/Relay.3dshapes/link.wrl")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """apt and dpkg that hand out a small package, and note their downloads in apt-get.log."""
    folder = tmp_path / "tools"
    folder.mkdir()
    digest = package(folder / "package")
    described = f"Package: kicad-packages3d\\nFilename: pool/k/kicad_1_all.deb\\nSize: 9\\nSHA256: {digest}\\n"
    tool(folder, "apt-cache", f"printf '{described}'")
    tool(folder, "apt-get", 'echo "$@" >> "$0.log"; cp "${0%/*}/package" kicad_1_all.deb')
    tool(folder, "dpkg-deb", 'cat "$2"')
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.setattr(import_kicad, "INSTALLED_MODELS", tmp_path / "none")
    monkeypatch.setattr(kicad, "INSTALLED_MODELS", Path("/usr/share/kicad/3dmodels"))
    return folder


def test_a_package_is_fetched_once_and_unpacked_in_part(tools: Path, tmp_path: Path) -> None:
    command = ["--fetch", f"{tmp_path / 'downloads'}", "--min_models", "4", "--out_root", f"{tmp_path / 'out'}"]
    for _ in range(2):
        assert main(command) == cli.EXIT_SOME_FAILED
    assert (tools / "apt-get.log").read_text() == "download kicad-packages3d\n"
    unpacked = tmp_path / "downloads" / "kicad-packages3d"
    files = {path.relative_to(unpacked / "usr/share").as_posix() for path in unpacked.rglob("*") if path.is_file()}
    assert files == {f"kicad/3dmodels/{name}" for name in shapes()} | {"doc/kicad-packages3d/copyright"}
    assert not list(tmp_path.rglob("escaped.wrl"))
    assert sorted(path.name for path in (tmp_path / "downloads").iterdir()) == ["kicad-packages3d", "kicad_1_all.deb"]
    assert len(read_attribution(tmp_path / "out")) == 16


def test_a_damaged_download_is_replaced_or_refused(tools: Path, tmp_path: Path) -> None:
    folder = tmp_path / "downloads"
    archive = debian_package.fetch_archive("kicad-packages3d", folder)
    whole = archive.read_bytes()
    archive.write_bytes(whole[:-1])
    assert debian_package.fetch_archive("kicad-packages3d", folder).read_bytes() == whole
    archive.write_bytes(whole[:-1])
    tool(tools, "apt-get", "echo other > kicad_1_all.deb")
    with pytest.raises(OSError, match=r"kicad_1_all\.deb: expected SHA-256 .*, got "):
        debian_package.fetch_archive("kicad-packages3d", folder)
    tool(tools, "apt-get", "exit 0")
    with pytest.raises(OSError, match="left no kicad_1_all"):
        debian_package.fetch_archive("kicad-packages3d", folder)
    tool(tools, "apt-get", "echo 'E: no network' >&2; exit 100")
    with pytest.raises(OSError, match="status 100: E: no network"):
        debian_package.fetch_archive("kicad-packages3d", folder)
    tool(tools, "apt-cache", "echo Package: a")
    with pytest.raises(OSError, match="got no Filename, SHA256, Size"):
        debian_package.fetch_archive("kicad-packages3d", folder)


@pytest.mark.parametrize("script", ["echo no tar", "exit 2", 'head -c 3000 "$2"'])
def test_a_package_that_cannot_be_unpacked_leaves_nothing(tools: Path, tmp_path: Path, script: str) -> None:
    tool(tools, "dpkg-deb", script)
    with pytest.raises(OSError, match="kicad_1_all"):
        kicad.fetch_models(tmp_path / "downloads")
    assert [path.name for path in (tmp_path / "downloads").iterdir()] == ["kicad_1_all.deb"]


def test_without_the_package_the_command_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(import_kicad, "INSTALLED_MODELS", tmp_path / "none")
    assert main(["--out_root", f"{tmp_path / 'out'}"]) == cli.EXIT_USAGE
    assert "--fetch DIR" in capsys.readouterr().err


def test_lists_that_are_not_of_their_folder(tmp_path: Path) -> None:
    main(flags(tmp_path))
    out = tmp_path / "out"
    assert len(list(listed(out))) == 16
    keys = out / "_splits" / "test_keys.json"
    kept = keys.read_text("utf-8")
    for content, said in (
        (kept.replace("Relay_", "Delay_"), "lists Relay/Delay_.*, a mesh that is not below"),
        ((out / "_splits" / "train_keys.json").read_text("utf-8"), "which is listed before it"),
        ('{"keys": [1]}', 'expected {"keys"'),
        ("[", "not readable as JSON"),
    ):
        keys.write_text(content, encoding="utf-8")
        with pytest.raises(ValueError, match=said):
            list(listed(out))
    keys.unlink()
    with pytest.raises(ValueError, match=r"test_keys\.json: expected this list"):
        list(listed(out))
