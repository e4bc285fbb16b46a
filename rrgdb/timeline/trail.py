"""Checkpoints that a run forward through history leaves on its way.

Whoever runs to a breakpoint often steps back from there, and the last snapshot may lie 0.05 s of replay before it.
Nobody knows where a run will stop, so it leaves a checkpoint every now and then, and only the latest of its own stay.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from rrgdb.timeline.checkpoints import Mark
from rrgdb.timeline.marks import Marks

STRIDE = 0.006
"""seconds of the thread's own time between two checkpoints, at least"""
SHARE = 10
"""... and so many times what the last one took"""
KEPT = 2
"""checkpoints of a trail that stay: the latest may lie just before the stop"""
LEAST, MOST = 1 << 20, 1 << 30
"""instructions between two looks at the clock"""


class Trail:
    """The checkpoints of one timeline's runs. A run that goes on where the one before ended continues its trail."""

    def __init__(self, marks: Marks, clock: Callable[[], float] = time.thread_time) -> None:
        self._marks = marks
        self._clock = clock
        self._kept: list[Mark] = []
        self._piece = LEAST
        self._wait = STRIDE
        self._since = 0.0
        self._icount = -1
        self._time = 0.0

    def begin(self, icount: int) -> None:
        """A run begins at a position."""
        if icount != self._icount:
            self._kept.clear()
            self._since = 0.0
            self._piece = LEAST
        self._icount, self._time = icount, self._clock()

    def next_look(self) -> int:
        """Position at which ``look`` is to be called next."""
        return self._icount + self._piece

    def look(self, icount: int) -> None:
        """The run has come to a position of history, and goes on."""
        begin, seconds = self._icount, self._pass(icount)
        if self._since >= self._wait:
            self._leave_one()
        left = max(self._wait - self._since, self._wait / 4)
        speed = (icount - begin) / max(seconds, 1e-6)
        self._piece = round(min(max(left * speed, LEAST), MOST))

    def end(self, icount: int) -> None:
        """The run has ended at a position."""
        self._pass(icount)

    def _pass(self, icount: int) -> float:
        now = self._clock()
        seconds = now - self._time
        self._icount, self._time = icount, now
        self._since += seconds
        return seconds

    def _leave_one(self) -> None:
        mark = self._marks.detached_here()
        self._marks.keep([mark])
        self._kept.append(mark)
        if len(self._kept) > KEPT:
            self._marks.forget(self._kept.pop(0))
        now = self._clock()
        self._wait = max(STRIDE, SHARE * (now - self._time))
        self._since, self._time = 0.0, now
