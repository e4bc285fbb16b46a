"""What a new image is to be: checked, and made into its first cluster."""

from __future__ import annotations

from .errors import Qcow2UsageError
from .layout import (
    COMPAT_LAZY_REFCOUNTS,
    COMPRESSION_TYPES,
    CREATED_LENGTH,
    EXT_BACKING_FORMAT,
    INCOMPAT_COMPRESSION,
    MAX_CLUSTER_BITS,
    MAX_L1_BYTES,
    MIN_CLUSTER_BITS,
    SECTOR,
    V2_LENGTH,
    V3_LENGTH,
    Geometry,
    Header,
)
from .preamble import Preamble, feature_names, first_cluster, parse_preamble

# Smaller clusters keep their room for the name of a backing file, as QEMU does it.
_NAMES_ABOVE = 4096


def new_preamble(
    path: str,
    size: int,
    *,
    cluster_size: int,
    version: int,
    refcount_bits: int,
    lazy_refcounts: bool,
    compression: str,
    backing_file: str | None,
    backing_format: str | None,
) -> tuple[Preamble, bytes]:
    """The parsed first cluster of a new image, and its bytes. Raises ValueError for what is not possible."""
    bits = cluster_size.bit_length() - 1
    if not MIN_CLUSTER_BITS <= bits <= MAX_CLUSTER_BITS or cluster_size != 1 << bits:
        raise Qcow2UsageError("the cluster size must be a power of 2 from 512 to 2097152")
    if size < 0 or size % SECTOR:
        raise Qcow2UsageError("the disk size must be a multiple of 512, and not negative")
    require_backing(backing_file, backing_format)
    if version not in (2, 3):
        raise Qcow2UsageError("the version must be 2 or 3")
    if refcount_bits not in (1, 2, 4, 8, 16, 32, 64):
        raise Qcow2UsageError("the refcount width must be a power of 2 from 1 to 64 bits")
    types = {name: number for number, name in COMPRESSION_TYPES.items()}
    if compression not in types:
        raise Qcow2UsageError(f"the compression type must be one of {', '.join(types)}")
    if version == 2 and (refcount_bits != 16 or lazy_refcounts or compression != "zlib"):
        raise Qcow2UsageError("version 2 has refcounts of 16 bits, no lazy refcounts and only zlib")
    order = refcount_bits.bit_length() - 1
    geometry = Geometry(bits, order, version)
    entries = max(1, geometry.l1_entries(size))
    if entries * 8 > MAX_L1_BYTES:
        raise Qcow2UsageError("a disk of this size needs larger clusters")
    header = Header(
        version=version,
        cluster_bits=bits,
        size=size,
        l1_size=entries,
        refcount_order=order,
        header_length=CREATED_LENGTH if version == 3 else V2_LENGTH,
        compatible_features=COMPAT_LAZY_REFCOUNTS if lazy_refcounts else 0,
        incompatible_features=INCOMPAT_COMPRESSION if types[compression] else 0,
    )
    additional = bytes([types[compression]]).ljust(CREATED_LENGTH - V3_LENGTH, b"\0") if version == 3 else b""
    extensions = []
    if backing_format is not None:
        extensions.append((EXT_BACKING_FORMAT, backing_format.encode()))
    if version == 3 and cluster_size > _NAMES_ABOVE:
        extensions.append(feature_names())
    raw, _ = first_cluster(header, additional, extensions, backing_file)
    preamble = parse_preamble(raw, path)
    preamble.header.l1_size = 0  # none is on disk yet
    return preamble, raw


def require_backing(backing_file: str | None, backing_format: str | None) -> None:
    """Raises ValueError unless both are given or none."""
    if (backing_file is None) != (backing_format is None) or backing_format not in (None, "raw", "qcow2"):
        raise Qcow2UsageError("a backing file needs a backing format, raw or qcow2, and the other way round")
