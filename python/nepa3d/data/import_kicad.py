"""KiCad's 3D packages as a corpus of labelled meshes; its split keeps variants together. With an attribution table."""

from __future__ import annotations

import csv
import io
import shutil
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tabulate import tabulate

from nepa3d import cli
from nepa3d.corpora.kicad import (
    INSTALLED_COPYRIGHT,
    INSTALLED_MODELS,
    PACKAGE,
    Model,
    Terms,
    family,
    fetch_models,
    find_models,
    fingerprint,
    groups,
    outline,
    read_terms,
    terms_of,
)
from nepa3d.corpora.objects import write_objects
from nepa3d.corpora.preprocess_meshes import keys_path
from nepa3d.corpora.splits import grouped_test_split
from nepa3d.execution.files import atomic_path, write_json, write_text
from nepa3d.execution.progress_bar import progress_bar
from nepa3d.shapes.mesh import read_mesh

ATTRIBUTION = "attribution.csv"
LICENSES = "_licenses"
SPLITS = ("train", "test")


@dataclass(frozen=True)
class Config:
    """Turn KiCad's 3D packages into a folder of VRML models with a training and a test split.

    The classes are the package's folders, without a pitch. Models whose names differ in numbers only, or whose shapes
    nearly agree, are one group, and no group is in both splits. Copies of a model are left out, as are classes of too
    few groups or models.

    Example: nepa3d import-kicad --out_root data/kicad --fetch data/downloads, then
    nepa3d preprocess-meshes --layout listed --mesh_root data/kicad --out_root data/kicad_cache
    """

    out_root: Path
    """Folder to fill: <class>/<id>.wrl, attribution.csv, and the lists of the splits in _splits and _meta."""
    kicad_root: Path | None = None
    """Folder with the *.3dshapes folders; left out: the Debian package's, /usr/share/kicad/3dmodels."""
    copyright_file: Path | None = None
    """Copyright file of the Debian package; left out: the one that comes with it."""
    fetch: Path | None = None
    """Download and unpack that package into this folder (no root needed; 1.6 GB) when it is not installed."""
    test_ratio: float = 0.2
    """Share of each class that becomes the test split, as nearly as whole groups allow."""
    split_seed: int = 0
    """Seed of the choice of the test split."""
    min_groups: int = 4
    """Classes of fewer groups are left out."""
    min_models: int = 20
    """Classes of fewer models are left out."""
    limit: int = 0
    """Import the first this many models in order of class and name; 0: all. The split is that of all."""
    overwrite: bool = False
    """Write models anew that exist."""


@dataclass(frozen=True)
class Attribution:
    """One row of ``attribution.csv``: where a model comes from, under which terms, and where it belongs."""

    category: str
    id: str
    group: str
    split: str
    license: str
    copyright: str
    source: str

    @property
    def key(self) -> str:
        """ "class/id"."""
        return f"{self.category}/{self.id}"

    @property
    def path(self) -> Path:
        """Where the model lies below the corpus root."""
        return Path(self.category) / f"{self.id}.wrl"


@dataclass
class Plan:
    """What is to be imported, and what is not."""

    models: list[tuple[Model, Attribution]] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    """Why a class is left out, by its name."""
    copies: dict[str, str] = field(default_factory=dict)
    """The model that a copy has the geometry of, both as "<folder>.3dshapes/<name>.wrl"."""
    problems: dict[str, str] = field(default_factory=dict)
    """Why a model cannot be imported, by "<folder>.3dshapes/<name>.wrl"."""


def plan(models: Sequence[Model], terms: Sequence[Terms], config: Config) -> Plan:
    """Groups, copies, classes and splits of ``models``; reads every file once."""
    planned = Plan()
    prints: dict[str, str] = {}
    outlines: dict[str, str] = {}
    for model in progress_bar(models, unit="model", desc="compare"):
        try:
            mesh = read_mesh(model.path)
            outlines[model.source] = outline(mesh.vertices, mesh.faces)
            prints[model.source] = fingerprint(model.path.read_bytes())
            terms_of(model.source, terms)
        except ValueError as error:
            planned.problems[model.source] = str(error)
    sound = [model for model in models if model.source not in planned.problems]
    sources = [model.source for model in sound]
    families = [family(model.id) for model in sound]
    signs = ([of[source] for source in sources] for of in (prints, outlines))
    of_source = dict(zip(sources, groups(families, *signs), strict=True))
    originals = _originals(sound, prints, planned)
    kept = _large_enough(originals, of_source, config, planned)
    in_test = grouped_test_split(
        [model.category for model in kept],
        [of_source[model.source] for model in kept],
        config.test_ratio,
        config.split_seed,
    )
    for model, test in zip(kept, in_test, strict=True):
        found = terms_of(model.source, terms)
        split = SPLITS[test]
        group = of_source[model.source]
        row = Attribution(model.category, model.id, group, split, found.license, found.copyright, model.source)
        planned.models.append((model, row))
    _drop_one_sided(planned)
    return planned


def _originals(models: Sequence[Model], prints: Mapping[str, str], planned: Plan) -> list[Model]:
    """The models without copies of one before them; a name that another has is a problem."""
    first: dict[str, str] = {}
    keys: dict[str, str] = {}
    originals = []
    for model in models:
        before = first.setdefault(prints[model.source], model.source)
        if before != model.source:
            planned.copies[model.source] = before
        elif (same := keys.setdefault(model.key.casefold(), model.source)) != model.source:
            planned.problems[model.source] = f"{same} has the same class and name"
        else:
            originals.append(model)
    return originals


def _large_enough(models: Sequence[Model], of_source: Mapping[str, str], config: Config, planned: Plan) -> list[Model]:
    counts = Counter(model.category for model in models)
    for name, count in counts.items():
        several = len({of_source[model.source] for model in models if model.category == name})
        if several < config.min_groups or count < config.min_models:
            planned.left_out[name] = f"{count} models in {several} groups"
    return [model for model in models if model.category not in planned.left_out]


def _drop_one_sided(planned: Plan) -> None:
    """Leave out a class that has all its models on one side, as its groups are another class's, too."""
    sides: dict[str, set[str]] = {}
    for _, row in planned.models:
        sides.setdefault(row.category, set()).add(row.split)
    for name, splits in sides.items():
        if len(splits) < 2:
            planned.left_out[name] = f"all its groups belong to {splits.pop()}, by the classes that share them"
    planned.models = [item for item in planned.models if item[1].category not in planned.left_out]


@dataclass
class ImportResult:
    """What an import did: its plan, and the rows of the models it wrote or found there."""

    plan: Plan
    imported: list[Attribution] = field(default_factory=list)
    kept: list[Attribution] = field(default_factory=list)


def import_models(kicad_root: Path, copyright_file: Path, config: Config) -> ImportResult:
    """Import the models below ``kicad_root``; those that exist in ``config.out_root`` are kept. See ``Config``.

    What cannot be read ends in the plan's problems, the rest goes on. ValueError if there are no models, if the
    copyright file is none, or if no class is large enough.
    """
    if config.limit < 0:
        raise ValueError(f"limit: expected 0 (all) or more, got {config.limit}")
    for name, least in (("min_groups", config.min_groups), ("min_models", config.min_models)):
        if least < 2:
            raise ValueError(f"{name}: expected 2 or more, one for each split, got {least}")
    models = find_models(kicad_root)
    notice = copyright_file.read_text(encoding="utf-8")
    terms = read_terms(notice)
    if not terms:
        raise ValueError(f"{copyright_file}: expected a Debian copyright file with stanzas of Files, got none")
    result = ImportResult(plan(models, terms, config))
    if not result.plan.models:
        raise ValueError(f"kicad_root: no class below {kicad_root} has enough groups and models")
    known = read_attribution(config.out_root)
    write_text(config.out_root / LICENSES / f"{PACKAGE}.txt", notice)
    try:
        for model, row in progress_bar(result.plan.models[: config.limit or None], unit="model", desc="import"):
            target = config.out_root / row.path
            if not config.overwrite and target.exists():
                result.kept.append(row)
                continue
            with atomic_path(target) as temporary:
                shutil.copyfile(model.path, temporary)
            result.imported.append(row)
    finally:
        known.update({row.path: row for row in result.imported + result.kept})
        planned = {row.path for _, row in result.plan.models}
        _write_lists(config.out_root, [known[path] for path in sorted(known) if path in planned])
    return result


def read_attribution(out_root: Path) -> dict[Path, Attribution]:
    """The rows of an earlier import by model path, if there was one. ValueError if the table is not ours."""
    path = out_root / ATTRIBUTION
    if not path.exists():
        return {}
    columns = tuple(Attribution.__dataclass_fields__)
    with path.open(encoding="utf-8", newline="") as file:
        table = csv.DictReader(file)
        if tuple(table.fieldnames or ()) != columns:
            raise ValueError(f"{path}: expected the columns {', '.join(columns)}, got {table.fieldnames}")
        rows = [Attribution(**row) for row in table]
    return {row.path: row for row in rows}


def _write_lists(out_root: Path, rows: Sequence[Attribution]) -> None:
    """The attribution table, and for each split its files, keys and groups, in the form of those of a cache."""
    text = io.StringIO(newline="")
    table = csv.DictWriter(text, tuple(Attribution.__dataclass_fields__), lineterminator="\n")
    table.writeheader()
    table.writerows(asdict(row) for row in rows)
    write_text(out_root / ATTRIBUTION, text.getvalue())
    for split in SPLITS:
        of_split = [row for row in rows if row.split == split]
        write_text(out_root / "_splits" / f"{split}.txt", "".join(f"{out_root / row.path}\n" for row in of_split))
        write_json(keys_path(out_root, split), {"keys": [row.key for row in of_split]})
        write_objects(out_root, split, {row.key: row.group for row in of_split})


def summary(result: ImportResult) -> str:
    """Counts by class as a table: models imported now and before, and groups and models of each split."""
    rows: list[tuple[str, int, int, int, int, int]] = []
    every = result.imported + result.kept
    for name in [*sorted({row.category for row in every}), ""]:
        of_class = [row for row in every if name in ("", row.category)]
        splits = Counter(row.split for row in of_class)
        new = sum(row in of_class for row in result.imported) if name else len(result.imported)
        several = len({row.group for row in of_class})
        rows.append((name or "total", new, len(of_class) - new, several, splits["train"], splits["test"]))
    table: str = tabulate(rows, headers=("class", "imported", "already there", "groups", "train", "test"))
    return table


def _source(config: Config) -> tuple[Path, Path]:
    if config.kicad_root is not None:
        return config.kicad_root, config.copyright_file or INSTALLED_COPYRIGHT
    if config.fetch is not None:
        models, terms = fetch_models(config.fetch)
        return models, config.copyright_file or terms
    if not INSTALLED_MODELS.is_dir():
        raise ValueError(
            f"kicad_root: no models in {INSTALLED_MODELS}; install {PACKAGE}, name another folder, or add --fetch DIR "
            "to download the package there"
        )
    return INSTALLED_MODELS, config.copyright_file or INSTALLED_COPYRIGHT


def command(config: Config) -> int:
    """Import, print the counts, what was left out and what failed; 3 if something did."""
    kicad_root, copyright_file = _source(config)
    if not copyright_file.is_file():
        raise ValueError(
            f"copyright_file: expected the package's copyright file, which says whose models these are, "
            f"got {copyright_file}"
        )
    result = import_models(kicad_root, copyright_file, config)
    print(summary(result))
    print(f"left out: {len(result.plan.copies)} copies of another model's geometry")
    for name, reason in sorted(result.plan.left_out.items()):
        print(f"left out: class {name}: {reason}")
    for source, reason in result.plan.problems.items():
        print(f"failed: {source}: {reason}", file=sys.stderr)
    return cli.EXIT_SOME_FAILED if result.plan.problems else cli.EXIT_OK


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    return cli.run(Config, command, argv, output="out_root")


if __name__ == "__main__":
    raise SystemExit(main())
