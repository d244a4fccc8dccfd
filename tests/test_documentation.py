"""The documentation: its commands exist with their flags, its links lead to files, its examples run."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import json
import re
import shlex
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from nepa3d import cli
from nepa3d.analysis import compare, tables
from nepa3d.cli.commands import COMMANDS
from nepa3d.cli.flags import flags
from nepa3d.corpora.layouts import LAYOUTS
from nepa3d.data import preprocess_meshes
from nepa3d.execution.files import write_json
from nepa3d.models.embedding import ProbeRequest, open_probe, shapes_of
from nepa3d.probes.embedding import EmbeddingSettings, View
from nepa3d.probes.table import PROBES, read_result
from nepa3d.report.page import main as report
from tests.data.corpus import SMALL, TETRAHEDRON

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
MODULES = {module for module, _ in COMMANDS.values()}
FENCED = re.compile(r"^( *)```(\w*)\n(.*?)^\1```", re.MULTILINE | re.DOTALL)


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a page in one language, without their indentation."""
    found = FENCED.findall(page.read_text(encoding="utf-8"))
    return [re.sub(f"^{indent}", "", body, flags=re.MULTILINE) for indent, kind, body in found if kind == language]


def commands(page: Path) -> list[tuple[str, list[str]]]:
    """The modules that a page's command lines start, with their arguments."""
    found = []
    for block in blocks(page, ""):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if "-m" in words and words[words.index("-m") + 1].startswith("nepa3d"):
                at = words.index("-m") + 1
                found.append((words[at], words[at + 1 :]))
            elif words and words[0] == "nepa3d" and len(words) > 1 and not words[1].startswith("-"):
                found.append((COMMANDS[words[1]][0], words[2:]))
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_command_line_names_a_module_and_flags_that_exist(page: Path) -> None:
    for module, arguments in commands(page):
        assert module in MODULES, module
        known = flags(importlib.import_module(module).Config).keys() | {"config"}
        given = {word.removeprefix("--").partition("=")[0] for word in arguments if word.startswith("--")}
        assert given <= known, f"{module}: {given - known}"


def test_the_pages_show_commands() -> None:
    assert sum(len(commands(page)) for page in PAGES) >= 30


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_named_commands_and_python_blocks_are_sound(page: Path) -> None:
    named = set(re.findall(r"`nepa3d ([a-z][a-z0-9-]*)", page.read_text(encoding="utf-8")))
    assert named <= COMMANDS.keys()
    for block in blocks(page, "python"):
        ast.parse(f"{{{block}}}" if block.startswith('"') and not block.startswith('"""') else block)


def test_every_page_is_in_the_navigation_and_links_lead_to_files() -> None:
    site = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    listed = set(re.findall(r"[\w/]+\.md", json.dumps(site["nav"])))
    assert listed == {page.relative_to(ROOT / "docs").as_posix() for page in PAGES if ROOT / "docs" in page.parents}
    for page in PAGES:
        for link in re.findall(r"\]\(([^)#\s]+)", FENCED.sub("", page.read_text(encoding="utf-8"))):
            assert (page.parent / link).is_file(), f"{page.name}: {link}"


def example(name: str, begins: str, folder: Path) -> ModuleType:
    """The module of docs/extending.md that begins with these words."""
    code = next(block for block in blocks(ROOT / "docs" / "extending.md", "python") if block.startswith(begins))
    (folder / f"{name}.py").write_text(code, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(name, folder / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def _no_examples_left(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("parts", "class_agreement"):
        monkeypatch.delitem(sys.modules, name, raising=False)


def test_the_corpus_of_the_example_is_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = example("parts", '"""Meshes in <parts_root>', tmp_path)
    monkeypatch.setitem(LAYOUTS, "parts", module.parts)
    vertices = [line.split()[1:] for line in TETRAHEDRON.format(1).splitlines() if line.startswith("v")]
    corners = [int(word) - 1 for line in TETRAHEDRON.splitlines() if line.startswith("f") for word in line.split()[1:]]
    facets = ["vertex " + " ".join(vertices[corner]) for corner in corners]
    loops = "".join(
        "facet normal 0 0 0\nouter loop\n" + "\n".join(facets[i : i + 3]) + "\nendloop\nendfacet\n"
        for i in range(0, len(facets), 3)
    )
    for split, name in (("train", "one"), ("test", "two")):
        path = tmp_path / "parts" / split / "bolt" / f"{name}.stl"
        path.parent.mkdir(parents=True)
        path.write_text(f"solid\n{loops}endsolid\n", encoding="utf-8")
    arguments = ["--mesh_root", f"{tmp_path / 'parts'}", "--out_root", f"{tmp_path / 'cache'}", "--workers", "1"]
    assert preprocess_meshes.main([*arguments, "--layout", "parts", *SMALL]) == cli.EXIT_OK
    made = sorted(path.relative_to(tmp_path / "cache").as_posix() for path in (tmp_path / "cache").glob("*/*/*.npz"))
    assert made == ["test/bolt/two.npz", "train/bolt/one.npz"]


def test_the_probe_of_the_example_is_one_row(
    tmp_path: Path, golden: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Tables, comparison and report know its results by that row."""
    module = example("class_agreement", '"""Class agreement', tmp_path)
    monkeypatch.setitem(PROBES, "agreement", module.AGREEMENT)
    paths = {}
    for name in ("nepa_qa", "mae_v1"):
        probe = open_probe(ProbeRequest(f"{name}.pt"))
        result = module.measure(probe, shapes_of("cache", "test"), View("mesh", 0), EmbeddingSettings())
        assert 0 <= result.figures["agreement"] <= 1 and 0 <= module.chance(result) <= 1 and result.failed == {}
        paths[name] = tmp_path / "results" / f"{name}.json"
        write_json(paths[name], result.to_json())
        assert read_result(paths[name]) == result
    assert tables.main(["--results", *map(str, paths.values())]) == cli.EXIT_OK
    assert "Class agreement" in capsys.readouterr().out
    assert compare.main(["--first", f"{paths['nepa_qa']}", "--second", f"{paths['mae_v1']}"]) == cli.EXIT_OK
    assert capsys.readouterr().out.splitlines()[2].startswith("agreement")
    assert report([f"{tmp_path / 'results'}", "--split", "test"]) == cli.EXIT_OK
    text = (tmp_path / "results" / "report.html").read_text(encoding="utf-8")
    assert '<section id="agreement">' in text and "<h3>Class agreement</h3>" in text
    assert "Class agreement: <b" in text and "a random neighbour" in text
    assert (tmp_path / "results" / "report" / "agreement.png").is_file()
