"""The layout of an uncompressed ``.npz`` file, with every array at a multiple of 64 bytes so that it can be mapped."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import BinaryIO

import numpy as np

ALIGNMENT = 64
LARGEST = zipfile.ZIP64_LIMIT  # bytes of an archive without the fields for larger ones

ZIP_HEADER = struct.Struct("<4s5H3L2H")  # of a member, before its name (PKWARE, APPNOTE 4.3.7)
_ZIP_ENTRY = struct.Struct("<4s6H3L5H2L")  # of a member in the directory (4.3.12)
_ZIP_END = struct.Struct("<4s4H2LH")  # of the directory (4.3.16)
_ZIP_EXTRA = struct.Struct("<2H")  # identity and length of an extra field
_ALIGNMENT_EXTRA = 0xD935  # the one registered for padding
_VERSION, _UNIX, _UTF8 = 20, 3 << 8, 0x800
_FIRST_DAY = 1 << 5 | 1  # 1980-01-01, as zipfile.ZipInfo has it
_MODE = 0o600 << 16


def save_npz(file: BinaryIO, arrays: Mapping[str, np.ndarray]) -> None:
    """Write ``arrays`` to a file that is open at its beginning. The bytes are those of ``save_npz_by_zipfile``, which
    takes over for archives of 2 GiB and more."""
    if sum(array.nbytes for array in arrays.values()) + 1024 * (len(arrays) + 1) < LARGEST and len(arrays) < 1 << 16:
        file.writelines(_pieces(arrays))
    else:
        save_npz_by_zipfile(file, arrays)


def save_npz_by_zipfile(file: BinaryIO, arrays: Mapping[str, np.ndarray]) -> None:
    """The same by the standard library, which takes several times as long for many small arrays."""
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            member = zipfile.ZipInfo(f"{name}.npy")
            header = _npy_header(array.dtype, array.shape)
            member.extra = _padding(file.tell() + _before_data(member.filename.encode(), header))
            with archive.open(member, "w") as data:
                data.write(header)
                data.write(_bytes_of(array))


def _pieces(arrays: Mapping[str, np.ndarray]) -> Iterator[bytes | memoryview]:
    at, directory = 0, []
    for name, array in arrays.items():
        member = f"{name}.npy"
        encoded, flags = member.encode(), 0 if member.isascii() else _UTF8
        header, data = _npy_header(array.dtype, array.shape), _bytes_of(array)
        extra = _padding(at + _before_data(encoded, header))
        checksum, size = zlib.crc32(data, zlib.crc32(header)), len(header) + len(data)
        about = (flags, 0, 0, _FIRST_DAY, checksum, size, size, len(encoded), len(extra))
        directory.append(
            _ZIP_ENTRY.pack(b"PK\1\2", _UNIX | _VERSION, _VERSION, *about, 0, 0, 0, _MODE, at) + encoded + extra
        )
        yield ZIP_HEADER.pack(b"PK\3\4", _VERSION, *about) + encoded + extra + header
        yield data
        at += ZIP_HEADER.size + len(encoded) + len(extra) + size
    size = sum(map(len, directory))
    yield b"".join([*directory, _ZIP_END.pack(b"PK\5\6", 0, 0, len(directory), len(directory), size, at, 0)])


def _before_data(name: bytes, header: bytes) -> int:
    return ZIP_HEADER.size + len(name) + _ZIP_EXTRA.size + len(header)


def _padding(place: int) -> bytes:
    """The extra field after which the data that would begin at ``place`` is aligned."""
    return _ZIP_EXTRA.pack(_ALIGNMENT_EXTRA, -place % ALIGNMENT) + bytes(-place % ALIGNMENT)


def _bytes_of(array: np.ndarray) -> memoryview:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


@lru_cache(maxsize=256)
def _npy_header(dtype: np.dtype, shape: tuple[int, ...]) -> bytes:
    header = io.BytesIO()
    fields = np.lib.format.header_data_from_array_1_0(np.broadcast_to(np.zeros((), dtype), shape))
    np.lib.format.write_array_header_1_0(header, fields | {"fortran_order": False})
    return header.getvalue()
