"""What a file holds that is not what its name says, by its first bytes."""

from __future__ import annotations

import os
from pathlib import Path

_SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF87a", "a GIF image"),
    (b"GIF89a", "a GIF image"),
    (b"%PDF-", "a PDF document"),
    (b"PK\3\4", "a ZIP archive"),
    (b"PK\5\6", "an empty ZIP archive"),
    (b"\x1f\x8b", "data compressed with gzip"),
    (b"\x89HDF\r\n\x1a\n", "HDF5 data"),
    (b"version https://git-lfs.github.com/spec/", "a Git LFS pointer, `git lfs pull` fetches what it stands for"),
)
_HTML = (b"<!doctype html", b"<html")
_LOOKED_AT = 1024  # bytes; a page may begin with blanks


def other_kind(path: str | os.PathLike[str], own: bytes = b"\0") -> str:
    """What a file holds that could not be read, in words: "the file holds a PNG image"; "" if its first bytes are none
    of the known ones, or ``own``, with which its own kind begins."""
    try:
        with Path(path).open("rb") as file:
            start = file.read(_LOOKED_AT)
    except OSError:  # a path within a shard
        return ""
    if start.startswith(own):
        return ""
    found = next((what for signature, what in _SIGNATURES if start.startswith(signature)), "")
    if start.removeprefix(b"\xef\xbb\xbf").lstrip().lower().startswith(_HTML):
        found = "an HTML page"
    return f"the file holds {found}" if found else ""
