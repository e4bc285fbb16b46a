"""What an open image is: header, active L1 table, snapshots. Reading it while another process writes is safe."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from .errors import Qcow2Error, Qcow2UsageError
from .hostfile import HostFile
from .layout import (
    AUTOCLEAR_BITMAPS,
    EXT_BITMAPS,
    MAX_CLUSTER_BITS,
    MAX_SNAPSHOTS,
    V3_LENGTH,
    Geometry,
    Header,
)
from .mapping import Mapper
from .preamble import Preamble, parse_preamble
from .snapshot_table import ShortError, Snapshot, decode_left, decode_table, read_table
from .tables import Entries

_ATTEMPTS = 100
_ENTRY_BYTES = 128  # of a snapshot, tried first
_MOST_ENTRY_BYTES = 2048


@dataclass
class State:
    """``header``, ``l1`` and ``snapshots`` are the present; a writer changes them before it commits. ``raw``: header
    and snapshot table as they were read."""

    file: HostFile
    preamble: Preamble
    geometry: Geometry
    header: Header
    mapper: Mapper
    l1: Entries
    snapshots: list[Snapshot]
    snapshot_table_bytes: int
    raw: bytes = b""
    by_id: dict[str, Snapshot] = field(init=False)
    last_id: int = field(init=False)  # the greatest decimal one

    def __post_init__(self) -> None:
        self.put_snapshots(self.snapshots)

    def put_snapshots(self, snapshots: list[Snapshot]) -> None:
        """Set the list and what is looked up by it. Of snapshots with the same id, the first is found."""
        self.snapshots = snapshots
        self.by_id = {s.id: s for s in reversed(snapshots)}
        self.last_id = max((_number(s.id) for s in snapshots), default=0)

    def append_snapshot(self, snapshot: Snapshot) -> None:
        """As ``put_snapshots`` with one more; its id must be new."""
        self.snapshots.append(snapshot)
        self.by_id[snapshot.id] = snapshot
        self.last_id = max(self.last_id, _number(snapshot.id))

    def find(self, snapshot: Snapshot | str) -> Snapshot:
        """The snapshot that is given by itself or by its id. Raises ValueError if it is not there."""
        ident = snapshot if isinstance(snapshot, str) else snapshot.id
        found = self.by_id.get(ident)
        if found is not None and snapshot in (ident, found):
            return found
        if snapshot in self.snapshots:
            at = self.header.snapshots_offset
            raise Qcow2Error(
                f"{self.file.path}: offset {at}: expected snapshots with different ids, two have {ident!r}"
            )
        raise Qcow2UsageError(f"the image has no snapshot with id {ident}")

    def vmstate_base(self, size: int) -> int:
        """The guest offset at which the VM state of a disk of ``size`` bytes starts."""
        geometry = self.geometry
        return geometry.l1_entries(size) << (geometry.cluster_bits + geometry.l2_bits)


@lru_cache(maxsize=1 << 17)
def _number(text: str) -> int:
    # Ids are decimal numbers, as QEMU gives them; anything else a file may hold counts for nothing.
    return int(text) if len(text) < 19 and text.isascii() and text.isdecimal() else 0


def load_state(file: HostFile, *, lenient: bool = False) -> State:
    """Read header, active L1 table and snapshot table. Raises Qcow2Error, Qcow2UnsupportedError.

    ``lenient``: bad L1 entries are no error, for checking and repairing.

    A writer puts tables into free clusters and switches to them by one write of the header: if the header is the same
    after the tables were read, they belong together.
    """
    entry_bytes = _ENTRY_BYTES
    for _ in range(_ATTEMPTS):
        raw = _first_cluster(file)
        error: Qcow2Error | None = None
        try:
            preamble = parse_preamble(raw, file.path)
            header, geometry = preamble.header, preamble.geometry
            mapper = Mapper(file, geometry, preamble.compression)
            l1 = mapper.read_l1(header.l1_table_offset, header.l1_size, strict=not lenient)
            table = read_table(file, header, entry_bytes)
        except Qcow2Error as caught:
            error = caught
        if _first_cluster(file) != raw:
            continue
        if error is not None:
            try:
                raise error
            finally:
                error = None  # this frame is in its traceback: they would keep each other, and the tables, alive
        # A fast writer must not outrun this: it is done with the bytes that belong together.
        try:
            snapshots, length = decode_table(table, header, geometry, file.path)
        except ShortError:
            if len(table) < header.nb_snapshots * entry_bytes:
                raise Qcow2Error(
                    f"{file.path}: offset {header.snapshots_offset}: expected a snapshot table of "
                    f"{header.nb_snapshots} entries and at most 64 MiB inside the file"
                ) from None
            entry_bytes *= 4
            continue
        return State(file, preamble, geometry, header, mapper, l1, snapshots, length, raw + table[:length])
    raise Qcow2Error(f"{file.path}: offset 0: expected a header that rests; it changes all the time")


def load_damaged(file: HostFile, size: int, cluster_size: int) -> State:
    """What is left of the snapshots of a damaged image, of which it is known that the disk has ``size`` bytes and a
    cluster ``cluster_size``, and that it uses none of the format's features. Its header is believed as to where the
    snapshot table is; the active state is empty."""
    raw = _first_cluster(file)
    found = Header.unpack(raw[:V3_LENGTH].ljust(V3_LENGTH, b"\0"))
    geometry = Geometry(cluster_size.bit_length() - 1, 4, 3)
    header = Header(cluster_bits=geometry.cluster_bits, size=size, l1_size=geometry.l1_entries(size))
    if found.snapshots_offset < file.size():
        header.snapshots_offset = found.snapshots_offset
        header.nb_snapshots = min(found.nb_snapshots, MAX_SNAPSHOTS)
    preamble = parse_preamble(header.pack().ljust(cluster_size, b"\0"), file.path)
    table = read_table(file, header, _MOST_ENTRY_BYTES)
    snapshots, length = decode_left(table, header, geometry, file.path)
    empty = np.zeros(header.l1_size, np.uint64)
    raw += table[:length]
    return State(file, preamble, geometry, header, Mapper(file, geometry), empty, snapshots, length, raw)


def is_unchanged(state: State) -> bool:
    """Whether the file has the header and the snapshot table that ``state`` was loaded with."""
    head = _first_cluster(state.file)
    if state.raw[: len(head)] != head:
        return False
    table = state.file.read(state.header.snapshots_offset, len(state.raw) - len(head))
    return state.raw[len(head) :] == table


def _first_cluster(file: HostFile) -> bytes:
    head = file.read(0, 512)
    bits = int.from_bytes(head[20:24], "big")
    return head + file.read(512, (1 << bits) - 512) if 9 < bits <= MAX_CLUSTER_BITS else head


def has_bitmaps(state: State) -> bool:
    """Whether there are bitmaps that are said to be consistent; others count as absent."""
    there = any(kind == EXT_BITMAPS for kind, _ in state.preamble.extensions)
    return there and bool(state.header.autoclear_features & AUTOCLEAR_BITMAPS)
