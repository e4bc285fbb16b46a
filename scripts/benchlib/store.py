"""What the snapshot store costs, by the snapshots in the image, the pages that changed and the size of RAM."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

from benchlib.bench import Bench
from benchlib.figures import timed
from benchlib.guests import Guest
from benchlib.snapshots import DIRTY, dirtier
from rrgdb.timeline.marks import Mark
from rrgdb.timeline.opening import Opened

GROUP = "store"
MEMORY = (64 << 20, 512 << 20, 4 << 30)
COUNTS = (10, 100, 1_000)
LEAST_REPEAT = 9
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


def _one(bench: Bench, guest: Guest, opened: Opened, pages: int, where: str) -> None:
    marks, store = opened.timeline.marks, opened.store
    assert store is not None
    dirty = dirtier(opened, pages)
    # A difference of a fifth has to show.
    repeat = max(bench.repeat, LEAST_REPEAT)
    figures: dict[str, list[float]] = {}
    taken: list[Mark] = []
    used: list[int] = []
    # The first one carries the pages of the fillers as well.
    for number in range(2 + repeat):
        dirty()
        took, mark = timed(marks.take_snapshot, f"bench-{number}")
        wrote, _ = timed(marks.flush)
        taken.append(mark)
        used.append(store.used_bytes)
        if number > 1:
            figures.setdefault("take: the guest waits", []).append(took)
            figures.setdefault("take: the writer's thread", []).append(wrote)
    for mark in reversed(taken[:-1]):
        figures.setdefault("first restore of the neighbour", []).append(timed(marks.restore, mark)[0])
    far, near = taken[-2:]
    marks.restore(near)
    for _ in range(repeat):
        for mark in (far, near):
            figures.setdefault("restore of the neighbour", []).append(timed(marks.restore, mark)[0])
    for mark in reversed(taken):
        assert mark.stored is not None
        asked, _ = timed(marks.delete_snapshot, mark.stored)
        done, _ = timed(marks.flush)
        if mark not in taken[-2:]:
            figures.setdefault("delete: the guest waits", []).append(asked)
            figures.setdefault("delete: the writer's thread", []).append(done)
    for what, values in figures.items():
        bench.figures.ms(GROUP, guest.name, f"{what}: {where}", values)
    growth = [(b - a) / 1024 for a, b in list(pairwise(used))[1:]]
    bench.figures.add(GROUP, guest.name, f"growth of the file: {where}", "KiB", growth)


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
        with bench.new_recording(guest, memory) as opened:
            # From here on the tables of all of RAM exist.
            dirtier(opened, max(DIRTY))()
            opened.timeline.marks.take_snapshot("filler-0")
            for count in COUNTS:
                _fill(opened, count)
                for pages in DIRTY:
                    _one(bench, guest, opened, pages, f"{count:,} snapshots, {pages:,} pages, {size}")
