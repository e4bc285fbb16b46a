"""Where the bytes of a disk are: as ``qemu-img map``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple, Protocol

import numpy as np

from .mapping import DATA, SUBCLUSTERS, UNALLOCATED, ZERO
from .runs import split_runs
from .state import State

_PIECE = 1 << 16
_STORED = 4 << 20  # bytes


class Extent(NamedTuple):
    """Bytes ``start``..``start + length`` of the disk.

    ``depth``: how many backing files down. ``present``: that file decides about them (it is not that nothing was ever
    written). ``zero``: they read as zeros. ``data``: they are stored. ``offset``: where in the file, None for
    compressed ones and those that are nowhere.
    """

    start: int
    length: int
    depth: int
    present: bool
    zero: bool
    data: bool
    offset: int | None = None

    @property
    def end(self) -> int:
        """The offset behind the last byte."""
        return self.start + self.length

    def as_json(self) -> dict[str, object]:
        """As ``qemu-img map --output=json``."""
        found = self._asdict()
        if self.offset is None:
            del found["offset"]
        return found


class Mapped(Protocol):
    """What has extents: an image, a raw file."""

    @property
    def size(self) -> int: ...

    def extents(self, offset: int, length: int, depth: int) -> Iterator[Extent]: ...


def map_image(state: State, below: Mapped | None, offset: int, length: int, depth: int) -> Iterator[Extent]:
    """The extents of a range of the active disk. Raises Qcow2Error."""
    mapper, bits = state.mapper, state.geometry.cluster_bits
    end = min(offset + length, state.header.size)
    last = state.geometry.clusters(end)
    for first, stop, empty in _pieces(state, offset >> bits, last):
        if empty:
            low, high = max(first << bits, offset), min(stop << bits, end)
            yield from _unallocated(below, low, high, depth)
            continue
        _, units = mapper.units(state.l1, np.arange(first, stop, dtype=np.int64))
        for index, count, kind in mapper.extents(units):
            start = (first << bits) + (index << units.bits)
            low, high = max(start, offset), min(start + (count << units.bits), end)
            if low >= high:
                continue
            if kind != UNALLOCATED:
                host = int(units.host[index])
                stored = kind == DATA or (kind == ZERO and host > 0)
                at = host + low - start if stored else None
                yield Extent(low, high - low, depth, present=True, zero=kind == ZERO, data=kind != ZERO, offset=at)
                continue
            host = int(units.host[index])  # of a cluster that has other subclusters
            yield from _unallocated(below, low, high, depth, host + low - start if host and below is None else None)


def _pieces(state: State, first: int, last: int) -> Iterator[tuple[int, int, bool]]:
    """(start, stop, empty) of runs of guest clusters: long ones without L2 tables, or not too long to look up."""
    bits = state.geometry.l2_bits
    piece = _PIECE // SUBCLUSTERS if state.geometry.extended else _PIECE
    used = np.flatnonzero(state.l1[first >> bits : ((last - 1) >> bits) + 1]) + (first >> bits)
    for index, count in split_runs(used):
        start, stop = max(int(used[index]) << bits, first), min(int(used[index] + count) << bits, last)
        if first < start:
            yield first, start, True
        for low in range(start, stop, piece):
            yield low, min(low + piece, stop), False
        first = stop
    if first < last:
        yield first, last, True


def _unallocated(below: Mapped | None, low: int, high: int, depth: int, offset: int | None = None) -> Iterator[Extent]:
    covered = min(high, max(low, below.size)) if below is not None else low
    if below is not None and low < covered:
        yield from below.extents(low, covered - low, depth + 1)
    if covered < high:
        yield Extent(covered, high - covered, depth, present=False, zero=True, data=False, offset=offset)


def merged(extents: Iterable[Extent]) -> Iterator[Extent]:
    """Join neighbours that differ in nothing but their place."""
    last: Extent | None = None
    for extent in extents:
        if last is not None and _continues(last, extent):
            last = last._replace(length=last.length + extent.length)
        else:
            if last is not None:
                yield last
            last = extent
    if last is not None:
        yield last


def _continues(a: Extent, b: Extent) -> bool:
    at = None if a.offset is None else a.offset + a.length
    return a[2:6] == b[2:6] and at == b.offset and a.end == b.start


def stored(source: Mapped, align: int) -> Iterator[tuple[int, int]]:
    """(offset, length) of ascending pieces, on multiples of ``align``, that hold all that is not zero."""
    piece, done = max(_STORED // align, 1) * align, 0
    for extent in source.extents(0, source.size, 0):
        if extent.zero:
            continue
        start = max(extent.start // align * align, done)
        end = min(-(-extent.end // align) * align, source.size)
        for at in range(start, end, piece):
            yield at, min(piece, end - at)
        done = max(done, end)
