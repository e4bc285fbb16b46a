"""Copying and comparing disks of raw and qcow2 files."""

from __future__ import annotations

import heapq
import os
from collections.abc import Iterator
from typing import Protocol

import numpy as np

from .backing import RawFile, backing_format
from .extents import Extent, stored
from .hostfile import HostFile
from .image import Image
from .layout import whole_sectors
from .progress import Progress, silent

_PIECE = 4 << 20


class Source(Protocol):
    """What is copied from."""

    @property
    def size(self) -> int: ...

    def read_into(self, offset: int, view: memoryview) -> None: ...

    def extents(self, offset: int, length: int, depth: int) -> Iterator[Extent]: ...

    def close(self) -> None: ...


def open_disk(path: str, disk_format: str | None = None) -> Source:
    """A disk for reading; without a format, qcow2 is recognised by its magic and all else is raw."""
    if backing_format(path, path, disk_format) == "raw":
        return RawFile(path)
    return Image.open(path)


def create_raw(path: str, size: int) -> RawFile:
    """A new raw file of zeros. Raises FileExistsError."""
    file = HostFile(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
    try:
        file.truncate(size)
    finally:
        file.close()
    return RawFile(path, writable=True)


def copy_to_raw(source: Source, target: RawFile, progress: Progress = silent) -> None:
    """Copy what is not zero; ``target`` is all zeros and as large."""
    buffer = memoryview(bytearray(_PIECE))
    for at, length in stored(source, 1):
        part = buffer[:length]
        source.read_into(at, part)
        target.write(at, part)
        progress(at, source.size)
    progress(source.size, source.size)


def copy_to_qcow2(source: Source, target: Image, *, compressed: bool, progress: Progress = silent) -> None:
    """Copy the clusters that are not all zeros.

    ``target`` is empty, without a backing file, and as large, in whole sectors.
    """
    size = target.cluster_size
    buffer = memoryview(bytearray(max(_PIECE, size)))
    for at, length in stored(source, size):
        part = buffer[: whole_sectors(length)]
        source.read_into(at, part)
        for low, high in _filled(part, size):
            if compressed:
                target.write_compressed(at + low, part[low:high])
            else:
                target.write(at + low, part[low:high])
        progress(at, source.size)
    progress(source.size, source.size)


def _filled(view: memoryview, size: int) -> Iterator[tuple[int, int]]:
    """(start, end) of the runs of whole clusters that are not all zeros."""
    whole = len(view) // size
    words = np.frombuffer(view[: whole * size], np.uint64).reshape(whole, size // 8)
    filled = [bool(row.any()) for row in words]
    if len(view) % size:
        filled.append(bool(np.frombuffer(view[whole * size :], np.uint8).any()))
    start = None
    for index, full in enumerate([*filled, False]):
        if full and start is None:
            start = index
        elif not full and start is not None:
            yield start * size, min(index * size, len(view))
            start = None


def first_difference(a: Source, b: Source, progress: Progress = silent) -> int | None:
    """The first offset at which two disks differ, or None; behind the end of the shorter one are zeros."""
    done = 0
    for start, count in heapq.merge(stored(a, 1), stored(b, 1)):
        at, length = max(start, done), start + count - max(start, done)
        if length <= 0:
            continue
        done = at + length
        progress(at, max(a.size, b.size))
        left, right = bytearray(length), bytearray(length)
        a.read_into(at, memoryview(left))
        b.read_into(at, memoryview(right))
        if left != right:
            unequal = np.frombuffer(left, np.uint8) != np.frombuffer(right, np.uint8)
            return at + int(np.argmax(unequal))
    return None
