"""The table of an index on disk, in LanceDB: one row a shape, and the settings of the index in its schema.

A table is a folder ``<name>.lance``; ``lancedb.connect(<its parent>).open_table("<name>")`` opens it, too. Every change
is a version of its own that appears whole or not at all, so readers need no lock; writers take ``ShapeTable.locked``.
Letters: N rows, D width of a vector, Q queries, K neighbours.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

SUFFIX = ".lance"
LOCK = ".writer"  # in the folder of the table; Lance leaves files it does not know alone
SETTINGS = b"nepa3d"  # key of the settings in the schema
STATE = b"nepa3d:state"  # key of what may change, in the metadata of the vectors' column
VECTOR = "vector"
COLUMNS = ("path", "id", "class", "sha256", "size", "mtime_ns")  # beside the vector
NAMED_AT_ONCE = 500  # paths in one condition
KEPT = timedelta(days=1)  # versions of the table, for readers that have them open
LEAST_TRAINED = 256  # rows from which an approximate index can be made


class Row(NamedTuple):
    """One shape of the table, beside its vector."""

    path: str
    """Below the folder of the index; no two rows have the same."""
    id: str
    """ "class/id"."""
    class_name: str
    sha256: str
    size: int
    mtime_ns: int


class Hits(NamedTuple):
    """The rows nearest to each of Q vectors."""

    rows: list[list[Row]]
    """Most alike first, at most K a query."""
    similarity: list[NDArray[np.float32]]
    """Cosines (K,) of each query."""


class ShapeTable:
    """A table that is open. Make one with ``create`` or ``open``."""

    def __init__(self, path: Path, table: Any) -> None:
        self.path, self._table = path, table

    @classmethod
    def create(cls, path: Path, width: int, settings: Mapping[str, Any], state: Mapping[str, Any]) -> ShapeTable:
        """A table without rows, of vectors of ``width``. ``ValueError`` if ``path`` is no name for one, or taken."""
        pa = _module("pyarrow")
        names = ("path", "id", "class", "sha256")
        fields = [pa.field(name, pa.string(), nullable=False) for name in names]
        fields += [pa.field(name, pa.int64(), nullable=False) for name in ("size", "mtime_ns")]
        kept = {STATE: json.dumps(dict(state))}
        fields.append(pa.field(VECTOR, pa.list_(pa.float32(), width), nullable=False, metadata=kept))
        schema = pa.schema(fields, metadata={SETTINGS: json.dumps(dict(settings))})
        with _faults(path):
            return cls(path, _database(path).create_table(_name(path), schema=schema))

    @classmethod
    def open(cls, path: Path) -> ShapeTable:
        """A table that is there. ``ValueError`` naming ``path`` if it is not, or is not one of nepa3d.

        This and every other method raises ``OSError`` where a file of the table cannot be read or written.
        """
        name = _name(path)
        if not is_table(path):
            raise ValueError(f"{path}: there is no index here; nepa3d index FOLDER --out {path} makes one")
        with _faults(path):
            found = cls(path, _database(path).open_table(name))
        found.settings()
        return found

    def settings(self) -> dict[str, Any]:
        """What the table was made with; fixed. ``ValueError`` if it is a table of something else."""
        return _json(self.path, (self._table.schema.metadata or {}).get(SETTINGS))

    def state(self) -> dict[str, Any]:
        """What may change beside the rows."""
        return _json(self.path, (self._table.schema.field(VECTOR).metadata or {}).get(STATE))

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Replace ``state``."""
        with _faults(self.path):
            self._table.update_field_metadata({"path": VECTOR, "metadata": {STATE.decode(): json.dumps(dict(state))}})

    @property
    def width(self) -> int:
        """D."""
        return int(self._table.schema.field(VECTOR).type.list_size)

    @property
    def version(self) -> int:
        """Counts the changes of the table."""
        return int(self._table.version)

    def __len__(self) -> int:
        with _faults(self.path):
            return int(self._table.count_rows())

    def rows(self) -> list[Row]:
        """Every row, sorted by path."""
        with _faults(self.path):
            return sorted(_rows(self._table.search().select([*COLUMNS]).limit(None).to_arrow()))

    def vectors(self, paths: Sequence[str] | None = None) -> tuple[list[Row], NDArray[np.float32]]:
        """Rows, sorted by path, with their vectors (N, D): every row, or those of ``paths`` that are there."""
        parts = [None] if paths is None else [_condition(some) for some in _some(paths)]
        rows, vectors = list[Row](), [np.empty((0, self.width), np.float32)]
        for condition in parts:
            query = self._table.search().select([*COLUMNS, VECTOR]).limit(None)
            with _faults(self.path):
                found = (query.where(condition) if condition else query).to_arrow()
            rows += _rows(found)
            vectors.append(_matrix(found[VECTOR]))
        order = sorted(range(len(rows)), key=rows.__getitem__)
        return [rows[i] for i in order], np.concatenate(vectors)[order]

    def put(self, rows: Sequence[Row], vectors: NDArray[np.float32]) -> None:
        """Add rows with vectors (N, D), in the place of those of the same paths; all of them or, on an error, none."""
        pa = _module("pyarrow")
        if not rows:
            return
        schema = self._table.schema
        flat = pa.array(np.ascontiguousarray(vectors, np.float32).ravel())
        columns = [pa.array(column, field.type) for column, field in zip(zip(*rows, strict=True), schema, strict=False)]
        columns.append(pa.FixedSizeListArray.from_arrays(flat, schema.field(VECTOR).type.list_size))
        merge = self._table.merge_insert("path").when_matched_update_all().when_not_matched_insert_all()
        with _faults(self.path):
            merge.execute(pa.Table.from_arrays(columns, schema=schema))

    def delete(self, paths: Iterable[str]) -> None:
        """Remove the rows of ``paths``."""
        for some in _some(sorted(paths)):
            with _faults(self.path):
                self._table.delete(_condition(some))

    def tidy(self) -> None:
        """Join small files, bring an approximate index up to date, and remove versions older than a day."""
        with _faults(self.path):
            self._table.optimize(cleanup_older_than=KEPT)

    def nearest(self, vectors: NDArray[np.float32], k: int, *, approximate: bool = False, probes: int = 0) -> Hits:
        """The ``k`` rows whose vectors have the largest cosines with each of ``vectors`` (Q, D).

        Exactly, by comparing all rows; or as the approximate index finds them, which then looks into ``probes`` of its
        cells (0: as many as LanceDB chooses). ``ValueError`` where there is none.
        """
        if approximate and not self.approximate():
            raise ValueError(f"{self.path} has no approximate index: make it with nepa3d index --approximate")
        rows, similarity = [], []
        for vector in vectors:
            query = self._table.search(np.ascontiguousarray(vector, np.float32), vector_column_name=VECTOR)
            query = query.metric("cosine").limit(k).select([*COLUMNS, "_distance"])
            if not approximate:
                query = query.bypass_vector_index()
            elif probes:
                query = query.nprobes(probes)
            with _faults(self.path):
                found = query.to_arrow()
            rows.append(_rows(found))
            similarity.append(1 - found["_distance"].to_numpy().astype(np.float32))
        return Hits(rows, similarity)

    def train(self) -> None:
        """Make the approximate index anew: cells of vectors that are alike, kept whole (LanceDB's IVF_FLAT).

        ``ValueError`` below 256 rows, which are compared faster one by one.
        """
        if len(self) < LEAST_TRAINED:
            raise ValueError(f"{self.path}: an approximate index needs {LEAST_TRAINED} shapes, there are {len(self)}")
        index = _module("lancedb.index")
        with _faults(self.path):
            self._table.create_index(VECTOR, config=index.IvfFlat(distance_type="cosine"), replace=True)

    def approximate(self) -> bool:
        """Whether there is an approximate index."""
        return any(VECTOR in index.columns for index in self._table.list_indices())

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other writers away; a lock of a process that ends, however it ends, is gone with it.

        ``ValueError`` naming who writes if there is one. What it wrote before is seen within.
        """
        with (self.path / LOCK).open("a+", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                file.seek(0)
                who = file.read().strip() or "another process"
                raise ValueError(f"{self.path}: {who} is writing to this index; run it again afterwards") from error
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}")
            file.flush()
            self._table.checkout_latest()
            yield
            file.truncate(0)


@contextlib.contextmanager
def _faults(path: Path) -> Iterator[None]:
    """LanceDB's errors of files, which are RuntimeErrors, as what they are."""
    try:
        yield
    except RuntimeError as error:
        raise OSError(f"{path}: the index cannot be read or written: {str(error).splitlines()[0]}") from error


def is_table(path: Path) -> bool:
    """Whether the folder ``path`` holds a table, of whatever. One whose creation was cut off has no version."""
    versions = path / "_versions"
    return versions.is_dir() and any(versions.iterdir())


def _name(path: Path) -> str:
    if path.suffix != SUFFIX or not path.stem:
        raise ValueError(f"{path}: expected a name that ends in {SUFFIX}")
    return path.stem


def _database(path: Path) -> Any:
    """LanceDB's connection to the folder in which the table lies."""
    parent = path.absolute().parent
    parent.mkdir(parents=True, exist_ok=True)
    return _module("lancedb").connect(parent)


def _module(name: str) -> Any:
    import importlib  # these take seconds to load, and few commands need them

    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ValueError("the index needs LanceDB: pip install 'nepa3d[search]'") from error


def _json(path: Path, text: bytes | None) -> dict[str, Any]:
    if text is None:
        raise ValueError(f"{path}: a LanceDB table, but not one that nepa3d index made")
    found: dict[str, Any] = json.loads(text)
    return found


def _rows(found: Any) -> list[Row]:
    """The rows of an Arrow table, in its order."""
    return list(map(Row._make, zip(*(found[name].to_pylist() for name in COLUMNS), strict=True)))


def _matrix(column: Any) -> NDArray[np.float32]:
    values = column.combine_chunks()
    width = values.type.list_size
    return np.asarray(values.flatten(), np.float32).reshape(-1, width)


def _some(paths: Sequence[str]) -> list[Sequence[str]]:
    """The paths, as many at a time as one condition takes."""
    return [paths[begin : begin + NAMED_AT_ONCE] for begin in range(0, len(paths), NAMED_AT_ONCE)]


def _condition(paths: Sequence[str]) -> str:
    """SQL that is true of the rows of ``paths``."""
    quoted = ("'" + path.replace("'", "''") + "'" for path in paths)
    return f"path IN ({', '.join(quoted)})"
