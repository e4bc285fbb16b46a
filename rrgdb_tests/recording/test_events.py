"""Events of a chunk: the native decoder against one that is written down plainly, and lists in columns."""

from __future__ import annotations

import random
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rrgdb.recording.events import (
    MAX_PAYLOAD,
    MAX_SOURCE_NAME,
    MAX_SOURCES,
    ChunkEncoder,
    Event,
    EventKind,
    decode_chunk,
    encode_varint,
    new_lists,
)
from rrgdb_tests.recording.logs import RECORDING, all_events, opened, write_log

FIRST, HORIZON = 1000, 1 << 63


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    value = 0
    for index in range(at, min(at + 10, len(raw))):
        value |= (raw[index] & 0x7F) << 7 * (index - at)
        if raw[index] < 0x80:
            if value >= 1 << 64 or (raw[index] == 0 and index > at):
                break
            return value, index + 1
    raise ValueError("varint")


def _plainly(raw: bytes, count: int, first: int, horizon: int, names: list[str]) -> list[Event]:
    """What docs/formats.md says; ValueError or LookupError for what it does not."""
    found: list[Event] = []
    at, icount = 0, first
    for index in range(count):
        delta, at = _varint(raw, at)
        icount += delta
        source, at = raw[at], at + 1
        if source == len(names) and source < MAX_SOURCES:
            length = raw[at]
            name = raw[at + 1 : at + 1 + length]
            if len(name) != length or not 0 < length <= MAX_SOURCE_NAME or name.decode() in names:
                raise ValueError("definition")
            names.append(name.decode())
            at += 1 + length
        kind, at = raw[at], at + 1
        size, at = _varint(raw, at)
        payload = raw[at : at + size]
        over = any(event.kind is EventKind.END for event in found)
        if (index == 0 and delta) or icount > horizon or len(payload) != size or size > MAX_PAYLOAD or over:
            raise ValueError("event")
        found.append(Event(icount, EventKind(kind), names[source], payload))
        at += size
    if at != len(raw):
        raise ValueError("count")
    return found


def _agree(raw: bytes, count: int, horizon: int = HORIZON) -> bool:
    """Both decoders say the same; whether that is events."""
    names, plain_names = ["known"], ["known"]
    lists = new_lists(names)
    lists[EventKind.INPUT].append(5, 0, b"before")
    expected: list[Event] | None
    try:
        expected = _plainly(raw, count, FIRST, horizon, plain_names)
    except (ValueError, LookupError):
        expected = None
    try:
        decode_chunk(raw, count, (FIRST, horizon), names, lists)
    except ValueError:
        refused = True
    else:
        refused = False
    assert refused == (expected is None)
    if expected is None:
        return False
    assert names == plain_names
    before = Event(5, EventKind.INPUT, "known", b"before")
    for kind, events in lists.items():
        assert list(events) == [before] * (kind is EventKind.INPUT) + [e for e in expected if e.kind is kind]
    return True


def _encoded(rng: random.Random) -> tuple[bytes, int]:
    encoder = ChunkEncoder({"known": 0}, 1 << 20)
    icount = FIRST
    for _ in range(rng.randrange(1, 12)):
        kind = EventKind(rng.choice([0, 0, 0, 1, 1, 2]))
        source = rng.choice(["known", "rtc", "é" * rng.randrange(1, 32), "s" * 64])
        encoder.add(Event(icount, kind, source, rng.randbytes(rng.choice([0, 1, 9, 127, 128, 300]))))
        icount += rng.choice([0, 1, 127, 128, 1 << 20, 1 << 40])
    if rng.random() < 0.3:
        encoder.add(Event(icount, EventKind.END, "guest", b"exit:0"))
    return bytes(encoder.raw), encoder.count


def _damaged(raw: bytes, rng: random.Random) -> bytes:
    data = bytearray(raw)
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(len(data) + 1)
        what = rng.randrange(4)
        if what == 0 and at < len(data):
            data[at] = rng.choice([0, 1, 2, 3, 4, 0x7F, 0x80, 0xFF, rng.randrange(256)])
        elif what == 1:
            data[at:at] = rng.choice([b"\0", b"\xff" * 9 + b"\x01", b"\xff" * 9 + b"\x02", b"\x80\0", rng.randbytes(3)])
        elif what == 2:
            del data[at : at + rng.randrange(1, 5)]
        else:
            del data[at:]
    return bytes(data)


def test_both_decoders_agree_on_sound_and_on_damaged_chunks() -> None:
    rng = random.Random(21)
    sound = 0
    for _ in range(3000):
        raw, count = _encoded(rng)
        assert _agree(raw, count)
        sound += _agree(_damaged(raw, rng), max(0, count + rng.choice([0, 0, 0, 1, -1])))
        _agree(raw, count, FIRST + rng.randrange(1 << 20))
    assert sound > 50


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60), st.integers(0, 8))
def test_both_decoders_agree_on_any_bytes(raw: bytes, count: int) -> None:
    _agree(raw, count)


@pytest.mark.parametrize("value", [0, 1, 127, 128, (1 << 63) - 1, 1 << 63, (1 << 64) - 1])
def test_varints_at_their_limits(value: int) -> None:
    raw = b"\0\0\1\0" + encode_varint(value) + b"\0\1\0"
    names = ["known"]
    lists = new_lists(names)
    decode_chunk(raw, 2, (0, (1 << 64) - 1), names, lists)
    assert [e.icount for e in lists[EventKind.INPUT]] == [0, value]
    if value:
        with pytest.raises(ValueError, match="expected icounts up to"):
            decode_chunk(raw, 2, ((1 << 64) - value, (1 << 64) - 1), names, new_lists(names))


def test_255_sources_and_not_one_more() -> None:
    def chunk(count: int) -> bytes:
        return b"".join(bytes((0, i, 2, *b"%02x" % i, 1, 0)) for i in range(1, count + 1))

    names = ["known"]
    decode_chunk(chunk(254), 254, (0, 9), names, new_lists(names))
    assert len(names) == 255
    with pytest.raises(ValueError, match=r"source index up to 254, got 255"):
        decode_chunk(bytes((0, 255, 1, 0x78, 1, 0)), 1, (0, 9), names, new_lists(names))


def _calls_to_open(path: Path, events: int) -> int:
    """Functions called, of Python and of C, to open a log with one chunk of so many events."""
    write_log(path, [([Event(i, EventKind.ANSWER, "rtc", b"W" + bytes(8)) for i in range(events)], events)])
    calls = 0

    def count(_frame: FrameType, what: str, _argument: Any) -> None:
        nonlocal calls
        calls += what in ("call", "c_call")

    sys.setprofile(count)
    try:
        with opened(path, RECORDING) as log:
            pass
    finally:
        sys.setprofile(None)
    assert len(all_events(log)[0]) == events
    return calls


def test_opening_a_log_does_nothing_for_each_event_in_python(tmp_path: Path) -> None:
    assert _calls_to_open(tmp_path / "log", 10_000) <= _calls_to_open(tmp_path / "log", 10)


def test_events_by_source() -> None:
    names = ["rtc", "cpu", "serial0"]
    events = new_lists(names)[EventKind.ANSWER]
    assert events.by_source() == {}
    for source in (1, 0, 1, 1):
        events.append(7, source, b"")
    assert events.by_source() == {"rtc": 1, "cpu": 3}
