"""Which pages of a mapping were written, by whoever it was, without a hook on stores.

Two ways, of which ``track`` takes the first that works here. The kernel's write protection (userfaultfd in asynchronous
mode, Linux 6.7) notes the first write to a page, and forgets it in one call for all pages. With older kernels the
mapping is a private one of an anonymous file: a page that is written becomes a private copy, which the page map tells
from the file's; to clean it means to write it back to the file and give the copy up.
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


class Tracker(Protocol):
    """A mapping of zeros at ``address`` whose pages are clean until they are written."""

    map: mmap.mmap
    address: int

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


def _close_all(*descriptors: int) -> None:
    for fd in descriptors:
        os.close(fd)


def address_of(mapping: mmap.mmap) -> int:
    """Where a mapping begins."""
    return ctypes.addressof(ctypes.c_char.from_buffer(mapping))


def _open_pagemap() -> int:
    return os.open("/proc/self/pagemap", os.O_RDONLY | os.O_CLOEXEC)


class WriteProtection:
    """Anonymous memory under the kernel's write protection. Raises OSError where the kernel has none."""

    def __init__(self, size: int) -> None:
        self._size = size
        self.map = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NORESERVE, _ACCESS)
        # In a huge page one write would make 512 pages dirty.
        self.map.madvise(mmap.MADV_NOHUGEPAGE)
        self.address = address_of(self.map)
        self._pagemap = _open_pagemap()
        try:
            self._guard = _pages.guard(self.address, size)
        except OSError:
            os.close(self._pagemap)
            raise
        self.close = weakref.finalize(self, _close_all, self._guard, self._pagemap)

    def dirty(self) -> PageNumbers:
        return np.frombuffer(_pages.written(self._pagemap, self.address, self._size), dtype=np.int64)

    def clean(self, dirty: PageNumbers) -> None:
        _pages.protect(self._pagemap, self.address, self._size)

    def open(self, numbers: PageNumbers) -> mmap.mmap:
        _pages.lift(self._guard, self.address, self._size, numbers)
        return self.map

    def shut(self, dirty: PageNumbers) -> None:
        self.clean(dirty)

    def populated(self) -> PageNumbers:
        return np.frombuffer(_pages.filled(self._pagemap, self.address, self._size), dtype=np.int64)


class PrivateCopies:
    """A private mapping of an anonymous file (memfd)."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._fd = os.memfd_create("rrgdb-ram", os.MFD_CLOEXEC)
        os.ftruncate(self._fd, size)
        self.map = mmap.mmap(self._fd, size, mmap.MAP_PRIVATE | _NORESERVE, _ACCESS)
        self._file = mmap.mmap(self._fd, size, mmap.MAP_SHARED | _NORESERVE, _ACCESS)
        self.address = address_of(self.map)
        self._pagemap = _open_pagemap()
        self.close = weakref.finalize(self, _close_all, self._fd, self._pagemap)
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
        return self._file

    def shut(self, dirty: PageNumbers) -> None:
        _pages.drop(self.address, self._size, dirty)

    def populated(self) -> PageNumbers:
        parts = [self.dirty()]
        end = 0
        while end < self._size:
            try:
                start = os.lseek(self._fd, end, os.SEEK_DATA)
            except OSError as e:
                if e.errno != errno.ENXIO:
                    raise
                break
            end = os.lseek(self._fd, start, os.SEEK_HOLE)
            parts.append(np.arange(start // PAGE, -(-end // PAGE), dtype=np.int64))
        return np.unique(np.concatenate(parts))


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
            if e.errno == errno.ENOMEM:
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
