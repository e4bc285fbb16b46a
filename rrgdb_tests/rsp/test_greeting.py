"""Who is taken for a debugger, and who is not. Time is the tests' own."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair

from rrgdb.rsp.connection import greet
from rrgdb.rsp.greeting import FirstWords, Greeting, StrangerError
from rrgdb.rsp.packets import Packet, Signal, encode

KILL = encode(b"k")
POST = b"POST / HTTP/1.1\r\nHost: 127.0.0.1:1234\r\nContent-Type: text/plain\r\n\r\n" + KILL
STRANGERS = [
    POST,
    b"GET / HTTP/1.1\r\n\r\n" + KILL,
    b"OPTIONS * HTTP/1.1\r\n\r\n" + KILL,
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + KILL,
    b"\x16\x03\x01\x02\x00\x01\x00" + KILL,
    b"\r\n" + KILL,
    b"%Stop:T05#ff" + KILL,
    b"\x00" + KILL,
    b"+" + POST,
    b"+\r\n" + KILL,
    b"-" + POST,
    b"\x03" + POST,
    b"+%x#00" + POST,
    b"$POST#00" + POST,
]
DEBUGGERS = [
    (b"+" + encode(b"qSupported:multiprocess+"), b"qSupported:multiprocess+"),  # GDB
    (b"+" + encode(b"QStartNoAckMode"), b"QStartNoAckMode"),  # LLDB
    (encode(b"?"), b"?"),
    (b"-" + encode(b"?"), b"?"),
    (b"\x03" + encode(b"?"), b"?"),
    (b"++" + encode(b"?") + b"what comes later", b"?"),
]


def in_pieces(said: bytes, piece: int) -> tuple[bytes, Greeting | None]:
    """What is answered to one who sends ``piece`` bytes at a time, and the greeting."""
    words = FirstWords()
    answers = b""
    for start in range(0, len(said), piece):
        answer, greeting = words.feed(said[start : start + piece])
        answers += answer
        if greeting is not None:
            return answers, greeting
    return answers, None


@pytest.mark.parametrize("said", STRANGERS)
@pytest.mark.parametrize("piece", [1, 1000])
def test_a_stranger_is_found_out_before_its_packets(said: bytes, piece: int) -> None:
    with pytest.raises(StrangerError, match="nothing that a debugger sends"):
        in_pieces(said, piece)


@pytest.mark.parametrize(("said", "first"), DEBUGGERS)
@pytest.mark.parametrize("piece", [1, 1000])
def test_a_debugger_is_known_by_its_first_packet(said: bytes, first: bytes, piece: int) -> None:
    answer, greeting = in_pieces(said, piece)
    assert answer == b""
    assert greeting is not None
    assert greeting.events[0] == Packet(first)


def test_what_comes_behind_the_first_packet_is_kept() -> None:
    words = FirstWords()
    assert words.feed(b"+$qC#00\x03") == (b"-", None)
    answer, greeting = words.feed(b"$qC#00" + encode(b"qC") + b"\x03$g")
    assert answer == b"-"
    assert greeting is not None
    assert greeting.events == [Packet(b"qC"), Signal.INTERRUPT]
    assert greeting.decoder.feed(b"#67") == [Packet(b"g")]


async def test_a_stranger_gets_no_answer() -> None:
    ours, theirs = memory_stream_pair()
    await theirs.send_all(POST)
    with pytest.raises(StrangerError, match="nothing that a debugger sends"):
        await greet(ours)
    await ours.aclose()
    assert await theirs.receive_some() == b""


async def test_a_first_packet_that_was_damaged_is_asked_for_again() -> None:
    ours, theirs = memory_stream_pair()
    await theirs.send_all(b"+$qC#00")
    async with trio.open_nursery() as nursery:

        async def again() -> None:
            assert await theirs.receive_some() == b"-"
            await theirs.send_all(encode(b"qC") + b"\x03")

        nursery.start_soon(again)
        greeting = await greet(ours)
    assert greeting is not None
    assert greeting.events == [Packet(b"qC"), Signal.INTERRUPT]


async def test_one_that_leaves_without_a_word_is_nobody() -> None:
    ours, theirs = memory_stream_pair()
    await theirs.send_all(b"+")
    await theirs.aclose()
    assert await greet(ours) is None


@pytest.mark.parametrize("noise", [b"", b"+", b"\x03", b"$m8000"])
async def test_silence_and_noise_end_after_thirty_seconds(noise: bytes, autojump_clock: MockClock) -> None:
    ours, theirs = memory_stream_pair()
    began = trio.current_time()
    async with trio.open_nursery() as nursery:

        async def keep_busy() -> None:
            while True:
                await theirs.send_all(noise)
                await trio.sleep(1)

        nursery.start_soon(keep_busy)
        with pytest.raises(StrangerError, match="no packet came within 30 s"):
            await greet(ours)
        nursery.cancel_scope.cancel()
    assert trio.current_time() - began == 30
