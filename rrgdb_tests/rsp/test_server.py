"""The server over real sockets."""

from __future__ import annotations

import errno
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from rrgdb.rsp import connection, outbox, packets, protocol, server
from rrgdb.rsp.address import AddressError, StdioAddress, TcpAddress, UnixAddress, parse_address
from rrgdb.rsp.packets import Decoder, Event, Packet, Signal, encode
from rrgdb.rsp.protocol import QUEUE_LIMIT
from rrgdb.rsp.server import SILENT_LIMIT, run, serve
from rrgdb.serving.calls import EngineThread
from rrgdb_tests.rsp.fake import FOREVER, FakeDebuggee

LOCAL = TcpAddress("127.0.0.1", 0)


class Client:
    """A debugger that acknowledges nothing by itself."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.decoder = Decoder()
        self.events: list[Event] = []

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def event(self) -> Event | None:
        """The next event, None at the end of the stream."""
        with trio.fail_after(10):
            while not self.events:
                data = await self.stream.receive_some(65536)
                if not data:
                    return None
                self.events = self.decoder.feed(bytes(data))
        return self.events.pop(0)

    async def ask(self, payload: bytes) -> bytes | None:
        """Send a packet; the next packet that comes."""
        await self.send(encode(payload))
        return await self.reply()

    async def reply(self) -> bytes | None:
        while not isinstance(event := await self.event(), Packet):
            if event is None:
                return None
        return event.payload


class Running:
    def __init__(self, fake: FakeDebuggee, engine: EngineThread, address: str) -> None:
        self.fake = fake
        self.engine = engine
        self.address = address
        self.ended = trio.Event()

    async def connect(self) -> Client:
        if self.address.startswith("unix:"):
            return Client(await trio.open_unix_socket(self.address.removeprefix("unix:")))
        host, _, port = self.address.rpartition(":")
        return Client(await trio.open_tcp_stream(host, int(port)))


@asynccontextmanager
async def serving(
    fake: FakeDebuggee, address: TcpAddress | UnixAddress = LOCAL, *, once: bool = False
) -> AsyncIterator[Running]:
    send, receive = trio.open_memory_channel[str](1)
    with EngineThread(fake.interrupt) as engine:
        async with trio.open_nursery() as nursery:
            running = Running(fake, engine, "")

            async def serve_until_end() -> None:
                await serve(fake, address, engine=engine, once=once, on_listening=send.send_nowait)
                running.ended.set()

            nursery.start_soon(serve_until_end)
            running.address = (await receive.receive()).removeprefix("Listening on ")
            yield running
            nursery.cancel_scope.cancel()


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(10):
        while not condition():
            await trio.sleep(0.001)


async def test_acks_until_told_not_to(fake: FakeDebuggee) -> None:
    async with serving(fake) as running:
        client = await running.connect()
        await client.send(b"+" + encode(b"qC"))
        assert [await client.event(), await client.event()] == [Signal.ACK, Packet(b"QC1")]
        await client.send(b"+" + encode(b"QStartNoAckMode"))
        assert [await client.event(), await client.event()] == [Signal.ACK, Packet(b"OK")]
        await client.send(b"+" + encode(b"qC"))
        assert await client.event() == Packet(b"QC1")
        assert client.events == []


async def test_bad_checksum_is_asked_for_again(fake: FakeDebuggee) -> None:
    async with serving(fake) as running:
        client = await running.connect()
        await client.send(b"$qC#00")
        assert await client.event() is Signal.NACK
        await client.send(encode(b"qC"))
        assert [await client.event(), await client.event()] == [Signal.ACK, Packet(b"QC1")]
        await client.send(b"-")
        assert await client.event() == Packet(b"QC1")


async def test_bad_checksum_without_acks_is_an_error(fake: FakeDebuggee) -> None:
    async with serving(fake) as running:
        client = await running.connect()
        await client.ask(b"QStartNoAckMode")
        await client.send(b"$qC#00")
        assert await client.event() == Packet(b"E16")


async def test_oversized_packet_is_answered_and_survived(fake: FakeDebuggee) -> None:
    async with serving(fake) as running:
        client = await running.connect()
        assert await client.ask(b"X0,0:" + b"x" * 200_000) == b"E16"
        assert await client.ask(b"qC") == b"QC1"


async def test_packets_one_byte_at_a_time(fake: FakeDebuggee) -> None:
    async with serving(fake) as running:
        client = await running.connect()
        for byte in encode(b"m80000000,4"):
            await client.send(bytes((byte,)))
        assert await client.reply() == b"13051500"


async def test_interrupt_while_the_guest_runs() -> None:
    fake = FakeDebuggee(FOREVER)
    async with serving(fake) as running:
        client = await running.connect()
        await client.ask(b"QStartNoAckMode")
        await client.send(encode(b"c"))
        await until(fake.running.is_set)
        await client.send(b"\x03")
        assert (await client.reply() or b"").startswith(b"T02")
        assert (await client.ask(b"s") or b"").startswith(b"T05")


async def test_interrupt_that_is_sent_together_with_the_resume() -> None:
    fake = FakeDebuggee(FOREVER)
    async with serving(fake) as running:
        client = await running.connect()
        for _ in range(20):
            await client.send(encode(b"c") + b"\x03")
            assert (await client.reply() or b"").startswith(b"T02")


async def test_interrupt_between_two_resumes_is_for_the_second(fake: FakeDebuggee) -> None:
    fake.end = FOREVER
    async with serving(fake) as running:
        client = await running.connect()
        await client.ask(b"QStartNoAckMode")
        assert (await client.ask(b"s") or b"").startswith(b"T05")
        await client.send(b"\x03\x03")
        assert await client.ask(b"qC") == b"QC1"
        assert (await client.ask(b"c") or b"").startswith(b"T02")


async def test_interrupt_that_no_resume_follows_at_once_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "MEMORY_SECONDS", 0.0)
    async with serving(FakeDebuggee(100)) as running:
        client = await running.connect()
        await client.ask(b"QStartNoAckMode")
        await client.send(b"\x03")
        assert await client.ask(b"qC") == b"QC1"
        assert (await client.ask(b"c") or b"").startswith(b"T05replaylog:end")


async def test_interrupt_is_for_what_came_before_it(fake: FakeDebuggee) -> None:
    fake.end = FOREVER
    async with serving(fake) as running:
        client = await running.connect()
        await client.ask(b"QStartNoAckMode")
        await client.send(encode(b"c") + b"\x03" + encode(b"vCont;r80000000,80000008"))
        assert (await client.reply() or b"").startswith(b"T02")
        assert (await client.reply() or b"").startswith(b"T05")
        await client.send(encode(b"c") + b"\x03" + encode(b"c") + b"\x03")
        assert (await client.reply() or b"").startswith(b"T02")
        assert (await client.reply() or b"").startswith(b"T02")


async def test_console_output_comes_before_the_stop(fake: FakeDebuggee) -> None:
    fake.say = "searching\n" * 3
    async with serving(fake) as running:
        client = await running.connect()
        assert await client.ask(b"s") == b"O" + fake.say.encode().hex().encode()
        assert (await client.reply() or b"").startswith(b"T05")


async def test_console_output_comes_while_the_guest_runs() -> None:
    fake = FakeDebuggee(FOREVER)
    fake.say = "searching"
    async with serving(fake) as running:
        client = await running.connect()
        assert (await client.ask(b"c") or b"").startswith(b"O")
        await until(fake.running.is_set)
        await client.send(b"\x03")
        assert (await client.reply() or b"").startswith(b"T02")


async def test_second_debugger_is_told_and_the_first_undisturbed(fake: FakeDebuggee) -> None:
    async with serving(fake) as running:
        first = await running.connect()
        assert await first.ask(b"qC") == b"QC1"
        second = await running.connect()
        for packet in (b"qSupported:multiprocess+", b"vMustReplyEmpty"):
            assert await second.ask(packet) == b"E.another debugger is attached to this guest"
        assert await first.ask(b"qC") == b"QC1"
        await second.stream.aclose()
        assert await first.ask(b"qC") == b"QC1"
        assert fake.calls == ["attached"]


async def test_second_debugger_is_sent_away(fake: FakeDebuggee, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "FAREWELL_SECONDS", 0.01)
    async with serving(fake) as running:
        first = await running.connect()
        await first.ask(b"qC")
        second = await running.connect()
        assert await second.ask(b"qC") == b"E.another debugger is attached to this guest"
        assert await second.event() is None


async def say_and_listen(running: Running, said: bytes) -> bytes:
    """All that the server answers until it closes the connection."""
    client = await running.connect()
    heard = b""
    with trio.fail_after(10), suppress(trio.BrokenResourceError):
        await client.send(said)
        while data := await client.stream.receive_some(65536):
            heard += data
    return heard


@pytest.mark.parametrize("once", [False, True])
async def test_a_stranger_disturbs_nobody(fake: FakeDebuggee, caplog: pytest.LogCaptureFixture, once: bool) -> None:
    page = b"POST / HTTP/1.1\r\n\r\n" + encode(b"k")
    async with serving(fake, once=once) as running:
        assert await say_and_listen(running, page) == b""
        debugger = await running.connect()
        assert await debugger.ask(b"qC") == b"QC1"
        assert await say_and_listen(running, page) == b""
        assert await say_and_listen(running, b"+" + page) == b""
        assert await debugger.ask(b"qC") == b"QC1"
        assert fake.calls == ["attached"]
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 3
    assert all(line.startswith("connection from 127.0.0.1:") and line.count("\n") == 0 for line in lines)
    assert all("dropped: b'" in line for line in lines)


async def test_noise_behind_the_first_packet_is_passed_over(fake: FakeDebuggee) -> None:
    async with serving(fake) as running:
        client = await running.connect()
        await client.send(encode(b"qC") + b"\r\nnoise" + encode(b"qAttached"))
        assert [await client.reply(), await client.reply()] == [b"QC1", b"1"]


async def test_a_silent_connection_does_not_keep_the_place(fake: FakeDebuggee) -> None:
    async with serving(fake) as running:
        silent = await running.connect()
        await silent.send(b"+")
        debugger = await running.connect()
        assert await debugger.ask(b"qC") == b"QC1"
        assert await silent.ask(b"qC") == b"E.another debugger is attached to this guest"


async def test_a_silent_connection_is_dropped_and_a_debugger_may_rest(
    fake: FakeDebuggee, caplog: pytest.LogCaptureFixture, mock_clock: MockClock
) -> None:
    async with serving(fake) as running:
        debugger, silent = await running.connect(), await running.connect()
        assert await debugger.ask(b"qC") == b"QC1"
        await wait_all_tasks_blocked(0.01)
        mock_clock.jump(29.9)
        await wait_all_tasks_blocked(0.01)
        assert caplog.records == []
        mock_clock.jump(0.2)
        assert await silent.event() is None
        mock_clock.jump(1e6)
        await wait_all_tasks_blocked(0.01)
        assert await debugger.ask(b"qC") == b"QC1"
    assert [record.getMessage().partition(" dropped: ")[2] for record in caplog.records] == [
        "no packet came within 30 s"
    ]


async def test_many_silent_connections_do_not_keep_a_debugger_out(
    fake: FakeDebuggee, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(fake) as running:
        silent = [await running.connect() for _ in range(SILENT_LIMIT + 3)]
        debugger = await running.connect()
        assert await debugger.ask(b"qC") == b"QC1"
        for client in silent[:3]:
            assert await client.event() is None
        assert await silent[-1].ask(b"qC") == b"E.another debugger is attached to this guest"
    assert all("have sent no packet" in record.getMessage() for record in caplog.records)


async def test_drop_mid_packet_and_reconnect(fake: FakeDebuggee) -> None:
    async with serving(fake) as running:
        client = await running.connect()
        assert await client.ask(b"Z0,80000004,4") == b"OK"
        await client.send(b"$m8000")
        await client.stream.aclose()
        await until(lambda: "detached resume=False" in fake.calls)
        again = await running.connect()
        assert await again.ask(b"qC") == b"QC1"
        assert fake.points == set()
        assert fake.calls == ["attached", "detached resume=False", "attached"]


async def test_drop_while_the_guest_runs_stops_it() -> None:
    fake = FakeDebuggee(FOREVER)
    async with serving(fake) as running:
        client = await running.connect()
        await client.send(encode(b"c"))
        await until(fake.running.is_set)
        await client.stream.aclose()
        await until(lambda: "detached resume=False" in fake.calls)
        assert not fake.running.is_set()
        again = await running.connect()
        assert (await again.ask(b"?") or b"").startswith(b"T02")


async def test_last_word_before_the_end_of_the_stream_counts(fake: FakeDebuggee) -> None:
    async with serving(fake) as running:
        client = await running.connect()
        await client.send(encode(b"D"))
        await client.stream.aclose()
        await until(lambda: len(fake.calls) == 2)
        assert fake.calls == ["attached", "detached resume=True"]


async def test_detach_closes_and_the_next_may_come(fake: FakeDebuggee) -> None:
    async with serving(fake) as running:
        client = await running.connect()
        assert await client.ask(b"D") == b"OK"
        assert await client.event() is None
        # the old side is still open
        again = await running.connect()
        assert await again.ask(b"qC") == b"QC1"


async def test_nothing_is_served_after_the_last_word(fake: FakeDebuggee) -> None:
    """Not even what would be served where it is read, while the peer's side is still open: ``?`` stops a live guest."""
    asked: list[str] = []
    last_stop = fake.last_stop
    fake.last_stop = lambda: (asked.append("?"), last_stop())[1]  # type: ignore[method-assign]
    async with serving(fake) as running:
        client = await running.connect()
        await client.ask(b"QStartNoAckMode")
        assert await client.ask(b"D") == b"OK"
        await until(lambda: running.engine.rests)
        await client.send(encode(b"?"))
        assert await client.event() is None
        again = await running.connect()
        assert await again.ask(b"qC") == b"QC1"
        assert asked == []
        assert await again.ask(b"?") is not None
        assert asked == ["?"]


async def test_coming_back_at_once_is_not_refused(fake: FakeDebuggee) -> None:
    async with serving(fake) as running:
        for _ in range(30):
            client = await running.connect()
            assert await client.ask(b"qC") == b"QC1"
            await client.stream.aclose()


async def test_once_ends_the_server(fake: FakeDebuggee) -> None:
    async with serving(fake, once=True) as running:
        client = await running.connect()
        assert await client.ask(b"D") == b"OK"
        with trio.fail_after(10):
            await running.ended.wait()
        with pytest.raises(OSError, match="all attempts"):
            await running.connect()


async def test_kill_ends_the_server(fake: FakeDebuggee) -> None:
    async with serving(fake) as running:
        client = await running.connect()
        await client.send(encode(b"k"))
        with trio.fail_after(10):
            await running.ended.wait()
        assert fake.calls == ["attached", "kill"]


async def test_cancelled_server_stops_the_guest_and_says_goodbye() -> None:
    fake = FakeDebuggee(FOREVER)
    async with serving(fake) as running:
        client = await running.connect()
        await client.send(encode(b"c"))
        await until(fake.running.is_set)
    assert fake.calls == ["attached", "c", "detached resume=False"]


async def test_what_moves_or_changes_the_guest_runs_on_the_engine_thread(fake: FakeDebuggee) -> None:
    async with serving(fake) as running:
        client = await running.connect()
        for packet in (b"s", b"P0=0100000000000000", b"g", b"c", b"bc", b"g", b"bs"):
            await client.ask(packet)
    assert fake.called_on == {"engine"}


ONE_STEP = (b"s", b"vCont;s", b"vCont;s:1;c", b"vCont;s:p1.1;c:p1.-1")


async def called_on(fake: FakeDebuggee, running: Running, client: Client, packet: bytes) -> set[str]:
    """The threads on which a packet is served while the engine thread rests."""
    while not running.engine.rests:
        await trio.sleep(0.001)
    fake.called_on.clear()
    await client.ask(packet)
    return set(fake.called_on)


async def test_a_step_that_takes_no_time_is_made_where_it_is_read(fake: FakeDebuggee) -> None:
    fake.at_once = True
    here = {threading.current_thread().name}
    async with serving(fake) as running:
        client = await running.connect()
        await client.ask(b"?")
        for packet in ONE_STEP:
            assert await called_on(fake, running, client, packet) == here, packet
        for packet in (b"vCont;r80000000,80000004:p1.1", b"vCont;s:p1.9;c", b"bs", b"S05", b"c"):
            assert await called_on(fake, running, client, packet) == {"engine"}, packet
        fake.at_once = False
        for packet in ONE_STEP:
            assert await called_on(fake, running, client, packet) == {"engine"}, packet


async def test_what_a_step_made_at_once_says_comes_before_its_reply(fake: FakeDebuggee) -> None:
    fake.at_once, fake.say = True, "said\n"
    async with serving(fake) as running:
        client = await running.connect()
        await client.ask(b"?")
        for _ in range(3):
            await client.send(encode(b"vCont;s:p1.1;c:p1.-1"))
            assert await client.reply() == b"O" + b"said\n".hex().encode()
            assert (await client.reply() or b"").startswith(b"T05")


async def test_a_step_that_an_interrupt_is_for_is_left_to_the_engine_thread(fake: FakeDebuggee) -> None:
    fake.at_once = True
    async with serving(fake) as running:
        client = await running.connect()
        await client.ask(b"?")
        while not running.engine.rests:
            await trio.sleep(0.001)
        fake.called_on.clear()
        await client.send(b"\x03")
        assert (await client.ask(b"vCont;s:p1.1;c:p1.-1") or b"")[:1] == b"T"
        assert fake.called_on == {"engine"}


async def test_a_reply_that_the_system_does_not_take_at_once_arrives_whole(fake: FakeDebuggee) -> None:
    """A debugger that asks for a lot, and reads it late."""
    async with serving(fake) as running:
        client = await running.connect()
        await client.ask(b"?")
        wanted = await client.ask(b"qXfer:features:read:target.xml:0,ffff")
        number = 2000
        for _ in range(number // 100):
            await client.send(encode(b"qXfer:features:read:target.xml:0,ffff") * 100)
            await trio.sleep(0)
        for _ in range(number):
            assert await client.reply() == wanted


async def test_brief_packets_are_served_where_they_are_read_unless_others_wait(fake: FakeDebuggee) -> None:
    where: list[str] = []
    read: Callable[..., bytes] = fake.read_registers

    def noted(*arguments: int) -> bytes:
        try:
            where.append(trio.lowlevel.current_task().name.rpartition(".")[2])
        except RuntimeError:
            where.append(threading.current_thread().name)
        return read(*arguments)

    fake.read_registers = noted  # type: ignore[method-assign]
    async with serving(fake) as running:
        client = await running.connect()
        await client.ask(b"s")
        await until(lambda: running.engine.rests)  # a moment after the reply
        assert await client.ask(b"g") is not None
        await client.send(encode(b"s") + encode(b"g"))
        assert [(await client.reply() or b"")[:1] for _ in range(2)] == [b"T", b"0"]
    assert where[0] == "_read"
    assert where[1] != "_read"


async def test_peer_that_sends_ahead_without_end_is_dropped(caplog: pytest.LogCaptureFixture) -> None:
    fake = FakeDebuggee(FOREVER)
    async with serving(fake) as running:
        client = await running.connect()
        await client.send(encode(b"c") + encode(b"g") * (QUEUE_LIMIT + 20))
        with trio.fail_after(10):
            while await client.event() is not None:
                pass
        await until(lambda: "detached resume=False" in fake.calls)
    assert "packets wait" in caplog.text


async def test_bug_is_logged_in_one_line_and_the_session_goes_on(
    fake: FakeDebuggee, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: int) -> bytes:
        raise RuntimeError("oops")

    fake.read_registers = fail  # type: ignore[method-assign]  # a guest with a bug
    async with serving(fake) as running:
        client = await running.connect()
        assert await client.ask(b"g") == b"E05"
        assert await client.ask(b"qC") == b"QC1"
    (told,) = [record.getMessage() for record in caplog.records]
    assert told.startswith("packet b'g': internal error (RuntimeError: oops)")


async def test_want_of_memory_is_an_error_reply(
    fake: FakeDebuggee, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> bytes:
        raise MemoryError

    encode_reply = packets.encode

    def encode_unless_long(reply: bytes) -> bytes:
        return fail() if len(reply) > 1000 else encode_reply(reply)

    monkeypatch.setattr(packets, "encode", encode_unless_long)
    fake.read_register = fail  # type: ignore[method-assign]
    async with serving(fake) as running:
        client = await running.connect()
        assert await client.ask(b"p1") == b"E05"
        assert await client.ask(b"m80000000,1000") == b"E05"
        assert await client.ask(b"s") == b"E05"
        assert await client.ask(b"qC") == b"QC1"
    assert [record.getMessage() for record in caplog.records] == [
        f"packet b'{packet}': not enough memory" for packet in ("p1", "m80000000,1000", "s")
    ]


async def test_want_of_memory_where_no_packet_is_served_costs_the_connection_alone(
    fake: FakeDebuggee, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(fake) as running:
        client = await running.connect()
        assert await client.ask(b"qC") == b"QC1"

        def fail(*_: object) -> list[Event]:
            monkeypatch.undo()
            raise MemoryError

        monkeypatch.setattr(Decoder, "feed", fail)
        await client.send(encode(b"qC"))
        await until(lambda: "detached resume=False" in fake.calls)
        again = await running.connect()
        assert await again.ask(b"qC") == b"QC1"
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("connection from 127.0.0.1:")
    assert line.endswith(": MemoryError()")


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
async def test_no_room_for_connections_is_told_once_and_waited_out(
    fake: FakeDebuggee, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    accept = trio.SocketListener.accept
    monkeypatch.setattr(server, "RETRY_SECONDS", 0.001)
    attempts: list[bool] = []

    async def full(self: trio.SocketListener) -> trio.SocketStream:
        if len(attempts) == 1 or len(attempts) > 20:
            attempts.append(True)
            return await accept(self)
        attempts.append(False)
        await trio.lowlevel.checkpoint()
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(trio.SocketListener, "accept", full)
    async with serving(fake) as running:
        for _ in range(2):
            client = await running.connect()
            assert await client.ask(b"qC") == b"QC1"
            await client.stream.aclose()
    lines = [record.getMessage() for record in caplog.records]
    assert lines == [f"cannot accept a connection: {os.strerror(number).lower()}; trying again"]


async def test_the_end_of_the_server_may_be_asked_for_after_its_end(
    fake: FakeDebuggee, caplog: pytest.LogCaptureFixture
) -> None:
    """A guest that ran on by itself may end while, or after, the server does."""
    asked = threading.Event()
    finish: list[Callable[[], None]] = []

    def idle(_quiet: bool) -> None:
        asked.wait()
        finish[0]()

    with EngineThread(lambda: None, idle) as engine:
        await trio.to_thread.run_sync(
            partial(
                trio.run, partial(serve, fake, LOCAL, engine=engine, on_ready=lambda end: (finish.append(end), end()))
            )
        )
        asked.set()
    assert caplog.records == []


async def test_console_output_that_nobody_reads_is_dropped(
    fake: FakeDebuggee, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "CONSOLE_LIMIT", 1000)
    fake.say = "".join(map(chr, range(33, 127))) * 2000
    async with serving(fake) as running:
        client = await running.connect()
        parts = [await client.ask(b"s")]
        while not (parts[-1] or b"").startswith(b"T05"):
            parts.append(await client.reply())
    assert 1 < len(parts) < 2 * len(fake.say) // 1000
    assert caplog.text.count("console output dropped") == 1


async def test_unix_socket(fake: FakeDebuggee, tmp_path: Path) -> None:
    path = tmp_path / "gdb.sock"
    async with serving(fake, UnixAddress(str(path))) as running:
        assert running.address == f"unix:{path}"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        client = await running.connect()
        assert await client.ask(b"qC") == b"QC1"
        with EngineThread() as engine:
            with pytest.raises(AddressError, match="already in use"):
                await serve(fake, UnixAddress(str(path)), engine=engine)
            assert path.exists()
    assert not path.exists()


async def test_stale_unix_socket_is_replaced_and_a_file_is_not(fake: FakeDebuggee, tmp_path: Path) -> None:
    stale = tmp_path / "stale.sock"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(stale))
    async with serving(fake, UnixAddress(str(stale))) as running:
        assert await (await running.connect()).ask(b"qC") == b"QC1"
    file = tmp_path / "file"
    file.write_text("precious")
    with EngineThread() as engine, pytest.raises(AddressError, match="already in use"):
        await serve(fake, UnixAddress(str(file)), engine=engine)
    assert file.read_text() == "precious"


async def test_port_in_use_and_bad_host(fake: FakeDebuggee) -> None:
    async with serving(fake) as running:
        port = int(running.address.rpartition(":")[2])
        with EngineThread() as engine:
            with pytest.raises(AddressError, match=rf"cannot listen on 127\.0\.0\.1:{port}: already in use"):
                await serve(fake, TcpAddress("127.0.0.1", port), engine=engine)
            with pytest.raises(AddressError, match=r"cannot listen on 192\.0\.2\.1:0"):
                await serve(fake, TcpAddress("192.0.2.1", 0), engine=engine)


async def test_warning_beyond_loopback(fake: FakeDebuggee, caplog: pytest.LogCaptureFixture) -> None:
    async with serving(fake):
        assert caplog.records == []
    async with serving(fake, TcpAddress("0.0.0.0", 0)):
        assert "there is no password" in caplog.text


@pytest.mark.parametrize(
    ("text", "address"),
    [
        (":1234", TcpAddress("127.0.0.1", 1234)),
        ("localhost:0", TcpAddress("localhost", 0)),
        ("[::1]:1234", TcpAddress("::1", 1234)),
        ("unix:/tmp/x", UnixAddress("/tmp/x")),
        ("stdio", StdioAddress()),
    ],
)
def test_addresses(text: str, address: object) -> None:
    parsed = parse_address(text)
    assert parsed == address
    assert parse_address(str(parsed)) == parsed


@pytest.mark.parametrize("text", ["", "1234", ":", ":65536", "a:b", "unix:", "::1:1234", "host:1 2"])
def test_bad_addresses(text: str) -> None:
    with pytest.raises(AddressError, match="is expected"):
        parse_address(text)


SERVER = """
import sys
from rrgdb.rsp.address import parse_address
from rrgdb.serving.calls import EngineThread
from rrgdb.rsp.server import run
from rrgdb_tests.rsp.fake import FakeDebuggee
fake = FakeDebuggee(1 << 62)
with EngineThread(fake.interrupt) as engine:
    run(fake, parse_address(sys.argv[1]), engine=engine, on_listening=lambda line: print(line, flush=True))
print("ended", fake.calls, flush=True)
"""


def start(address: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", SERVER, address], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_ctrl_c_of_the_server_is_a_clean_end(number: signal.Signals) -> None:
    with start(":0") as process:
        assert process.stdout is not None
        line = process.stdout.readline().decode()
        with socket.create_connection(("127.0.0.1", int(line.rpartition(":")[2]))) as sock:
            sock.sendall(encode(b"c"))
            assert sock.recv(1) == b"+"
            process.send_signal(number)
            try:
                out, err = process.communicate(timeout=20)
            finally:
                process.kill()
    assert err == b""
    assert process.returncode == 0
    assert out.startswith(b"ended ['attached'")


def test_stdio() -> None:
    with start("stdio") as process:
        out, err = process.communicate(encode(b"qC") + encode(b"D"), timeout=20)
    assert err == b""
    assert out.startswith(b"+$QC1#c5+$OK#9a")
    assert out.endswith(b"ended ['attached', 'detached resume=True']\n")


def test_stdio_that_begins_with_something_else() -> None:
    with start("stdio") as process:
        out, err = process.communicate(b"hello" + encode(b"D"), timeout=20)
    assert err == b"standard input: b'hello$D#44' is nothing that a debugger sends\n"
    assert out == b"ended []\n"


def test_run_raises_address_errors(fake: FakeDebuggee) -> None:
    with EngineThread() as engine, pytest.raises(AddressError, match="cannot listen"):
        run(fake, UnixAddress(os.devnull), engine=engine)
