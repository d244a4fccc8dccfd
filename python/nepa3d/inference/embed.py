"""The command that embeds a folder: a vector a shape, in one file that NumPy or any reader of Parquet opens."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro
from numpy.typing import NDArray
from tabulate import tabulate

from nepa3d import __version__, cli
from nepa3d.corpora.folder import folder
from nepa3d.corpora.shape_list import list_shapes
from nepa3d.execution.errors import BadInputError
from nepa3d.execution.files import atomic_path, require_writable, write_npz
from nepa3d.inference.batches import Refused, used
from nepa3d.inference.model_flags import ModelFlags
from nepa3d.models.embedding import Pooling, Representation
from nepa3d.models.encoder import Encoder
from nepa3d.shapes.query_pools import PoolSettings, needed_by
from nepa3d.shapes.shape import Shape
from nepa3d.shapes.view_table import require_backend, view_row

METADATA = "nepa3d"  # the key of the settings among a Parquet file's metadata


@dataclass(frozen=True)
class Config:
    """Embed the meshes below a folder, or a split of a cache: ids, classes, vectors and settings in one file.

    The class of a mesh is the first folder below ROOT. Files that cannot be read are listed; the exit status is then 3.

    Example: nepa3d embed meshes --out embeddings.parquet --ckpt runs/query/last.pt --view pointcloud_noray
    """

    root: Annotated[Path, tyro.conf.Positional]
    """Folder of meshes (OBJ, OFF, PLY, STL, GLB, VRML), however deep; with --split the root of a cache."""
    out: Path
    """File to write: .npz, or .parquet (needs pyarrow)."""
    model: ModelFlags = field(default_factory=ModelFlags)
    split: str = ""
    """Embed the cache files of this split of ROOT instead."""
    view: str = "mesh"
    """View of the shapes that the model is told."""
    up: Literal["x", "y", "z"] = "y"
    """Axis of the meshes that points up; they are turned so that it is y, as models expect it."""
    draws: int = 4
    """Samples of a shape's queries that are embedded and averaged."""
    seed: int = 0
    """Seed of the draws, which also depend on the shape's id."""
    pooling: Pooling = "eos"
    """Embedding: the last token, or the mean of the answers, questions, predicted answers, or all tokens."""
    representation: Representation = "h"
    """Hidden state h or predicted embedding z_hat."""
    batch: int = 64
    """Shapes that are read, and embedded, together."""
    workers: int = 2
    """Threads that read shapes."""

    def __post_init__(self) -> None:
        require_backend(self.view, "view")
        for name in ("draws", "batch", "workers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.split and self.up != "y":
            raise ValueError(f"up must be y for the files of a cache, which are not turned, got {self.up}")
        if self.out.suffix not in (".npz", ".parquet"):
            raise ValueError(f"out must end in .npz or .parquet, got {self.out.name!r}")


@dataclass(frozen=True)
class Embedded:
    """N shapes with their vectors, and the files that could not be read."""

    ids: list[str]
    """ "class/id" each."""
    files: list[str]
    vectors: NDArray[np.float32]
    """(N, D), each of length 1."""
    failed: dict[str, str]
    """Reasons by file."""
    suspicious: dict[str, str]
    """Why a shape may be wrong, by file."""

    @property
    def classes(self) -> list[str]:
        """The class of each shape."""
        return [name.partition("/")[0] for name in self.ids]


def embed(config: Config, encoder: Encoder) -> Embedded:
    """Embed every shape that can be read. ``ValueError`` if none can."""
    listed = list(shapes(config.root, config.split))
    pools = needed_by(PoolSettings(), view_row(config.view), rays=encoder.probe.n_ray > 0)  # of a whole cache file
    ids, files, failed, suspicious = list[str](), list[str](), dict[str, str](), dict[str, str]()
    vectors = [np.empty((0, encoder.width), np.float32)]

    def read(named: tuple[str, Path]) -> Shape | Refused:
        name, path = named
        try:
            if config.out.suffix == ".parquet":
                f"{path}".encode()  # strings of Parquet are UTF-8
            if config.split:
                return Shape.from_cache(path)
            return Shape.from_mesh(path, key=name, settings=pools, up=config.up)
        except UnicodeEncodeError:
            return Refused("the name is not UTF-8")
        except (BadInputError, OSError, MemoryError) as error:
            return Refused(f"{error}".removeprefix(f"{path}: ") or "memory ran out")

    def embeddings(some: Sequence[Shape]) -> NDArray[np.float32]:
        return encoder.embed(
            some,
            config.view,
            draws=config.draws,
            seed=config.seed,
            pooling=config.pooling,
            representation=config.representation,
            batch=config.batch,
        )

    through = used(listed, read, embeddings, workers=config.workers, batch=config.batch, task="embed")
    for (name, path), shape, row in through:
        if isinstance(row, Refused):
            failed[f"{path}"] = row.reason
            continue
        ids.append(name)
        files.append(f"{path}")
        vectors.append(row[None])
        if shape.doubt:
            suspicious[f"{path}"] = shape.doubt
    if not ids:
        first, reason = next(iter(failed.items()))
        raise ValueError(f"root: none of {len(failed)} files could be read, the first: {first}: {reason}")
    return Embedded(ids, files, np.concatenate(vectors), failed, suspicious)


def shapes(root: Path, split: str) -> Iterator[tuple[str, Path]]:
    """ "class/id" and file of the meshes below a folder, or of a cache's split."""
    if not split:
        yield from ((mesh.key, mesh.path) for mesh in folder(root))
        return
    for file in map(Path, list_shapes(root, split)):
        yield f"{file.parent.name}/{file.stem}", file


def settings(config: Config, encoder: Encoder) -> dict[str, Any]:
    """What the vectors depend on, beside the files."""
    said = {"nepa3d": __version__, "ckpt": encoder.probe.ckpt, "precision": encoder.probe.precision}
    names = ("split", "view", "up", "draws", "seed", "pooling", "representation")
    return {**said, "root": f"{config.root}", **{name: getattr(config, name) for name in names}}


def write(path: Path, found: Embedded, said: dict[str, Any]) -> None:
    """Write ids, classes, files, vectors and settings as ``.npz`` or ``.parquet``, whole or not at all."""
    columns = {"id": found.ids, "class": found.classes, "file": found.files}
    if path.suffix == ".npz":
        names = {"id": "ids", "class": "classes", "file": "files"}
        arrays = {names[name]: np.array(values) for name, values in columns.items()}
        write_npz(path, {**arrays, "vectors": found.vectors, "settings": np.array([json.dumps(said)])})
        return
    import pyarrow
    from pyarrow import parquet

    flat = pyarrow.array(found.vectors.ravel())
    vectors = pyarrow.FixedSizeListArray.from_arrays(flat, found.vectors.shape[1])
    table = pyarrow.table({**columns, "vector": vectors}, metadata={METADATA: json.dumps(said)})
    with atomic_path(path) as temporary:
        parquet.write_table(table, temporary)


def command(config: Config) -> int:
    """Embed, write, print how many shapes each class has; 3 if a file could not be read, else 0."""
    require_writable(config.out, "out")
    if config.out.suffix == ".parquet" and find_spec("pyarrow") is None:
        raise ValueError("out: pyarrow is not installed: pip install 'nepa3d[parquet]'")
    encoder = config.model.load()
    found = embed(config, encoder)
    write(config.out, found, settings(config, encoder))
    names, counts = np.unique(found.classes, return_counts=True)
    print(tabulate(zip(names, counts, strict=True), ("class", "shapes"), disable_numparse=True))
    for what, files in (("suspicious", found.suspicious), ("failed", found.failed)):
        for path, reason in files.items():
            print(f"{what}: {path}: {reason}", file=sys.stderr)
    print(f"wrote {config.out}: {len(found.ids)} vectors of {found.vectors.shape[1]} numbers")
    return cli.EXIT_SOME_FAILED if found.failed else cli.EXIT_OK


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(Config, command, argv, output="out")


if __name__ == "__main__":
    raise SystemExit(main())
