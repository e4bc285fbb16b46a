"""The table of where a timeline stands, row by row, and nothing but its rows."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from rrgdb.recording.door import Mode
from rrgdb.timeline.checkpoints import Mark
from rrgdb.timeline.where import (
    AtPresent,
    Divert,
    Diverted,
    Drop,
    Event,
    InHistory,
    Leave,
    Return,
    Run,
    Where,
    Whereabouts,
    after,
)

PRESENT, ORIGIN = Mark(50, None, None), Mark(20, None, None)
AT_REST, LIVE = InHistory(), InHistory(PRESENT)
DIVERT = Divert(ORIGIN, b"registers")
EVENTS: tuple[Event, ...] = (Leave(PRESENT), Return(), DIVERT, Run(), Drop())


def diverted(history: InHistory, *, ran: bool = False) -> Diverted:
    return Diverted(history, ORIGIN, b"registers", ran)


ROWS: list[tuple[Where, Event, Where]] = [
    (AtPresent(), Leave(PRESENT), LIVE),
    (LIVE, Return(), AtPresent()),
    *((history, DIVERT, diverted(history)) for history in (AT_REST, LIVE)),
    *((diverted(h, ran=ran), Run(), diverted(h, ran=True)) for h in (AT_REST, LIVE) for ran in (False, True)),
    *((diverted(h, ran=ran), Drop(), h) for h in (AT_REST, LIVE) for ran in (False, True)),
]
STATES: list[Where] = [
    AT_REST,
    LIVE,
    AtPresent(),
    *(diverted(h, ran=r) for h in (AT_REST, LIVE) for r in (False, True)),
]


def test_every_row() -> None:
    for where, event, then in ROWS:
        assert after(where, event) == then


def test_nothing_else_happens() -> None:
    known = [(where, event) for where, event, _ in ROWS]
    others = [(where, event) for where in STATES for event in EVENTS if (where, event) not in known]
    assert len(others) == len(STATES) * len(EVENTS) - len(ROWS)
    for where, event in others:
        with pytest.raises(ValueError, match=f"{type(event).__name__} where the timeline is {type(where).__name__}"):
            after(where, event)


@pytest.fixture
def parts() -> Any:
    return SimpleNamespace(engine=SimpleNamespace(icount=7), door=SimpleNamespace(), log=SimpleNamespace(last=90))


def whereabouts(parts: Any, *, live: bool) -> Whereabouts:
    return Whereabouts(parts.engine, parts.door, parts.log, live=live)


def test_the_door_is_as_it_must_be_there(parts: Any) -> None:
    where = whereabouts(parts, live=False)
    assert parts.door.mode is Mode.REPLAY
    where = whereabouts(parts, live=True)
    modes = [parts.door.mode]
    for event in (Leave(PRESENT), DIVERT, Run(), Drop(), Return()):
        where.happens(event)
        modes.append(parts.door.mode)
    assert modes == [Mode.RECORD, Mode.REPLAY, Mode.DIVERT, Mode.DIVERT, Mode.REPLAY, Mode.RECORD]


def test_an_event_that_cannot_happen_changes_nothing(parts: Any) -> None:
    where = whereabouts(parts, live=False)
    with pytest.raises(ValueError, match="Return"):
        where.happens(Return())
    assert (where.now, parts.door.mode) == (AT_REST, Mode.REPLAY)


def test_history_ends_at_the_present_or_with_the_log(parts: Any) -> None:
    at_rest, live = (whereabouts(parts, live=live) for live in (False, True))
    for events in ((), (DIVERT,), (Run(),), (Drop(),)):
        for event in events:
            at_rest.happens(event)
        assert (at_rest.live, at_rest.end, at_rest.present) == (False, 90, None)
    assert (live.live, live.end, live.present) == (True, 7, None)
    for event in (Leave(PRESENT), DIVERT, Drop()):
        live.happens(event)
        assert (live.live, live.end, live.present) == (True, 50, PRESENT)
