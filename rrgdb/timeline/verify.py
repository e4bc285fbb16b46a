"""Verification: a recording replayed from its first instruction agrees with every digest in its log."""

from __future__ import annotations

import time
from collections.abc import Callable

from rrgdb.timeline.timeline import Timeline, TimelineError

PROGRESS = 1.0
"""seconds between two lines of progress"""


def verify(timeline: Timeline, say: Callable[[str], None] = lambda _text: None) -> int:
    """Replay everything; returns the number of digests that were compared.

    Raises Divergence naming the icount interval in which something differs first, TimelineError if the replay ends
    early.
    """
    timeline.seek(timeline.start)
    checked = 0
    spoken = time.monotonic()
    for event in timeline.log.digests:
        _replay(timeline, event.icount)
        timeline.check_digest()
        checked += 1
        if time.monotonic() - spoken >= PROGRESS:
            spoken = time.monotonic()
            say(f"{event.icount} of {timeline.end} instructions, {checked} digests agree")
    _replay(timeline, timeline.end)
    recorded, end = timeline.log.end, timeline.guest.end
    if recorded is not None:
        text = "nothing" if end is None else f"{end.kind}:{end.value}"
        if text.encode() != recorded.payload:
            raise TimelineError(
                f"at icount {timeline.icount} the guest ends with {text}, recorded is {recorded.payload.decode()}"
            )
    return checked


def _replay(timeline: Timeline, icount: int) -> None:
    while timeline.icount < icount:
        before = timeline.icount
        timeline.advance(icount)
        if timeline.interrupted:
            raise TimelineError(f"interrupted at icount {timeline.icount}: no difference so far")
        if timeline.icount == before or (timeline.guest.end is not None and timeline.icount < icount):
            raise TimelineError(f"the guest ends at icount {timeline.icount}, the recording goes on to {icount}")
