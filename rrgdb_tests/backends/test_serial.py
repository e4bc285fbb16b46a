"""Serial backends: all bytes go both ways, and nothing waits for a peer that does not come."""

from __future__ import annotations

import errno
import os
import random
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rrgdb.backends import writer
from rrgdb.backends.base import Backend
from rrgdb.backends.serial import SerialError, parse
from rrgdb.backends.writer import IMPATIENT_QUEUE, Writer

LIMIT_S = 30
"""no test waits that long unless it fails"""


class Sink:
    """Takes input on the reader thread."""

    def __init__(self) -> None:
        self.data = bytearray()
        self._changed = threading.Condition()

    def __call__(self, data: bytes) -> None:
        with self._changed:
            self.data += data
            self._changed.notify_all()

    def wait_for(self, data: bytes) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self.data == data, LIMIT_S), bytes(self.data)


Starter = Callable[[str], tuple[Backend, Sink]]


@pytest.fixture
def start() -> Iterator[Starter]:
    """Starts backends and closes them at the end."""
    backends: list[Backend] = []

    def starter(option: str) -> tuple[Backend, Sink]:
        backend, sink = parse(option), Sink()
        backends.append(backend)
        backend.start(sink)
        return backend, sink

    yield starter
    for backend in backends:
        backend.close()


def connect(backend: Backend) -> socket.socket:
    where = backend.describe().removesuffix(" (listening)")
    kind, _, address = where.partition(":")
    if kind == "unix":
        peer = socket.socket(socket.AF_UNIX)
        peer.settimeout(LIMIT_S)
        peer.connect(address)
        return peer
    host, _, port = address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=LIMIT_S)


def receive(peer: socket.socket, length: int) -> bytes:
    data = b""
    while len(data) < length:
        part = peer.recv(length - len(data))
        if not part:
            break
        data += part
    return data


@pytest.mark.parametrize(
    "option",
    [
        "",
        "foo",
        "stdio:",
        "null,server",
        "pty:x",
        "file",
        "file:",
        "file:a\0b",
        "tcp:",
        "tcp:host",
        "tcp:host:",
        "tcp:host:x",
        "tcp:host:0",
        "tcp:host:65536,server",
        "tcp:host:1,client",
        "tcp:ho st:1",
        "tcp:::1:1",
        "tcp:host:1١",
        "unix:",
        "unix:,server",
        "unix:a\0b",
        "file\n",
    ],
)
def test_what_is_no_backend(option: str) -> None:
    with pytest.raises(
        SerialError, match=r"^serial .*: expected stdio, mon:stdio, null, pty, file:PATH, tcp:HOST"
    ) as caught:
        parse(option)
    assert "\n" not in str(caught.value)


def test_what_cannot_be_started(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"mine")
    with socket.socket(socket.AF_UNIX) as listener, socket.create_server(("127.0.0.1", 0)) as taken:
        listener.bind(str(tmp_path / "taken"))
        listener.listen()
        port = taken.getsockname()[1]
        options = {
            f"file:{tmp_path}/no/file": "No such file",
            f"unix:{tmp_path}/no": "No such file",
            f"unix:{tmp_path}/file,server": "exists and is no socket",
            f"unix:{tmp_path}/taken,server": "another process listens there",
            f"unix:{'x' * 200}": "too long",
            f"tcp:127.0.0.1:{port},server": "Address already in use",
        }
        for option, why in options.items():
            backend = parse(option)
            with pytest.raises(SerialError, match=why) as caught:
                backend.start(lambda data: None)
            assert str(caught.value).startswith(f"serial {option}: ")
            backend.close()
    assert (tmp_path / "file").read_bytes() == b"mine"


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_server(kind: str, start: Starter, tmp_path: Path) -> None:
    backend, sink = start("tcp::0,server" if kind == "tcp" else f"unix:{tmp_path}/sock,server")
    if kind == "tcp":
        assert backend.describe().startswith("tcp:127.0.0.1:")
    else:
        assert (tmp_path / "sock").stat().st_mode & 0o777 == 0o600
    backend.write(b"early")
    with connect(backend) as peer:
        assert receive(peer, 5) == b"early"
        peer.sendall(b"in")
        sink.wait_for(b"in")
        with connect(backend) as second:
            assert second.recv(1) == b""
        backend.write(b"more")
        assert receive(peer, 4) == b"more"
    with connect(backend) as peer:
        peer.sendall(b" again")
        sink.wait_for(b"in again")
        big = random.Random(1).randbytes(900_000)
        backend.write(big)
        assert receive(peer, len(big)) == big
        backend.write(b"last")
        backend.close()
        assert receive(peer, 10) == b"last"
    assert backend.dropped == 0
    assert not (tmp_path / "sock").exists()


@pytest.mark.parametrize("attached", [False, True])
def test_no_room_for_a_connection_is_told_once_and_waited_out(
    start: Starter, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, attached: bool
) -> None:
    monkeypatch.setattr("rrgdb.backends.writer.POLL_MS", 1)
    attempts: list[int] = []
    accept = socket.socket.accept

    def full(self: socket.socket) -> tuple[socket.socket, Any]:
        attempts.append(1)
        if len(attempts) == 1 + attached * 2 or len(attempts) > 10:
            return accept(self)
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    backend, sink = start("tcp::0,server")
    if attached:
        attempts.append(0)
        attempts.append(0)
    monkeypatch.setattr(socket.socket, "accept", full)
    with connect(backend) as peer:
        peer.sendall(b"in")
        sink.wait_for(b"in")
        if attached:
            with connect(backend) as second:
                assert second.recv(1) == b""
    if not attached:
        with connect(backend) as peer:
            peer.sendall(b" again")
            sink.wait_for(b"in again")
    lines = [record.getMessage() for record in caplog.records]
    assert lines == ["serial tcp::0,server: cannot accept a connection: Too many open files; trying again"]
    assert len(attempts) > 10


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_client(kind: str, start: Starter, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX if kind == "unix" else socket.AF_INET) as listener:
        listener.settimeout(LIMIT_S)
        listener.bind(str(tmp_path / "sock") if kind == "unix" else ("127.0.0.1", 0))
        listener.listen()
        address = listener.getsockname()
        option = f"unix:{address}" if kind == "unix" else f"tcp:127.0.0.1:{address[1]}"
        backend, sink = start(option)
        assert backend.describe() == option
        peer = listener.accept()[0]
        with peer:
            backend.write(b"out")
            assert receive(peer, 3) == b"out"
            peer.sendall(b"in")
            sink.wait_for(b"in")
        backend.write(b"nobody takes this")
        backend.close()


def test_a_stale_unix_socket_is_replaced(start: Starter, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as old:
        old.bind(str(tmp_path / "sock"))
    backend, sink = start(f"unix:{tmp_path}/sock,server")
    with connect(backend) as peer:
        peer.sendall(b"x")
        sink.wait_for(b"x")


def test_output_that_nobody_takes_is_bounded(start: Starter) -> None:
    backend, _ = start("tcp::0,server")
    blocks = [bytes([number]) * (IMPATIENT_QUEUE // 4) for number in range(7)]
    for block in blocks:
        backend.write(block)
    assert backend.dropped == 3 * IMPATIENT_QUEUE // 4
    with connect(backend) as peer:
        assert receive(peer, IMPATIENT_QUEUE) == b"".join(blocks[3:])


def test_of_one_large_piece_the_oldest_bytes_go(start: Starter) -> None:
    backend, _ = start("tcp::0,server")
    data = random.Random(2).randbytes(3 * IMPATIENT_QUEUE // 2)
    backend.write(data)
    assert backend.dropped == IMPATIENT_QUEUE // 2
    with connect(backend) as peer:
        assert receive(peer, IMPATIENT_QUEUE) == data[-IMPATIENT_QUEUE:]


class Counted(bytes):
    """Counts the bytes that slices of it copy."""

    copied = 0

    def __getitem__(self, index: Any) -> Any:
        found = super().__getitem__(index)
        if isinstance(found, int):
            return found
        Counted.copied += len(found)
        return Counted(found)


def test_a_large_piece_is_not_copied_for_each_block_of_it(tmp_path: Path) -> None:
    data = Counted(random.Random(1).randbytes(4 << 20))
    with (tmp_path / "out").open("wb") as file:
        queue = Writer("test", patient=True)
        queue.start()
        queue.write(data)
        queue.target(file.fileno())
        queue.close()
    assert (tmp_path / "out").read_bytes() == data
    assert Counted.copied <= len(data)


def test_pty(start: Starter) -> None:
    backend, sink = start("pty")
    kind, name = backend.describe().split()
    assert kind == "pty"
    slave = os.open(name, os.O_RDWR | os.O_NOCTTY)
    try:
        backend.write(b"a\nb\r\x04")
        data = b""
        while len(data) < 5:
            data += os.read(slave, 10)
        assert data == b"a\nb\r\x04"
        os.write(slave, b"\x03ls\r\n")
        sink.wait_for(b"\x03ls\r\n")
    finally:
        os.close(slave)
    backend.write(b"x" * 100_000)
    backend.close()


def test_file(start: Starter, tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_bytes(b"old")
    backend, _ = start(f"file:{path}")
    data = random.Random(2).randbytes(3_000_000)
    for at in range(0, len(data), 1000):
        backend.write(data[at : at + 1000])
    backend.close()
    assert path.read_bytes() == data
    backend.write(b"late")
    backend.close()
    assert path.read_bytes() == data


def test_short_writes(start: Starter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = random.Random(3)
    write = writer._write_when_ready

    def some(fd: int, block: memoryview) -> tuple[memoryview, bool]:
        count = source.randrange(len(block) + 1)
        left, failed = write(fd, block[:count])
        return memoryview(bytes(left) + bytes(block[count:])), failed

    monkeypatch.setattr(writer, "_write_when_ready", some)
    backend, _ = start(f"file:{tmp_path}/out")
    blocks = [source.randbytes(source.randrange(9000)) for _ in range(50)]
    for block in blocks:
        backend.write(block)
    backend.close()
    assert (tmp_path / "out").read_bytes() == b"".join(blocks)


def test_null(start: Starter) -> None:
    backend, sink = start("null")
    backend.write(bytes(IMPATIENT_QUEUE * 2))
    backend.close()
    assert (backend.dropped, sink.data) == (0, b"")


STDIO = """
import sys, threading
from rrgdb.backends import serial
from rrgdb.backends.serial import parse
got, done = bytearray(), threading.Event()
def take(data):
    got.extend(data)
    if got.endswith(b"end"):
        done.set()
backend = parse("stdio")
backend.start(take)
assert done.wait(30)
for _ in range(3000):
    backend.write(bytes(got[:-3]) * 10)
backend.close()
"""


def test_stdio() -> None:
    run = subprocess.run(
        [sys.executable, "-c", STDIO], input=b"0123456789end", capture_output=True, check=True, timeout=60
    )
    assert run.stdout == b"0123456789" * 30_000
    assert run.stderr == b""


def test_a_closed_standard_output_does_not_hang() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", STDIO], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        process.stdin.write(b"0123456789end")
        process.stdin.close()
        assert process.wait(60) == 0
        assert process.stderr.read() == b""


def test_close_ends_the_threads(start: Starter) -> None:
    before = threading.active_count()
    for option in ("tcp::0,server", "pty", "null"):
        backend, _ = start(option)
        assert threading.active_count() > before
        backend.close()
        assert threading.active_count() == before


def test_close_before_start() -> None:
    backend = parse("pty")
    backend.write(b"x")
    backend.close()


def test_a_reader_that_waits_for_room_does_not_hold_up_close(start: Starter) -> None:
    arrived, leave = threading.Event(), threading.Event()

    def stuck(data: bytes) -> None:
        arrived.set()
        leave.wait(LIMIT_S)

    backend = parse("tcp::0,server")
    backend.start(stuck)
    with connect(backend) as peer:
        peer.sendall(b"x")
        assert arrived.wait(LIMIT_S)
        backend.close()
        leave.set()
