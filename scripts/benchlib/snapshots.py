"""What a snapshot and a checkpoint cost, by the pages that changed and by the size of RAM."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import pairwise

from benchlib.bench import Bench
from benchlib.figures import seconds, timed
from benchlib.guests import Guest
from rrgdb.engine.memory import PAGE
from rrgdb.opening import Opened
from rrgdb.timeline.stop import Points

GROUP = "snapshots"
DIRTY = (100, 1_000, 10_000)
MEMORY = (64 << 20, 512 << 20)
SPARED = 1 << 20
"""bytes at the beginning of the largest region: the guest's program, which stays as it is"""


def dirtier(opened: Opened, pages: int) -> Callable[[], None]:
    """A function that gives so many pages, spread over RAM, new random contents."""
    ram = opened.ram
    region = max(ram.regions, key=lambda r: r.size)
    step = (region.size - SPARED) // PAGE / pages
    addresses = [region.base + SPARED + int(i * step) * PAGE for i in range(pages)]
    source = random.Random(pages)

    def dirty() -> None:
        # One instruction on, so that no two marks share a position.
        opened.timeline.run(Points({}), steps=1)
        for address in addresses:
            ram.write(address, source.randbytes(PAGE))

    return dirty


def _one(bench: Bench, guest: Guest, memory: int, pages: int) -> None:
    with bench.new_recording(guest, memory) as opened:
        assert opened.store is not None
        marks, store = opened.timeline.marks, opened.store
        dirty = dirtier(opened, pages)
        checkpoints = seconds(marks.detached_here, repeat=bench.repeat, before=dirty)
        snapshots: list[float] = []
        complete: list[float] = []
        sizes: list[int] = []
        far = near = marks.detached_here()
        for number in range(1 + bench.repeat):
            dirty()
            took, taken = timed(marks.take_snapshot, f"bench-{number}")
            far, near = near, taken
            snapshots.append(took)
            complete.append(took + timed(marks.flush)[0])
            sizes.append(store.file_size)
        restores: list[float] = []
        for _ in range(bench.repeat):
            restores += seconds(marks.restore, far) + seconds(marks.restore, near)
    where = f"{pages:,} pages, {memory >> 20} MiB RAM"
    growth = [(b - a) / 1024 for a, b in pairwise(sizes)]
    # The first one carries the pages of the checkpoints as well.
    bench.figures.ms(GROUP, guest.name, f"snapshot: {where}", snapshots[1:])
    bench.figures.ms(GROUP, guest.name, f"snapshot, until it is on disk: {where}", complete[1:])
    bench.figures.add(GROUP, guest.name, f"snapshot's size: {where}", "KiB", growth)
    bench.figures.ms(GROUP, guest.name, f"checkpoint: {where}", checkpoints)
    bench.figures.ms(GROUP, guest.name, f"restore of the neighbour: {where}", restores)


def measure(bench: Bench, guest: Guest) -> None:
    """All of this group for one guest."""
    for memory in MEMORY:
        for pages in DIRTY:
            _one(bench, guest, memory, pages)
