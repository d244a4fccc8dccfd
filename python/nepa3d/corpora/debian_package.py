"""Packages of this machine's Debian mirror, without root: fetched, checked and unpacked in part."""

from __future__ import annotations

import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from nepa3d.execution.files import content_hash, temporary_prefix
from nepa3d.execution.progress_bar import progress_bar


def require_tools(package: str, *tools: str) -> None:
    """``OSError`` naming the first tool that fetching ``package`` needs and this machine lacks."""
    for tool in tools:
        if shutil.which(tool) is None:
            raise OSError(f"fetching {package} needs {tool}, which is not on this machine")


def run(command: list[str], folder: Path) -> str:
    """What a command prints when it is run in ``folder``; ``OSError`` with what it said if it fails."""
    done = subprocess.run(command, cwd=folder, capture_output=True, encoding="utf-8", errors="replace", check=False)
    if done.returncode != 0:
        said = " ".join(done.stderr.split()) or "no message"
        raise OSError(f"{' '.join(command)} ended with status {done.returncode}: {said}")
    return done.stdout


def fetch_archive(package: str, folder: Path) -> Path:
    """The ``.deb`` of a package in ``folder``: the one that is there, if whole, else downloaded with apt-get.

    Either has the SHA-256 that the machine's package lists say; a file of another is replaced. ``OSError`` if a tool is
    absent or fails, or what was downloaded has another SHA-256.
    """
    require_tools(package, "apt-get", "apt-cache")
    folder.mkdir(parents=True, exist_ok=True)
    record = dict(
        line.split(": ", 1)
        for line in run(["apt-cache", "show", "--no-all-versions", package], folder).splitlines()
        if ": " in line and not line.startswith(" ")
    )
    missing = [name for name in ("Filename", "SHA256", "Size") if name not in record]
    if missing:
        raise OSError(f"apt-cache show {package}: expected Filename, SHA256 and Size, got no {', '.join(missing)}")
    archive = folder / PurePosixPath(record["Filename"]).name
    if archive.is_file() and content_hash(archive) == record["SHA256"]:
        return archive
    archive.unlink(missing_ok=True)
    print(f"fetching {package} ({int(record['Size']) / 1e6:.0f} MB) with apt-get")
    run(["apt-get", "download", package], folder)
    if not archive.is_file():
        raise OSError(f"apt-get download {package} left no {archive.name}")
    found = content_hash(archive)
    if found != record["SHA256"]:
        raise OSError(f"{archive}: expected SHA-256 {record['SHA256']}, got {found}")
    return archive


def unpack(archive: Path, folder: Path, wanted: Callable[[str], bool], unit: str) -> None:
    """Write the files of a ``.deb`` whose path in it, without a leading ``./``, is ``wanted`` to ``folder``.

    ``folder`` appears when all are there; one that exists is replaced. Links and paths that lead out of the folder are
    not written. ``OSError`` if the archive is damaged.
    """
    require_tools(archive.name, "dpkg-deb")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=temporary_prefix()) as name:
        work = Path(name) / "unpacked"
        work.mkdir()
        with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", archive], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            try:
                with (
                    tarfile.open(fileobj=process.stdout, mode="r|", encoding="utf-8") as members,
                    progress_bar(unit=unit, desc="unpack") as progress,
                ):
                    for member in members:
                        place = member.name.removeprefix("./")
                        data = members.extractfile(member) if member.isreg() and wanted(place) else None
                        if data is None or ".." in PurePosixPath(place).parts or place.startswith("/"):
                            continue
                        (work / place).parent.mkdir(parents=True, exist_ok=True)
                        with (work / place).open("wb") as file:
                            shutil.copyfileobj(data, file)
                        progress.update()
                while process.stdout.read(1 << 20):
                    pass  # what pads the end, or dpkg-deb says that its pipe broke
            except tarfile.TarError as error:
                raise OSError(f"{archive}: not readable as a Debian package: {error}") from error
        if process.returncode != 0:
            raise OSError(f"{archive}: dpkg-deb --fsys-tarfile ended with status {process.returncode}")
        shutil.rmtree(folder, ignore_errors=True)
        work.rename(folder)
