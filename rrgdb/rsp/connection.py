"""The trio side of one connection: reads, feeds protocol.Protocol, and does what that says."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator
from functools import partial

import trio

from rrgdb.errors import one_line
from rrgdb.rsp import packets
from rrgdb.rsp.debuggee import Debuggee, DebuggeeError
from rrgdb.rsp.dispatcher import Call, Dispatcher
from rrgdb.rsp.greeting import FirstWords, Greeting, StrangerError
from rrgdb.rsp.outbox import Outbox
from rrgdb.rsp.packets import Packet
from rrgdb.rsp.protocol import FAREWELL_SECONDS, PARTING_SECONDS, Action, Farewell, Order, Protocol, Send, Serve
from rrgdb.rsp.session import Session
from rrgdb.rsp.wire import EIO
from rrgdb.serving.calls import CallQueue, tell

log = logging.getLogger("rrgdb.rsp")

RECEIVE_SIZE = 65536
SILENT_SECONDS = 30.0
"""how long a peer may take for its first packet"""
REFUSAL = b"E.another debugger is attached to this guest"


async def greet(stream: trio.abc.Stream, seconds: float = SILENT_SECONDS) -> Greeting | None:
    """Wait for the first packet. None if the peer leaves before. Raises StrangerError."""
    words = FirstWords()
    with trio.move_on_after(seconds):
        try:
            while data := bytes(await stream.receive_some(RECEIVE_SIZE)):
                answer, greeting = words.feed(data)
                if answer:
                    await stream.send_all(answer)
                if greeting is not None:
                    return greeting
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        return None
    raise StrangerError(f"no packet came within {seconds:g} s")


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


class Connection:
    """Three tasks: one reads always, so that 0x03 and the end of the stream are seen while a packet is served; one
    serves, but for brief packets that the first can serve itself; one sends console output meanwhile."""

    def __init__(
        self, stream: trio.abc.HalfCloseableStream, greeting: Greeting, debuggee: Debuggee, engine: CallQueue
    ) -> None:
        self._stream = stream
        self._engine = engine
        self._token = trio.lowlevel.current_trio_token()
        self.session = Session(debuggee, self._console)
        self._dispatcher = Dispatcher(self.session)
        self._protocol = Protocol(greeting, self._dispatcher.look_up, self._dispatcher.error)
        self._nursery: trio.Nursery
        self._hand, self._handed = trio.open_memory_channel[Call](1)
        """from the task that reads to the one that serves"""
        self._relented = trio.Event()
        self._insisting = False
        self._reading = True
        self._read_all = trio.Event()
        self._outbox = Outbox()
        self._said = trio.Event()
        """set when console output waits"""
        self._sending = trio.Lock()

    async def run(self) -> None:
        """Serve until ``D``, ``k`` or the end of the stream; the debuggee is told in every case."""
        try:
            async with trio.open_nursery() as self._nursery:
                self._nursery.start_soon(self._read)
                self._nursery.start_soon(self._pump)
                await self._serve()
                await self._part()
                self._nursery.cancel_scope.cancel()
        finally:
            with trio.CancelScope(shield=True):
                try:
                    await self._engine.call(self.session.drop)
                except Exception as error:  # the next debugger may still come
                    log.error("detaching: %s", one_line(error))
                    log.debug("detaching", exc_info=error)
                await trio.aclose_forcefully(self._stream)

    async def _read(self) -> None:
        try:
            await self._obey(self._protocol.begin(trio.current_time()))
            while self._reading and (data := await self._receive()):
                await self._obey(self._protocol.received(data, trio.current_time()))
            await self._do(self._protocol.ended())
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            await self._do(self._protocol.lost())
        self._read_all.set()

    async def _receive(self) -> bytes:
        """b"" at the end of the stream, however it ends: what came before counts."""
        try:
            return bytes(await self._stream.receive_some(RECEIVE_SIZE))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return b""

    async def _obey(self, steps: Iterator[list[Action]]) -> None:
        for actions in steps:
            call = await self._do(actions)
            while call is not None and self._at_once(call):
                call = await self._do(await self._answer(call, partial(self._engine.call_briefly, moves=call.resumes)))
            if call is not None:
                self._hand.send_nowait(call)

    async def _serve(self) -> None:
        try:
            async for handed in self._handed:
                call: Call | None = handed
                while call is not None:
                    call = await self._do(await self._answer(call, self._engine.call))
        except trio.BrokenResourceError:
            await self._do(self._protocol.lost())

    async def _part(self) -> None:
        """Let the peer read the last reply: closing on unread acks would reset the connection."""
        with trio.move_on_after(PARTING_SECONDS):
            try:
                await self._stream.send_eof()
                await self._read_all.wait()
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return

    async def _do(self, actions: list[Action]) -> Call | None:
        """All but to serve: the packet that is to be served now, if one is."""
        for action in actions:
            if isinstance(action, Send):
                self._outbox.put(action.data)
                await self._flush()
            elif isinstance(action, Serve):
                return action.call
            elif isinstance(action, Farewell):
                self._say_farewell(action.reason)
            elif action is Order.INTERRUPT:
                self._relented = trio.Event()
                self._insisting = True
                self._nursery.start_soon(self._engine.insist, self._relented)
            elif action is Order.RELENT:
                self._relented.set()
                self._insisting = False
            else:
                self._hand.close()
        return None

    def _say_farewell(self, reason: str) -> None:
        if reason:
            log.error("%s", reason)
        self._reading = False
        self._nursery.cancel_scope.deadline = trio.current_time() + FAREWELL_SECONDS

    def _at_once(self, call: Call) -> bool:
        """Whether a packet is served here and now. What an interrupt is for is left to the thread that heeds it."""
        return self._engine.rests and not self._insisting and self._dispatcher.at_once(call)

    async def _answer(self, call: Call, serve: Callable[..., Awaitable[bytes | None]]) -> list[Action]:
        try:
            reply = await serve(self._dispatcher.handle, call)
            frame = None if reply is None else packets.encode(reply)
        except Exception as error:  # mostly a bug of ours: the session goes on
            log.error("packet %r: %s", call.payload[:80], one_line(error))
            log.debug("packet %r", call.payload[:80], exc_info=error)
            frame = packets.encode(self._dispatcher.error(DebuggeeError(one_line(error), EIO)))
        return self._protocol.served(frame, no_ack=self.session.no_ack, last=self.session.should_close)

    async def _flush(self) -> None:
        """Send what waits, and wait for the peer to take it."""
        try:
            self._sending.acquire_nowait()
        except trio.WouldBlock:
            await self._sending.acquire()
        try:
            while waiting := self._outbox.take():
                await self._stream.send_all(waiting)
        finally:
            self._sending.release()

    async def _pump(self) -> None:
        """Send console output while a packet is served."""
        try:
            while True:
                await self._said.wait()
                self._said = trio.Event()
                await self._flush()
        except trio.BrokenResourceError:
            return

    def _console(self, text: str) -> None:
        """On the engine thread. Ordered before the reply of the packet that is being served."""
        self._outbox.say(text)
        tell(self._token, self._post)

    def _post(self) -> None:
        self._outbox.gather()
        self._said.set()
