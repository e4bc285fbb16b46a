"""What the snapshot store costs, by the snapshots in the image, the pages that changed and the size of RAM."""

from __future__ import annotations

import re
from contextlib import ExitStack
from pathlib import Path

from benchlib.bench import Bench
from benchlib.figures import timed
from benchlib.guests import Guest
from benchlib.snapshots import DIRTY, dirtier
from rrgdb.opening import Opened
from rrgdb.timeline.marks import Mark

GROUP = "store"
MEMORY = (64 << 20, 512 << 20, 4 << 30)
COUNTS = (10, 100, 1_000)
LEAST_REPEAT = 6
BLOCK = 4
"""times to the neighbour and back at once; the first does not count"""
FILLER = 100
"""pages in which the snapshots differ that are there before"""


def _anonymous() -> int:
    """Bytes of this process's own memory: not the guest's RAM, once it is clean."""
    found = re.search(r"^RssAnon:\s*(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    return int(found[1]) << 10 if found else 0


def _fill(opened: Opened, count: int) -> None:
    """Snapshots until there are so many."""
    marks, dirty = opened.timeline.marks, dirtier(opened, FILLER)
    while len(marks.stored) < count:
        dirty()
        marks.take_snapshot(f"filler-{len(marks.stored)}")
    marks.flush()


class _Side:
    """A recording with so many snapshots in its image, and the figures of one number of pages."""

    def __init__(self, opened: Opened, pages: int) -> None:
        assert opened.store is not None
        self.figures: dict[str, list[float]] = {}
        self.growth: list[float] = []
        self._marks, self._store = opened.timeline.marks, opened.store
        self._dirty = dirtier(opened, pages)
        self._taken: list[Mark] = []
        # The first ones carry the pages of what was there before as well.
        for _ in range(2):
            self._take()
        self.figures.clear()
        self.growth.clear()

    def _add(self, what: str, took: float) -> None:
        self.figures.setdefault(what, []).append(took)

    def _take(self) -> None:
        self._dirty()
        used = self._store.used_bytes
        took, mark = timed(self._marks.take_snapshot, f"bench-{len(self._taken)}")
        self._add("take: the guest waits", took)
        self._add("take: the writer's thread", timed(self._marks.flush)[0])
        self.growth.append((self._store.used_bytes - used) / 1024)
        self._taken.append(mark)

    def take(self) -> None:
        self._take()
        self._take()

    def restore(self) -> None:
        """To the neighbour and back; what others left in the processor's caches is gone then."""
        far, near = self._taken[-2:]
        for turn in range(2 * BLOCK):
            took, _ = timed(self._marks.restore, (far, near)[turn % 2])
            if turn >= 2:
                self._add("restore of the neighbour", took)

    def restore_all(self) -> None:
        for mark in reversed(self._taken[:-1]):
            self._add("first restore of the neighbour", timed(self._marks.restore, mark)[0])
        self._marks.restore(self._taken[-1])

    def delete_all(self) -> None:
        for mark in reversed(self._taken):
            assert mark.stored is not None
            asked, _ = timed(self._marks.delete_snapshot, mark.stored)
            done, _ = timed(self._marks.flush)
            if mark not in self._taken[-2:]:
                self._add("delete: the guest waits", asked)
                self._add("delete: the writer's thread", done)


def _alternate(bench: Bench, guest: Guest, recordings: dict[int, Opened], pages: int, size: str) -> None:
    """All sides in turn: the machine's speed changes from minute to minute."""
    sides = {count: _Side(opened, pages) for count, opened in recordings.items()}
    # A difference of a fifth has to show.
    repeat = max(bench.repeat, LEAST_REPEAT)
    for act in (_Side.take, *[_Side.restore] * 2, _Side.take):
        for _ in range(repeat // 2):
            for side in sides.values():
                act(side)
    for side in sides.values():
        side.restore_all()
        side.delete_all()
    for count, side in sides.items():
        where = f"{count:,} snapshots, {pages:,} pages, {size}"
        for what, values in side.figures.items():
            bench.figures.ms(GROUP, guest.name, f"{what}: {where}", values)
        bench.figures.add(GROUP, guest.name, f"growth of the file: {where}", "KiB", side.growth)


def _memory(bench: Bench, guest: Guest, memory: int, size: str) -> None:
    with bench.new_recording(guest, memory) as opened:
        before = _anonymous()
        for count in COUNTS:
            _fill(opened, count)
            used = (_anonymous() - before) / (1 << 20)
            bench.figures.add(GROUP, guest.name, f"memory: {count:,} snapshots, {size}", "MiB", [used])


def measure(bench: Bench, guest: Guest) -> None:
    """All of this group for one guest."""
    for memory in MEMORY:
        size = f"{memory >> 20} MiB RAM"
        _memory(bench, guest, memory, size)
        with ExitStack() as stack:
            recordings = {}
            for count in COUNTS:
                recordings[count] = opened = stack.enter_context(bench.new_recording(guest, memory))
                # From here on the tables of all of RAM exist.
                dirtier(opened, max(DIRTY))()
                opened.timeline.marks.take_snapshot("filler-0")
                _fill(opened, count)
            for pages in DIRTY:
                _alternate(bench, guest, recordings, pages, size)
