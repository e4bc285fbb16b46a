"""Addresses of a Linux whose symbols nobody has, found by what its recording shows of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import islice
from random import Random
from threading import Timer

import numpy as np
import numpy.typing as npt

from rrgdb.arch.cpu import MemoryFault
from rrgdb.board.machine import Board
from rrgdb.engine.base import Watch
from rrgdb.engine.memory import PAGE
from rrgdb.opening import Opened
from rrgdb.recording.index import IndexFile
from rrgdb.timeline.backward import Backward
from rrgdb.timeline.stop import Points, StopKind
from rrgdb.timeline.timeline import Timeline

HIGH = 1 << 63
"""the kernel's half of virtual addresses begins here"""
HZ, JIFFIES_AT_START = 250, (1 << 32) - 300 * 250
"""Debian's; Linux begins to count five minutes before 32 bits overflow"""
AROUND = 32 << 20
"""bytes on either side of the kernel's busiest code in which its data is"""
TRIED = 2
"""words whose last write is looked for, at most"""
PATIENCE = 60.0
"""seconds for that search"""
LOOKS = 12
"""positions at which the kernel's data is compared"""
WORD = 8
Words = npt.NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Landmarks:
    """Virtual addresses. ``early``: an instruction that ran once, the first in the kernel's half; ``never``: amid its
    busiest code, and never executed; ``jiffies``: the kernel's count of ticks; ``old``: a word that was written last
    long ago, on a page that always is; ``quiet``: one on a page that is not either."""

    early: int
    never: int
    jiffies: int
    old: int
    quiet: int


@contextmanager
def interrupted_after(timeline: Timeline, seconds: float) -> Iterator[None]:
    """A search that takes longer is left where it has come to: what lies behind it was searched."""
    timer = Timer(seconds, timeline.interrupt)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        timeline.clear_interrupt()


def find(opened: Opened) -> Landmarks:
    """Of a recording that stands anywhere. AssertionError if it is not one of a Linux of 64 bits."""
    timeline = opened.timeline
    with closing(opened.recording.open_index()) as index:
        busy, never = _code(index)
    timeline.seek(timeline.start)
    timeline.run(Points({}), within=(0, HIGH))
    early = timeline.engine.pc
    timeline.seek(timeline.end // 2)
    stop = timeline.run(Points({busy: None}))
    assert stop.kind is StopKind.BREAKPOINT, stop
    at = timeline.engine.translate(busy)
    words, ticks, first = _data(opened, at)
    virtual = first + busy - at

    def mapped(i: int) -> bool:
        """Whether word ``i`` is where the kernel's own image is mapped."""
        try:
            return timeline.engine.translate(virtual + i * WORD) == first + i * WORD
        except MemoryFault:
            return False

    timeline.seek(timeline.end * 9 // 10)
    timeline.run(Points({busy: None}))
    kernel = timeline.icount
    jiffies = next(i for i in _counting(words, ticks) if mapped(i))
    changed = words[1:] != words[:-1]
    pages = changed.reshape(LOOKS - 1, -1, PAGE // WORD).any(axis=2).sum(axis=0)
    last = np.where(changed.any(axis=0), LOOKS - 2 - changed[::-1].argmax(axis=0), LOOKS)
    long_ago = last < (LOOKS - 1) // 3
    of_page = np.repeat(pages, PAGE // WORD)

    def untouched(of_kind: npt.NDArray[np.bool_]) -> int:
        """What looks the same may have been written and put back, as locks are: of some, the one whose last write is
        farthest back."""
        found = np.flatnonzero(long_ago & of_kind).tolist()
        some = list(islice(filter(mapped, Random(0).sample(found, len(found))), TRIED))
        last_written: dict[int, int] = {}
        for i in some:
            timeline.seek(timeline.end)
            with interrupted_after(timeline, PATIENCE):
                Backward(timeline).run(Points({}, (Watch(virtual + i * WORD, WORD, "w"),)))
            last_written[i] = timeline.icount
            if timeline.icount < timeline.end // 2:
                break
        timeline.seek(kernel)
        return min(some[: len(last_written)], key=lambda i: last_written[i])

    old, quiet = untouched(of_page == of_page[jiffies]), untouched(of_page <= (LOOKS - 1) // 3)
    return Landmarks(early, never, *(virtual + i * WORD for i in (jiffies, old, quiet)))


def _code(index: IndexFile) -> tuple[int, int]:
    """The kernel's code that most spans of history executed, and an address behind it that none did."""
    spans = [entry.unpack()[0] for entry in index.entries]
    spans = [code[code[:, 0] >= HIGH] for code in spans]
    begins, counts = np.unique(np.concatenate([code[:, 0] for code in spans]), return_counts=True)
    busy = int(begins[counts.argmax()])
    executed = sorted((int(a), int(b)) for code in spans for a, b in code)
    behind = busy
    for begin, last in executed:
        if begin <= behind <= last:
            behind = last + 1
    return busy, behind


def _data(opened: Opened, at: int) -> tuple[Words, list[float], int]:
    """RAM around a physical address at several positions, a row each; how many ticks had passed there; where the rows
    begin."""
    timeline, guest = opened.timeline, opened.guest
    assert isinstance(guest, Board)
    region = next(r for r in timeline.engine.ram.regions if r.base <= at < r.base + r.size)
    first = max(region.base, (at - AROUND) & -PAGE)
    length = min(region.base + region.size, first + 2 * AROUND) - first
    rows, ticks = [], []
    for look in range(LOOKS):
        timeline.seek(timeline.end * (look + 3) // (LOOKS + 3))
        rows.append(np.frombuffer(timeline.engine.ram.read(first, length), np.uint64))
        ticks.append(guest.virtual_ns() * HZ / 1e9)
    return np.stack(rows), ticks, first


def _counting(words: Words, ticks: list[float]) -> list[int]:
    """Words that count ticks, the best first."""
    near = (words >= JIFFIES_AT_START) & (words < JIFFIES_AT_START + 100 * HZ)
    some = np.flatnonzero(near.all(axis=0))
    passed = (words[:, some] - words[0, some]).astype(np.float64)
    off = np.abs(passed - (np.array(ticks) - ticks[0])[:, None]).max(axis=0)
    return [int(i) for i in some[np.argsort(off)] if off.min() < 2]
