"""The snapshot table: a contiguous list of entries of variable length (format description, "Snapshots")."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field

from .errors import Qcow2Error, Qcow2UsageError
from .hostfile import HostFile
from .layout import MAX_L1_BYTES, MAX_SNAPSHOT_EXTRA_BYTES, MAX_SNAPSHOT_TABLE_BYTES, Geometry, Header

_ENTRY = struct.Struct(">QIHHIIQII")
_EXTRA = struct.Struct(">QQQ")
NO_ICOUNT = (1 << 64) - 1


@dataclass(frozen=True)
class Snapshot:
    """One internal snapshot.

    ``date_s``/``date_ns``: when it was taken (since the Unix epoch). ``vm_clock_ns``: how long the guest had run.
    ``vm_state_size``: bytes. ``icount``: instructions, None if not recorded. ``disk_size``: bytes, None in old images.
    """

    id: str
    name: str
    date_s: int
    date_ns: int
    vm_clock_ns: int
    vm_state_size: int
    icount: int | None
    disk_size: int | None
    l1_offset: int = field(repr=False)
    l1_size: int = field(repr=False)
    extra: bytes = field(default=b"", repr=False)  # extra data after the fields known here, kept as it is


def require_fitting(snapshot: Snapshot) -> None:
    """Raises ValueError if the table has no room for one of the values."""
    if len(snapshot.name.encode("utf-8", "surrogateescape")) > 255:
        raise Qcow2UsageError("a snapshot name has at most 255 bytes")
    if len(snapshot.extra) > MAX_SNAPSHOT_EXTRA_BYTES - _EXTRA.size:
        raise Qcow2UsageError(f"extra data has at most {MAX_SNAPSHOT_EXTRA_BYTES - _EXTRA.size} bytes")
    if not (0 <= snapshot.date_s < 1 << 32 and 0 <= snapshot.date_ns < 10**9):
        raise Qcow2UsageError("the date must be seconds below 2^32 and nanoseconds below 10^9")
    sizes = 0 <= snapshot.vm_state_size < 1 << 62 and 0 <= snapshot.vm_clock_ns < 1 << 64
    if not (sizes and 0 <= (snapshot.icount or 0) < NO_ICOUNT):
        raise Qcow2UsageError("VM state size, clock and icount must be 64-bit values")


def encode_entry(snapshot: Snapshot) -> bytes:
    """One table entry, padded to a multiple of 8 bytes."""
    ident = snapshot.id.encode("utf-8", "surrogateescape")
    name = snapshot.name.encode("utf-8", "surrogateescape")
    icount = NO_ICOUNT if snapshot.icount is None else snapshot.icount
    extra = _EXTRA.pack(snapshot.vm_state_size, snapshot.disk_size or 0, icount) + snapshot.extra
    # The 32-bit size field is ignored when the extra data carries the size; QEMU keeps it where it fits.
    size32 = snapshot.vm_state_size if snapshot.vm_state_size < 1 << 32 else 0
    fixed = _ENTRY.pack(
        snapshot.l1_offset,
        snapshot.l1_size,
        len(ident),
        len(name),
        snapshot.date_s,
        snapshot.date_ns,
        snapshot.vm_clock_ns,
        size32,
        len(extra),
    )
    entry = fixed + extra + ident + name
    return entry.ljust((len(entry) + 7) // 8 * 8, b"\0")


def encode_table(snapshots: Iterable[Snapshot]) -> bytes:
    return b"".join(map(encode_entry, snapshots))


class ShortError(Exception):
    """More bytes are needed."""


def decode_table(raw: bytes, header: Header, geometry: Geometry, path: str) -> tuple[list[Snapshot], int]:
    """The snapshots in ``raw``, and how many of its bytes they take. Raises Qcow2Error, or ShortError."""
    snapshots, pos = [], 0
    for _ in range(header.nb_snapshots):
        at = header.snapshots_offset + pos
        end = _entry_end(raw, pos, at, path)
        snapshots.append(_decode_entry(raw[pos:end], at, geometry, path))
        pos = (end + 7) // 8 * 8
    return snapshots, pos


def decode_left(raw: bytes, header: Header, geometry: Geometry, path: str) -> tuple[list[Snapshot], int]:
    """As ``decode_table``, of a damaged table: entries that cannot be right are left out, and what is behind one whose
    length cannot."""
    snapshots, pos = [], 0
    for _ in range(header.nb_snapshots):
        try:
            end = _entry_end(raw, pos, pos, path)
        except (Qcow2Error, ShortError):
            break
        with suppress(Qcow2Error):
            found = _decode_entry(raw[pos:end], pos, geometry, path)
            if found.l1_offset and found.id:
                snapshots.append(found)
        pos = (end + 7) // 8 * 8
    return snapshots, min(pos, len(raw))


def _entry_end(raw: bytes, pos: int, at: int, path: str) -> int:
    if pos + _ENTRY.size > len(raw):
        raise ShortError
    _, _, id_len, name_len, _, _, _, _, extra_len = _ENTRY.unpack_from(raw, pos)
    if extra_len > MAX_SNAPSHOT_EXTRA_BYTES:
        raise Qcow2Error(f"{path}: offset {at + 36}: expected at most 1024 bytes of extra data, found {extra_len}")
    end: int = pos + _ENTRY.size + extra_len + id_len + name_len
    if end > len(raw):
        raise ShortError
    return end


def _decode_entry(raw: bytes, at: int, geometry: Geometry, path: str) -> Snapshot:
    """The whole entry ``raw`` at offset ``at``."""
    l1_offset, l1_size, id_len, _, date_s, date_ns, clock, size, extra_len = _ENTRY.unpack_from(raw)
    if l1_offset & (geometry.cluster_size - 1) or l1_offset >= 1 << 63 or l1_size * 8 > MAX_L1_BYTES:
        raise Qcow2Error(f"{path}: offset {at}: expected a snapshot L1 table on a cluster, of at most 32 MiB")
    names = _ENTRY.size + extra_len
    extra = raw[_ENTRY.size : names]
    vm_state_size = int.from_bytes(extra[0:8], "big") if extra_len >= 8 else size
    disk_size = int.from_bytes(extra[8:16], "big") if extra_len >= 16 else None
    icount = int.from_bytes(extra[16:24], "big") if extra_len >= 24 else NO_ICOUNT
    if disk_size is not None and geometry.l1_entries(disk_size) > l1_size:
        raise Qcow2Error(f"{path}: offset {at + 48}: expected a disk size that the snapshot's L1 table covers")
    return Snapshot(
        raw[names : names + id_len].decode("utf-8", "surrogateescape"),
        raw[names + id_len :].decode("utf-8", "surrogateescape"),
        date_s,
        date_ns,
        clock,
        vm_state_size,
        None if icount == NO_ICOUNT else icount,
        disk_size,
        l1_offset,
        l1_size,
        extra[24:],
    )


def read_table(file: HostFile, header: Header, entry_bytes: int) -> bytes:
    """The bytes of the table, if its entries have ``entry_bytes`` on average; fewer at the end of the file."""
    if header.nb_snapshots == 0:
        return b""
    return file.read(header.snapshots_offset, min(header.nb_snapshots * entry_bytes, MAX_SNAPSHOT_TABLE_BYTES))
