"""The table of corpora of meshes: a layout is one function in a file of its own, and one row here."""

from __future__ import annotations

from nepa3d.corpora.folder import folder
from nepa3d.corpora.listed import listed
from nepa3d.corpora.mesh_files import Layout
from nepa3d.corpora.modelnet40 import modelnet40
from nepa3d.corpora.shapenet import shapenet

LAYOUTS: dict[str, Layout] = {"folder": folder, "shapenet": shapenet, "modelnet40": modelnet40, "listed": listed}


def require_layout(name: str) -> Layout:
    """The layout of that name, or ``ValueError`` if there is none."""
    if name not in LAYOUTS:
        raise ValueError(f"layout must be one of {', '.join(LAYOUTS)}, got {name!r}")
    return LAYOUTS[name]
