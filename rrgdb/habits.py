"""GDB's habits: what it expects of moves that watch memory, and of being told each hit, and once.

The timeline stops behind an access on the way forward and before it on the way back, on every family. Where GDB steps
over the access by itself (``Arch.nonsteppable_watchpoint``), it is to be told an instruction earlier in the direction
of the move; the next move from there passes that access. That does not hold for hits whose addresses it cannot be
told: physical ones, and those of an address space that is not in use. A debugger that takes one watched range a stop is
told those that the same instruction hit besides by its next moves.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from rrgdb.engine.base import EngineError, Watch, WatchHit
from rrgdb.recording.door import Divergence
from rrgdb.rsp.debuggee import Resume
from rrgdb.timeline.backward import Backward
from rrgdb.timeline.checkpoints import Mark
from rrgdb.timeline.marks import UnusableSnapshotError
from rrgdb.timeline.stop import Points, Stop, StopKind
from rrgdb.timeline.timeline import Timeline, TimelineError

_BACKWARD = (Resume.REVERSE_CONTINUE, Resume.REVERSE_STEP)


@dataclass(slots=True)
class _Last:
    """The stop that was told last. ``rest``: hits of the same instruction that were not told. ``access``: it lies next
    in the direction of the move. ``stepped``: the debugger has stepped over it, with nothing watched."""

    icount: int
    pc: int
    backward: bool
    rest: tuple[WatchHit, ...]
    access: bool
    stepped: bool = False


class Habits:
    """The moves of a debugger on one timeline."""

    def __init__(self, timeline: Timeline, backward: Backward) -> None:
        self._timeline = timeline
        self._backward = backward
        self._told_before = timeline.engine.arch.nonsteppable_watchpoint
        self._last: _Last | None = None
        self._diverted: dict[Watch, bytes] = {}
        """watched bytes when the last move ended in a diversion"""

    def forget(self) -> None:
        """The guest was moved otherwise: what comes is told anew."""
        self._last = None
        self._diverted = {}

    def move(self, how: Resume, points: Points, start: int = 0, end: int = 0, *, separately: bool = False) -> Stop:
        """Move, and return what is told. ``start``, ``end``: the range of RANGE_STEP; ``separately``: of several
        watched ranges that were hit one. Raises as the timeline's moves do."""
        t, backward = self._timeline, how in _BACKWARD
        undone = self._undone(points, backward)
        stop = undone or self._still_to_tell(points, backward)
        if stop is None:
            passes = self._passes_access(points, backward)
            stop = self._go_back(how, points, passes) if backward else self._go_on(how, points, passes, (start, end))
        if backward and undone is None and t.icount == t.start:
            # Whatever else stands there: GDB is to know that there is nothing behind it.
            stop = Stop(StopKind.HISTORY_BEGIN, t.icount)
        stop = self._tell(stop, points, backward, access=undone is None, separately=separately)
        self._diverted = {} if t.diverted_from is None else self._watched(points)
        return stop

    # -- moves -----------------------------------------------------------------------------------

    def _go_on(self, how: Resume, points: Points, passes: bool, within: tuple[int, int]) -> Stop:
        t = self._timeline
        begin = None
        if self._told_before and points.watches and t.diverted_from is not None:
            begin = t.marks.detached_here()
        if passes:
            stop = t.run(replace(points, watches=()), steps=1)
            if how is Resume.STEP or stop.kind is not StopKind.STEP or stop.icount == points.icount:
                return stop
            t.stop_where_it_starts()
        stop = self._seen(
            t.run(
                points,
                steps=1 if how is Resume.STEP else None,
                within=within if how is Resume.RANGE_STEP else None,
            )
        )
        if self._told_before and _known(stop.hits):
            self._go_before(stop.icount - 1, begin)
            return replace(stop, icount=t.icount)
        return stop

    def _go_before(self, target: int, begin: Mark | None) -> None:
        """Back over the instruction that retired last. ``begin``: of the last move, in a diversion."""
        t = self._timeline
        if begin is None:
            t.seek_regardless(target)
            return
        try:
            t.marks.restore(begin)
        except UnusableSnapshotError as e:
            raise TimelineError(str(e)) from e
        while t.run(Points({}), steps=target - t.icount).kind is StopKind.INTERRUPT:
            pass

    def _go_back(self, how: Resume, points: Points, passes: bool) -> Stop:
        t = self._timeline
        if how is Resume.REVERSE_STEP:
            stop = self._backward.step(replace(points, watches=()) if passes else points)
        elif passes:
            stop = self._run_back_passing(points)
        else:
            stop = self._backward.run(points)
        stop = self._seen(stop)
        if self._told_before and _known(stop.hits):
            t.seek_regardless(stop.icount + 1)
            return replace(stop, icount=t.icount)
        return stop

    def _run_back_passing(self, points: Points) -> Stop:
        t = self._timeline
        here = t.icount
        stop = self._backward.run(replace(points, watches=()), steps=1)
        if stop.kind is not StopKind.STEP or stop.icount == points.icount:
            return stop
        try:
            return self._backward.run(points)
        except (Divergence, EngineError, TimelineError):
            with suppress(Divergence, EngineError, TimelineError):
                t.seek_regardless(here)
            raise

    def _seen(self, stop: Stop) -> Stop:
        """What the guest has hit of other address spaces is hidden from a debugger, which looks in the one in use."""
        shows = self._timeline.engine.shows
        hits = tuple(
            hit if hit.space is None or shows(hit.space, hit.address) else replace(hit, hidden=True)
            for hit in stop.hits
        )
        return replace(stop, hits=hits)

    # -- what is told ----------------------------------------------------------------------------

    def _still_to_tell(self, points: Points, backward: bool) -> Stop | None:
        """A hit that is armed and was not told with the others of its instruction; the guest is put where that was."""
        last, t = self._last, self._timeline
        if last is None or last.backward is not backward:
            return None
        rest = tuple(hit for hit in last.rest if _armed(hit, points.watches))
        step = -1 if backward else 1
        if not rest or t.icount != last.icount + step * last.stepped:
            return None
        if last.stepped:
            if t.diverted_from is not None:
                return None
            t.seek_regardless(last.icount)
        return Stop.at_watch(t.icount, rest)

    def _passes_access(self, points: Points, backward: bool) -> bool:
        """What the first instruction of a move that begins here accesses was told before."""
        last, t = self._last, self._timeline
        if last is None or not last.access or last.backward is not backward or not points.watches:
            return False
        return (t.icount, t.engine.pc) == (last.icount, last.pc)

    def _tell(self, stop: Stop, points: Points, backward: bool, *, access: bool, separately: bool) -> Stop:
        """A move has ended so: what of it is told. ``access``: what hit is an instruction next to this position."""
        t, last = self._timeline, self._last
        if stop.kind is StopKind.WATCHPOINT:
            known = _known(stop.hits)
            first, rest = _together(known) if separately and known else (known, ())
            self._last = _Last(stop.icount, t.engine.pc, backward, rest, access and self._told_before and bool(known))
            return replace(stop, hits=(*first, *(hit for hit in stop.hits if hit.hidden)))
        if last is not None and (last.backward is not backward or stop.icount != last.icount):
            last.stepped = (
                bool(last.rest)
                and not (last.stepped or any(not w.physical for w in points.watches))
                and last.backward is backward
                and stop.icount == last.icount + (-1 if backward else 1)
            )
            self._last = last if last.stepped else None
        return stop

    def _undone(self, points: Points, backward: bool) -> Stop | None:
        """Where a diversion is left, watched bytes change to what they were: a hit, since the debugger knows others."""
        t, before = self._timeline, self._diverted
        if t.diverted_from is not None:
            if not backward:
                return None
            before = self._watched(points)
            t.drop_diversion()
        if not before:
            return None
        hits = tuple(
            WatchHit(w.address, w.length, w.kind, before[w], now)
            for w, now in self._watched(points).items()
            if w.kind != "r" and w in before and len(before[w]) == len(now) and before[w] != now
        )
        return Stop.at_watch(t.icount, hits) if hits else None

    def _watched(self, points: Points) -> dict[Watch, bytes]:
        engine = self._timeline.engine
        return {
            w: engine.watched(w)
            for w in points.watches
            if not w.physical and (w.space is None or engine.shows(w.space, w.address))
        }


def _known(hits: tuple[WatchHit, ...]) -> tuple[WatchHit, ...]:
    """Those that the debugger can be told by their addresses."""
    return tuple(hit for hit in hits if not hit.hidden)


def _armed(hit: WatchHit, watches: Sequence[Watch]) -> bool:
    return any(
        w.kind == hit.kind and not w.physical and w.address <= hit.address < w.address + w.length for w in watches
    )


def _together(hits: tuple[WatchHit, ...]) -> tuple[tuple[WatchHit, ...], tuple[WatchHit, ...]]:
    """The hits that one address tells, that of the first one; and the others."""
    first = max(hits, key=lambda hit: sum(other.covers(hit.place) for other in hits))
    others = [hit for hit in hits if hit is not first]
    told = (first, *(hit for hit in others if hit.covers(first.place)))
    return told, tuple(hit for hit in others if not hit.covers(first.place))
