"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
import shutil
import socket
import struct
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np

from nepa3d.execution.npz import ZIP_HEADER, save_npz

TEMPORARY_PREFIX = ".tmp-"  # then host, process and a random part

_TEMPORARY_NAME = re.compile(re.escape(TEMPORARY_PREFIX) + r"(?P<host>.+)-(?P<process>\d+)-[^-]+")


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A name to write a file under that takes the name ``path`` only once it is complete and on disk.

    The temporary name is in the same folder; the file is synced and renamed over ``path``, and the folder is synced
    too. If the block raises, what it wrote is removed and ``path`` is untouched.
    """
    path = Path(path)
    temporary = _temporary_for(path)
    try:
        with _naming(path):
            yield temporary
            sync(temporary)
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)  # gone already, unless something was raised
    sync(path.parent)


@contextlib.contextmanager
def atomic_open(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A binary file to write under ``atomic_path``."""
    with atomic_path(path) as temporary, temporary.open("xb") as file:
        yield file


@dataclass(frozen=True)
class PendingFile:
    """A file that is written under a temporary name in its folder and has yet to be put in place, see ``finish``."""

    path: Path
    temporary: Path


def write_pending(
    path: str | os.PathLike[str], write: Callable[[BinaryIO], None], process: int | None = None
) -> PendingFile:
    """Let ``write`` fill the file that ``finish`` puts at ``path``. Its way to the disk begins, but is not awaited.

    ``process`` is the one that calls ``finish``, left out this one: nobody removes the file while that lives.
    """
    path = Path(path)
    temporary = _temporary_for(path, process)
    with contextlib.ExitStack() as undo:
        undo.callback(temporary.unlink, missing_ok=True)
        with _naming(path), temporary.open("xb") as file:
            write(file)
            file.flush()
            if hasattr(os, "posix_fadvise"):  # the system writes what is given up, and keeps it until that is done
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        undo.pop_all()
    return PendingFile(path, temporary)


def finish(files: Iterable[PendingFile]) -> dict[PendingFile, OSError]:
    """Put files in place: all are synced, then each is renamed over its path, then the folders are synced.

    A file is complete on disk before it appears, as with ``atomic_path``, but a file system with a journal writes that
    once for all of them. Returns what went wrong with which file; what these wrote is removed.
    """
    failed: dict[PendingFile, OSError] = {}

    def try_each(files: Iterable[PendingFile], step: Callable[[PendingFile], object]) -> list[PendingFile]:
        done = []
        for file in files:
            try:
                with _naming(file.path):
                    step(file)
                done.append(file)
            except OSError as error:
                failed[file] = error
        return done

    synced = try_each(files, lambda file: sync(file.temporary))
    placed = try_each(synced, lambda file: file.temporary.replace(file.path))
    for folder in {file.path.parent: None for file in placed}:
        try:
            with _naming(folder):
                sync(folder)
        except OSError as error:
            failed |= {file: error for file in placed if file.path.parent == folder}
    for file in failed:
        file.temporary.unlink(missing_ok=True)
    return failed


def read_ahead(path: str | os.PathLike[str]) -> None:
    """Ask the system to bring a file into memory while something else is done. Whoever reads it meets its faults."""
    if not hasattr(os, "posix_fadvise"):
        return
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # it may be a pipe
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_WILLNEED)
        finally:
            os.close(descriptor)


def _temporary_for(path: Path, process: int | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.with_name(f"{temporary_prefix(process)}{secrets.token_hex(8)}")


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """``OSError`` of a write names no file: let it name ``path``."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            raise type(error)(error.errno, error.strerror, f"{path}") from error
        raise


def require_writable(path: str | os.PathLike[str], flag: str) -> None:
    """Raise unless the file ``path`` of ``flag`` can be written. Nothing is left behind; folders above it are not made.

    ``ValueError`` where something else than a file is in its place, or than a folder above it; ``OSError`` naming
    ``path`` where nothing may be written.
    """
    if os.fspath(path).endswith(os.sep) or Path(path).is_dir():
        raise ValueError(f"{flag}: expected a file to write to, got the folder {os.fspath(path)!r}")
    path = Path(path)
    if path.exists() and not path.is_file():
        raise ValueError(f"{flag}: expected a file to write to, {path} is a device or the like")
    folder = next(parent for parent in path.absolute().parents if os.path.lexists(parent))
    if not folder.is_dir():
        raise ValueError(f"{flag}: {path} cannot be written, it lies below {folder}, which is no folder")
    probe = folder / f"{temporary_prefix()}{secrets.token_hex(8)}"
    try:
        probe.touch(exist_ok=False)
    except OSError as error:
        raise type(error)(error.errno, error.strerror, f"{path}") from error
    probe.unlink()


def temporary_prefix(process: int | None = None) -> str:
    """What the names of a process's temporary files begin with; left out, of this one's."""
    return f"{TEMPORARY_PREFIX}{socket.gethostname()}-{process or os.getpid()}-"


def sync(path: str | os.PathLike[str]) -> None:
    """Make the bytes of a file, or the names in a folder, durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def require_newer(path: str | os.PathLike[str], source: str | os.PathLike[str]) -> None:
    """``ValueError`` if the file ``source``, of which the file ``path`` was made, was written after that."""
    path, source = Path(path), Path(source)
    if source.is_file() and source.stat().st_mtime_ns > path.stat().st_mtime_ns:
        raise ValueError(f"{path} was made of {source}, which was written since: delete it to make it anew")


def content_hash(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write ``text`` as UTF-8, whole or not at all; names of files that are no UTF-8 become what they are on disk."""
    with atomic_open(path) as file:
        file.write(text.encode("utf-8", "surrogateescape"))


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write ``value`` as indented JSON, whole or not at all."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def read_json(path: str | os.PathLike[str], expected: str = "a JSON object") -> dict[str, Any]:
    """The JSON object a file holds; ``ValueError`` naming a file that is truncated, or holds something else."""
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not readable as JSON: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path}: expected {expected}, got a {type(value).__name__}")
    return value


def is_macos_metadata(path: Path) -> bool:
    """Whether a file only accompanies another, as "._<name>" does <name> where macOS copied or packed it."""
    return path.name.startswith("._")


def write_npz(path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray], *, deflate: bool = False) -> None:
    """Write ``arrays`` as one ``.npz`` that ``numpy.load`` reads, whole or not at all.

    Unless deflated, the data of each array starts at a multiple of 64 bytes of the file, so that it can be mapped.
    """
    with atomic_open(path) as file:
        if deflate:
            np.savez_compressed(file, allow_pickle=False, **arrays)
        else:
            save_npz(file, arrays)


def map_npz(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The arrays of a stored ``.npz``, mapped: read from disk as they are used, and not to be changed.

    ``ValueError`` if the file is no ``.npz``, or a member is deflated or damaged.
    """
    arrays: dict[str, np.ndarray] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                with archive.open(member) as data:
                    version = np.lib.format.read_magic(data)
                    if member.compress_type != zipfile.ZIP_STORED or version != (1, 0):
                        raise ValueError(f"{path}: {member.filename} cannot be mapped")
                    shape, fortran, dtype = np.lib.format.read_array_header_1_0(data)
                    header = data.tell()
                with Path(path).open("rb") as file:
                    file.seek(member.header_offset)
                    *_, name, extra = ZIP_HEADER.unpack(file.read(ZIP_HEADER.size))
                start = member.header_offset + ZIP_HEADER.size + name + extra + header
                order: Literal["F", "C"] = "F" if fortran else "C"
                arrays[member.filename.removesuffix(".npy")] = np.memmap(path, dtype, "r", start, shape, order)
    except (zipfile.BadZipFile, struct.error, EOFError) as error:
        raise ValueError(f"{path}: not a readable .npz: {error}") from error
    return arrays


def remove_temporaries(folder: str | os.PathLike[str]) -> int:
    """Delete what killed writers left anywhere under ``folder``; returns how many files and folders that were.

    What other hosts write is left alone, as is what belongs to a process that lives.
    """
    leftovers = [path for path in Path(folder).rglob(f"{TEMPORARY_PREFIX}*") if _is_orphan(path.name)]
    for leftover in leftovers:
        if leftover.is_dir() and not leftover.is_symlink():
            shutil.rmtree(leftover)
        else:
            leftover.unlink(missing_ok=True)
    return len(leftovers)


def _is_orphan(name: str) -> bool:
    match = _TEMPORARY_NAME.fullmatch(name)
    if match is None or match["host"] != socket.gethostname():
        return False
    return not lives(int(match["process"]))


def lives(process: int) -> bool:
    """Whether a process of this host can still write; one that has ended but not been waited for cannot."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):  # no process has a number this large
        return False
    except PermissionError:  # somebody else's
        return True
    status = Path(f"/proc/{process}/stat")  # on Linux
    return not (status.exists() and status.read_bytes().rpartition(b")")[2].split()[0] in b"ZX")


def find_config(path: str | Path) -> Path:
    """The file of that name in the installed package (``nepa3d/configs/...``) if there is one and none at ``path``;
    else ``path``, there or not."""
    path = Path(path)
    installed = Path(__file__).parents[2] / path
    return installed if installed.is_file() and not path.is_file() else path
