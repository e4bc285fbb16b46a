"""Writing compressed clusters: one behind the other, without regard to the borders of clusters."""

from __future__ import annotations

import numpy as np

from .errors import Qcow2UnsupportedError
from .layout import OFLAG_COMPRESSED
from .writer import Writer

# Guest bytes that are compressed before they are written: bounds the memory.
_BATCH_BYTES = 8 << 20

Blob = tuple[int, bytes]  # (guest cluster, compressed)


def write_compressed(writer: Writer, offset: int, view: memoryview) -> None:
    """Write whole guest clusters (the last one may be short: zeros follow)."""
    geometry, codec = writer.state.geometry, writer.state.mapper.codec
    size = geometry.cluster_size
    batch = max(_BATCH_BYTES // size, 1) * size
    for start in range(0, len(view), batch):
        small: list[Blob] = []
        plain: list[Blob] = []
        for at in range(start, min(start + batch, len(view)), size):
            cluster = bytes(view[at : at + size]).ljust(size, b"\0")
            packed = codec.compress(cluster)
            which, data = (small, packed) if len(packed) < size else (plain, cluster)
            which.append(((offset + at) >> geometry.cluster_bits, data))
        if plain:
            clusters = np.array([cluster for cluster, _ in plain], np.int64)
            writer.write_clusters(clusters, [data for _, data in plain], np.zeros(len(plain), bool))
        taken = _append(writer, small)
        if taken < len(small):
            _pack(writer, small[taken:])


def _append(writer: Writer, blobs: list[Blob]) -> int:
    """Put blobs behind the one that was packed last, while they fit into its cluster; returns how many."""
    refs, bits = writer.refs, writer.state.geometry.cluster_bits
    at = refs.tail
    cluster = at >> bits
    if not at or not refs.counts[cluster]:
        return 0
    room, free = -at % writer.state.geometry.cluster_size, refs.max - int(refs.counts[cluster])
    offsets: list[int] = []
    for _, data in blobs[:free]:
        if len(data) > room:
            break
        offsets.append(at)
        at, room = at + len(data), room - len(data)
    if offsets:
        part = blobs[: len(offsets)]
        _store(writer, offsets, part)
        refs.add(np.array([cluster]), np.array([len(part)]))
        _map(writer, offsets, part)
        refs.set_tail(at)
    return len(offsets)


def _pack(writer: Writer, blobs: list[Blob]) -> None:
    """Put blobs into new clusters that follow each other; as many into one as its refcount can count."""
    refs, size, bits = writer.refs, writer.state.geometry.cluster_size, writer.state.geometry.cluster_bits
    at, places, owners = 0, [], [0]
    for _, data in blobs:
        first, last = at // size, (at + len(data) - 1) // size
        if owners[first] >= refs.max or (last > first and refs.max == 1):
            first = last = first + (owners[first] > 0)
            at = first * size
        owners += [0] * (last + 1 - len(owners))
        for cluster in range(first, last + 1):
            owners[cluster] += 1
        places.append(at)
        at += len(data)
        owners += [0] * (at // size + 1 - len(owners))
    if not owners[-1]:
        owners.pop()
    start = refs.allocate_run(len(owners))
    offsets = [(start << bits) + place for place in places]
    try:
        _store(writer, offsets, blobs)
    except BaseException:
        refs.drop_run(start, len(owners))
        raise
    more = np.array(owners, np.int64) - 1
    shared = np.flatnonzero(more)
    refs.add(start + shared, more[shared])
    _map(writer, offsets, blobs)
    refs.set_tail((start << bits) + at)


def _store(writer: Writer, offsets: list[int], blobs: list[Blob]) -> None:
    file = writer.state.file
    size = writer.state.geometry.cluster_size
    x = 62 - (writer.state.geometry.cluster_bits - 8)
    if offsets[-1] + size >= 1 << min(x, 56):
        raise Qcow2UnsupportedError(f"{file.path}: offset {offsets[-1]}: compressed clusters cannot lie so far behind")
    start = end = offsets[0]
    parts: list[bytes] = []
    for at, (_, data) in zip(offsets, blobs, strict=True):
        if at != end:
            file.write(start, parts)
            start, parts = at, []
        parts.append(data)
        end = at + len(data)
    file.write(start, parts)


def _map(writer: Writer, offsets: list[int], blobs: list[Blob]) -> None:
    x = 62 - (writer.state.geometry.cluster_bits - 8)
    entries = [
        OFLAG_COMPRESSED | at | ((at + len(data) - 1 >> 9) - (at >> 9)) << x
        for at, (_, data) in zip(offsets, blobs, strict=True)
    ]
    writer.map_clusters(np.array([cluster for cluster, _ in blobs], np.int64), np.array(entries, np.uint64))
