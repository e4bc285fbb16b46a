"""Marks in memory: what they are, and the list of those that are kept."""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import chain

from rrgdb.engine.memory import PAGE, ZERO_PAGE
from rrgdb.snapshots.entries import Stored
from rrgdb.snapshots.state import GuestState
from rrgdb.timeline.delta import Delta

_PER_PAGE = 100
"""bytes that one page of a chunk takes besides its content"""
_PER_CHUNK = 100
"""bytes that a chunk takes in each delta that has it"""


@dataclass(slots=True, eq=False, weakref_slot=True)
class Mark:
    """``delta``: contents of the pages in which RAM differs from the snapshot ``stored`` (from zeros if None).
    ``blocks``: likewise for the disks (from the images if None). ``state`` is None where it is read from the store
    when needed."""

    icount: int
    stored: Stored | None
    state: GuestState | None
    delta: Delta = field(default_factory=Delta)
    blocks: Delta = field(default_factory=Delta)

    @property
    def chunks(self) -> Iterable[dict[int, bytes]]:
        """Of both."""
        return chain(self.delta.chunks.values(), self.blocks.chunks.values())

    def fits(self, budget: int) -> bool:
        """Whether its pages alone would keep to so many bytes; found out without a look at many more."""
        left = budget // PAGE
        for chunk in self.chunks:
            left -= sum(content is not ZERO_PAGE for content in chunk.values())
            if left < 0:
                return False
        return True


class Checkpoints:
    """Checkpoints in memory by icount, and what they take: chunks of pages, and contents, are shared between them."""

    def __init__(self) -> None:
        self.marks: list[Mark] = []
        self.bytes = 0
        self._chunks: Counter[int] = Counter()
        self._contents: Counter[int] = Counter()

    def index(self, icount: int) -> int:
        return bisect.bisect_left(self.marks, icount, key=lambda m: m.icount)

    def at(self, icount: int) -> Mark | None:
        i = self.index(icount)
        return self.marks[i] if i < len(self.marks) and self.marks[i].icount == icount else None

    def insert(self, mark: Mark) -> None:
        self.marks.insert(self.index(mark.icount), mark)
        before = len(self._contents)
        self.bytes += self._own_bytes(mark)
        uses = self._chunks
        for chunk in mark.chunks:
            uses[id(chunk)] += 1
            if uses[id(chunk)] == 1:
                self._contents.update(map(id, chunk.values()))
                self.bytes += _PER_PAGE * len(chunk)
        self.bytes += PAGE * (len(self._contents) - before)

    def remove(self, index: int) -> None:
        mark = self.marks.pop(index)
        uses, contents, before = self._chunks, self._contents, len(self._contents)
        self.bytes -= self._own_bytes(mark)
        for chunk in mark.chunks:
            uses[id(chunk)] -= 1
            if uses[id(chunk)]:
                continue
            del uses[id(chunk)]
            self.bytes -= _PER_PAGE * len(chunk)
            for content in chunk.values():
                key = id(content)
                contents[key] -= 1
                if not contents[key]:
                    del contents[key]
        self.bytes -= PAGE * (before - len(contents))

    @staticmethod
    def _own_bytes(mark: Mark) -> int:
        state = mark.state
        size = 0 if state is None else len(state.cpu) + len(state.devices) + len(state.door)
        return 1000 + size + _PER_CHUNK * (len(mark.delta.chunks) + len(mark.blocks.chunks))

    def thin(self, here: int, budget: int) -> None:
        """Drop the checkpoints farthest from a position until the budget holds."""
        while self.bytes > budget and self.marks:
            self.remove(0 if here - self.marks[0].icount > self.marks[-1].icount - here else len(self.marks) - 1)

    def drop_built_on(self, ids: set[str]) -> None:
        for i in range(len(self.marks) - 1, -1, -1):
            stored = self.marks[i].stored
            if stored is not None and stored.id in ids:
                self.remove(i)
