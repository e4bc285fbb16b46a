"""What a debugger was told of watch hits, so that it is told each one, and once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from rrgdb.engine.base import Watch, WatchHit
from rrgdb.timeline.stop import Points, Stop, StopKind
from rrgdb.timeline.timeline import Timeline


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


class Hits:
    """The watch hits that were told last, on one timeline.

    Where GDB steps over an access by itself (``Arch.nonsteppable_watchpoint``), a hit is told before that access in the
    direction of the move; the next move from there passes it. A debugger that takes one watched range a stop is told
    those that the same instruction hit besides by its next moves."""

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self._last: _Last | None = None

    def forget(self) -> None:
        """The guest was moved otherwise: what comes is told anew."""
        self._last = None

    def still_to_tell(self, points: Points, backward: bool) -> Stop | None:
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

    def passing(self, points: Points, backward: bool) -> Points:
        """The points of a move that begins here."""
        last, t = self._last, self._timeline
        if last is None or not last.access or last.backward is not backward or not points.for_gdb:
            return points
        if (t.icount, t.engine.pc) != (last.icount, last.pc):
            return points
        return replace(points, passes_access=True)

    def told(
        self, stop: Stop, points: Points, backward: bool, *, access: bool = True, separately: bool = False
    ) -> Stop:
        """A move has ended so: what of it is told. ``access``: what hit is an instruction next to this position;
        ``separately``: of several watched ranges one."""
        t, last = self._timeline, self._last
        if stop.kind is StopKind.WATCHPOINT:
            first, rest = _together(stop.hits) if separately else (stop.hits, ())
            access = access and t.engine.arch.nonsteppable_watchpoint
            self._last = _Last(stop.icount, t.engine.pc, backward, rest, access)
            return replace(stop, hits=first)
        if last is not None and (last.backward is not backward or stop.icount != last.icount):
            last.stepped = (
                bool(last.rest)
                and not (points.watches or last.stepped)
                and last.backward is backward
                and stop.icount == last.icount + (-1 if backward else 1)
            )
            self._last = last if last.stepped else None
        return stop


def _armed(hit: WatchHit, watches: Sequence[Watch]) -> bool:
    return any(w.kind == hit.kind and w.address <= hit.address < w.address + w.length for w in watches)


def _together(hits: tuple[WatchHit, ...]) -> tuple[tuple[WatchHit, ...], tuple[WatchHit, ...]]:
    """The hits that one address tells, that of the first one; and the others."""
    first = max(hits, key=lambda hit: sum(other.covers(hit.place) for other in hits))
    others = [hit for hit in hits if hit is not first]
    told = (first, *(hit for hit in others if hit.covers(first.place)))
    return told, tuple(hit for hit in others if not hit.covers(first.place))
