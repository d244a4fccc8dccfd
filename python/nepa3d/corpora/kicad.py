"""KiCad's 3D packages: where to get them, their classes, which of them are variants of one part, and their licences.

The models are VRML files below folders that sort them by kind of part: ``Package_SO.3dshapes/SOIC-8_3.9x4.9mm.wrl``.
Their unit is a tenth of an inch.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nepa3d.corpora.debian_package import fetch_archive, unpack

PACKAGE = "kicad-packages3d"
INSTALLED_MODELS = Path("/usr/share/kicad/3dmodels")
INSTALLED_COPYRIGHT = Path("/usr/share/doc") / PACKAGE / "copyright"

_COMMENT = re.compile(rb"#[^\r\n]*")
_LIST = re.compile(rb"\[[^\]]*\]")
_PITCH = re.compile(r"_\d+(\.\d+)?mm$")
_SIDE = re.compile(r"left|right")


@dataclass(frozen=True)
class Model:
    """One model of the package."""

    path: Path
    category: str
    """Its class: the name of its folder, without ``.3dshapes`` and without a pitch (``_2.54mm``), which does not show
    in a shape of unit size."""
    source: str
    """ "<folder>.3dshapes/<name>.wrl"."""

    @property
    def id(self) -> str:
        """Its name."""
        return self.path.stem

    @property
    def key(self) -> str:
        """ "class/id"."""
        return f"{self.category}/{self.id}"


@dataclass(frozen=True)
class Terms:
    """What a stanza of Debian's copyright file says of the files it names."""

    pattern: re.Pattern[str]
    license: str
    copyright: str


def find_models(root: Path) -> list[Model]:
    """The models below ``root``, sorted by class and name. ValueError if there are none."""
    paths = sorted(root.glob("*.3dshapes/*.wrl"))
    if not paths:
        raise ValueError(f"kicad_root: expected a folder with *.3dshapes/*.wrl, got {root}")
    models = [
        Model(path, _PITCH.sub("", path.parent.name.removesuffix(".3dshapes")), f"{path.parent.name}/{path.name}")
        for path in paths
    ]
    return sorted(models, key=lambda model: (model.key, model.source))


def fetch_models(folder: Path) -> tuple[Path, Path]:
    """The folder of the models and the copyright file: as installed, or of the package fetched to ``folder``.

    Needs no root. What an earlier call fetched or unpacked is used again. OSError if apt or dpkg is absent or fails.
    """
    if any(INSTALLED_MODELS.glob("*.3dshapes/*.wrl")):
        return INSTALLED_MODELS, INSTALLED_COPYRIGHT
    unpacked = folder / PACKAGE
    models, terms = (unpacked / place.relative_to("/") for place in (INSTALLED_MODELS, INSTALLED_COPYRIGHT))
    if not any(models.glob("*.3dshapes/*.wrl")):
        archive = fetch_archive(PACKAGE, folder)
        below, notice = f"{INSTALLED_MODELS.relative_to('/')}/", f"{INSTALLED_COPYRIGHT.relative_to('/')}"
        unpack(archive, unpacked, lambda name: name == notice or _is_model(name, below), "model")
        if not any(models.glob("*.3dshapes/*.wrl")):
            raise OSError(f"{archive} holds no {INSTALLED_MODELS}/*.3dshapes/*.wrl")
    return models, terms


def _is_model(name: str, below: str) -> bool:
    return name.startswith(below) and name.endswith(".wrl")


def family(name: str) -> str:
    """The name without its numbers, separators, sizes of letters, and the words left and right.

    So variants of a part in several sizes, pitches, pin counts or hands are one family: "PinHeader_1x05_P2.54mm" and
    "PinHeader_2x12_P1.27mm" are "pinheader_x_pmm".
    """
    words = _SIDE.sub("", re.sub(r"\d+([.,]\d+)*", "", name).lower())
    return re.sub(r"[^a-z]+", "_", words).strip("_")


def fingerprint(content: bytes) -> str:
    """Of the lists of numbers in a model: equal where models differ in names, materials and comments only."""
    digest = hashlib.sha256()
    for numbers in _LIST.findall(_COMMENT.sub(b"", content)):
        digest.update(numbers)
    return digest.hexdigest()


def outline(vertices: NDArray[np.float64], faces: NDArray[np.int64]) -> str:
    """The number of faces (F, 3), and the sides of the box around them as parts of the longest, in steps of 2 %.

    Equal where models are nearly the same, as a diode with its cathode up and one with its anode up. The steps are
    those of each side, as long pin headers of different kinds differ by little of their length. ValueError without a
    face, or if all its corners are one point.
    """
    if not len(faces):
        raise ValueError("a model without a face")
    sides = np.sort(np.ptp(vertices[np.unique(faces)], axis=0))
    if sides[2] == 0:
        raise ValueError("a model without extent")
    steps = np.log(np.maximum(sides / sides[2], 1e-6)) / np.log(1.02)
    return f"{len(faces)} {np.round(steps).astype(int).tolist()}"


def groups(families: Sequence[str], *signs: Sequence[str]) -> list[str]:
    """The group of each of N models, of a family (N,) and a sign (N,) of each sort: fingerprints, outlines.

    Models of one family are of one group, and so are families that share a sign, and families that share one with
    these. A group has the name of its first family in alphabetical order.
    """
    joined: dict[str, str] = {}

    def root(name: str) -> str:
        while joined.get(name, name) != name:
            name = joined[name]
        return name

    for of_sort in signs:
        first: dict[str, str] = {}
        for name, sign in zip(families, of_sort, strict=True):
            one, other = sorted((root(name), root(first.setdefault(sign, name))))
            joined[other] = one
    return [root(name) for name in families]


def read_terms(text: str) -> list[Terms]:
    """The stanzas on files of a Debian copyright file, in order; of those that name a file, the last counts.

    Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/.
    """
    found = []
    for stanza in re.split(r"\n\s*\n", text):
        fields = {
            name: " ".join(value.split())
            for name, value in re.findall(r"^(\w+):((?:.*\n?)(?:[ \t].*\n?)*)", stanza, re.M)
        }
        if "Files" not in fields:
            continue
        either = "|".join(re.escape(name).replace(r"\*", ".*").replace(r"\?", ".") for name in fields["Files"].split())
        found.append(Terms(re.compile(either, re.DOTALL), fields.get("License", ""), fields.get("Copyright", "")))
    return found


def terms_of(source: str, terms: Sequence[Terms]) -> Terms:
    """Those of a model. ValueError if no stanza names it."""
    for stanza in reversed(terms):
        if stanza.pattern.fullmatch(source):
            return stanza
    raise ValueError(f"{source}: the copyright file says nothing of it")
