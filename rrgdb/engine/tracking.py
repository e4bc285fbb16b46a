"""Which pages of a mapping were written, by whoever it was, without a hook on stores.

The pages are those of an anonymous file. ``track`` takes the first of two ways that works here. The kernel's write
protection (userfaultfd in asynchronous mode, Linux 6.7) notes the first write to a page, and forgets it in one call for
all pages. With older kernels the mapping is a private one: a page that is written becomes a private copy, which the
page map tells from the file's; to clean it means to write it back to the file and give the copy up. Either way a second
mapping of the file gives pages other contents without making them dirty.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import weakref
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from rrgdb.engine import _pages

PAGE = 4096
PageNumbers = npt.NDArray[np.int64]

# admin-guide/mm/pagemap.rst
_ENTRY_FILE, _ENTRY_SWAPPED, _ENTRY_PRESENT = np.uint64(1 << 61), np.uint64(1 << 62), np.uint64(1 << 63)
_SCAN_BYTES = 1 << 20
_NO_SCAN = (errno.ENOTTY, errno.EINVAL, errno.EPERM)
_NORESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000)
_ACCESS = mmap.PROT_READ | mmap.PROT_WRITE


def merged(*numbers: PageNumbers) -> PageNumbers:
    """All numbers of ascending arrays, as one. (numpy's own ``unique`` imports masked arrays, which takes 15 ms.)"""
    some = [part for part in numbers if len(part)]
    if len(some) < 2:
        return some[0] if some else np.array([], dtype=np.int64)
    every: PageNumbers = np.sort(np.concatenate(some))
    once: PageNumbers = every[np.append(np.diff(every) != 0, [True])]
    return once


class Tracker(Protocol):
    """A mapping of zeros at ``address`` whose pages are clean until they are written."""

    map: mmap.mmap
    address: int
    mappings: Sequence[mmap.mmap]
    """``map``, and what else there is"""

    @property
    def close(self) -> Callable[[], object]:
        """Closes the files, not the mapping; idempotent."""

    def dirty(self) -> PageNumbers:
        """Numbers of the pages written since they were last clean, ascending."""

    def clean(self, dirty: PageNumbers) -> None:
        """``dirty``, as ``dirty()`` has just told it, is clean."""

    def open(self, numbers: PageNumbers) -> mmap.mmap:
        """Memory over all pages through which these (ascending) may be given contents until ``shut``."""

    def shut(self, dirty: PageNumbers) -> None:
        """All pages are clean. ``dirty``, as ``dirty()`` told it before ``open``, is a part of what was opened and has
        been given contents."""

    def populated(self) -> PageNumbers:
        """All pages that may hold something but zeros, ascending."""


def _close_all(descriptors: list[int]) -> None:
    while descriptors:
        os.close(descriptors.pop())


def address_of(mapping: mmap.mmap) -> int:
    """Where a mapping begins."""
    return ctypes.addressof(ctypes.c_char.from_buffer(mapping))


class _File:
    """An anonymous file of ``size`` bytes and two mappings of it: ``map`` is tracked, the other one is not."""

    def __init__(self, size: int, kind: int) -> None:
        self._size = size
        self._fd = os.memfd_create("rrgdb-ram", os.MFD_CLOEXEC)
        self._open = [self._fd]
        self.close = weakref.finalize(self, _close_all, self._open)
        try:
            os.ftruncate(self._fd, size)
        except OSError as e:
            if e.errno != errno.EFBIG:
                raise
            what = f"RAM of {size} bytes is kept in a file, and that is more than a file may have here (ulimit -f)"
            raise OSError(errno.EFBIG, what) from None
        self.map = mmap.mmap(self._fd, size, kind | _NORESERVE, _ACCESS)
        self._beside = mmap.mmap(self._fd, size, mmap.MAP_SHARED | _NORESERVE, _ACCESS)
        self.mappings: Sequence[mmap.mmap] = (self.map, self._beside)
        for mapping in self.mappings:
            # In a huge page one write would make 512 pages dirty.
            mapping.madvise(mmap.MADV_NOHUGEPAGE)
        self.address = address_of(self.map)
        self._pagemap = os.open("/proc/self/pagemap", os.O_RDONLY | os.O_CLOEXEC)
        self._open.append(self._pagemap)

    def _filled(self) -> PageNumbers:
        return np.frombuffer(_pages.filled(self._fd, self._size), dtype=np.int64)


class WriteProtection(_File):
    """Under the kernel's write protection. Raises OSError where the kernel has none.

    Pages are armed by blocks of 512, once there is something in one of them: all of an armed block that is clean is
    protected, so that what is not, or is not in the page table any more, was written. In other blocks everything that
    is there counts as written, also where a page was only read: nothing tells the two apart."""

    def __init__(self, size: int) -> None:
        super().__init__(size, mmap.MAP_SHARED)
        self._guard = _pages.guard(self.address, size)
        self._open.append(self._guard)
        self._armed = bytearray(-(-size // (PAGE * _pages.BLOCK)))
        self._require_memory()

    def _require_memory(self) -> None:
        """A written page that the kernel has taken out of the page table, to swap it out say, must still be told."""
        self.map[0] = 0
        self.clean(self.dirty())
        self.map[0] = 0
        self.map.madvise(mmap.MADV_DONTNEED, 0, PAGE)
        if not len(self.dirty()):
            raise OSError(errno.ENOTSUP, "the kernel forgets what was written")
        self.clean(self.dirty())

    def dirty(self) -> PageNumbers:
        found = _pages.written(self._pagemap, self._fd, self.address, self._size, self._armed)
        return np.frombuffer(found, dtype=np.int64)

    def clean(self, dirty: PageNumbers) -> None:
        _pages.arm(self._guard, self.address, self._size, dirty, self._armed)
        _pages.protect(self._pagemap, self.address, self._size, dirty)

    def open(self, numbers: PageNumbers) -> mmap.mmap:
        _pages.arm(self._guard, self.address, self._size, numbers, self._armed)
        return self._beside

    def shut(self, dirty: PageNumbers) -> None:
        _pages.protect(self._pagemap, self.address, self._size, dirty)

    def populated(self) -> PageNumbers:
        return self._filled()


class PrivateCopies(_File):
    """A private mapping."""

    def __init__(self, size: int) -> None:
        super().__init__(size, mmap.MAP_PRIVATE)
        self._scan_works = True

    def dirty(self) -> PageNumbers:
        if self._scan_works:
            try:
                return np.frombuffer(_pages.private(self._pagemap, self.address, self._size), dtype=np.int64)
            except OSError as e:
                if e.errno not in _NO_SCAN:
                    raise
                self._scan_works = False
        return self.read_pagemap()

    def read_pagemap(self) -> PageNumbers:
        """``dirty`` for kernels before 6.7."""
        found = []
        first, pages = self.address // PAGE, self._size // PAGE
        for start in range(0, pages, _SCAN_BYTES // 8):
            count = min(_SCAN_BYTES // 8, pages - start)
            entries = np.frombuffer(os.pread(self._pagemap, count * 8, (first + start) * 8), dtype=np.uint64)
            private = ((entries & _ENTRY_PRESENT) != 0) & ((entries & _ENTRY_FILE) == 0)
            swapped = ((entries & _ENTRY_SWAPPED) != 0) & ((entries & _ENTRY_FILE) == 0)
            found.append(np.nonzero(private | swapped)[0] + start)
        return np.concatenate(found).astype(np.int64)

    def clean(self, dirty: PageNumbers) -> None:
        _pages.clean(self._fd, self.address, self._size, dirty)

    def open(self, numbers: PageNumbers) -> mmap.mmap:
        return self._beside

    def shut(self, dirty: PageNumbers) -> None:
        _pages.drop(self.address, self._size, dirty)

    def populated(self) -> PageNumbers:
        return merged(self.dirty(), self._filled())


Way = Callable[[int], Tracker]
WAYS: tuple[Way, ...] = (WriteProtection, PrivateCopies)


def track(size: int, ways: Sequence[Way]) -> Tracker:
    """A mapping of ``size`` bytes (a multiple of 4096) in the first way that tells the truth here.

    OSError if there is none: with a kernel or in a sandbox whose page map is silent every snapshot would be wrong."""
    for way in ways:
        try:
            tracker = way(size)
            if _works(tracker):
                return tracker
            tracker.close()
        except OSError as e:
            if e.errno in (errno.ENOMEM, errno.EFBIG):
                raise
    raise OSError(errno.ENOTSUP, "/proc/self/pagemap does not report written pages here; rrgdb needs it")


def _works(tracker: Tracker) -> bool:
    for value in (1, 0):
        tracker.map[0] = value
        if tracker.dirty().tolist() != [0]:
            return False
        tracker.clean(tracker.dirty())
        if tracker.map[0] != value or len(tracker.dirty()):
            return False
    return True
