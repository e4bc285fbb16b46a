"""Framing: what goes out comes in again however it is cut, and damage is noticed."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rrgdb.rsp.packets import Decoder, Event, FramingError, Packet, Rejected, Signal, encode, expand

PAYLOADS = st.binary(max_size=300) | st.lists(
    st.tuples(st.sampled_from(b"#$}*\x03 0a+-]"), st.integers(1, 210)), max_size=5
).map(lambda runs: b"".join(bytes((c,)) * n for c, n in runs))


def feed_cut(decoder: Decoder, data: bytes, cuts: list[int]) -> list[Event]:
    events: list[Event] = []
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    for start, end in pairwise(edges):
        events += decoder.feed(data[start:end])
    return events


@given(st.lists(PAYLOADS, max_size=4), st.lists(st.integers(0, 5000), max_size=8))
def test_what_is_encoded_is_decoded_however_it_is_cut(payloads: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(encode(payload) for payload in payloads)
    assert feed_cut(Decoder(), stream, cuts) == [Packet(payload) for payload in payloads]


@given(PAYLOADS)
def test_frames_hold_no_byte_that_means_something_else(payload: bytes) -> None:
    frame = encode(payload)
    body, checksum = frame[1:-3], frame[-2:]
    assert not re.search(rb"[#$]", body)
    assert int(checksum, 16) == sum(body) % 256
    for match in re.finditer(rb"[^*}](\*)(.)", body, re.DOTALL):
        assert match[2] not in b"#$+-"


@pytest.mark.parametrize("length", range(1, 220))
def test_a_run_is_never_longer_than_plain_and_comes_back(length: int) -> None:
    body = encode(b"0" * length)[1:-3]
    assert len(body) <= length
    assert expand(body) == b"0" * length
    assert not re.search(rb"\*[#$+-]", body)
    if length >= 100:
        assert len(body) < 20


@pytest.mark.parametrize(
    ("frame", "payload"),
    [
        (b"$OK#9a", b"OK"),
        (b"$OK#9A", b"OK"),
        (b"$#00", b""),
        (b"$0* #7a", b"0000"),  # the manual's example: "0* " is "0000"
        (b"$X}\x03#d8", b"X#"),
        (b"garbage+$OK#9a", b"OK"),
        (b"$lost$OK#9a", b"OK"),
    ],
)
def test_frames_by_hand(frame: bytes, payload: bytes) -> None:
    packets = [event for event in Decoder().feed(frame) if isinstance(event, Packet)]
    assert packets == [Packet(payload)]


def test_signals_between_packets() -> None:
    events = Decoder().feed(b"+-\x03$g#67\x03")
    assert events == [Signal.ACK, Signal.NACK, Signal.INTERRUPT, Packet(b"g"), Signal.INTERRUPT]


def test_junk_is_told_once_however_long() -> None:
    events = Decoder().feed(b"junk and more+junk$g#67\n")
    assert events == [Signal.JUNK, Signal.ACK, Signal.JUNK, Packet(b"g"), Signal.JUNK]


def test_interrupt_byte_inside_a_packet_is_data() -> None:
    assert Decoder().feed(encode(b"X0,1:\x03")) == [Packet(b"X0,1:\x03")]


def test_bad_checksum_and_the_packet_after_it() -> None:
    assert Decoder().feed(b"$g#68$g#zz$g#67") == [Signal.BAD_CHECKSUM, Signal.BAD_CHECKSUM, Packet(b"g")]


def test_notifications_are_ignored() -> None:
    assert Decoder().feed(b"%Stop:T05#ff$g#67") == [Packet(b"g")]


@pytest.mark.parametrize("body", [b"*!", b"0*", b"0*\x1c", b"0*\x7f", b"a}", b"0* *"])
def test_meaningless_bodies(body: bytes) -> None:
    with pytest.raises(FramingError):
        expand(body)
    frame = b"$%b#%02x" % (body, sum(body) % 256)
    assert [type(event) for event in Decoder().feed(frame + b"$g#67")] == [Rejected, Packet]


@pytest.mark.parametrize("chunk", [1, 7, 64, 10_000])
def test_oversized_frame_is_dropped_in_bounded_memory(chunk: int) -> None:
    decoder = Decoder(limit=100)
    stream = b"$" + b"x" * 5000 + b"#00" + b"$g#67"
    events: list[Event] = []
    for start in range(0, len(stream), chunk):
        events += decoder.feed(stream[start : start + chunk])
        assert len(decoder._body) <= 100
    assert [type(event) for event in events] == [Rejected, Packet]


def test_a_run_cannot_blow_up_a_packet() -> None:
    with pytest.raises(FramingError, match="longer"):
        expand(b"0*~" * 100, limit=1000)


@given(st.binary(max_size=400), st.lists(st.integers(0, 400), max_size=6))
def test_any_bytes_give_the_same_events_however_they_are_cut(data: bytes, cuts: list[int]) -> None:
    assert feed_cut(Decoder(limit=50), data, cuts) == Decoder(limit=50).feed(data)
