"""Numbers and structures of the format: header, geometry, table entries.

Source: QEMU, "Qcow2 Image File Format" (docs/interop/qcow2). All integers in the file are big endian.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field, fields

MAGIC = b"QFI\xfb"
MIN_CLUSTER_BITS, MAX_CLUSTER_BITS = 9, 21
SECTOR = 512
"""What disk sizes are multiples of for QEMU: it leaves out what is behind the last whole one of a qcow2 image."""

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
INCOMPAT_DATA_FILE = 1 << 2
INCOMPAT_COMPRESSION = 1 << 3
INCOMPAT_EXTENDED_L2 = 1 << 4
INCOMPAT_KNOWN = (1 << 5) - 1
COMPAT_LAZY_REFCOUNTS = 1 << 0
AUTOCLEAR_BITMAPS = 1 << 0
AUTOCLEAR_RAW_DATA = 1 << 1
COMPRESSION_TYPES = {0: "zlib", 1: "zstd"}
CRYPT_NAMES = {1: "AES encryption", 2: "LUKS encryption"}

EXT_END = 0x00000000
EXT_BACKING_FORMAT = 0xE2792ACA
EXT_BITMAPS = 0x23852875
EXT_DATA_FILE = 0x44415441
EXT_FEATURE_NAMES = 0x6803F857

_FIXED = struct.Struct(">4sIQIIQIIQQIIQQQQII")
V2_LENGTH = 72
V3_LENGTH = 104
CREATED_LENGTH = 112  # as QEMU >= 5.1: one byte of compression type, padded to 8


def whole_sectors(size: int) -> int:
    """``size`` bytes rounded up to whole sectors."""
    return -(-size // SECTOR) * SECTOR


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
        """The fields as one run of 104 bytes (version 2: 72): written at once, they switch the state of the image."""
        raw = _FIXED.pack(*(getattr(self, f.name) for f in fields(self)))
        return raw if self.version >= 3 else raw[:V2_LENGTH]

    @classmethod
    def unpack(cls, raw: bytes) -> Header:
        """The inverse of ``pack`` for version 3; ``raw`` has at least 104 bytes."""
        return cls(*_FIXED.unpack(raw[:V3_LENGTH]))


@dataclass(frozen=True)
class Geometry:
    """Sizes that follow from the header."""

    cluster_bits: int
    refcount_order: int
    version: int
    extended: bool = False  # extended L2 entries: 16 bytes each, 32 subclusters in a cluster
    data_file: bool = False  # guest clusters are in another file and have no refcounts
    cluster_size: int = field(init=False)
    l2_bits: int = field(init=False)
    l2_entries: int = field(init=False)
    refcount_bits: int = field(init=False)
    block_bits: int = field(init=False)  # log2 of refcounts in one refcount block

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "cluster_size", 1 << self.cluster_bits)
        put(self, "l2_bits", self.cluster_bits - 3 - self.extended)
        put(self, "l2_entries", 1 << self.l2_bits)
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
        allowed = (
            OFLAG_COPIED
            | (OFFSET_MASK & ~(self.cluster_size - 1))
            | (OFLAG_ZERO if self.version >= 3 and not self.extended else 0)
        )
        return ~allowed & 0xFFFF_FFFF_FFFF_FFFF

    @property
    def l1_invalid(self) -> int:
        """Bits that must be clear in an L1 entry."""
        return ~(OFLAG_COPIED | (OFFSET_MASK & ~(self.cluster_size - 1))) & 0xFFFF_FFFF_FFFF_FFFF
