"""Moving bytes between an overlay and what is under it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from .backing import Backing
from .extents import Extent
from .layout import whole_sectors
from .progress import Progress
from .writer import Writer

_PIECE = 4 << 20


class Target(Protocol):
    """A backing file that is written to."""

    @property
    def size(self) -> int: ...

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None: ...

    def write_zeros(self, offset: int, length: int) -> None: ...

    def resize(self, size: int) -> None: ...

    def flush(self) -> None: ...

    def close(self) -> None: ...


class Disk(Protocol):
    """An image that is copied from or to."""

    @property
    def size(self) -> int: ...

    @property
    def cluster_size(self) -> int: ...

    def read_into(self, offset: int, view: memoryview) -> None: ...

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None: ...

    def extents(self, offset: int, length: int, depth: int) -> Iterator[Extent]: ...


def copy_down(disk: Disk, below: Target, progress: Progress) -> None:
    """Write what ``disk`` itself holds to ``below``, and wait until it is on its disk."""
    if below.size < disk.size:
        below.resize(whole_sectors(disk.size))
    for extent in disk.extents(0, disk.size, 0):
        progress(extent.start, disk.size)
        if extent.depth or not extent.present:
            continue
        if extent.zero:
            below.write_zeros(extent.start, extent.length)
            continue
        for at in range(extent.start, extent.end, _PIECE):
            buffer = bytearray(min(_PIECE, extent.end - at))
            disk.read_into(at, memoryview(buffer))
            below.write(at, buffer)
            progress(at, disk.size)
    progress(disk.size, disk.size)
    below.flush()


def empty(writer: Writer) -> None:
    """Let everything of the disk be unallocated, and commit. After an error the state has to be loaded anew."""
    writer.drop_tables(0, writer.state.geometry.l1_entries(writer.state.header.size))
    writer.commit(durable=True)
    writer.trim()


def copy_up(disk: Disk, old: Backing | None, new: Backing | None, progress: Progress) -> None:
    """Write those clusters to ``disk`` that it has not, and in which ``old`` and ``new`` differ."""
    piece = max(_PIECE // disk.cluster_size, 1) * disk.cluster_size
    missing = [e for e in disk.extents(0, disk.size, 0) if e.depth or not e.present]
    done = 0
    for extent in missing:
        # Extents of backing files may end inside of a cluster.
        start = max(extent.start // disk.cluster_size * disk.cluster_size, done)
        end = min(-(-extent.end // disk.cluster_size) * disk.cluster_size, disk.size)
        for low in range(start, end, piece):
            progress(low, disk.size)
            high = min(low + piece, end)
            left, right = (_read(side, low, high) for side in (old, new))
            if left != right:
                _write_differing(disk, low, left, right)
        done = max(done, end)
    progress(disk.size, disk.size)


def _write_differing(disk: Disk, offset: int, left: bytearray, right: bytearray) -> None:
    size = disk.cluster_size
    for at in range(0, len(left), size):
        part = left[at : at + size]
        if part != right[at : at + size]:
            disk.write(offset + at, part)


def _read(side: Backing | None, low: int, high: int) -> bytearray:
    buffer = bytearray(high - low)
    if side is not None:
        side.read_into(low, memoryview(buffer))
    return buffer
