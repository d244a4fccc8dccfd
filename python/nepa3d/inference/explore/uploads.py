"""Files of whoever has the page open: checked, then read in a process of its own that has limits.

Nothing a client says is used as a path, and a file's name only for its ending. What parses is what reads any mesh of a
user, and is fuzzed; Draco's decoder, which is not, stays out.
"""

from __future__ import annotations

import contextlib
import hashlib
import multiprocessing
import os
import resource
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import TimeoutError as FutureTimeoutError
from pathlib import Path, PurePosixPath
from typing import Any

from pebble import ProcessExpired, ProcessPool

from nepa3d.execution.sockets import shorten_socket_paths
from nepa3d.inference.explore.subject import Form, Subject, form, subject
from nepa3d.inference.shape_files import ENDINGS
from nepa3d.shapes.rotation import Up

MEGABYTE = 1 << 20
MOST_MEMORY = 8 << 30  # bytes of address space of the process that reads, most of which libraries only reserve
NAME_LENGTH = 60  # letters of a name that are shown


def shown_name(name: str) -> str:
    """A name as the page may show it: its last part, without what Markdown or HTML would take for its own, cut."""
    last = PurePosixPath(name.replace("\\", "/")).name
    return plain(last)[:NAME_LENGTH] or "file"


def plain(text: str) -> str:
    """Text of letters, digits, blanks and ``._-/()``; anything else becomes "-"."""
    return "".join(letter if letter.isalnum() or letter in " ._-/()" else "-" for letter in text)


def checked_ending(name: str, content: bytes, most_bytes: int) -> str:
    """The ending of an uploaded file, in small letters. ``ValueError`` with a message for the page if it is too large,
    empty, or of no format that is read."""
    require_size(name, len(content), most_bytes)
    ending = PurePosixPath(name).suffix.lower().removeprefix(".")
    if ending not in ENDINGS:
        raise ValueError(f"{shown_name(name)}: expected a file that ends in {', '.join(ENDINGS)}")
    if not content:
        raise ValueError(f"{shown_name(name)}: the file is empty")
    return ending


def require_size(name: str, size: int, most_bytes: int) -> None:
    """``ValueError`` with a message for the page if a file of ``size`` bytes is too large."""
    if size > most_bytes:
        raise ValueError(
            f"{shown_name(name)} has {size / MEGABYTE:.1f} MB, at most {most_bytes / MEGABYTE:g} MB are taken "
            "(--max_upload_mb)"
        )


class Reader:
    """Reads shapes in a process of its own, which is replaced if it dies or takes too long. Use it in a ``with``.

    Meshes and clouds are turned so that their axis ``up`` is y.
    """

    def __init__(self, seconds: float = 60.0, up: Up = "y") -> None:
        shorten_socket_paths()
        context = multiprocessing.get_context("spawn")
        self._seconds, self._up = seconds, up
        self._processes = ProcessPool(1, context=context, initializer=_limit_memory, initargs=(MOST_MEMORY,))

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self._processes.stop()
        self._processes.join()

    def form(self, path: Path) -> Form:
        """What is drawn of a file of the index. ``ValueError`` or ``OSError``, also where the process died."""
        read: Form = self._run(form, path.name, path, self._up)
        return read

    def subject(self, path: Path, view: str, key: str, name: str, *, n_point: int, n_ray: int) -> Subject:
        """``nepa3d.inference.explore.subject.subject`` of a file of the index. ``ValueError`` or ``OSError``, also
        where the process died or took too long."""
        read: Subject = self._run(_subject, name, path, view, key, name, n_point, n_ray, self._up, False)
        return read

    def upload(self, filename: str, content: bytes, view: str, *, most_bytes: int, n_point: int, n_ray: int) -> Subject:
        """The shape of an uploaded file. ``ValueError`` with a message for the page if it cannot be used."""
        ending = checked_ending(filename, content, most_bytes)
        name = shown_name(filename)
        with tempfile.TemporaryDirectory(prefix="nepa3d-upload-") as folder:
            path = Path(folder, f"shape.{ending}")
            path.write_bytes(content)
            key = hashlib.sha256(content).hexdigest()
            try:
                read: Subject = self._run(_subject, name, path, view, key, name, n_point, n_ray, self._up, True)
            except (ValueError, OSError, MemoryError) as error:
                told = str(error).replace(os.fspath(path), name) or "memory ran out"
                raise ValueError(message(told)) from error
        return read

    def _run(self, work: Callable[..., Any], name: str, *arguments: Any) -> Any:
        future = self._processes.schedule(work, arguments, timeout=self._seconds)
        try:
            return future.result()
        except FutureTimeoutError as error:
            raise ValueError(f"{name}: reading it took more than {self._seconds:g} seconds") from error
        except ProcessExpired as error:
            raise ValueError(f"{name}: the process that read it died (exit code {error.exitcode})") from error


def message(text: str) -> str:
    """A message of one line without what a page would take for HTML, cut at 300 letters."""
    safe = "".join(letter if letter.isprintable() and letter not in "<>`[]!&\\" else " " for letter in text)
    return safe[:300]


def _subject(path: Path, view: str, key: str, name: str, n_point: int, n_ray: int, up: Up, foreign: bool) -> Subject:
    with without_draco() if foreign else contextlib.nullcontext():
        return subject(path, view, key, name, n_point=n_point, n_ray=n_ray, up=up)


@contextlib.contextmanager
def without_draco() -> Iterator[None]:
    """Have GLB files with Draco streams refused, as where DracoPy is not installed."""
    missing = object()
    module = sys.modules.get("DracoPy", missing)
    sys.modules["DracoPy"] = None  # type: ignore[assignment] # import of it fails, as the language has it
    try:
        yield
    finally:
        if module is missing:
            del sys.modules["DracoPy"]
        else:
            sys.modules["DracoPy"] = module  # type: ignore[assignment]


def _limit_memory(most: int) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))
