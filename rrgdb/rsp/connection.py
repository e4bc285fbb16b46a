"""One debugger's connection: a trio stream on one side, a Session on the engine thread on the other."""

from __future__ import annotations

import logging
import math
from collections import deque

import trio

from rrgdb.errors import one_line
from rrgdb.rsp import packets
from rrgdb.rsp.debuggee import Debuggee, DebuggeeError
from rrgdb.rsp.dispatcher import Dispatcher
from rrgdb.rsp.greeting import RECEIVE_SIZE, Greeting
from rrgdb.rsp.packets import Event, Packet, Rejected, Signal
from rrgdb.rsp.session import Session
from rrgdb.rsp.wire import EIO, PacketError
from rrgdb.serving.calls import CallQueue, tell

log = logging.getLogger("rrgdb.rsp")

QUEUE_LIMIT = 64
"""packets that a peer may send ahead; GDB sends one, LLDB a few"""
CONSOLE_LIMIT = 4 << 20
"""bytes of console output that wait for a slow peer; what comes beyond is dropped, and said"""
FAREWELL_SECONDS = 5.0
"""how long packets that came before the end of the stream, and a refused debugger, are served"""
PARTING_SECONDS = 0.25
MEMORY_SECONDS = 1.0
"""how long a 0x03 that found nothing running is kept for a resume that follows: GDB that steps by itself (software
watchpoints, ``step``) may send it between two of its steps"""
_IGNORED = (Signal.ACK, Signal.JUNK)
REFUSAL = b"E.another debugger is attached to this guest"
_CONSOLE_CHUNK = packets.PACKET_SIZE // 8
"""characters: up to four bytes, each two hex digits"""


class Connection:
    """Reads always, so that 0x03 and the end of the stream are seen while a packet is served; serves in order."""

    def __init__(
        self, stream: trio.abc.HalfCloseableStream, greeting: Greeting, debuggee: Debuggee, engine: CallQueue
    ) -> None:
        self._stream = stream
        self._greeting = greeting
        self._engine = engine
        self._token = trio.lowlevel.current_trio_token()
        self.session = Session(debuggee, self._console)
        self._dispatcher = Dispatcher(self.session)
        self._put, self._events = trio.open_memory_channel[tuple[Event, trio.Event]](QUEUE_LIMIT)
        self._newest = trio.Event()
        """set when what came last has been served"""
        self._newest.set()
        self._interrupted = self._newest
        """set when what the last 0x03 was for has been served"""
        self._insisting = False
        self._remembered = -math.inf
        """when a 0x03 came while nothing was served"""
        self._ended = trio.Event()
        """the peer has closed its side"""
        self._said: deque[str] = deque()
        """console output on its way from the engine thread"""
        self._outbox: list[bytes] = []
        self._outbox_size = 0
        self._dropping = False
        self._wake = trio.Event()
        self._sending = trio.Lock()
        self._last = b""

    async def run(self) -> None:
        """Serve until ``D``, ``k`` or the end of the stream; the debuggee is told in every case."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._read, nursery)
                nursery.start_soon(self._pump)
                await self._work()
                await self._part()
                nursery.cancel_scope.cancel()
        finally:
            with trio.CancelScope(shield=True):
                try:
                    await self._engine.call(self.session.drop)
                except Exception as error:  # the next debugger may still come
                    log.error("detaching: %s", one_line(error))
                    log.debug("detaching", exc_info=error)
                await trio.aclose_forcefully(self._stream)

    async def _read(self, nursery: trio.Nursery) -> None:
        events = self._greeting.events
        try:
            while True:
                for event in events:
                    if event is Signal.INTERRUPT:
                        self._interrupt(nursery)
                    elif event not in _IGNORED and not await self._serve_at_once(event):
                        self._enqueue(event, nursery)
                data = await self._stream.receive_some(RECEIVE_SIZE)
                if not data:
                    break
                events = self._greeting.decoder.feed(bytes(data))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        except trio.WouldBlock:
            log.error("more than %d packets wait: connection closed", QUEUE_LIMIT)
        self._ended.set()
        # What came before the end is still served (a last ``D``), but nothing may run long.
        nursery.cancel_scope.deadline = trio.current_time() + FAREWELL_SECONDS
        self._put.close()
        await self._engine.insist(self._newest)

    async def _serve_at_once(self, event: Event) -> bool:
        """A brief packet behind which nothing waits needs no other task."""
        brief = isinstance(event, Packet) and self._dispatcher.look_up(event.payload).brief
        if not (brief and self._newest.is_set() and self._engine.rests):
            return False
        await self._serve(event, trio.Event())
        return True

    def _enqueue(self, event: Event, nursery: trio.Nursery) -> None:
        served = trio.Event()
        self._put.send_nowait((event, served))
        self._newest = served
        if isinstance(event, Packet) and self._dispatcher.look_up(event.payload).resumes:
            remembered, self._remembered = self._remembered, -math.inf
            if trio.current_time() - remembered < MEMORY_SECONDS:
                self._interrupt(nursery)

    def _interrupt(self, nursery: trio.Nursery) -> None:
        """0x03 is for what came before it; while nothing is served, for a resume that follows at once."""
        self._interrupted = self._newest
        if self._newest.is_set():
            self._remembered = trio.current_time()
        elif not self._insisting:
            self._insisting = True
            nursery.start_soon(self._insist)

    async def _insist(self) -> None:
        while not self._interrupted.is_set():
            await self._engine.insist(self._interrupted)
        self._insisting = False

    async def _work(self) -> None:
        try:
            async for event, served in self._events:
                await self._serve(event, served)
                if self.session.should_close:
                    return
        except trio.BrokenResourceError:
            return

    async def _part(self) -> None:
        """Let the peer read the last reply: closing on unread acks would reset the connection."""
        with trio.move_on_after(PARTING_SECONDS):
            try:
                await self._stream.send_eof()
                await self._ended.wait()
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return

    async def _serve(self, event: Event, served: trio.Event) -> None:
        frame: bytes | None = None
        if isinstance(event, Packet):
            if not self.session.no_ack:
                await self._send(packets.ACK)
            frame = await self._answer(event.payload)
        elif isinstance(event, Rejected):
            if not self.session.no_ack:
                await self._send(packets.ACK)
            frame = self._error(PacketError(event.reason))
        elif not self.session.no_ack:
            await self._send(packets.NACK if event is Signal.BAD_CHECKSUM else self._last)
        elif event is Signal.BAD_CHECKSUM:
            frame = self._error(PacketError("bad checksum"))
        served.set()
        self._post()
        if frame is not None:
            self._last = frame
            await self._send(frame)

    async def _answer(self, payload: bytes) -> bytes | None:
        try:
            call = self._dispatcher.look_up(payload)
            serve = self._engine.call_briefly if call.brief else self._engine.call
            reply = await serve(self._dispatcher.handle, call)
            return None if reply is None else packets.encode(reply)
        except Exception as error:  # mostly a bug of ours: the session goes on
            log.error("packet %r: %s", payload[:80], one_line(error))
            log.debug("packet %r", payload[:80], exc_info=error)
            return self._error(DebuggeeError(one_line(error), EIO))

    def _error(self, error: DebuggeeError) -> bytes:
        return packets.encode(self._dispatcher.error(error))

    async def _send(self, frame: bytes) -> None:
        self._outbox.append(frame)
        await self._flush()

    async def _flush(self) -> None:
        async with self._sending:
            while self._outbox:
                waiting = b"".join(self._outbox)
                self._outbox.clear()
                self._outbox_size = 0
                self._dropping = False
                await self._stream.send_all(waiting)

    async def _pump(self) -> None:
        """Send console output while a packet is served."""
        try:
            while True:
                await self._wake.wait()
                self._wake = trio.Event()
                await self._flush()
        except trio.BrokenResourceError:
            return

    def _console(self, text: str) -> None:
        """On the engine thread. Ordered before the reply of the packet that is being served."""
        self._said.append(text)
        tell(self._token, self._post)

    def _post(self) -> None:
        while self._said:
            self._post_text(self._said.popleft())

    def _post_text(self, text: str) -> None:
        for start in range(0, len(text), _CONSOLE_CHUNK):
            if self._outbox_size > CONSOLE_LIMIT:
                if not self._dropping:
                    log.warning("console output dropped: the debugger does not read it")
                self._dropping = True
                break
            frame = packets.encode(
                b"O" + text[start : start + _CONSOLE_CHUNK].encode("utf-8", "replace").hex().encode()
            )
            self._outbox.append(frame)
            self._outbox_size += len(frame)
        self._wake.set()


async def refuse(stream: trio.abc.Stream, greeting: Greeting) -> None:
    """Answer everything that a second debugger says with an error that names the reason, for a while."""
    answer = packets.ACK + packets.encode(REFUSAL)
    with trio.move_on_after(FAREWELL_SECONDS):
        try:
            await stream.send_all(answer)
            while data := await stream.receive_some(RECEIVE_SIZE):
                if any(isinstance(event, Packet) for event in greeting.decoder.feed(bytes(data))):
                    await stream.send_all(answer)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
    await trio.aclose_forcefully(stream)
