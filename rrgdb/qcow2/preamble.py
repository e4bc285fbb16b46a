"""The first cluster: header, header extensions, backing file name. Parsed with checks, and built anew.

Source: QEMU, "Qcow2 Image File Format" (docs/interop/qcow2), "Header" to "Feature name table".
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass, replace

from .errors import Qcow2Error, Qcow2UnsupportedError, Qcow2UsageError
from .layout import (
    AUTOCLEAR_RAW_DATA,
    COMPRESSION_TYPES,
    CRYPT_NAMES,
    EXT_BACKING_FORMAT,
    EXT_DATA_FILE,
    EXT_END,
    EXT_FEATURE_NAMES,
    INCOMPAT_COMPRESSION,
    INCOMPAT_DATA_FILE,
    INCOMPAT_EXTENDED_L2,
    INCOMPAT_KNOWN,
    MAGIC,
    MAX_BACKING_NAME,
    MAX_CLUSTER_BITS,
    MAX_L1_BYTES,
    MAX_REFCOUNT_TABLE_BYTES,
    MAX_SNAPSHOTS,
    MIN_CLUSTER_BITS,
    V2_LENGTH,
    V3_LENGTH,
    Geometry,
    Header,
)

Extension = tuple[int, bytes]

_COMPRESSION_AT = 104
_MIN_EXTENDED_BITS = 14
# (bitmap: 0 incompatible, 1 compatible, 2 autoclear; bit; name as QEMU writes it)
FEATURE_NAMES = (
    (0, 0, "dirty bit"),
    (0, 1, "corrupt bit"),
    (0, 2, "external data file"),
    (0, 3, "compression type"),
    (0, 4, "extended L2 entries"),
    (1, 0, "lazy refcounts"),
    (2, 0, "bitmaps"),
    (2, 1, "raw external data"),
)
_FEATURE = struct.Struct(">BB46s")


@dataclass(frozen=True)
class Preamble:
    """Everything that the first cluster says."""

    header: Header
    geometry: Geometry
    additional: bytes  # the header behind its first 104 bytes, kept as it is
    extensions: tuple[Extension, ...]
    extensions_end: int  # offset behind the end marker
    backing_file: str | None
    backing_format: str | None
    compression: str  # ``zlib`` or ``zstd``
    data_file: str | None
    data_file_raw: bool


def parse_preamble(raw: bytes, path: str) -> Preamble:
    """Parse and check the first bytes of an image (as many as there are, at most one cluster of 2 MiB).

    Raises Qcow2Error for a malformed header, Qcow2UnsupportedError for features that are not offered.
    """

    def need(condition: bool, offset: int, expected: str) -> None:
        if not condition:
            raise Qcow2Error(f"{path}: offset {offset}: expected {expected}")

    need(len(raw) >= V2_LENGTH and raw[:4] == MAGIC, 0, "a qcow2 header (magic 'QFI\\xfb', at least 72 bytes)")
    version = int.from_bytes(raw[4:8], "big")
    if version not in (2, 3):
        raise Qcow2UnsupportedError(f"{path}: offset 4: version {version}, expected 2 or 3")
    need(version == 2 or len(raw) >= V3_LENGTH, 0, "a version 3 header of at least 104 bytes")
    header = Header.unpack(raw[:V3_LENGTH].ljust(V3_LENGTH, b"\0"))
    if version == 2:
        header.incompatible_features = header.compatible_features = header.autoclear_features = 0
        header.refcount_order, header.header_length = 4, V2_LENGTH
    bits = header.cluster_bits
    need(MIN_CLUSTER_BITS <= bits <= MAX_CLUSTER_BITS, 20, f"cluster_bits 9..21, found {bits}")
    need(header.refcount_order <= 6, 96, f"refcount_order 0..6, found {header.refcount_order}")
    extended = bool(header.incompatible_features & INCOMPAT_EXTENDED_L2)
    need(not extended or bits >= _MIN_EXTENDED_BITS, 20, f"cluster_bits 14..21 with extended L2 entries, found {bits}")
    data_file = bool(header.incompatible_features & INCOMPAT_DATA_FILE)
    geometry = Geometry(bits, header.refcount_order, version, extended, data_file)
    if version == 3:
        length = header.header_length
        need(
            V3_LENGTH <= length <= geometry.cluster_size and length % 8 == 0,
            100,
            "a header_length >= 104, multiple of 8",
        )
        need(len(raw) >= length, 100, f"a header of {length} bytes inside the file")
    extensions, extensions_end = _parse_extensions(raw[: geometry.cluster_size], header, path)
    by_type = dict(reversed(extensions))
    _check_features(header, by_type.get(EXT_FEATURE_NAMES, b""), path)
    inside = geometry.cluster_size - 1
    for name, offset in (("l1_table_offset", 40), ("refcount_table_offset", 48), ("snapshots_offset", 64)):
        need(getattr(header, name) & inside == 0, offset, f"{name} on a cluster boundary")
        need(getattr(header, name) < 1 << 63, offset, f"{name} below 2^63")
    need(header.l1_size * 8 <= MAX_L1_BYTES, 36, "an L1 table of at most 32 MiB")
    need(header.refcount_table_clusters <= MAX_REFCOUNT_TABLE_BYTES >> bits, 56, "a refcount table of at most 8 MiB")
    need(header.nb_snapshots <= MAX_SNAPSHOTS, 60, f"at most {MAX_SNAPSHOTS} snapshots")
    need(header.size < 1 << 63, 24, "a disk size below 2^63")
    need(geometry.l1_entries(header.size) <= header.l1_size, 36, "an L1 table that covers the disk size")
    additional = raw[V3_LENGTH : header.header_length] if version == 3 else b""
    return Preamble(
        header=header,
        geometry=geometry,
        additional=additional,
        extensions=extensions,
        extensions_end=extensions_end,
        backing_file=_backing_name(raw, header, geometry, path),
        backing_format=_text(by_type, EXT_BACKING_FORMAT),
        compression=_compression(header, additional, path),
        data_file=_text(by_type, EXT_DATA_FILE) if data_file else None,
        data_file_raw=bool(header.autoclear_features & AUTOCLEAR_RAW_DATA),
    )


def _text(extensions: dict[int, bytes], kind: int) -> str | None:
    return extensions[kind].decode("utf-8", "surrogateescape") if kind in extensions else None


def _check_features(header: Header, names: bytes, path: str) -> None:
    if header.crypt_method:
        name = CRYPT_NAMES.get(header.crypt_method, f"encryption method {header.crypt_method}")
        raise Qcow2UnsupportedError(f"{path}: offset 32: {name} is not supported")
    unknown = header.incompatible_features & ~INCOMPAT_KNOWN
    if unknown:
        bit = (unknown & -unknown).bit_length() - 1
        name = _feature_name(names, bit)
        raise Qcow2UnsupportedError(f"{path}: offset 72: incompatible feature bit {bit} ({name}) is not supported")


def _feature_name(names: bytes, bit: int) -> str:
    for at in range(0, len(names) - _FEATURE.size + 1, _FEATURE.size):
        kind, number, name = _FEATURE.unpack_from(names, at)
        text = name.rstrip(b"\0").decode("ascii", "replace")
        if (kind, number) == (0, bit) and text.isprintable():
            return str(text)
    return "unknown feature"


def _compression(header: Header, additional: bytes, path: str) -> str:
    number = additional[0] if additional else 0
    if number not in COMPRESSION_TYPES:
        raise Qcow2UnsupportedError(f"{path}: offset {_COMPRESSION_AT}: compression type {number} is not supported")
    if bool(header.incompatible_features & INCOMPAT_COMPRESSION) != (number != 0):
        raise Qcow2Error(
            f"{path}: offset {_COMPRESSION_AT}: expected a compression type that fits the incompatible feature bit 3"
        )
    return COMPRESSION_TYPES[number]


def _parse_extensions(raw: bytes, header: Header, path: str) -> tuple[tuple[Extension, ...], int]:
    end = header.backing_file_offset if 0 < header.backing_file_offset <= len(raw) else len(raw)
    found: list[Extension] = []
    pos = header.header_length
    while pos + 8 <= end:
        kind, length = struct.unpack_from(">II", raw, pos)
        if kind == EXT_END:
            return tuple(found), pos + 8
        if length > end - pos - 8:
            raise Qcow2Error(f"{path}: offset {pos + 4}: header extension of {length} bytes leaves its area")
        found.append((kind, raw[pos + 8 : pos + 8 + length]))
        pos += 8 + (length + 7) // 8 * 8
    return tuple(found), pos


def _backing_name(raw: bytes, header: Header, geometry: Geometry, path: str) -> str | None:
    offset, size = header.backing_file_offset, header.backing_file_size
    if offset == 0:
        return None
    if not (0 < size <= MAX_BACKING_NAME and header.header_length <= offset <= geometry.cluster_size - size):
        raise Qcow2Error(f"{path}: offset 8: expected a backing file name of 1..1023 bytes inside the first cluster")
    name = raw[offset : offset + size]
    if len(name) != size or b"\0" in name:
        raise Qcow2Error(f"{path}: offset {offset}: expected a backing file name of {size} bytes without NUL")
    return name.decode("utf-8", "surrogateescape")


def feature_names() -> Extension:
    """The feature name table of what this library knows."""
    return EXT_FEATURE_NAMES, b"".join(_FEATURE.pack(kind, bit, name.encode()) for kind, bit, name in FEATURE_NAMES)


def with_backing(old: Preamble, backing_file: str | None, backing_format: str | None) -> tuple[Preamble, bytes]:
    """``old`` with another backing file, and its first cluster.

    Other extensions and additional header fields are kept. The new name avoids the bytes of the old one where there
    is room, so that it can be written before the header that names it. Raises ValueError if it does not fit.
    """
    kept = [extension for extension in old.extensions if extension[0] != EXT_BACKING_FORMAT]
    if backing_format is not None:
        kept.insert(0, (EXT_BACKING_FORMAT, backing_format.encode()))
    busy = (old.header.backing_file_offset, old.header.backing_file_offset + old.header.backing_file_size)
    header = replace(old.header)
    raw, end = first_cluster(header, old.additional, kept, backing_file, busy if busy[0] else (0, 0))
    new = replace(
        old,
        header=header,
        extensions=tuple(kept),
        extensions_end=end,
        backing_file=backing_file,
        backing_format=backing_format,
    )
    return new, raw


def first_cluster(
    header: Header,
    additional: bytes,
    extensions: Iterable[Extension],
    backing_file: str | None,
    busy: tuple[int, int] = (0, 0),
) -> tuple[bytes, int]:
    """The first cluster, and where its extensions end; sets the backing fields of ``header``.

    The name avoids the bytes ``busy`` if that is possible. Raises ValueError if something does not fit.
    """
    size = 1 << header.cluster_bits
    fixed = V3_LENGTH if header.version >= 3 else V2_LENGTH
    body = bytearray(fixed) + additional
    for kind, data in extensions:
        body += struct.pack(">II", kind, len(data)) + data.ljust((len(data) + 7) // 8 * 8, b"\0")
    name = b"" if backing_file is None else backing_file.encode("utf-8", "surrogateescape")
    # A file may fill its first cluster without an end marker: then there is no room for one.
    if len(body) + 8 + len(name) <= size:
        body += struct.pack(">II", EXT_END, 0)
    end = len(body)
    header.backing_file_offset = header.backing_file_size = 0
    if backing_file is not None:
        if not 0 < len(name) <= MAX_BACKING_NAME or b"\0" in name:
            raise Qcow2UsageError("a backing file name has 1..1023 bytes and no NUL")
        at = end
        if at < busy[1] and busy[0] < at + len(name) and busy[1] + len(name) <= size:
            at = busy[1]
        header.backing_file_offset, header.backing_file_size = at, len(name)
        body = body.ljust(at, b"\0") + name
    if len(body) > size:
        raise Qcow2UsageError("the backing file name does not fit into the first cluster; use a larger cluster size")
    packed = header.pack()
    body[: len(packed)] = packed
    return bytes(body).ljust(size, b"\0"), end
