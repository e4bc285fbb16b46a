"""Checkpoints behind the position, made while nobody waits for an answer.

Whoever looks at one place goes back and forth around it, and sooner or later over the snapshot in front of which a
whole segment lies. So, while the guest rests in history, it is taken back and replayed up to where checkpoints are
missing. Then it is put back into the very state that it was in: nobody can tell. Where steps back follow each other
without a rest, each pays for a little of it as soon as the snapshot is near.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from rrgdb.engine.base import EngineError, ExitKind
from rrgdb.recording.door import Divergence
from rrgdb.timeline.marks import UnusableSnapshotError
from rrgdb.timeline.timeline import NEAR, Timeline, TimelineError

REACH = 1 << 20
"""instructions before the position that are prepared"""
PIECE = 1 << 18
"""instructions of the way between two looks at what has changed, and at the clock"""
MAX_PAGES = 1024
"""pages that may differ between the position and where the guest is taken: they have to be put back in no time"""
WALK = 4
"""single steps back in a row that are taken for a walk"""
AHEAD = 4096
"""instructions behind a snapshot from which on a walk prepares for what lies before it"""
PAYS = 0.005
"""seconds that a step of a walk may take longer for it; so far apart are checkpoints on the way"""
LIGHT = 512
"""pages written since the last one that a checkpoint on the way may cost"""


class Preparation:
    """What is to be prepared around the position of a timeline."""

    def __init__(self, timeline: Timeline, clock: Callable[[], float] = time.monotonic) -> None:
        self._timeline = timeline
        self._clock = clock
        self._done = -1
        self._arrived = -1
        self._walked = 0
        self._hopeless = -1

    @property
    def due(self) -> bool:
        """Whether ``work`` may have something to do here."""
        t = self._timeline
        return t.in_history and t.icount != self._done

    def stepped_back(self, begin: int) -> None:
        """A single step back from ``begin`` has arrived."""
        t = self._timeline
        here = t.icount
        self._walked = self._walked + 1 if begin == self._arrived else 1
        self._arrived = here
        if self._walked < WALK or not t.in_history or t.interrupted:
            return
        snapshot = t.marks.stored_before(here + 1)
        if snapshot in (None, t.start, self._hopeless) or here - snapshot > AHEAD:
            return
        known = t.marks.best(snapshot - 1).icount
        if snapshot - known > PIECE:
            self.work(PAYS)
            if t.marks.best(snapshot - 1).icount == known:
                self._hopeless = snapshot

    def work(self, seconds: float = math.inf) -> None:
        """Make what is missing, for about so long; ``Timeline.interrupt`` ends it early. What was made stays."""
        t = self._timeline
        until = self._clock() + seconds
        here = t.icount
        missing = self._missing(here)
        begin = t.marks.best(missing[0]) if missing else None
        if begin is None or t.marks.apart(begin) > MAX_PAGES:
            self._done = here
            return
        whole = True
        try:
            with t.excursion():
                t.put_back(begin)
                whole = self._go_through(missing, here, until)
        except (Divergence, EngineError, TimelineError, UnusableSnapshotError):
            pass  # whoever goes there is told
        if whole:
            self._done = here

    def _missing(self, here: int) -> list[int]:
        """Positions, ascending, near which there is no mark. One at half or twice the distance is as good."""
        t = self._timeline
        found = []
        for distance in NEAR:
            at = here - distance
            if at <= t.start or distance > REACH:
                break
            if t.marks.best(here - distance // 2).icount < here - 2 * distance:
                found.append(at)
        return found[::-1]

    def _go_through(self, positions: list[int], home: int, until: float) -> bool:
        """Leave checkpoints at ``positions``, and some between; whether there is nothing left to do."""
        t = self._timeline
        kept = self._clock()
        for at in positions:
            while t.icount < at:
                exit_ = t.advance(min(at, t.icount + PIECE))
                if t.interrupted:
                    return False
                if exit_.kind is not ExitKind.LIMIT or t.guest.end is not None:
                    return True
                written, now = len(t.engine.ram.dirty()), self._clock()
                if t.icount == at or (written <= LIGHT and now >= min(kept + PAYS, until)):
                    t.marks.keep([t.marks.detached_here()], home)
                    kept = now
                if written > MAX_PAGES:
                    return True
                if now >= until:
                    return False
        return True
