"""Which part of ScanObjectNN an h5 file is, by the names it is published under."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, get_args

Variant = Literal["plain", "augmented25_norot", "augmented25rot", "augmentedrot", "augmentedrot_scale75"]
VARIANTS: tuple[Variant, ...] = get_args(Variant)

_FILE = re.compile(rf"(?:training|test)_objectdataset(?:_({'|'.join(VARIANTS[1:])}))?", re.IGNORECASE)
_FOLDER = re.compile(r"(?:main_split|split[1-4])(?:_nobg)?", re.IGNORECASE)


def variant_of(file: Path) -> str | None:
    """The variant a file is of; ``None`` where its name is not one of the data set's."""
    match = _FILE.fullmatch(file.stem)
    return (match[1] or "plain").lower() if match else None


def variants(files: Iterable[Path]) -> list[str]:
    """The variants that are there, in the data set's order."""
    there = {variant_of(file) for file in files}
    return [variant for variant in VARIANTS if variant in there]


def folders(files: Iterable[Path]) -> list[str]:
    """The data set's folders, each with or without background, that files lie in; other folders do not count."""
    return sorted({name for file in files if _FOLDER.fullmatch(name := file.parent.name.lower())})


def choose(root: Path, files: Sequence[Path], wanted: Variant | None) -> list[Path]:
    """The files of the wanted variant; without a wish all, which must be of one, or have names of their own.

    ``ValueError`` naming the variants that are there.
    """
    there = variants(files)
    if wanted is None:
        if len(there) > 1:
            raise ValueError(
                f"scan_root: {root} holds {len(there)} variants of ScanObjectNN ({', '.join(there)}), which must not "
                f"be mixed in one cache: choose one with --variant, such as --variant {there[-1]}"
            )
        return list(files)
    if wanted not in there:
        raise ValueError(
            f"variant: {root} has no h5 file of the variant {wanted}, "
            + (f"only {', '.join(there)}" if there else "and none with a name of ScanObjectNN's: leave out --variant")
        )
    return [file for file in files if variant_of(file) == wanted]


def source_of(files: Iterable[Path]) -> dict[str, str | None]:
    """What the settings of a cache say of its files: their variant, and the data set's folder where it is one."""
    files = list(files)
    source: dict[str, str | None] = {"variant": "+".join(variants(files)) or None}
    return source | ({"h5_folder": "+".join(folders(files))} if folders(files) else {})
