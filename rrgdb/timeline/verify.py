"""Verification: a recording replayed from its first instruction agrees with every digest in its log, and its index does
not say less than what ran and was written."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from itertools import chain, islice
from random import Random

from rrgdb.engine.base import EngineError, Watch
from rrgdb.engine.memory import PAGE
from rrgdb.errors import Error
from rrgdb.recording.directory import INDEX
from rrgdb.recording.door import Divergence
from rrgdb.timeline.backward import Backward, Found
from rrgdb.timeline.index import Lack
from rrgdb.timeline.marks import UnusableSnapshotError
from rrgdb.timeline.stop import Points
from rrgdb.timeline.timeline import Timeline, TimelineError
from rrgdb.workers.pool import Failed, Task, WorkerError, Workers

PROGRESS = 1.0
"""seconds between two lines of progress"""
LEAST_SEGMENTS = 6
"""segments from snapshot to snapshot below which workers are not worth their start"""
PIECES = 8
"""pieces of history for each worker"""
_LACKS = 1 << 14
"""spans that are looked at again because the index may lack something of them"""
_POINTS, _WATCHES = 4096, 32
"""breakpoints and watches of one replay of such a span"""


class IndexLacksError(TimelineError):
    """The index says less than what was replayed, so searches would pass over it: one line with the span."""


class SpanError(Error):
    """A part of history cannot be verified by itself: one line."""


_ERRORS: dict[str, type[Exception]] = {
    "Divergence": Divergence,
    "EngineError": EngineError,
    "IndexLacksError": IndexLacksError,
    "TimelineError": TimelineError,
}


def verify(
    timeline: Timeline,
    say: Callable[[str], None] = lambda _text: None,
    workers: Workers | None = None,
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
    with _comparing_index(timeline):
        _replay_all(timeline, say)


@contextmanager
def _comparing_index(timeline: Timeline) -> Iterator[None]:
    """What is replayed inside, the index must not say less of. Raises IndexLacksError behind it."""
    lacks: list[Lack] = []

    def note(lack: Lack) -> None:
        if len(lacks) < _LACKS:
            lacks.append(lack)

    timeline.index.on_lack = note
    try:
        yield
    finally:
        timeline.index.on_lack = None
    for lack in lacks:
        _require_nothing(timeline, lack)


def _require_nothing(timeline: Timeline, lack: Lack) -> None:
    """That footprints hold too much is no mistake: replay once more, and see whether anything stops there."""
    step = 1 if timeline.engine.arch.name in ("i386", "x86_64") else 2
    addresses = chain.from_iterable(range(first, last + 1, step) for first, last in lack.code.tolist())
    where = f"from icount {lack.begin} to {lack.end}"
    while some := list(islice(addresses, _POINTS)):
        at = _scan(timeline, Points(dict.fromkeys(some)), lack).breakpoint
        if at is not None:
            timeline.seek(at)
            pc = timeline.engine.pc
            raise IndexLacksError(
                f"{INDEX} says that {where} nothing ran at {pc:#x}; it did, at icount {at}: remove it"
            )
    if timeline.engine.translates:
        return
    pages = chain.from_iterable(range(first, last + 1) for first, last in lack.pages.tolist())
    places = filter(None, map(timeline.engine.ram.address_of, pages))
    while watched := tuple(Watch(address, PAGE, "w") for address in islice(places, _WATCHES)):
        found = _scan(timeline, Points({}, watched, for_gdb=False), lack)
        if found.behind is not None:
            raise IndexLacksError(
                f"{INDEX} says that {where} nothing was written to the page of {found.hits[0].address:#x}; it was, "
                f"before icount {found.behind}: remove it"
            )


def _scan(timeline: Timeline, points: Points, lack: Lack) -> Found:
    found = Backward(timeline).scan(points, lack.begin, lack.end)
    if timeline.interrupted:
        raise TimelineError(f"interrupted at icount {timeline.icount}: no difference so far")
    return found


def _replay_all(timeline: Timeline, say: Callable[[str], None]) -> None:
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
    _to_the_end(timeline)


def _to_the_end(timeline: Timeline, stops: int = 0) -> None:
    _replay(timeline, timeline.end, stops)
    timeline.seek(timeline.end)
    recorded, end = timeline.log.end, timeline.guest.end
    if recorded is not None:
        text = "nothing" if end is None else f"{end.kind}:{end.value}"
        if text.encode() != recorded.payload:
            expected = recorded.payload.decode(errors="replace")
            raise timeline.door.divergence(timeline.icount, f"the end {expected}", f"ends with {text}")


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
    timeline: Timeline, spans: list[tuple[int, int]], say: Callable[[str], None], workers: Workers, stops: int
) -> bool:
    """Whether workers could verify all of history. Raises what verifying it alone would raise first."""
    tasks = (Task("verify", begin, end, (stops,)) for begin, end in spans)
    try:
        with closing(workers.results(tasks, lambda: timeline.interrupted)) as results:
            done = timeline.start
            for task, result in results:
                if isinstance(result, Failed):
                    if result.error not in _ERRORS:
                        return False
                    raise _ERRORS[result.error](*result.arguments)
                done = task.end
                say(f"{done} of {timeline.end} instructions agree")
    except WorkerError as e:
        workers.close()
        say(f"{e}: verifying without")
        return False
    if timeline.interrupted:
        raise TimelineError(f"interrupted at icount {done}: no difference so far")
    return True


def verify_span(timeline: Timeline, begin: int, end: int, stops: int = 0) -> None:
    """Verify history from a snapshot at ``begin`` on, whose state has the digest recorded there, to ``end``, with
    ``stops`` on the way.

    Raises as ``verify`` does, SpanError if there is no such snapshot."""
    if begin == timeline.start:
        timeline.seek(begin)
    else:
        mark = timeline.marks.next_stored(begin - 1)
        if mark is None or mark.icount != begin:
            raise SpanError(f"there is no snapshot at icount {begin}")
        try:
            timeline.stand_at(mark)
        except (UnusableSnapshotError, Divergence) as e:
            raise SpanError(str(e)) from e
    with _comparing_index(timeline):
        if end < timeline.end:
            _replay(timeline, end, stops)
        else:
            _to_the_end(timeline, stops)


def _replay(timeline: Timeline, icount: int, stops: int = 0) -> None:
    begin = timeline.icount
    if stops:
        random = Random(begin)
        places = sorted(random.sample(range(begin + 1, icount), min(stops, max(0, icount - begin - 1))))
        for number, place in enumerate(places):
            _replay(timeline, place)
            if number % 2:
                with timeline.excursion():
                    pass
    while timeline.icount < icount:
        before = timeline.icount
        timeline.advance(icount)
        if timeline.interrupted:
            raise TimelineError(f"interrupted at icount {timeline.icount}: no difference so far")
        if timeline.icount == before or (timeline.guest.end is not None and timeline.icount < icount):
            raise timeline.door.divergence(timeline.icount, f"instructions up to {icount}", "ends")
