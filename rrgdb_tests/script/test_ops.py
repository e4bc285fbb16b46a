"""Operations as bytes: every one comes back, and nothing else is taken."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import rrgdb
from rrgdb import opening
from rrgdb.engine.base import EngineError
from rrgdb.recording.door import Divergence
from rrgdb.recording.events import Event, EventKind
from rrgdb.script.guest import ScriptGuest
from rrgdb.script.machine import DeviceRange, Hook, Layout, Piece
from rrgdb.script.ops import SOURCE, Answer, Kind, Op, decode, encode_answer
from rrgdb.timeline.timeline import TimelineError
from rrgdb_tests.script import programs
from rrgdb_tests.script.rig import CODE, PAGE, Trace, new_uc

U32, U64 = st.integers(0, (1 << 32) - 1), st.integers(0, (1 << 64) - 1)
I32, I64 = st.integers(-(1 << 31), (1 << 31) - 1), st.integers(-(1 << 63), (1 << 63) - 1)
OPS = st.one_of(
    st.builds(lambda n, d: Op(Kind.REGISTER, (n,), d), I32, st.binary(max_size=64)),
    st.builds(lambda a, d: Op(Kind.WRITE, (a,), d), U64, st.binary(max_size=64)),
    st.builds(lambda *f: Op(Kind.MAP, f), U64, U64, U32, U64),
    st.builds(lambda *f: Op(Kind.DEVICE, f), U64, U64, U32, U32),
    st.builds(lambda *f: Op(Kind.HOOK, f), U32, U32, U64, U64, I64, I64),
    st.builds(lambda d: Op(Kind.CONTEXT, (), d), st.binary(max_size=64)),
    st.just(Op(Kind.STOP)),
)


@given(st.lists(OPS, max_size=6))
def test_operations_come_back(ops: list[Op]) -> None:
    assert list(decode(b"".join(op.encode() for op in ops))) == ops


@given(U32, U32, I64, st.lists(OPS, max_size=6))
def test_answers_come_back(call: int, hook: int, value: int, ops: list[Op]) -> None:
    parts = [Answer.decode(raw) for raw in encode_answer(call, hook, value, [op.encode() for op in ops])]
    assert [p.last for p in parts] == [False] * (len(parts) - 1) + [True]
    assert parts[-1].value == value & (1 << 64) - 1
    assert [op for p in parts for op in decode(p.ops)] == ops


def test_a_long_answer_has_several_parts() -> None:
    ops = [Op(Kind.WRITE, (i,), bytes(1 << 19)).encode() for i in range(4)]
    parts = list(encode_answer(0, 1, 5, ops))
    assert len(parts) > 1
    assert all(len(p) < 1 << 20 for p in parts)
    assert b"".join(Answer.decode(p).ops for p in parts) == b"".join(ops)


@given(st.binary(max_size=80))
def test_any_bytes_are_taken_or_refused(raw: bytes) -> None:
    for take in (lambda: list(decode(raw)), lambda: Answer.decode(raw), lambda: Layout.decode(raw)):
        with suppress(ValueError):
            take()


def _damaged(path: Path, change: Any) -> None:
    """Make the events of a recording others, with a log that is whole."""
    with rrgdb.open(path) as recording:
        log = recording._timeline.log
        events = [*log.answers, *log.inputs, *log.digests]
        recording_id, horizon = log.recording_id, log.horizon
    (path / "events.log").unlink()
    log = type(log).create(path / "events.log", recording_id)
    order = {EventKind.INPUT: 0, EventKind.DIGEST: 1, EventKind.ANSWER: 2}
    for event in sorted(map(change, events), key=lambda e: (e.icount, order[e.kind])):
        log.append(event)
    log.close_chunk(horizon)
    log.close()
    (path / "snapshots.qcow2").unlink()


def test_memory_lies_within_what_rrgdb_keeps(tmp_path: Path) -> None:
    """An operation that maps what lies behind it would give the guest the process's own memory."""
    uc, path = new_uc("x86_64"), tmp_path / "r"
    with rrgdb.attach(uc, path, memory=1 << 20):
        programs.run(uc, "x86_64", Trace())
    beyond = Op(Kind.MAP, (0x40_0000, 0x1000, 7, 1 << 20)).encode()

    def change(event: Event) -> Event:
        maps = event.kind is EventKind.INPUT and event.source == SOURCE and event.payload[0] == Kind.MAP
        return event._replace(payload=beyond) if maps else event

    _damaged(path, change)
    with pytest.raises(EngineError, match="4096 bytes at offset 1048576 of 1048576 bytes of RAM"):
        rrgdb.open(path).close()


@pytest.mark.parametrize(
    ("op", "message"),
    [
        (Op(Kind.HOOK, (3, 4, 1, 0, 0, 0)), "there is a hook 3 already"),
        (Op(Kind.DEVICE, (0x40_0000, (1 << 36) + PAGE, 1, 2)), "a device of 68719480832 bytes"),
        (Op(Kind.DEVICE, (0x40_0000, (1 << 64) - PAGE, 1, 2)), "a device of"),
        (Op(Kind.MAP, (CODE, PAGE, 7, 0)), "MAP at icount"),
        (Op(Kind.MAP, (0x40_0000, PAGE, 8, PAGE)), "MAP at icount"),
        (Op(Kind.PROTECT, (CODE, PAGE, 1 << 31)), "PROTECT at icount"),
    ],
)
def test_operations_that_no_script_can_have_done_are_told(op: Op, message: str, tmp_path: Path) -> None:
    """In place of the last operation between the two runs."""
    uc, path = new_uc("x86_64"), tmp_path / "r"
    with rrgdb.attach(uc, path):
        programs.run(uc, "x86_64", Trace())
    seen = []

    def change(event: Event) -> Event:
        if event.kind is not EventKind.INPUT or event.payload[0] != Kind.REGISTER:
            return event
        seen.append(event)
        return event._replace(payload=op.encode())

    _damaged(path, change)
    assert seen
    with pytest.raises(EngineError, match=message), rrgdb.open(path) as recording:
        recording.seek(recording.end)


BAD_LAYOUTS = {
    "a piece of memory beyond all": Layout(pieces=(Piece(CODE, PAGE, 7, 1 << 30),)),
    "pieces of memory on each other": Layout(pieces=(Piece(CODE, PAGE, 7, 0), Piece(CODE, PAGE, 7, PAGE))),
    "a device of the size of everything": Layout(devices=(DeviceRange(0, (1 << 64) - PAGE, 1, 2),)),
    "memory of unknown permissions": Layout(pieces=(Piece(CODE, PAGE, 1 << 3, 0),)),
    "a hook twice": Layout(hooks=(Hook(1, 4, 1, 0, 0, 0),) * 2),
    "a hook of no type": Layout(hooks=(Hook(1, 1 << 31, 1, 0, 0, 0),)),
}


@pytest.mark.parametrize("what", BAD_LAYOUTS)
def test_a_machine_that_cannot_be_made_is_told_and_left_behind(what: str, tmp_path: Path) -> None:
    uc, path = new_uc("x86_64"), tmp_path / "r"
    with rrgdb.attach(uc, path, memory=1 << 20):
        programs.run(uc, "x86_64", Trace())
    with rrgdb.open(path) as recording:
        recording.seek(50)
        right = recording.state_digest()
        guest = recording._opened.guest
        assert isinstance(guest, ScriptGuest)
        with pytest.raises(EngineError):
            guest.machine.become(BAD_LAYOUTS[what])
        recording.seek(0)
        recording.seek(50)
        assert recording.state_digest() == right
        assert recording.verify() > 0


@pytest.mark.parametrize("kind", [EventKind.ANSWER, EventKind.INPUT])
@pytest.mark.parametrize("at", [1, 7, 9])
@pytest.mark.parametrize("to", [b"", b"\xff" * 40, bytes(17)])
def test_damaged_events_are_told(kind: EventKind, at: int, to: bytes, tmp_path: Path) -> None:
    uc, path = new_uc("x86_64"), tmp_path / "r"
    with rrgdb.attach(uc, path):
        programs.run(uc, "x86_64", Trace())
    seen = [0]

    def change(event: Event) -> Event:
        if event.kind is not kind or event.source != SOURCE:
            return event
        seen[0] += 1
        return event._replace(payload=to) if seen[0] == at + 1 else event

    _damaged(path, change)
    assert seen[0] > at
    with pytest.raises((EngineError, Divergence, TimelineError)) as caught, opening.replay(path) as opened:
        rrgdb.Recording(opened).verify()
    assert "\n" not in str(caught.value)
