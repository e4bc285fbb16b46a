"""A part of history replayed, with the last hits in it noted."""

from __future__ import annotations

from dataclasses import dataclass

from rrgdb.engine.base import ExitKind, WatchHit, armed
from rrgdb.timeline.checkpoints import Mark
from rrgdb.timeline.stop import Points
from rrgdb.timeline.timeline import Timeline

PIECES, LEAST_PIECE = 8, 200_000
"""a segment is replayed in so many pieces, of so many instructions or more, with a mark between two"""


@dataclass(slots=True)
class Found:
    """The last hits in a segment. ``breakpoint``: its position; ``behind``: the position behind the access that hit a
    watch."""

    breakpoint: int | None = None
    behind: int | None = None
    hits: tuple[WatchHit, ...] = ()

    @property
    def watch(self) -> int | None:
        """The position before the access: on the way back it stops there."""
        return None if self.behind is None else self.behind - 1

    def last_stop(self, floor: int) -> int | None:
        """The last position, of those from ``floor`` on, at which something stops."""
        return max((at for at in (self.watch, self.breakpoint) if at is not None and at >= floor), default=None)


def scan(timeline: Timeline, points: Points, begin: int, end: int, on_the_way: list[Mark] | None = None) -> Found:
    """Replay [begin, end) and note the last hits. ``on_the_way`` takes marks, so that going to one is short."""
    t = timeline
    t.seek(begin)
    found = Found()
    piece = end - begin if on_the_way is None else max((end - begin) // PIECES, LEAST_PIECE)
    stops = points.stops(collect=True)
    with armed(t.engine, stops):
        at = min(begin + piece, end)
        while t.icount < end and not t.interrupted:
            exit_ = t.advance(at)
            if exit_.kind is ExitKind.BREAKPOINT:
                if t.icount < end and _holds(t, points):
                    found.breakpoint = t.icount
                t.engine.arm(stops, ignored_at=t.icount)
            elif t.guest.end is not None:
                break
            elif on_the_way is not None and t.icount == at < end:
                on_the_way.append(t.marks.detached_here())
                at = min(at + piece, end)
        last = t.engine.collected()
        if last.breakpoint is not None and last.breakpoint < end:
            found.breakpoint = max(last.breakpoint, -1 if found.breakpoint is None else found.breakpoint)
        found.behind, found.hits = last.watch, last.hits
    return found


def _holds(timeline: Timeline, points: Points) -> bool:
    condition = points.breakpoints.get(timeline.engine.pc)
    return condition is None or condition()
