"""Furniture of Sweet Home 3D as a ShapeNet-like corpus of labelled meshes, with an attribution table."""

from __future__ import annotations

import csv
import io
import re
import sys
import unicodedata
import zipfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import groupby
from pathlib import Path

from tabulate import tabulate

from nepa3d import cli
from nepa3d.corpora.sweethome3d import (
    INSTALLED_FURNITURE,
    PACKAGE,
    CatalogEntry,
    Problem,
    fetch_furniture,
    find_furniture,
    libraries,
    open_library,
    parse_properties,
    read_catalog,
    read_member,
    read_model,
)
from nepa3d.execution.files import atomic_open, write_text
from nepa3d.execution.progress_bar import progress_bar

ATTRIBUTION = "attribution.csv"
LICENSES = "_licenses"


@dataclass(frozen=True)
class Config:
    """Turn Sweet Home 3D furniture libraries (*.sh3f) into a ShapeNet-like folder of OBJ models.

    Example: python -m nepa3d.data.import_sweethome3d --out_root data/sweethome3d --fetch data/downloads
    """

    out_root: Path
    """Folder to fill: <category>/<id>/models/model_normalized.obj and attribution.csv."""
    furniture_root: Path | None = None
    """Folder with the *.sh3f libraries; left out: the Debian package's, /usr/share/sweethome3d/furniture."""
    fetch: Path | None = None
    """Download and unpack that package into this folder (no root needed) when it is not installed."""
    limit: int = 0
    """Import the first this many models in order of library and catalog number; 0: all."""
    overwrite: bool = False
    """Write models anew that exist."""


@dataclass(frozen=True)
class Attribution:
    """One row of ``attribution.csv``: where a model comes from and under which terms."""

    category: str
    id: str
    original_id: str
    name: str
    library: str
    license: str
    creator: str
    source: str

    @property
    def path(self) -> Path:
        """Where the model lies below the corpus root."""
        return Path(self.category) / self.id / "models" / "model_normalized.obj"


@dataclass
class ImportResult:
    """What an import did; a model is either imported, kept (it existed) or a problem."""

    imported: list[Attribution] = field(default_factory=list)
    kept: list[Attribution] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def slug(text: str) -> str:
    """``text`` as a file name: no accents, runs of other than ASCII letters or digits ``_``; may be ''."""
    plain = unicodedata.normalize("NFKD", text)
    plain = "".join(letter for letter in plain if not unicodedata.combining(letter))
    return re.sub(r"[^A-Za-z0-9]+", "_", plain).strip("_")


def plan(entries: Sequence[CatalogEntry]) -> tuple[list[tuple[CatalogEntry, Attribution]], list[Problem]]:
    """Give every entry its category and an id no other has; a taken id gets ``_2``, ``_3``, ... in order."""
    planned: list[tuple[CatalogEntry, Attribution]] = []
    problems = []
    taken: set[str] = set()
    for entry in entries:
        category, stem = slug(entry.category).lower(), slug(entry.original_id)
        if not category or not stem:
            got = f"category {entry.category!r}, id {entry.original_id!r}"
            reason = f"expected ASCII letters or digits in category and id, got {got}"
            problems.append(Problem(entry.library.name, f"#{entry.number}", reason))
            continue
        unique, copies = stem, 1
        while unique.casefold() in taken:
            copies += 1
            unique = f"{stem}_{copies}"
        taken.add(unique.casefold())
        row = Attribution(
            category=category,
            id=unique,
            original_id=entry.original_id,
            name=entry.name,
            library=entry.library.name,
            license=entry.license,
            creator=entry.creator,
            source=entry.model,
        )
        planned.append((entry, row))
    return planned, problems


def import_furniture(furniture_root: Path, out_root: Path, *, limit: int = 0, overwrite: bool = False) -> ImportResult:
    """Import the models of all libraries in ``furniture_root``; those that exist in ``out_root`` are kept.

    What cannot be read ends in ``problems``, the rest goes on. ValueError: no library, ``limit`` < 0.
    """
    if limit < 0:
        raise ValueError(f"limit: expected 0 (all) or more, got {limit}")
    found = libraries(furniture_root)
    if not found:
        raise ValueError(f"furniture_root: expected a folder with *.sh3f files, got {furniture_root}")
    parse_properties(b"")  # a missing reader is one error, not one a library
    result = ImportResult()
    entries: list[CatalogEntry] = []
    for library in found:
        try:
            with open_library(library) as archive:
                listed, problems = read_catalog(archive, library)
                _copy_license(archive, library, out_root)
        except ValueError as error:
            result.problems.append(Problem(library.name, "(whole library)", str(error)))
            continue
        entries += listed
        result.problems += problems
    planned, problems = plan(entries)
    result.problems += problems
    known = read_attribution(out_root)
    try:
        _import_planned(planned[: limit or None], out_root, result, known if not overwrite else None)
    finally:
        known.update({row.path: row for row in result.imported + result.kept})
        _write_attribution(out_root, [known[path] for path in sorted(known)])
    return result


def _copy_license(archive: zipfile.ZipFile, library: Path, out_root: Path) -> None:
    if "LICENSE.TXT" in archive.namelist():
        with atomic_open(out_root / LICENSES / f"{slug(library.stem)}.txt") as file:
            file.write(read_member(archive, "LICENSE.TXT"))


def _import_planned(
    planned: Sequence[tuple[CatalogEntry, Attribution]],
    out_root: Path,
    result: ImportResult,
    known: dict[Path, Attribution] | None,
) -> None:
    """Write what ``known`` (None: overwrite everything) does not say to be there already."""
    with progress_bar(total=len(planned), unit="model") as progress:
        for library, group in groupby(planned, key=lambda item: item[0].library):
            with open_library(library) as archive:
                for entry, row in group:
                    progress.update()
                    try:
                        if known is not None and _exists(out_root, row, known):
                            result.kept.append(row)
                            continue
                        data = read_model(archive, entry.model)
                    except ValueError as error:
                        result.problems.append(Problem(library.name, f"#{entry.number} {row.id}", str(error)))
                        continue
                    with atomic_open(out_root / row.path) as file:
                        file.write(data)
                    result.imported.append(row)


def _exists(out_root: Path, row: Attribution, known: dict[Path, Attribution]) -> bool:
    """Whether ``row``'s model is there; ValueError if another library's model has its place."""
    if not (out_root / row.path).exists():
        return False
    before = known.get(row.path, row)
    if (before.library, before.source) != (row.library, row.source):
        raise ValueError(f"{row.path} holds {before.library}:{before.source}; --overwrite replaces it")
    return True


def read_attribution(out_root: Path) -> dict[Path, Attribution]:
    """The rows of an earlier import by model path, if there was one. ValueError if the table is not ours."""
    path = out_root / ATTRIBUTION
    if not path.exists():
        return {}
    with path.open(encoding="utf-8", newline="") as file:
        table = csv.DictReader(file)
        if tuple(table.fieldnames or ()) != _columns():
            raise ValueError(f"{path}: expected the columns {', '.join(_columns())}, got {table.fieldnames}")
        rows = [Attribution(**row) for row in table]
    return {row.path: row for row in rows}


def _columns() -> tuple[str, ...]:
    return tuple(Attribution.__dataclass_fields__)


def _write_attribution(out_root: Path, rows: Sequence[Attribution]) -> None:
    text = io.StringIO(newline="")
    table = csv.DictWriter(text, _columns(), lineterminator="\n")
    table.writeheader()
    table.writerows(asdict(row) for row in rows)
    write_text(out_root / ATTRIBUTION, text.getvalue())


def summary(result: ImportResult) -> str:
    """Counts by category as a table."""
    imported = Counter(row.category for row in result.imported)
    kept = Counter(row.category for row in result.kept)
    rows: list[tuple[str, int, int]] = [
        (name, imported[name], kept[name]) for name in sorted(imported.keys() | kept.keys())
    ]
    rows.append(("total", len(result.imported), len(result.kept)))
    table: str = tabulate(rows, headers=("category", "imported", "already there"))
    return table


def _furniture_folder(config: Config) -> Path:
    found = find_furniture(config.furniture_root)
    if found is None and config.fetch is not None:
        found = fetch_furniture(config.fetch)
    if found is None:
        raise ValueError(
            f"furniture_root: no *.sh3f in {INSTALLED_FURNITURE}; install {PACKAGE}, name another folder, "
            "or add --fetch DIR to download the package there"
        )
    return found


def command(config: Config) -> int:
    """Import, print the counts and what failed; 3 if something did."""
    furniture = _furniture_folder(config)
    result = import_furniture(furniture, config.out_root, limit=config.limit, overwrite=config.overwrite)
    print(summary(result))
    for problem in result.problems:
        print(f"failed: {problem.library} {problem.entry}: {problem.reason}", file=sys.stderr)
    return cli.EXIT_SOME_FAILED if result.problems else cli.EXIT_OK


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    return cli.run(Config, command, argv, output="out_root")


if __name__ == "__main__":
    raise SystemExit(main())
