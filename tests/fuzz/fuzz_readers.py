"""Any bytes as a PLY, STL or GLB file, under atheris: a mesh whose indices name vertices, or ``BadShapeError``.

GLB files go to ``parse_glb``, which raises ``ValueError``.

python tests/fuzz/fuzz_readers.py {ply,stl,glb} [CORPUS ...] -runs=1000000    (needs: pip install atheris)
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["trimesh.exchange", "nepa3d.data"]):
    import trimesh.exchange.gltf
    import trimesh.exchange.ply
    import trimesh.exchange.stl  # noqa: F401  what is imported late is not instrumented

    from nepa3d import ops
    from nepa3d.data.glb import parse_glb
    from nepa3d.data.mesh import BadShapeError, read_mesh

KIND = sys.argv.pop(1)
REFUSED: type[ValueError] = ValueError if KIND == "glb" else BadShapeError
INPUT = Path(f"/dev/shm/nepa3d-fuzz-{KIND}.{KIND}")


def read_any_bytes(data: bytes) -> None:
    """One input; whatever else is raised is a finding."""
    try:
        if KIND == "glb":
            vertices, faces = parse_glb(data, max_faces=100_000)
        else:
            INPUT.write_bytes(data)
            vertices, faces = read_mesh(INPUT)
    except REFUSED:
        return
    if len(faces):
        ops.clean_mesh(vertices, faces)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    atheris.Setup(sys.argv, read_any_bytes)
    atheris.Fuzz()
