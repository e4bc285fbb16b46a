"""Walking all trees of an image that may be damaged: counts references, names bad entries, corrects them if asked."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .bitmaps import bitmap_extents
from .errors import Qcow2Error, Qcow2UnsupportedError
from .layout import MAX_CLUSTERS, OFFSET_MASK, OFLAG_ZERO
from .mapping import COMPRESSED, COPIED, DATA, ZERO, hosts, kinds, packed_extents
from .problems import CheckResult
from .refcounts import Counts
from .runs import split_runs
from .state import State
from .tables import Entries

U64 = np.uint64
_BATCH_BYTES = 16 << 20
_ALL_ZERO = U64(0xFFFF_FFFF_0000_0000)  # the bitmap of 32 subclusters that read as zeros

References = npt.NDArray[np.int64]


class Scan:
    """Adds up ``references`` to the clusters of the file and reports to ``result``.

    ``fix``: correct what is wrong in place. An entry is a part of one sector, so that each single correction is there
    or not. Bad L1 entries become empty, bad L2 entries read as zeros, as ``qemu-img check -r all`` leaves them.
    """

    def __init__(self, state: State, result: CheckResult, *, fix: bool = False) -> None:
        self._state = state
        self._file = state.file
        self._geometry = state.geometry
        self._bits = state.geometry.cluster_bits
        self._result = result
        self._fix = fix
        self._total = state.geometry.clusters(state.file.size())
        if self._total > MAX_CLUSTERS:
            raise Qcow2UnsupportedError(
                f"{state.file.path}: offset 0: more than {MAX_CLUSTERS} clusters of file are not supported"
            )
        self.references: References = np.zeros(self._total, np.int64)
        self._tables = np.zeros(self._total, bool)  # what guest clusters must not lie on
        self._batch = max(1, _BATCH_BYTES >> self._bits)

    def table(self, offset: int, length: int) -> None:
        """One reference to each cluster of a contiguous table."""
        first, count = offset >> self._bits, self._geometry.clusters(length)
        if first + count > self._total:
            self._result.corruption(f"offset {offset}: a table of {length} bytes leaves the file")
        self.references[first : first + count] += 1

    def trees(self, l1_tables: list[tuple[int, Entries]]) -> list[Entries]:
        """Walk the trees of (offset, L1 table) pairs; returns the L1 tables as they are now. ``table`` comes first.

        One walk for all: most L2 tables are shared, and a table counts once for each L1 entry that names it.
        """
        self._tables = self.references > 0
        good = [self._l1(offset, l1) for offset, l1 in l1_tables]
        for (offset, old), new in zip(l1_tables, good, strict=True):
            if self._fix and (old != new).any():
                self._file.write(offset, [new.astype(">u8").tobytes()])
        every = np.concatenate([hosts(l1) for l1 in good]) if good else np.zeros(0, np.int64)
        tables, times = np.unique(every[every != 0], return_counts=True)
        self.references[tables >> self._bits] += times
        self._tables[tables >> self._bits] = True
        for start in range(0, len(tables), self._batch):
            part = slice(start, start + self._batch)
            self._l2(tables[part], times[part])
        return good

    def _l1(self, offset: int, l1: Entries) -> Entries:
        host = hosts(l1)
        outside = (host & (self._geometry.cluster_size - 1) != 0) | (host >> self._bits >= self._total)
        inside = ~outside & (host != 0)
        outside[inside] |= self._tables[host[inside] >> self._bits]
        # Two entries with one L2 table: a write through the one would show through the other. The first one stays.
        _, first = np.unique(host, return_index=True)
        again = host != 0
        again[first] = False
        outside |= again | ((host == 0) & (l1 != 0))
        bad = ((l1 & U64(self._geometry.l1_invalid)) != 0) | outside
        for index in np.flatnonzero(bad).tolist():
            self._result.corruption(f"offset {offset + 8 * index}: a bad L1 entry ({int(l1[index]):#x})")
        return np.where(outside, U64(0), l1 & ~U64(self._geometry.l1_invalid))

    def _read(self, tables: npt.NDArray[np.int64]) -> Entries:
        size = self._geometry.cluster_size
        rows = np.zeros((len(tables), size >> 3), U64)
        for index, count in split_runs(tables, size):
            if self._file.is_hole(int(tables[index]), count * size):
                continue
            raw = self._file.read(int(tables[index]), count * size).ljust(count * size, b"\0")
            rows[index : index + count] = np.frombuffer(raw, ">u8").reshape(count, -1)
        return rows

    def _l2(self, tables: npt.NDArray[np.int64], times: npt.NDArray[np.int64]) -> None:
        geometry = self._geometry
        rows = self._read(tables)
        step = 1 + geometry.extended
        entries = rows[:, ::step].copy()
        bitmaps = rows[:, 1::2].copy() if geometry.extended else np.zeros_like(entries)
        bad = self._correct(entries, bitmaps)
        wrong = (entries != rows[:, ::step]) | bad
        if geometry.extended:
            wrong |= bitmaps != rows[:, 1::2]
        for row in np.flatnonzero(wrong.any(axis=1)).tolist():
            count = int(np.count_nonzero(wrong[row]))
            self._result.corruption(f"L2 table at offset {tables[row]}: {count} bad entries", count)
            if self._fix:
                rows[row, ::step] = entries[row]
                if geometry.extended:
                    rows[row, 1::2] = bitmaps[row]
                self._file.write(int(tables[row]), [rows[row].astype(">u8").tobytes()])
        self._count(entries, times)

    def _correct(self, entries: Entries, bitmaps: Entries) -> npt.NDArray[np.bool_]:
        """Replace what is wrong; returns the clusters that were given up."""
        geometry = self._geometry
        packed = (entries & COMPRESSED) != 0
        host = entries & U64(OFFSET_MASK)
        bad: npt.NDArray[np.bool_] = ~packed & ((host & U64(geometry.cluster_size - 1)) != 0)
        if geometry.data_file:
            bad |= packed
        else:
            bad |= ~packed & ((host >> U64(self._bits)) >= U64(self._total))
            inside = ~packed & ~bad & (host != 0)
            bad[inside] |= self._tables[hosts(entries[inside]) >> self._bits]
        first, last = packed_extents(entries[packed], self._bits)
        # The length is an upper bound: bytes of a table may lie behind the compressed ones, but not at their start.
        bad[packed] |= (last >= self._total) | self._tables[np.minimum(first, self._total - 1)]
        entries[packed] &= ~COPIED
        entries[~packed] &= ~U64(geometry.entry_invalid) | U64(OFFSET_MASK)
        if geometry.extended:
            present, zero = bitmaps & U64(0xFFFF_FFFF), bitmaps >> U64(32)
            without = (host == 0) & ((entries & COPIED) == 0 if geometry.data_file else True)
            bad |= ~packed & (((present & zero) != 0) | ((present != 0) & without))
            bitmaps[packed] = 0
            bitmaps[bad] = _ALL_ZERO
        cleared = OFLAG_ZERO if geometry.version >= 3 and not geometry.extended else 0
        entries[bad] = cleared
        return bad

    def _count(self, entries: Entries, times: npt.NDArray[np.int64]) -> None:
        packed = (entries & COMPRESSED) != 0
        weights = np.broadcast_to(times[:, None], entries.shape)
        if not self._geometry.data_file:
            host = hosts(entries) >> self._bits
            plain = ~packed & (host != 0)
            np.add.at(self.references, host[plain], weights[plain])
        first, last = packed_extents(entries[packed], self._bits)
        weight = weights[packed]
        for k in range(3):
            there = last >= first + k
            np.add.at(self.references, (first + k)[there], weight[there])

    def copied(self, l1_offset: int, l1: Entries, counts: Counts) -> None:
        """OFLAG_COPIED in the active tree must be set exactly where the refcount is 1. Adds the figures of the disk."""
        bits = self._bits
        index = np.flatnonzero(hosts(l1))
        where = hosts(l1[index])
        single = counts[where >> bits] == 1
        wrong = index[single != ((l1[index] & COPIED) != 0)]
        for entry in wrong.tolist():
            self._result.corruption(f"L1 entry {entry}: OFLAG_COPIED does not fit the refcount of the L2 table")
        if self._fix and len(wrong):
            l1[wrong] ^= COPIED
            self._file.write(l1_offset, [l1.astype(">u8").tobytes()])
        tables = np.unique(where)
        step = 1 + self._geometry.extended
        for i in range(0, len(tables), self._batch):
            part = tables[i : i + self._batch]
            rows = self._read(part)
            entries = rows[:, ::step]
            self._figures(entries)
            if self._geometry.data_file:
                continue
            host = hosts(entries) >> bits
            host[((entries & COMPRESSED) != 0) | (host >= len(counts))] = 0
            bad = (host != 0) & ((counts[host] == 1) != ((entries & COPIED) != 0))
            for row in np.flatnonzero(bad.any(axis=1)).tolist():
                count = int(np.count_nonzero(bad[row]))
                text = f"L2 table at offset {part[row]}: {count} entries whose OFLAG_COPIED does not fit the refcount"
                self._result.corruption(text, count)
                if self._fix:
                    rows[row, ::step] = np.where(bad[row], entries[row] ^ COPIED, entries[row])
                    self._file.write(int(part[row]), [rows[row].astype(">u8").tobytes()])

    def _figures(self, entries: Entries) -> None:
        """Add what whole L2 tables of the active tree hold, as ``qemu-img check`` counts it: table by table."""
        packed = np.count_nonzero(entries & COMPRESSED)
        kind = kinds(entries, data_file=self._geometry.data_file)
        table, column = np.nonzero((kind == DATA) | ((kind == ZERO) & (hosts(entries) != 0)))
        host = hosts(entries[table, column])
        apart = (np.diff(host) != self._geometry.cluster_size) & (np.diff(table) == 0)
        self._result.allocated_clusters += len(host) + int(packed)
        self._result.fragmented_clusters += int(np.count_nonzero(apart)) + int(packed)
        self._result.compressed_clusters += int(packed)


def scan_all(state: State, result: CheckResult, *, fix: bool = False) -> tuple[Scan, Entries]:
    """Count everything but the refcount structures; returns the scan and the active L1 table as it is now."""
    header = state.header
    scan = Scan(state, result, fix=fix)
    scan.table(0, state.geometry.cluster_size)
    scan.table(header.l1_table_offset, header.l1_size * 8)
    scan.table(header.snapshots_offset, state.snapshot_table_bytes)
    for offset, length in bitmap_extents(state):
        scan.table(offset, length)
    trees = [(header.l1_table_offset, state.l1)]
    # L1 tables that overlap are no work of any writer; without this bound they would cost time without end.
    if sum(snapshot.l1_size * 8 for snapshot in state.snapshots) > state.file.size():
        result.corruption("the L1 tables of the snapshots are larger than the file")
    else:
        for snapshot in state.snapshots:
            scan.table(snapshot.l1_offset, snapshot.l1_size * 8)
            try:
                l1 = state.mapper.read_l1(snapshot.l1_offset, snapshot.l1_size, strict=False)
            except Qcow2Error as error:
                result.corruption(f"snapshot {snapshot.id}: {error}")
            else:
                trees.append((snapshot.l1_offset, l1))
    return scan, scan.trees(trees)[0]
