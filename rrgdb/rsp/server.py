"""The server: listens, takes one debugger at a time, and ends cleanly.

with EngineThread(debuggee.interrupt) as engine:
    run(debuggee, parse_address(":1234"), engine=engine, once=False, on_listening=print)
"""

from __future__ import annotations

import errno
import ipaddress
import logging
import math
import os
import signal
import socket
import stat
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import trio

from rrgdb.rsp.address import Address, AddressError, StdioAddress, TcpAddress, UnixAddress
from rrgdb.rsp.connection import Connection, greet, refuse
from rrgdb.rsp.debuggee import Debuggee
from rrgdb.rsp.greeting import Greeting, StrangerError
from rrgdb.rsp.straight import StraightStream
from rrgdb.serving.calls import CallQueue, tell

log = logging.getLogger("rrgdb.rsp")

OnReady = Callable[[Callable[[], None]], None]
SILENT_LIMIT = 16
"""connections that have said nothing yet; one more makes the oldest give way"""
REFUSED_LIMIT = 16
"""debuggers that are told at the same time that another one is attached"""
GRACE_SECONDS = 0.75
"""how long a new debugger waits for the place of one that is leaving, which may take protocol.PARTING_SECONDS"""
RETRY_SECONDS = 0.1
"""between two attempts to accept a connection while there is no room for it"""
TELL_SECONDS = 10.0
"""without such a failure, after which the next one is told again"""
_BACKLOG = 16


def run(
    debuggee: Debuggee,
    address: Address,
    *,
    engine: CallQueue,
    once: bool = False,
    on_listening: Callable[[str], None] = lambda _: None,
    on_ready: OnReady = lambda _: None,
) -> None:
    """``serve`` in a trio run of its own, until it ends or SIGINT, SIGTERM or SIGHUP comes (unless that
    is ignored, as by nohup). Raises AddressError."""
    trio.run(_until_signal, debuggee, address, engine, once, on_listening, on_ready)


async def _until_signal(
    debuggee: Debuggee,
    address: Address,
    engine: CallQueue,
    once: bool,
    on_listening: Callable[[str], None],
    on_ready: OnReady,
) -> None:
    failure: list[AddressError] = []
    hangups = () if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else (signal.SIGHUP,)
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, *hangups) as signals:
        async with trio.open_nursery() as nursery:

            async def watch() -> None:
                async for _ in signals:
                    nursery.cancel_scope.cancel()

            nursery.start_soon(watch)
            try:
                await serve(debuggee, address, engine=engine, once=once, on_listening=on_listening, on_ready=on_ready)
            except AddressError as error:
                failure.append(error)
            nursery.cancel_scope.cancel()
    if failure:
        raise failure[0]


async def serve(
    debuggee: Debuggee,
    address: Address,
    *,
    engine: CallQueue,
    once: bool = False,
    on_listening: Callable[[str], None] = lambda _: None,
    on_ready: OnReady = lambda _: None,
) -> None:
    """Serve debuggers, one at a time, until one kills the guest, the first has gone (``once``), or cancelled.

    ``on_listening`` gets ``Listening on HOST:PORT`` when a debugger may connect; ``on_ready`` a thread-safe function
    that ends the server as soon as no debugger is attached, whether or not it has ended. Raises AddressError.
    """
    if isinstance(address, StdioAddress):
        await _serve_stdio(debuggee, engine)
        return
    async with _listen(address) as (listeners, name):
        on_listening(f"Listening on {name}")
        server = _Server(debuggee, engine, once)
        token = trio.lowlevel.current_trio_token()
        on_ready(lambda: tell(token, server.finish))
        await server.run(listeners)


class _Server:
    def __init__(self, debuggee: Debuggee, engine: CallQueue, once: bool) -> None:
        self._debuggee = debuggee
        self._engine = engine
        self._once = once
        self._place = trio.Lock()
        """held by the debugger that is attached"""
        self._silent: deque[trio.CancelScope] = deque()
        self._refused = 0
        self._finishing = False
        self._scope = trio.CancelScope()

    async def run(self, listeners: Sequence[trio.SocketListener]) -> None:
        with self._scope:
            async with trio.open_nursery() as nursery:
                for listener in listeners:
                    nursery.start_soon(self._accept, listener, nursery)

    async def _accept(self, listener: trio.SocketListener, nursery: trio.Nursery) -> None:
        failed = -math.inf
        while True:
            try:
                stream = await listener.accept()
            except OSError as error:  # no descriptors, no memory; trio passes over a peer that has gone
                if trio.current_time() - failed > TELL_SECONDS:
                    log.error("cannot accept a connection: %s; trying again", _reason(error))
                failed = trio.current_time()
                await trio.sleep(RETRY_SECONDS)
            else:
                nursery.start_soon(self._take, stream)

    def finish(self) -> None:
        """End when the debugger that is attached has gone, or now if there is none."""
        self._finishing = True
        if not self._place.locked():
            self._scope.cancel()

    async def _take(self, stream: trio.SocketStream) -> None:
        origin = _origin(stream)
        try:
            await self._talk(stream, origin)
        except Exception as error:  # a bug of ours, or no memory: the next debugger may still come
            log.error("connection%s: %r", origin, _first(error))
        finally:
            await trio.aclose_forcefully(stream)

    async def _talk(self, stream: trio.SocketStream, origin: str) -> None:
        greeting = await self._greeted(stream, origin)
        if greeting is None:
            return
        with trio.move_on_after(GRACE_SECONDS) as grace:
            await self._place.acquire()
        if grace.cancelled_caught:
            await self._refuse(stream, greeting)
            return
        _keep_alive(stream.socket)
        connection = Connection(StraightStream(stream), greeting, self._debuggee, self._engine)
        try:
            await connection.run()
        finally:
            self._place.release()
            if self._once or self._finishing or connection.session.killed:
                self._scope.cancel()

    async def _greeted(self, stream: trio.SocketStream, origin: str) -> Greeting | None:
        """None: it is no debugger, and the user has been told."""
        if len(self._silent) >= SILENT_LIMIT:
            self._silent.popleft().cancel()
        with trio.CancelScope() as scope:
            self._silent.append(scope)
            try:
                return await greet(stream)
            except StrangerError as error:
                log.error("connection%s dropped: %s", origin, error)
            finally:
                if scope in self._silent:
                    self._silent.remove(scope)
        if scope.cancelled_caught:
            log.error("connection%s dropped: more than %d have sent no packet", origin, SILENT_LIMIT)
        return None

    async def _refuse(self, stream: trio.SocketStream, greeting: Greeting) -> None:
        if self._refused >= REFUSED_LIMIT:
            return
        self._refused += 1
        try:
            await refuse(stream, greeting)
        finally:
            self._refused -= 1


def _origin(stream: trio.SocketStream) -> str:
    """Where a connection comes from, for a line to the user; '' if that has no name."""
    try:
        peer = stream.socket.getpeername()
    except OSError:
        return ""
    return f" from {TcpAddress(*peer[:2])}" if isinstance(peer, tuple) else ""


def _first(error: Exception) -> Exception:
    """The error that a nursery has wrapped."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error


def _keep_alive(sock: trio.socket.SocketType) -> None:
    """A debugger whose machine vanished gives its place up after two minutes."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if sock.family != socket.AF_UNIX:
        for option, value in (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 20), ("TCP_KEEPCNT", 3)):
            if hasattr(socket, option):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


async def _serve_stdio(debuggee: Debuggee, engine: CallQueue) -> None:
    """The protocol on file descriptors 0 and 1; whatever else prints to 1 meanwhile goes to 2."""
    read, write, kept = os.dup(0), os.dup(1), os.dup(1)
    os.dup2(2, 1)
    try:
        stream = trio.StapledStream(trio.lowlevel.FdStream(write), trio.lowlevel.FdStream(read))
        greeting = await greet(stream, math.inf)
        if greeting is not None:
            await Connection(stream, greeting, debuggee, engine).run()
    except StrangerError as error:
        log.error("standard input: %s", error)
    finally:
        os.dup2(kept, 1)
        os.close(kept)


@asynccontextmanager
async def _listen(address: TcpAddress | UnixAddress) -> AsyncIterator[tuple[list[trio.SocketListener], str]]:
    listeners, name = await _listen_tcp(address) if isinstance(address, TcpAddress) else await _listen_unix(address)
    try:
        yield listeners, name
    finally:
        with trio.CancelScope(shield=True):
            for listener in listeners:
                await listener.aclose()
        if isinstance(address, UnixAddress):
            os.unlink(address.path)


def _reason(error: OSError) -> str:
    return "already in use" if error.errno == errno.EADDRINUSE else (error.strerror or str(error)).lower()


async def _listen_tcp(address: TcpAddress) -> tuple[list[trio.SocketListener], str]:
    try:
        listeners = await trio.open_tcp_listeners(address.port, host=address.host, backlog=_BACKLOG)
    except OSError as error:
        raise AddressError(f"cannot listen on {address}: {_reason(error)}") from None
    if address.port == 0:
        # a name with several addresses would get another port for each
        for listener in listeners[1:]:
            await listener.aclose()
        del listeners[1:]
    host, port = listeners[0].socket.getsockname()[:2]
    if not all(_is_loopback(listener) for listener in listeners):
        log.warning("whoever reaches %s can read and change the guest: there is no password", TcpAddress(host, port))
    return listeners, str(TcpAddress(host, port))


def _is_loopback(listener: trio.SocketListener) -> bool:
    return ipaddress.ip_address(listener.socket.getsockname()[0].partition("%")[0]).is_loopback


async def _listen_unix(address: UnixAddress) -> tuple[list[trio.SocketListener], str]:
    sock = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        await _remove_stale(address.path)
        await sock.bind(address.path)
        os.chmod(address.path, stat.S_IRUSR | stat.S_IWUSR)
        sock.listen(_BACKLOG)
    except OSError as error:
        sock.close()
        raise AddressError(f"cannot listen on {address}: {_reason(error)}") from None
    return [trio.SocketListener(sock)], str(address)


async def _remove_stale(path: str) -> None:
    """A socket that nobody listens on any more may be replaced; nothing else may."""
    if not (os.path.exists(path) and stat.S_ISSOCK(os.stat(path).st_mode)):
        return
    try:
        await (await trio.open_unix_socket(path)).aclose()
    except ConnectionRefusedError:
        os.unlink(path)
