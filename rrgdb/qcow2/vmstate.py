"""Writing the VM state, which lies behind the disk in the same tree."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from .hostfile import Buffer
from .mapping import hosts
from .refcounts import Clusters
from .state import State
from .tables import Entries
from .view import cluster_indices, require_range
from .writer import Writer

# Clusters of long extents that are written at once: bounds the memory of the batch.
_PIECE = 1 << 14
# Pairs of L2 tables that are compared at once: what that takes stays in the processor's cache.
_TABLES = 64


def write_extents(writer: Writer, base: int, extents: Iterable[tuple[int, Buffer]]) -> None:
    """See ``Image.write_vmstate``; ``base`` is the guest offset of the VM state."""
    geometry = writer.state.geometry
    size, bits = geometry.cluster_size, geometry.cluster_bits
    batch: dict[int, Buffer] = {}  # of two writes to one cluster the later stays

    def write_batch() -> None:
        if batch:
            buffers = list(batch.values())
            writer.write_clusters(cluster_indices(list(batch), base, bits), buffers, empty_ones(buffers, size))
            batch.clear()

    for at, data in extents:
        view = data if type(data) is bytes else memoryview(data).cast("B")
        length = len(view)
        if at % size == 0 and length == size:
            batch[at] = view
        elif at % size or length % size:
            require_range(at, length, None)
            write_batch()
            _write_any(writer, base + at, memoryview(view))
        else:
            require_range(at, length, None)
            whole = memoryview(view)
            for low in range(0, length, size):
                batch[at + low] = whole[low : low + size]
                if len(batch) >= _PIECE:
                    write_batch()
    write_batch()


def _write_any(writer: Writer, offset: int, view: memoryview) -> None:
    geometry = writer.state.geometry
    size = geometry.cluster_size
    head = min(-offset % size, len(view))
    whole = (len(view) - head) // size
    writer.write(offset, view[:head], None)
    if whole:
        buffers: list[Buffer] = [view[i : i + size] for i in range(head, head + whole * size, size)]
        first = (offset + head) >> geometry.cluster_bits
        clusters = np.arange(first, first + whole, dtype=np.int64)
        writer.write_clusters(clusters, buffers, empty_ones(buffers, size))
    writer.write(offset + head + whole * size, view[head + whole * size :], None)


def clear(writer: Writer, base: int, offset: int, length: int) -> None:
    """See ``Image.clear_vmstate``."""
    state = writer.state
    size, bits = state.geometry.cluster_size, state.geometry.cluster_bits
    end = offset + length
    low, high = -(-offset // size) * size, end // size * size
    if low > high:
        low = high = end
    for start, stop in ((offset, low), (high, end)):
        old = bytearray(stop - start)
        state.mapper.read_into(state.l1, base + start, memoryview(old), None)
        if any(old):
            writer.write(base + start, memoryview(bytes(stop - start)), None)
    if low < high:
        writer.clear((base + low) >> bits, (base + high) >> bits, hide_backing=False)


def empty_ones(buffers: Sequence[Buffer], size: int) -> npt.NDArray[np.bool_]:
    """Which of the clusters are all zeros."""
    zeros = bytes(size)
    return np.array([b == zeros if type(b) is bytes else bytes(b) == zeros for b in buffers], bool)


def differing(
    state: State, sides: tuple[tuple[Entries, int], tuple[Entries, int]], offset: int, length: int
) -> list[int]:
    """See ``Image.diff_vmstate``; a side is an L1 table and the index of the first entry of the VM state."""
    geometry, mapper = state.geometry, state.mapper
    tables = [hosts(l1[first:]) for l1, first in sides]
    span = geometry.l2_bits + geometry.cluster_bits
    low, high = offset >> span, -(-(offset + length) >> span)
    high = min(high, max(map(len, tables)))
    left, right = (np.pad(side[low:high], (0, max(0, high - max(low, len(side))))) for side in tables)
    unequal = np.flatnonzero(left != right)
    found: list[Clusters] = []
    step = min(mapper.cache.batch, _TABLES)
    for i in range(0, len(unequal), step):
        part = unequal[i : i + step]
        mapper.cache.begin()
        row, column = mapper.differing(left[part], right[part])
        found.append((((part[row] + low) << geometry.l2_bits) + column) << geometry.cluster_bits)
    if not found:
        return []
    start = offset & -geometry.cluster_size
    offsets = np.concatenate(found)
    inside: list[int] = offsets[(start <= offsets) & (offsets < offset + length)].tolist()
    return inside
