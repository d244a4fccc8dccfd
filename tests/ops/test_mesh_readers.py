"""The native OBJ and OFF readers, and the cleaning of what they read."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nepa3d import ops

SQUARE = b"v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\n"
FAN = [[0, 1, 2], [0, 2, 3]]


@pytest.mark.parametrize(
    ("faces", "expected"),
    [
        (b"f 1 2 3\n", [[0, 1, 2]]),
        (b"f 1 2 3 4\n", FAN),
        (b"f 1/5 2/6 3/7 4/8\n", FAN),
        (b"f 1//9 2//9 3//9 4//9\n", FAN),
        (b"f 1/5/9 2/6/9 3/7/9 4/8/9\n", FAN),
        (b"f -4 -3 -2 -1\n", FAN),
        (b"f 1 2 3 4", FAN),
        (b"f 1 2 3 4\r\n", FAN),
        (b"f  1\t2 3  4 \n", FAN),
        (b"f 1 2 \\\n3 4\n", FAN),
        (b"f 1 2 \\\r\n3 4\n", FAN),
        (b"f 1 2 3\\\n 4\n", FAN),
        (b"f 1/1 2/2 3/3\\\r\n 4/4\n", FAN),
        (b"f 1 2 3 4 # a quad\n", FAN),
        (b"g side\nusemtl red\ns off\nf 1 2 3\no other\nf 1 3 4\nl 1 2\n", FAN),
        (b"# a path C:\\models\\\nf 1 2 3 4\n", FAN),
        (b"f 1 2\n", []),
        (b"", []),
    ],
)
def test_obj_forms(faces: bytes, expected: list[list[int]]) -> None:
    vertices, found = ops.parse_obj(SQUARE + faces)
    assert found.tolist() == expected
    assert vertices.tolist() == [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]]


def test_obj_numbers() -> None:
    text = b"\xef\xbb\xbfmtllib a.mtl\nv +1.5 -2e-3 .5 1 0 0\nv 1e400 -1e400 1e-400\nv nan inf -inf\nvn 0 0 1\nvt 0 0\n"
    vertices, faces = ops.parse_obj(text)
    np.testing.assert_array_equal(vertices, [[1.5, -2e-3, 0.5], [np.inf, -np.inf, 0], [np.nan, np.inf, -np.inf]])
    assert faces.shape == (0, 3)


def test_obj_numbers_beyond_the_range_of_their_digits() -> None:
    zeros = b"0" * 330
    vertices, _ = ops.parse_obj(
        b"v 1" + zeros + b"e-330 0." + zeros + b"1e331 1" + zeros + b"e-10\nv 1e9999 -1e9999 0\n"
    )
    np.testing.assert_array_equal(vertices, [[1, 1, np.inf], [np.inf, -np.inf, 0]])


def test_obj_relative_indices_count_from_where_they_stand() -> None:
    vertices, faces = ops.parse_obj(SQUARE + b"f -4 -3 -2\n" + SQUARE + b"f -4 -3 -2\n")
    assert faces.tolist() == [[0, 1, 2], [4, 5, 6]]
    assert len(vertices) == 8


def test_obj_faces_may_come_before_their_vertices() -> None:
    assert ops.parse_obj(b"f 1 2 3\n" + SQUARE).faces.tolist() == [[0, 1, 2]]


@pytest.mark.parametrize(
    ("faces", "message"),
    [
        (b"f 1 2 5\n", "line 5: vertex index 5 is out of range, there are 4 vertices"),
        (b"f 1 2 3\nf 1 2 0\n", "line 6: vertex index 0 is out of range"),
        (b"f 1 2 -5\n", "line 5: vertex index -5 is out of range"),
        (b"f 1 2 9223372036854775808\n", "line 5: vertex index 9223372036854775807 is out of range"),
        (b"f 1 2 -99999999999999999999\n", "line 5: vertex index -9223372036854775808 is out of range"),
        (b"f 1 2 x\n", "line 5: a face's vertex index must be a whole number"),
        (b"v 1 2\n", "line 5: a vertex must have 3 numbers"),
        (b"v 1 2 # 3\n", "line 5: a vertex must have 3 numbers"),
        (b"v a b c\n", "line 5: a vertex must have 3 numbers"),
    ],
)
def test_obj_faults_name_the_line(faces: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ops.parse_obj(SQUARE + faces)


@pytest.mark.parametrize(
    "text",
    [
        b"OFF\n4 1 0\n0 0 0\n1 0 0\n1 1 0\n0 1 0\n4 0 1 2 3\n",
        b"OFF 4 1 0\n0 0 0\n1 0 0\n1 1 0\n0 1 0\n4 0 1 2 3",
        b"OFF4 1 0\n0 0 0\n1 0 0\n1 1 0\n0 1 0\n4 0 1 2 3\n",
        b"# by hand\nCOFF\r\n# counts\r\n4 1 0\r\n0 0 0 255 0 0\r\n1 0 0 9 9\r\n\r\n1 1 0\r\n0 1 0\r\n4 0 1 2 3 7\r\n",
    ],
)
def test_off_forms(text: bytes) -> None:
    vertices, faces = ops.parse_off(text)
    assert vertices.tolist() == [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]]
    assert faces.tolist() == FAN


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "the file is empty"),
        (b"PLY\n", "line 1: the header must be OFF"),
        (b"OFF\n3\n", "the header must give the numbers"),
        (b"OFF\n-3 1 0\n", "the header must give the numbers"),
        (b"OFF\n1000000000 1000000000 0\n0 0 0\n", "more than the file can hold"),
        (b"OFF\n2 0 0\n0 0 0\n", "vertex 1 is missing"),
        (b"OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n", "face 0 is missing"),
        (b"OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1\n", "face 0 must have 3 indices"),
        (b"OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 3\n", "line 6: vertex index 3 is out of range"),
    ],
)
def test_off_faults(text: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ops.parse_off(text)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60), st.sampled_from([b"", b"v ", b"f ", SQUARE, SQUARE + b"f ", b"OFF\n", b"OFF\n3 1 0\n"]))
def test_any_bytes_are_read_or_refused(garbage: bytes, head: bytes) -> None:
    for parse in (ops.parse_obj, ops.parse_off):
        try:
            vertices, faces = parse(head + garbage)
        except ValueError:
            continue
        assert faces.size == 0 or 0 <= faces.min() <= faces.max() < len(vertices)


def test_clean_mesh_drops_what_carries_no_surface() -> None:
    vertices = np.array(
        [[9, 9, 9], [0, 0, 0], [1, 0, 0], [0, 1, 0], [np.nan, 0, 0], [2, 0, 0], [0, 0, 0], [0, 0, 1]], float
    )
    faces = [[1, 2, 3], [3, 1, 2], [1, 2, 4], [1, 1, 2], [1, 2, 5], [1, 6, 2], [2, 1, 7]]
    kept_vertices, kept_faces, dropped = ops.clean_mesh(vertices, faces)
    assert kept_vertices.tolist() == [[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]
    assert kept_faces.tolist() == [[0, 1, 2], [1, 0, 3]]
    assert dropped == {
        "nonfinite_vertices": 1,
        "nonfinite_faces": 1,
        "degenerate_faces": 3,
        "duplicate_faces": 1,
        "unreferenced_vertices": 3,
    }


@pytest.mark.parametrize("scale", [1e-200, 1e-30, 1.0, 1e30, 1e150])
def test_clean_mesh_does_not_depend_on_scale(scale: float) -> None:
    vertices = np.array([[0, 0, 0], [1, 0, 0], [0, 1e-6, 0], [2, 0, 0]]) * scale
    _, faces, dropped = ops.clean_mesh(vertices, [[0, 1, 2], [0, 1, 3]])
    assert faces.tolist() == [[0, 1, 2]]
    assert dropped["degenerate_faces"] == 1
