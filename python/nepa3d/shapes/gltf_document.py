"""The container, the JSON and the accessors of a GLB file (glTF 2.0, https://registry.khronos.org/glTF)."""

from __future__ import annotations

import base64
import json
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from nepa3d.shapes.reading import OutOfRangeError, TooLargeError, UnsupportedError

DRACO = "KHR_draco_mesh_compression"
INSTANCING = "EXT_mesh_gpu_instancing"
VISIBILITY = "KHR_node_visibility"
MESHOPT = ("EXT_meshopt_compression", "KHR_meshopt_compression")

_READ = {DRACO, INSTANCING, VISIBILITY, "KHR_mesh_quantization"}
_HARMLESS = {  # say nothing about where the triangles are
    "KHR_animation_pointer",
    "KHR_techniques_webgl",
    "EXT_instance_features",
    "EXT_mesh_features",
    "EXT_structural_metadata",
    "FB_ngon_encoding",
    "GODOT_single_root",
}
_HARMLESS_FAMILIES = (
    "KHR_materials_",
    "KHR_texture_",
    "KHR_lights_",
    "KHR_xmp",
    "EXT_materials_",
    "EXT_texture_",
    "EXT_lights_",
    "ADOBE_materials_",
    "MSFT_texture_",
    "MSFT_packing_",
)

_DTYPES = {5120: "<i1", 5121: "<u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
FLOATS = (5126,)
INDICES = (5121, 5123, 5125)
POSITIONS = (5120, 5121, 5122, 5123, 5126)  # KHR_mesh_quantization, whether it is named or not
_WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT2": 4, "MAT3": 9, "MAT4": 16}


def shown(value: object) -> str:
    """A value of the file as an error's text: ASCII and short."""
    if isinstance(value, list | dict):
        return f"a list of {len(value)}" if isinstance(value, list) else "an object"
    return ascii(value[:60] if isinstance(value, str | bytes) else value)[:64]


@dataclass(frozen=True)
class Item:
    """An object of the JSON, read by members of known types, and where it stands, such as ``nodes[3]``."""

    members: dict[str, Any]
    where: str

    def has(self, key: str) -> bool:
        return key in self.members

    def fail(self, key: str, expected: str) -> NoReturn:
        raise ValueError(f"{self.where}.{key} is {shown(self.members.get(key))}, not {expected}")

    def integer(self, key: str, default: int | None = None) -> int:
        """A whole number from 0."""
        value = self.members.get(key, default)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            self.fail(key, "a whole number from 0")
        return value

    def string(self, key: str) -> str:
        value = self.members.get(key)
        return value if isinstance(value, str) else self.fail(key, "a string")

    def flag(self, key: str, default: bool) -> bool:
        value = self.members.get(key, default)
        return value if isinstance(value, bool) else self.fail(key, "true or false")

    def array(self, key: str) -> list[Any]:
        """A list, empty where there is none."""
        value = self.members.get(key, [])
        return value if isinstance(value, list) else self.fail(key, "a list")

    def indices(self, key: str, below: int) -> list[int]:
        """A list of whole numbers below ``below``."""
        values = Item({str(at): value for at, value in enumerate(self.array(key))}, f"{self.where}.{key}")
        return [values.index(at, below) for at in values.members]

    def index(self, key: str, below: int) -> int:
        value = self.integer(key)
        return value if value < below else self.fail(key, f"below {below}, the number of them")

    def numbers(self, key: str, count: int | None = None) -> NDArray[np.float64]:
        """``count`` finite numbers, or any number of them."""
        values = self.array(key)
        if count is not None and len(values) != count:
            self.fail(key, f"{count} numbers")
        for value in values:
            if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= sys.float_info.max:
                self.fail(key, "a list of finite numbers")
        return np.array([float(value) for value in values], np.float64)

    def item(self, key: str) -> Item:
        """An object, empty where there is none."""
        value = self.members.get(key, {})
        return Item(value, f"{self.where}.{key}") if isinstance(value, dict) else self.fail(key, "an object")

    def items(self, key: str) -> Iterator[Item]:
        """A list's objects."""
        for at, value in enumerate(self.array(key)):
            if not isinstance(value, dict):
                raise ValueError(f"{self.where}.{key}[{at}] is {shown(value)}, not an object")
            yield Item(value, f"{self.where}.{key}[{at}]")

    def extensions(self) -> str:
        """The names of the extensions, for errors."""
        return ", ".join(shown(name)[1:-1] for name in list(self.item("extensions").members)[:5])

    def extension(self, name: str) -> Item | None:
        extensions = self.item("extensions")
        return extensions.item(name) if extensions.has(name) else None


@dataclass(frozen=True)
class Accessor:
    """An array of the file, of which only the rows that are asked for are copied.

    ``count`` rows of a component each or several; ``base`` (count, width) is a view of the file, or ``None`` where all
    are 0; the rows ``places`` are replaced by ``values``. ``normalized`` integers stand for -1 to 1, or 0 to 1.
    """

    where: str
    count: int
    width: int
    dtype: np.dtype[Any]
    normalized: bool
    base: NDArray[Any] | None
    places: NDArray[np.int64] | None
    values: NDArray[Any] | None

    def stored(self, rows: NDArray[np.int64] | None) -> NDArray[Any]:
        """The rows (N, width) as they are stored, or all of them."""
        if self.base is None:
            found = np.zeros((self.count if rows is None else len(rows), self.width), self.dtype)
        else:
            found = np.array(self.base) if rows is None else self.base[rows]
        if self.places is not None and self.values is not None and len(self.places):
            if rows is None:
                found[self.places] = self.values
            else:
                order = np.argsort(self.places, kind="stable")
                at = order[np.searchsorted(self.places[order], rows, side="right") - 1]
                replaced = self.places[at] == rows
                found[replaced] = self.values[at[replaced]]
        return found

    def numbers(self, rows: NDArray[np.int64] | None) -> NDArray[np.float64]:
        """The rows (N, width) as the numbers they stand for."""
        stored = self.stored(rows)
        return dequantized(stored, self.normalized)


def dequantized(stored: NDArray[Any], normalized: bool) -> NDArray[np.float64]:
    """Stored components as numbers: ``normalized`` integers by the formulas of the specification, 3.6.2.2."""
    numbers = stored.astype(np.float64)
    if normalized and stored.dtype.kind in "iu":
        numbers /= np.iinfo(stored.dtype).max
        np.maximum(numbers, -1, out=numbers)
    return numbers


class Document:
    """The JSON of a GLB file and the arrays in its buffers. No other file is opened."""

    def __init__(self, content: bytes) -> None:
        text, self._binary = _chunks(content)
        self.root = _parse(text)
        self._file_bytes = len(content)
        self._buffers: dict[int, NDArray[np.uint8]] = {}
        _check_version(self.root)
        _check_extensions(self.root)

    def count(self, kind: str) -> int:
        """How many ``nodes``, ``meshes``, ... there are."""
        return len(self.root.array(kind))

    def entry(self, kind: str, of: Item, key: str) -> Item:
        """What the index ``of.key`` names among the ``nodes``, ``meshes``, ..."""
        return self.at(kind, of.index(key, self.count(kind)))

    def at(self, kind: str, index: int) -> Item:
        value = self.root.array(kind)[index]
        if not isinstance(value, dict):
            raise ValueError(f"{kind}[{index}] is {shown(value)}, not an object")
        return Item(value, f"{kind}[{index}]")

    def accessor(self, of: Item, key: str, kind: str, components: tuple[int, ...], *, empty: bool = False) -> Accessor:
        """The accessor that ``of.key`` names: of the type ``kind``, with one of the component types ``components``.

        An ``empty`` one is left without its numbers, which are elsewhere.
        """
        item = self.entry("accessors", of, key)
        if item.string("type") != kind:
            raise ValueError(f"{item.where} is of the type {shown(item.string('type'))}, {of.where}.{key} of {kind}")
        width, dtype, count = _WIDTHS[kind], _component(item, components), item.integer("count")
        base = places = values = None
        if count > self._file_bytes and not empty:  # each element that is stored takes a byte at least
            raise TooLargeError(f"{item.where} declares {count} elements, the file has {self._file_bytes} bytes")
        if item.has("bufferView") and not empty:
            base = self._elements(item, count, width, dtype, strided=key != "indices")
        if item.has("sparse") and not empty:
            places, values = self._sparse(item.item("sparse"), count, width, dtype)
        return Accessor(item.where, count, width, dtype, item.flag("normalized", False), base, places, values)

    def view(self, of: Item) -> NDArray[np.uint8]:
        """The bytes of the buffer view that ``of`` names."""
        view = self.entry("bufferViews", of, "bufferView")
        packed = next((name for name in MESHOPT if view.extension(name)), "")
        data = self._buffer(view, packed)
        offset, length = view.integer("byteOffset", 0), view.integer("byteLength")
        if offset + length > len(data):
            raise ValueError(f"{view.where} ends at byte {offset + length} of a buffer of {len(data)}")
        return data[offset : offset + length]

    def _elements(self, item: Item, count: int, width: int, dtype: np.dtype[Any], *, strided: bool) -> NDArray[Any]:
        """``count`` elements in the buffer view that ``item`` names, in place."""
        data, size = self.view(item), width * dtype.itemsize
        # 0 was the word for none in glTF 1.0
        stride = self.entry("bufferViews", item, "bufferView").integer("byteStride", 0) or size
        if stride < size or (stride != size and not strided):
            raise ValueError(f"{item.where} has elements of {size} bytes in a view with byteStride {stride}")
        offset = item.integer("byteOffset", 0)
        end = offset + stride * (count - 1) + size if count else offset
        if end > len(data):
            raise ValueError(f"{item.where} ends at byte {end} of a view of {len(data)}")
        if not count:
            return np.zeros((0, width), dtype)
        return np.ndarray((count, width), dtype, data, offset, (stride, dtype.itemsize))

    def _sparse(self, sparse: Item, count: int, width: int, dtype: np.dtype[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        changed, where, what = sparse.integer("count"), sparse.item("indices"), sparse.item("values")
        places = self._elements(where, changed, 1, _component(where, INDICES), strided=False)[:, 0].astype(np.int64)
        if changed and places.max() >= count:
            raise OutOfRangeError(f"{where.where}: index {places.max()} is out of range, there are {count} elements")
        return places, self._elements(what, changed, width, dtype, strided=False)

    def _buffer(self, view: Item, packed: str) -> NDArray[np.uint8]:
        index = view.index("buffer", self.count("buffers"))
        if index not in self._buffers:
            buffer = self.at("buffers", index)
            fallback = any(
                extension and extension.flag("fallback", False) for extension in map(buffer.extension, MESHOPT)
            )
            if buffer.has("uri"):
                data = _data_uri(buffer)
            elif index == 0 and self._binary is not None and not fallback:
                data = self._binary
            elif packed:
                raise UnsupportedError(f"{view.where} is compressed by {packed}, which is not read")
            else:
                raise ValueError(f"{view.where} is in {buffer.where}, which has no bytes in the file")
            length = buffer.integer("byteLength")
            if length > len(data):
                raise ValueError(f"{buffer.where} should have {length} bytes and has {len(data)}")
            self._buffers[index] = data[:length]
        return self._buffers[index]


def _component(item: Item, known: tuple[int, ...]) -> np.dtype[Any]:
    code = item.integer("componentType")
    return np.dtype(_DTYPES[code]) if code in known else item.fail("componentType", f"one of {known}")


def _chunks(content: bytes) -> tuple[bytes, NDArray[np.uint8] | None]:
    """The JSON chunk and the binary chunk, if there is one. Other chunks are skipped."""
    if len(content) < 12 or content[:4] != b"glTF":
        raise ValueError("not a GLB file: it does not begin with a header of glTF")
    version, stop = struct.unpack_from("<II", content, 4)
    if version != 2:
        raise UnsupportedError(f"version {version} of the GLB container, only 2 is read")
    if stop > len(content):
        raise ValueError(f"truncated: the file should have {stop} bytes and has {len(content)}")
    text: bytes | None = None
    binary = None
    at = 12
    while at + 8 <= stop:
        length, kind = struct.unpack_from("<I4s", content, at)
        begin, at = at + 8, at + 8 + length
        if at > stop:
            raise ValueError(f"truncated: the chunk at byte {begin - 8} has {length} bytes and the file ends at {stop}")
        if text is None:
            if kind != b"JSON":
                raise ValueError(f"the first chunk is {shown(kind)}, not JSON")
            text = content[begin:at]
        elif kind == b"BIN\0" and binary is None:
            binary = np.frombuffer(content, np.uint8, length, begin)
        if length % 4 and content[at + 4 : at + 8] != b"BIN\0":  # some writers pad without counting it
            at += -length % 4
    if text is None:
        raise ValueError("truncated: there is no JSON chunk")
    return text, binary


def _parse(text: bytes) -> Item:
    def refuse(word: str) -> NoReturn:
        raise ValueError(f"{word} is no number of JSON")

    try:
        root = json.loads(text.rstrip(b"\0 \t\r\n").decode("utf-8-sig"), parse_constant=refuse)
    except RecursionError as error:
        raise ValueError("the JSON chunk is nested too deeply") from error
    except ValueError as error:
        raise ValueError(f"the JSON chunk cannot be read: {error}") from error
    if not isinstance(root, dict):
        raise ValueError(f"the JSON chunk is {shown(root)}, not an object")
    return Item(root, "glTF")


def _check_version(root: Item) -> None:
    asset = root.item("asset")
    if asset.string("version").split(".")[0] != "2":
        raise UnsupportedError(f"version {shown(asset.string('version'))} of glTF, only 2.0 is read")
    if asset.has("minVersion") and asset.string("minVersion") != "2.0":
        raise UnsupportedError(f"a reader of version {shown(asset.string('minVersion'))} is needed, only 2.0 is read")


def _check_extensions(root: Item) -> None:
    """Refuse what is needed to read the file and is not read."""
    for name in root.array("extensionsRequired"):
        if not isinstance(name, str):
            root.fail("extensionsRequired", "a list of strings")
        if name not in _READ | _HARMLESS and not name.startswith(_HARMLESS_FAMILIES):
            raise UnsupportedError(f"the extension {shown(name)[1:-1]} is needed, which is not read")


def _data_uri(buffer: Item) -> NDArray[np.uint8]:
    """The bytes of a buffer that is written out in the JSON."""
    uri = buffer.string("uri")
    head, comma, text = uri.partition(",")
    if not head.lower().startswith("data:"):
        raise UnsupportedError(f"{buffer.where} is the file {shown(uri)}: only buffers inside the GLB file are read")
    if not comma or not head.lower().endswith(";base64"):
        raise UnsupportedError(f"{buffer.where} is {shown(uri)}: only base64 is read")
    try:
        return np.frombuffer(base64.b64decode(text.encode(), validate=True), np.uint8)
    except ValueError as error:
        raise ValueError(f"{buffer.where}: the base64 cannot be read: {error}") from error
