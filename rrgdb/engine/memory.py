"""Guest RAM in one host mapping that knows exactly which pages were written.

Whatever writes to a page, guest or emulator helper, the kernel tells of it (``rrgdb.engine.tracking``): no write is
missed and none costs a hook. Pages that nothing touches never exist: a 4 GiB guest costs what it uses.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rrgdb.arch.cpu import MemoryFault
from rrgdb.engine import _pages
from rrgdb.engine.tracking import PAGE, WAYS, PageNumbers, Way, address_of, merged, track

__all__ = ["PAGE", "ZERO_PAGE", "PageNumbers", "Ram", "Region", "Replacement", "merged"]

ZERO_PAGE = _pages.ZERO
_WRITTEN_LISTS = 64


@dataclass(frozen=True, slots=True)
class Region:
    """Guest-physical [base, base + size) lives at ``offset`` of the mapping (bytes)."""

    base: int
    size: int
    offset: int


class Replacement:
    """All of RAM, page after page, to write contents into. ``view`` is usable while it lasts."""

    def __init__(self, view: memoryview, address: int) -> None:
        self.view = view
        self._address = address

    def put(self, numbers: PageNumbers, contents: list[bytes]) -> None:
        """Give pages (ascending) contents, one each. Raises ValueError for others."""
        _pages.copy(self._address, len(self.view), numbers, contents)

    def pages(self, numbers: PageNumbers) -> list[memoryview]:
        """Parts of ``view``: these pages."""
        view = self.view
        return [view[at : at + PAGE] for at in (numbers * PAGE).tolist()]

    def zeros(self, numbers: PageNumbers) -> npt.NDArray[np.bool_]:
        """Which of these pages (ascending) are all zeros."""
        return np.frombuffer(_pages.zeros(self._address, len(self.view), numbers), dtype=np.bool_)


class Ram:
    """Guest-physical RAM of ``size`` bytes (a multiple of 4096) in page-numbered order.

    Page numbers count from the start of the mapping, whatever guest addresses the regions have. ``ways``: how written
    pages may be found, the first that works here.
    """

    def __init__(self, size: int, ways: Sequence[Way] = WAYS) -> None:
        if size <= 0 or size % PAGE:
            raise ValueError(f"RAM size {size} is not a positive multiple of {PAGE} bytes")
        self.size = size
        self.pages = size // PAGE
        self.regions: list[Region] = []
        self._tracker = track(size, ways)
        self._map = self._tracker.map
        self.address = self._tracker.address
        self._written: list[PageNumbers] = []

    def close(self) -> None:
        """Give the memory back; idempotent. The object is unusable afterwards."""
        self._tracker.close()
        for mapping in self._tracker.mappings:
            with contextlib.suppress(BufferError):  # an engine still maps it: the last one to go frees it
                mapping.close()

    def add_region(self, base: int, size: int) -> Region:
        """Place the next ``size`` bytes of RAM at guest-physical ``base``."""
        offset = sum(r.size for r in self.regions)
        if size % PAGE or base % PAGE or offset + size > self.size:
            raise ValueError(f"RAM region {base:#x}+{size:#x} does not fit")
        region = Region(base, size, offset)
        self.regions.append(region)
        return region

    def dirty(self) -> PageNumbers:
        """Numbers of the pages written since they were last clean, ascending."""
        return self._tracker.dirty()

    def clean(self, dirty: PageNumbers) -> None:
        """The pages that ``dirty()`` has just told, all of them, keep their contents and are clean."""
        self._written.append(dirty)
        if len(self._written) > _WRITTEN_LISTS:
            self._written = [merged(*self._written)]
        self._tracker.clean(dirty)

    @contextlib.contextmanager
    def replacing(self, numbers: PageNumbers, dirty: PageNumbers) -> Iterator[Replacement]:
        """To give pages (ascending) contents; all of RAM is clean behind it. ``dirty``, as ``dirty()`` has just told
        it, is a part of ``numbers``: pages of it that are given none may hold anything then."""
        mapping = self._tracker.open(numbers)
        try:
            with memoryview(mapping) as view:
                yield Replacement(view, address_of(mapping))
        finally:
            self._tracker.shut(dirty)

    def set_clean(self, numbers: PageNumbers, contents: list[bytes], dirty: PageNumbers) -> None:
        """Give pages (ascending) contents, one each; see ``replacing``."""
        with self.replacing(numbers, dirty) as to:
            to.put(numbers, contents)

    def contents(self, numbers: PageNumbers) -> list[bytes]:
        """Contents of these pages (ascending); all pages of zeros are the same object, ``ZERO_PAGE``."""
        return _pages.contents(self.address, self.size, numbers)

    def take_written(self) -> PageNumbers:
        """Numbers of the pages written since this was called last, ascending; a superset, as some may come twice."""
        written = merged(*self._written, self.dirty())
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

    def populated(self) -> PageNumbers:
        """Numbers of all pages that may hold something but zeros, ascending: a superset, found without touching the
        rest."""
        return self._tracker.populated()

    def locate(self, physical: int) -> tuple[int, int]:
        """(offset in the mapping, bytes left in the region) of a guest-physical address; MemoryFault outside RAM."""
        for r in self.regions:
            if r.base <= physical < r.base + r.size:
                return r.offset + physical - r.base, r.base + r.size - physical
        raise MemoryFault(physical)

    def address_of(self, page: int) -> int | None:
        """The guest-physical address of a page; None if it is in no region."""
        at = page * PAGE
        return next((r.base + at - r.offset for r in self.regions if r.offset <= at < r.offset + r.size), None)

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
