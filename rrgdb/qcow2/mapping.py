"""From guest offsets to host clusters: walking L1/L2 trees and reading through them.

A tree is given by its L1 table (uint64, host byte order). The active tree and those of all snapshots are read alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from .compression import Codec, codec_for, unpack
from .errors import Qcow2Error
from .hostfile import HostFile
from .layout import OFFSET_MASK, OFLAG_COMPRESSED, OFLAG_COPIED, OFLAG_ZERO, Geometry
from .refcounts import Clusters
from .tables import Entries, TableCache

U64 = np.uint64
_OFFSET, _ZERO = U64(OFFSET_MASK), U64(OFLAG_ZERO)
COPIED, COMPRESSED = U64(OFLAG_COPIED), U64(OFLAG_COMPRESSED)

UNALLOCATED, ZERO, DATA, PACKED = 0, 1, 2, 3
SUBCLUSTERS = 32

# Clusters looked up at once by a long read: bounds the memory of the lookup.
_PIECE = 1 << 16


def hosts(entries: Entries) -> npt.NDArray[np.int64]:
    """The host offsets of L1 entries or of standard L2 entries."""
    return (entries & _OFFSET).astype(np.int64)


def kinds(entries: Entries, *, data_file: bool = False) -> npt.NDArray[np.uint8]:
    """UNALLOCATED, ZERO (the flag, with or without a host cluster), DATA or PACKED (compressed) for each entry.

    ``data_file``: COPIED without an offset is the cluster at 0 of an external data file.
    """
    allocated = (entries & (_OFFSET | COPIED if data_file else _OFFSET)) != 0
    kind = np.where(allocated, np.uint8(DATA), np.uint8(UNALLOCATED))
    kind[(entries & _ZERO) != 0] = ZERO
    kind[(entries & COMPRESSED) != 0] = PACKED
    return kind


def _meaning(entries: Entries) -> npt.NDArray[np.int64]:
    """Equal for entries that lead to the same data: 0 if that is zeros."""
    values = hosts(entries)
    values[(entries & _ZERO) != 0] = 0
    packed = (entries & COMPRESSED) != 0
    values[packed] = -(entries[packed] & ~COPIED).astype(np.int64)
    return values


def _distinct(values: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The distinct ``values``, ascending, and the place of each value among them."""
    steps = np.diff(values)
    if (steps >= 0).all():
        inverse = np.concatenate([[0], np.cumsum(steps > 0)])[: len(values)]
        return values[np.concatenate([[True], steps > 0])[: len(values)]], inverse
    distinct, inverse = np.unique(values, return_inverse=True)
    return distinct, inverse


def packed_extent(entry: int, geometry: Geometry) -> tuple[int, int]:
    """(host offset, most bytes) of the compressed cluster that ``entry`` describes."""
    x = 62 - (geometry.cluster_bits - 8)
    offset = entry & ((1 << x) - 1)
    sectors = ((entry >> x) & ((1 << (geometry.cluster_bits - 8)) - 1)) + 1
    return offset, sectors * 512 - (offset & 511)


def packed_extents(entries: Entries, cluster_bits: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """First and last host cluster of each of the compressed ``entries``."""
    sector_bits = U64(cluster_bits - 8)
    x = U64(62) - sector_bits
    offset = (entries & ((U64(1) << x) - U64(1))).astype(np.int64)
    sectors = ((entries >> x) & ((U64(1) << sector_bits) - U64(1))).astype(np.int64)
    return offset >> cluster_bits, ((offset >> 9) + sectors) >> (cluster_bits - 9)


def data_references(entries: Entries, geometry: Geometry) -> Clusters:
    """Host clusters that L2 ``entries`` (without bitmaps) refer to, one element for each reference."""
    packed = (entries & COMPRESSED) != 0
    plain = hosts(entries[~packed])
    clusters: Clusters = plain[plain != 0] >> geometry.cluster_bits
    if geometry.data_file:
        clusters = clusters[:0]
    if not packed.any():
        return clusters
    first, last = packed_extents(entries[packed], geometry.cluster_bits)
    # The length field reaches over at most three clusters.
    return np.concatenate([clusters, first, (first + 1)[last > first], (first + 2)[last > first + 1]])


class Under(Protocol):
    """What is read where nothing is allocated."""

    def read_into(self, offset: int, view: memoryview) -> None: ...


class Units(NamedTuple):
    """Guest clusters (or subclusters, with extended L2 entries) one after the other; see ``Mapper.units``."""

    bits: int  # log2 of the bytes of one unit
    kind: npt.NDArray[np.uint8]
    host: npt.NDArray[np.int64]  # of ZERO with a host cluster as well; compressed: 0


class Mapper:
    """Looks up and reads. Raises Qcow2Error when a table or a cluster is not where the format allows it."""

    def __init__(self, file: HostFile, geometry: Geometry, compression: str = "zlib") -> None:
        self.file = file
        self.geometry = geometry
        self.cache = TableCache(file, geometry)
        self.data: HostFile | None = None if geometry.data_file else file  # where guest clusters are
        self._compression = compression
        self._codec: Codec | None = None

    def read_l1(self, offset: int, size: int, *, strict: bool = True) -> Entries:
        """The ``size`` entries of an L1 table; not ``strict``: bad ones as well."""
        if size == 0:
            return np.zeros(0, U64)
        l1 = np.frombuffer(self.file.read_exact(offset, size * 8, "an L1 table"), ">u8").astype(U64)
        bad = np.flatnonzero(l1 & U64(self.geometry.l1_invalid))
        if strict and len(bad):
            at = offset + 8 * int(bad[0])
            raise Qcow2Error(f"{self.file.path}: offset {at}: expected an L1 entry without reserved bits")
        return l1

    def entries(self, l1: Entries, clusters: Clusters) -> Entries:
        """The L2 entries of guest ``clusters``; 0 where there is no table. Without the bitmaps of extended entries."""
        column = clusters & (self.geometry.l2_entries - 1)
        return self._cells(l1, clusters, column << self.geometry.extended)

    def _cells(self, l1: Entries, clusters: Clusters, column: npt.NDArray[np.int64]) -> Entries:
        geometry, cache = self.geometry, self.cache
        index = clusters >> geometry.l2_bits
        inside = index < len(l1)
        if not inside.all():
            found = np.zeros(len(clusters), U64)
            found[inside] = self._cells(l1, clusters[inside], column[inside])
            return found
        tables, inverse = _distinct(hosts(l1[index]))
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

    def units(self, l1: Entries, clusters: Clusters) -> tuple[Entries, Units]:
        """The L2 entries of guest ``clusters``, and what their units are. Raises Qcow2Error for a wrong bitmap."""
        geometry = self.geometry
        entries = self.entries(l1, clusters)
        kind, host = kinds(entries, data_file=geometry.data_file), hosts(entries)
        host[kind == PACKED] = 0
        if not geometry.extended:
            return entries, Units(geometry.cluster_bits, kind, host)
        bitmaps = self._cells(l1, clusters, ((clusters & (geometry.l2_entries - 1)) << 1) + 1)
        shifts = np.arange(SUBCLUSTERS, dtype=np.uint64)
        present = ((bitmaps[:, None] >> shifts) & U64(1)).astype(bool)
        zero = ((bitmaps[:, None] >> (shifts + U64(SUBCLUSTERS))) & U64(1)).astype(bool)
        packed = kind == PACKED
        bad = np.flatnonzero(~packed & ((present & zero).any(axis=1) | (present.any(axis=1) & (kind != DATA))))
        if len(bad):
            raise Qcow2Error(
                f"{self.file.path}: offset {int(hosts(l1[clusters[bad[:1]] >> geometry.l2_bits])[0])}: expected an L2 "
                f"table whose subclusters are consistent, guest cluster {int(clusters[bad[0]])} is not"
            )
        units = np.where(present, np.uint8(DATA), np.where(zero, np.uint8(ZERO), np.uint8(UNALLOCATED)))
        units[packed] = PACKED
        bits = geometry.cluster_bits - 5
        inner = host[:, None] + (np.arange(SUBCLUSTERS, dtype=np.int64) << bits)
        inner[host == 0] = 0
        if geometry.data_file:
            inner = np.where(kind[:, None] == DATA, host[:, None] + (np.arange(SUBCLUSTERS, dtype=np.int64) << bits), 0)
        return entries, Units(bits, units.reshape(-1), inner.reshape(-1))

    def differing(
        self, left: npt.NDArray[np.int64], right: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Where pairs of L2 tables at these host offsets (0: an empty one) lead to different data: indices of the
        pairs, and of the entries. Calls ``cache.load`` twice."""
        rows = [self._load(side[side != 0]) for side in (left, right)]
        one, two = (self._entries_of(side, r).ravel() for side, r in zip((left, right), rows, strict=True))
        cells = np.flatnonzero((one ^ two) & ~COPIED)
        cells = cells[_meaning(one[cells]) != _meaning(two[cells])]
        return cells >> self.geometry.l2_bits, cells & (self.geometry.l2_entries - 1)

    def _load(self, tables: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Slots of these tables in the cache, in their order; a table may come more than once."""
        if (np.diff(tables) > 0).all():
            return self.cache.load(tables)
        distinct, inverse = np.unique(tables, return_inverse=True)
        return self.cache.load(distinct)[inverse]

    def _entries_of(self, tables: npt.NDArray[np.int64], slots: npt.NDArray[np.int64]) -> Entries:
        """Entries of these tables, a row each; ``slots``: of those that are not 0."""
        exists = tables != 0
        entries: Entries = self.cache.rows[slots][:, :: 1 + self.geometry.extended]
        if exists.all():
            return entries
        found = np.zeros((len(tables), self.geometry.l2_entries), np.uint64)
        found[exists] = entries
        return found

    def references(self, l1: Entries, total: int) -> npt.NDArray[np.int64]:
        """References from the tree to each of the first ``total`` host clusters, L2 tables included."""
        return np.bincount(self._referred(l1, total), minlength=total)

    def references_apart(self, l1: Entries, other: Entries, total: int) -> tuple[Clusters, Clusters]:
        """Host clusters that the tree ``l1`` refers to beyond ``other``, and the other way round, one element for each
        reference; some may be in both. Costs the L2 tables in which the trees differ."""
        size = max(len(l1), len(other))
        one, two = (np.pad(hosts(tree), (0, size - len(tree))) for tree in (l1, other))
        apart = one != two
        return self._referred(one[apart].astype(U64), total), self._referred(two[apart].astype(U64), total)

    def _referred(self, l1: Entries, total: int) -> Clusters:
        bits = self.geometry.cluster_bits
        tables, times = np.unique(hosts(l1), return_counts=True)
        times = times[tables != 0]
        tables = tables[tables != 0]
        self._require_inside(tables >> bits, total)
        found = [np.repeat(tables >> bits, times)]
        for start in range(0, len(tables), self.cache.batch):
            part, weights = tables[start : start + self.cache.batch], times[start : start + self.cache.batch]
            self.cache.begin()
            slots = self.cache.load(part)
            for weight in sorted(set(weights.tolist())):
                entries = self.cache.rows[slots[weights == weight], :: 1 + self.geometry.extended]
                clusters = data_references(entries[entries != 0], self.geometry)
                self._require_inside(clusters, total)
                found.append(np.repeat(clusters, weight))
        return np.concatenate(found)

    def _require_inside(self, clusters: Clusters, total: int) -> None:
        if len(clusters) and int(clusters.max()) >= total:
            at = int(clusters.max()) << self.geometry.cluster_bits
            raise Qcow2Error(f"{self.file.path}: offset {at}: expected a cluster with a refcount, found none")

    def read_into(self, l1: Entries, offset: int, view: memoryview, backing: Under | None) -> None:
        """Fill ``view`` with guest bytes from ``offset`` on; unallocated clusters come from ``backing``, or are zeros.

        ``backing`` is asked with the same offset.
        """
        if self._read_run(l1, offset, view):
            return
        bits = self.geometry.cluster_bits
        end = offset + len(view)
        first, last = offset >> bits, (end + self.geometry.cluster_size - 1) >> bits
        piece = _PIECE // SUBCLUSTERS if self.geometry.extended else _PIECE
        for start in range(first, last, piece):
            stop = min(start + piece, last)
            entries, units = self.units(l1, np.arange(start, stop, dtype=np.int64))
            base = start << bits
            for index, count, kind in self.extents(units):
                low = max(base + (index << units.bits), offset)
                high = min(base + ((index + count) << units.bits), end)
                if low >= high:
                    continue
                part = view[low - offset : high - offset]
                if kind == UNALLOCATED and backing is not None:
                    backing.read_into(low, part)
                elif kind <= ZERO:
                    part[:] = bytes(len(part))
                elif kind == DATA:
                    self.read_data(int(units.host[index]) + low - (base + (index << units.bits)), part)
                else:
                    cluster = (low - base) >> bits
                    skip = low - base - (cluster << bits)
                    part[:] = self.unpack(int(entries[cluster]))[skip : skip + len(part)]

    def _read_run(self, l1: Entries, offset: int, view: memoryview) -> bool:
        """The short way of ``read_into``: one run of data clusters in one cached L2 table; False: it is not that."""
        geometry, bits = self.geometry, self.geometry.cluster_bits
        first, last = offset >> bits, (offset + len(view) - 1) >> bits
        index = first >> geometry.l2_bits
        if geometry.extended or geometry.data_file or index >= len(l1) or index != last >> geometry.l2_bits:
            return False
        slot = self.cache.slot(int(l1[index]) & OFFSET_MASK)
        if slot is None:
            return False
        column = first & (geometry.l2_entries - 1)
        start = int(self.cache.rows[slot, column]) & ~OFLAG_COPIED
        if not start or start & (OFLAG_COMPRESSED | OFLAG_ZERO):
            return False
        if last > first:
            row = self.cache.rows[slot, column : column + last - first + 1] & ~COPIED
            if (row != (np.arange(len(row), dtype=np.uint64) << U64(bits)) + U64(start)).any():
                return False
        self.read_data(start + (offset & (geometry.cluster_size - 1)), view)
        return True

    def extents(self, units: Units) -> list[tuple[int, int, int]]:
        """(index, count, kind) of runs that can be read at once."""
        kind, host = units.kind, units.host
        cut = kind[1:] != kind[:-1]
        cut |= ((kind[1:] == DATA) | (host[1:] != 0) | (host[:-1] != 0)) & (np.diff(host) != 1 << units.bits)
        each = np.arange(1, len(kind)) & ((1 << (self.geometry.cluster_bits - units.bits)) - 1) == 0
        cut |= (kind[1:] == PACKED) & each
        starts = [0, *(np.flatnonzero(cut) + 1).tolist()]
        ends = [*starts[1:], len(kind)]
        return [(s, e - s, int(kind[s])) for s, e in zip(starts, ends, strict=True)]

    def read_data(self, host: int, view: memoryview) -> None:
        """Fill ``view`` from the data clusters at ``host``. The last cluster of a file may be cut short: zeros."""
        if self.data is None:
            raise Qcow2Error(f"{self.file.path}: offset {host}: expected an open external data file")
        done = self.data.read_into(host, view)
        if done < len(view):
            # Only what lies in the cluster that the end of the file cuts is excused.
            mask = self.geometry.cluster_size - 1
            end = host + done
            if self.data is self.file and ((host + len(view) - 1) & ~mask != end & ~mask or not end & mask):
                raise Qcow2Error(f"{self.file.path}: offset {end}: expected a data cluster, the file ends before")
            view[done:] = bytes(len(view) - done)

    def read_parts(self, host: int, parts: Sequence[bytearray | memoryview]) -> None:
        """Fill ``parts``, whole clusters each, one after the other from the data clusters at ``host`` on."""
        if self.data is not None and self.data.read_parts(host, parts):
            return
        for part in parts:
            self.read_data(host, memoryview(part))
            host += len(part)

    def data_at(self, host: int, length: int) -> bytes:
        """The data clusters at ``host``, as ``read_data`` fills them in."""
        if self.data is not None and len(found := self.data.read(host, length)) == length:
            return found
        buffer = bytearray(length)
        self.read_data(host, memoryview(buffer))
        return bytes(buffer)

    @property
    def codec(self) -> Codec:
        """Of the compressed clusters. Raises Qcow2UnsupportedError if the package for it is not installed."""
        if self._codec is None:
            self._codec = codec_for(self._compression)
        return self._codec

    def unpack(self, entry: int) -> bytes:
        """The cluster that a compressed ``entry`` describes."""
        offset, length = packed_extent(entry, self.geometry)
        size = self.geometry.cluster_size
        return unpack(self.codec, self.file.read(offset, length), size, self.file.path, offset)
