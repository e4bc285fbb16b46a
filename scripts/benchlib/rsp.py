"""A remote-protocol client without acknowledgements, and rrgdb as the server that it talks to."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

from rrgdb_tests.e2e.harness import Server


class Client:
    """Packets out, packets in."""

    def __init__(self, link: socket.socket) -> None:
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._link = link
        self._buffer = b""
        if self.ask(b"QStartNoAckMode") != b"OK":
            raise AssertionError("the stub refuses QStartNoAckMode")
        # The stub may wait for the acknowledgement of that last OK.
        link.sendall(b"+")

    def send(self, packet: bytes) -> None:
        self._link.sendall(b"$" + packet + b"#%02x" % (sum(packet) & 0xFF))

    def interrupted(self) -> bytes:
        """Ctrl-C into a move that was sent; its stop reply."""
        self._link.sendall(b"\x03")
        return self.stop()

    def receive(self) -> bytes:
        while True:
            start = self._buffer.find(b"$")
            end = self._buffer.find(b"#", start + 1)
            if start >= 0 and 0 <= end <= len(self._buffer) - 3:
                packet = self._buffer[start + 1 : end]
                self._buffer = self._buffer[end + 3 :]
                return packet
            data = self._link.recv(65536)
            if not data:
                raise EOFError("the stub closed the connection")
            self._buffer += data

    def ask(self, packet: bytes) -> bytes:
        self.send(packet)
        return self.receive()

    def ok(self, packet: bytes) -> None:
        answer = self.ask(packet)
        if answer != b"OK":
            raise AssertionError(f"{packet!r}: {answer!r}")

    def stop(self) -> bytes:
        """The stop reply that ends a move; console output before it is dropped."""
        while (packet := self.receive()).startswith(b"O"):
            pass
        return packet

    def move(self, packet: bytes) -> bytes:
        self.send(packet)
        return self.stop()

    def monitor(self, line: str) -> str:
        self.send(b"qRcmd," + line.encode().hex().encode())
        text = b""
        while (packet := self.receive()).startswith(b"O") and packet != b"OK":
            text += bytes.fromhex(packet[1:].decode())
        if not packet or packet.startswith(b"E"):
            raise AssertionError(f"monitor {line}: {packet!r}")
        # The answer is the text itself, or OK behind console output.
        return (text if packet == b"OK" else bytes.fromhex(packet.decode())).decode()


@contextlib.contextmanager
def serving(verb: str, *arguments: str | Path) -> Iterator[tuple[Server, Client]]:
    """``rrgdb VERB … ARGUMENTS`` with a client connected to it."""
    with Server(verb, "--gdb", "127.0.0.1:0", "--serial", "null", *arguments) as server, server.connect() as link:
        yield server, Client(link)


def resident(pid: int) -> dict[str, float]:
    """Memory of a process in MiB: ``now`` and at its ``peak``."""
    keys = {"VmRSS": "now", "VmHWM": "peak"}
    rows = (line.split() for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {keys[row[0][:-1]]: int(row[1]) / 1024 for row in rows if row[0][:-1] in keys}
