"""State digests: equal states have equal digests, however they were reached.

The digest of RAM is the sum over all pages of a hash of (page number, content), zero pages counting nothing; so it
follows changes page by page and does not depend on which pages were looked at.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import xxhash

_ZERO = bytes(4096)
_MASK = (1 << 64) - 1


class RamDigest:
    """Running digest of RAM; pages start as zeros."""

    def __init__(self, pages: int) -> None:
        self._hashes = np.zeros(pages, dtype=np.uint64)
        self._sum = 0

    def update(self, pages: Iterable[tuple[int, bytes]]) -> None:
        """These pages now have these contents."""
        total, hashes = self._sum, self._hashes
        for number, content in pages:
            new = 0 if content == _ZERO else xxhash.xxh3_64_intdigest(content, seed=number + 1)
            total += new - int(hashes[number])
            hashes[number] = new
        self._sum = total & _MASK

    def value(self) -> bytes:
        return self._sum.to_bytes(8, "little")


def state_digest(ram: RamDigest, registers: bytes, devices: bytes, door: bytes, icount: int) -> bytes:
    """16 bytes over everything that a guest's state consists of."""
    h = xxhash.xxh3_128()
    for part in (icount.to_bytes(8, "little"), ram.value(), registers, devices, door):
        h.update(len(part).to_bytes(4, "little"))
        h.update(part)
    return h.digest()
