"""Bring the table of an index up to a folder: what is new or changed is embedded, what is gone is removed.

Every batch is written when it is embedded, so an interruption loses what was not, and the next update does the rest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePath

import numpy as np

from nepa3d.execution.files import content_hash
from nepa3d.execution.progress_bar import Progress
from nepa3d.inference.batches import in_batches, of_each
from nepa3d.inference.embedder import Embedder, Float
from nepa3d.inference.shape_files import ReadShape, ShapeFile
from nepa3d.inference.table import Row, ShapeTable
from nepa3d.shapes.cache import CacheError


@dataclass
class Update:
    """What an update did, by the paths of the files."""

    added: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    """Rows of files that are gone, or that changed into what cannot be used."""
    unchanged: int = 0
    reused: int = 0
    """Added or changed files whose content the index had under another path."""
    failed: dict[str, str] = field(default_factory=dict)
    """Files that cannot be used, with the reason."""
    suspicious: dict[str, str] = field(default_factory=dict)
    """Files that were embedded now and may be wrong, with the reason."""

    def summary(self) -> str:
        """One line of counts."""
        counts = {"added": len(self.added), "changed": len(self.changed), "removed": len(self.removed)}
        counts |= {"unchanged": self.unchanged, "failed": len(self.failed), "suspicious": len(self.suspicious)}
        line = ", ".join(f"{count} {what}" for what, count in counts.items() if count) or "no shapes"
        return f"{line} ({self.reused} with a content that was known)" if self.reused else line


@dataclass(frozen=True)
class Prepared:
    """A file whose row is to be written: read, or of a content that is known, or not to be used."""

    row: Row
    read: ReadShape | None = None
    known: str = ""
    """Path of a row of the same content."""
    fault: str = ""


class TableUpdate:
    """One update of a table, which the caller has locked."""

    def __init__(self, table: ShapeTable, root: Path, embedder: Embedder) -> None:
        self.table, self.root, self.embedder = table, root, embedder
        self.there: Mapping[str, Row] = {row.path: row for row in table.rows()}
        self.known = {_content(row): row.path for row in self.there.values()}
        self.done = Update()

    def run(self, files: Sequence[ShapeFile], bar: Progress, *, workers: int, batch: int) -> Update:
        """Make the rows those of ``files``, which are all that there are."""
        pending = [file for file in files if not self._as_it_was(file)]
        self.done.unchanged = len(files) - len(pending)
        bar.total = len(pending)
        with ThreadPoolExecutor(workers, thread_name_prefix="read") as pool:
            for prepared in in_batches(pool, self._prepare, pending, batch):
                self._write(prepared)
                bar.update(len(prepared))
        self.done.removed += sorted(self.there.keys() - {file.path for file in files})
        self.table.delete(self.done.removed)
        if pending or self.done.removed:
            self.table.tidy()
        return self.done

    def _as_it_was(self, file: ShapeFile) -> bool:
        row = self.there.get(file.path)
        return row is not None and (row.size, row.mtime_ns, row.id) == (file.size, file.mtime_ns, file.key)

    def _prepare(self, file: ShapeFile) -> Prepared:
        row = Row(file.path, file.key, file.class_name, "", file.size, file.mtime_ns)
        path = self.root / file.path
        try:
            file.path.encode()  # strings of the table are UTF-8
            row = row._replace(sha256=content_hash(path))
            known = self.known.get(_content(row), "")
            return Prepared(row, None if known else self.embedder.read(path, row.sha256), known)
        except UnicodeEncodeError:
            return Prepared(row, fault="the name is not UTF-8")
        except (ValueError, OSError, MemoryError) as error:
            return Prepared(row, fault=_told(error))

    def _write(self, batch: Sequence[Prepared]) -> None:
        """Embed a batch and write its rows; those of files that cannot be used are removed."""
        faults = {item.row.path: item.fault for item in batch if item.fault}
        vectors = self._known_vectors(batch)
        self.done.reused += sum(item.row.path in vectors and item.known != item.row.path for item in batch)
        fresh: list[tuple[Row, ReadShape]] = []
        for item in batch:
            if item.row.path in faults or item.row.path in vectors:
                continue
            try:  # a known content may be gone from the table since
                fresh.append((item.row, item.read or self.embedder.read(self.root / item.row.path, item.row.sha256)))
            except (ValueError, OSError, MemoryError) as error:
                faults[item.row.path] = _told(error)
        vectors |= self._embed(fresh, faults)
        self.done.suspicious |= {row.path: read.shape.doubt for row, read in fresh if read.shape.doubt}
        rows = [item.row for item in batch if item.row.path in vectors]
        if rows:
            self.table.put(rows, np.stack([vectors[row.path] for row in rows]))
        for row in rows:
            self._count(row)
        lost = [path for path in faults if path in self.there]
        self.table.delete(lost)
        self.done.removed += lost
        self.done.failed |= faults

    def _count(self, row: Row) -> None:
        before = self.there.get(row.path)
        if before is None:
            self.done.added.append(row.path)
        elif before.sha256 != row.sha256:
            self.done.changed.append(row.path)
        else:
            self.done.unchanged += 1

    def _known_vectors(self, batch: Sequence[Prepared]) -> dict[str, Float]:
        """The vectors, by path, of those files whose content the table has."""
        rows, vectors = self.table.vectors([item.known for item in batch if item.known])
        found = {row.path: (row.sha256, vector) for row, vector in zip(rows, vectors, strict=True)}
        return {
            item.row.path: found[item.known][1]
            for item in batch
            if item.known in found and found[item.known][0] == item.row.sha256
        }

    def _embed(self, shapes: Sequence[tuple[Row, ReadShape]], faults: dict[str, str]) -> dict[str, Float]:
        """The vectors by path; shapes that cannot be used are among the faults."""
        made = of_each(self.embedder.vectors, [read for _, read in shapes])
        found = dict(zip((row.path for row, _ in shapes), made, strict=True))
        faults |= {path: _told(error) for path, error in found.items() if isinstance(error, CacheError)}
        return {path: vector for path, vector in found.items() if not isinstance(vector, CacheError)}


def _content(row: Row) -> tuple[str, str]:
    """What a vector is a function of; the ending says how the content is read."""
    return row.sha256, PurePath(row.path).suffix.lower()


def _told(error: BaseException) -> str:
    """The reason; of a cache's fault without the name of the shape, which is its content's hash."""
    return error.fault if isinstance(error, CacheError) else str(error) or "memory ran out"
