"""Reading VRML 2.0 files (VRML97): the triangles of their IndexedFaceSets, where the scene places them.

What could show a surface and is not read is refused by its name, no part of a shape is left out in silence. Section
numbers are those of ISO/IEC 14772-1:1997, https://www.web3d.org/documents/specifications/14772/V2.0/.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from nepa3d import ops
from nepa3d.shapes.reading import OutOfRangeError, TooLargeError, UnsupportedError, merged

HEADER = b"#VRML V2.0 utf8"
MAX_DEPTH = 64  # of nodes in nodes

_WORD = re.compile(rb'[\s,]*([{}\[\]]|""|[^\s,{}\[\]"]+)')  # a comma is a blank (4.1.3)
_APART = re.compile(rb"[\s,]")
_STRING_OR_COMMENT = re.compile(rb'"(?:[^"\\]+|\\.)*"?|#[^\r\n]*', re.DOTALL)
_NUMBER = re.compile(rb"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_INTEGER = re.compile(rb"[+-]?\d+")
_BLOCK = 1 << 20  # bytes of a list that are words at a time

_Reader = Callable[[], Any]


class _Surface(NamedTuple):
    """Vertices (V, 3) and triangles (F, 3); at most 3 F vertices, so that a count of triangles bounds the memory."""

    points: NDArray[np.float64]
    faces: NDArray[np.int64]


_NOTHING = _Surface(np.zeros((0, 3)), np.zeros((0, 3), np.int64))


def parse_vrml(text: bytes, *, max_faces: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Vertices (V, 3) float64 and triangles (F, 3) of VRML 2.0 text, in the scene's coordinates and its unit.

    Group, Transform, Switch (its choice), Shape, IndexedFaceSet and Coordinate are read, under names given by DEF and
    used by USE; lines, points, lights and viewpoints show no surface and are passed over. Raises ``UnsupportedError``
    for all other nodes, ``TooLargeError`` for more than ``max_faces`` triangles, those of choices not taken among them,
    ``OutOfRangeError`` for indices of no point, and any other ``ValueError`` for a file that cannot be read, each with
    the line and what stood there.
    """
    if not text.startswith(HEADER):
        first = text[:40].split(b"\n")[0]
        if first.startswith((b"#VRML", b"#X3D", b"\x1f")):
            raise UnsupportedError(f"line 1: only {HEADER.decode()} is read, found {_shown(first)}")
        raise ValueError(f"line 1: expected {HEADER.decode()}, found {_shown(first)}")
    with np.errstate(all="ignore"):  # by transforms that overflow, which the check below finds
        points, faces = _Scene(_without_comments(text), max_faces).surface()
    if not np.isfinite(points).all():
        raise ValueError("a transform leads to positions that are not finite")
    return points, np.ascontiguousarray(faces)


def _without_comments(text: bytes) -> bytes:
    """The text without comments, its strings empty, and each word in the line where it was."""

    def kept(found: re.Match[bytes]) -> bytes:
        if found[0].startswith(b"#"):
            return b""
        if len(found[0]) < 2 or not found[0].endswith(b'"'):
            raise ValueError(f"line {_line(text, found.start())}: a string without an end")
        return b'""' + b"\n" * found[0].count(b"\n")

    return _STRING_OR_COMMENT.sub(kept, text)


def _line(text: bytes, at: int) -> int:
    return 1 + text.count(b"\n", 0, at)


def _shown(word: bytes) -> str:
    """A word of the file as an error's text: ASCII and short."""
    return repr(word if len(word) <= 40 else word[:37] + b"...")[1:]


class _Scene:
    """Reads the nodes of a file one after the other; what it returns for a node depends on the node's type."""

    def __init__(self, text: bytes, max_faces: int) -> None:
        self.text, self.at = text, 0
        self.max_faces, self.faces, self.depth = max_faces, 0, 0
        self.named: dict[bytes, tuple[bytes, Any]] = {}
        self.coordinates = partial(self.node, {b"Coordinate": partial(self.coordinate, {b"point": self.positions})})
        looks = dict.fromkeys(_LOOKS, self.skip)
        face_set: dict[bytes, _Reader] = {
            **looks,
            **dict.fromkeys(_FACE_LOOKS, self.skip),
            b"coord": self.coordinates,
            b"coordIndex": partial(self.numbers, np.int64),
            b"ccw": self.boolean,
        }
        lines: dict[bytes, _Reader] = {**looks, b"coord": self.coordinates, b"coordIndex": self.skip}
        geometry: dict[bytes, _Reader] = {
            b"IndexedFaceSet": partial(self.face_set, face_set),
            b"IndexedLineSet": partial(self.fields, lines),
            b"PointSet": partial(self.fields, {**looks, b"coord": self.coordinates}),
        }
        group = {b"bboxCenter": self.vector, b"bboxSize": self.vector, b"children": self.children}
        vectors = dict.fromkeys((b"translation", b"scale", b"center"), self.vector)
        turns = dict.fromkeys((b"rotation", b"scaleOrientation"), self.rotation)
        self.scene_nodes: dict[bytes, _Reader] = {
            b"Group": partial(self.group, group),
            b"Transform": partial(self.transform, {**group, **vectors, **turns}),
            b"Switch": partial(self.switch, {b"whichChoice": self.integer, b"choice": self.children}),
            b"Shape": partial(self.shape, {b"appearance": self.skip, b"geometry": partial(self.node, geometry)}),
            **dict.fromkeys(_UNSEEN, self.unseen),
        }

    # Words

    def word(self) -> bytes:
        """The next word, bracket or (empty) string. ``ValueError`` where the file ends."""
        found = _WORD.match(self.text, self.at)
        if found is None:
            self.at = len(self.text)
            self.fail("the file ends inside a node" if self.depth else "the file ends inside a statement")
        self.at = found.end()
        return found[1]

    def starts(self, bracket: bytes) -> bool:
        """Whether the next word is ``bracket``, which then is read."""
        found = _WORD.match(self.text, self.at)
        if found is None or found[1] != bracket:
            return False
        self.at = found.end()
        return True

    def fail(self, said: str, kind: type[ValueError] = ValueError) -> NoReturn:
        raise kind(f"line {_line(self.text, self.at)}: {said}")

    # Nodes

    def surface(self) -> _Surface:
        """All that the file shows."""
        parts = []
        while _WORD.match(self.text, self.at):
            parts.append(self.scene_node())
        return _together(parts)

    def scene_node(self) -> _Surface:
        shown: _Surface | None = self.node(self.scene_nodes)
        return _NOTHING if shown is None else shown

    def node(self, readers: Mapping[bytes, _Reader]) -> Any:
        """A node of one of some types, as its reader returns it; None for NULL. USE returns what DEF named."""
        kind = self.word()
        if kind == b"NULL":
            return None
        if kind == b"USE":
            return self.used(readers)
        name = None
        if kind == b"DEF":
            name, kind = self.word(), self.word()
        if kind not in readers:
            expected = ", ".join(sorted(known.decode() for known in readers))
            self.fail(f"node {_shown(kind)} is not supported here, only {expected}", UnsupportedError)
        self.depth += 1
        if self.depth > MAX_DEPTH:
            self.fail(f"more than {MAX_DEPTH} nodes inside each other are not supported", UnsupportedError)
        if not self.starts(b"{"):
            self.fail(f"expected {{ after {kind.decode()}, found {_shown(self.word())}")
        value = readers[kind]()
        self.depth -= 1
        if name is not None:
            self.named[name] = kind, value
        return value

    def used(self, readers: Mapping[bytes, _Reader]) -> Any:
        name = self.word()
        if name not in self.named:
            self.fail(f"USE of {_shown(name)}, a name that no DEF before it gives")
        kind, value = self.named[name]
        if kind not in readers:
            expected = ", ".join(sorted(known.decode() for known in readers))
            self.fail(f"USE of {_shown(name)}, which names {_shown(kind)}, expected {expected}")
        if isinstance(value, _Surface):
            self.count(len(value.faces))
        return value

    def count(self, faces: int) -> None:
        self.faces += faces
        if self.faces > self.max_faces:
            raise TooLargeError(f"{self.faces} triangles or more, at most {self.max_faces} are wanted")

    def fields(self, readers: Mapping[bytes, _Reader]) -> dict[bytes, Any]:
        """The fields of a node, to its closing bracket."""
        values: dict[bytes, Any] = {}
        while (name := self.word()) != b"}":
            if name not in readers:
                expected = ", ".join(sorted(known.decode() for known in readers))
                self.fail(f"field {_shown(name)} is not supported here, only {expected}", UnsupportedError)
            values[name] = readers[name]()
        return values

    def children(self) -> list[_Surface]:
        if not self.starts(b"["):
            return [self.scene_node()]
        nodes = []
        while not self.starts(b"]"):
            nodes.append(self.scene_node())
        return nodes

    def group(self, readers: Mapping[bytes, _Reader]) -> _Surface:
        return _together(self.fields(readers).get(b"children", []))

    def transform(self, readers: Mapping[bytes, _Reader]) -> _Surface:
        """6.52: P' = T C R SR S -SR -C P."""
        found = self.fields(readers)
        points, faces = _together(found.get(b"children", []))
        center = found.get(b"center", np.zeros(3))
        along = found.get(b"scaleOrientation", np.eye(3))
        scale = found.get(b"scale", np.ones(3))
        matrix = found.get(b"rotation", np.eye(3)) @ (along * scale) @ along.T
        moved = (points - center) @ matrix.T + center + found.get(b"translation", np.zeros(3))
        return _Surface(moved, faces[:, ::-1] if (scale < 0).sum() % 2 else faces)

    def switch(self, readers: Mapping[bytes, _Reader]) -> _Surface:
        found = self.fields(readers)
        chosen, choices = found.get(b"whichChoice", -1), found.get(b"choice", [])
        return choices[chosen] if 0 <= chosen < len(choices) else _NOTHING

    def shape(self, readers: Mapping[bytes, _Reader]) -> _Surface:
        geometry = self.fields(readers).get(b"geometry")
        return geometry if isinstance(geometry, _Surface) else _NOTHING

    def face_set(self, readers: Mapping[bytes, _Reader]) -> _Surface:
        """6.23."""
        found = self.fields(readers)
        points, corners = found.get(b"coord"), found.get(b"coordIndex", np.zeros(0, np.int64))
        if points is None:
            points = _NOTHING.points
        faces = self.triangles(points, corners)
        self.count(len(faces))
        if 3 * len(faces) < len(points):
            rows, where = np.unique(faces, return_inverse=True)
            points, faces = points[rows], where.reshape(-1, 3)
        return _Surface(points, faces if found.get(b"ccw", True) else faces[:, ::-1])

    def triangles(self, points: NDArray[np.float64], corners: NDArray[np.int64]) -> NDArray[np.int64]:
        """Those of faces that end in -1 each, but for the last, which may."""
        if not len(corners):
            return np.zeros((0, 3), np.int64)
        if len(corners) % 4 == 0:
            quads = corners.reshape(-1, 4)
            faces = quads[:, :3]
            if (quads[:, 3] == -1).all() and faces.min() >= 0 and faces.max() < len(points):  # as nearly always
                return faces
        wrong = (corners < -1) | (corners >= len(points))
        if wrong.any():
            found = f"index {corners[wrong][0]} is out of range, there are {len(points)} points"
            self.fail(f"before this IndexedFaceSet ends: {found}", OutOfRangeError)
        ends = np.flatnonzero(corners == -1)
        if corners[-1] != -1:
            ends = np.append(ends, len(corners))
        sizes = np.diff(ends, prepend=-1) - 1
        if (sizes < 3).any():
            few = sizes[sizes < 3][0]
            self.fail(f"before this IndexedFaceSet ends: a face of {few} corners, expected at least 3")
        corners = corners[corners >= 0]
        return corners.reshape(-1, 3) if (sizes == 3).all() else ops.triangulate_polygons(points, corners, sizes)

    def coordinate(self, readers: Mapping[bytes, _Reader]) -> NDArray[np.float64]:
        points: NDArray[np.float64] = self.fields(readers).get(b"point", _NOTHING.points)
        return points

    def unseen(self) -> _Surface:
        """What shows nothing, to its closing bracket."""
        self.pass_over(b"}")
        return _NOTHING

    # Values

    def positions(self) -> NDArray[np.float64]:
        values = self.numbers(np.float64, alone=3)
        if len(values) % 3:
            self.fail(f"expected three numbers for each point, found {len(values)} numbers")
        return values.reshape(-1, 3)

    def vector(self) -> NDArray[np.float64]:
        return self.parsed([self.word() for _ in range(3)], np.float64)

    def rotation(self) -> NDArray[np.float64]:
        """An axis and an angle in radians as a matrix, by Rodrigues' formula."""
        x, y, z, angle = self.parsed([self.word() for _ in range(4)], np.float64)
        length = np.sqrt(x * x + y * y + z * z)
        if angle == 0:
            return np.eye(3)
        if length == 0:
            self.fail("a rotation about an axis without length")
        cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]]) / length
        turned: NDArray[np.float64] = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * (cross @ cross)
        return turned

    def integer(self) -> int:
        return int(self.parsed([self.word()], np.int64)[0])

    def boolean(self) -> bool:
        word = self.word()
        if word not in (b"TRUE", b"FALSE"):
            self.fail(f"expected TRUE or FALSE, found {_shown(word)}")
        return word == b"TRUE"

    def numbers(self, dtype: type[np.generic], alone: int = 1) -> NDArray[Any]:
        """A list in brackets as an array (N,), or ``alone`` numbers without brackets."""
        if not self.starts(b"["):
            return self.parsed([self.word() for _ in range(alone)], dtype)
        end = self.text.find(b"]", self.at)
        if end < 0:
            self.fail("the file ends inside a list of numbers")
        parts = []
        while self.at < end:
            apart = _APART.search(self.text, min(self.at + _BLOCK, end), end)
            stop = apart.end() if apart else end
            parts.append(self.parsed(self.text[self.at : stop].replace(b",", b" ").split(), dtype))
            self.at = stop
        self.at = end + 1
        return np.concatenate(parts) if len(parts) > 1 else parts[0] if parts else np.zeros(0, dtype)

    def parsed(self, words: list[bytes], dtype: type[np.generic]) -> NDArray[Any]:
        integers = dtype is np.int64
        number: Callable[[bytes], float] = int if integers else float
        try:
            values = np.array([*map(number, words)], dtype)
        except OverflowError:
            self.fail("of the numbers that begin here, one is out of range of 64 bits", OutOfRangeError)
        except ValueError:
            self.name_wrong(words, _INTEGER if integers else _NUMBER)
        if b"_" in b" ".join(words) or not np.isfinite(values).all():  # Python reads 1_000 and inf
            self.name_wrong(words, _INTEGER if integers else _NUMBER)
        return values

    def name_wrong(self, words: list[bytes], form: re.Pattern[bytes]) -> NoReturn:
        wrong = next(word for word in words if not form.fullmatch(word) or not np.isfinite(float(word)))
        expected = "an integer" if form is _INTEGER else "a finite number"
        self.fail(f"of the numbers that begin here, expected {expected}, found {_shown(wrong)}")

    # What is passed over

    def skip(self) -> None:
        """A value that places no surface: a word, a list, or a node."""
        if self.starts(b"["):
            self.pass_over(b"]")
            return
        word = self.word()
        if word == b"USE":
            self.passed_use()
        elif word == b"DEF":
            self.passed_definition()
        elif word in (b"{", b"}", b"]"):
            self.fail(f"expected a value, found {_shown(word)}")
        if self.starts(b"{"):
            self.pass_over(b"}")

    def pass_over(self, closing: bytes) -> None:
        """All words to a closing bracket, with those between."""
        open_ = bytearray(closing)
        while open_:
            word = self.word()
            if word == b"DEF":
                self.passed_definition()
            elif word == b"USE":
                self.passed_use()
            elif word in (b"{", b"["):
                open_ += b"}" if word == b"{" else b"]"
            elif word in (b"}", b"]") and open_.pop() != word[0]:
                self.fail(f"found {_shown(word)}, and no bracket that it closes")

    def passed_definition(self) -> None:
        name = self.word()
        self.named[name] = b"a node of an appearance", None
        self.word()

    def passed_use(self) -> None:
        name = self.word()
        if name not in self.named:
            self.fail(f"USE of {_shown(name)}, a name that no DEF before it gives")


def _together(parts: list[_Surface]) -> _Surface:
    return _Surface(*merged(part for part in parts if len(part.faces)))


_UNSEEN = tuple(
    b"Background DirectionalLight Fog NavigationInfo PointLight SpotLight Viewpoint WorldInfo".split()
)  # show no surface, and hold no node that does
_LOOKS = (b"color", b"colorIndex", b"colorPerVertex")
_FACE_LOOKS = tuple(
    b"convex creaseAngle normal normalIndex normalPerVertex solid texCoord texCoordIndex".split()
)  # fields of IndexedFaceSet that move no vertex
