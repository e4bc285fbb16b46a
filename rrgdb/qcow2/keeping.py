"""Keeping what snapshots read through to the backing file, before what is there changes.

QEMU lets snapshots of an overlay change when the overlay is committed or rebased. Here they get what they would lose
as clusters of their own: each cluster is stored once, whatever the number of snapshots that see it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from .backing import Backing
from .errors import Qcow2Error
from .layout import OFLAG_ZERO
from .mapping import UNALLOCATED, hosts, kinds
from .runs import split_runs
from .tables import Entries
from .writer import Writer

U64 = np.uint64
Mask = npt.NDArray[np.bool_]
Changes = Callable[[int, npt.NDArray[np.uint8]], Mask]
"""Which of the clusters from an offset on will read differently, of those that read as these rows now."""
Clusters = Iterable[tuple[int, int]]

_PIECE = 4 << 20


def keep_for_snapshots(writer: Writer, ranges: Clusters, below: Backing | None, changes: Changes) -> None:
    """Give all snapshots what they read from ``below`` in the guest clusters first..last-1 of ``ranges``, and commit.

    After an error the state has to be loaded anew. Raises Qcow2Error if a refcount cannot count the snapshots.
    """
    keeper = _Keeper(writer, below, changes)
    for first, last in ranges:
        keeper.keep(first, last)
    keeper.finish()


class _Keeper:
    """``_l1`` holds the L1 tables as they will be; ``_made`` the L2 tables made here, with their owners."""

    def __init__(self, writer: Writer, below: Backing | None, changes: Changes) -> None:
        self._writer = writer
        self._refs = writer.refs
        self._state = writer.state
        self._geometry = writer.state.geometry
        self._bits = writer.state.geometry.cluster_bits
        self._below = below
        self._changes = changes
        read = writer.state.mapper.read_l1
        self._l1 = [read(s.l1_offset, s.l1_size).copy() for s in self._state.snapshots]
        self._ends = [self._geometry.clusters(s.disk_size or 0) for s in self._state.snapshots]
        self._made: dict[int, int] = {}
        self._changed: set[int] = set()

    def keep(self, first: int, last: int) -> None:
        """Guest clusters first..last-1, one piece of an L2 table after the other."""
        geometry = self._geometry
        step = max(_PIECE >> self._bits, 1)
        while first < min(last, max(self._ends, default=0)):
            stop = min(last, first + step, ((first >> geometry.l2_bits) + 1) << geometry.l2_bits)
            self._piece(first, stop)
            first = stop

    def _piece(self, low: int, high: int) -> None:
        # Snapshots with the same table lack the same clusters; most have it in common with their neighbours.
        groups: dict[tuple[int, int], list[int]] = {}
        index = low >> self._geometry.l2_bits
        for number, (l1, end) in enumerate(zip(self._l1, self._ends, strict=True)):
            if low < end:
                groups.setdefault((int(hosts(l1[index])), min(high, end)), []).append(number)
        missing = {key: self._missing(*key, low, high) for key in groups}
        wanted = np.zeros(high - low, bool)
        for mask in missing.values():
            wanted |= mask
        if not wanted.any():
            return
        content = self._read(low, wanted)
        rows = np.frombuffer(content, np.uint8).reshape(high - low, -1)
        wanted &= self._changes(low << self._bits, rows)
        entries, stored = self._store(content, wanted, wanted & rows.any(axis=1))
        owners = np.zeros(high - low, np.int64)
        for key, members in groups.items():
            mask = missing[key] & wanted
            if mask.any():
                self._patch(index, key[0], members, low, mask, entries)
                owners[mask] += len(members)
        host = hosts(entries[stored]) >> self._bits
        order = np.argsort(host)
        more = (owners[stored] - 1)[order]
        shared = more > 0
        self._refs.add(host[order][shared], more[shared])

    def _missing(self, table: int, end: int, low: int, high: int) -> Mask:
        """Which of the guest clusters low..high-1 the L2 table at host offset ``table`` lacks, below ``end``."""
        mask = np.zeros(high - low, bool)
        mask[: end - low] = True
        if table:
            cache, column = self._state.mapper.cache, low & (self._geometry.l2_entries - 1)
            cache.begin()
            slot = cache.load(np.array([table]))[0]
            mask &= kinds(cache.rows[slot, column : column + high - low]) == UNALLOCATED
        return mask

    def _read(self, low: int, wanted: Mask) -> bytearray:
        """The ``wanted`` guest clusters from ``low`` on as they read below; zeros for the others."""
        content = bytearray(len(wanted) << self._bits)
        at = np.flatnonzero(wanted)
        if self._below is None:
            return content
        for index, count in split_runs(at):
            start = int(at[index])
            part = memoryview(content)[start << self._bits : (start + count) << self._bits]
            self._below.read_into((low + start) << self._bits, part)
        return content

    def _store(self, content: bytearray, wanted: Mask, filled: Mask) -> tuple[Entries, Mask]:
        """L2 entries for the ``wanted`` clusters, of which some are ``filled``; and which have a host cluster."""
        entries = np.zeros(len(wanted), U64)
        stored = filled if self._geometry.version >= 3 else wanted
        entries[wanted] = OFLAG_ZERO
        at = np.flatnonzero(stored)
        new = self._refs.allocate(len(at)) << self._bits
        view = memoryview(content)
        for index, count in split_runs(new, self._geometry.cluster_size):
            part = at[index : index + count].tolist()
            self._state.file.write(int(new[index]), [view[i << self._bits : (i + 1) << self._bits] for i in part])
        entries[at] = new.astype(U64)
        return entries, stored

    def _patch(self, index: int, table: int, members: list[int], low: int, mask: Mask, entries: Entries) -> None:
        """Put ``entries`` where ``mask`` says into the table of the snapshots ``members``, a new one if need be."""
        cache, refs = self._state.mapper.cache, self._refs
        cache.begin()
        slots = cache.load(np.array([table])) if table else np.array([-1])
        if self._made.get(table) != len(members):
            new = refs.allocate(1)
            slots = cache.create(new << self._bits, slots)
            refs.add(new, np.array([len(members) - 1]))
            self._leave(table, len(members))
            table = int(new[0]) << self._bits
            self._made[table] = len(members)
            for number in members:
                self._l1[number][index] = table
            self._changed.update(members)
        column = low & (self._geometry.l2_entries - 1)
        cache.rows[slots[0], column : column + len(mask)][mask] = entries[mask]
        cache.mark_dirty(slots)

    def _leave(self, table: int, owners: int) -> None:
        """So many snapshots give up an L2 table; what it refers to has gone with them to the new one."""
        if not table:
            return
        cluster = np.array([table >> self._bits])
        self._refs.subtract(cluster, np.array([owners]))
        if (self._refs.counts[cluster] < self._refs.active[cluster]).any():
            path, at = self._state.file.path, self._refs.table_offset
            raise Qcow2Error(f"{path}: offset {at}: expected refcounts as high as the references")
        if table in self._made:
            self._made[table] -= owners

    def finish(self) -> None:
        """Write the L1 tables that changed, and commit."""
        if not self._changed:
            return
        snapshots = list(self._state.snapshots)
        for number in sorted(self._changed):
            old = snapshots[number]
            raw = self._l1[number].astype(">u8").tobytes()
            count = self._geometry.clusters(len(raw))
            start = self._refs.allocate_run(count)
            self._state.file.write(start << self._bits, [raw.ljust(count << self._bits, b"\0")])
            self._refs.drop_run(old.l1_offset >> self._bits, count)
            snapshots[number] = replace(old, l1_offset=start << self._bits)
        self._writer.replace_snapshots(snapshots)
        self._writer.refresh_copied()
        self._writer.commit(durable=True)


def changes_all(_: int, rows: npt.NDArray[np.uint8]) -> Mask:
    """For ``Changes``: nothing is known of what will be there."""
    return np.ones(len(rows), bool)


def differing_from(other: Backing | None) -> Changes:
    """For ``Changes``: the clusters that read differently from ``other``."""

    def unequal(offset: int, rows: npt.NDArray[np.uint8]) -> Mask:
        content = bytearray(rows.size)
        if other is not None:
            other.read_into(offset, memoryview(content))
        found: Mask = (np.frombuffer(content, np.uint8).reshape(rows.shape) != rows).any(axis=1)
        return found

    return unequal


def whole_clusters(extents: Iterable[tuple[int, int]], bits: int) -> Iterator[tuple[int, int]]:
    """(first, last) of the clusters that ascending (offset, length) touch, each once."""
    done = 0
    for offset, length in extents:
        first = max(offset >> bits, done)
        last = -(-(offset + length) >> bits)
        if first < last:
            yield first, last
            done = last
