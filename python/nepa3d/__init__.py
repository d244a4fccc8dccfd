"""3D shape representations learned through one query interface."""

from nepa3d._core import __version__

__all__ = ["__version__"]
