"""From a mesh file to clean triangles that fit the unit sphere."""

from __future__ import annotations

import codecs
import os
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nepa3d import ops
from nepa3d.execution.errors import BadInputError
from nepa3d.shapes.file_kinds import other_kind
from nepa3d.shapes.glb import parse_glb
from nepa3d.shapes.placement import Placement
from nepa3d.shapes.reading import OutOfRangeError, TooLargeError, UnsupportedError
from nepa3d.shapes.rotation import Up, upright
from nepa3d.shapes.vrml import parse_vrml

MAX_FACES = 20_000_000  # of a mesh, unless more are asked for
MAX_FILE_BYTES = 4 << 30


class Reason(str, Enum):
    """Why a shape cannot be used."""

    EMPTY_FILE = "empty_file"
    UNREADABLE = "unreadable"
    UNSUPPORTED = "unsupported"
    NO_FACES = "no_faces"
    NONFINITE_VERTICES = "nonfinite_vertices"
    ALL_DEGENERATE = "all_degenerate"
    INDEX_OUT_OF_RANGE = "index_out_of_range"
    TOO_LARGE = "too_large"
    ZERO_EXTENT = "zero_extent"


class BadShapeError(BadInputError):
    """A mesh file or scan that cannot be used: names the file, the reason and the detail."""

    def __init__(self, path: str | os.PathLike[str], reason: Reason, detail: str) -> None:
        super().__init__(f"{os.fspath(path)}: {reason.value}: {detail}")
        self.path, self.reason, self.detail = os.fspath(path), reason, detail

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path, self.reason, self.detail)


MeshFile = ops.RepairedMesh


@dataclass(frozen=True)
class Mesh:
    """Triangles in the unit sphere: ``vertices`` (V, 3) float32, ``faces`` (F, 3) int64, what cleaning dropped, what
    was wrong in the file but could be read, and where the mesh lay."""

    vertices: NDArray[np.float32]
    faces: NDArray[np.int64]
    dropped: dict[str, int]
    file_repaired: str = ""
    placement: Placement | None = None

    @property
    def repaired(self) -> str:
        """What had to be repaired, in words; "" if nothing had."""
        dropped = [f"{count} {what.replace('_', ' ')}" for what, count in self.dropped.items() if count]
        return ", ".join([*dropped, self.file_repaired] if self.file_repaired else dropped)

    @property
    def suspicious(self) -> bool:
        """Whether most triangles of the file had no area, or most vertices no place, as happens where indices or
        positions were read wrongly, or computed wrongly by whoever wrote it."""
        lost = self.dropped.get("nonfinite_vertices", 0) > len(self.vertices)
        return lost or self.dropped.get("degenerate_faces", 0) > len(self.faces)

    @property
    def doubt(self) -> str:
        """Why it is suspicious, in words; "" if it is not."""
        return f"most of it could not be used: {self.repaired}" if self.suspicious else ""

    def face_normals(self, of: NDArray[np.int64]) -> NDArray[np.float32]:
        """Unit normals (N, 3) of the faces ``of`` (N,), by their winding."""
        a, b, c = (self.vertices[self.faces[of, k]].astype(np.float64) for k in range(3))
        normal = np.cross(b - a, c - a)
        length = np.linalg.norm(normal, axis=1, keepdims=True)
        # vertices rounded to float32 can leave a face without area
        return np.divide(normal, length, out=np.zeros_like(normal), where=length > 0).astype(np.float32)


def read_mesh(path: str | os.PathLike[str], *, max_faces: int = MAX_FACES) -> MeshFile:
    """Vertices (V, 3) float64 and faces (F, 3) of all parts of a mesh file, merged, as they stand in it.

    OBJ, OFF, PLY, STL, GLB and VRML 2.0 (``.wrl``) are read; no other file is opened. A GLB or VRML file of more than
    ``max_faces`` triangles is refused before they are made, as a few bytes can place a part many times. Raises
    ``BadShapeError``, which says what a file without a face holds if its first bytes are those of another kind.
    """
    path = Path(path)
    if not path.is_file():
        if not path.exists():
            raise BadShapeError(path, Reason.UNREADABLE, "there is no such file")
        raise BadShapeError(path, Reason.UNSUPPORTED, "not a regular file")
    size = path.stat().st_size
    if size == 0:
        raise BadShapeError(path, Reason.EMPTY_FILE, "the file has 0 bytes")
    if size > MAX_FILE_BYTES:
        raise BadShapeError(path, Reason.TOO_LARGE, f"{size} bytes, at most {MAX_FILE_BYTES} are read")
    kind = path.suffix.lower().removeprefix(".")
    if kind not in READERS:
        known = ", ".join(READERS)
        raise BadShapeError(path, Reason.UNSUPPORTED, f"no reader for {path.suffix or 'no suffix'}, only {known}")
    try:
        mesh = READERS[kind](path.read_bytes(), max_faces)
    except ValueError as error:
        raise BadShapeError(path, _reason(error), other_kind(path) or str(error)) from error
    if len(mesh.faces) == 0 and (held := other_kind(path)):
        raise BadShapeError(path, Reason.NO_FACES, held)
    return mesh


def _reason(error: ValueError) -> Reason:
    """The kind of a reader's error: by its type, or, of the compiled readers, by the words their contract names."""
    if isinstance(error, UnsupportedError) or "not supported" in str(error):
        return Reason.UNSUPPORTED
    if isinstance(error, TooLargeError):
        return Reason.TOO_LARGE
    if isinstance(error, OutOfRangeError) or "is out of range" in str(error):
        return Reason.INDEX_OUT_OF_RANGE
    return Reason.UNREADABLE


def load_mesh(path: str | os.PathLike[str], *, max_faces: int = MAX_FACES, up: Up = "y") -> Mesh:
    """Read a mesh file, turn it ``upright`` and ``prepare_mesh``. Raises ``BadShapeError``."""
    vertices, faces, repaired = read_mesh(path, max_faces=max_faces)
    return prepare_mesh(upright(vertices, up), faces, path, max_faces=max_faces, repaired=repaired)


def prepare_mesh(
    vertices: NDArray[np.floating],
    faces: NDArray[np.integer],
    name: str | os.PathLike[str] = "mesh",
    *,
    max_faces: int = MAX_FACES,
    repaired: str = "",
) -> Mesh:
    """The mesh of vertices (V, 3) and faces (F, 3) without what carries no surface, in the unit sphere (``normalize``).

    Raises ``BadShapeError`` with ``name`` where nothing is left.
    """
    if len(faces) > max_faces:
        raise BadShapeError(name, Reason.TOO_LARGE, f"{len(faces)} triangles, at most {max_faces} are wanted")
    if len(faces) == 0:
        raise BadShapeError(name, Reason.NO_FACES, f"{len(vertices)} vertices and no face")
    kept, triangles, dropped = ops.clean_mesh(vertices, faces)
    if len(triangles) == 0:
        reason = Reason.ALL_DEGENERATE if dropped["degenerate_faces"] else Reason.NONFINITE_VERTICES
        raise BadShapeError(name, reason, "no face has an area and finite corners")
    fitted = ops.fit_unit_sphere(kept)
    return Mesh(fitted.vertices, triangles, dropped, repaired, Placement(fitted.centre, fitted.scale))


def normalize(vertices: NDArray[np.float64]) -> NDArray[np.float32]:
    """Vertices (V, 3) centred on their bounding box and divided by the largest norm, so that they fit the unit sphere.

    The vertices must be finite and not all in one place.
    """
    return ops.fit_unit_sphere(vertices).vertices


def as_utf8(content: bytes) -> bytes:
    """Text in any encoding that editors write (UTF-8, UTF-16, UTF-32, else Latin-1) as UTF-8 with the blanks and line
    ends of ASCII. ASCII, which nearly all files are, is returned as it is."""
    mark, encoding = next(((mark, name) for mark, name in _MARKS if content.startswith(mark)), (b"", ""))
    if not encoding and content.isascii() and b"\0" not in content[:2]:
        return content
    if not encoding and b"\0" in content[:2]:
        encoding = "utf-16-le" if content[1] == 0 else "utf-16-be"
    if encoding:
        text = content[len(mark) :].decode(encoding)
    else:
        try:
            text = content.decode()
        except UnicodeDecodeError:
            text = content.decode("latin-1")
    return text.translate(_BLANKS).encode()


_MARKS = (  # in this order, as UTF-32's begins with UTF-16's
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_BLANKS = {code: " " for code in range(0x80, 0x3001) if chr(code).isspace()} | dict.fromkeys(
    (0x85, 0x2028, 0x2029), "\n"
)


def _read_obj(content: bytes, max_faces: int) -> MeshFile:
    return MeshFile(*ops.parse_obj(as_utf8(content)), "")


def _read_off(content: bytes, max_faces: int) -> MeshFile:
    return MeshFile(*ops.parse_off(as_utf8(content)), "")


def _read_ply(content: bytes, max_faces: int) -> MeshFile:
    content = content.removeprefix(codecs.BOM_UTF8)  # what follows may be binary
    return ops.parse_ply(content if content.startswith(b"ply") else as_utf8(content))


def _read_stl(content: bytes, max_faces: int) -> MeshFile:
    text = content.startswith((codecs.BOM_UTF8, *_UTF16_SOLID))
    return ops.parse_stl(as_utf8(content) if text else content)


def _read_glb(content: bytes, max_faces: int) -> MeshFile:
    return MeshFile(*parse_glb(content, max_faces=max_faces), "")


def _read_wrl(content: bytes, max_faces: int) -> MeshFile:
    return MeshFile(*parse_vrml(as_utf8(content), max_faces=max_faces), "")


_UTF16_SOLID = tuple(mark + "solid".encode(name) for mark, name in _MARKS if name.startswith("utf-16"))
READERS: dict[str, Callable[[bytes, int], MeshFile]] = {
    "obj": _read_obj,
    "off": _read_off,
    "ply": _read_ply,
    "stl": _read_stl,
    "glb": _read_glb,
    "wrl": _read_wrl,
}
