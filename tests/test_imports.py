"""The order of the folders: a module imports only from its own folder and from those before it, and in no circle."""

from __future__ import annotations

import ast
import graphlib
from pathlib import Path

import nepa3d

PACKAGE = Path(nepa3d.__file__).parent
ORDER = (
    *("ops", "execution", "cli", "shapes", "corpora", "samples", "models", "probes", "train", "report"),
    *("inference", "data", "analysis", "experiments"),
)
NAMES_OF_THE_DOCUMENT = {"backends", "token"}  # a module each, which leads to where the code is
TOP = {"nepa3d", "nepa3d.__main__"}  # the face and the command line may import everything
OF_ALL = {"nepa3d._core", "nepa3d.__version__"}  # what everything may import from the top


def modules() -> dict[str, Path]:
    """The modules of the package."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(("nepa3d", *parts)).removesuffix(".__init__")] = path
    return found


def imported(path: Path, known: dict[str, Path]) -> set[str]:
    """The modules of the package that a file imports, at its top or later; names of modules that are none stay."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "nepa3d":
            for name in node.names:
                full = f"{node.module}.{name.name}"
                found.add(full if full in known or node.module == "nepa3d" else node.module)
        elif isinstance(node, ast.Import):
            found |= {name.name for name in node.names if name.name.split(".")[0] == "nepa3d"}
    return found


def folder(module: str) -> str:
    return module.split(".")[1]


def test_every_folder_has_its_place() -> None:
    folders = {folder(module) for module in modules() if module not in TOP}
    assert folders - {"configs"} == set(ORDER) | NAMES_OF_THE_DOCUMENT


def test_modules_import_from_their_own_folder_and_those_before_it() -> None:
    known, place = modules(), {name: number for number, name in enumerate(ORDER)}
    for module, path in known.items():
        if module in TOP or folder(module) in (NAMES_OF_THE_DOCUMENT | {"configs"}):
            continue
        for other in imported(path, known) - OF_ALL:
            assert other not in TOP, f"{module} imports {other}"
            assert place[folder(other)] <= place[folder(module)], f"{module} imports {other}"


def test_modules_import_each_other_in_no_circle() -> None:
    known = modules()
    graph = {
        module: {other for other in imported(path, known) & known.keys() if other != module}
        for module, path in known.items()
        if module not in TOP
    }
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


def test_the_data_side_imports_no_torch() -> None:
    for module, path in modules().items():
        if module not in TOP and folder(module) in ("execution", "cli", "shapes", "corpora"):
            text = path.read_text(encoding="utf-8")
            assert "import torch" not in text, module
            assert "from torch" not in text, module


def test_the_modules_that_the_track_document_names_are_there() -> None:
    named = {
        *("data.preprocess_shapenet", "data.preprocess_modelnet40", "data.preprocess_scanobjectnn", "data.dataset"),
        *("data.migrate_add_pt_dist_pc_pool", "data.shapenet_unpaired_split", "data.preprocess_shapenet_unpaired"),
        *("data.mixed_pretrain", "backends.pointcloud_backend", "token.tokenizer", "models.query_nepa"),
        *("models.causal_transformer", "train.pretrain", "train.finetune_cls", "analysis.retrieval_ucpr"),
        "analysis.completion_cpac_udf",
    }
    assert {f"nepa3d.{name}" for name in named} <= modules().keys()
