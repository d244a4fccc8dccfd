"""The extension KHR_draco_mesh_compression of glTF: a primitive whose arrays are in one stream of Draco."""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nepa3d.shapes.gltf_document import DRACO, INDICES, POSITIONS, Accessor, Document, Item, shown
from nepa3d.shapes.reading import UnsupportedError

_BOUNDS_TOLERANCE = 1 / 16  # of the largest extent: more than any quantization in use


class DracoPrimitive:
    """The decoded stream of a primitive: ``faces`` (F, 3), and the attributes by name."""

    def __init__(self, document: Document, primitive: Item, extension: Item) -> None:
        self._document, self._primitive = document, primitive
        self._ids = extension.item("attributes")
        attributes = primitive.item("attributes")
        vertices = document.accessor(attributes, "POSITION", "VEC3", POSITIONS, empty=True)
        corners = document.accessor(primitive, "indices", "SCALAR", INDICES, empty=True)
        stream = document.view(extension).tobytes()
        _check_header(stream, extension.where, vertices.count, corners.count)
        mesh = _decode(stream, extension.where)
        self.faces = np.asarray(mesh.faces).reshape(-1, 3).astype(np.int64)
        self._arrays = {attribute["unique_id"]: np.asarray(attribute["data"]) for attribute in mesh.attributes}
        if 3 * len(self.faces) != corners.count:
            where = f"{extension.where}: the Draco stream"
            raise ValueError(f"{where} holds {3 * len(self.faces)} indices, {corners.where} declares {corners.count}")
        _check_bounds(
            self.attribute("POSITION", "VEC3", POSITIONS), document.entry("accessors", attributes, "POSITION")
        )

    def attribute(self, name: str, kind: str, components: tuple[int, ...]) -> Accessor:
        """The attribute ``name``: from the stream where the stream has it."""
        attributes = self._primitive.item("attributes")
        if not self._ids.has(name):
            if name == "POSITION":
                self._ids.fail(name, "the id of an attribute of the stream")
            return self._document.accessor(attributes, name, kind, components)
        accessor = self._document.accessor(attributes, name, kind, components, empty=True)
        found = self._arrays.get(self._ids.integer(name))
        if found is None:
            self._ids.fail(name, f"one of {sorted(self._arrays)}, the ids of the stream")
        if found.shape != (accessor.count, accessor.width):
            shape = " x ".join(map(str, found.shape))
            expected = f"{accessor.where} declares {accessor.count} x {accessor.width}"
            raise ValueError(f"{self._ids.where}.{name}: the Draco stream holds {shape} numbers, {expected}")
        stored = found.astype(accessor.dtype)
        if accessor.dtype.kind != "f" and (found.dtype.kind == "f" or (stored != found).any()):
            raise ValueError(
                f"{self._ids.where}.{name}: the Draco stream's numbers are not of the type of {accessor.where}"
            )
        return replace(accessor, base=stored)


def is_draco(document: Document, primitive: Item) -> Item | None:
    """The extension of a primitive whose positions or indices are in a stream of Draco and nowhere else."""
    extension = primitive.extension(DRACO)
    if extension is None:
        return None
    accessors = [document.entry("accessors", primitive.item("attributes"), "POSITION")]
    if primitive.has("indices"):
        accessors.append(document.entry("accessors", primitive, "indices"))
    if all(accessor.has("bufferView") or accessor.has("sparse") for accessor in accessors):
        return None
    if primitive.integer("mode", 4) != 4:
        raise UnsupportedError(
            f"{primitive.where}: {DRACO} of mode {primitive.integer('mode')}, only triangles are read"
        )
    return extension


def _decode(stream: bytes, where: str) -> Any:
    try:
        import DracoPy
    except ImportError as error:
        raise UnsupportedError(f"{where} needs DracoPy to be read: pip install nepa3d[draco]") from error
    try:
        mesh = DracoPy.decode(stream)
    except (DracoPy.FileTypeException, ValueError, RuntimeError) as error:
        raise ValueError(f"{where}: the Draco stream cannot be read: {error}") from error
    if not isinstance(mesh, DracoPy.DracoMesh):  # as it answers for some damaged streams of meshes
        raise ValueError(f"{where}: the Draco stream holds no mesh")
    return mesh


def _check_header(stream: bytes, where: str, vertices: int, corners: int) -> None:
    """Refuse a stream that declares more than the accessors do, before the decoder takes memory for it."""
    if len(stream) < 12 or stream[:5] != b"DRACO":
        raise ValueError(f"{where}: {shown(stream[:8])} is no header of Draco")
    major, minor, kind, method, flags = struct.unpack_from("<BBBBH", stream, 5)
    if (major, minor) != (2, 2):
        raise UnsupportedError(f"{where}: version {major}.{minor} of Draco's bitstream, only 2.2 is read")
    if kind != 1 or method > 1:
        raise ValueError(f"{where}: the Draco stream holds no mesh")
    if flags & 0x8000:
        raise UnsupportedError(f"{where}: the Draco stream has metadata, which is not read")
    first, at = _varint(stream, 11 + method)
    second, _ = _varint(stream, at)
    points, faces = (first, second) if method else (second, first)
    if 3 * faces > corners or points > vertices:
        declared = f"{faces} triangles and {points} vertices"
        raise ValueError(f"{where}: the Draco stream has {declared}, the accessors {corners // 3} and {vertices}")


def _varint(stream: bytes, at: int) -> tuple[int, int]:
    """A number of seven bits a byte, the lowest first, and where it ends."""
    value = 0
    for shift, byte in enumerate(stream[at : at + 5]):
        value |= (byte & 127) << 7 * shift
        if byte < 128:
            return value, at + shift + 1
    raise ValueError("the Draco stream's header is cut off")


def _check_bounds(positions: Accessor, declared: Item) -> None:
    """Refuse positions that are not where the accessor says they are: another attribute's numbers."""
    if not declared.has("min") or not declared.has("max") or not positions.count:
        return
    low, high = declared.numbers("min", 3), declared.numbers("max", 3)
    stored: NDArray[np.float64] = positions.stored(None).astype(np.float64)
    slack = _BOUNDS_TOLERANCE * np.abs(high - low).max()
    if (np.abs([stored.min(0) - low, stored.max(0) - high]) > slack).any():
        found = f"{stored.min(0).round(3).tolist()} to {stored.max(0).round(3).tolist()}"
        declares = f"{declared.where} declares positions from {low.round(3).tolist()} to {high.round(3).tolist()}"
        raise ValueError(f"{declares}, the Draco stream holds {found}")
