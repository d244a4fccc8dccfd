"""Sweet Home 3D furniture: where to get it, what its ``.sh3f`` libraries list, and the OBJ bytes they hold.

A library is a zip with a Java properties catalog (``id#N``, ``name#N``, ``category#N``, ``model#N``, ...)
and the models. Nothing here writes under a name that comes from a library.
"""

from __future__ import annotations

import io
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from nepa3d.corpora.debian_package import fetch_archive, unpack

PACKAGE = "sweethome3d-furniture"
INSTALLED_FURNITURE = Path("/usr/share/sweethome3d/furniture")
CATALOG = "PluginFurnitureCatalog.properties"
MAX_MEMBER_BYTES = 256 * 2**20

_NEEDED = ("id", "category", "model")


@dataclass(frozen=True)
class CatalogEntry:
    """One model of a library, as its catalog describes it."""

    library: Path
    number: int
    original_id: str
    name: str
    category: str
    model: str
    """Path of the model in the library; may be URL-encoded or point into a nested zip (``a.zip!/b.obj``)."""
    license: str
    creator: str


@dataclass(frozen=True)
class Problem:
    """What could not be read: the library's file name, the entry in it, and why."""

    library: str
    entry: str
    reason: str


def libraries(folder: Path) -> list[Path]:
    """The ``*.sh3f`` files in ``folder``, sorted by name; empty if it is not a folder."""
    return sorted(path for path in folder.glob("*.sh3f") if path.is_file())


def find_furniture(explicit: Path | None = None) -> Path | None:
    """The folder with furniture libraries: ``explicit`` if given, else where the Debian package puts them.

    Returns None if that is not installed. ValueError if ``explicit`` holds no library.
    """
    if explicit is not None:
        if not libraries(explicit):
            raise ValueError(f"furniture_root: expected a folder with *.sh3f files, got {explicit}")
        return explicit
    return INSTALLED_FURNITURE if libraries(INSTALLED_FURNITURE) else None


def fetch_furniture(folder: Path) -> Path:
    """The installed furniture folder, or that of the Debian package fetched to ``folder``.

    Needs no root. What an earlier call fetched or unpacked is used again. OSError if apt or dpkg is absent or fails.
    """
    unpacked = folder / PACKAGE
    furniture = unpacked / INSTALLED_FURNITURE.relative_to("/")
    for known in (find_furniture(), furniture):
        if known is not None and libraries(known):
            return known
    below = f"{INSTALLED_FURNITURE.relative_to('/')}/"
    archive = fetch_archive(PACKAGE, folder)
    unpack(archive, unpacked, lambda name: name.startswith(below) and name.endswith(".sh3f"), "file")
    if not libraries(furniture):
        raise OSError(f"{archive} holds no {INSTALLED_FURNITURE}/*.sh3f")
    return furniture


@contextmanager
def open_library(path: Path) -> Iterator[zipfile.ZipFile]:
    """``path`` as a zip to read from; ValueError if it is not one."""
    with refuse_broken_zip(path.name), zipfile.ZipFile(path) as archive:
        yield archive


@contextmanager
def refuse_broken_zip(name: str) -> Iterator[None]:
    """Turn what ``zipfile`` raises on damaged or exotic archives into one ValueError that names ``name``."""
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise ValueError(f"{name}: not a readable zip ({error or type(error).__name__})") from error


def read_catalog(archive: zipfile.ZipFile, library: Path) -> tuple[list[CatalogEntry], list[Problem]]:
    """The models ``archive`` lists, by number, and the entries that lack a needed key.

    Licence and creator default to the library's ``license`` and ``provider``. ValueError without a catalog.
    """
    properties = parse_properties(read_member(archive, CATALOG))
    pattern = re.compile(rf"(?:{'|'.join(_NEEDED)})#(\d+)")
    numbers = sorted({int(match[1]) for key in properties if (match := pattern.fullmatch(key))})
    entries, problems = [], []
    for number in numbers:
        missing = [key for key in _NEEDED if not properties.get(f"{key}#{number}", "").strip()]
        if missing:
            keys = ", ".join(f"{key}#{number}" for key in missing)
            problems.append(Problem(library.name, f"#{number}", f"the catalog has no {keys}"))
        else:
            entries.append(_entry(properties, library, number))
    return entries, problems


def _entry(properties: Mapping[str, str], library: Path, number: int) -> CatalogEntry:
    def value(key: str, default: str = "") -> str:
        return " ".join((properties.get(f"{key}#{number}", "").strip() or default).split())

    return CatalogEntry(
        library=library,
        number=number,
        original_id=value("id"),
        name=value("name"),
        category=value("category"),
        model=properties[f"model#{number}"].strip(),
        license=value("license", properties.get("license", "")),
        creator=value("creator", properties.get("provider", "")),
    )


def parse_properties(data: bytes) -> dict[str, str]:
    """A Java properties file as a dict; UTF-8, or else ISO-8859-1, as Java reads it."""
    try:
        import javaproperties
    except ImportError as error:
        raise ValueError("furniture catalogs need javaproperties: pip install 'nepa3d[demo]'") from error
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    return dict(javaproperties.loads(text))


def read_member(archive: zipfile.ZipFile, name: str) -> bytes:
    """The bytes of a member, looked up as written and then URL-decoded; a leading ``/`` is dropped."""
    held = set(archive.namelist())
    found = next((key for key in (name.lstrip("/"), unquote(name).lstrip("/")) if key in held), None)
    if found is None:
        raise ValueError(f"{name}: not in the archive")
    info = archive.getinfo(found)
    if info.file_size > MAX_MEMBER_BYTES:
        raise ValueError(f"{name}: {info.file_size} bytes unpacked, expected at most {MAX_MEMBER_BYTES}")
    if info.flag_bits & 1:
        raise ValueError(f"{name}: encrypted")
    with refuse_broken_zip(name):
        return archive.read(info)


def read_model(archive: zipfile.ZipFile, model: str) -> bytes:
    """The OBJ bytes at ``model``, maybe in a nested zip. ValueError if absent, damaged, not OBJ or empty."""
    outer, separator, inner = model.partition("!/")
    if separator or outer.lower().endswith(".zip"):
        data = read_member(archive, outer)
        with refuse_broken_zip(outer), zipfile.ZipFile(io.BytesIO(data)) as nested:
            return read_model(nested, inner or _only_obj(nested, outer))
    if not outer.lower().endswith(".obj"):
        kind = PurePosixPath(outer).suffix or "a name without an ending"
        raise ValueError(f"{outer}: only OBJ models can be imported, got {kind}")
    data = read_member(archive, outer)
    for letter, what in ((b"v", "vertices"), (b"f", "faces")):
        if re.search(rb"^[ \t]*" + letter + rb"[ \t]", data, re.MULTILINE) is None:
            raise ValueError(f"{outer}: an OBJ file without {what}")
    return data


def _only_obj(archive: zipfile.ZipFile, outer: str) -> str:
    names = [name for name in archive.namelist() if name.lower().endswith(".obj")]
    if len(names) != 1:
        raise ValueError(f"{outer}: expected one OBJ file in it, got {len(names)}")
    return names[0]
