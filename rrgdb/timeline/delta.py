"""Contents of some of RAM's pages, as a map that never changes and shares what it can with the one it was made from.

Pages stand together in chunks. A map that differs from another one in a few pages has most chunks in common with it, so
making it, comparing the two and counting what both take costs the pages that differ, not all that they hold.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from rrgdb.engine.memory import PageNumbers

_CHUNK_BITS = 5


class Delta:
    """Page number to content (4096 bytes). ``chunks``: page number / 32 to the pages in it; nobody changes them."""

    __slots__ = ("chunks",)

    def __init__(self, chunks: Mapping[int, dict[int, bytes]] | None = None) -> None:
        self.chunks: Mapping[int, dict[int, bytes]] = chunks or {}

    def __len__(self) -> int:
        return sum(map(len, self.chunks.values()))

    def __contains__(self, number: int) -> bool:
        return self.get(number) is not None

    def get(self, number: int) -> bytes | None:
        chunk = self.chunks.get(number >> _CHUNK_BITS)
        return None if chunk is None else chunk.get(number)

    def pages(self) -> dict[int, bytes]:
        """All of it, as one dictionary."""
        return {number: content for chunk in self.chunks.values() for number, content in chunk.items()}

    def with_pages(self, numbers: Iterable[int], contents: Iterable[bytes]) -> Delta:
        """This one with these contents; what is equal already stays the same object."""
        chunks: dict[int, dict[int, bytes]] = {}
        for number, content in zip(numbers, contents, strict=True):
            key = number >> _CHUNK_BITS
            chunk = chunks.get(key)
            if chunk is None:
                old = self.chunks.get(key)
                if old is not None and old.get(number) == content:
                    continue
                chunk = chunks[key] = {} if old is None else dict(old)
            if chunk.get(number) != content:
                chunk[number] = content
        return Delta({**self.chunks, **chunks}) if chunks else self

    def differing(self, other: Delta) -> set[int]:
        """Numbers of the pages that one of the two does not have, or that are not the same object in both."""
        found: set[int] = set()
        for key, mine in self.chunks.items():
            theirs = other.chunks.get(key)
            if theirs is None:
                found.update(mine)
            elif theirs is not mine:
                found.update(n for n, content in mine.items() if theirs.get(n) is not content)
                found.update(theirs.keys() - mine.keys())
        for key, theirs in other.chunks.items():
            if key not in self.chunks:
                found.update(theirs)
        return found


def page_numbers(numbers: Iterable[int]) -> PageNumbers:
    """Numbers in any order as an ascending array."""
    return np.array(sorted(numbers), dtype=np.int64)
