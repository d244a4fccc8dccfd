"""VRML 2.0 files: where their triangles are, what shows none, and what is refused by its name."""

from __future__ import annotations

import resource
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from nepa3d.shapes.mesh import BadShapeError, Reason, read_mesh
from nepa3d.shapes.reading import OutOfRangeError, TooLargeError, UnsupportedError
from nepa3d.shapes.vrml import MAX_DEPTH, parse_vrml

HEADER = "#VRML V2.0 utf8\n"
POINTS = "0 0 0, 1 0 0, 0 2 0, 0 0 3"
CORNERS = np.array([[0, 0, 0], [1, 0, 0], [0, 2, 0], [0, 0, 3]], float)
INDEX = "0 2 1 -1 0 1 3 -1 0 3 2 -1 1 2 3 -1"
FACES = [[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]]
FACE_SET = f"IndexedFaceSet {{ coord Coordinate {{ point [{POINTS}] }} coordIndex [{INDEX}] }}"
SHAPE = f"Shape {{ geometry {FACE_SET} }}"
CORPUS = Path(__file__).parents[1] / "fuzz" / "corpus" / "wrl"


def read(body: str, max_faces: int = 1000) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    return parse_vrml((HEADER + body).encode(), max_faces=max_faces)


def corners(body: str) -> list[list[float]]:
    return read(body)[0].round(9).tolist()


def test_as_kicad_writes_it() -> None:
    text = f"""
    # a comment with {{ and [ and "
    Shape {{ appearance Appearance {{material DEF PIN-01 Material {{
        diffuseColor 0.824 0.82 0.781
    }} }} }}
    Shape {{ geometry IndexedFaceSet
    {{ creaseAngle 0.50 coordIndex [{INDEX.replace(" ", ",")}]
    coord Coordinate {{ point [{POINTS}] }} # the end
    }}
    appearance Appearance{{material USE PIN-01 }}
    }}
    """
    vertices, faces = read(text * 2)
    assert vertices.tolist() == [*CORNERS.tolist()] * 2
    assert faces.tolist() == FACES + (np.array(FACES) + 4).tolist()


def test_a_file_is_a_mesh(tmp_path: Path) -> None:
    path = tmp_path / "a.WRL"
    path.write_bytes(b"\xef\xbb\xbf" + (HEADER + SHAPE).replace("\n", "\r").encode())
    assert read_mesh(path).faces.tolist() == FACES
    path.write_bytes((HEADER + SHAPE).encode("utf-16"))
    assert read_mesh(path).vertices.tolist() == CORNERS.tolist()
    for content, reason in (
        (HEADER + "Sphere { }", Reason.UNSUPPORTED),
        (HEADER + SHAPE.replace("3 -1 ]", "4 -1 ]").replace("1 2 3 -1", "1 2 4 -1"), Reason.INDEX_OUT_OF_RANGE),
        (HEADER + SHAPE[:-9], Reason.UNREADABLE),
    ):
        path.write_text(content, encoding="utf-8")
        with pytest.raises(BadShapeError) as caught:
            read_mesh(path)
        assert caught.value.reason is reason and "a.WRL" in str(caught.value)


def test_polygons_and_windings() -> None:
    square = "coord Coordinate { point [0 0 0 1 0 0 1 1 0 0 1 0] }"
    assert read(f"Shape {{ geometry IndexedFaceSet {{ {square} coordIndex [0 1 2 3] }} }}")[1].tolist() == [
        [0, 1, 2],
        [0, 2, 3],
    ]
    mixed = f"Shape {{ geometry IndexedFaceSet {{ {square} coordIndex [0 1 2 -1 0 1 2 3 -1] ccw FALSE }} }}"
    assert read(mixed)[1].tolist() == [[2, 1, 0], [2, 1, 0], [3, 2, 0]]


def test_transforms_in_order() -> None:
    """Scale, then turn, about the center; then move: 6.52. The outer transform comes last."""
    moved = f"Transform {{ translation 1 2 3 scale 2 1 1 rotation 0 0 1 1.5707963267948966 children {SHAPE} }}"
    expected = [[1 - y, 2 + 2 * x, 3 + z] for x, y, z in CORNERS]
    assert corners(moved) == np.round(expected, 9).tolist()
    outer = f"Transform {{ children [{moved}] scale 1 1 10 }}"
    assert corners(outer) == np.round(np.array(expected) * [1, 1, 10], 9).tolist()
    about = f"Transform {{ center 1 0 0 rotation 0 0 2 3.141592653589793 children {SHAPE} }}"
    assert corners(about) == [[2 - x, -y, z] for x, y, z in CORNERS]
    along = f"Transform {{ scaleOrientation 0 0 1 1.5707963267948966 scale 3 1 1 children {SHAPE} }}"
    assert corners(along) == [[x, 3 * y, z] for x, y, z in CORNERS]
    mirrored = read(f"Transform {{ scale -1 1 1 children {SHAPE} }}")
    assert mirrored[0].tolist() == (CORNERS * [-1, 1, 1]).tolist()
    assert mirrored[1].tolist() == [face[::-1] for face in FACES]
    assert corners(f"Transform {{ rotation 0 0 0 0 children {SHAPE} }}") == CORNERS.tolist()


def test_names_are_used_again() -> None:
    twice = f"DEF part Group {{ children [ {SHAPE} ] }} Transform {{ translation 5 0 0 children [ USE part ] }}"
    vertices, faces = read(twice)
    assert vertices.tolist() == [*CORNERS.tolist(), *(CORNERS + np.array([5, 0, 0])).tolist()]
    assert faces.max() == 7
    lines = f"IndexedLineSet {{ coord DEF c Coordinate {{ point [{POINTS}] }} coordIndex [0 1 -1] }}"
    face_set = f"IndexedFaceSet {{ coord USE c coordIndex [{INDEX}] }}"
    assert read(f"Shape {{ geometry {lines} }} Shape {{ geometry {face_set} }}")[1].tolist() == FACES


def test_a_switch_shows_its_choice() -> None:
    for choice, shown in ((0, 4), (1, 1), (-1, 0), (2, 0)):
        one = SHAPE.replace(INDEX, "0 1 2 -1")
        assert len(read(f"Switch {{ whichChoice {choice} choice [ {SHAPE} {one} ] }}")[1]) == shown


def test_what_shows_no_surface() -> None:
    nothing = """
    NavigationInfo { type [ "EXAMINE", "ANY \\" }" ] } Viewpoint { position 0 0 1 } WorldInfo { title "[" }
    Shape { } Shape { appearance NULL geometry NULL } Group { } Group { children NULL }
    Shape { geometry PointSet { coord Coordinate { point [0 0 0] } } }
    Shape { geometry IndexedFaceSet { } }
    """
    vertices, faces = read(nothing)
    assert (vertices.shape, faces.shape) == ((0, 3), (0, 3))


NODES = ["Box", "Cone", "Cylinder", "ElevationGrid", "Extrusion", "Sphere", "Text"]
PLACES = ["Anchor", "Billboard", "Collision", "Inline", "LOD", "EXTERNPROTO", "PROTO", "ROUTE", "Script"]


@pytest.mark.parametrize(
    "body",
    [
        *(f"Shape {{ geometry {name} {{ }} }}" for name in NODES),
        *(f"{name} {{ }}" for name in PLACES),
        *(f"Group {{ children [ {name} {{ }} ] }}" for name in PLACES),
        "Shape { geometry IndexedFaceSet { set_coordIndex [0] } }",
    ],
)
def test_what_is_not_read_is_named(body: str) -> None:
    name = next(word for word in (*NODES, *PLACES, "set_coordIndex") if word in body)
    with pytest.raises(UnsupportedError, match=rf"line 3: .*'{name}' is not supported"):
        read("\n" + body)


def face_set(points: str = POINTS, index: str = INDEX) -> str:
    return f"\nShape {{ geometry IndexedFaceSet {{\ncoord Coordinate {{ point [{points}] }}\ncoordIndex [{index}] }} }}"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (face_set(points="0 0 0 1"), "line 4: expected three numbers for each point, found 4"),
        (face_set(points="0 0 nan"), "line 4: .*expected a finite number, found 'nan'"),
        (face_set(points="0 0 1e999"), "line 4: .*expected a finite number, found '1e999'"),
        (face_set(points="0 0 1_0"), "line 4: .*expected a finite number, found '1_0'"),
        (face_set(points="0 0 0,5.5.5"), "found '5.5.5'"),
        (face_set(index="0 1 2.5 -1"), "line 5: .*expected an integer, found '2.5'"),
        (face_set(index="0 1 -1"), "a face of 2 corners, expected at least 3"),
        (face_set(index="0 1 2 -1 -1"), "a face of 0 corners"),
        ("Shape { geometry USE a }", "line 2: USE of 'a', a name that no DEF before it gives"),
        ("Shape { appearance USE a }", "USE of 'a', a name that no DEF before it gives"),
        ("DEF a Group { children [ USE a ] }", "USE of 'a', a name that no DEF"),
        (f"DEF a {SHAPE} Shape {{ geometry USE a }}", "USE of 'a', which names 'Shape', expected IndexedFaceSet"),
        ("Shape { appearance Appearance { x DEF a Shape { } } } USE a", "names 'a node of an appearance', expected"),
        (SHAPE[:-2], "line 2: the file ends inside a node"),
        ("Shape { geometry IndexedFaceSet { coordIndex [0 1 2", "the file ends inside a list of numbers"),
        ("WorldInfo { title [ } ]", "found '}', and no bracket that it closes"),
        ('WorldInfo { title "a }', "line 2: a string without an end"),
        ("Shape { appearance }", "expected a value, found '}'"),
        ("Group [ ]", "expected { after Group, found '\\['"),
        ("Transform { scale 1 one 1 }", "expected a finite number, found 'one'"),
        ("Transform { scale [ 1 1 1 ] }", "expected a finite number, found '\\['"),
        ("Transform { rotation 0 0 0 1 }", "a rotation about an axis without length"),
        ("Shape { geometry IndexedFaceSet { ccw 1 } }", "expected TRUE or FALSE, found '1'"),
        (f"Transform {{ scale 1e308 1 1 children Transform {{ scale 1e308 1 1 children {SHAPE} }} }}", "not finite"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(body: str, said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        read(body)
    assert not isinstance(caught.value, UnsupportedError | TooLargeError | OutOfRangeError)


@pytest.mark.parametrize("index", ["4", "-2", "2147483648", "18446744073709551617", "-99999999999999999999"])
def test_indices_out_of_range(index: str) -> None:
    with pytest.raises(OutOfRangeError, match="is out of range"):
        read(face_set(index=f"0 1 {index} -1"))
    with pytest.raises(OutOfRangeError, match="index 0 is out of range, there are 0 points"):
        read("Shape { geometry IndexedFaceSet { coordIndex [0 1 2 -1] } }")


@pytest.mark.parametrize("first", ["#VRML V1.0 ascii", "#X3D V3.0 utf8", "\x1f\x8b"])
def test_other_versions(first: str) -> None:
    with pytest.raises(UnsupportedError, match=r"only #VRML V2\.0 utf8 is read"):
        parse_vrml(first.encode("latin-1") + b"\n", max_faces=1)
    with pytest.raises(ValueError, match=r"expected #VRML V2\.0 utf8, found 'solid a'"):
        parse_vrml(b"solid a\n", max_faces=1)


def test_nesting_has_an_end() -> None:
    def nested(depth: int) -> str:
        return "Group { children " * depth + SHAPE + " }" * depth

    assert len(read(nested(MAX_DEPTH - 4))[1]) == 4
    for depth in (MAX_DEPTH + 1, 50_000):
        with pytest.raises(UnsupportedError, match=f"more than {MAX_DEPTH} nodes inside each other"):
            read(nested(depth))


def test_a_few_bytes_take_little_memory() -> None:
    """Names that double the scene 40 times, many points of which a face uses three, and brackets by the million."""
    doubled = f"DEF g0 {SHAPE}" + "".join(
        f" DEF g{k} Group {{ children [ USE g{k - 1} USE g{k - 1} ] }}" for k in range(1, 41)
    )
    many = " ".join("1 2 3" for _ in range(30_000))
    shared = f"Shape {{ geometry PointSet {{ coord DEF c Coordinate {{ point [{many}] }} }} }}"
    shared += "Shape { geometry IndexedFaceSet { coord USE c coordIndex [0 1 2] } }" * 300
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(TooLargeError, match="at most 100000 are wanted"):
        read(doubled, max_faces=100_000)
    assert len(read(shared)[0]) == 900
    with pytest.raises(ValueError, match="ends inside a node"):
        read("WorldInfo { a " + "[" * 1_000_000)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64_000  # kB
    assert len(read(SHAPE, max_faces=4)[1]) == 4
    with pytest.raises(TooLargeError, match="4 triangles or more, at most 3"):
        read(SHAPE, max_faces=3)


def test_any_bytes_are_read_or_refused() -> None:
    files = [path.read_bytes() for path in sorted(CORPUS.iterdir())]
    words = [b"{", b"}", b"[", b"]", b'"', b"#", b"\n", b"USE a", b"DEF a", b"-1", b"1e9", b"NULL", b"Shape", b"\\"]
    rng = np.random.default_rng(0)
    outcomes = {"read": 0, "refused": 0}
    for k in range(3000):
        content = bytearray(files[k % len(files)])
        for _ in range(rng.integers(0, 4)):
            at = int(rng.integers(len(HEADER), len(content)))
            content[at : at + int(rng.integers(3))] = words[rng.integers(len(words))] if k % 2 else rng.bytes(2)
        if k % 7 == 0:
            del content[int(rng.integers(len(content))) :]
        try:
            vertices, faces = parse_vrml(bytes(content), max_faces=10_000)
        except ValueError:
            outcomes["refused"] += 1
            continue
        outcomes["read"] += 1
        assert faces.size == 0 or 0 <= faces.min() <= faces.max() < len(vertices)
    assert min(outcomes.values()) > 300
