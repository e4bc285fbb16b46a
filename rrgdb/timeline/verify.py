"""Verification: a recording replayed from its first instruction agrees with every digest in its log, and its index does
not say less than what ran and was written."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing

from rrgdb.timeline.tasks import SpanError, comparing_index, replay_until, to_the_end, verify_span
from rrgdb.timeline.timeline import Timeline, TimelineError
from rrgdb.workers.executor import Executor, Failed, Task, WorkerError

PROGRESS = 1.0
"""seconds between two lines of progress"""
LEAST_SEGMENTS = 6
"""segments from snapshot to snapshot below which workers are not worth their start"""
PIECES = 8
"""pieces of history for each worker"""


def verify(
    timeline: Timeline,
    say: Callable[[str], None] = lambda _text: None,
    workers: Executor | None = None,
    stops: int = 0,
) -> int:
    """Replay everything; returns the number of digests that were compared. ``workers`` share a long recording.
    ``stops``: from each snapshot to the next the guest is stopped that often, and every other time saved and put back:
    none of it must change what the guest does.

    Raises Divergence naming the icount interval in which something differs first, IndexLacksError likewise,
    TimelineError if it is interrupted.
    """
    spans = _spans(timeline, len(workers), stops) if workers is not None else []
    if workers is None or len(spans) < 2 or not _verified_apart(timeline, spans, say, workers, stops):
        if stops:
            _verify_stopping(timeline, say, stops)
        else:
            _verify_alone(timeline, say)
    return len(timeline.log.digests)


def _verify_stopping(timeline: Timeline, say: Callable[[str], None], stops: int) -> None:
    for begin, end in _spans(timeline, 1, stops):
        verify_span(timeline, begin, end, stops)
        say(f"{end} of {timeline.end} instructions agree")


def _verify_alone(timeline: Timeline, say: Callable[[str], None]) -> None:
    with comparing_index(timeline):
        _replay_all(timeline, say)


def _replay_all(timeline: Timeline, say: Callable[[str], None]) -> None:
    timeline.seek(timeline.start)
    digests = timeline.log.digests
    spoken = time.monotonic()
    for event in digests:
        if event.icount > timeline.icount:
            replay_until(timeline, event.icount)
        if time.monotonic() - spoken >= PROGRESS:
            spoken = time.monotonic()
            checked = digests.index_at(timeline.icount + 1)
            say(f"{timeline.icount} of {timeline.end} instructions, {checked} digests agree")
    to_the_end(timeline)


def _spans(timeline: Timeline, workers: int, stops: int) -> list[tuple[int, int]]:
    """History from snapshot to snapshot, in pieces to be shared; a piece ends where its state's digest is compared,
    and that is where the next one begins. With ``stops`` each snapshot begins one."""
    digests = timeline.log.digests
    cuts = [timeline.start]
    for stored in timeline.marks.stored:
        i = digests.index_at(stored.icount)
        if cuts[-1] < stored.icount < timeline.end and i < len(digests) and digests.icount(i) == stored.icount:
            cuts.append(stored.icount)
    if not stops:
        if workers < 2 or len(cuts) < LEAST_SEGMENTS:
            return []
        cuts = cuts[:: max(1, len(cuts) // (PIECES * workers))]
    return list(zip(cuts, [*cuts[1:], timeline.end], strict=True))


def _verified_apart(
    timeline: Timeline, spans: list[tuple[int, int]], say: Callable[[str], None], workers: Executor, stops: int
) -> bool:
    """Whether workers could verify all of history. Raises what verifying it alone would raise first."""
    tasks = (Task(verify_span, begin, end, stops) for begin, end in spans)
    try:
        with closing(workers.results(tasks, lambda: timeline.interrupted)) as results:
            done = timeline.start
            for task, result in results:
                if isinstance(result, Failed):
                    if isinstance(result.error, SpanError | WorkerError):
                        return False
                    raise result.error
                done = task.end
                say(f"{done} of {timeline.end} instructions agree")
    except WorkerError as e:
        workers.close()
        say(f"{e}: verifying without")
        return False
    if timeline.interrupted:
        raise TimelineError(f"interrupted at icount {done}: no difference so far")
    return True
