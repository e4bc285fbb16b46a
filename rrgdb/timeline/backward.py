"""Moves backward: single steps, and the search for the last stop before the position.

The search goes over history segment by segment, latest first. Each segment is replayed once, noting the last hit of
every point without stopping; the first segment with a hit has the answer.
"""

from __future__ import annotations

import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from contextlib import closing, suppress

from rrgdb.engine.base import EngineError, Stops, Underlying
from rrgdb.recording.door import Divergence
from rrgdb.timeline.checkpoints import Mark
from rrgdb.timeline.forward import SIGTRAP
from rrgdb.timeline.prepare import Preparation
from rrgdb.timeline.scan import Found, scan
from rrgdb.timeline.stop import Points, Stop, StopKind
from rrgdb.timeline.tasks import Scanned, portable, scan_span
from rrgdb.timeline.timeline import Timeline, TimelineError
from rrgdb.workers.executor import Executor, Failed, Task, WorkerError

PROGRESS = 1.0
"""seconds between two lines of progress"""
PATIENCE = 0.2
"""seconds after which a search is shared with workers"""
APPROACH = 1_000_000
"""instructions of a segment from which on the last watched access in it is looked for near its end first"""
LEAST_TASK = 1_000_000
"""instructions that a worker replays at least, if there are so many"""


class Backward:
    """Reverse execution on a timeline. ``workers`` share a search that takes longer than ``patience`` seconds."""

    def __init__(
        self,
        timeline: Timeline,
        workers: Executor | None = None,
        *,
        patience: float = PATIENCE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._timeline = timeline
        self._workers = workers
        self._patience = patience
        self._clock = clock
        self.preparation = Preparation(timeline, clock)
        """for idle time (``Preparation.work``); single steps in a row begin it by themselves"""

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
        here = t.icount
        t.seek(target)
        if steps == 1:
            self.preparation.stepped_back(here)
        return self._arrived()

    def run(self, points: Points, *, steps: int | None = None) -> Stop:
        """Back to the greatest position before this one at which a point stops, or to the beginning; ``steps``: at most
        so many instructions."""
        t = self._timeline
        t.drop_diversion()
        if t.icount == t.start:
            return Stop(StopKind.HISTORY_BEGIN, t.icount)
        floor = t.start if steps is None else max(t.icount - steps, t.start)
        traps = t.forward.traps()
        trap = bisect_left(traps, t.icount) - 1
        trapped = trap >= 0 and traps[trap] >= floor
        if trapped:
            floor = traps[trap]
        stop = self._search(points, floor)
        if stop is not None:
            return stop
        t.seek(floor)
        if t.interrupted:
            return self._arrived()
        if trapped:
            return Stop(StopKind.SIGNAL, t.icount, value=SIGTRAP)
        return Stop(StopKind.HISTORY_BEGIN if steps is None else StopKind.STEP, t.icount)

    def _arrived(self) -> Stop:
        t = self._timeline
        if t.interrupted:
            t.clear_interrupt()
            return Stop(StopKind.INTERRUPT, t.icount)
        return Stop(StopKind.STEP, t.icount)

    def _search(self, points: Points, floor: int) -> Stop | None:
        """The last stop at a position in [floor, here); an INTERRUPT stop if the user ended the search: the position
        is then the earliest behind which there is none. If replay fails, the guest goes back to where it was."""
        here = self._timeline.icount
        try:
            return self._search_segments(points, floor, here)
        except (Divergence, EngineError, TimelineError):
            with suppress(Divergence, EngineError, TimelineError):
                self._timeline.seek_regardless(here)
            raise

    def _search_segments(self, points: Points, floor: int, here: int) -> Stop | None:
        t = self._timeline
        end = here
        if points.icount is not None and floor <= points.icount < here:
            floor = points.icount
        elif not points.breakpoints and not points.watches:
            return None
        if not t.at_present and floor < here - 1:
            t.marks.keep_here()
        t.index.note()
        under = t.forward.underlying(points)
        reads = any(w.kind != "w" for w in points.watches)
        close, approached = bool(points.watches), here
        began = spoken = self._clock()
        stops = portable(points)
        while end > floor:
            if not t.interrupted:
                clear = self._clear_since(end, floor, points, under)
                if clear < end:
                    end = clear
                    continue
            if stops is not None and self._clock() - began >= self._patience and self._workers_ready():
                known = self._known_since(end, floor, under)
                if known < end:
                    end, answer = self._scan_apart(points, stops, known, end, under)
                    if answer is not None:
                        return self._stop(*answer)
                    if end != known:
                        stops = None
                    continue
            begin = max(t.marks.best(end - 1).icount, floor)
            if close and begin < approached and end - begin > APPROACH:
                # A replay that looks at accesses is slow where there are many; one that does not leaves marks near its
                # target. Far from where the search began, writes are most likely few.
                approached, close = begin, reads
                t.seek(begin)
                t.seek(end - 1)
                continue
            before = under
            if points.watches and (under is None or under.tables):
                t.seek(begin)
                before = t.forward.underlying(points)
            on_the_way: list[Mark] = []
            found = scan(t, points, begin, end, on_the_way)
            if t.interrupted:
                t.seek_regardless(end)
                return Stop(StopKind.INTERRUPT, t.icount)
            position = found.last_stop(floor)
            if position is not None:
                t.marks.keep(on_the_way)
                return self._stop(found, position)
            end, under = begin, before
            if self._clock() - spoken >= PROGRESS:
                spoken = self._clock()
                t.say(f"searching back: nothing between icount {end} and {here}\n")
        if points.icount == floor:
            t.seek(floor)
            return self._arrived()
        return None

    def _workers_ready(self) -> bool:
        if self._workers is None or not len(self._workers):
            return False
        try:
            self._workers.start()
            return self._workers.ready()
        except WorkerError as e:
            self._without_workers(e)
            return False

    def _without_workers(self, why: WorkerError) -> None:
        assert self._workers is not None
        self._workers.close()
        self._timeline.say(f"{why}: searching without\n")

    def _scan_apart(
        self, points: Points, stops: Stops, floor: int, end: int, under: Underlying | None
    ) -> tuple[int, tuple[Found, int] | None]:
        """Have workers search [floor, end), latest segments first; returns the position behind which there is nothing,
        and the answer. What they could not do is left to be searched."""
        assert self._workers is not None
        t = self._timeline
        spoken = self._clock()
        starts = [t.start, *(stored.icount for stored in t.marks.stored)]

        def tasks() -> Iterator[Task[Scanned]]:
            at = end
            while (at := self._clear_since(at, floor, points, under)) > floor:
                i = bisect_right(starts, max(at - LEAST_TASK, t.start))
                begin = max(starts[i - 1], floor)
                yield Task(scan_span, begin, at, stops)
                at = begin

        try:
            with closing(self._workers.results(tasks(), lambda: t.interrupted)) as results:
                for task, result in results:
                    if isinstance(result, Failed):
                        return end, None
                    t.index.learn(result.noted)
                    position = result.found.last_stop(floor)
                    if position is not None:
                        return end, (result.found, position)
                    end = task.begin
                    if self._clock() - spoken >= PROGRESS:
                        spoken = self._clock()
                        t.say(f"searching back: nothing behind icount {end}\n")
        except WorkerError as e:
            self._without_workers(e)
            return end, None
        return end if t.interrupted else floor, None

    def _known_since(self, end: int, floor: int, under: Underlying | None) -> int:
        """A position from which on to ``end`` watched bytes are mapped as they are there, as far as is known."""
        if under is None or not under.tables:
            return floor
        return self._timeline.index.clear_since(end, floor, (), under.tables)

    def _clear_since(self, end: int, floor: int, points: Points, under: Underlying | None) -> int:
        """A position from which on to ``end`` nothing stops, as far as is known without a replay."""
        t = self._timeline
        if under is None:
            return end
        clear = t.index.clear_since(end, floor, points.breakpoints, under.pages)
        if clear == end and not points.breakpoints and not under.tables:
            untouched = t.marks.untouched_since(end, set(under.data))
            clear = end if untouched is None else max(untouched, floor)
        return clear

    def _stop(self, found: Found, position: int) -> Stop:
        t = self._timeline
        t.seek_regardless(position)
        if position == found.watch:
            return Stop.at_watch(position, found.hits)
        return Stop(StopKind.BREAKPOINT, position, t.engine.pc)
