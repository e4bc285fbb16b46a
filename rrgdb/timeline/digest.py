"""State digests: equal states have equal digests, however they were reached.

The digest of RAM is the sum over all pages of a hash of (page number, content), zero pages counting nothing; so it
follows changes page by page and does not depend on which pages were looked at.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import xxhash

from rrgdb.engine.memory import ZERO_PAGE, PageNumbers

_MASK = (1 << 64) - 1


class RamDigest:
    """Running digest of RAM; pages start as zeros."""

    def __init__(self, pages: int) -> None:
        self._hashes = np.zeros(pages, dtype=np.uint64)
        self._sum = 0

    def update(self, numbers: PageNumbers, contents: Sequence[bytes]) -> None:
        """These pages (each once) now have these contents."""
        digest, zero = xxhash.xxh3_64_intdigest, ZERO_PAGE
        found = [
            0 if content == zero else digest(content, number + 1)
            for number, content in zip(numbers.tolist(), contents, strict=True)
        ]
        self._set(numbers, np.array(found, dtype=np.uint64))

    def look_at(self, numbers: PageNumbers, pages: list[memoryview], zeros: npt.NDArray[np.bool_]) -> None:
        """These pages (each once) now have the contents of ``pages``. ``zeros``: which of them are all zeros."""
        hashes = np.array(list(map(xxhash.xxh3_64_intdigest, pages, (numbers + 1).tolist())), dtype=np.uint64)
        hashes[zeros] = 0
        self._set(numbers, hashes)

    def _set(self, numbers: PageNumbers, hashes: npt.NDArray[np.uint64]) -> None:
        old = self._hashes[numbers]
        self._hashes[numbers] = hashes
        self._sum = (self._sum + int(hashes.sum()) - int(old.sum())) & _MASK

    def value(self) -> bytes:
        return self._sum.to_bytes(8, "little")


def state_digest(ram: RamDigest, registers: bytes, devices: bytes, door: bytes, icount: int) -> bytes:
    """16 bytes over everything that a guest's state consists of."""
    h = xxhash.xxh3_128()
    for part in (icount.to_bytes(8, "little"), ram.value(), registers, devices, door):
        h.update(len(part).to_bytes(4, "little"))
        h.update(part)
    return h.digest()
