"""Changing an image.

The rule that all of this file serves: **the image on disk changes by one write, that of the header.** Between two
header writes, everything that the image on disk uses stays as it is, and what is new (data, L2 tables, L1 tables, the
snapshot table, refcount blocks, the refcount table) goes to clusters that it does not use. So a process that dies at
any moment leaves the image of its last commit: no corruption, no leaks. The one exception are guest bytes in data
clusters with a refcount of 1, which are overwritten where they are, as on any disk.

The flag OFLAG_COPIED is kept right for others; here, refcounts in memory decide.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from .errors import Qcow2Error, Qcow2UsageError
from .hostfile import Buffer
from .layout import MAX_L1_BYTES, OFFSET_MASK, OFLAG_COPIED, OFLAG_ZERO
from .mapping import COMPRESSED, COPIED, DATA, Under, data_references, hosts, kinds
from .preamble import Preamble
from .refcounts import Clusters, Refcounts
from .runs import split_runs
from .snapshot_table import Snapshot, encode_entry
from .state import State
from .tables import Entries, Slots

U64 = np.uint64
_PIECE = 1 << 14


class Writer:
    """Changes a State.

    A method that raises leaves state and refcounts consistent (of a long write, a part may be done), except where it
    says otherwise; the image on disk is that of the last commit in any case.
    """

    def __init__(self, state: State, refs: Refcounts, *, barriers: bool = False) -> None:
        self.state = state
        self.refs = refs
        self.barriers = barriers
        self._file = state.file
        self._geometry = state.geometry
        self._bits = state.geometry.cluster_bits
        self._cache = state.mapper.cache
        self._changed = self._l1_changed = self._table_changed = False
        self._rows = list(map(encode_entry, state.snapshots))
        self._table = b"".join(self._rows)
        self._copied_stale = False  # COPIED has to be set where nobody has looked

    # -- mapping

    def _own(self, index: npt.NDArray[np.int64]) -> Slots:
        """Cache slots of the L2 tables of the distinct L1 ``index``, each made fresh first (created or copied)."""
        state, refs, cache = self.state, self.refs, self._cache
        old = hosts(state.l1[index])
        exists = old != 0
        # A fresh table may belong to a snapshot as well that is not committed yet.
        stale = ~(exists & refs.fresh[old >> self._bits] & (refs.counts[old >> self._bits] == 1))
        cache.begin()
        slots = np.full(len(index), -1, np.int64)
        slots[exists] = cache.load(old[exists])
        if not stale.any():
            return slots
        new = refs.allocate(int(np.count_nonzero(stale)))
        try:
            slots[stale] = cache.create(new << self._bits, slots[stale])
        except OSError:
            refs.drop(new)
            raise
        state.l1[index[stale]] = (new << self._bits).astype(U64) | COPIED
        refs.active[new] = 1
        gone = old[stale & exists] >> self._bits
        refs.active[gone] -= 1
        refs.drop(gone)
        self._note_shared(gone)
        self._l1_changed = self._changed = True
        return slots

    def _note_shared(self, gone: Clusters) -> None:
        """``gone`` lost an entry of the active tree. Another one that has it (few images do that) may own it now."""
        if self.refs.active[gone].any():
            self._copied_stale = True

    def _grow_l1(self, entries: int) -> None:
        have = len(self.state.l1)
        if entries <= have:
            return
        if entries * 8 > MAX_L1_BYTES:
            raise Qcow2UsageError("beyond the largest L1 table (32 MiB)")
        self.state.l1 = np.concatenate([self.state.l1, np.zeros(entries - have, U64)])
        self._l1_changed = self._changed = True

    def replace_l1(self, l1: Entries) -> None:
        """Set the active L1 table; the caller has counted what came and went."""
        self.state.l1 = l1
        self._l1_changed = self._changed = True

    def drop_tables(self, first: int, last: int) -> None:
        """Empty the L1 entries first..last-1 with all that is under them."""
        state, refs = self.state, self.refs
        part = state.l1[first:last]
        if not part.any():
            return
        found = state.mapper.references(part, len(refs.counts))
        gone = np.flatnonzero(found)
        refs.subtract(gone, found[gone])
        refs.active[gone] -= found[gone].astype(refs.active.dtype)
        self._note_shared(gone)
        state.l1[first:last] = 0
        self._l1_changed = self._changed = True

    def map_clusters(self, clusters: Clusters, new: Entries) -> None:
        """Set the L2 entries of distinct guest ``clusters``; new host clusters come with a refcount of 1."""
        refs, geometry, cache = self.refs, self._geometry, self._cache
        index = clusters >> geometry.l2_bits
        column = clusters & (geometry.l2_entries - 1)
        tables, inverse = np.unique(index, return_inverse=True)
        done = np.zeros(len(clusters), bool)
        try:
            self._grow_l1(int(tables[-1]) + 1)
            for start in range(0, len(tables), cache.batch):
                part = tables[start : start + cache.batch]
                slots = self._own(part)
                mine = (inverse >= start) & (inverse < start + len(part))
                row, col = slots[inverse[mine] - start], column[mine]
                old = cache.rows[row, col]
                cache.rows[row, col] = new[mine]
                cache.mark_dirty(slots)
                self._changed = True
                gone, come = data_references(old, geometry), data_references(new[mine], geometry)
                np.subtract.at(refs.active, gone, 1)
                np.add.at(refs.active, come, 1)
                refs.drop(gone)
                self._note_shared(hosts(old[((old & COMPRESSED) == 0) & (old & U64(OFFSET_MASK) != 0)]) >> self._bits)
                done |= mine
        except BaseException:
            refs.drop(data_references(new[~done], geometry))
            raise

    def write_clusters(self, clusters: Clusters, buffers: Sequence[Buffer], empty: npt.NDArray[np.bool_]) -> None:
        """Write whole distinct guest ``clusters``; those marked ``empty`` become unallocated instead."""
        entries = self.state.mapper.entries(self.state.l1, clusters)
        host = hosts(entries)
        mine = (kinds(entries) == DATA) & ~empty
        mine[mine] = self.refs.counts[host[mine] >> self._bits] == 1
        if mine.any():
            at = np.flatnonzero(mine)
            at = at[np.argsort(host[at])]
            self._write_data(host[at], [buffers[i] for i in at.tolist()])
        at = np.flatnonzero(~mine & ~empty)
        if len(at):
            new = self.refs.allocate(len(at)) << self._bits
            try:
                self._write_data(new, [buffers[i] for i in at.tolist()])
            except BaseException:
                self.refs.drop(new >> self._bits)
                raise
            self.map_clusters(clusters[at], new.astype(U64) | COPIED)
        at = np.flatnonzero(empty & (entries != 0))
        if len(at):
            self.map_clusters(clusters[at], np.zeros(len(at), U64))

    def _write_data(self, host: npt.NDArray[np.int64], buffers: Sequence[Buffer]) -> None:
        for index, count in split_runs(host, self._geometry.cluster_size):
            self._file.write(int(host[index]), buffers[index : index + count])

    def write(self, offset: int, view: memoryview, backing: Under | None) -> None:
        """Write guest bytes; clusters written in part are completed from what was there, or from ``backing``."""
        size = self._geometry.cluster_size
        head = min(-offset % size, len(view))
        if head:
            self._patch(offset, view[:head], backing)
        whole = (len(view) - head) // size
        first = (offset + head) >> self._bits
        start, span = 0, self._geometry.l2_entries
        while start < whole:
            # One L2 table at a time can go the short way.
            count = min(span - (first + start) % span, whole - start)
            low = head + start * size
            if self._write_span(first + start, count, view[low : low + count * size]):
                start += count
                continue
            count = min(_PIECE, whole - start)
            buffers = [view[i : i + size] for i in range(low, low + count * size, size)]
            clusters = np.arange(first + start, first + start + count, dtype=np.int64)
            self.write_clusters(clusters, buffers, np.zeros(count, bool))
            start += count
        done = head + whole * size
        if done < len(view):
            self._patch(offset + done, view[done:], backing)

    def _write_span(self, first: int, count: int, view: memoryview) -> bool:
        """Write guest clusters of one L2 table, if they are all new or all in one run that is ours; else False."""
        geometry, refs, cache, l1 = self._geometry, self.refs, self._cache, self.state.l1
        index, column = first >> geometry.l2_bits, first & (geometry.l2_entries - 1)
        table = int(l1[index]) & OFFSET_MASK if index < len(l1) else 0
        slot = cache.slot(table) if table else None
        if slot is None:
            return False
        row = cache.rows[slot, column : column + count]
        if not row.any():
            if not refs.is_fresh(table) or refs.counts[table >> self._bits] != 1:
                return False
            new = refs.allocate(count)
            try:
                at = 0
                for start, length in split_runs(new):
                    part = view[at : at + (length << self._bits)]
                    self._file.write(int(new[start]) << self._bits, [part])
                    at += len(part)
            except BaseException:
                refs.drop(new)
                raise
            row[:] = (new << self._bits).astype(U64) | COPIED
            cache.mark_dirty(np.array([slot]))
            refs.active[new] = 1
            self._changed = True
            return True
        start = int(row[0]) & OFFSET_MASK
        expected = (np.arange(count, dtype=np.int64) << self._bits).astype(U64) + U64(start | OFLAG_COPIED)
        low = start >> self._bits
        if not start or (row != expected).any() or (refs.counts[low : low + count] != 1).any():
            return False
        self._file.write(start, [view])
        return True

    def _patch(self, offset: int, view: memoryview, backing: Under | None) -> None:
        """Write a part of one cluster."""
        state = self.state
        cluster, inner = offset >> self._bits, offset & (self._geometry.cluster_size - 1)
        where = np.array([cluster], np.int64)
        entries = state.mapper.entries(state.l1, where)
        host = int(hosts(entries)[0])
        if kinds(entries)[0] == DATA and self.refs.counts[host >> self._bits] == 1:
            self._file.write(host + inner, [view])
            return
        content = bytearray(self._geometry.cluster_size)
        state.mapper.read_into(state.l1, cluster << self._bits, memoryview(content), backing)
        content[inner : inner + len(view)] = view
        self.write_clusters(where, [content], np.zeros(1, bool))

    def clear(self, first: int, last: int, *, hide_backing: bool) -> None:
        """Unallocate the guest clusters first..last-1; ``hide_backing``: let them read as zeros over a backing file."""
        geometry, state = self._geometry, self.state
        if hide_backing and geometry.version < 3:
            # No flag for zeros: they are written.
            zeros = bytes(geometry.cluster_size)
            for start in range(first, last, _PIECE):
                clusters = np.arange(start, min(start + _PIECE, last), dtype=np.int64)
                self.write_clusters(clusters, [zeros] * len(clusters), np.zeros(len(clusters), bool))
            return
        if hide_backing:
            for start in range(first, last, _PIECE):
                clusters = np.arange(start, min(start + _PIECE, last), dtype=np.int64)
                entries = state.mapper.entries(state.l1, clusters)
                clusters = clusters[entries != U64(OFLAG_ZERO)]
                if len(clusters):
                    self.map_clusters(clusters, np.full(len(clusters), OFLAG_ZERO, U64))
            return
        low, high = first >> geometry.l2_bits, (last + geometry.l2_entries - 1) >> geometry.l2_bits
        for index in (np.flatnonzero(state.l1[low:high]) + low).tolist():
            start = index << geometry.l2_bits
            clusters = np.arange(max(start, first), min(start + geometry.l2_entries, last), dtype=np.int64)
            clusters = clusters[state.mapper.entries(state.l1, clusters) != 0]
            if len(clusters):
                self.map_clusters(clusters, np.zeros(len(clusters), U64))

    # -- commit

    def commit(self, *, durable: bool = False) -> None:
        """Make the present the image on disk. ``durable``: also against power loss (fdatasync)."""
        state, refs, header = self.state, self.refs, self.state.header
        durable = durable or self.barriers
        if self._copied_stale:
            self.refresh_copied()
            self._copied_stale = False
        if self._changed:
            self._cache.write()
            if self._l1_changed:
                raw = state.l1.astype(">u8").tobytes()
                old = header.l1_table_offset, header.l1_size * 8
                header.l1_table_offset, header.l1_size = self._place(raw, *old), len(state.l1)
            if self._table_changed:
                old = header.snapshots_offset, state.snapshot_table_bytes
                header.snapshots_offset = self._place(self._table, *old)
                header.nb_snapshots, state.snapshot_table_bytes = len(state.snapshots), len(self._table)
            refs.write(self._file)
            header.refcount_table_offset, header.refcount_table_clusters = refs.table_offset, refs.table_clusters
            if durable:
                self._file.sync()
            self._file.write(0, [header.pack()])
            refs.committed()
            self._changed = self._l1_changed = self._table_changed = False
        if durable:
            self._file.sync()

    def trim(self) -> None:
        """Move tables to the front and give the unused end of the file back; only right after a durable commit."""
        host = hosts(self.state.l1) >> self._bits
        high = np.flatnonzero((host >= np.count_nonzero(self.refs.counts)) & (self.refs.counts[host] == 1))
        for i in range(0, len(high), self._cache.batch):
            self._own(high[i : i + self._cache.batch])
        # The second round leaves out the refcount blocks that the first one has emptied.
        for _ in range(2):
            self._changed = self._l1_changed = True
            self._table_changed = bool(self.state.snapshots)
            self.refs.move_down()
            self.commit(durable=True)
        used = np.flatnonzero(self.refs.counts)
        end = (int(used[-1]) + 1) << self._bits
        if self._file.size() > end:
            self._file.truncate(end)

    def write_preamble(self, preamble: Preamble, raw: bytes) -> None:
        """Change the first cluster; everything else is committed.

        What is behind the first sector goes first, beside the old name of the backing file: then one sector switches.
        """
        old, new = self.state.header, preamble.header
        at, end = old.backing_file_offset, old.backing_file_offset + old.backing_file_size
        name = new.backing_file_offset, new.backing_file_offset + new.backing_file_size
        beside = bytearray(raw)
        if at >= preamble.extensions_end and not (at < name[1] and name[0] < end):
            beside[at:end] = self._file.read(at, end - at)
        for start, data in ((512, beside[512:]), (0, beside[:512]), (0, raw)):
            self._file.write(start, [data])
            self._file.sync()
        self.state.preamble, self.state.header = preamble, new

    def commit_new(self) -> None:
        """The first commit of a new image."""
        self._changed = self._l1_changed = True
        self.commit()

    def _place(self, raw: bytes, old_offset: int, old_length: int) -> int:
        """Write a table to fresh clusters, those that it has if they are; returns the offset (0: no table)."""
        refs, bits = self.refs, self._bits
        need, have = self._geometry.clusters(len(raw)), self._geometry.clusters(old_length)
        offset = old_offset
        if have != need or (have and not refs.is_fresh(old_offset)):
            offset = refs.allocate_run(need, moving=True) << bits if need else 0
        try:
            if need:
                self._file.write(offset, [raw.ljust(need << bits, b"\0")])
        except BaseException:
            if offset != old_offset:
                refs.drop_run(offset >> bits, need, moving=True)
            raise
        if offset != old_offset and have:
            refs.drop_run(old_offset >> bits, have, moving=True)
        return offset

    # -- snapshots

    def create_snapshot(self, snapshot: Snapshot, *, commit: bool) -> Snapshot:
        """Append ``snapshot`` (its L1 fields are filled in here) of the present; ``commit``: now, not later."""
        state, refs, cache = self.state, self.refs, self._cache
        table, count = self._table, len(state.snapshots)
        owned = np.flatnonzero(state.l1 & COPIED)
        start: int | None = None
        need = self._geometry.clusters(len(state.l1) * 8)
        try:
            # Everything is about to have two owners: COPIED goes first, on disk all of it changes at once.
            for i in range(0, len(owned), cache.batch):
                self._clear_copied(owned[i : i + cache.batch])
            state.l1[owned] &= ~COPIED
            refs.add_active()
            self._l1_changed = self._table_changed = self._changed = True
            try:
                start = refs.allocate_run(need)
                raw = state.l1.astype(">u8").tobytes()
                self._file.write(start << self._bits, [raw.ljust(need << self._bits, b"\0")])
                fields = {**snapshot.__dict__, "l1_offset": start << self._bits, "l1_size": len(state.l1)}
                snapshot = Snapshot(**fields)
                row = encode_entry(snapshot)
                state.append_snapshot(snapshot)
                self._rows.append(row)
                self._table += row
                if commit:
                    self.commit()
            except BaseException:
                state.put_snapshots(state.snapshots[:count])
                del self._rows[count:]
                self._table = table
                if start is not None:
                    refs.drop_run(start, need)
                refs.drop_active()
                raise
        except BaseException:
            self._copied_stale = True
            raise
        return snapshot

    def _clear_copied(self, index: npt.NDArray[np.int64]) -> None:
        cache = self._cache
        cache.begin()
        slots = cache.load(hosts(self.state.l1[index]))
        having = (cache.rows[slots] & COPIED).any(axis=1)
        if having.any():
            slots = self._own(index[having])
            cache.rows[slots] &= ~COPIED
            cache.mark_dirty(slots)

    def delete_snapshots(self, doomed: Sequence[Snapshot]) -> None:
        """Remove distinct ``state.snapshots`` and commit. After an error the state has to be loaded anew."""
        state, refs = self.state, self.refs
        # Of both arrays only the clusters in ``touched`` are ever looked at.
        tree, total = np.zeros(refs.end, np.int64), np.zeros(refs.end, np.int64)
        touched = refs.active[: refs.end] != 0
        tree[touched] = refs.active[: refs.end][touched]
        # A tree differs little from one taken near it; and the newest snapshots are nearest to the active tree.
        l1 = state.l1
        for snapshot in reversed(doomed):
            other = state.mapper.read_l1(snapshot.l1_offset, snapshot.l1_size)
            more, less = state.mapper.references_apart(other, l1, len(total))
            np.add.at(tree, more, 1)
            np.subtract.at(tree, less, 1)
            l1 = other
            first = snapshot.l1_offset >> self._bits
            last = first + self._geometry.clusters(snapshot.l1_size * 8)
            touched[more] = True
            touched[first:last] = True
            some = np.flatnonzero(touched)
            total[some] += tree[some]
            total[first:last] += 1
        some = np.flatnonzero(touched)
        if (refs.counts[some].astype(np.int64) - total[some] < refs.active[some]).any():
            raise Qcow2Error(
                f"{self._file.path}: offset {refs.table_offset}: expected refcounts as high as the references"
            )
        gone = some[total[some] > 0]
        refs.subtract(gone, total[gone])
        alone = bool(((refs.counts[gone] == 1) & (refs.active[gone] == 1)).any())
        gone_ids = set(map(id, doomed))
        self.replace_snapshots([s for s in state.snapshots if id(s) not in gone_ids])
        if alone:
            self.refresh_copied()
        self.commit()

    def replace_snapshots(self, snapshots: list[Snapshot]) -> None:
        """Set the list; the caller has counted what came and went."""
        known = {id(s): row for s, row in zip(self.state.snapshots, self._rows, strict=True)}
        self.state.put_snapshots(snapshots)
        self._rows = [known.get(id(s)) or encode_entry(s) for s in snapshots]
        self._table = b"".join(self._rows)
        self._table_changed = self._changed = True

    def apply_snapshot(self, snapshot: Snapshot) -> None:
        """Make ``snapshot`` the active content and commit. After an error the state has to be loaded anew."""
        state, refs = self.state, self.refs
        l1 = state.mapper.read_l1(snapshot.l1_offset, snapshot.l1_size)
        found = tree_references(state, l1, len(refs.counts))
        used = np.flatnonzero(found)
        refs.add(used, found[used])
        old = np.flatnonzero(refs.active)
        refs.subtract(old, refs.active[old].astype(np.int64))
        refs.active[:] = found.astype(refs.active.dtype)
        state.l1 = l1
        if snapshot.disk_size is not None:
            state.header.size = snapshot.disk_size
        self._grow_l1(max(1, self._geometry.l1_entries(state.header.size)))
        self._l1_changed = self._changed = True
        self.refresh_copied()
        self.commit()

    def refresh_copied(self) -> None:
        """Recompute OFLAG_COPIED in the active tree from the refcounts."""
        state, refs, cache = self.state, self.refs, self._cache
        index = np.flatnonzero(state.l1)
        alone = refs.counts[hosts(state.l1[index]) >> self._bits] == 1
        flagged = np.where(alone, state.l1[index] | COPIED, state.l1[index] & ~COPIED)
        if (flagged != state.l1[index]).any():
            state.l1[index] = flagged
            self._l1_changed = self._changed = True
        for i in range(0, len(index), cache.batch):
            part = index[i : i + cache.batch]
            cache.begin()
            slots = cache.load(hosts(state.l1[part]))
            rows = cache.rows[slots]
            host = hosts(rows)
            packed = (rows & COMPRESSED) != 0
            host[packed] = 0
            alone = (host != 0) & (refs.counts[host >> self._bits] == 1)
            right = np.where(alone, rows | COPIED, rows & ~COPIED)
            wrong = np.flatnonzero((right != rows).any(axis=1))
            if len(wrong):
                slots = self._own(part[wrong])
                cache.rows[slots] = right[wrong]
                cache.mark_dirty(slots)
                self._changed = True


def tree_references(state: State, l1: Entries, total: int) -> npt.NDArray[np.int64]:
    """``Mapper.references`` of a tree that is to be written.

    Raises Qcow2Error if two L1 entries share an L2 table, or a guest cluster lies on one: no writer makes that, and
    what is written through the one would show through the other.
    """
    tables = hosts(l1[l1 != 0]) >> state.geometry.cluster_bits
    ordered = np.sort(tables)
    if np.any(ordered[1:] == ordered[:-1]):
        raise Qcow2Error(f"{state.file.path}: offset 40: expected an L1 table whose entries name different L2 tables")
    found = state.mapper.references(l1, total)
    shared = tables[found[tables] != 1]
    if len(shared):
        at = int(shared[0]) << state.geometry.cluster_bits
        raise Qcow2Error(f"{state.file.path}: offset {at}: expected an L2 table that no guest cluster lies on")
    return found
