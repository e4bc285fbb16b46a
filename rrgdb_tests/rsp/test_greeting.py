"""Who is taken for a debugger, and who is not. Time is the tests' own."""

from __future__ import annotations

import pytest
import trio
from trio.abc import Stream
from trio.testing import MockClock, memory_stream_pair, wait_all_tasks_blocked

from rrgdb.rsp.connection import greet
from rrgdb.rsp.greeting import Greeting, StrangerError
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


async def in_pieces(ours: Stream, theirs: Stream, said: bytes, piece: int) -> Greeting | None:
    """Greet one who sends ``piece`` bytes at a time."""
    found: list[Greeting | None] = []
    failed: list[StrangerError] = []

    async def listen() -> None:
        try:
            found.append(await greet(ours))
        except StrangerError as error:
            failed.append(error)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen)
        for start in range(0, len(said), piece):
            await theirs.send_all(said[start : start + piece])
            await wait_all_tasks_blocked()
            if found or failed:
                break
    if failed:
        raise failed[0]
    return found[0]


@pytest.mark.parametrize("said", STRANGERS)
@pytest.mark.parametrize("piece", [1, 1000])
async def test_a_stranger_is_found_out_before_its_packets_and_gets_no_answer(said: bytes, piece: int) -> None:
    ours, theirs = memory_stream_pair()
    with pytest.raises(StrangerError, match="nothing that a debugger sends"):
        await in_pieces(ours, theirs, said, piece)
    await ours.aclose()
    heard = bytes(await theirs.receive_some())
    assert heard.replace(b"-", b"") == b""


@pytest.mark.parametrize(("said", "first"), DEBUGGERS)
@pytest.mark.parametrize("piece", [1, 1000])
async def test_a_debugger_is_known_by_its_first_packet(said: bytes, first: bytes, piece: int) -> None:
    ours, theirs = memory_stream_pair()
    greeting = await in_pieces(ours, theirs, said, piece)
    assert isinstance(greeting, Greeting)
    assert greeting.events[0] == Packet(first)


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
