"""Guest RAM in one host mapping that knows exactly which pages were written.

RAM is a private mapping of an anonymous file (memfd). A page that anything writes, guest or emulator helper, becomes
a private copy, and the kernel's page map tells which pages those are: no write is missed and none costs a
hook. ``clean`` folds written pages back into the file. Pages that nothing touches never exist: a 4 GiB guest costs
what it uses.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import mmap
import os
import weakref
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rrgdb.arch.base import MemoryFault
from rrgdb.engine import _pages

PAGE = 4096
ZERO_PAGE = _pages.ZERO
PageNumbers = npt.NDArray[np.int64]

# admin-guide/mm/pagemap.rst
_ENTRY_FILE, _ENTRY_SWAPPED, _ENTRY_PRESENT = np.uint64(1 << 61), np.uint64(1 << 62), np.uint64(1 << 63)
_SCAN_BYTES = 1 << 20
_WRITTEN_LISTS = 64


@dataclass(frozen=True, slots=True)
class Region:
    """Guest-physical [base, base + size) lives at ``offset`` of the mapping (bytes)."""

    base: int
    size: int
    offset: int


def _close_all(*descriptors: int) -> None:
    for fd in descriptors:
        os.close(fd)


class Ram:
    """Guest-physical RAM of ``size`` bytes (a multiple of 4096) in page-numbered order.

    Page numbers count from the start of the mapping, whatever guest addresses the regions have.
    """

    def __init__(self, size: int) -> None:
        if size <= 0 or size % PAGE:
            raise ValueError(f"RAM size {size} is not a positive multiple of {PAGE} bytes")
        self.size = size
        self.pages = size // PAGE
        self.regions: list[Region] = []
        self._fd = os.memfd_create("rrgdb-ram", os.MFD_CLOEXEC)
        os.ftruncate(self._fd, size)
        flags = mmap.MAP_PRIVATE | getattr(mmap, "MAP_NORESERVE", 0x4000)
        self._map = mmap.mmap(self._fd, size, flags, mmap.PROT_READ | mmap.PROT_WRITE)
        self._anchor = ctypes.c_char.from_buffer(self._map)
        self.address = ctypes.addressof(self._anchor)
        self._pagemap = os.open("/proc/self/pagemap", os.O_RDONLY | os.O_CLOEXEC)
        self._close_files = weakref.finalize(self, _close_all, self._fd, self._pagemap)
        self._scan_works = True
        self._written: list[PageNumbers] = []
        self._check_tracking()

    def close(self) -> None:
        """Give the memory back; idempotent. The object is unusable afterwards."""
        if not self._close_files.alive:
            return
        self._close_files()
        del self._anchor
        with contextlib.suppress(BufferError):  # an engine still maps it: the last one to go frees it
            self._map.close()

    def add_region(self, base: int, size: int) -> Region:
        """Place the next ``size`` bytes of RAM at guest-physical ``base``."""
        offset = sum(r.size for r in self.regions)
        if size % PAGE or base % PAGE or offset + size > self.size:
            raise ValueError(f"RAM region {base:#x}+{size:#x} does not fit")
        region = Region(base, size, offset)
        self.regions.append(region)
        return region

    def _check_tracking(self) -> None:
        """A kernel or sandbox whose page map does not tell the truth would make every snapshot wrong."""
        saved = self._map[:1]
        self._map[0] = 1
        seen = self.dirty().tolist()
        self._map[:1] = saved
        self.clean(self.dirty())
        if seen != [0] or len(self.dirty()):
            raise OSError(errno.ENOTSUP, "/proc/self/pagemap does not report written pages here; rrgdb needs it")

    def dirty(self) -> PageNumbers:
        """Numbers of the pages written since they were last clean, ascending."""
        if self._scan_works:
            try:
                found = _pages.dirty(self._pagemap, self.address, self.size)
                return np.frombuffer(found, dtype=np.int64)
            except OSError as e:
                if e.errno not in (errno.ENOTTY, errno.EINVAL, errno.EPERM):
                    raise
                self._scan_works = False
        return self._read_pagemap()

    def _read_pagemap(self) -> PageNumbers:
        found = []
        first = self.address // PAGE
        for start in range(0, self.pages, _SCAN_BYTES // 8):
            count = min(_SCAN_BYTES // 8, self.pages - start)
            entries = np.frombuffer(os.pread(self._pagemap, count * 8, (first + start) * 8), dtype=np.uint64)
            private = ((entries & _ENTRY_PRESENT) != 0) & ((entries & _ENTRY_FILE) == 0)
            swapped = ((entries & _ENTRY_SWAPPED) != 0) & ((entries & _ENTRY_FILE) == 0)
            found.append(np.nonzero(private | swapped)[0] + start)
        return np.concatenate(found).astype(np.int64)

    def clean(self, dirty: PageNumbers) -> None:
        """Fold the pages that ``dirty()`` has just told, all of them, into the file: they keep their contents."""
        self._written.append(dirty)
        if len(self._written) > _WRITTEN_LISTS:
            self._written = [np.unique(np.concatenate(self._written))]
        _pages.clean(self._fd, self.address, self.size, dirty)

    def set_clean(self, numbers: PageNumbers, contents: list[bytes], dirty: PageNumbers) -> None:
        """Give pages (ascending) contents, one each; all of RAM is clean then. ``dirty``, as ``dirty()`` has just told
        it, is a part of ``numbers``."""
        _pages.put(self._fd, self.address, self.size, numbers, contents, dirty)

    def contents(self, numbers: PageNumbers) -> list[bytes]:
        """Contents of these pages (ascending); all pages of zeros are the same object, ``ZERO_PAGE``."""
        return _pages.contents(self.address, self.size, numbers)

    def take_written(self) -> PageNumbers:
        """Numbers of the pages written since this was called last, ascending; a superset, as some may come twice."""
        written = np.unique(np.concatenate([*self._written, self.dirty()]))
        self._written.clear()
        return written

    def forget_written(self) -> None:
        """What was written before is not for ``take_written``, but for pages that are not clean yet."""
        self._written.clear()

    def zero(self, pages: Iterable[int]) -> None:
        """Fill pages with zeros."""
        for number in pages:
            self._map[number * PAGE : number * PAGE + PAGE] = ZERO_PAGE

    def page(self, number: int) -> bytes:
        return self._map[number * PAGE : number * PAGE + PAGE]

    def view(self) -> memoryview:
        """The whole mapping; reading a page that was never written gives zeros (and costs that page)."""
        return memoryview(self._map)

    def populated(self) -> Iterator[int]:
        """Numbers of all pages that may hold something but zeros: a superset, found without touching the rest."""
        dirty = set(self.dirty().tolist())
        offset = 0
        while offset < self.size:
            try:
                start = os.lseek(self._fd, offset, os.SEEK_DATA)
            except OSError as e:
                if e.errno != errno.ENXIO:
                    raise
                break
            offset = os.lseek(self._fd, start, os.SEEK_HOLE)
            dirty.update(range(start // PAGE, -(-offset // PAGE)))
        yield from sorted(dirty)

    def locate(self, physical: int) -> tuple[int, int]:
        """(offset in the mapping, bytes left in the region) of a guest-physical address; MemoryFault outside RAM."""
        for r in self.regions:
            if r.base <= physical < r.base + r.size:
                return r.offset + physical - r.base, r.base + r.size - physical
        raise MemoryFault(physical)

    def read(self, physical: int, length: int) -> bytes:
        """Up to ``length`` bytes: shorter where RAM ends; MemoryFault if there is none at all."""
        parts: list[bytes] = []
        while length > 0:
            try:
                offset, left = self.locate(physical)
            except MemoryFault:
                if not parts:
                    raise
                break
            n = min(length, left)
            parts.append(self._map[offset : offset + n])
            physical += n
            length -= n
        return b"".join(parts)

    def write(self, physical: int, data: bytes) -> list[int]:
        """Write all of ``data`` or, with MemoryFault, nothing; returns the page numbers touched."""
        parts: list[tuple[int, int, int]] = []
        at, rest = physical, len(data)
        while rest > 0:
            offset, left = self.locate(at)
            n = min(rest, left)
            parts.append((offset, at - physical, n))
            at += n
            rest -= n
        touched: list[int] = []
        for offset, source, n in parts:
            self._map[offset : offset + n] = data[source : source + n]
            touched.extend(range(offset // PAGE, (offset + n - 1) // PAGE + 1))
        return touched
