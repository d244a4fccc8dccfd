"""The native PLY and STL readers, and the forms of OFF beside the usual one."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nepa3d import ops

CORNERS = [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]]
FAN = [[0, 1, 2], [0, 2, 3]]
CODES = {"char": "b", "uchar": "B", "short": "h", "ushort": "H", "int": "i", "uint": "I", "float": "f", "double": "d"}
CODES |= {"int8": "b", "uint8": "B", "int16": "h", "uint16": "H", "int32": "i", "uint32": "I"}
CODES |= {"float32": "f", "float64": "d"}

Value = float | Sequence[float]


def ply(form: str, *elements: tuple[str, list[str], list[list[Value]]], end: str = "\n") -> bytes:
    """Elements of a name, property lines without the word property, and records; a list is a sequence."""
    lines = ["ply", f"format {form} 1.0", "comment made by hand"]
    for name, properties, records in elements:
        lines += [f"element {name} {len(records)}", *(f"property {line}" for line in properties)]
    head = end.join([*lines, "end_header", ""]).encode()
    order = ">" if form == "binary_big_endian" else "<"
    body = b""
    for _, properties, records in elements:
        for record in records:
            if form == "ascii":
                words = (
                    str(x)
                    for value in record
                    for x in ([len(value), *value] if isinstance(value, Sequence) else [value])
                )
                body += " ".join(words).encode() + end.encode()
                continue
            for line, value in zip(properties, record, strict=True):
                words = line.split()
                if isinstance(value, Sequence):
                    body += struct.pack(order + CODES[words[1]], len(value))
                    body += struct.pack(f"{order}{len(value)}{CODES[words[2]]}", *value)
                else:
                    body += struct.pack(order + CODES[words[0]], value)
    return head + body


FORMS = ("ascii", "binary_little_endian", "binary_big_endian")
VERTEX = ("vertex", ["float x", "float y", "float z"], CORNERS)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("form", FORMS)
def test_ply_mixed_faces(form: str, end: str) -> None:
    faces = ("face", ["list uchar int vertex_indices"], [[[0, 1, 2, 3]], [[0, 1, 2]], [[1]], [[]], [[2, 3, 0]]])
    vertices, found, repaired = ops.parse_ply(ply(form, VERTEX, faces, end=end))
    assert (vertices.tolist(), found.tolist(), repaired) == (CORNERS, [*FAN, [0, 1, 2], [2, 3, 0]], "")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", CODES)
def test_ply_types(form: str, kind: str) -> None:
    vertices = ("vertex", [f"{kind} z", "uchar red", f"{kind} x", "list uint8 short more", f"{kind} y"], [])
    for x, y, z in CORNERS:
        vertices[2].append([z, 255, x, [7, -8], y])
    index = kind if CODES[kind] not in "fd" else "int"
    faces = ("face", ["list uchar float texcoord", f"list {index} {index} vertex_index", "double area"], [])
    faces[2].append([[0.5, 0.25], [0, 1, 2, 3], 1.5])
    others = ("edge", ["int vertex1", "int vertex2"], [[0, 1], [1, 2]])
    found = ops.parse_ply(ply(form, others, vertices, others, faces))
    assert (found[0].tolist(), found[1].tolist(), found[2]) == (CORNERS, FAN, "")


@pytest.mark.parametrize("form", FORMS)
def test_ply_elements_in_another_order_and_strips(form: str) -> None:
    strips = ("tristrips", ["list int int vertex_indices"], [[[0, 1, 3, 2, -1, 2, 1, 0]], [[3, 3, 0, 1, 1, 2]]])
    vertices, faces, _ = ops.parse_ply(ply(form, strips, VERTEX))
    assert vertices.tolist() == CORNERS
    assert faces.tolist() == [[0, 1, 3], [3, 1, 2], [2, 1, 0], [0, 3, 1]]


def test_ply_text_with_blank_lines_and_bytes_after_it() -> None:
    text = ply("ascii", VERTEX, ("face", ["list uchar int vertex_indices"], [[[0, 1, 2, 3]]]))
    assert ops.parse_ply(text.replace(b"\n0 1 0\n", b" \n\n\n0 1 0 \n")).faces.tolist() == FAN
    assert ops.parse_ply(text + b"\n\n").repaired == ""
    assert ops.parse_ply(text + b"7 7\n").repaired == "text after the last element"
    binary = ply("binary_little_endian", VERTEX, ("face", ["list uchar int vertex_indices"], [[[0, 1, 2, 3]]]))
    assert ops.parse_ply(binary + b"123").repaired == "3 bytes after the last element"


FACE = ("face", ["list uchar int vertex_indices"], [[[0, 1, 2]]])
HEAD = b"ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nproperty float y\nproperty float z\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "must begin with a line ply"),
        (b"plymouth\n", "must begin with a line ply"),
        (b"ply\nformat ascii 1.0\n", "the header must end with end_header"),
        (b"ply\nend_header\n", "must name a format"),
        (b"ply\nformat binary 1.0\nend_header\n", "line 2: the format must be ascii"),
        (b"ply\nformat ascii 2.0\nend_header\n", "line 2: the format's version must be 1.0"),
        (b"ply\nformat ascii 1.0\nproperty float x\nend_header\n", "line 3: a property must belong to an element"),
        (b"ply\nformat ascii 1.0\nelement vertex x\nend_header\n", "line 3: an element must have a name and a count"),
        (b"ply\nformat ascii 1.0\nelement vertex -1\nend_header\n", "line 3: an element must have a name and a count"),
        (b"ply\nformat ascii 1.0\nend_header\n", "there must be one element vertex, got 0"),
        (
            HEAD.replace(b"float z", b"half z") + b"end_header\n0 0 0\n",
            "line 6: a property .* not 'half'",
        ),
        (HEAD.replace(b"float z", b"float w") + b"end_header\n0 0 0\n", "must have the properties x, y and z"),
        (HEAD + b"property float x\nend_header\n0 0 0 0\n", "element vertex has two properties x"),
        (
            HEAD + b"element face 1\nproperty list uchar int corners\nend_header\n0 0 0\n0\n",
            "must have a list vertex_ind",
        ),
        (HEAD + b"element face 1\nproperty list uchar float vertex_index\nend_header\n0 0 0\n0\n", "must be integers"),
        (HEAD + b"element face 1\nproperty list float int vertex_index\nend_header\n0 0 0\n0\n", "must be an integer"),
        (HEAD + b"element trifan 1\nproperty list uchar int vertex_index\nend_header\n0 0 0\n0\n", "are not supported"),
        (HEAD + b"what 1\nend_header\n0 0 0\n", "a header must be made of .* not 'what'"),
        (HEAD + b"end_header\n0 0\n", "line 8: there must be as many numbers as the header declares"),
        (HEAD + b"end_header\n0 0 0 0\n", "line 8: the line must end after the properties .* not '0'"),
        (HEAD + b"end_header\n0 0,5 0\n", "line 8: here must be a number .* not '0,5'"),
        (ply("ascii", VERTEX, FACE)[:-6], "a list of 3 numbers is more than the file can hold"),
        (ply("ascii", VERTEX, FACE).replace(b"3 0 1 2", b"4 0 1 2"), "line 15: there must be as many numbers"),
        (
            ply("ascii", VERTEX, FACE).replace(b"3 0 1 2", b"9 0 1 2"),
            "a list of 9 numbers is more",
        ),
        (ply("ascii", VERTEX, FACE).replace(b"3 0 1 2", b"3 0 1 4"), "vertex index 4 is out of range, there are 4"),
        (ply("ascii", VERTEX, FACE).replace(b"3 0 1 2", b"3 0 1 -1"), "vertex index -1 is out of range"),
        (ply("binary_big_endian", VERTEX, FACE)[:-1], "byte 49 after the header: a list of 3 numbers is more"),
        (ply("binary_little_endian", VERTEX, FACE)[:-20], "element vertex are declared, more than|element face are"),
    ],
)
def test_ply_faults(content: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ops.parse_ply(content)


TRIANGLES = [[[0, 0, 0], [1, 0, 0], [1, 1, 0]], [[0, 0, 0], [1, 1, 0], [0, 1, 0]]]


def binary_stl(count: int = 2, after: bytes = b"", head: bytes = b"") -> bytes:
    records = [struct.pack("<12fH", 0, 0, 1, *np.ravel(triangle), 7) for triangle in TRIANGLES]
    return head.ljust(80, b"\0") + struct.pack("<I", count) + b"".join(records) + after


def text_stl(name: str = "a", end: str = "endsolid a\n") -> str:
    facets = "".join(
        " facet normal 0 0 1\n  outer loop\n"
        + "".join(f"   vertex {x} {y} {z}\n" for x, y, z in triangle)
        + "  endloop\n endfacet\n"
        for triangle in TRIANGLES
    )
    return f"solid {name}\n{facets}{end}"


@pytest.mark.parametrize(
    ("content", "repaired"),
    [
        (binary_stl(), ""),
        (binary_stl(head=b"solid as some programs say in binary files, too"), ""),
        (binary_stl(after=bytes(17)), "17 bytes after the last triangle"),
        (binary_stl(count=0), "the header declares no triangles, the file has 2"),
        (text_stl().encode(), ""),
        (text_stl("St\u00fchle").encode("latin-1"), ""),
        (text_stl("").upper().encode(), ""),
        (text_stl().replace("\n", "\r").encode(), ""),
        (text_stl().replace("\n", "\r\n").encode(), ""),
        (text_stl(end="").encode(), "endsolid is missing"),
        (text_stl().replace("normal 0 0 1", "normal -nan(ind) 1.#QNAN 0").encode(), ""),
        (b"\n " + text_stl().encode(), ""),
        (text_stl(end="endsolid a\nsolid b\nendsolid b\n").encode(), ""),
    ],
)
def test_stl_forms(content: bytes, repaired: str) -> None:
    vertices, faces, said = ops.parse_stl(content)
    assert (vertices[faces].tolist(), said) == (TRIANGLES, repaired)


def test_stl_quads_are_split() -> None:
    loop = "".join(f"vertex {x} {y} {z}\n" for x, y, z in CORNERS)
    text = f"solid\nfacet normal 0 0 1\nouter loop\n{loop}endloop\nendfacet\nendsolid\n"
    vertices, faces, _ = ops.parse_stl(text.encode())
    assert (vertices.tolist(), faces.tolist()) == (CORNERS, FAN)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "must be text that begins with solid, or have 84 bytes at least, got 0"),
        (b"triangles", "got 9"),
        (binary_stl(count=3), "3 triangles are declared, the file has 2"),
        (binary_stl(count=1), "1 triangles are declared, the file has 2"),
        (binary_stl(count=2, after=bytes(50)), "2 triangles are declared, the file has 3"),
        (binary_stl(count=2**32 - 1), "4294967295 triangles are declared, the file has 2"),
        (binary_stl()[:-1], "2 triangles are declared, the file has 1"),
        (
            text_stl().replace("vertex 1 1 0", "vertex 1 1,0 0", 1).encode(),
            "line 6: a vertex must .*, not '1,0'",
        ),
        (
            text_stl().replace("vertex 1 1 0", "vertex 1 1", 1).encode(),
            "line 7: a vertex must .*, not 'endloop'",
        ),
        (text_stl().replace(" endfacet\n", "", 1).encode(), "a facet must end before the next begins"),
        (text_stl(end="")[:-10].encode(), "the file ends in a facet"),
        (text_stl().replace("outer", "inner", 1).encode(), "line 3: .* must stand here, not 'inner'"),
        (b"solid a\nvertex 0 0 0\nendsolid\n", "a vertex must stand in a facet"),
    ],
)
def test_stl_faults(content: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ops.parse_stl(content)


@pytest.mark.parametrize(
    "text",
    [
        b"OFF\n4 1\n0 0 0\n1 0 0\n1 1 0\n0 1 0\n4 0 1 2 3\n",
        b"OFF 4 1\n0 0 0\n1 0 0\n1 1 0\n0 1 0\n4 0 1 2 3\n",
        b"OFF\n4 1 # no edges\n0 0 0\n1 0 0\n1 1 0\n0 1 0\n4 0 1 2 3\n",
        b"OFF\n4\n1\n9\n0 0 0\n1 0 0\n1 1 0\n0 1 0\n4 0 1 2 3\n",
        b"OFF\n4 1\n0 # edges\n0 0 0\n1 0 0\n1 1 0\n0 1 0\n4 0 1 2 3\n",
        b"OFF\n4 1 0 0 0 0\n1 0 0\n1 1 0\n0 1 0\n4 0 1 2 3\n",
        b"OFF 4 1 0 0 0 0\n1 0\n0\n1 1 0\n0\n1\n0\n4 0 1\n2 3\n",
        b"OFF 4 1 0 0 0 0 1 0 0 1 1 0 0 1 0 4 0 1 2 3",
        b"off\r4 1 0\r0 0 0\r1 0 0\r1 1 0\r0 1 0\r4 0 1 2 3\r",
        b"\xef\xbb\xbfOFF\n4 1 0\n0 0 0\n1 0 0\n1 1 0\n0 1 0\n4 0 1 2 3 255 0 0 128\n\n# end\n",
        b"STOFF\n4 1 0\n0 0 0 .5 .5\n1 0 0 0 0\n1 1 0 0 0\n0 1 0 0 0\n4 0 1 2 3\n",
        b"NOFF\n4 1 0\n0 0 0 0 0 1\n1 0 0 0 0 1\n1 1 0 0 0 1\n0 1 0 0\n0 1\n4 0 1 2 3\n",
        b"noff\n4 1 0\n0 0 0 0 0 1\n1 0 0 0 0 1\n1 1 0 0 0 1\n0 1 0 0 0 1\n4 0 1 2 3\n",
        b"STCN4OFF\n4 1 0\n0 0 0 1 0 0 1 1 1 1 1 0 0\n2 0 0 2 0 0 1\n-2 -2 0 -2 0 0 1\n0 5 0 5 0 0 1\n4 0 1 2 3\n",
        b"OFF\n4 3 0\n0 0 0\n1 0 0\n1 1 0\n0 1 0\n2 0 1\n4 0 1 2 3\n1 2\n",
    ],
)
def test_off_in_forms_that_are_rare(text: bytes) -> None:
    vertices, faces = ops.parse_off(text)
    assert (vertices.tolist(), faces.tolist()) == (CORNERS, FAN)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"nOFF\n3\n4 1 0\n", "nOFF\\) is not supported"),
        (b"4nOFF\n3\n4 1 0\n", "nOFF|must be OFF"),
        (b"OFF BINARY\n\0\0\0\1", "binary OFF is not supported"),
        (b"XOFF\n0 0 0\n", "line 1: the header must be OFF, not 'XOFF'"),
        (b"OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0,5\n3 0 1 2\n", "line 5: vertex 2 must have 3 numbers, not '0,5'"),
        (b"OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 2,0\n", "line 6: face 0 must have 3 indices, not '2,0'"),
        (b"OFF\n3 1 0\n0 0 0 red\n1 0 0\n0 1 0\n3 0 1 2\n", "line 3: only numbers may follow, not 'red'"),
        (b"OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n-3 0 1 2\n", "line 6: face 0 must begin with its number of corners"),
        (b"OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n3 0 2 1\n", "line 7: the file must end after the last face"),
        (b"OFF\n4 1 0\n0 0 0 1 0 0\n1 1 0 0 1 0\n4 0 1 2 3\n", "vertex 3 is missing"),
        (b"NOFF\n3 1 0\n0 0 0 0 0 1 1 1 1 1 0 0 0\n1 0 0\n", "vertex 0 must have at most 10 numbers on its line"),
    ],
)
def test_off_faults(text: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ops.parse_off(text)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60), st.sampled_from([b"", HEAD, HEAD + b"end_header\n", ply("ascii", VERTEX), b"solid a\n"]))
def test_any_bytes_are_read_or_refused(garbage: bytes, head: bytes) -> None:
    for parse in (ops.parse_ply, ops.parse_stl):
        try:
            vertices, faces, _ = parse(head + garbage)
        except ValueError:
            continue
        assert faces.size == 0 or 0 <= faces.min() <= faces.max() < len(vertices)
