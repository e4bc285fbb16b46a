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
    digests = timeline.log.digests
    spoken = time.monotonic()
    for event in digests:
        if event.icount > timeline.icount:
            _replay(timeline, event.icount)
        if time.monotonic() - spoken >= PROGRESS:
            spoken = time.monotonic()
            checked = digests.index_at(timeline.icount + 1)
            say(f"{timeline.icount} of {timeline.end} instructions, {checked} digests agree")
    _replay(timeline, timeline.end)
    timeline.seek(timeline.end)
    recorded, end = timeline.log.end, timeline.guest.end
    if recorded is not None:
        text = "nothing" if end is None else f"{end.kind}:{end.value}"
        if text.encode() != recorded.payload:
            raise TimelineError(
                f"at icount {timeline.icount} the guest ends with {text}, "
                f"recorded is {recorded.payload.decode(errors='replace')}"
            )
    return len(digests)


def _replay(timeline: Timeline, icount: int) -> None:
    while timeline.icount < icount:
        before = timeline.icount
        timeline.advance(icount)
        if timeline.interrupted:
            raise TimelineError(f"interrupted at icount {timeline.icount}: no difference so far")
        if timeline.icount == before or (timeline.guest.end is not None and timeline.icount < icount):
            raise TimelineError(f"the guest ends at icount {timeline.icount}, the recording goes on to {icount}")
