"""Refcounts and the allocation of host clusters.

All refcounts live in one numpy array; only refcount blocks that changed are written, and always to clusters that the
image on disk does not use: the header write switches to them (see ``image.py``). Beside them ``active`` counts the
references from the active L1/L2 tree alone, so that a snapshot raises all refcounts with one vector addition.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .errors import Qcow2Error, Qcow2UnsupportedError
from .hostfile import HostFile
from .layout import MAX_CLUSTERS, Geometry, Header
from .runs import FreeRuns, split_runs

Clusters = npt.NDArray[np.int64]
Counts = npt.NDArray[np.unsignedinteger]

# Shorter holes than this split writes too much; single clusters fill them.
_SHORTEST_RUN = 16


def count_dtype(bits: int) -> type[np.unsignedinteger]:
    """The type that holds refcounts of ``bits`` bits in memory."""
    if bits <= 16:
        return np.uint16
    return np.uint32 if bits == 32 else np.uint64


def unpack_block(raw: bytes, bits: int) -> Counts:
    """The refcounts of one or more refcount blocks."""
    if bits >= 8:
        return np.frombuffer(raw, f">u{bits // 8}").astype(count_dtype(bits))
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    octets = np.frombuffer(raw, np.uint8)
    return ((octets[:, None] >> shifts) & ((1 << bits) - 1)).reshape(-1).astype(np.uint16)


def pack_block(counts: Counts, bits: int) -> bytes:
    """The inverse of ``unpack_block``."""
    if bits >= 8:
        return counts.astype(f">u{bits // 8}").tobytes()
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    parts = counts.astype(np.uint8).reshape(-1, 8 // bits) << shifts
    packed: npt.NDArray[np.uint8] = np.bitwise_or.reduce(parts, axis=1).astype(np.uint8)
    return packed.tobytes()


def read_refcount_table(file: HostFile, header: Header, geometry: Geometry) -> npt.NDArray[np.uint64]:
    """Offsets of the refcount blocks up to the last one that exists. Raises Qcow2Error."""
    length = header.refcount_table_clusters << geometry.cluster_bits
    raw = file.read_exact(header.refcount_table_offset, length, "the refcount table")
    table = np.frombuffer(raw, ">u8").astype(np.uint64)
    used = np.flatnonzero(table)
    table = table[: int(used[-1]) + 1] if len(used) else table[:0]
    if (table & np.uint64(geometry.cluster_size - 1)).any() or (table >> np.uint64(63)).any():
        raise Qcow2Error(f"{file.path}: offset {header.refcount_table_offset}: expected refcount blocks on clusters")
    # Blocks far behind the end of the file describe nothing, but would cost memory.
    if len(table) << geometry.block_bits > 2 * geometry.clusters(file.size()) + (4 << geometry.block_bits):
        at = header.refcount_table_offset + 8 * (len(table) - 1)
        raise Qcow2Error(f"{file.path}: offset {at}: expected refcount blocks for clusters inside the file")
    if len(table) << geometry.block_bits > MAX_CLUSTERS + (1 << geometry.block_bits):
        raise Qcow2UnsupportedError(
            f"{file.path}: offset {header.refcount_table_offset}: more than {MAX_CLUSTERS} clusters are not supported"
        )
    return table


def read_counts(file: HostFile, table: npt.NDArray[np.uint64], geometry: Geometry) -> Counts:
    """The refcounts of all blocks in ``table``. Raises Qcow2Error for a block outside of the file."""
    counts = np.zeros(len(table) << geometry.block_bits, count_dtype(geometry.refcount_bits))
    rows = counts.reshape(-1, 1 << geometry.block_bits)
    present = np.flatnonzero(table)
    offsets = table[present].astype(np.int64)
    for index, count in split_runs(offsets, geometry.cluster_size):
        raw = file.read_exact(int(offsets[index]), count << geometry.cluster_bits, "refcount blocks")
        rows[present[index : index + count]] = unpack_block(raw, geometry.refcount_bits).reshape(count, -1)
    return counts


class Refcounts:
    """Refcounts in memory, and what the next header write makes of them.

    A cluster is *fresh* if it was allocated since the last header write: nothing on disk refers to it, so it may be
    written in place. A cluster that the image on disk uses and that was freed since is *held*: not given out again
    before the next header write.
    """

    def __init__(self, path: str, geometry: Geometry, table: npt.NDArray[np.uint64], counts: Counts) -> None:
        self._path = path
        self._geometry = geometry
        self._bits = geometry.block_bits
        self.max = (1 << geometry.refcount_bits) - 1
        self.table = table
        self.counts = counts
        self.active: Counts = np.zeros_like(counts)
        self.fresh = np.zeros(len(counts), bool)
        self.dirty = np.zeros(len(table), bool)
        used = np.flatnonzero(counts)
        self.end = int(used[-1]) + 1 if len(used) else 0
        self._ceiling = int(counts.max(initial=1))  # no refcount is above
        self._free = FreeRuns()
        self._free.add(np.flatnonzero(counts[: self.end] == 0))
        # Tables that every commit moves use the same clusters in turn, instead of ever new ones between the data.
        self._spare = FreeRuns()
        self._held: list[Clusters] = []
        self._held_spare: list[Clusters] = []
        self._fresh_list: list[Clusters] = []
        self.table_offset = 0
        self.table_clusters = 0
        self.tail = 0  # see ``set_tail``
        self.fill_holes = False
        self._low = False  # tables go where they fit first

    # -- allocation

    def allocate_run(self, length: int, *, moving: bool = False) -> int:
        """``length`` contiguous clusters with refcount 1; returns the first. ``moving``: for what commits move."""
        start = (self._free if self._low or not moving else self._spare).take(length)
        if start is None and moving:
            # Room to grow, so that the next commits find one run as well.
            slack = length // 2
            start = self._free.take(length + slack) if self.fill_holes else None
            if start is None:
                start = self._extend(length + slack)
            self._spare.add(np.arange(start + length, start + length + slack, dtype=np.int64))
        elif start is None:
            start = self._extend(length)
        self._claim(np.arange(start, start + length, dtype=np.int64))
        return start

    def allocate(self, length: int) -> Clusters:
        """``length`` clusters with refcount 1 in few ascending runs."""
        parts: list[Clusters] = []
        left = length
        while left:
            run = self._free.take_some(left, 1 if self.fill_holes else min(left, _SHORTEST_RUN))
            if run is None:
                run = self._extend(left), left
            parts.append(np.arange(run[0], run[0] + run[1], dtype=np.int64))
            left -= run[1]
        clusters = np.concatenate(parts) if parts else np.zeros(0, np.int64)
        self._claim(clusters)
        return clusters

    def _extend(self, length: int) -> int:
        start, self.end = self.end, self.end + length
        if self.end > MAX_CLUSTERS:
            self.end = start
            raise Qcow2UnsupportedError(f"{self._path}: offset 0: more than {MAX_CLUSTERS} clusters are not supported")
        if self.end > len(self.counts):
            blocks = (max(self.end, 2 * len(self.counts)) >> self._bits) + 1
            more = (blocks << self._bits) - len(self.counts)
            self.counts = np.concatenate([self.counts, np.zeros(more, self.counts.dtype)])
            self.active = np.concatenate([self.active, np.zeros(more, self.counts.dtype)])
            self.fresh = np.concatenate([self.fresh, np.zeros(more, bool)])
            more = blocks - len(self.table)
            self.table = np.concatenate([self.table, np.zeros(more, np.uint64)])
            self.dirty = np.concatenate([self.dirty, np.zeros(more, bool)])
        return start

    def set_tail(self, offset: int) -> None:
        """Remember where compressed clusters end, until the cluster in which that is belongs to somebody else."""
        self.tail = offset if offset & (self._geometry.cluster_size - 1) else 0

    def _claim(self, clusters: Clusters) -> None:
        if self.tail and (clusters == self.tail >> self._geometry.cluster_bits).any():
            self.tail = 0
        self.counts[clusters] = 1
        self.fresh[clusters] = True
        self._fresh_list.append(clusters)
        self.dirty[clusters >> self._bits] = True

    def is_fresh(self, offset: int) -> bool:
        """Whether the cluster at host ``offset`` was allocated since the last header write."""
        return bool(self.fresh[offset >> self._geometry.cluster_bits])

    # -- counting

    def drop(self, clusters: Clusters, *, moving: bool = False) -> None:
        """Take one reference for each element of ``clusters`` away. Raises Qcow2Error if there are fewer."""
        unique, times = np.unique(clusters, return_counts=True)
        self.subtract(unique, times, moving=moving)

    def drop_run(self, start: int, length: int, *, moving: bool = False) -> None:
        """The inverse of ``allocate_run``."""
        self.drop(np.arange(start, start + length, dtype=np.int64), moving=moving)

    def subtract(self, clusters: Clusters, times: npt.NDArray[np.int64], *, moving: bool = False) -> None:
        """Take ``times[i]`` references of the distinct, ascending ``clusters[i]`` away."""
        if not len(clusters):
            return
        if int(clusters[-1]) >= len(self.counts) or (self.counts[clusters].astype(np.int64) < times).any():
            raise Qcow2Error(f"{self._path}: offset {self.table_offset}: expected refcounts as high as the references")
        left = self.counts[clusters] - times.astype(self.counts.dtype)
        self.counts[clusters] = left
        self.dirty[clusters >> self._bits] = True
        gone = clusters[left == 0]
        if len(gone):
            fresh = self.fresh[gone]
            if fresh.any():
                self.fresh[gone] = False
                (self._spare if moving else self._free).add(gone[fresh])
            if not fresh.all():
                (self._held_spare if moving else self._held).append(gone[~fresh])

    def add(self, clusters: Clusters, times: npt.NDArray[np.int64]) -> None:
        """Add ``times[i]`` references to the distinct, ascending ``clusters[i]``."""
        if not len(clusters):
            return
        if int(clusters[-1]) >= len(self.counts) or not self.counts[clusters].all():
            raise Qcow2Error(f"{self._path}: offset {self.table_offset}: expected refcounts above 0 of clusters in use")
        if int(self.counts[clusters].max()) + int(times.max()) > self.max:
            raise Qcow2Error(f"{self._path}: offset {self.table_offset}: refcounts above {self.max} do not fit")
        self.counts[clusters] += times.astype(self.counts.dtype)
        self._ceiling += int(times.max())
        self.dirty[clusters >> self._bits] = True

    def add_active(self) -> None:
        """One more reference for everything in the active tree. Raises Qcow2Error if a refcount would not fit."""
        top = int(self.active.max(initial=0))
        if self._ceiling + top > self.max:
            self._ceiling = int(self.counts.max(initial=0))
            if int(self.counts[self.active > 0].max(initial=0)) + top > self.max:
                raise Qcow2Error(f"{self._path}: offset {self.table_offset}: refcounts above {self.max} do not fit")
        self.counts[: self.end] += self.active[: self.end]
        self._ceiling += top
        self._dirty_active()

    def drop_active(self) -> None:
        """Take one reference away from everything in the active tree; used clusters keep at least one."""
        self.counts[: self.end] -= self.active[: self.end]
        self._dirty_active()

    def _dirty_active(self) -> None:
        blocks = (self.end + (1 << self._bits) - 1) >> self._bits
        rows = self.active[: blocks << self._bits].reshape(blocks, -1)
        self.dirty[:blocks] |= rows.any(axis=1)

    # -- to disk

    def write(self, file: HostFile) -> None:
        """Write what changed to fresh clusters; table_offset and table_clusters are then what the header needs."""
        geometry = self._geometry
        if not self.dirty.any():
            return
        self._relocate()
        blocks = np.flatnonzero(self.dirty)
        offsets = self.table[blocks].astype(np.int64)
        order = np.argsort(offsets)
        blocks, offsets = blocks[order], offsets[order]
        rows = self.counts.reshape(-1, 1 << self._bits)
        for index, count in split_runs(offsets, geometry.cluster_size):
            part = blocks[index : index + count]
            file.write(int(offsets[index]), [pack_block(rows[part].reshape(-1), geometry.refcount_bits)])
        raw = self.table[: self._blocks()].astype(">u8").tobytes()
        file.write(self.table_offset, [raw.ljust(self.table_clusters << geometry.cluster_bits, b"\0")])
        self.dirty[:] = False

    def _blocks(self) -> int:
        return int(np.flatnonzero(self.table)[-1]) + 1

    def _relocate(self) -> None:
        """Give all dirty blocks and the table fresh clusters. That changes refcounts, so go on until nothing moves."""
        bits = self._geometry.cluster_bits
        while True:
            stale = np.flatnonzero(self.dirty)
            where = (self.table[stale] >> np.uint64(bits)).astype(np.int64)
            stale = stale[(where == 0) | ~self.fresh[where]]
            if len(stale):
                old = (self.table[stale] >> np.uint64(bits)).astype(np.int64)
                start = self.allocate_run(len(stale), moving=True)
                new = np.arange(start, start + len(stale), dtype=np.uint64)
                self.table[stale] = new << np.uint64(bits)
                self.drop(old[old != 0], moving=True)
                continue
            need = self._geometry.clusters(8 * self._blocks())
            if self.table_clusters == need and self.is_fresh(self.table_offset):
                return
            start = self.allocate_run(need, moving=True)
            if self.table_clusters:
                self.drop_run(self.table_offset >> bits, self.table_clusters, moving=True)
            self.table_offset, self.table_clusters = start << bits, need

    def move_down(self) -> None:
        """Let the next commit move all refcount blocks and the table to where they fit first; empty blocks go."""
        self._low = True
        empty = (self.table != 0) & ~self.counts.reshape(len(self.table), -1).any(axis=1)
        gone = (self.table[empty] >> np.uint64(self._geometry.cluster_bits)).astype(np.int64)
        self.table[empty] = 0
        self.dirty[empty] = False
        self.drop(gone, moving=True)
        self.dirty |= self.table != 0

    def committed(self) -> None:
        """The header now points to what was written: held clusters become free, nothing is fresh."""
        for clusters in self._fresh_list:
            self.fresh[clusters] = False
        self._fresh_list.clear()
        self._low = False
        for held, runs in ((self._held, self._free), (self._held_spare, self._spare)):
            if held:
                runs.add(np.sort(np.concatenate(held)))
                held.clear()
