"""From guest offsets to host clusters: walking L1/L2 trees and reading through them.

A tree is given by its L1 table (uint64, host byte order). The active tree and those of all snapshots are read alike.
"""

from __future__ import annotations

import zlib
from typing import Protocol

import numpy as np
import numpy.typing as npt

from .errors import Qcow2Error
from .hostfile import HostFile
from .layout import OFFSET_MASK, OFLAG_COMPRESSED, OFLAG_COPIED, OFLAG_ZERO, Geometry
from .refcounts import Clusters
from .tables import Entries, TableCache

U64 = np.uint64
_OFFSET, _ZERO = U64(OFFSET_MASK), U64(OFLAG_ZERO)
COPIED, COMPRESSED = U64(OFLAG_COPIED), U64(OFLAG_COMPRESSED)

UNALLOCATED, ZERO, DATA, PACKED = 0, 1, 2, 3

# Clusters looked up at once by a long read: bounds the memory of the lookup.
_PIECE = 1 << 16


class Backing(Protocol):
    """What is under an overlay."""

    @property
    def size(self) -> int: ...

    def read_into(self, offset: int, view: memoryview) -> None: ...

    def close(self) -> None: ...


def hosts(entries: Entries) -> npt.NDArray[np.int64]:
    """The host offsets of L1 entries or of standard L2 entries."""
    return (entries & _OFFSET).astype(np.int64)


def kinds(entries: Entries) -> npt.NDArray[np.uint8]:
    """UNALLOCATED, ZERO (the flag, with or without a host cluster), DATA or PACKED (compressed) for each entry."""
    kind = np.where((entries & _OFFSET) != 0, np.uint8(DATA), np.uint8(UNALLOCATED))
    kind[(entries & _ZERO) != 0] = ZERO
    kind[(entries & COMPRESSED) != 0] = PACKED
    return kind


def packed_extent(entry: int, geometry: Geometry) -> tuple[int, int]:
    """(host offset, most bytes) of the compressed cluster that ``entry`` describes."""
    x = 62 - (geometry.cluster_bits - 8)
    offset = entry & ((1 << x) - 1)
    sectors = ((entry >> x) & ((1 << (geometry.cluster_bits - 8)) - 1)) + 1
    return offset, sectors * 512 - (offset & 511)


def data_references(entries: Entries, geometry: Geometry) -> Clusters:
    """Host clusters that L2 ``entries`` refer to, one element for each reference."""
    packed = (entries & COMPRESSED) != 0
    plain = hosts(entries[~packed])
    clusters: Clusters = plain[plain != 0] >> geometry.cluster_bits
    if not packed.any():
        return clusters
    more: list[int] = []
    for entry in entries[packed].tolist():
        offset, length = packed_extent(entry, geometry)
        more += range(offset >> geometry.cluster_bits, ((offset + length - 1) >> geometry.cluster_bits) + 1)
    return np.concatenate([clusters, np.array(more, np.int64)])


class Mapper:
    """Looks up and reads. Raises Qcow2Error when a table or a cluster is not where the format allows it."""

    def __init__(self, file: HostFile, geometry: Geometry) -> None:
        self.file = file
        self.geometry = geometry
        self.cache = TableCache(file, geometry)

    def read_l1(self, offset: int, size: int) -> Entries:
        """The ``size`` entries of an L1 table."""
        if size == 0:
            return np.zeros(0, U64)
        l1 = np.frombuffer(self.file.read_exact(offset, size * 8, "an L1 table"), ">u8").astype(U64)
        bad = np.flatnonzero(l1 & U64(self.geometry.l1_invalid))
        if len(bad):
            at = offset + 8 * int(bad[0])
            raise Qcow2Error(f"{self.file.path}: offset {at}: expected an L1 entry without reserved bits")
        return l1

    def entries(self, l1: Entries, clusters: Clusters) -> Entries:
        """The L2 entries of guest ``clusters``; 0 where there is no table."""
        geometry, cache = self.geometry, self.cache
        index = clusters >> geometry.l2_bits
        column = clusters & (geometry.l2_entries - 1)
        inside = index < len(l1)
        if not inside.all():
            found = np.zeros(len(clusters), U64)
            found[inside] = self.entries(l1, clusters[inside])
            return found
        tables, inverse = np.unique(hosts(l1[index]), return_inverse=True)
        found = np.zeros(len(clusters), U64)
        for start in range(int(len(tables) > 0 and tables[0] == 0), len(tables), cache.batch):
            part = tables[start : start + cache.batch]
            cache.begin()
            slots = cache.load(part)
            if len(part) == len(tables):
                found[:] = cache.rows[slots[inverse], column]
                break
            mine = (inverse >= start) & (inverse < start + len(part))
            found[mine] = cache.rows[slots[inverse[mine] - start], column[mine]]
        return found

    def rows(self, tables: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The L2 tables at these host offsets (0: an empty one) as host offsets, for comparison.

        Clusters that read as zeros by their entries are 0, compressed ones the negated entry. Calls ``cache.load``.
        """
        found = np.zeros((len(tables), self.geometry.l2_entries), np.int64)
        exists = tables != 0
        distinct, inverse = np.unique(tables[exists], return_inverse=True)
        slots = self.cache.load(distinct)  # may move ``rows``
        entries = self.cache.rows[slots[inverse]]
        values = hosts(entries)
        values[(entries & _ZERO) != 0] = 0
        packed = (entries & COMPRESSED) != 0
        if packed.any():
            values[packed] = -(entries[packed] & ~COPIED).astype(np.int64)
        found[exists] = values
        return found

    def references(self, l1: Entries, total: int) -> npt.NDArray[np.int64]:
        """References from the tree to each of the first ``total`` host clusters, L2 tables included."""
        bits = self.geometry.cluster_bits
        found = np.zeros(total, np.int64)
        tables, times = np.unique(hosts(l1), return_counts=True)
        times = times[tables != 0]
        tables = tables[tables != 0]
        self._require_inside(tables >> bits, total)
        found[tables >> bits] += times
        for start in range(0, len(tables), self.cache.batch):
            self.cache.begin()
            slots = self.cache.load(tables[start : start + self.cache.batch])
            for slot, weight in zip(slots.tolist(), times[start : start + self.cache.batch].tolist(), strict=True):
                clusters = data_references(self.cache.rows[slot], self.geometry)
                self._require_inside(clusters, total)
                np.add.at(found, clusters, weight)
        return found

    def _require_inside(self, clusters: Clusters, total: int) -> None:
        if len(clusters) and int(clusters.max()) >= total:
            at = int(clusters.max()) << self.geometry.cluster_bits
            raise Qcow2Error(f"{self.file.path}: offset {at}: expected a cluster with a refcount, found none")

    def read_into(self, l1: Entries, offset: int, view: memoryview, backing: Backing | None) -> None:
        """Fill ``view`` with guest bytes from ``offset`` on; unallocated clusters come from ``backing``, or are zeros.

        ``backing`` is asked with the same offset.
        """
        bits = self.geometry.cluster_bits
        end = offset + len(view)
        first, last = offset >> bits, (end + self.geometry.cluster_size - 1) >> bits
        for start in range(first, last, _PIECE):
            stop = min(start + _PIECE, last)
            entries = self.entries(l1, np.arange(start, stop, dtype=np.int64))
            for index, count, kind in self._extents(entries):
                low = max((start + index) << bits, offset)
                high = min((start + index + count) << bits, end)
                part = view[low - offset : high - offset]
                if kind == UNALLOCATED and backing is not None:
                    backing.read_into(low, part)
                elif kind <= ZERO:
                    part[:] = bytes(len(part))
                elif kind == DATA:
                    host = int(entries[index] & _OFFSET) + (low - ((start + index) << bits))
                    self.read_data(host, part)
                else:
                    skip = low - ((start + index) << bits)
                    part[:] = self.unpack(int(entries[index]))[skip : skip + len(part)]

    def _extents(self, entries: Entries) -> list[tuple[int, int, int]]:
        """(index, count, kind) of runs that can be read at once."""
        kind = kinds(entries)
        host = hosts(entries)
        cut = kind[1:] != kind[:-1]
        cut |= (kind[1:] == DATA) & (np.diff(host) != self.geometry.cluster_size)
        cut |= kind[1:] == PACKED
        starts = [0, *(np.flatnonzero(cut) + 1).tolist()]
        ends = [*starts[1:], len(entries)]
        return [(s, e - s, int(kind[s])) for s, e in zip(starts, ends, strict=True)]

    def read_data(self, host: int, view: memoryview) -> None:
        """Fill ``view`` from the data clusters at ``host``. The last cluster of a file may be cut short: zeros."""
        done = self.file.read_into(host, view)
        if done < len(view):
            # Only what lies in the cluster that the end of the file cuts is excused.
            mask = self.geometry.cluster_size - 1
            end = host + done
            if (host + len(view) - 1) & ~mask != end & ~mask or not end & mask:
                raise Qcow2Error(f"{self.file.path}: offset {end}: expected a data cluster, the file ends before")
            view[done:] = bytes(len(view) - done)

    def unpack(self, entry: int) -> bytes:
        """The cluster that a compressed ``entry`` describes (deflate)."""
        offset, length = packed_extent(entry, self.geometry)
        try:
            data = zlib.decompressobj(-12).decompress(self.file.read(offset, length), self.geometry.cluster_size)
        except zlib.error as error:
            raise Qcow2Error(f"{self.file.path}: offset {offset}: expected a deflated cluster: {error}") from None
        if len(data) != self.geometry.cluster_size:
            raise Qcow2Error(f"{self.file.path}: offset {offset}: expected a deflated cluster, found {len(data)} bytes")
        return data
