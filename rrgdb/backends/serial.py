"""Serial backends: where the bytes of a guest's serial port go to and come from.

======================== ==============================================================================
``stdio``                standard input and output; a terminal's modes are left alone
``mon:stdio``            the same with keys of rrgdb's own (``keys``); a terminal is in raw mode meanwhile
``null``                 nowhere
``file:PATH``            output to a file, which is replaced
``tcp:HOST:PORT``        connect; with ``,server`` listen (no HOST: 127.0.0.1; PORT 0: any free one)
``unix:PATH``            connect to a Unix socket; with ``,server`` listen
``pty``                  a new pseudo terminal in raw mode
======================== ==============================================================================

A reader thread calls ``on_input``; a writer thread empties a bounded queue, so that ``write`` never waits. While nobody
is connected output waits in the queue; what does not fit pushes out the oldest bytes, which ``dropped`` counts.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import math
import os
import re
import select
import socket
import stat
import termios
import threading
import time
import tty
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rrgdb.backends.base import Backend, OnInput
from rrgdb.backends.keys import Keys, Reply
from rrgdb.backends.writer import BLOCK, LINGER_SECONDS, POLL_MS, Writer
from rrgdb.errors import Error
from rrgdb.recording.directory import recording_of

log = logging.getLogger("rrgdb.serial")

_FULL = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS)
_TELL_S = 10.0
"""without a failure for want of room, after which the next one is told again"""


class SerialError(Error):
    """A serial backend cannot be parsed or started: one line with the option's value."""


class _Serial:
    """A ``Backend`` on file descriptors."""

    _patient = False

    def __init__(self, option: str) -> None:
        self._option = option
        self._writer = Writer(option, patient=self._patient)
        self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC)
        self._reader: threading.Thread | None = None
        self._started = self._closed = False

    @property
    def dropped(self) -> int:
        return self._writer.dropped

    def describe(self) -> str:
        return self._option

    def start(self, on_input: OnInput) -> None:
        """SerialError if it cannot be opened."""
        try:
            self._open()
        except OSError as error:
            raise SerialError(f"serial {self._option}: {error.strerror or error}") from error
        self._started = True
        self._writer.start()
        self._reader = threading.Thread(
            target=self._read_all, args=(on_input,), name=f"{self._option} reader", daemon=True
        )
        self._reader.start()

    def write(self, data: bytes) -> None:
        self._writer.write(bytes(data))

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._started:
            self._writer.close()
        os.close(self._wake_write)
        if self._reader is not None:
            # It ends at once unless on_input waits for room; then it ends with the door, and needs nothing of ours.
            self._reader.join(LINGER_SECONDS)
        if self._reader is None or not self._reader.is_alive():
            os.close(self._wake_read)
        self._release()

    def _open(self) -> None:
        """Open descriptors; OSError."""

    def _release(self) -> None:
        """Close descriptors."""

    def _read_all(self, on_input: OnInput) -> None:
        """Body of the reader thread."""

    def _wait(self, *fds: int, timeout_ms: int | None = None) -> set[int]:
        """Wait until some of ``fds`` are readable; empty once the backend is closing, or after ``timeout_ms``."""
        if self._closed:
            return set()
        poller = select.poll()
        for fd in (self._wake_read, *fds):
            poller.register(fd, select.POLLIN)
        ready = {fd for fd, _ in poller.poll(timeout_ms)}
        return set() if self._wake_read in ready else ready

    def _pump(self, fd: int, on_input: OnInput) -> None:
        """Pass on what ``fd`` delivers until it ends or the backend is closing."""
        while self._wait(fd):
            try:
                data = os.read(fd, BLOCK)
            except BlockingIOError:
                continue
            except OSError:
                return
            if not data:
                return
            on_input(data)


class _Null(_Serial):
    def write(self, data: bytes) -> None:
        pass


class _Stdio(_Serial):
    _patient = True

    def _open(self) -> None:
        self._writer.target(1)

    def _read_all(self, on_input: OnInput) -> None:
        self._pump(0, on_input)


class _MonitoredStdio(_Stdio):
    def __init__(self, option: str) -> None:
        super().__init__(option)
        self._keys = Keys(self.write)
        self._modes: list[Any] | None = None

    def connect(self, end: Callable[[], None], command: Callable[[str, Reply], None]) -> None:
        self._keys.connect(end, command)

    def _open(self) -> None:
        super()._open()
        if os.isatty(0):
            self._modes = termios.tcgetattr(0)
            tty.setraw(0)
            # What a terminal does to output is the guest's as it was.
            raw = termios.tcgetattr(0)
            raw[1] = self._modes[1]
            termios.tcsetattr(0, termios.TCSANOW, raw)

    def _read_all(self, on_input: OnInput) -> None:
        def feed(data: bytes) -> None:
            if passed := self._keys.feed(data):
                on_input(passed)

        self._pump(0, feed)

    def _release(self) -> None:
        if self._modes is not None:
            with contextlib.suppress(termios.error):
                termios.tcsetattr(0, termios.TCSADRAIN, self._modes)


class _File(_Serial):
    _patient = True

    def __init__(self, option: str, path: str) -> None:
        super().__init__(option)
        self._path = path
        self._fd = -1

    def _open(self) -> None:
        owner = recording_of(Path(self._path))
        if owner is not None:
            raise OSError(errno.EINVAL, f"the file belongs to the recording {owner}, which would be lost")
        self._fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        self._writer.target(self._fd)

    def _release(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)


class _Pty(_Serial):
    def __init__(self, option: str) -> None:
        super().__init__(option)
        self._fds: tuple[int, ...] = ()
        self._name = ""

    def describe(self) -> str:
        return f"pty {self._name}" if self._name else "pty"

    def _open(self) -> None:
        # The slave stays open here: a master without slave would fail until somebody comes.
        master, slave = self._fds = os.openpty()
        tty.setraw(slave)
        os.set_blocking(master, False)
        self._name = os.ttyname(slave)
        self._writer.target(master)

    def _read_all(self, on_input: OnInput) -> None:
        self._pump(self._fds[0], on_input)

    def _release(self) -> None:
        for fd in self._fds:
            os.close(fd)


class _Socket(_Serial):
    """A stream socket, TCP (host, port) or Unix (path). One peer at a time: a server turns others away meanwhile and
    waits for the next one then."""

    def __init__(self, option: str, address: tuple[str, int] | str, *, server: bool) -> None:
        super().__init__(option)
        self._address = address
        self._server = server
        self._socket: socket.socket | None = None
        self._full = -math.inf
        """when there was no room for a connection last"""

    def describe(self) -> str:
        if not self._server or self._socket is None:
            return self._option
        if isinstance(self._address, str):
            return f"unix:{self._address} (listening)"
        host, port = self._socket.getsockname()[:2]
        return f"tcp:{f'[{host}]' if ':' in host else host}:{port} (listening)"

    def _open(self) -> None:
        if self._server:
            self._socket = _listen(self._address)
            return
        if isinstance(self._address, str):
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                self._socket.connect(self._address)
            except OSError:
                self._socket.close()
                raise
        else:
            self._socket = socket.create_connection(self._address, timeout=5)
        self._adopt(self._socket)

    def _adopt(self, peer: socket.socket) -> None:
        peer.setblocking(False)
        if peer.family != socket.AF_UNIX:
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._writer.target(peer.fileno())

    def _read_all(self, on_input: OnInput) -> None:
        assert self._socket is not None
        if not self._server:
            self._pump(self._socket.fileno(), on_input)
            self._writer.target(None)
            return
        while self._wait(self._socket.fileno()):
            peer = self._accept(self._socket)
            if peer is None:
                continue
            with contextlib.suppress(OSError), peer:
                try:
                    self._adopt(peer)
                    self._serve(self._socket, peer.fileno(), on_input)
                finally:
                    self._writer.target(None)

    def _accept(self, listener: socket.socket) -> socket.socket | None:
        """None if who came has gone; and after a moment if there is no room for one more."""
        try:
            return listener.accept()[0]
        except OSError as e:
            if e.errno in _FULL:
                if time.monotonic() - self._full > _TELL_S:
                    log.error("serial %s: cannot accept a connection: %s; trying again", self._option, e.strerror)
                self._full = time.monotonic()
                self._wait(timeout_ms=POLL_MS)
            return None

    def _serve(self, listener: socket.socket, peer: int, on_input: OnInput) -> None:
        while ready := self._wait(peer, listener.fileno()):
            # The peer first: if it has gone, whoever knocks is the next one.
            if peer in ready:
                data = os.read(peer, BLOCK)
                if not data:
                    return
                on_input(data)
            if listener.fileno() in ready and (other := self._accept(listener)) is not None:
                other.close()

    def _release(self) -> None:
        if self._socket is not None:
            self._socket.close()
            if self._server and isinstance(self._address, str):
                with contextlib.suppress(OSError):
                    os.unlink(self._address)


def _listen(address: tuple[str, int] | str) -> socket.socket:
    if isinstance(address, str):
        _remove_stale_socket(address)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    else:
        family = socket.getaddrinfo(*address, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
        listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        if not isinstance(address, str):
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        if isinstance(address, str):
            os.chmod(address, 0o600)
        listener.listen(1)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


def _remove_stale_socket(path: str) -> None:
    """Remove a Unix socket that nobody listens to any more; OSError if somebody does or it is another file."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise FileExistsError(errno.EEXIST, "the path exists and is no socket")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
    raise OSError(errno.EADDRINUSE, "another process listens there")


def parse(option: str) -> Backend:
    """The backend that an option describes, not started; SerialError if it describes none."""
    kind, _, rest = option.partition(":")
    if option in _PLAIN:
        return _PLAIN[option](option)
    if kind == "file" and rest and "\0" not in rest:
        return _File(option, rest)
    where = rest.removesuffix(",server")
    server = where != rest
    if kind == "unix" and where and "\0" not in where:
        return _Socket(option, where, server=server)
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]*)):([0-9]{1,5})", where)
    if kind == "tcp" and match and (int(match[3]) or server) and int(match[3]) < 65536:
        return _Socket(option, (match[1] or match[2] or "127.0.0.1", int(match[3])), server=server)
    forms = "stdio, mon:stdio, null, pty, file:PATH, tcp:HOST:PORT[,server] or unix:PATH[,server]"
    raise SerialError(f"serial {ascii(option)[1:-1][:80]}: expected {forms}")


_PLAIN: dict[str, Callable[[str], Backend]] = {
    "stdio": _Stdio,
    "mon:stdio": _MonitoredStdio,
    "null": _Null,
    "pty": _Pty,
}
