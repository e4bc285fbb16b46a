"""Numbers and structures of the format: header, header extensions, table entries.

Source: QEMU, "Qcow2 Image File Format" (docs/interop/qcow2). All integers in the file are big endian.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field, fields

from .errors import Qcow2Error, Qcow2UnsupportedError

MAGIC = b"QFI\xfb"
MIN_CLUSTER_BITS, MAX_CLUSTER_BITS = 9, 21

# Limits that QEMU sets as well, so that what passes here also opens there.
MAX_L1_BYTES = 32 << 20
MAX_REFCOUNT_TABLE_BYTES = 8 << 20
MAX_SNAPSHOTS = 65536
MAX_SNAPSHOT_TABLE_BYTES = 64 << 20
MAX_SNAPSHOT_EXTRA_BYTES = 1024
MAX_BACKING_NAME = 1023
# Ours: refcounts are kept in memory, so images opened for writing are bounded: 128 GiB of file at 4 KiB a cluster,
# 2 TiB at 64 KiB.
MAX_CLUSTERS = 1 << 25

OFLAG_COPIED = 1 << 63
OFLAG_COMPRESSED = 1 << 62
OFLAG_ZERO = 1
OFFSET_MASK = 0x00FF_FFFF_FFFF_FE00

INCOMPAT_DIRTY = 1 << 0
INCOMPAT_CORRUPT = 1 << 1
INCOMPAT_NAMES = {2: "external data file", 3: "compression type", 4: "extended L2 entries"}
CRYPT_NAMES = {1: "AES encryption", 2: "LUKS encryption"}

EXT_END = 0x00000000
EXT_BACKING_FORMAT = 0xE2792ACA
EXT_BITMAPS = 0x23852875

_FIXED = struct.Struct(">4sIQIIQIIQQIIQQQQII")
V2_LENGTH = 72
V3_LENGTH = 104
CREATED_LENGTH = 112  # as QEMU >= 5.1: one byte of compression type, padded to 8


@dataclass
class Header:
    """The first 104 bytes of the file; field order and names as in the format description."""

    magic: bytes = MAGIC
    version: int = 3
    backing_file_offset: int = 0
    backing_file_size: int = 0
    cluster_bits: int = 16
    size: int = 0
    crypt_method: int = 0
    l1_size: int = 0
    l1_table_offset: int = 0
    refcount_table_offset: int = 0
    refcount_table_clusters: int = 0
    nb_snapshots: int = 0
    snapshots_offset: int = 0
    incompatible_features: int = 0
    compatible_features: int = 0
    autoclear_features: int = 0
    refcount_order: int = 4
    header_length: int = CREATED_LENGTH

    def pack(self) -> bytes:
        """The fields as one run of 104 bytes: written at once, they switch the state of the image."""
        return _FIXED.pack(*(getattr(self, f.name) for f in fields(self)))


@dataclass(frozen=True)
class Geometry:
    """Sizes that follow from the header."""

    cluster_bits: int
    refcount_order: int
    version: int
    cluster_size: int = field(init=False)
    l2_bits: int = field(init=False)
    l2_entries: int = field(init=False)
    refcount_bits: int = field(init=False)
    block_bits: int = field(init=False)  # log2 of refcounts in one refcount block

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "cluster_size", 1 << self.cluster_bits)
        put(self, "l2_bits", self.cluster_bits - 3)
        put(self, "l2_entries", 1 << (self.cluster_bits - 3))
        put(self, "refcount_bits", 1 << self.refcount_order)
        put(self, "block_bits", self.cluster_bits + 3 - self.refcount_order)

    def clusters(self, length: int) -> int:
        """Clusters needed for ``length`` bytes."""
        return (length + self.cluster_size - 1) >> self.cluster_bits

    def l1_entries(self, size: int) -> int:
        """L1 entries needed for ``size`` guest bytes; for the disk size this is the L1 index of the VM state."""
        shift = self.cluster_bits + self.l2_bits
        return (size + (1 << shift) - 1) >> shift

    @property
    def entry_invalid(self) -> int:
        """Bits that must be clear in a standard L2 entry."""
        allowed = OFLAG_COPIED | (OFFSET_MASK & ~(self.cluster_size - 1)) | (OFLAG_ZERO if self.version >= 3 else 0)
        return ~allowed & 0xFFFF_FFFF_FFFF_FFFF

    @property
    def l1_invalid(self) -> int:
        """Bits that must be clear in an L1 entry."""
        return ~(OFLAG_COPIED | (OFFSET_MASK & ~(self.cluster_size - 1))) & 0xFFFF_FFFF_FFFF_FFFF


@dataclass(frozen=True)
class Preamble:
    """Everything that the first cluster says."""

    header: Header
    geometry: Geometry
    extensions: tuple[tuple[int, bytes], ...]
    backing_file: str | None
    backing_format: str | None


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
    header = Header(*_FIXED.unpack(raw[:V3_LENGTH].ljust(V3_LENGTH, b"\0")))
    if version == 2:
        header.incompatible_features = header.compatible_features = header.autoclear_features = 0
        header.refcount_order, header.header_length = 4, V2_LENGTH
    bits = header.cluster_bits
    need(MIN_CLUSTER_BITS <= bits <= MAX_CLUSTER_BITS, 20, f"cluster_bits 9..21, found {bits}")
    need(header.refcount_order <= 6, 96, f"refcount_order 0..6, found {header.refcount_order}")
    geometry = Geometry(bits, header.refcount_order, version)
    if version == 3:
        length = header.header_length
        need(
            V3_LENGTH <= length <= geometry.cluster_size and length % 8 == 0,
            100,
            "a header_length >= 104, multiple of 8",
        )
    _check_features(header, path)
    inside = geometry.cluster_size - 1
    for name, offset in (("l1_table_offset", 40), ("refcount_table_offset", 48), ("snapshots_offset", 64)):
        need(getattr(header, name) & inside == 0, offset, f"{name} on a cluster boundary")
        need(getattr(header, name) < 1 << 63, offset, f"{name} below 2^63")
    need(header.l1_size * 8 <= MAX_L1_BYTES, 36, "an L1 table of at most 32 MiB")
    need(header.refcount_table_clusters <= MAX_REFCOUNT_TABLE_BYTES >> bits, 56, "a refcount table of at most 8 MiB")
    need(header.nb_snapshots <= MAX_SNAPSHOTS, 60, f"at most {MAX_SNAPSHOTS} snapshots")
    need(header.size < 1 << 63, 24, "a disk size below 2^63")
    need(geometry.l1_entries(header.size) <= header.l1_size, 36, "an L1 table that covers the disk size")
    extensions = _parse_extensions(raw[: geometry.cluster_size], header, path)
    backing_file = _backing_name(raw, header, geometry, path)
    by_type = dict(extensions)
    backing_format = None
    if EXT_BACKING_FORMAT in by_type:
        backing_format = by_type[EXT_BACKING_FORMAT].decode("utf-8", "replace")
    return Preamble(header, geometry, extensions, backing_file, backing_format)


def _check_features(header: Header, path: str) -> None:
    if header.crypt_method:
        name = CRYPT_NAMES.get(header.crypt_method, f"encryption method {header.crypt_method}")
        raise Qcow2UnsupportedError(f"{path}: offset 32: {name} is not supported")
    unknown = header.incompatible_features & ~(INCOMPAT_DIRTY | INCOMPAT_CORRUPT)
    if unknown:
        bit = (unknown & -unknown).bit_length() - 1
        name = INCOMPAT_NAMES.get(bit, "unknown feature")
        raise Qcow2UnsupportedError(f"{path}: offset 72: incompatible feature bit {bit} ({name}) is not supported")


def _parse_extensions(raw: bytes, header: Header, path: str) -> tuple[tuple[int, bytes], ...]:
    end = header.backing_file_offset if 0 < header.backing_file_offset <= len(raw) else len(raw)
    pos, found = header.header_length, []
    while pos + 8 <= end:
        kind, length = struct.unpack_from(">II", raw, pos)
        if kind == EXT_END:
            break
        if length > end - pos - 8:
            raise Qcow2Error(f"{path}: offset {pos + 4}: header extension of {length} bytes leaves its area")
        found.append((kind, raw[pos + 8 : pos + 8 + length]))
        pos += 8 + (length + 7) // 8 * 8
    return tuple(found)


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


def first_cluster(header: Header, backing_file: str | None, backing_format: str | None) -> bytes:
    """The first cluster of a new image; sets the backing fields of ``header``. Raises ValueError if it does not fit."""
    body = bytearray(header.header_length)
    if backing_format is not None:
        data = backing_format.encode()
        body += struct.pack(">II", EXT_BACKING_FORMAT, len(data)) + data.ljust((len(data) + 7) // 8 * 8, b"\0")
    body += struct.pack(">II", EXT_END, 0)
    if backing_file is not None:
        name = backing_file.encode("utf-8", "surrogateescape")
        header.backing_file_offset, header.backing_file_size = len(body), len(name)
        if not 0 < len(name) <= MAX_BACKING_NAME or b"\0" in name:
            raise ValueError("a backing file name has 1..1023 bytes and no NUL")
        body += name
    if len(body) > 1 << header.cluster_bits:
        raise ValueError("the backing file name does not fit into the first cluster; use a larger cluster size")
    body[:V3_LENGTH] = header.pack()
    return bytes(body).ljust(1 << header.cluster_bits, b"\0")
