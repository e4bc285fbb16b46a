"""What may be done on a part of history by itself, here or elsewhere: functions of (timeline, span, stops), whose
arguments and results are data (see ``rrgdb.workers.executor``)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from random import Random

from rrgdb.engine.base import EngineError, Stops, Watch
from rrgdb.engine.memory import PAGE
from rrgdb.errors import Error
from rrgdb.recording.directory import INDEX
from rrgdb.recording.door import Divergence
from rrgdb.recording.index import Entry
from rrgdb.timeline.conditions import agent_condition
from rrgdb.timeline.index import Lack
from rrgdb.timeline.marks import UnusableSnapshotError
from rrgdb.timeline.scan import Found, scan
from rrgdb.timeline.stop import Points
from rrgdb.timeline.timeline import Timeline, TimelineError

_LACKS = 1 << 14
"""spans that are looked at again because the index may lack something of them"""
_POINTS, _WATCHES = 4096, 32
"""breakpoints and watches of one replay of such a span"""
_PAGES = 1024
"""pages that are compared where a guest translates addresses"""


class IndexLacksError(TimelineError):
    """The index says less than what was replayed, so searches would pass over it: one line with the span."""


class SpanError(Error):
    """A part of history cannot be verified by itself: one line."""


TOLD = (Divergence, EngineError, SpanError, TimelineError)
"""how a task may fail"""


def portable(points: Points) -> Stops | None:
    """Points for another process. None if there is a condition without code."""
    stops = points.stops()
    return None if any(codes == () for _, codes in stops.breakpoints) else stops


def _points(stops: Stops, timeline: Timeline) -> Points:
    engine = timeline.engine
    conditions = {a: None if code is None else agent_condition(engine, code) for a, code in stops.breakpoints}
    return Points(conditions, stops.watches)


@dataclass(frozen=True, slots=True)
class Scanned:
    """``noted``: what the index learnt on the way."""

    found: Found
    noted: tuple[Entry, ...]


def scan_span(timeline: Timeline, begin: int, end: int, stops: Stops) -> Scanned:
    """A task: the last hits in [begin, end)."""
    noted: list[Entry] = []
    timeline.index.on_note = noted.append
    return Scanned(scan(timeline, _points(stops, timeline), begin, end), tuple(noted))


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
    with comparing_index(timeline):
        if end < timeline.end:
            replay_until(timeline, end, stops)
        else:
            to_the_end(timeline, stops)


def replay_until(timeline: Timeline, icount: int, stops: int = 0) -> None:
    """Run on in history, stopping so often on the way, and saving and putting back every other time. Raises Divergence,
    TimelineError if it is interrupted."""
    begin = timeline.icount
    if stops:
        random = Random(begin)
        places = sorted(random.sample(range(begin + 1, icount), min(stops, max(0, icount - begin - 1))))
        for number, place in enumerate(places):
            replay_until(timeline, place)
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


def to_the_end(timeline: Timeline, stops: int = 0) -> None:
    """The same to the end of history, which must be the recorded one."""
    replay_until(timeline, timeline.end, stops)
    timeline.seek(timeline.end)
    recorded, end = timeline.log.end, timeline.guest.end
    if recorded is not None:
        text = "nothing" if end is None else f"{end.kind}:{end.value}"
        if text.encode() != recorded.payload:
            expected = recorded.payload.decode(errors="replace")
            raise timeline.door.divergence(timeline.icount, f"the end {expected}", f"ends with {text}")


@contextmanager
def comparing_index(timeline: Timeline) -> Iterator[None]:
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
    step = timeline.engine.arch.instruction_alignment
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
    pages = chain.from_iterable(range(first, last + 1) for first, last in lack.pages.tolist())
    places = filter(None, map(timeline.engine.ram.address_of, pages))
    if timeline.engine.translates:
        _require_same(timeline, lack, list(islice(places, _PAGES)), where)
        return
    while watched := tuple(Watch(address, PAGE, "w") for address in islice(places, _WATCHES)):
        found = _scan(timeline, Points({}, watched), lack)
        if found.behind is not None:
            raise IndexLacksError(
                f"{INDEX} says that {where} nothing was written to the page of {found.hits[0].address:#x}; it was, "
                f"before icount {found.behind}: remove it"
            )


def _require_same(timeline: Timeline, lack: Lack, places: list[int], where: str) -> None:
    """Watches are of virtual addresses: here pages are looked at that are others behind what was replayed."""
    held = []
    for icount in (lack.begin, lack.end):
        timeline.seek(icount)
        held.append([timeline.engine.ram.read(place, PAGE) for place in places])
    for place, before, behind in zip(places, *held, strict=True):
        if before != behind:
            raise IndexLacksError(
                f"{INDEX} says that {where} nothing was written to the page of {place:#x}; it was: remove it"
            )


def _scan(timeline: Timeline, points: Points, lack: Lack) -> Found:
    found = scan(timeline, points, lack.begin, lack.end)
    if timeline.interrupted:
        raise TimelineError(f"interrupted at icount {timeline.icount}: no difference so far")
    return found
