"""Moves backward: single steps, and the search for the last stop before the position.

The search goes over history segment by segment, latest first. Each segment is replayed once, noting the last hit of
every point without stopping; the first segment with a hit has the answer.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from rrgdb.engine.base import ExitKind, WatchHit
from rrgdb.timeline.stop import Points, Stop, StopKind
from rrgdb.timeline.timeline import Timeline

PROGRESS = 1.0
"""seconds between two lines of progress"""


@dataclass(slots=True)
class _Found:
    """The last hits in a segment. ``breakpoint``: its position; ``behind``: the position behind the access that hit a
    watch."""

    breakpoint: int | None = None
    behind: int | None = None
    hits: tuple[WatchHit, ...] = ()


class Backward:
    """Reverse execution on a timeline."""

    def __init__(self, timeline: Timeline, clock: Callable[[], float] = time.monotonic) -> None:
        self._timeline = timeline
        self._clock = clock

    def step(self, points: Points, steps: int = 1) -> Stop:
        """``steps`` instructions back, stopping at a watch that one of them hit."""
        t = self._timeline
        t.drop_diversion()
        if t.icount == t.start:
            return Stop(StopKind.HISTORY_BEGIN, t.icount)
        target = max(t.icount - steps, t.start)
        if points.watches:
            stop = self._search(Points({}, points.watches), target)
            if stop is not None:
                return stop
        t.seek(target)
        return self._arrived()

    def run(self, points: Points) -> Stop:
        """Back to the greatest position before this one at which a point stops, or to the beginning."""
        t = self._timeline
        t.drop_diversion()
        if t.icount == t.start:
            return Stop(StopKind.HISTORY_BEGIN, t.icount)
        stop = self._search(points, t.start)
        if stop is not None:
            return stop
        t.seek(t.start)
        if t.interrupted:
            return self._arrived()
        return Stop(StopKind.HISTORY_BEGIN, t.icount)

    def _arrived(self) -> Stop:
        t = self._timeline
        if t.interrupted:
            t.clear_interrupt()
            return Stop(StopKind.INTERRUPT, t.icount)
        return Stop(StopKind.STEP, t.icount)

    def _search(self, points: Points, floor: int) -> Stop | None:
        """The last stop at a position in [floor, here); an INTERRUPT stop if the user ended the search: the position
        is then the earliest behind which there is none."""
        t = self._timeline
        here = end = t.icount
        if points.icount is not None and floor <= points.icount < here:
            floor = points.icount
        elif not points.breakpoints and not points.watches:
            return None
        spoken = self._clock()
        while end > floor:
            begin = max(t.marks.best(end - 1).icount, floor)
            found = self._scan(points, begin, end)
            if t.interrupted:
                t.clear_interrupt()
                t.seek(end)
                return Stop(StopKind.INTERRUPT, t.icount)
            stop = self._choose(found, floor)
            if stop is not None:
                return stop
            end = begin
            if self._clock() - spoken >= PROGRESS:
                spoken = self._clock()
                t.say(f"searching back: nothing between icount {end} and {here}\n")
        if points.icount == floor:
            t.seek(floor)
            return self._arrived()
        return None

    def _scan(self, points: Points, begin: int, end: int) -> _Found:
        """Replay [begin, end) and note the last hits."""
        t = self._timeline
        t.seek(begin)
        found = _Found()
        with t.armed(points, collect=True):
            while t.icount < end and not t.interrupted:
                exit_ = t.advance(end)
                if exit_.kind is ExitKind.BREAKPOINT:
                    condition = points.breakpoints.get(t.engine.read(t.engine.arch.pc))
                    if condition is None or condition():
                        found.breakpoint = t.icount
                    t.engine.ignore_stops_at(t.icount)
                elif t.guest.end is not None:
                    break
            at, behind = t.engine.collected()
            if at is not None and at < end:
                found.breakpoint = max(at, -1 if found.breakpoint is None else found.breakpoint)
            if behind is not None:
                found.behind = behind
                found.hits = t.engine.take_hits()
        return found

    def _choose(self, found: _Found, floor: int) -> Stop | None:
        t = self._timeline
        after = t.engine.arch.nonsteppable_watchpoint
        watch = None if found.behind is None else found.behind if after else found.behind - 1
        if watch is not None and watch >= floor and (found.breakpoint is None or watch >= found.breakpoint):
            hit = found.hits[0]
            t.seek(watch)
            stop = Stop(StopKind.WATCHPOINT, t.icount, hit.address, hit.kind, hit.old, hit.new)
        elif found.breakpoint is not None and found.breakpoint >= floor:
            t.seek(found.breakpoint)
            stop = Stop(StopKind.BREAKPOINT, t.icount, t.engine.read(t.engine.arch.pc))
        else:
            return None
        return self._arrived() if t.interrupted else stop
