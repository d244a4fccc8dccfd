"""Any bytes as a GLB and as a VRML file, under atheris: a mesh whose indices name vertices, or ``ValueError``.

python tests/fuzz/fuzz_readers.py [CORPUS ...] -runs=1000000    (needs: pip install atheris)
"""

from __future__ import annotations

import sys
import warnings

import atheris

with atheris.instrument_imports(include=["nepa3d.shapes"]):
    from nepa3d import ops
    from nepa3d.shapes.glb import parse_glb
    from nepa3d.shapes.vrml import parse_vrml


def read_any_bytes(data: bytes) -> None:
    """One input; whatever else is raised is a finding."""
    for parse in (parse_glb, parse_vrml):
        try:
            vertices, faces = parse(data, max_faces=100_000)
        except ValueError:
            continue
        if len(faces):
            ops.clean_mesh(vertices, faces)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    atheris.Setup(sys.argv, read_any_bytes)
    atheris.Fuzz()
